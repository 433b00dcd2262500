//! What must hold of all bytes that the other process may send during a takeover. Their inputs are in
//! `proxy/fuzz/corpus/takeover_messages`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use weft_fuzz::Target;

use super::message::{self, LENGTH_BYTES, Message, MessageError};
use crate::limits;

/// Descriptors that an offer of a test may have: a process may open some hundreds.
const DESCRIPTORS_MAX: usize = 64;

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let one = || OwnedFd::from(UnixStream::pair().unwrap().0);
    (0..count).map(|_| one()).collect()
}

/// An input is a message without its length.
#[test]
fn a_message_of_the_other_process_is_written_as_it_was_read_and_gives_each_descriptor_one_place() {
    let property = |input: &[u8]| {
        let (read, _) = match message::decode(input) {
            Ok(read) => read,
            Err(MessageError::Version(_)) => return "another version",
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return "not understood";
            }
        };
        let written = message::encode(&read).unwrap();
        let (length, json) = written.split_first_chunk::<LENGTH_BYTES>().unwrap();
        assert_eq!(message::length(*length), Ok(json.len()));
        let (again, own_revision) = message::decode(json).unwrap();
        assert_eq!(again, read);
        assert!(own_revision >= message::TAKES);
        let Message::Offer(offer) = read else {
            return "no offer";
        };
        let named = offer.descriptors();
        if named > DESCRIPTORS_MAX {
            assert!(offer.assign(Vec::new()).is_err());
            return "an offer of many";
        }
        let found = named + 1;
        let refused = offer.assign(descriptors(found)).unwrap_err();
        assert_eq!(refused, MessageError::Descriptors { found, named });
        let estate = offer.assign(descriptors(named)).unwrap();
        let mesh = estate.mesh.iter().map(|(sockets, elders)| {
            let relays = elders.iter().map(|elder| elder.relays.len());
            sockets.len() + relays.sum::<usize>()
        });
        let listeners = estate.listeners.iter().map(|(_, sockets)| sockets.len());
        let all = mesh.chain(listeners).sum::<usize>() + estate.admin.len();
        assert_eq!(all, named, "each has one place");
        "an offer"
    };
    let words = &[
        "\"version\":1",
        "\"version\":2",
        "\"revision\":",
        "\"message\":",
        "\"offer\":{",
        "\"request\":{",
        "\"ready\"",
        "\"yours\"",
        "\"taken\"",
        "\"settled\"",
        "\"refusal\":",
        "\"workers\":",
        "\"elders\":[[",
        "\"epochs\":[",
        "null",
        "unix:/a",
        "[::]:0",
        "127.0.0.1:1",
        "{}",
        "[]",
        "true",
        "256",
        "\\u0000",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "takeover_messages").words(words);
    let seen = target.rounds(10_000).run(property);
    seen.expect("an offer")
        .expect("an offer of many")
        .expect("no offer")
        .expect("another version")
        .expect("not understood");
}

/// An input is the length of a message.
#[test]
fn a_message_is_as_long_as_it_says_or_longer_than_any() {
    let property = |input: &[u8]| {
        let Some(bytes) = input.first_chunk::<LENGTH_BYTES>() else {
            return "cut";
        };
        match message::length(*bytes) {
            Ok(length) => {
                assert!(length <= limits::TAKEOVER_MESSAGE_BYTES_MAX);
                assert_eq!(u32::try_from(length).unwrap().to_be_bytes(), *bytes);
                "a length"
            }
            Err(error) => {
                assert!(matches!(error, MessageError::TooLong(_)));
                "too long"
            }
        }
    };
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "takeover_lengths");
    target
        .rounds(1000)
        .run(property)
        .expect("a length")
        .expect("too long");
}
