//! A transmitter of finite speed with a finite queue before it (drop-tail). Pure.
//!
//! Work is counted in bits times nanoseconds, in integers, and the remainder of a nanosecond goes to the next
//! packet: a rate is exact over any number of packets. A change of rate applies to the remainder of the
//! packet under transmission.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{QueueLimit, Rate};
use crate::limits;

/// The queue and the transmitter.
#[derive(Debug)]
pub(super) struct Bottleneck<T> {
    rate: Rate,
    /// When the rate was set: the beginning of its trace.
    since: Instant,
    limit: QueueLimit,
    queue: VecDeque<Waiting<T>>,
    /// Bytes in `queue`, the packet under transmission included.
    bytes: u64,
    /// Until when the transmitter has worked.
    clock: Instant,
    /// The remaining work on the first packet, in bits x 10^9.
    left: u128,
    /// When that will be done; `None`: never, or there is no packet.
    done: Option<Instant>,
}

#[derive(Debug)]
struct Waiting<T> {
    bytes: u64,
    item: T,
}

/// One second in the unit of time here.
const SECOND: u128 = 1_000_000_000;

impl<T> Bottleneck<T> {
    pub(super) fn new(rate: Rate, limit: Option<QueueLimit>, now: Instant) -> Self {
        Self {
            limit: limit.unwrap_or_else(|| default_limit(&rate)),
            rate,
            since: now,
            queue: VecDeque::new(),
            bytes: 0,
            clock: now,
            left: 0,
            done: None,
        }
    }

    /// Changes rate and limit. What waits goes on waiting, even above a smaller limit. Call
    /// [`Self::pop`] until it says `None` before.
    pub(super) fn set(&mut self, now: Instant, rate: Rate, limit: Option<QueueLimit>) {
        if !self.queue.is_empty() {
            self.left -= self.work_until(now).min(self.left);
        }
        self.clock = now;
        self.limit = limit.unwrap_or_else(|| default_limit(&rate));
        if rate != self.rate {
            self.rate = rate;
            self.since = now;
        }
        self.done = self.finish();
    }

    /// Takes an item of `bytes` that came at `now`, or gives it back if the queue is full. Call
    /// [`Self::pop`] until it says `None` before.
    pub(super) fn push(&mut self, now: Instant, bytes: usize, item: T) -> Result<(), T> {
        let bytes = bytes as u64;
        let full = match self.limit {
            QueueLimit::Bytes(limit) => self.bytes + bytes > limit,
            QueueLimit::Packets(limit) => self.queue.len() as u64 >= limit,
        };
        // A queue that is too short for one packet still has a transmitter behind it.
        if full && !self.queue.is_empty() {
            return Err(item);
        }
        self.bytes += bytes;
        self.queue.push_back(Waiting { bytes, item });
        if self.queue.len() == 1 {
            self.clock = self.clock.max(now);
            self.begin(0);
        }
        Ok(())
    }

    /// The next item that was transmitted by `now`, and when it was.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, T)> {
        let done = self.done.filter(|done| *done <= now)?;
        let surplus = self.work_until(done).saturating_sub(self.left);
        let first = self.queue.pop_front()?;
        self.bytes -= first.bytes;
        self.clock = done;
        self.begin(surplus);
        Some((done, first.item))
    }

    /// When the packet under transmission will be out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Begins with the first packet at `clock`, `surplus` of which is done.
    fn begin(&mut self, surplus: u128) {
        let Some(first) = self.queue.front() else {
            self.left = 0;
            self.done = None;
            return;
        };
        self.left = (u128::from(first.bytes) * 8 * SECOND).saturating_sub(surplus);
        self.done = self.finish();
    }

    /// The work that is done from `clock` to `until`.
    fn work_until(&self, until: Instant) -> u128 {
        let span = until.saturating_duration_since(self.clock).as_nanos();
        match &self.rate {
            Rate::Constant(rate) => u128::from(*rate) * span,
            Rate::Trace(trace) => {
                let within = |at: Instant| {
                    trace.work_within(at.saturating_duration_since(self.since).as_nanos())
                };
                within(until).saturating_sub(within(self.clock))
            }
        }
    }

    /// When `left` will be done.
    fn finish(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        let nanoseconds = match &self.rate {
            Rate::Constant(0) => return None,
            Rate::Constant(rate) => self.left.div_ceil(u128::from(*rate)),
            Rate::Trace(trace) => {
                let gone = self.clock.saturating_duration_since(self.since).as_nanos();
                let done = trace.time_of(trace.work_within(gone) + self.left);
                done.saturating_sub(gone)
            }
        };
        let nanoseconds = u64::try_from(nanoseconds).ok()?;
        self.clock.checked_add(Duration::from_nanos(nanoseconds))
    }
}

