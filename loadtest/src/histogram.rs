//! Durations counted in a histogram of fixed size: the summary of a million latencies. Pure. Three
//! significant digits, so a percentile is off by 0.1 % at most, from 1 us to 1 h; longer durations count as 1
//! h and are counted separately.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use crate::limits;

/// A histogram of durations in microseconds.
#[derive(Clone, Debug)]
pub struct Durations {
    counts: Histogram<u64>,
    /// Exact bounds: the histogram knows them only to its precision.
    min: Duration,
    max: Duration,
    above_range: u64,
}

/// One percentile, and how reliable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile {
    /// The smallest duration that at least this share of the samples does not exceed.
    pub value: Duration,
    /// The number of samples above this value.
    pub beyond: u64,
}

impl Percentile {
    /// Whether so few samples lie beyond it that another run may give quite another value.
    pub fn is_coarse(&self) -> bool {
        self.beyond < limits::SAMPLES_BEYOND_PERCENTILE_MIN
    }
}

/// Why an encoded histogram was refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not base64.
    #[error("not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Not a deflate stream, or longer than any histogram of this program.
    #[error(
        "not a compressed histogram of at most {} bytes",
        limits::HISTOGRAM_BYTES_MAX
    )]
    Deflate,
    /// Not an HDR V2 histogram of this range and precision.
    #[error("not an HDR V2 histogram of microseconds with three digits")]
    Format,
}

impl Default for Durations {
    fn default() -> Self {
        Self::new()
    }
}

impl Durations {
    /// An empty histogram. Allocates all that it will ever need.
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants that the crate accepts; a test makes one"
    )]
    pub fn new() -> Self {
        let counts = Histogram::new_with_bounds(
            1,
            limits::DURATION_RECORDED_MAX.as_micros() as u64,
            limits::SIGNIFICANT_DIGITS,
        );
        Self {
            counts: counts.expect("1 us to 1 h with 3 digits is a valid range"),
            min: Duration::MAX,
            max: Duration::ZERO,
            above_range: 0,
        }
    }

    /// Counts one duration. Does not allocate.
    pub fn record(&mut self, duration: Duration) {
        self.min = self.min.min(duration);
        self.max = self.max.max(duration);
        if duration > limits::DURATION_RECORDED_MAX {
            self.above_range += 1;
        }
        self.counts.saturating_record(micros(duration));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        // Both have the same bounds, so every value fits.
        let _ = self.counts.add(&other.counts);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.above_range += other.above_range;
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.counts.reset();
        self.min = Duration::MAX;
        self.max = Duration::ZERO;
        self.above_range = 0;
    }

    /// Samples.
    pub fn len(&self) -> u64 {
        self.counts.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Samples that were longer than the range.
    pub fn above_range(&self) -> u64 {
        self.above_range
    }

    /// The shortest, exactly.
    pub fn min(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(self.min)
    }

    /// The longest, exactly.
    pub fn max(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(self.max)
    }

    /// The mean, to the histogram's precision.
    pub fn mean(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| Duration::from_nanos((self.counts.mean() * 1e3) as u64))
    }

    /// The standard deviation, to the histogram's precision.
    pub fn deviation(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| Duration::from_nanos((self.counts.stdev() * 1e3) as u64))
    }

    /// The value that a share of `percent` of the samples does not exceed; `None` without samples.
    pub fn percentile(&self, percent: f64) -> Option<Percentile> {
        if self.is_empty() {
            return None;
        }
        let rank = (self.len() as f64 * percent / 100.0).ceil() as u64;
        Some(Percentile {
            value: self.at_rank(rank),
            beyond: self.len().saturating_sub(rank.max(1)),
        })
    }

    /// The value of the sample with this rank (from 1, ascending), to the histogram's precision and
    /// never beyond the exact bounds. Zero without samples.
    pub fn at_rank(&self, rank: u64) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        let rank = rank.clamp(1, self.len());
        // Half a rank below, so that floating-point rounding cannot reach the next one.
        let quantile = (rank as f64 - 0.5) / self.len() as f64;
        let value = Duration::from_micros(self.counts.value_at_quantile(quantile));
        value.clamp(self.min, self.max)
    }

    /// The share of samples that are at most `duration`, from 0 to 1.
    pub fn share_within(&self, duration: Duration) -> f64 {
        self.counts.quantile_below(micros(duration))
    }

    /// The distinct values with their counts, ascending.
    pub fn counts(&self) -> impl Iterator<Item = (Duration, u64)> {
        let steps = self.counts.iter_recorded();
        steps.map(|step| {
            let value = Duration::from_micros(step.value_iterated_to());
            (value, step.count_at_value())
        })
    }

    /// As HDR V2 with deflate in base64, the interchange format of the HdrHistogram tools.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        // Fails only for counts above i64::MAX and for writers that fail; a Vec does not.
        let _ = V2DeflateSerializer::new().serialize(&self.counts, &mut bytes);
        BASE64_STANDARD.encode(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote. Bounds are those of the histogram, so exact only
    /// to its precision.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let bytes = BASE64_STANDARD.decode(text)?;
        let counts = decode_bounded(&bytes)?;
        let mut durations = Self::new();
        durations
            .counts
            .add(counts)
            .map_err(|_| DecodeError::Format)?;
        if !durations.is_empty() {
            durations.min = Duration::from_micros(durations.counts.min());
            durations.max = Duration::from_micros(durations.counts.max());
        }
        Ok(durations)
    }
}

