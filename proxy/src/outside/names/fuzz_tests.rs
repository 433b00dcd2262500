//! What must hold of all bytes that a resolver may send. Their inputs are in `proxy/fuzz/corpus/dns_answers`.

use weft_fuzz::Target;

use super::message::{Kind, Said, answer};
use crate::limits;

/// An input is an answer to the question for the IPv4 addresses of `a.example`, whose id is 7.
#[test]
fn an_answer_of_a_resolver_gives_addresses_of_the_kind_that_was_asked_for_or_nothing() {
    let property = |input: &[u8]| match answer(input, 7, "a.example", Kind::A) {
        None => "no answer",
        Some(Said::Truncated) => "truncated",
        Some(Said::Failed(code)) => {
            assert!((1..4096).contains(&code));
            "failed"
        }
        Some(Said::Addresses(addresses, life)) => {
            assert!(addresses.iter().all(std::net::IpAddr::is_ipv4));
            assert!(addresses.len() <= limits::NAME_RECORDS_MAX);
            assert!(life.as_secs() <= u64::from(i32::MAX.unsigned_abs()));
            match addresses.is_empty() {
                true => "no address",
                false => "addresses",
            }
        }
    };
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "dns_answers");
    target
        .run(property)
        .expect("no answer")
        .expect("truncated")
        .expect("failed")
        .expect("no address")
        .expect("addresses");
}
