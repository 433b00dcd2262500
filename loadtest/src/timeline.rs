//! The run second by second. Pure. Bounded: when there are too many steps, two become one, so that a run of a
//! day costs as much memory as one of ten minutes.
//!
//! A request that is due belongs to the step in which it is due; its end and latency belong to the step in
//! which it ended. A frozen server therefore shows as steps in which no request ends, and then as one in
//! which all waiting requests end.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits;

/// Counters and latencies of equal, adjacent spans of time.
#[derive(Clone, Debug)]
pub struct Timeline {
    step: Duration,
    steps: Vec<Step>,
}

/// One span.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Requests that were due in it.
    pub due: u64,
    /// Requests that ended well in it.
    pub succeeded: u64,
    /// Requests that ended badly in it.
    pub failed: u64,
    /// Bytes of answers that ended in it.
    pub bytes_in: u64,
    /// Bytes of requests that ended in it.
    pub bytes_out: u64,
    /// The longest latency of a request that ended in it.
    pub latency_max: Duration,
    sum_micros: u64,
    /// Made with the first latency: most steps of a worker's interval stay empty.
    latencies: Option<Histogram<u32>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            step: limits::TIMELINE_STEP_MIN,
            steps: Vec::new(),
        }
    }
}

impl Timeline {
    /// How long a step is.
    pub fn step(&self) -> Duration {
        self.step
    }

    /// The steps from the beginning; the last may be shorter than the others.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step at a distance from the beginning of the measured time.
    pub fn at(&mut self, offset: Duration) -> &mut Step {
        let mut index = self.index(offset);
        while index >= limits::TIMELINE_STEPS_MAX as u128 {
            self.coarsen();
            index = self.index(offset);
        }
        // Below the limit, so it fits.
        let index = index as usize;
        if index >= self.steps.len() {
            self.steps.resize_with(index + 1, Step::default);
        }
        &mut self.steps[index]
    }

    /// Adds all of `other`. The result has the coarser of the two steps.
    pub fn merge(&mut self, other: &Self) {
        while self.step < other.step {
            self.coarsen();
        }
        for (index, step) in (0u32..).zip(&other.steps) {
            if !step.is_empty() {
                self.at(other.step.saturating_mul(index)).merge(step);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn index(&self, offset: Duration) -> u128 {
        offset.as_nanos() / self.step.as_nanos()
    }

    fn coarsen(&mut self) {
        self.step = self.step.saturating_mul(2);
        let steps = std::mem::take(&mut self.steps);
        let mut steps = steps.into_iter();
        while let Some(mut step) = steps.next() {
            if let Some(second) = steps.next() {
                step.merge(&second);
            }
            self.steps.push(step);
        }
    }
}

impl Step {
    /// Counts a latency.
    pub fn latency(&mut self, latency: Duration) {
        let micros = latency.min(limits::DURATION_RECORDED_MAX).as_micros() as u64;
        self.latency_max = self.latency_max.max(latency);
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.histogram().saturating_record(micros);
    }

    /// Latencies counted.
    pub fn latencies(&self) -> u64 {
        self.latencies.as_ref().map_or(0, Histogram::len)
    }

    /// A percentile of the latencies, to 1 %; `None` without any.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let latencies = self.latencies.as_ref()?;
        let value = Duration::from_micros(latencies.value_at_quantile(percent / 100.0));
        Some(value.min(self.latency_max))
    }

    /// The mean latency, exactly.
    pub fn mean(&self) -> Option<Duration> {
        let count = self.latencies();
        (count > 0).then(|| Duration::from_nanos(self.sum_micros.saturating_mul(1000) / count))
    }

    /// The latencies, for a log of intervals; `None` without any.
    pub(crate) fn histogram_of_latencies(&self) -> Option<&Histogram<u32>> {
        self.latencies.as_ref()
    }

    /// Ended requests, good and bad.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed
    }

    fn is_empty(&self) -> bool {
        self.due == 0 && self.ended() == 0
    }

    fn merge(&mut self, other: &Self) {
        self.due += other.due;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.latency_max = self.latency_max.max(other.latency_max);
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
        if let Some(latencies) = &other.latencies {
            // The same bounds on both sides, so every value fits.
            let _ = self.histogram().add(latencies);
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants that the crate accepts; every test makes one"
    )]
    fn histogram(&mut self) -> &mut Histogram<u32> {
        self.latencies.get_or_insert_with(|| {
            Histogram::new_with_bounds(
                1,
                limits::DURATION_RECORDED_MAX.as_micros() as u64,
                limits::TIMELINE_SIGNIFICANT_DIGITS,
            )
            .expect("1 us to 1 h with 2 digits is a valid range")
        })
    }
}

/// When answers came, to one of a bounded number of slots: enough to find the longest time without any, also
/// across threads.
#[derive(Clone, Debug)]
pub struct Presence {
    slot: Duration,
    bits: Vec<u64>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            slot: limits::PRESENCE_SLOT_MIN,
            bits: vec![0; limits::PRESENCE_SLOTS_MAX / 64],
        }
    }
}

impl Presence {
    /// How exact a time is.
    pub fn slot(&self) -> Duration {
        self.slot
    }

