//! Deadline propagation by trace id: links each call that the application makes to the request that it makes
//! the call for. So an application that forwards only `traceparent` still has its deadlines kept, and the
//! mark that retries are spent passes through it. Pure except for locks: all workers share the table, in
//! shards so that they rarely meet.
//!
//! An entry lives as long as a request with that trace is being served here. Requests of one trace cannot be
//! told apart: the latest of their deadlines holds for all, and no deadline holds if one of the requests has
//! none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::HeaderMap;
use weft_transport::locks::lock;

use crate::http::traceparent::TraceParent;
use crate::limits;

const SHARDS: usize = 16;

/// The id of a trace, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TraceId(u128);

/// The requests being served, by trace.
#[derive(Debug, Default)]
pub(crate) struct Propagation {
    shards: [Mutex<HashMap<TraceId, Served>>; SHARDS],
    held: AtomicUsize,
}

#[derive(Debug)]
struct Served {
    /// Requests of this trace that are being served.
    requests: u32,
    /// None if one of the requests has no deadline.
    deadline: Option<Instant>,
    /// A call of this trace failed although it was sent several times.
    spent: bool,
}

/// One request being served. Dropping it removes the request.
#[derive(Debug)]
pub(crate) struct Link {
    propagation: Arc<Propagation>,
    id: TraceId,
}

impl TraceId {
    /// Reads `traceparent` (W3C Trace Context section 3.2.2).
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        TraceParent::of(headers).map(|parent| Self(parent.trace))
    }
}

impl Propagation {
    /// A request of this trace is being served. None when the table is full: the trace is then not followed.
    pub(crate) fn serve(self: &Arc<Self>, id: TraceId, deadline: Option<Instant>) -> Option<Link> {
        let mut shard = lock(self.shard(id));
        if let Some(served) = shard.get_mut(&id) {
            served.requests = served.requests.saturating_add(1);
            served.deadline = served
                .deadline
                .zip(deadline)
                .map(|(one, other)| one.max(other));
        } else {
            if self.held.fetch_add(1, Ordering::Relaxed) >= limits::TRACES_MAX {
                self.held.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            let served = Served {
                requests: 1,
                deadline,
                spent: false,
            };
            shard.insert(id, served);
        }
        Some(Link {
            propagation: Arc::clone(self),
            id,
        })
    }

    /// The deadline of the request that is served under this trace.
    pub(crate) fn deadline(&self, id: TraceId) -> Option<Instant> {
        lock(self.shard(id)).get(&id)?.deadline
    }

    /// A call of this trace failed although it was sent several times.
    pub(crate) fn spend(&self, id: TraceId) {
        if let Some(served) = lock(self.shard(id)).get_mut(&id) {
            served.spent = true;
        }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn shard(&self, id: TraceId) -> &Mutex<HashMap<TraceId, Served>> {
        // The last bits are random in every version of the format (W3C Trace Context section 3.2.2.3).
        &self.shards[usize::try_from(id.0 % SHARDS as u128).unwrap_or(0)]
    }
}

impl Link {
    /// Whether a call made for this request failed although it was sent several times.
    pub(crate) fn is_spent(&self) -> bool {
        lock(self.propagation.shard(self.id))
            .get(&self.id)
            .is_some_and(|served| served.spent)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut shard = lock(self.propagation.shard(self.id));
        let Some(served) = shard.get_mut(&self.id) else {
            return;
        };
        served.requests = served.requests.saturating_sub(1);
        if served.requests == 0 {
            shard.remove(&self.id);
            self.propagation.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::http::traceparent::TRACEPARENT;

    fn trace(number: u128) -> TraceId {
        TraceId(number)
    }

    #[test]
    fn a_trace_is_followed_while_it_is_being_served() {
        let propagation = Arc::new(Propagation::default());
        let deadline = Instant::now() + Duration::from_secs(1);
        let link = propagation.serve(trace(7), Some(deadline)).unwrap();
        assert_eq!(propagation.deadline(trace(7)), Some(deadline));
        assert_eq!(propagation.deadline(trace(8)), None);
        propagation.spend(trace(7));
        assert!(link.is_spent());
        drop(link);
        assert_eq!(
            (propagation.deadline(trace(7)), propagation.len()),
            (None, 0)
        );
    }

    #[test]
    fn of_several_requests_of_one_trace_the_latest_deadline_holds_and_none_is_the_latest() {
        let propagation = Arc::new(Propagation::default());
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let first = propagation.serve(trace(7), Some(now)).unwrap();
        let second = propagation.serve(trace(7), Some(later)).unwrap();
        drop(first);
        assert_eq!(propagation.deadline(trace(7)), Some(later));
        let third = propagation.serve(trace(7), None).unwrap();
        assert_eq!(propagation.deadline(trace(7)), None);
        drop((second, third));
        assert_eq!(propagation.len(), 0);
    }

    #[test]
    fn beyond_the_limit_traces_are_not_followed() {
        let propagation = Arc::new(Propagation::default());
        let links: Vec<_> = (1..=limits::TRACES_MAX as u128)
            .map(|number| propagation.serve(trace(number), None).unwrap())
            .collect();
        assert!(propagation.serve(trace(u128::MAX), None).is_none());
        assert!(propagation.serve(trace(1), None).is_some());
        drop(links);
        assert!(propagation.serve(trace(u128::MAX), None).is_some());
    }

    #[test]
    fn the_id_is_the_second_field_of_traceparent() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceId::of(&headers), None);
        for (text, id) in [
            (
                "00-0000000000000000000000000000002a-b7ad6b7169203331-01",
                Some(TraceId(42)),
            ),
            (
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                None,
            ),
            ("short", None),
        ] {
            headers.insert(TRACEPARENT, HeaderValue::from_static(text));
            assert_eq!(TraceId::of(&headers), id, "{text}");
        }
    }
}
