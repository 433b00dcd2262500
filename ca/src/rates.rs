//! Who asks too often: failures per source address, and signatures per identity. Pure and bounded.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use weft_transport::identity::SpiffeId;

use crate::limits::{
    FAILING_SOURCES_MAX, FAILURES_PER_MINUTE, RATED_IDENTITIES_MAX, REFUSALS_LOGGED_PER_MINUTE,
    SIGNATURES_BURST, SIGNATURES_PER_SECOND,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The counters behind the CA's rate limits.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    failures: HashMap<IpAddr, Window>,
    signatures: HashMap<SpiffeId, Bucket>,
    logged: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    filled: Instant,
    tokens: f64,
}

impl Rates {
    /// Whether this source may try a token.
    pub(crate) fn may_try(&self, source: IpAddr, now: Instant) -> bool {
        self.failures
            .get(&network(source))
            .is_none_or(|window| window.count < FAILURES_PER_MINUTE || now >= window.began + MINUTE)
    }

    /// This source failed.
    pub(crate) fn record_failure(&mut self, source: IpAddr, now: Instant) {
        let source = network(source);
        make_room(&mut self.failures, &source, FAILING_SOURCES_MAX, |window| {
            window.began
        });
        let window = self.failures.entry(source).or_insert(Window {
            began: now,
            count: 0,
        });
        window.count_one(now);
    }

    /// Whether one more certificate for this identity may be signed now; if so it is counted.
    pub(crate) fn may_sign(&mut self, identity: &SpiffeId, now: Instant) -> bool {
        make_room(
            &mut self.signatures,
            identity,
            RATED_IDENTITIES_MAX,
            |bucket| bucket.filled,
        );
        let bucket = self.signatures.entry(identity.clone()).or_insert(Bucket {
            filled: now,
            tokens: SIGNATURES_BURST,
        });
        let earned =
            now.saturating_duration_since(bucket.filled).as_secs_f64() * SIGNATURES_PER_SECOND;
        bucket.tokens = (bucket.tokens + earned).min(SIGNATURES_BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Whether one more refusal may be written to the log; if so it is counted.
    pub(crate) fn may_log_refusal(&mut self, now: Instant) -> bool {
        let window = self.logged.get_or_insert(Window {
            began: now,
            count: 0,
        });
        window.count_one(now);
        window.count <= REFUSALS_LOGGED_PER_MINUTE
    }
}

impl Window {
    fn count_one(&mut self, now: Instant) {
        if now >= self.began + MINUTE {
            *self = Self {
                began: now,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
    }
}

/// IPv6 hosts own a /64: counting single addresses would count nothing.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Keeps `map` within `max` when `key` is about to be added: the entry untouched for longest goes.
fn make_room<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, V>,
    key: &K,
    max: usize,
    touched: impl Fn(&V) -> Instant,
) {
    if map.len() < max || map.contains_key(key) {
        return;
    }
    if let Some(oldest) = map
        .iter()
        .min_by_key(|(_, value)| touched(value))
        .map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_waits_after_ten_failures_in_a_minute() {
        let (mut rates, now) = (Rates::default(), origin());
        let source = "192.0.2.1".parse().unwrap();
        for _ in 0..FAILURES_PER_MINUTE {
            assert!(rates.may_try(source, now));
            rates.record_failure(source, now);
        }
        assert!(!rates.may_try(source, now));
        assert!(
            rates.may_try("192.0.2.2".parse().unwrap(), now),
            "others are not affected"
        );
        assert!(rates.may_try(source, now + MINUTE));
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one_source() {
        let (mut rates, now) = (Rates::default(), origin());
        for host in 0..FAILURES_PER_MINUTE {
            rates.record_failure(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(!rates.may_try("2001:db8::ffff".parse().unwrap(), now));
        assert!(rates.may_try("2001:db8:0:1::1".parse().unwrap(), now));
    }

    #[test]
    fn the_table_of_failing_sources_is_bounded() {
        let (mut rates, now) = (Rates::default(), origin());
        for source in 0..u32::try_from(FAILING_SOURCES_MAX).unwrap() + 50 {
            rates.record_failure(
                IpAddr::V4(source.into()),
                now + Duration::from_millis(source.into()),
            );
        }
        assert_eq!(rates.failures.len(), FAILING_SOURCES_MAX);
    }

    #[test]
    fn an_identity_buys_a_burst_and_then_a_steady_rate() {
        let (mut rates, now) = (Rates::default(), origin());
        let orders = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
        let payments = "spiffe://demo.test/ns/shop/sa/payments".parse().unwrap();
        let burst = (0..1000).filter(|_| rates.may_sign(&orders, now)).count();
        assert_eq!(burst, 200);
        assert!(rates.may_sign(&payments, now), "others are not affected");
        let later = (0..1000)
            .filter(|_| rates.may_sign(&orders, now + Duration::from_secs(2)))
            .count();
        assert_eq!(later, 20);
    }

    fn origin() -> Instant {
        Instant::now()
    }
}
