//! Bounds of what sidecars tell of their calls, and of what the config service keeps of that.

use std::time::Duration;

use weft_transport::shares::Bounds;

/// How often a sidecar tells what it counted: a fault is on an operator's screen within two of these.
pub const SIGNALS_INTERVAL: Duration = Duration::from_secs(5);

/// For how long a sidecar keeps what it counted while the config service cannot be reached. What is older
/// would be shown at the wrong time.
pub const SIGNALS_KEPT: Duration = Duration::from_mins(1);

/// Edges that one sidecar tells of in one message. A sidecar with more calls more services than people look
/// at, and the rest is counted together.
pub const SIGNAL_EDGES_EACH: usize = 2_000;

/// Reasons of failures on one edge, beside `other`. An edge that fails does so in two or three ways.
pub const SIGNAL_REASONS_MAX: usize = 16;

/// Characters of a reason: the longest error type of RFC 9209 has 33.
pub const SIGNAL_REASON_LENGTH_MAX: usize = 48;

/// Characters of a name in an edge: a service, an identity or a rule. SPIFFE IDs have at most 2048; those of
/// weft are far shorter.
pub const SIGNAL_NAME_LENGTH_MAX: usize = 512;

/// The largest sum in one message: 2^40, as a terabyte in a span of seconds. Sums of a million of them still
/// fit.
pub const SIGNAL_SUM_MAX: u64 = 1 << 40;

/// Bytes of a message of a sidecar about its calls: `SIGNAL_EDGES_EACH` edges at 500 bytes.
pub const SIGNALS_BYTES_MAX: usize = 1 << 20;

/// Bytes of such a message that are kept for what is told together: a histogram of all buckets has less than
/// four thousand.
pub const SIGNALS_OTHERS_BYTES: usize = 16 << 10;

/// Bytes of the tag and the length before an edge in a message.
pub const SIGNALS_FIELD_BYTES: usize = 8;

/// How long a slot of the recent past is.
pub const SIGNAL_SLOT: Duration = SIGNALS_INTERVAL;

/// Slots of the recent past of every edge: 10 minutes.
pub const SIGNAL_SLOTS: usize = 120;

/// How long a slot of the day is.
pub const SIGNAL_MINUTE: Duration = Duration::from_mins(1);

/// Slots of the day of the busiest edges: 24 hours.
pub const SIGNAL_MINUTES: usize = 1_440;

/// Edges whose day is kept.
pub const SIGNAL_BUSIEST: usize = 500;

/// Edges that are kept at all: 1,000 sidecars with ten each, and as many again. Beyond it calls are counted
/// as those of one edge whose names are `other`.
pub const SIGNAL_EDGES_MAX: usize = 20_000;

/// Bytes of all slots. An edge with traffic takes some 12 kB for its 10 minutes, one of the busiest 150 kB
/// for its day. Beyond it the oldest minutes of the day go first.
pub const SIGNAL_BYTES_MAX: usize = 192 << 20;

/// Streams of sidecars about their calls: one beside each subscription.
pub const SIGNAL_STREAMS: Bounds = Bounds {
    places: super::SUBSCRIBERS_MAX,
    each: super::SUBSCRIBERS_PER_IDENTITY_MAX,
};

/// Questions of operators that wait for one sidecar to take them.
pub const QUESTIONS_QUEUED: usize = 8;

/// How long ago a request may have ended that is asked for: sidecars keep some minutes.
pub const RECENT_WITHIN_MAX: Duration = Duration::from_hours(24);

/// How long the config service waits for what sidecars know of a request: they answer at once, or not at all.
pub const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests of all sidecars in one answer to an operator.
pub const ANSWERS_MAX: usize = 2_000;

/// Bytes of one request in an answer: a line of the access log is shorter.
pub const ANSWER_CALL_BYTES_MAX: usize = 16 << 10;

/// Questions of operators that wait for answers at the same time.
pub const QUESTIONS_OPEN: usize = 64;