fn default_limit(rate: &Rate) -> QueueLimit {
    let fastest = match rate {
        Rate::Constant(rate) => *rate,
        Rate::Trace(trace) => trace
            .steps()
            .iter()
            .map(|step| step.rate)
            .max()
            .unwrap_or(0),
    };
    let bits = u128::from(fastest) * limits::QUEUE_DEFAULT.as_nanos() / SECOND;
    let bytes = u64::try_from(bits / 8).unwrap_or(u64::MAX);
    QueueLimit::Bytes(bytes.max(limits::QUEUE_BYTES_MIN))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Step, Trace};
    use super::*;

    const MEGABIT: u64 = 1_000_000;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The moments, since `start`, at which everything that waits is out.
    fn drain(bottleneck: &mut Bottleneck<u64>, start: Instant) -> Vec<Duration> {
        let end = start + Duration::from_secs(3600);
        std::iter::from_fn(|| bottleneck.pop(end))
            .map(|(at, _)| at - start)
            .collect()
    }

    #[test]
    fn a_packet_takes_its_bits_divided_by_the_rate() {
        let start = Instant::now();
        let mut bottleneck = Bottleneck::new(Rate::Constant(MEGABIT), None, start);
        for item in 0..3 {
            bottleneck.push(start, 1250, item).unwrap();
        }
        assert_eq!(bottleneck.next(), Some(start + milliseconds(10)));
        let expected: Vec<Duration> = [10, 20, 30].map(milliseconds).into();
        assert_eq!(drain(&mut bottleneck, start), expected);
    }

    #[test]
    fn a_rate_that_divides_no_nanosecond_is_exact_over_many_packets() {
        let start = Instant::now();
        let rate = 7_777_777_777;
        let limit = Some(QueueLimit::Packets(u64::MAX));
        let mut bottleneck = Bottleneck::new(Rate::Constant(rate), limit, start);
        for item in 0..100_000 {
            bottleneck.push(start, 1500, item).unwrap();
        }
        let last = *drain(&mut bottleneck, start).last().unwrap();
        let expected = 100_000.0 * 1500.0 * 8.0 / rate as f64;
        assert!((last.as_secs_f64() - expected).abs() < 2e-9, "{last:?}");
    }

    #[test]
    fn what_the_queue_cannot_hold_is_given_back() {
        let start = Instant::now();
        for limit in [QueueLimit::Bytes(5000), QueueLimit::Packets(5)] {
            let mut bottleneck = Bottleneck::new(Rate::Constant(MEGABIT), Some(limit), start);
            let taken = (0..10).filter(|item| bottleneck.push(start, 1000, *item).is_ok());
            assert_eq!(taken.count(), 5);
            // 8 ms later the first is out and one more has room.
            let later = start + milliseconds(8);
            assert!(bottleneck.pop(later).is_some());
            assert!(bottleneck.push(later, 1000, 10).is_ok());
            assert!(bottleneck.push(later, 1000, 11).is_err());
        }
    }

    #[test]
    fn a_full_queue_delays_by_its_size_divided_by_the_rate() {
        let start = Instant::now();
        let limit = Some(QueueLimit::Bytes(100_000));
        let mut bottleneck = Bottleneck::new(Rate::Constant(8 * MEGABIT), limit, start);
        while bottleneck.push(start, 1000, 0).is_ok() {}
        assert_eq!(
            *drain(&mut bottleneck, start).last().unwrap(),
            milliseconds(100)
        );
    }

    #[test]
    fn a_packet_longer_than_the_queue_still_passes_alone() {
        let start = Instant::now();
        let limit = Some(QueueLimit::Bytes(100));
        let mut bottleneck = Bottleneck::new(Rate::Constant(MEGABIT), limit, start);
        assert!(bottleneck.push(start, 1500, 0).is_ok());
        assert!(bottleneck.push(start, 1500, 1).is_err());
    }

    #[test]
    fn a_change_of_rate_holds_for_what_remains_of_the_packet_and_the_queue() {
        let start = Instant::now();
        let mut bottleneck = Bottleneck::new(Rate::Constant(MEGABIT), None, start);
        bottleneck.push(start, 1250, 0).unwrap();
        bottleneck.push(start, 1250, 1).unwrap();
        // Half of the first packet is out; the rest and the second go ten times as fast.
        bottleneck.set(start + milliseconds(5), Rate::Constant(10 * MEGABIT), None);
        let expected = vec![Duration::from_micros(5500), Duration::from_micros(6500)];
        assert_eq!(drain(&mut bottleneck, start), expected);
    }

    #[test]
    fn a_trace_is_followed_through_its_pauses_and_rounds() {
        let start = Instant::now();
        let trace = Trace::new(vec![
            Step {
                rate: MEGABIT,
                lasts: milliseconds(10),
            },
            Step {
                rate: 0,
                lasts: milliseconds(90),
            },
        ]);
        let rate = Rate::Trace(Arc::new(trace.unwrap()));
        let mut bottleneck = Bottleneck::new(rate, None, start);
        // 1250 bytes are what one round carries.
        bottleneck.push(start, 625, 0).unwrap();
        bottleneck.push(start, 1250, 1).unwrap();
        bottleneck.push(start, 12_500, 2).unwrap();
        let expected: Vec<Duration> = [5, 105, 1105].map(milliseconds).into();
        assert_eq!(drain(&mut bottleneck, start), expected);
    }

    #[test]
    fn a_slow_trace_of_short_steps_costs_no_time_to_compute() {
        let start = Instant::now();
        let trace = Trace::new(vec![Step {
            rate: 1,
            lasts: Duration::from_nanos(1),
        }]);
        let rate = Rate::Trace(Arc::new(trace.unwrap()));
        let mut bottleneck = Bottleneck::new(rate, None, start);
        bottleneck.push(start, 1, 0).unwrap();
        assert_eq!(bottleneck.next(), Some(start + Duration::from_secs(8)));
    }

    #[test]
    fn an_idle_transmitter_begins_when_the_packet_comes() {
        let start = Instant::now();
        let mut bottleneck = Bottleneck::new(Rate::Constant(MEGABIT), None, start);
        let later = start + Duration::from_secs(7);
        bottleneck.push(later, 1250, 0).unwrap();
        assert_eq!(bottleneck.next(), Some(later + milliseconds(10)));
    }
}
