//! Bounds of what is kept of requests for `weft why`, and of what an answer tells of its time.

use std::time::Duration;

/// Bytes of the field `weft-time`: two numbers of ten digits, and what parts them.
pub const WEFT_TIME_BYTES_MAX: usize = 22;

/// Requests that failed and are kept for `weft why`: at one a second those of the last eight minutes. Some
/// 400 kB when it is full.
pub const RECENT_FAILURES: usize = 512;

/// Failures of one second that are kept: a storm shows its kind in its first ones, and each costs some
/// microseconds.
pub const RECENT_FAILURES_PER_SECOND: usize = 100;

/// Requests of a minute that are kept as the slowest.
pub const RECENT_SLOWEST: usize = 8;

/// How long the slowest are looked for together.
pub const RECENT_MINUTE: Duration = Duration::from_mins(1);

/// Minutes of which the slowest are kept.
pub const RECENT_MINUTES: usize = 10;

/// Requests that are told to one question: people read a few.
pub const RECENT_TOLD_MAX: usize = 64;