/// Rounded, because the histogram's unit is coarse for what is near to it.
fn micros(duration: Duration) -> u64 {
    let nanos = duration.as_nanos().saturating_add(500) / 1000;
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// A file may claim any size: sizes are checked before the decoder allocates by them.
fn decode_bounded(bytes: &[u8]) -> Result<Histogram<u64>, DecodeError> {
    use std::io::Read as _;
    // Cookie and length, then a zlib stream (HdrHistogram's V2 compressed encoding).
    let compressed = bytes.get(8..).ok_or(DecodeError::Deflate)?;
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(compressed)
        .take(limits::HISTOGRAM_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|_| DecodeError::Deflate)?;
    if plain.len() as u64 > limits::HISTOGRAM_BYTES_MAX {
        return Err(DecodeError::Deflate);
    }
    let word = |at: usize| {
        let bytes = plain.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let payload = word(4).ok_or(DecodeError::Format)?;
    let digits = word(12).ok_or(DecodeError::Format)?;
    if payload as usize > plain.len() || digits != u32::from(limits::SIGNIFICANT_DIGITS) {
        return Err(DecodeError::Format);
    }
    Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|_| DecodeError::Format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn near(found: Duration, expected: Duration) -> bool {
        let error = found.as_secs_f64() / expected.as_secs_f64() - 1.0;
        error.abs() <= 0.001
    }

    #[test]
    fn percentiles_of_a_uniform_distribution_are_within_a_thousandth() {
        let mut durations = Durations::new();
        for micros in 1..=100_000 {
            durations.record(us(micros));
        }
        for (percent, expected) in [
            (50.0, 50_000),
            (90.0, 90_000),
            (99.0, 99_000),
            (99.9, 99_900),
        ] {
            let found = durations.percentile(percent).unwrap();
            assert!(near(found.value, us(expected)), "p{percent}: {found:?}");
            assert_eq!(found.beyond, 100_000 - expected);
        }
        assert_eq!(durations.max(), Some(us(100_000)));
    }

    #[test]
    fn percentiles_of_an_exponential_distribution_are_the_analytic_ones() {
        let mut durations = Durations::new();
        let samples = 1_000_000;
        for index in 0..samples {
            // The inverse of the distribution at equally spaced probabilities.
            let below = (f64::from(index) + 0.5) / f64::from(samples);
            durations.record(Duration::from_secs_f64(-0.010 * (1.0 - below).ln()));
        }
        for percent in [50.0, 75.0, 90.0, 99.0, 99.9, 99.99] {
            let found = durations.percentile(percent).unwrap().value;
            let expected = Duration::from_secs_f64(-0.010 * (1.0 - percent / 100.0f64).ln());
            let error = found.as_secs_f64() / expected.as_secs_f64() - 1.0;
            assert!(error.abs() < 0.0015, "p{percent}: {found:?}, {expected:?}");
        }
    }

    #[test]
    fn merging_equals_recording_in_one() {
        let (mut one, mut left, mut right) = (Durations::new(), Durations::new(), Durations::new());
        for micros in 1..5000u64 {
            let duration = us(micros * micros % 70_001);
            one.record(duration);
            if micros % 3 == 0 {
                left.record(duration);
            } else {
                right.record(duration);
            }
        }
        left.merge(&right);
        assert_eq!(left.encode(), one.encode());
        assert_eq!((left.min(), left.max()), (one.min(), one.max()));
    }

    #[test]
    fn a_percentile_with_fewer_than_ten_samples_beyond_it_is_coarse() {
        let mut durations = Durations::new();
        for micros in 1..=1000 {
            durations.record(us(micros));
        }
        assert!(!durations.percentile(99.0).unwrap().is_coarse());
        assert!(durations.percentile(99.9).unwrap().is_coarse());
    }

    #[test]
    fn what_is_longer_than_the_range_counts_as_its_end_and_is_counted_apart() {
        let mut durations = Durations::new();
        durations.record(Duration::MAX);
        durations.record(us(5));
        assert_eq!(durations.above_range(), 1);
        assert_eq!(durations.len(), 2);
        assert!(durations.percentile(99.0).unwrap().value >= limits::DURATION_RECORDED_MAX);
    }

    #[test]
    fn an_encoded_histogram_reads_back_with_every_count() {
        let mut durations = Durations::new();
        for micros in [1, 5, 5, 999, 123_456, 3_600_000_000] {
            durations.record(us(micros));
        }
        let back = Durations::decode(&durations.encode()).unwrap();
        assert!(back.counts().eq(durations.counts()));
        assert!(
            Durations::decode(&Durations::new().encode())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_histogram_is_refused_without_allocating_by_its_claims() {
        use base64::Engine as _;
        use std::io::Write as _;
        assert!(matches!(
            Durations::decode("*"),
            Err(DecodeError::Base64(_))
        ));
        assert!(matches!(
            Durations::decode("AAAA"),
            Err(DecodeError::Deflate)
        ));
        // A valid stream whose inner header claims 4 GiB of counts.
        let mut plain = 0x1c84_9303u32.to_be_bytes().to_vec();
        plain.extend(u32::MAX.to_be_bytes());
        plain.extend([0; 32]);
        let mut bytes = vec![0; 8];
        let mut encoder = flate2::write::ZlibEncoder::new(&mut bytes, flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap();
        assert!(matches!(
            Durations::decode(&BASE64_STANDARD.encode(bytes)),
            Err(DecodeError::Format)
        ));
    }
}
