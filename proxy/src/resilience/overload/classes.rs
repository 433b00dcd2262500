//! How long the answers of a service usually take, by class of request: a queue is measured against this.
//! Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use super::watch::QUEUED;

/// Classes of calls that are told apart. Two that share a slot share one usual time, that of the quicker one.
const CLASSES: usize = 64;
/// Answers whose mean makes one reading of a class: few at first, so that a value is known soon; then more,
/// so that each reading includes the few slow answers among many quick ones.
const READING_FIRST: u32 = 8;
const READING: u32 = 128;
/// The lowest reading of this period and of the one before is the usual time, so an old reading is forgotten
/// after five to ten minutes.
const PERIOD: Duration = Duration::from_secs(300);
/// A class that usually takes longer waits by its nature, as long polls do: it tells nothing about a queue.
const USUAL_MAX: f64 = 1.0;

/// The class of a request, a place among [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// Of a request: by its method and the first segment of its path; for gRPC by the whole path, which is
    /// the service and the method.
    pub(crate) fn of(method: &str, path: &str, grpc: bool) -> Self {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let named = match rest.split_once('/') {
            Some((first, _)) if !grpc => first,
            Some(_) | None => rest,
        };
        let mut hasher = DefaultHasher::new();
        (method, named).hash(&mut hasher);
        Self((hasher.finish() % CLASSES as u64) as u8)
    }
}

/// The usual time of each class.
#[derive(Debug)]
pub(super) struct Classes(Box<[Usual; CLASSES]>);

impl Default for Classes {
    fn default() -> Self {
        Self(Box::new([Usual::default(); CLASSES]))
    }
}

impl Classes {
    /// Seconds that an answer of this class usually takes, if that is known and tells about a queue.
    pub(super) fn usual(&self, class: Class) -> Option<f64> {
        let usual = self.0[usize::from(class.0)].lowest()?;
        (usual <= USUAL_MAX).then_some(usual)
    }

    /// Seconds that an answer takes, weighted by the time that workers of the application spend on it: the
    /// answer on which a worker is usually busy at a random moment, in the slowest class that tells about a
    /// queue. With a few slow answers among many quick ones that is nearly always a slow one.
    pub(super) fn slowest(&self) -> f64 {
        let telling = self.0.iter();
        let telling =
            telling.filter(|usual| usual.lowest().is_some_and(|usual| usual <= USUAL_MAX));
        let busy = telling.map(|usual| usual.busy.max(usual.busy_before));
        busy.fold(0.0, f64::max).min(USUAL_MAX)
    }

    /// Whether requests of this class wait by their nature.
    pub(super) fn waits(&self, class: Class) -> bool {
        let lowest = self.0[usize::from(class.0)].lowest();
        lowest.is_some_and(|usual| usual > USUAL_MAX)
    }

    /// One more good answer.
    pub(super) fn answered(&mut self, class: Class, took: Duration, now: Instant) {
        self.0[usize::from(class.0)].read(took.as_secs_f64(), now);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    sum: f64,
    /// Sum of the squares.
    squares: f64,
    answers: u32,
    /// Answers that make the next reading.
    reading: u32,
    lowest: Option<f64>,
    before: Option<f64>,
    /// See [`Classes::slowest`].
    busy: f64,
    busy_before: f64,
    since: Option<Instant>,
}

impl Usual {
    fn lowest(&self) -> Option<f64> {
        [self.lowest, self.before]
            .into_iter()
            .flatten()
            .reduce(f64::min)
    }

    fn read(&mut self, seconds: f64, now: Instant) {
        self.sum += seconds;
        self.squares += seconds * seconds;
        self.answers += 1;
        if self.answers < self.reading.max(READING_FIRST) {
            return;
        }
        self.reading = (2 * self.answers).min(READING);
        let mean = (self.sum / f64::from(self.answers)).max(1e-6);
        let busy = self.squares / self.sum.max(1e-9);
        (self.sum, self.squares, self.answers) = (0.0, 0.0, 0);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PERIOD {
            self.before = self.lowest.take();
            self.busy_before = std::mem::take(&mut self.busy);
            self.since = Some(now);
        }
        self.lowest = Some(self.lowest.map_or(mean, |lowest| lowest.min(mean)));
        // Not the time that a queue caused.
        if self.lowest().is_some_and(|lowest| mean < QUEUED * lowest) {
            self.busy = self.busy.max(busy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_method_and_the_first_segment_or_a_method_of_grpc() {
        let of = |method, path| Class::of(method, path, false);
        assert_eq!(of("GET", "/orders/1"), of("GET", "/orders/2/lines"));
        assert_ne!(of("GET", "/orders/1"), of("GET", "/reports/1"));
        assert_ne!(of("GET", "/orders"), of("POST", "/orders"));
        let grpc = |path| Class::of("POST", path, true);
        assert_ne!(grpc("/shop.Orders/Get"), grpc("/shop.Orders/Watch"));
    }

    #[test]
    fn what_is_usual_is_the_lowest_reading_and_ages() {
        let mut classes = Classes::default();
        let (class, began) = (Class(0), Instant::now());
        let mut read = |millis, at| {
            for _ in 0..READING {
                classes.answered(class, Duration::from_millis(millis), began + at);
            }
            (classes.usual(class).unwrap() * 1e3).round() as u64
        };
        assert_eq!(read(20, Duration::ZERO), 20);
        assert_eq!(read(300, Duration::from_secs(1)), 20);
        assert_eq!(read(300, PERIOD), 20);
        assert_eq!(read(300, 2 * PERIOD), 300);
    }

    #[test]
    fn what_waits_by_its_nature_tells_nothing_of_a_queue() {
        let mut classes = Classes::default();
        let (class, now) = (Class(0), Instant::now());
        assert!(!classes.waits(class));
        for _ in 0..READING {
            classes.answered(class, Duration::from_secs(2), now);
        }
        assert!(classes.waits(class));
        assert_eq!(classes.usual(class), None);
    }
}
