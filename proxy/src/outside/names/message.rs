//! Messages of DNS (RFC 1035, RFC 6891), as far as a question for addresses needs them. Pure; what comes is
//! not to be trusted.
//!
//! One question is asked, for A or AAAA. Of the answer only records count whose owner is the name that was
//! asked for, or one to which the CNAMEs of the same answer lead from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

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
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
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
    /// The server refused or failed, with this code (RFC 1035 section 4.1.1).
    Failed(u8),
}

/// Bytes of the payload over UDP that is asked for (RFC 9715): no larger datagram needs fragments.
const PAYLOAD: u16 = 1232;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_OPT: u16 = 41;
const CODE_NO_SUCH_NAME: u8 = 3;
const HEADER_LENGTH: usize = 12;

/// The question for one kind of addresses of a name, which is in lower case and has no dot at its end. None
/// if it is no name.
pub(super) fn question(id: u16, host: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER_LENGTH + host.len() + 17);
    message.extend(id.to_be_bytes());
    // Recursion desired.
    message.extend([1, 0]);
    for count in [1_u16, 0, 0, 1] {
        message.extend(count.to_be_bytes());
    }
    let begin = message.len();
    for label in host.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=63).contains(&length) {
            return None;
        }
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    if message.len() - begin > limits::DNS_NAME_LENGTH_MAX {
        return None;
    }
    for field in [kind.code(), CLASS_IN] {
        message.extend(field.to_be_bytes());
    }
    // OPT: the root, its type, the payload in place of the class, no flags, no options.
    message.push(0);
    for field in [TYPE_OPT, PAYLOAD, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    Some(message)
}

/// Reads what a server sent. None if it is no answer to this question: another one may follow.
pub(super) fn answer(bytes: &[u8], id: u16, host: &str, kind: Kind) -> Option<Said> {
    let mut reader = Reader { bytes, at: 0 };
    let (told, flags) = (reader.u16()?, reader.u16()?);
    let is_response = flags & 0x8000 != 0;
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if told != id || !is_response || counts[0] != 1 {
        return None;
    }
    // What is answered has to be what was asked: an answer to another question is not believed.
    let asked = reader.name()?;
    let (asked_kind, class) = (reader.u16()?, reader.u16()?);
    if asked != host || asked_kind != kind.code() || class != CLASS_IN {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Said::Truncated);
    }
    match u8::try_from(flags & 0xf).unwrap_or(u8::MAX) {
        0 => {}
        CODE_NO_SUCH_NAME => return Some(Said::Addresses(Vec::new(), Duration::ZERO)),
        code => return Some(Said::Failed(code)),
    }
    let mut records = Vec::new();
    for _ in 0..counts[1] {
        // One that cannot be read ends the answer: what came before it may not be all of it.
        records.push(reader.record()?);
        if records.len() > limits::NAME_RECORDS_MAX {
            return None;
        }
    }
    let mut name = host.to_owned();
    let mut life = u32::MAX;
    for _ in 0..=limits::DNS_ALIASES_MAX {
        let alias = records.iter().find_map(|record| match &record.data {
            Data::Alias(to) if record.owner == name => Some((to.clone(), record.life)),
            Data::Alias(_) | Data::Address(_) | Data::Other => None,
        });
        let Some((to, of_alias)) = alias else { break };
        (name, life) = (to, life.min(of_alias));
    }
    let mut addresses = Vec::new();
    for record in &records {
        if let Data::Address(address) = record.data
            && record.owner == name
            && address.is_ipv4() == (kind == Kind::A)
        {
            addresses.push(address);
            life = life.min(record.life);
        }
    }
    let life = if addresses.is_empty() { 0 } else { life };
    Some(Said::Addresses(addresses, Duration::from_secs(life.into())))
}

struct Record {
    owner: String,
    life: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
    Other,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let life = u32::from_be_bytes(self.take()?);
        // RFC 2181 section 8: one with the highest bit set is 0.
        let life = if life > i32::MAX.unsigned_abs() {
            0
        } else {
            life
        };
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length)?;
        self.bytes.get(self.at..end)?;
        let data = match (kind, class, length) {
            (1, CLASS_IN, 4) => Data::Address(IpAddr::V4(Ipv4Addr::from(self.take::<4>()?))),
            (28, CLASS_IN, 16) => Data::Address(IpAddr::V6(Ipv6Addr::from(self.take::<16>()?))),
            (TYPE_CNAME, CLASS_IN, _) => Data::Alias(self.name()?),
            (_, _, _) => Data::Other,
        };
        self.at = end;
        Some(Record { owner, life, data })
    }

    /// A name in lower case without a dot at its end. Pointers only lead back, so that no name has an end
    /// that it contains itself.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut after) = (self.at, None);
        for _ in 0..=limits::DNS_POINTERS_MAX {
            let begin = at;
            loop {
                let length = usize::from(*self.bytes.get(at)?);
                if length == 0 {
                    self.at = after.unwrap_or(at + 1);
                    return Some(name);
                }
                if length & 0xc0 != 0 {
                    break;
                }
                let label = self.bytes.get(at + 1..at + 1 + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                // A dot within a label would read as two labels.
                if !label
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() && *byte != b'.')
                {
                    return None;
                }
                name.extend(
                    label
                        .iter()
                        .map(|byte| char::from(byte.to_ascii_lowercase())),
                );
                if name.len() > limits::DNS_NAME_LENGTH_MAX {
                    return None;
                }
                at += 1 + length;
            }
            let [high, low] = *self.bytes.get(at..)?.first_chunk::<2>()?;
            if high & 0xc0 != 0xc0 {
                return None;
            }
            after = after.or(Some(at + 2));
            let to = usize::from(u16::from_be_bytes([high & 0x3f, low]));
            if to >= begin {
                return None;
            }
            at = to;
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
        assert_eq!(said(CODE_NO_SUCH_NAME.into(), &[]), addresses(&[], 0));
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
        // Of the other family, and of a length that is none.
        let wrong = [(ASKED, 28, 60, &[0; 16][..]), (ASKED, 1, 60, &[192, 0, 2])];
        assert_eq!(said(0, &wrong), addresses(&[], 0));
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
