//! The last requests that failed and the slowest ones, as lines of the access log, for `weft why`: kept
//! whether or not there is an access log, and told only when the config service asks. Bounded in number and
//! by the second, so a storm of failures costs what its first hundred cost. Times come from the records.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use weft_config::signals::RecentFilter;
use weft_transport::locks::lock;

use crate::access_log;
use crate::limits;
use crate::metrics::Series;
use crate::record::{Finished, Observer};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    failed: Mutex<Failed>,
    slowest: Mutex<Slowest>,
    /// What a request of the present minute must take to be one of the slowest, in microseconds.
    least: AtomicU64,
}

/// A request that is over.
#[derive(Debug)]
struct Kept {
    ended: Instant,
    took: Duration,
    request_id: Option<HeaderValue>,
    from: Arc<str>,
    to: Arc<str>,
    line: Box<[u8]>,
}

/// The newest are last.
#[derive(Debug, Default)]
struct Failed {
    kept: VecDeque<Kept>,
    /// The second that is under way, and how many it has.
    second: Option<(Instant, usize)>,
}

/// By minutes, the newest last; in each the slowest, in no order.
#[derive(Debug, Default)]
struct Slowest(VecDeque<(Instant, Vec<Kept>)>);

/// What the observers of a worker have of it.
pub(crate) struct Recorder(pub(crate) Arc<Recent>);

impl Observer for Recorder {
    fn observe(&self, finished: &Finished<'_>) {
        self.0.observe(finished);
    }
}

impl Recent {
    fn observe(&self, finished: &Finished<'_>) {
        if finished.outcome.failed {
            let mut failed = lock(&self.failed);
            if failed.has_room(finished.ended) {
                let kept = Kept::of(finished, finished.duration());
                failed.kept.extend(kept);
            }
            return;
        }
        // How long a body or a tunnel lasts is the caller's wish.
        let (Series::Requests(_), Some(took)) = (&finished.record.counted.series, finished.head())
        else {
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Stored by any worker, and only a first look: the lock decides.
        if micros > self.least.load(Ordering::Relaxed) {
            let least =
                lock(&self.slowest).offer(took, finished.ended, || Kept::of(finished, took));
            self.least.store(least, Ordering::Relaxed);
        }
    }

    /// A minute may have passed without a request that is slow enough: what comes is the slowest again.
    pub(crate) fn look(&self, now: Instant) {
        let least = lock(&self.slowest).least(now);
        self.least.store(least, Ordering::Relaxed);
    }

    /// The lines that are asked for, the newest failures first, then the slowest.
    pub(crate) fn lines(&self, wanted: &RecentFilter, now: Instant) -> Vec<Vec<u8>> {
        let is_wanted = |kept: &&Kept| kept.is(wanted, now);
        let line = |kept: &Kept| kept.line.to_vec();
        let failed = lock(&self.failed);
        let mut lines: Vec<_> = failed
            .kept
            .iter()
            .rev()
            .filter(is_wanted)
            .map(line)
            .collect();
        drop(failed);
        let slowest = lock(&self.slowest);
        let slow = slowest.0.iter().rev().flat_map(|(_, kept)| kept);
        lines.extend(slow.filter(is_wanted).map(line));
        lines.truncate(limits::RECENT_TOLD_MAX);
        lines
    }
}

impl Kept {
    fn of(finished: &Finished<'_>, took: Duration) -> Option<Self> {
        let labels = &finished.record.counted.labels;
        Some(Self {
            ended: finished.ended,
            took,
            request_id: finished.record.request_id.clone(),
            from: match labels.source_service.is_empty() {
                true => Arc::clone(&labels.source_principal),
                false => Arc::clone(&labels.source_service),
            },
            to: Arc::clone(&labels.destination_service),
            line: access_log::whole(finished)?.into_boxed_slice(),
        })
    }

    fn is(&self, wanted: &RecentFilter, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.ended);
        let id = wanted.request_id.as_bytes();
        let is_it = id.is_empty()
            || self
                .request_id
                .as_ref()
                .is_some_and(|own| own.as_bytes() == id);
        is_it && age <= wanted.within && wanted.is_from(&self.from) && wanted.is_to(&self.to)
    }
}

impl Failed {
    /// Whether one more of this second is kept; the oldest one goes for it.
    fn has_room(&mut self, now: Instant) -> bool {
        let second = self
            .second
            .filter(|(begin, _)| now.saturating_duration_since(*begin) < Duration::from_secs(1));
        let (begin, count) = second.unwrap_or((now, 0));
        self.second = Some((begin, count + 1));
        if count >= limits::RECENT_FAILURES_PER_SECOND {
            return false;
        }
        if self.kept.len() >= limits::RECENT_FAILURES {
            self.kept.pop_front();
        }
        true
    }
}

