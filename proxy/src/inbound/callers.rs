//! Callers of one served service that come without mutual TLS: how many connections they made, and who the
//! last ones were, by address. An operator sees here who is left before a Service becomes `Strict`. Pure,
//! except for locks that are held for a few instructions.
//!
//! Not here: whether they may call ([`mod@super::authorise`]), and how they are served
//! ([`crate::plaintext`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use weft_transport::locks::lock;
use weft_transport::metrics::{PLAINTEXT_ACTIVE, PLAINTEXT_CALLERS, PLAINTEXT_CONNECTIONS, Sample};
use weft_transport::shares::{Places, Source};

use crate::limits;

/// The callers of one service. All workers share them.
pub(crate) struct PlaintextCallers {
    /// Where they come, if anywhere.
    listen: OnceLock<SocketAddr>,
    /// For their connections.
    pub(crate) places: Places<Source>,
    known: Mutex<Known>,
    taken: AtomicU64,
    refused: AtomicU64,
    crowded: AtomicU64,
}

#[derive(Default)]
struct Known {
    callers: BTreeMap<Source, Arc<PlaintextCaller>>,
    /// Callers that had to make room.
    forgotten: u64,
}

/// One address, or the addresses of one IPv6 network.
pub(crate) struct PlaintextCaller(Mutex<Counts>);

#[derive(Clone, Copy)]
struct Counts {
    /// The last one.
    address: IpAddr,
    connections: u64,
    refused: u64,
    calls: u64,
    last: Instant,
}

impl Default for PlaintextCallers {
    fn default() -> Self {
        Self {
            listen: OnceLock::new(),
            places: Places::new(limits::PLAINTEXT_CONNECTIONS),
            known: Mutex::default(),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
        }
    }
}

impl PlaintextCaller {
    /// It makes a call: a request, or the opening of a tunnel.
    pub(crate) fn calls(&self, now: Instant) {
        let mut counts = lock(&self.0);
        counts.calls += 1;
        counts.last = now;
    }
}

impl PlaintextCallers {
    /// They come to this address.
    pub(crate) fn listen_at(&self, address: SocketAddr) {
        // There is one listener for each service.
        let _ = self.listen.set(address);
    }

