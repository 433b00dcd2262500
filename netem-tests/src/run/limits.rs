//! Bounds of a run, each with its unit and its reason.

use std::time::Duration;

/// How long a step of the bring-up may take, on a busy machine too.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a plug-in may prepare: it may load a program of 100 MB.
pub(super) const PAIR_PREPARATION_MAX: Duration = Duration::from_mins(5);

/// How often a step is checked.
pub(super) const GLANCE: Duration = Duration::from_millis(25);

/// Requests for each endpoint of a service before the loads begin: with five endpoints of which two
/// are drawn for each request, one that no request meets is rarer than 1 in 10 000.
pub(super) const FIRST_REQUESTS: usize = 10;

/// Processes that have not ended this long after they were asked are killed.
pub(super) const PROCESS_GRACE: Duration = Duration::from_secs(1);

/// How long a load may take beyond its duration, on top of the deadline of its last request: it
/// starts, and it writes its report.
pub(super) const LOAD_GRACE: Duration = Duration::from_secs(15);

/// How late a load may send its requests, 99th percentile: less than the difference between the usual result
/// of a scenario and its bound.
pub(super) const GENERATOR_LATENESS_P99_MAX: Duration = Duration::from_millis(10);

/// An admin endpoint answers within this time or not at all: it computes little, and events wait for it.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of an admin endpoint's answer.
pub(super) const ADMIN_BYTES_MAX: u64 = 16 << 20;

/// Lines of a log that an error shows.
pub(super) const LOG_LINES_SHOWN: usize = 6;

/// Bytes of each log that is kept of a failed run: its end.
pub(super) const LOG_BYTES_KEPT: u64 = 4 << 20;

/// Failed runs whose logs are kept; the oldest go first.
pub(super) const RUNS_KEPT: usize = 20;

/// Bytes of the files of one state directory that may be filled up.
pub(super) const STATE_BYTES: u64 = 2 << 20;

/// Share of the CPU that programs outside of the lab may take if a claim does not hold: with half of it gone,
/// the result is their doing.
pub(super) const CPU_OTHERS_MAX: f64 = 0.5;

/// The same for the time that the host of a virtual machine takes: it comes in stalls of tens of
/// milliseconds.
pub(super) const CPU_STOLEN_MAX: f64 = 0.1;