impl Slowest {
    /// Takes a request if it is one of the slowest of its minute, and says what the next one must take.
    fn offer(&mut self, took: Duration, now: Instant, kept: impl FnOnce() -> Option<Kept>) -> u64 {
        self.pass(now);
        if let Some((_, minute)) = self.0.back_mut() {
            let quickest = minute.iter().enumerate().min_by_key(|(_, kept)| kept.took);
            let quickest = quickest.map(|(place, kept)| (place, kept.took));
            match quickest {
                Some((place, quickest)) if minute.len() >= limits::RECENT_SLOWEST => {
                    if took > quickest
                        && let Some(kept) = kept()
                    {
                        minute[place] = kept;
                    }
                }
                Some(_) | None => minute.extend(kept()),
            }
        }
        self.least(now)
    }

    /// What a request must take, in microseconds.
    fn least(&mut self, now: Instant) -> u64 {
        self.pass(now);
        let minute = self.0.back().map(|(_, minute)| minute);
        let full = minute.filter(|minute| minute.len() >= limits::RECENT_SLOWEST);
        let least = full.and_then(|minute| minute.iter().map(|kept| kept.took).min());
        least.map_or(0, |least| {
            u64::try_from(least.as_micros()).unwrap_or(u64::MAX)
        })
    }

    fn pass(&mut self, now: Instant) {
        let is_over = |(begin, _): &(Instant, Vec<Kept>)| {
            now.saturating_duration_since(*begin) >= limits::RECENT_MINUTE
        };
        if self.0.back().is_none_or(is_over) {
            if self.0.len() >= limits::RECENT_MINUTES {
                self.0.pop_front();
            }
            self.0.push_back((now, Vec::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(took: u64, ended: Instant) -> Kept {
        Kept {
            ended,
            took: Duration::from_millis(took),
            request_id: Some(HeaderValue::from_static("one")),
            from: Arc::from("frontend.shop"),
            to: Arc::from("orders.shop:80"),
            line: Box::from(took.to_string().as_bytes()),
        }
    }

    fn every() -> RecentFilter {
        RecentFilter {
            within: Duration::from_hours(1),
            ..RecentFilter::default()
        }
    }

    fn offer(recent: &Recent, took: u64, now: Instant) {
        let took_time = Duration::from_millis(took);
        let least = lock(&recent.slowest).offer(took_time, now, || Some(kept(took, now)));
        recent.least.store(least, Ordering::Relaxed);
    }

    fn told(recent: &Recent, wanted: &RecentFilter, now: Instant) -> Vec<u64> {
        let lines = recent.lines(wanted, now);
        let read = |line: Vec<u8>| String::from_utf8(line).unwrap().parse().unwrap();
        let mut all: Vec<u64> = lines.into_iter().map(read).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_slowest_of_each_minute_are_kept_for_ten_minutes() {
        let (recent, now) = (Recent::default(), Instant::now());
        for took in 1..=100 {
            offer(&recent, took, now);
        }
        let slowest: Vec<u64> = (101 - limits::RECENT_SLOWEST as u64..=100).collect();
        assert_eq!(told(&recent, &every(), now), slowest);
        assert_eq!(recent.least.load(Ordering::Relaxed), slowest[0] * 1_000);
        // A calm minute has its own.
        let later = now + limits::RECENT_MINUTE;
        recent.look(later);
        assert_eq!(recent.least.load(Ordering::Relaxed), 0);
        offer(&recent, 3, later);
        assert!(told(&recent, &every(), later).contains(&3));
        let much_later = now + limits::RECENT_MINUTE * 30;
        for minute in 0..limits::RECENT_MINUTES as u32 {
            recent.look(much_later + limits::RECENT_MINUTE * minute);
        }
        assert_eq!(told(&recent, &every(), much_later), [0_u64; 0]);
    }

    #[test]
    fn a_storm_of_failures_is_kept_in_part_and_the_newest_stay() {
        let (recent, mut now) = (Recent::default(), Instant::now());
        for number in 0..20 {
            now += Duration::from_secs(1);
            for _ in 0..1_000 {
                let mut failed = lock(&recent.failed);
                if failed.has_room(now) {
                    failed.kept.push_back(kept(number, now));
                }
            }
        }
        let kept = lock(&recent.failed).kept.len();
        assert_eq!(kept, limits::RECENT_FAILURES);
        let newest = lock(&recent.failed).kept.back().map(|kept| kept.took);
        assert_eq!(newest, Some(Duration::from_millis(19)));
    }

    #[test]
    fn what_is_told_is_what_was_asked_for() {
        let (recent, now) = (Recent::default(), Instant::now());
        offer(&recent, 7, now);
        let asked =
            |wanted: RecentFilter| told(&recent, &wanted, now + Duration::from_secs(5)).len();
        assert_eq!(asked(every()), 1);
        let of = |change: fn(&mut RecentFilter)| {
            let mut wanted = every();
            change(&mut wanted);
            asked(wanted)
        };
        assert_eq!(of(|one| one.request_id = "one".to_owned()), 1);
        assert_eq!(of(|one| one.request_id = "two".to_owned()), 0);
        assert_eq!(of(|one| one.to = "orders.shop".to_owned()), 1);
        assert_eq!(of(|one| one.to = "orders.depot".to_owned()), 0);
        assert_eq!(of(|one| one.from = "*.shop".to_owned()), 1);
        assert_eq!(of(|one| one.within = Duration::from_secs(4)), 0);
    }
}
