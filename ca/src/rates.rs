//! Limits events that callers can cause: refusals that are logged, per source, and signatures, per identity.
//! Pure and bounded.
//!
//! Bad tokens never delay a good one from the same address: a secret has 32 random bytes, so guessing does
//! not find one. Other limits bound the cost of bad tokens: they cause no signature and no write.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use weft_transport::{identity::SpiffeId, shares::Source};

use crate::limits::{
    RATED_IDENTITIES_MAX, REFUSALS_LOGGED_PER_MINUTE, REFUSALS_LOGGED_PER_SOURCE,
    REFUSED_SOURCES_MAX, SIGNATURES_BURST, SIGNATURES_PER_SECOND,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The counters behind the CA's rate limits.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    refused: HashMap<Source, Window>,
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

    /// Whether one more refusal of this source may be written to the log; if so it is counted.
    pub(crate) fn may_log_refusal(&mut self, source: Source, now: Instant) -> bool {
        make_room(&mut self.refused, &source, REFUSED_SOURCES_MAX, |window| {
            window.began
        });
        let empty = Window {
            began: now,
            count: 0,
        };
        let own = self.refused.entry(source).or_insert(empty);
        own.count_one(now);
        if own.count > REFUSALS_LOGGED_PER_SOURCE {
            return false;
        }
        let all = self.logged.get_or_insert(empty);
        all.count_one(now);
        all.count <= REFUSALS_LOGGED_PER_MINUTE
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
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_source_that_is_refused_often_fills_no_log_and_takes_no_room_of_others() {
        let (mut rates, now) = (Rates::default(), origin());
        let logged = |rates: &mut Rates, source: &str, now| {
            let source = source.parse::<IpAddr>().unwrap().into();
            (0..1000)
                .filter(|_| rates.may_log_refusal(source, now))
                .count()
        };
        assert_eq!(logged(&mut rates, "192.0.2.1", now), 10);
        assert_eq!(logged(&mut rates, "192.0.2.2", now), 10);
        assert_eq!(logged(&mut rates, "192.0.2.1", now + MINUTE), 10);
    }

    #[test]
    fn all_sources_together_fill_no_log() {
        let (mut rates, now) = (Rates::default(), origin());
        let logged = (0..1000_u32)
            .filter(|source| rates.may_log_refusal(IpAddr::V4((*source).into()).into(), now))
            .count();
        assert_eq!(logged, 60);
    }

    #[test]
    fn the_table_of_refused_sources_is_bounded() {
        let (mut rates, now) = (Rates::default(), origin());
        for source in 0..u32::try_from(REFUSED_SOURCES_MAX).unwrap() + 50 {
            rates.may_log_refusal(
                IpAddr::V4(source.into()).into(),
                now + Duration::from_millis(source.into()),
            );
        }
        assert_eq!(rates.refused.len(), REFUSED_SOURCES_MAX);
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