    /// Where they come, if this sidecar listens for them.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        self.listen.get().copied()
    }

    /// A connection from `address` came, which is `taken` or refused.
    pub(crate) fn came(&self, address: IpAddr, taken: bool, now: Instant) -> Arc<PlaintextCaller> {
        let total = if taken { &self.taken } else { &self.refused };
        total.fetch_add(1, Ordering::Relaxed);
        let address = address.to_canonical();
        let caller = lock(&self.known).caller(address, taken, now);
        {
            let mut counts = lock(&caller.0);
            counts.address = address;
            match taken {
                true => counts.connections += 1,
                false => counts.refused += 1,
            }
            counts.last = now;
        }
        caller
    }

    /// A connection ended because another needed its place.
    pub(crate) fn made_room(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// Who the last ones were, the latest first; `null` where none can come.
    pub(crate) fn to_json(&self, takes: bool, now: Instant, wall: SystemTime) -> Value {
        let Some(listen) = self.listen.get() else {
            return Value::Null;
        };
        let (all, forgotten) = self.all();
        let rows = all.iter().map(|counts| {
            let last = wall - now.saturating_duration_since(counts.last);
            let last = jiff::Timestamp::try_from(last).map(|time| time.to_string());
            json!({
                "address": counts.address.to_string(),
                "connections": counts.connections,
                "refused": counts.refused,
                "calls": counts.calls,
                "last": last.unwrap_or_default(),
            })
        });
        json!({
            "listen": listen.to_string(),
            "mutual_tls": if takes { "Permissive" } else { "Strict" },
            "connections": self.places.taken(),
            "callers": rows.collect::<Vec<_>>(),
            "forgotten": forgotten,
        })
    }

    /// Counts and gauges, to be scraped; none where none can come.
    pub(crate) fn samples(&self, label: &str, now: Instant) -> Vec<Sample> {
        if self.listen.get().is_none() {
            return Vec::new();
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        vec![
            PLAINTEXT_CONNECTIONS.sample(&[label, "taken"], count(&self.taken)),
            PLAINTEXT_CONNECTIONS.sample(&[label, "refused"], count(&self.refused)),
            PLAINTEXT_CONNECTIONS.sample(&[label, "crowded"], count(&self.crowded)),
            PLAINTEXT_ACTIVE.sample(&[label], self.places.taken() as f64),
            PLAINTEXT_CALLERS.sample(&[label], self.recent(now) as f64),
        ]
    }

    /// How many came lately.
    fn recent(&self, now: Instant) -> usize {
        let recent = |at: Instant| now.saturating_duration_since(at) < limits::PLAINTEXT_RECENT;
        let (all, _) = self.all();
        all.iter().filter(|counts| recent(counts.last)).count()
    }

    /// The latest first, and how many more were forgotten.
    fn all(&self) -> (Vec<Counts>, u64) {
        let known = lock(&self.known);
        let callers = known.callers.values();
        let mut all: Vec<_> = callers.map(|caller| *lock(&caller.0)).collect();
        let forgotten = known.forgotten;
        drop(known);
        all.sort_by_key(|counts| std::cmp::Reverse(counts.last));
        (all, forgotten)
    }
}

impl Known {
    /// The caller at that address. If as many are kept as may be, a new one takes the place of the one that
    /// was silent for longest: first of one that was only ever refused. One that is refused itself takes no
    /// place of one that was taken.
    fn caller(&mut self, address: IpAddr, taken: bool, now: Instant) -> Arc<PlaintextCaller> {
        let source = Source::from(address);
        if let Some(known) = self.callers.get(&source) {
            return Arc::clone(known);
        }
        let mut has_room = true;
        if self.callers.len() >= limits::PLAINTEXT_CALLERS_KEPT {
            let worth = |caller: &PlaintextCaller| {
                let counts = lock(&caller.0);
                (counts.connections > 0, counts.last)
            };
            let all = self.callers.iter();
            let least = all.map(|(source, caller)| (worth(caller), *source)).min();
            has_room = least.is_some_and(|((was_taken, _), _)| taken || !was_taken);
            if let Some((_, source)) = least.filter(|_| has_room) {
                self.callers.remove(&source);
            }
            self.forgotten += 1;
        }
        let counts = Counts {
            address,
            connections: 0,
            refused: 0,
            calls: 0,
            last: now,
        };
        let caller = Arc::new(PlaintextCaller(Mutex::new(counts)));
        if has_room {
            self.callers.insert(source, Arc::clone(&caller));
        }
        caller
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn listening() -> PlaintextCallers {
        let callers = PlaintextCallers::default();
        callers.listen_at(([127, 0, 0, 1], 8081).into());
        callers
    }

    #[test]
    fn an_address_has_its_connections_and_calls_and_the_latest_comes_first() {
        let (callers, start) = (listening(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = callers.came(address(1), true, at(0));
        callers.came(address(2), false, at(1));
        // The same host over IPv6.
        callers.came("::ffff:192.0.2.1".parse().unwrap(), true, at(2));
        first.calls(at(3));
        let shown = callers.to_json(true, at(3), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
        assert_eq!(shown["mutual_tls"], "Permissive");
        assert_eq!(
            shown["callers"],
            json!([
                { "address": "192.0.2.1", "connections": 2, "refused": 0, "calls": 1, "last": "1970-01-01T00:00:03Z" },
                { "address": "192.0.2.2", "connections": 0, "refused": 1, "calls": 0, "last": "1970-01-01T00:00:01Z" },
            ])
        );
    }

    #[test]
    fn many_addresses_leave_the_latest_and_the_number_of_the_others() {
        let (callers, start) = (listening(), Instant::now());
        let kept = limits::PLAINTEXT_CALLERS_KEPT;
        for number in 0..kept + 10 {
            let address: [u8; 2] = u16::try_from(number).unwrap().to_be_bytes();
            let address = [10, 0, address[0], address[1]].into();
            callers.came(address, true, start + Duration::from_secs(number as u64));
        }
        let (all, forgotten) = callers.all();
        assert_eq!((all.len(), forgotten), (kept, 10));
        let is_there = |last| {
            all.iter()
                .any(|one| one.address == IpAddr::from([10, 0, 0, last]))
        };
        assert_eq!((is_there(9), is_there(10)), (false, true));
    }

    #[test]
    fn addresses_of_one_network_and_callers_that_are_refused_hide_no_caller_that_is_left() {
        let (callers, start) = (listening(), Instant::now());
        let left = address(1);
        callers.came(left, true, start);
        for number in 0..limits::PLAINTEXT_CALLERS_KEPT as u64 * 2 {
            let at = start + Duration::from_secs(number);
            let low = u16::try_from(number).unwrap();
            callers.came([0x2001, 0xdb8, 0, 1, 0, 0, 0, low].into(), true, at);
            let [high, low] = low.to_be_bytes();
            callers.came([10, 0, high, low].into(), false, at);
        }
        let (all, _) = callers.all();
        assert_eq!(all.len(), limits::PLAINTEXT_CALLERS_KEPT);
        assert!(all.iter().any(|one| one.address == left));
        let ipv6 = all.iter().filter(|one| one.address.is_ipv6());
        assert_eq!(ipv6.map(|one| one.connections).collect::<Vec<_>>(), [512]);
    }

    #[test]
    fn a_caller_that_was_not_seen_for_long_is_none_that_is_left() {
        let (callers, start) = (listening(), Instant::now());
        callers.came(address(1), true, start);
        callers.came(address(2), true, start + limits::PLAINTEXT_RECENT);
        assert_eq!(callers.recent(start), 2);
        assert_eq!(callers.recent(start + limits::PLAINTEXT_RECENT), 1);
        let none = PlaintextCallers::default();
        assert!(none.samples("orders.shop:80", start).is_empty());
    }
}
