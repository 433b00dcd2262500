//! How busy this worker keeps an endpoint: requests that wait for an answer, requests whose answer began
//! lately, and answers that began long ago and are still open (an event stream, a watch, a tunnel). Pure.
//!
//! Such an old open answer costs an endpoint little, and stays for hours: if it counted in full, requests
//! would avoid the endpoint for hours. A request that waits for its answer counts, however old it is, because
//! many such requests show a stuck endpoint.

use std::time::{Duration, Instant};

use crate::limits;

/// Slices of the time after which an answered request has settled.
const SLICES: u64 = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Load {
    waiting: u32,
    /// Answered requests by the time when the answer began, until they have settled.
    fresh: [u32; SLICES as usize],
    settled: u32,
    /// Since when slices are counted, and the newest that was.
    clock: Option<(Instant, u64)>,
}

/// The slice of time in which an answer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice(u64);

/// The requests under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// Waiting for an answer, or answered lately.
    pub(crate) busy: u32,
    /// Answered long ago.
    pub(crate) settled: u32,
}

impl Load {
    /// One more request waits for its answer.
    pub(crate) fn begin(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    /// A request that waited has its answer now.
    pub(crate) fn answered(&mut self, now: Instant) -> Slice {
        self.waiting = self.waiting.saturating_sub(1);
        let newest = self.pass(now);
        self.fresh[place(newest)] += 1;
        Slice(newest)
    }

    /// One request is over; `since` says when it was answered, if it was.
    pub(crate) fn end(&mut self, since: Option<Slice>) {
        let newest = self.clock.map_or(0, |(_, newest)| newest);
        let count = match since {
            None => &mut self.waiting,
            Some(Slice(slice)) if slice + SLICES > newest => &mut self.fresh[place(slice)],
            Some(_) => &mut self.settled,
        };
        *count = count.saturating_sub(1);
    }

    /// The requests under way.
    pub(crate) fn under_way(&mut self, now: Instant) -> UnderWay {
        self.pass(now);
        UnderWay {
            busy: self.waiting + self.fresh.iter().sum::<u32>(),
            settled: self.settled,
        }
    }

    /// Advances the time; returns the current slice.
    fn pass(&mut self, now: Instant) -> u64 {
        let (epoch, mut newest) = *self.clock.get_or_insert((now, 0));
        let length = (limits::ANSWERED_SETTLED / SLICES as u32).max(Duration::from_nanos(1));
        let passed = now.saturating_duration_since(epoch).as_nanos() / length.as_nanos();
        let current = u64::try_from(passed).unwrap_or(u64::MAX).max(newest);
        // After a long time all of them have settled.
        for _ in 0..(current - newest).min(SLICES) {
            newest += 1;
            self.settled += std::mem::take(&mut self.fresh[place(newest)]);
        }
        self.clock = Some((epoch, current));
        current
    }
}

fn place(slice: u64) -> usize {
    usize::try_from(slice % SLICES).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const SETTLED: Duration = limits::ANSWERED_SETTLED;

    #[test]
    fn an_answered_one_settles_and_one_that_waits_does_not() {
        let now = Instant::now();
        let mut load = Load::default();
        load.begin();
        load.begin();
        let stream = load.answered(now);
        let of = |load: &mut Load, after| {
            let UnderWay { busy, settled } = load.under_way(now + after);
            (busy, settled)
        };
        assert_eq!(of(&mut load, SETTLED / 2), (2, 0));
        assert_eq!(of(&mut load, SETTLED * 2), (1, 1));
        assert_eq!(of(&mut load, SETTLED * 1000), (1, 1));
        load.end(Some(stream));
        load.end(None);
        assert_eq!(load.under_way(now + SETTLED * 1000), UnderWay::default());
    }

    #[test]
    fn whatever_happens_in_whatever_order_all_is_counted_once() {
        let (start, mut now) = (Instant::now(), Instant::now());
        let mut random = StdRng::seed_from_u64(1);
        let mut load = Load::default();
        let mut open: Vec<Option<(Slice, Instant)>> = Vec::new();
        for _ in 0..20_000 {
            now += Duration::from_millis(random.random_range(0..500));
            let index = random.random_range(0..open.len().max(1));
            match (random.random_range(0..3), open.get(index).copied()) {
                (0, _) | (_, None) => {
                    load.begin();
                    open.push(None);
                }
                (1, Some(None)) => open[index] = Some((load.answered(now), now)),
                (_, Some(one)) => {
                    load.end(one.map(|(slice, _)| slice));
                    open.swap_remove(index);
                }
            }
            let UnderWay { busy, settled } = load.under_way(now);
            assert_eq!((busy + settled) as usize, open.len(), "{:?}", now - start);
            let old = |by: Duration| {
                let since = open.iter().flatten().filter(|(_, at)| now - *at > by);
                since.count() as u32
            };
            assert!(settled <= old(SETTLED * 7 / 8) && settled >= old(SETTLED * 9 / 8));
        }
    }
}