    /// Notes that an answer came.
    pub fn note(&mut self, offset: Duration) {
        let mut index = self.index(offset);
        while index >= limits::PRESENCE_SLOTS_MAX as u128 {
            self.coarsen();
            index = self.index(offset);
        }
        self.bits[index as usize / 64] |= 1 << (index % 64);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        while self.slot < other.slot {
            self.coarsen();
        }
        for index in other.set() {
            self.note(other.slot.saturating_mul(index as u32));
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.slot = limits::PRESENCE_SLOT_MIN;
        self.bits.fill(0);
    }

    /// The longest time without an answer between the beginning and `end`, and when it began.
    pub fn longest_gap(&self, end: Duration) -> (Duration, Duration) {
        let (mut longest, mut begin) = (Duration::ZERO, Duration::ZERO);
        let mut since = Duration::ZERO;
        let answers = self.set();
        let times = answers.map(|index| self.slot.saturating_mul(index as u32));
        for time in times.chain(std::iter::once(end)) {
            let gap = time.saturating_sub(since);
            if gap > longest {
                (longest, begin) = (gap, since);
            }
            since = since.max(time);
        }
        (longest, begin)
    }

    fn index(&self, offset: Duration) -> u128 {
        offset.as_nanos() / self.slot.as_nanos()
    }

    /// The slots with an answer, ascending.
    fn set(&self) -> impl Iterator<Item = usize> {
        let words = self.bits.iter().enumerate();
        words.flat_map(|(word, &bits)| {
            let set = (0..64).filter(move |bit| bits >> bit & 1 == 1);
            // An empty word, which most are, costs nothing.
            let set = if bits == 0 { None } else { Some(set) };
            set.into_iter().flatten().map(move |bit| word * 64 + bit)
        })
    }

    fn coarsen(&mut self) {
        let set: Vec<usize> = self.set().collect();
        self.bits.fill(0);
        self.slot = self.slot.saturating_mul(2);
        for index in set {
            let half = index / 2;
            self.bits[half / 64] |= 1 << (half % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_long_run_has_coarser_steps_and_loses_nothing() {
        let mut timeline = Timeline::default();
        let seconds = limits::TIMELINE_STEPS_MAX as u64 * 5;
        for second in 0..seconds {
            let step = timeline.at(Duration::from_secs(second));
            step.due += 1;
            step.latency(ms(second % 7));
        }
        assert!(timeline.steps().len() <= limits::TIMELINE_STEPS_MAX);
        assert_eq!(timeline.step(), limits::TIMELINE_STEP_MIN * 8);
        let due: u64 = timeline.steps().iter().map(|step| step.due).sum();
        assert_eq!(due, seconds);
        let latencies: u64 = timeline.steps().iter().map(Step::latencies).sum();
        assert_eq!(latencies, seconds);
    }

    #[test]
    fn merging_time_lines_equals_recording_in_one() {
        let (mut one, mut left, mut right) = (
            Timeline::default(),
            Timeline::default(),
            Timeline::default(),
        );
        // The right one is so long that its steps are coarser.
        for index in 0..3000u64 {
            let (offset, latency) = (ms(index * 700), ms(index % 97));
            one.at(offset).latency(latency);
            one.at(offset).succeeded += 1;
            let side = if index < 500 { &mut left } else { &mut right };
            side.at(offset).latency(latency);
            side.at(offset).succeeded += 1;
        }
        left.merge(&right);
        assert_eq!(left.step(), one.step());
        assert_eq!(left.steps().len(), one.steps().len());
        for (merged, direct) in left.steps().iter().zip(one.steps()) {
            assert_eq!(merged.succeeded, direct.succeeded);
            assert_eq!(merged.percentile(99.0), direct.percentile(99.0));
            assert_eq!(merged.mean(), direct.mean());
        }
    }

    #[test]
    fn an_absurd_time_is_taken_into_bounded_memory() {
        let mut timeline = Timeline::default();
        timeline.at(Duration::from_secs(u64::MAX)).due += 1;
        assert!(timeline.steps().len() <= limits::TIMELINE_STEPS_MAX);
        let mut presence = Presence::default();
        presence.note(Duration::from_secs(u64::MAX));
    }

    #[test]
    fn the_longest_gap_is_found_across_threads() {
        let (mut left, mut right) = (Presence::default(), Presence::default());
        for index in 0..1000 {
            let side = if index % 2 == 0 {
                &mut left
            } else {
                &mut right
            };
            if !(300..700).contains(&index) {
                side.note(ms(index));
            }
        }
        left.merge(&right);
        let (gap, begin) = left.longest_gap(ms(1000));
        assert_eq!((gap, begin), (ms(401), ms(299)));
    }

    #[test]
    fn silence_from_the_beginning_or_to_the_end_is_a_gap() {
        let mut presence = Presence::default();
        assert_eq!(presence.longest_gap(ms(50)), (ms(50), ms(0)));
        presence.note(ms(40));
        assert_eq!(presence.longest_gap(ms(50)), (ms(40), ms(0)));
        assert_eq!(presence.longest_gap(ms(90)), (ms(50), ms(40)));
    }

    #[test]
    fn a_long_run_knows_its_gaps_less_exactly() {
        let mut presence = Presence::default();
        let end = limits::PRESENCE_SLOT_MIN * limits::PRESENCE_SLOTS_MAX as u32 * 3;
        let quarter = end / 4;
        for part in [0, 1, 3] {
            presence.note(quarter * part);
        }
        let (gap, begin) = presence.longest_gap(end);
        assert!(gap.abs_diff(quarter * 2) <= presence.slot() * 2, "{gap:?}");
        assert!(begin.abs_diff(quarter) <= presence.slot() * 2, "{begin:?}");
    }
}
