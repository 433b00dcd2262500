//! How slow an endpoint seems: a moving average of its response times that follows a peak at once and
//! forgets it slowly ("peak EWMA"). Pure.

use std::time::{Duration, Instant};

/// The average. It falls towards zero while no answers come, so that an endpoint that was slow once is tried
/// again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency(Option<Measured>);

#[derive(Clone, Copy, Debug)]
struct Measured {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// A response head took this long. `decay` is the time in which the past loses weight by a factor of e.
    pub(crate) fn observe(&mut self, took: Duration, now: Instant, decay: Duration) {
        let took = took.as_secs_f64();
        let seconds = match self.0 {
            Some(past) if took < past.seconds => {
                let kept = kept(past.at, now, decay);
                past.seconds * kept + took * (1.0 - kept)
            }
            Some(_) | None => took,
        };
        self.0 = Some(Measured { seconds, at: now });
    }

    /// Seconds that a response is expected to take; none if none was ever measured.
    pub(crate) fn seconds(&self, now: Instant, decay: Duration) -> Option<f64> {
        self.0.map(|past| past.seconds * kept(past.at, now, decay))
    }
}

/// The usual time of an answer: a mean of the last few good ones, including slow ones. Unlike [`Latency`] it
/// neither follows a peak nor falls while no answers come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual(Option<f64>);

impl Usual {
    /// Answers after which one has lost weight by a factor of e.
    const ANSWERS: f64 = 16.0;

    /// A good answer took this long.
    pub(crate) fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let mean = self
            .0
            .map_or(took, |mean| mean + (took - mean) / Self::ANSWERS);
        self.0 = Some(mean);
    }

    /// None if none ever came.
    pub(crate) fn get(&self) -> Option<Duration> {
        self.0
            .map(|mean| Duration::try_from_secs_f64(mean).unwrap_or_default())
    }
}

/// The weight that the past keeps.
fn kept(at: Instant, now: Instant, decay: Duration) -> f64 {
    let passed = now.saturating_duration_since(at).as_secs_f64();
    (-passed / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.seconds(start, DECAY), None);
        latency.observe(ms(5), start, DECAY);
        latency.observe(ms(2000), start + ms(10), DECAY);
        assert_eq!(latency.seconds(start + ms(10), DECAY), Some(2.0));
        latency.observe(ms(5), start + ms(1010), DECAY);
        let after = latency.seconds(start + ms(1010), DECAY).unwrap();
        assert!((1.8..1.82).contains(&after), "{after}");
    }

    #[test]
    fn what_is_not_measured_falls_by_e_in_each_decay_time() {
        let start = Instant::now();
        let mut latency = Latency::default();
        latency.observe(ms(1000), start, DECAY);
        let later = latency.seconds(start + DECAY, DECAY).unwrap();
        assert!((later - (-1.0_f64).exp()).abs() < 1e-9, "{later}");
    }
}
