//! Counts of durations by their size, for percentiles: an exponential histogram that holds only the range of
//! sizes that occurred. Pure.
//!
//! Eight buckets for each doubling, as Prometheus' native histograms of schema 3 and OpenTelemetry's of scale
//! 3 have them: a percentile is wrong by at most 4.4 % of its value. One with a few hundred durations takes
//! some 100 bytes.

/// Buckets for each doubling of the duration.
const PER_DOUBLING: u32 = 8;

/// Bounds of the buckets within a doubling, as 32 bits behind the point: 2^(n/8) for n in 1 to 7.
const BOUNDS: [u32; 7] = [
    0x172b_83c8,
    0x306f_e0a4,
    0x4bfd_ad54,
    0x6a09_e668,
    0x8ace_5423,
    0xae89_f996,
    0xd581_8dd0,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// The bucket of the first count.
    first: u8,
    /// From there on, without a gap.
    counts: Vec<u32>,
}

impl Durations {
    /// Counts a duration, in microseconds.
    pub fn add(&mut self, micros: u64) {
        self.add_to(bucket(micros), 1);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.iter() {
            self.add_to(bucket, count);
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The duration, in microseconds, below which this share of the durations is (0 to 1). None if none was
    /// counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0.0;
        let mut last = None;
        for (bucket, count) in self.iter() {
            let count = f64::from(count);
            if below + count >= wanted {
                // Within a bucket durations are taken to grow evenly in their logarithm.
                let part = ((wanted - below) / count).clamp(0.0, 1.0);
                return Some(((f64::from(bucket) + part) / f64::from(PER_DOUBLING)).exp2());
            }
            (below, last) = (below + count, Some(bucket));
        }
        last.map(|bucket| (f64::from(bucket + 1) / f64::from(PER_DOUBLING)).exp2())
    }

    /// The buckets that counted any, with their counts, in the order of durations.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = u32::from(self.first);
        let all = self.counts.iter().zip(first..);
        all.map(|(count, bucket)| (bucket, *count))
            .filter(|(_, count)| *count > 0)
    }

    /// One with these counts. Counts of buckets that do not exist are left out.
    #[must_use]
    pub fn of(buckets: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut all = Self::default();
        for (bucket, count) in buckets {
            if bucket <= u32::from(u8::MAX) && count > 0 {
                all.add_to(bucket, count);
            }
        }
        all
    }

    fn add_to(&mut self, bucket: u32, more: u32) {
        let bucket = u8::try_from(bucket).unwrap_or(u8::MAX);
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let gap = usize::from(self.first - bucket);
            self.counts.splice(0..0, std::iter::repeat_n(0, gap));
            self.first = bucket;
        }
        let place = usize::from(bucket - self.first);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        let count = &mut self.counts[place];
        *count = count.saturating_add(more);
    }
}

/// The bucket of a duration in microseconds, of 256: what is below one counts as one, and what is above 71
/// minutes as that.
fn bucket(micros: u64) -> u32 {
    let micros = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
    let doublings = micros.ilog2();
    // What is behind the first bit, moved to the front.
    let behind = micros.checked_shl(32 - doublings).unwrap_or(0);
    let within = BOUNDS.iter().filter(|bound| behind >= **bound).count();
    doublings * PER_DOUBLING + u32::try_from(within).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer durations count as this one: 71 minutes.
    const LONGEST: u64 = u32::MAX as u64;

    #[test]
    fn a_duration_lies_within_the_bounds_of_its_bucket() {
        let mut micros = 1_u64;
        while micros <= LONGEST {
            for near in [micros.saturating_sub(1).max(1), micros, micros + 1] {
                let bucket = f64::from(bucket(near.min(LONGEST)));
                let (low, high) = ((bucket / 8.0).exp2(), ((bucket + 1.0) / 8.0).exp2());
                let near = near.min(LONGEST) as f64;
                assert!(
                    low * 0.999_999_9 <= near && near < high * 1.000_000_1,
                    "{near}"
                );
            }
            micros += micros / 7 + 1;
        }
        assert_eq!((bucket(0), bucket(1), bucket(2)), (0, 0, 8));
        assert_eq!((bucket(LONGEST), bucket(u64::MAX)), (255, 255));
    }

    #[test]
    fn a_percentile_is_wrong_by_less_than_a_tenth_and_never_outside_of_what_was_counted() {
        let mut all = Durations::default();
        for micros in 1..=10_000 {
            all.add(micros);
        }
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let (seen, wanted) = (all.quantile(share).unwrap(), share * 10_000.0);
            assert!((0.92..=1.09).contains(&(seen / wanted)), "{share}: {seen}");
        }
        assert_eq!(Durations::default().quantile(0.5), None);
    }

    #[test]
    fn the_order_of_durations_and_of_merging_makes_no_difference() {
        let durations = [900, 3, 70_000, 3, 1 << 40, 0];
        let (mut one, mut two) = (Durations::default(), Durations::default());
        durations.iter().for_each(|micros| one.add(*micros));
        let (mut left, mut right) = (Durations::default(), Durations::default());
        durations[..2].iter().for_each(|micros| left.add(*micros));
        durations[2..].iter().for_each(|micros| right.add(*micros));
        two.merge(&right);
        two.merge(&left);
        assert_eq!(one, two);
        assert_eq!((one.count(), Durations::of(one.iter())), (6, one));
    }

    #[test]
    fn a_count_that_is_full_stays_full_and_buckets_that_do_not_exist_are_left_out() {
        let mut full = Durations::of([(4, u32::MAX), (256, 1), (u32::MAX, 9), (7, 0)]);
        full.merge(&full.clone());
        assert_eq!(full.iter().collect::<Vec<_>>(), [(4, u32::MAX)]);
    }
}
