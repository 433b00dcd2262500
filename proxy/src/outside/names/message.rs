//! What a question for the addresses of a name asks, and what an answer says of them (RFC 1035, RFC 6891);
//! the bytes of both are hickory's. Pure; what comes is not to be trusted.
//!
//! One question is asked, for A or AAAA. Of the answer only records count whose owner is the name that was
//! asked for, or one to which the CNAMEs of the same answer lead from it.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::limits;

/// The kind of addresses that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 (RFC 1035 section 3.4.1).
    A,
    /// IPv6 (RFC 3596).
    Aaaa,
}

impl Kind {
    const fn code(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
        }
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// These addresses, for so long; none if the name has none of that kind.
    Addresses(Vec<IpAddr>, Duration),
    /// The answer did not fit, and has to be asked for over TCP.
    Truncated,
    /// The server refused or failed, with this code (RFC 6895 section 2.3).
    Failed(u16),
}

/// Bytes of the payload over UDP that is asked for (RFC 9715): no larger datagram needs fragments.
const PAYLOAD: u16 = 1232;

/// The question for one kind of addresses of a name, which is in lower case and has no dot at its end. None
/// if it is no name.
pub(super) fn question(id: u16, host: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message
        .add_query(Query::query(absolute(host)?, kind.code()))
        .set_edns(edns);
    message.to_vec().ok()
}

/// No list of domains to search is put behind it.
fn absolute(host: &str) -> Option<Name> {
    let is_name = !host.is_empty() && host.split('.').all(|label| !label.is_empty());
    is_name
        .then(|| Name::from_ascii(format!("{host}.")).ok())
        .flatten()
}

/// Reads what a server sent. None if it is no answer to this question: another one may follow.
pub(super) fn answer(bytes: &[u8], id: u16, host: &str, kind: Kind) -> Option<Said> {
    let message = Message::from_vec(bytes).ok()?;
    let is_response = message.metadata.message_type == MessageType::Response;
    let [asked] = message.queries.as_slice() else {
        return None;
    };
    // What is answered has to be what was asked: an answer to another question is not believed.
    let name = absolute(host)?;
    let is_ours = asked.name == name
        && asked.query_type == kind.code()
        && asked.query_class == DNSClass::IN
        && message.metadata.id == id;
    if !is_response || !is_ours || message.answers.len() > limits::NAME_RECORDS_MAX {
        return None;
    }
    if message.metadata.truncation {
        return Some(Said::Truncated);
    }
    let code = message.metadata.response_code;
    if code == ResponseCode::NXDomain {
        return Some(Said::Addresses(Vec::new(), Duration::ZERO));
    }
    if code != ResponseCode::NoError {
        return Some(Said::Failed(code.into()));
    }
    Some(addresses(&message.answers, name, kind))
}

/// The addresses to which the records lead from a name.
fn addresses(records: &[Record], mut name: Name, kind: Kind) -> Said {
    let mut lives = Vec::new();
    for _ in 0..=limits::NAME_ALIASES_MAX {
        let alias = records.iter().find_map(|record| {
            let RData::CNAME(to) = &record.data else {
                return None;
            };
            (record.name == name).then(|| (to.0.clone(), life(record)))
        });
        let Some((to, life)) = alias else { break };
        name = to;
        lives.push(life);
    }
    let mut addresses = Vec::new();
    let of_name = |record: &&Record| record.name == name && record.dns_class == DNSClass::IN;
    for record in records.iter().filter(of_name) {
        let address = match (&record.data, kind) {
            (RData::A(four), Kind::A) => IpAddr::V4(four.0),
            (RData::AAAA(six), Kind::Aaaa) => IpAddr::V6(six.0),
            (_, Kind::A | Kind::Aaaa) => continue,
        };
        addresses.push(address);
        lives.push(life(record));
    }
    let least = lives.into_iter().min().unwrap_or_default();
    let life = if addresses.is_empty() { 0 } else { least };
    Said::Addresses(addresses, Duration::from_secs(life.into()))
}

