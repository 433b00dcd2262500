//! Every limit of the load generator, with its unit and its reason.

use std::time::Duration;

/// Requests per second that can be asked for. Far beyond what one process can send, so that a typing
/// error is refused while every ceiling can still be searched for from above.
pub const RATE_MAX: f64 = 10_000_000.0;

/// The lowest rate: one request in a thousand seconds.
pub const RATE_MIN: f64 = 0.001;

/// Stages of one run. A file with more was not written by a person.
pub const STAGES_MAX: usize = 1000;

/// The longest duration that histograms tell apart; what is longer counts as this. An hour is beyond
/// any deadline that a load test waits for.
pub const DURATION_RECORDED_MAX: Duration = Duration::from_secs(3600);

/// Digits that histograms keep: 0.1 %, in 190 KiB for the whole range. A fourth would cost ten times
/// the memory, and no machine repeats a run that exactly.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Digits of the histograms of single steps of the time line: 1 %, 13 KiB each.
pub const TIMELINE_SIGNIFICANT_DIGITS: u8 = 2;

/// The finest step of the time line.
pub const TIMELINE_STEP_MIN: Duration = Duration::from_secs(1);

/// Steps of the time line before they get coarser: ten minutes of seconds, 8 MiB at most.
pub const TIMELINE_STEPS_MAX: usize = 600;

/// How exactly it is known when answers came.
pub const PRESENCE_SLOT_MIN: Duration = Duration::from_millis(1);

/// Slots for when answers came before they get coarser: 128 KiB, 17 minutes of milliseconds.
pub const PRESENCE_SLOTS_MAX: usize = 1 << 20;

/// A percentile with fewer samples beyond it says little about the next run.
pub const SAMPLES_BEYOND_PERCENTILE_MIN: u64 = 10;

/// An encoded histogram after decompression: each of the 24 000 counters takes 9 bytes at most.
pub const HISTOGRAM_BYTES_MAX: u64 = 256 * 1024;

/// How late the generator may start 1 % of the requests without making the run invalid: what a busy
/// kernel's scheduler does to any process.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(1);

/// The same as a share of the 99th percentile of the latency, which it is part of.
pub const LATENESS_SHARE_MAX: f64 = 0.1;
