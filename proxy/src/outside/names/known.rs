//! Which names are asked when, and which of their addresses hold. Pure: the time is an argument.
//!
//! An answer holds as long as it says, within bounds. While a resolver fails, the last addresses stay, for a
//! while; it is asked again after a wait that doubles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Answers;
use crate::limits;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, Name>);

#[derive(Debug)]
struct Name {
    addresses: Arc<[IpAddr]>,
    /// When the addresses are given up, if no answer comes.
    until: Option<Instant>,
    /// When it is asked; none while it is under way.
    due: Option<Instant>,
    /// How often in a row it was asked in vain.
    failures: u32,
}

impl Known {
    /// The names that are wanted from now on; others are forgotten. Returns how many are beyond the bound.
    pub(super) fn want(&mut self, wanted: BTreeSet<String>, now: Instant) -> usize {
        self.0.retain(|host, _| wanted.contains(host));
        let mut left_out = 0;
        for host in wanted {
            if self.0.len() >= limits::NAMES_MAX && !self.0.contains_key(&host) {
                left_out += 1;
                continue;
            }
            self.0.entry(host).or_insert_with(|| Name {
                addresses: Arc::new([]),
                until: None,
                due: Some(now),
                failures: 0,
            });
        }
        left_out
    }

    /// Names to ask now, at most this many; they are then under way.
    pub(super) fn begin(&mut self, now: Instant, most: usize) -> Vec<String> {
        let is_due = |name: &Name| name.due.is_some_and(|due| due <= now);
        let mut begun = Vec::new();
        for (host, name) in self
            .0
            .iter_mut()
            .filter(|(_, name)| is_due(name))
            .take(most)
        {
            name.due = None;
            begun.push(host.clone());
        }
        begun
    }

    /// When something is to be done, if no answer comes before.
    pub(super) fn next(&self) -> Option<Instant> {
        let names = self.0.values();
        names
            .flat_map(|name| [name.due, name.until])
            .flatten()
            .min()
    }

    /// An answer came, which holds for `life`.
    pub(super) fn answered(
        &mut self,
        host: &str,
        mut addresses: Vec<IpAddr>,
        life: Duration,
        now: Instant,
    ) {
        let Some(name) = self.0.get_mut(host) else {
            return;
        };
        for address in &mut addresses {
            *address = address.to_canonical();
        }
        // In one order, so that a resolver that turns them around changes nothing.
        addresses.sort();
        addresses.dedup();
        addresses.truncate(limits::NAME_ADDRESSES_MAX);
        name.addresses = addresses.into();
        name.until = None;
        name.failures = 0;
        let (least, most) = (limits::NAME_LIFE_MIN, limits::NAME_LIFE_MAX);
        name.due = Some(now + life.clamp(least, most));
    }

    /// No answer came, or one without addresses. Returns whether that is new.
    pub(super) fn failed(&mut self, host: &str, now: Instant) -> bool {
        let Some(name) = self.0.get_mut(host) else {
            return false;
        };
        let doubled = limits::NAME_RETRY.saturating_mul(1 << name.failures.min(8));
        name.due = Some(now + doubled.min(limits::NAME_RETRY_MAX));
        name.failures = name.failures.saturating_add(1);
        if !name.addresses.is_empty() && name.until.is_none() {
            name.until = Some(now + limits::NAME_STALE_MAX);
        }
        name.failures == 1
    }

    /// Gives up addresses that no answer has renewed for too long. Returns of how many names.
    pub(super) fn forget(&mut self, now: Instant) -> u64 {
        let mut forgotten = 0;
        for name in self.0.values_mut() {
            if name.until.is_some_and(|until| until <= now) {
                name.until = None;
                name.addresses = Arc::new([]);
                forgotten += 1;
            }
        }
        forgotten
    }

    /// The addresses that hold.
    pub(super) fn answers(&self) -> Answers {
        let found = self.0.iter().filter(|(_, name)| !name.addresses.is_empty());
        let found = found.map(|(host, name)| (host.clone(), Arc::clone(&name.addresses)));
        Answers(found.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn one(host: &str, now: Instant) -> Known {
        let mut known = Known::default();
        assert_eq!(known.want([host.to_owned()].into(), now), 0);
        assert_eq!(known.begin(now, 8), [host]);
        known
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_within_bounds() {
        let now = Instant::now();
        for (says, holds) in [
            (Duration::ZERO, limits::NAME_LIFE_MIN),
            (30 * SECOND, 30 * SECOND),
            (86_400 * SECOND, limits::NAME_LIFE_MAX),
        ] {
            let mut known = one("a.example", now);
            known.answered("a.example", vec![address(1)], says, now);
            assert_eq!(known.next(), Some(now + holds));
            assert!(known.begin(now + holds - SECOND / 2, 8).is_empty());
            assert_eq!(known.begin(now + holds, 8), ["a.example"]);
            assert_eq!(known.answers().of("a.example"), [address(1)]);
        }
    }

    #[test]
    fn the_last_addresses_stay_while_the_resolver_fails_and_are_given_up_in_the_end() {
        let now = Instant::now();
        let mut known = one("a.example", now);
        known.answered("a.example", vec![address(1)], 30 * SECOND, now);
        let mut at = now;
        let mut lost = None;
        let mut asked = 0;
        while lost.is_none() {
            at = known.next().unwrap();
            if known.forget(at) == 1 {
                lost = Some(at);
            }
            for host in known.begin(at, 8) {
                asked += 1;
                assert_eq!(known.failed(&host, at), asked == 1);
            }
        }
        assert_eq!(lost, Some(now + 30 * SECOND + limits::NAME_STALE_MAX));
        assert!(known.answers().of("a.example").is_empty());
        // The waits double up to a bound.
        let most = limits::NAME_STALE_MAX.as_secs() / limits::NAME_RETRY_MAX.as_secs() + 8;
        assert!(asked <= most, "{asked}");
        assert!(at > now);
        known.begin(known.next().unwrap(), 8);
        known.answered("a.example", vec![address(2)], SECOND, at);
        assert_eq!(known.answers().of("a.example"), [address(2)]);
        assert_eq!(known.forget(at + 2 * limits::NAME_STALE_MAX), 0);
    }

    #[test]
    fn addresses_are_bounded_distinct_and_in_one_order() {
        let now = Instant::now();
        let mut known = one("a.example", now);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        known.answered(
            "a.example",
            vec![address(2), mapped, address(1)],
            SECOND,
            now,
        );
        assert_eq!(known.answers().of("a.example"), [address(1), address(2)]);
        let many = (0..=255).map(address).collect();
        known.answered("a.example", many, SECOND, now);
        assert_eq!(
            known.answers().of("a.example").len(),
            limits::NAME_ADDRESSES_MAX
        );
    }

    #[test]
    fn names_that_are_not_wanted_are_forgotten_and_their_answers_ignored() {
        let now = Instant::now();
        let mut known = one("a.example", now);
        known.want(["b.example".to_owned()].into(), now);
        known.answered("a.example", vec![address(1)], SECOND, now);
        assert!(!known.failed("a.example", now));
        assert_eq!(known.answers(), Answers::default());
        let many = (0..limits::NAMES_MAX + 3).map(|number| format!("{number:05}.example"));
        assert_eq!(known.want(many.collect(), now), 3);
        assert_eq!(known.begin(now, 7).len(), 7);
    }
}
