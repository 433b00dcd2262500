//! Which connection attempts get a handshake when there are many. Pure.
//!
//! A handshake costs CPU and memory before its peer has proven an identity, so three rules hold for a worker:
//!
//! - While many handshakes are under way, an address must be validated first (RFC 9000 section 8.1.2). So
//!   only a sender that receives at its address can have many handshakes, and spoofed addresses push none of
//!   them out.
//! - At most a fixed number begin in a second, and a source leaves room for others ([`leaves_room`]). First
//!   packets beyond that are ignored, not refused: their senders repeat them, and may find room then.
//! - At most a fixed number are under way. A new one always begins, and the oldest of the source that has
//!   most is given up for it ([`crate::shares::Places`], held by the listener). An honest client needs one
//!   round trip; a silent one becomes the oldest. So an honest client gets in beside silent ones even from
//!   the same address.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits;
use crate::shares::{Source, leaves_room};

/// How a first packet is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handshake begins.
    Begin,
    /// The sender must prove that it receives at its address.
    Retry,
    /// It is ignored, as if it had been lost.
    Ignore,
}

/// Counts the handshakes that began within the present second.
#[derive(Debug, Default)]
pub(super) struct Admission {
    since: Option<Instant>,
    begun: u32,
    /// Not larger than the number of those that began.
    by_source: BTreeMap<Source, u32>,
}

impl Admission {
    /// Judges a first packet from `source`, whose address is `validated` or not, while `under_way`
    /// handshakes are.
    pub(super) fn judge(
        &mut self,
        source: Source,
        validated: bool,
        under_way: usize,
        now: Instant,
    ) -> Verdict {
        if !validated && under_way >= limits::HANDSHAKES_BEFORE_RETRY {
            return Verdict::Retry;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_secs(1) {
            *self = Self {
                since: Some(now),
                ..Self::default()
            };
        }
        let held = self.by_source.get(&source).copied().unwrap_or(0);
        if !leaves_room(limits::HANDSHAKES_A_SECOND, self.begun, held) {
            return Verdict::Ignore;
        }
        self.begun += 1;
        self.by_source.insert(source, held + 1);
        Verdict::Begin
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    /// How many of `count` first packets of a validated source begin at one moment.
    fn begin(admission: &mut Admission, last: u8, count: usize, now: Instant) -> usize {
        let verdicts = (0..count).map(|_| admission.judge(source(last), true, 0, now));
        verdicts
            .filter(|verdict| *verdict == Verdict::Begin)
            .count()
    }

    #[test]
    fn an_address_is_validated_first_once_many_handshakes_are_under_way() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let many = limits::HANDSHAKES_BEFORE_RETRY;
        for (validated, under_way, verdict) in [
            (false, many - 1, Verdict::Begin),
            (false, many, Verdict::Retry),
            (true, many, Verdict::Begin),
            (true, limits::HANDSHAKES_MAX, Verdict::Begin),
        ] {
            assert_eq!(
                admission.judge(source(1), validated, under_way, now),
                verdict
            );
        }
    }

    #[test]
    fn six_hundred_silent_handshakes_a_second_leave_all_others_their_turn() {
        let mut admission = Admission::default();
        let now = Instant::now();
        assert_eq!(begin(&mut admission, 1, 600, now), 600);
        // The same address, and another one.
        assert_eq!(begin(&mut admission, 1, 1, now), 1);
        assert_eq!(begin(&mut admission, 2, 100, now), 100);
    }

    #[test]
    fn a_source_leaves_room_for_others_within_a_second_and_begins_anew_in_the_next() {
        let mut admission = Admission::default();
        let now = Instant::now();
        assert_eq!(begin(&mut admission, 1, 5000, now), 942);
        assert_eq!(begin(&mut admission, 2, 50, now), 50);
        let later = now + Duration::from_millis(999);
        assert_eq!(begin(&mut admission, 1, 10, later), 0);
        let next = now + Duration::from_secs(1);
        assert_eq!(begin(&mut admission, 1, 5000, next), 942);
    }

    #[test]
    fn no_more_begin_in_a_second_than_the_bound_whatever_the_number_of_sources() {
        let mut admission = Admission::default();
        let now = Instant::now();
        let begun: usize = (0..=255)
            .map(|last| begin(&mut admission, last, 100, now))
            .sum();
        assert_eq!(begun, limits::HANDSHAKES_A_SECOND as usize);
    }
}
