//! What must hold of all bytes that a config service may send as a table or a message, and of all that may
//! stand in the file of the last good table. Their inputs are in `config/fuzz/corpus`.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use weft_fuzz::Target;
use weft_transport::identity::TrustDomain;

use super::cache::{self, CacheError};
use super::held::HeldTables;
use super::merge::tests::table;
use super::state::State;
use crate::limits;
use crate::proto::{self, ServiceMessage};
use crate::table::{Revision, Table};

const WORDS: &[&str] = &[
    "\"schema\":1",
    "\"services\":{",
    "\"routes\":[",
    "\"endpoints\":[",
    "\"traffic\":{",
    "\"authorization\":{",
    "\"forbidden\":",
    "null",
    "{}",
    "[]",
    "\"\"",
    "\"0s\"",
    "\"1h\"",
    "\"1000000000000h\"",
    "\"p95\"",
    "-0.0",
    "1e-9",
    "100",
    "\\u0000",
    "\\ud800",
    "spiffe://demo.test/",
    "0.0.0.0:0",
    "[::]:1",
    "\"Allow\"",
    "\"Deny\"",
];

fn target(name: &'static str) -> Target {
    Target::new(env!("CARGO_MANIFEST_DIR"), name).words(WORDS)
}

fn own() -> TrustDomain {
    "demo.test".parse().unwrap()
}

/// The table that the sidecar runs before each input.
fn running() -> Arc<Table> {
    Arc::new(table(5, &["10.0.0.1:1"]))
}

fn read(json: &[u8]) -> serde_json::Result<Table> {
    serde_json::from_slice(json)
}

/// An input is a table as it comes over the wire.
#[test]
fn a_table_is_run_as_it_was_written_or_refused_with_a_reason_while_the_last_one_stays() {
    let property = |input: &[u8]| {
        let before = running();
        let mut held = HeldTables::of(Some(Arc::clone(&before)));
        let message = proto::Table {
            json: input.to_vec().into(),
            settling: input.len().is_multiple_of(2),
            revision: Some((&table(6, &[]).revision).into()),
            withheld: Vec::new(),
        };
        match held.offer(&message, &own()) {
            Err(refused) => {
                assert!(!refused.reason.is_empty() && refused.revision.is_some());
                assert!(refused.reason.chars().count() <= limits::REFUSAL_LENGTH_MAX);
                assert_eq!(held.newest(), Some(&before));
                let (_, outcome) = held.take_answer().unwrap();
                assert_eq!(outcome, Err(refused.reason));
                return if read(input).is_ok() {
                    "unfit"
                } else {
                    "not understood"
                };
            }
            Ok(offered) => {
                let table = read(input).unwrap();
                assert_eq!(table.revision, offered.revision);
                let written = serde_json::to_vec(&table).unwrap();
                let again = read(&written).unwrap();
                assert_eq!(again, table);
                assert_eq!(serde_json::to_vec(&again).unwrap(), written);
            }
        }
        let newest = Arc::clone(held.newest().unwrap());
        let is_new = newest.revision != before.revision;
        held.settle(&newest.revision, &Err("no".into()));
        if is_new {
            assert_eq!(held.newest().unwrap().revision, before.revision);
            "refused later"
        } else {
            "the same again"
        }
    };
    let seen = target("tables").longest(8000).rounds(10_000).run(property);
    seen.expect("not understood")
        .expect("unfit")
        .expect("refused later")
        .expect("the same again");
}

/// An input is what stands in the file. Of one with a wrong checksum the rest is looked at, too.
#[test]
fn the_file_of_the_last_good_table_has_what_was_written_or_is_not_used() {
    let property = |input: &[u8]| {
        let (said, table) = match cache::parse(input) {
            Ok(table) => ("whole", Ok(table)),
            Err(CacheError::Checksum) => {
                let end = input.iter().position(|byte| *byte == b'\n');
                let json = end.map_or(input, |end| &input[end + 1..]);
                let mended = [cache::checksum(json).as_bytes(), b"\n", json].concat();
                ("damaged", cache::parse(&mended))
            }
            Err(error) => ("whole", Err(error)),
        };
        match table {
            Ok(table) => {
                let again = cache::parse(&cache::text(&table).unwrap()).unwrap();
                assert_eq!(again, table);
                format!("{said}, a table")
            }
            Err(error) => {
                assert!(matches!(error, CacheError::Json(_)), "{error}");
                format!("{said}, not understood")
            }
        }
    };
    let seen = target("table_files")
        .longest(8000)
        .rounds(10_000)
        .run(property);
    seen.expect("whole, a table")
        .expect("damaged, a table")
        .expect("damaged, not understood");
}

/// An input is a message of the config service to a sidecar.
#[test]
fn a_message_of_the_config_service_changes_endpoints_or_offers_a_table_or_changes_nothing() {
    let property = |input: &[u8]| {
        let Ok(message) = ServiceMessage::decode(input) else {
            return "no message";
        };
        let again = ServiceMessage::decode(message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(again, message);
        let mut state = State::new(Some(running()), BTreeMap::new());
        state.begin_stream();
        let before = state.newest().cloned().unwrap();
        let taken = state.take(message, &own());
        let newest = state.newest().cloned().unwrap();
        let answer = state.take_answer();
        match taken {
            Err(reason) => {
                assert!(!reason.is_empty() && newest == before && answer.is_none());
                "ends the stream"
            }
            Ok(()) if newest == before => "the same",
            Ok(()) if newest.revision == before.revision => {
                assert!(newest.services.keys().eq(before.services.keys()));
                "other endpoints"
            }
            Ok(()) => {
                let older = |revision: &Revision| {
                    revision.store == before.revision.store
                        && revision.number < before.revision.number
                };
                assert!(!older(&newest.revision) && answer.is_none());
                "another table"
            }
        }
    };
    let seen = target("service_messages")
        .longest(8000)
        .rounds(20_000)
        .run(property);
    seen.expect("no message")
        .expect("ends the stream")
        .expect("the same")
        .expect("other endpoints")
        .expect("another table");
}