/// How long a record holds, in seconds.
fn life(record: &Record) -> u32 {
    // RFC 2181 section 8: one with the highest bit set is 0.
    match record.ttl > i32::MAX.unsigned_abs() {
        true => 0,
        false => record.ttl,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const CLASS_IN: u16 = 1;
    const TYPE_CNAME: u16 = 5;
    const CODE_NO_SUCH_NAME: u16 = 3;

    /// An answer with these records: owner, type, life, data.
    pub(in super::super) fn built(
        question: &[u8],
        flags: u16,
        records: &[(&[u8], u16, u32, &[u8])],
    ) -> Vec<u8> {
        let end = question.len() - 11;
        let mut message = question[..2].to_vec();
        message.extend((0x8180 | flags).to_be_bytes());
        let count = u16::try_from(records.len()).unwrap();
        for count in [1, count, 0, 0] {
            message.extend(count.to_be_bytes());
        }
        message.extend(&question[12..end]);
        for (owner, kind, life, data) in records {
            message.extend(*owner);
            message.extend(kind.to_be_bytes());
            message.extend(CLASS_IN.to_be_bytes());
            message.extend(life.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    /// The name of the question.
    const ASKED: &[u8] = &[0xc0, 12];

    fn said(flags: u16, records: &[(&[u8], u16, u32, &[u8])]) -> Option<Said> {
        let question = question(7, "a.example", Kind::A).unwrap();
        answer(&built(&question, flags, records), 7, "a.example", Kind::A)
    }

    fn addresses(found: &[[u8; 4]], seconds: u64) -> Option<Said> {
        let found = found.iter().map(|one| IpAddr::from(*one)).collect();
        Some(Said::Addresses(found, Duration::from_secs(seconds)))
    }

    #[test]
    fn the_addresses_of_the_name_hold_for_the_least_of_their_lives() {
        let records = [
            (ASKED, 1, 60, &[192, 0, 2, 1][..]),
            (ASKED, 1, 30, &[192, 0, 2, 2]),
        ];
        assert_eq!(
            said(0, &records),
            addresses(&[[192, 0, 2, 1], [192, 0, 2, 2]], 30)
        );
        assert_eq!(said(0, &[]), addresses(&[], 0));
        assert_eq!(said(CODE_NO_SUCH_NAME, &[]), addresses(&[], 0));
        assert_eq!(said(2, &[]), Some(Said::Failed(2)));
        assert_eq!(said(0x0200, &[]), Some(Said::Truncated));
        let negative = [(ASKED, 1, u32::MAX, &[192, 0, 2, 1][..])];
        assert_eq!(said(0, &negative), addresses(&[[192, 0, 2, 1]], 0));
    }

    #[test]
    fn aliases_lead_on_and_records_of_other_names_do_not_count() {
        let other: &[u8] = b"\x01b\x07example\x00";
        let records = [
            (ASKED, TYPE_CNAME, 20, other),
            (other, 1, 60, &[192, 0, 2, 9]),
            (ASKED, 1, 60, &[192, 0, 2, 1]),
            (b"\x01c\x07example\x00", 1, 60, &[192, 0, 2, 3]),
        ];
        assert_eq!(said(0, &records), addresses(&[[192, 0, 2, 9]], 20));
        // Of the other family.
        assert_eq!(said(0, &[(ASKED, 28, 60, &[0; 16][..])]), addresses(&[], 0));
        // Of a length that is none: nothing of such an answer counts.
        assert_eq!(said(0, &[(ASKED, 1, 60, &[192, 0, 2][..])]), None);
        // Two names that stand for each other.
        let round = [
            (ASKED, TYPE_CNAME, 20, other),
            (other, TYPE_CNAME, 20, ASKED),
        ];
        assert_eq!(said(0, &round), addresses(&[], 0));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let asked = question(7, "a.example", Kind::A).unwrap();
        let good = built(&asked, 0, &[(ASKED, 1, 60, &[192, 0, 2, 1])]);
        assert!(answer(&good, 7, "a.example", Kind::A).is_some());
        assert_eq!(answer(&good, 8, "a.example", Kind::A), None);
        assert_eq!(answer(&good, 7, "b.example", Kind::A), None);
        assert_eq!(answer(&good, 7, "a.example", Kind::Aaaa), None);
        assert_eq!(answer(&asked, 7, "a.example", Kind::A), None);
        // In another case it is the same name (0x20).
        let mut upper = good.clone();
        upper[13] = b'A';
        assert_eq!(
            answer(&upper, 7, "a.example", Kind::A),
            answer(&good, 7, "a.example", Kind::A)
        );
    }

    #[test]
    fn broken_answers_end_and_say_nothing() {
        let asked = question(7, "a.example", Kind::A).unwrap();
        let alias: &[u8] = b"\x01b\xc0\x0c";
        let good = built(
            &asked,
            0,
            &[
                (ASKED, TYPE_CNAME, 9, alias),
                (ASKED, 1, 60, &[192, 0, 2, 1]),
            ],
        );
        assert!(answer(&good, 7, "a.example", Kind::A).is_some());
        for end in 0..good.len() {
            assert_eq!(answer(&good[..end], 7, "a.example", Kind::A), None, "{end}");
        }
        // Each byte with each value: it may be read in any way, and must end.
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut changed = good.clone();
                changed[at] = value;
                let _ = answer(&changed, 7, "a.example", Kind::A);
            }
        }
        // A pointer to itself, and one that leads forward.
        for to in [good.len() - 16, good.len() - 1] {
            let mut looped = good.clone();
            let at = good.len() - 16;
            looped[at] = 0xc0;
            looped[at + 1] = u8::try_from(to).unwrap();
            assert_eq!(answer(&looped, 7, "a.example", Kind::A), None, "{to}");
        }
    }

    #[test]
    fn only_names_are_asked_for() {
        let asked = question(1, "a.example", Kind::Aaaa).unwrap();
        assert_eq!(asked[..12], [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(asked[12..27], *b"\x01a\x07example\x00\x00\x1c\x00\x01");
        for bad in ["", "a..b", &"a".repeat(64), &"a.".repeat(127)] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
    }
}
