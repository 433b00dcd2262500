//! The run as a log of interval histograms, the format that HdrHistogram's own tools (HistogramLog
//! Processor, HdrHistogramVisualizer, hdr-plot) read. Pure. One line per step of the time line, values
//! in microseconds, the largest value of a line in milliseconds, two significant digits.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::measurements::Measurements;

/// The whole log. Times of the lines are seconds from the end of the warm-up, `started` plus the
/// warm-up is its base.
pub fn log(measurements: &Measurements, started: SystemTime, weft: &str) -> Vec<u8> {
    let base = started + measurements.warm_up();
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[weft load {weft}: latency in microseconds]"))
        .with_start_time(base)
        .with_base_time(base)
        .with_max_value_divisor(1000.0);
    // A Vec takes every byte, and no count here is near the format's bound of 2^63.
    if let Ok(mut log) = builder.begin_log_with(&mut out, &mut serializer) {
        let step = measurements.timeline.step();
        let mut from = Duration::ZERO;
        for one in measurements.timeline.steps() {
            if let Some(latencies) = one.histogram_of_latencies() {
                let _ = log.write_histogram(latencies, from, step, Tag::new("latency"));
            }
            from = from.saturating_add(step);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;
    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn every_step_can_be_read_back_with_its_latencies() {
        let measurements = testing::measurements();
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let log = log(&measurements, started, "0.1.0");
        let entries: Vec<LogEntry<'_>> =
            IntervalLogIterator::new(&log).map(Result::unwrap).collect();
        assert!(entries.contains(&LogEntry::BaseTime(Duration::from_secs(1_700_000_000))));
        let intervals = entries.iter().filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
        });
        let mut samples = 0;
        for (second, interval) in (0u64..).zip(intervals) {
            assert_eq!(interval.start_timestamp(), Duration::from_secs(second));
            assert_eq!(interval.duration(), Duration::from_secs(1));
            let bytes = base64::prelude::BASE64_STANDARD
                .decode(interval.encoded_histogram())
                .unwrap();
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut bytes.as_slice())
                .unwrap();
            samples += histogram.len();
        }
        assert_eq!(samples, measurements.latency.len());
    }
}
