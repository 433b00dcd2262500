//! Whether a worker keeps up, judged by how long one pass over all ready tasks takes on its thread.
//!
//! On an overloaded thread every ready task waits longer and longer, and each request waits several times. In
//! a burst that lasts only for a moment. If no pass within an interval is short, the queue never empties:
//! that is overload (the estimator of CoDel, RFC 8289 section 3.1). From then on, until passes have been
//! short for a while, peers may have open only as many streams as the worker can finish soon ([`takes_on`],
//! applied by [`crate::stream_limit`]): requests beyond that wait at the peers, which can send them elsewhere
//! or refuse them. If passes are long although the worker keeps up, this limit does no harm.
//!
//! [`Passes`] makes the decision, without IO; [`Lag::measure`] reads the clock for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::limits;

/// The pace of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Ready tasks have their turn soon.
    #[default]
    Well,
    /// The last pass was long: for the moment, no limit should be raised.
    Late,
    /// Every pass was long for a while, and that is not long ago.
    Behind,
}

/// The known pace of one worker. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub struct Lag(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    pace: watch::Sender<Pace>,
    work: Notify,
    /// Microseconds of long passes while the worker was behind.
    behind: AtomicU64,
}

impl Lag {
    /// There is work, so a pass should be measured soon. An idle worker is not woken to be measured.
    pub fn work(&self) {
        self.0.work.notify_one();
    }

    /// How long passes took, in all, while the worker was behind.
    pub fn behind(&self) -> Duration {
        Duration::from_micros(self.0.behind.load(Ordering::Relaxed))
    }

    /// Whether the worker is behind.
    pub fn is_behind(&self) -> bool {
        self.pace() == Pace::Behind
    }

    /// The pace of the worker. A worker that is not measured counts as keeping up.
    pub(crate) fn pace(&self) -> Pace {
        *self.0.pace.borrow()
    }

    /// Done when the worker is behind; at once if it is.
    pub async fn fell_behind(&self) {
        let mut pace = self.0.pace.subscribe();
        // Fails only when the sender is gone; this value holds it.
        let _ = pace.wait_for(|pace| *pace == Pace::Behind).await;
    }

    /// Done when the worker keeps up or is behind: lateness lasts for a moment only.
    pub(crate) async fn is_not_late(&self) {
        let mut pace = self.0.pace.subscribe();
        // Fails only when the sender is gone; this value holds it.
        let _ = pace.wait_for(|pace| *pace != Pace::Late).await;
    }

    /// Measures the thread that polls this, without end.
    pub async fn measure(self) {
        let mut passes = Passes::default();
        loop {
            let began = Instant::now();
            // Returns after every ready task was polled once, and the kernel was asked for more events.
            tokio::task::yield_now().await;
            let now = Instant::now();
            let (took, pace) = (
                now.saturating_duration_since(began),
                passes.over(began, now),
            );
            self.tell(pace, took);
            if is_long(took) {
                continue;
            }
            tokio::time::sleep(limits::PASS_PAUSE).await;
            if pace == Pace::Well {
                self.0.work.notified().await;
            }
        }
    }

    fn tell(&self, pace: Pace, took: Duration) {
        let known = &*self.0;
        if pace == Pace::Behind && is_long(took) {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            known.behind.fetch_add(took, Ordering::Relaxed);
        }
        known
            .pace
            .send_if_modified(|known| std::mem::replace(known, pace) != pace);
    }
}

fn is_long(pass: Duration) -> bool {
    pass >= limits::PASS_LONG
}

/// How many streams a worker that is behind may have under way beside the long-lived ones, if it `finished`
/// this many `within` that time: as many as it finishes soon (Little's law), and a few more, so that it can
/// show that it is able to do more.
pub(crate) fn takes_on(finished: u32, within: Duration) -> u32 {
    let share = limits::FINISHED_SOON.div_duration_f64(within.max(Duration::from_millis(1)));
    let soon = (f64::from(finished) * share) as u32;
    soon.saturating_add(limits::TAKES_ON_LEAST)
}

/// Judges passes, one after the other.
#[derive(Debug, Default)]
struct Passes {
    /// Since when each was long.
    long_since: Option<Instant>,
    /// When the last long pass was over, while the worker is behind.
    behind: Option<Instant>,
}

impl Passes {
    /// A pass that began at `began` is over at `now`.
    fn over(&mut self, began: Instant, now: Instant) -> Pace {
        let long = is_long(now.saturating_duration_since(began));
        if long {
            let since = *self.long_since.get_or_insert(began);
            let stands = now.saturating_duration_since(since) >= limits::PASS_INTERVAL;
            if stands || self.behind.is_some() {
                self.behind = Some(now);
            }
        } else {
            self.long_since = None;
            self.behind = self
                .behind
                .filter(|last| now.saturating_duration_since(*last) < limits::PASS_RELEASE);
        }
        match (self.behind, long) {
            (Some(_), _) => Pace::Behind,
            (None, true) => Pace::Late,
            (None, false) => Pace::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace::{Behind, Late, Well};
    use super::*;

    /// How passes of these durations in milliseconds, one after the other, are judged.
    fn judged(lengths: &[u64]) -> Vec<Pace> {
        let mut passes = Passes::default();
        let mut now = Instant::now();
        let judge = |length: &u64| {
            let began = now;
            now += Duration::from_millis(*length);
            passes.over(began, now)
        };
        lengths.iter().map(judge).collect()
    }

    #[test]
    fn one_long_pass_is_late_and_only_an_interval_of_them_is_overload() {
        assert_eq!(
            judged(&[1, 30, 30, 30, 30]),
            [Well, Late, Late, Late, Behind]
        );
        assert_eq!(judged(&[90, 1, 90, 30]), [Late, Well, Late, Behind]);
    }

    #[test]
    fn a_worker_is_behind_until_passes_were_short_for_a_second() {
        let short = [10; 99];
        assert!(
            judged(&[&[200][..], &short].concat())
                .iter()
                .all(|pace| *pace == Behind)
        );
        assert_eq!(
            judged(&[&[200][..], &short, &[20, 10]].concat()).last(),
            Some(&Behind)
        );
        assert_eq!(
            judged(&[&[200][..], &short, &[10]].concat()).last(),
            Some(&Well)
        );
    }

    #[test]
    fn only_long_passes_of_a_worker_that_is_behind_are_counted() {
        let lag = Lag::default();
        let millis = Duration::from_millis;
        for (pace, took) in [(Late, 40), (Behind, 30), (Behind, 10), (Behind, 25)] {
            lag.tell(pace, millis(took));
        }
        assert!(lag.is_behind());
        assert_eq!(lag.behind(), millis(55));
    }

    #[test]
    fn a_worker_takes_on_what_it_finishes_in_a_fifth_of_a_second_and_a_little_more() {
        let second = Duration::from_secs(1);
        assert_eq!(takes_on(0, second), 16);
        assert_eq!(takes_on(1000, second), 216);
        assert_eq!(takes_on(1000, second / 10), 2016);
        assert_eq!(takes_on(u32::MAX, Duration::ZERO), u32::MAX);
    }

    #[tokio::test]
    async fn a_thread_that_is_held_up_falls_behind() {
        let lag = Lag::default();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(lag.clone().measure());
        // Ready again at once, like a task in a busy crowd that always has work.
        tasks.spawn(std::future::poll_fn(|cx| {
            let until = Instant::now() + limits::PASS_LONG;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            cx.waker().wake_by_ref();
            std::task::Poll::<()>::Pending
        }));
        lag.work();
        lag.fell_behind().await;
    }
}
