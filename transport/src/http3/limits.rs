//! Every bound of the HTTP/3 mapping, with its unit and its reason.

use std::time::Duration;

/// Bytes of one field section, counted as RFC 9114 section 4.2.2 does (name + value + 32 each); also the
/// longest HEADERS frame that is buffered. Browsers and gRPC stay far below it.
pub(crate) const FIELD_SECTION_SIZE: u64 = 64 * 1024;

/// Fields in one section: the 100 that HTTP/1 proxies allow, the pseudo-headers and the mesh's
/// own. More is an attack on hash maps.
pub(crate) const FIELDS: usize = 128;

/// The cost of each field beside its bytes (RFC 9114 section 4.2.2).
pub(crate) const FIELD_OVERHEAD: u64 = 32;

/// How long a request head may take to arrive: a slower one holds the stream on purpose.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Request heads that may be incomplete at one time on a connection. QUIC's stream limit is usually lower;
/// this limit holds for any transport settings.
pub(crate) const PENDING_HEADS: usize = 1024;

/// Unknown or empty frames on a stream between two that carry payload: GREASE is rare.
pub(crate) const FUTILE_FRAMES: u32 = 100;

/// Bytes of a SETTINGS frame: about 250 settings, where RFC 9114 defines one.
pub(crate) const SETTINGS_SIZE: u64 = 4 * 1024;

/// Settings in one frame.
pub(crate) const SETTINGS_ENTRIES: usize = 256;

/// Frames on the control stream and unknown unidirectional streams, counted together, within
/// [`CONTROL_PERIOD`]: an honest peer sends a handful in its life.
pub(crate) const CONTROL_EVENTS: u32 = 200;

/// PRIORITY_UPDATE frames (RFC 9218) for each request of the peer that do not count as control events: one
/// with the request, and some as a user scrolls.
pub(crate) const PRIORITY_UPDATES_EACH: u32 = 4;

/// The same ahead of the requests: as many as may be open at once by default. Each costs a microsecond.
pub(crate) const PRIORITY_UPDATES_AHEAD: u32 = 16_384;

/// How long the peer may take until it lets this side open its control stream and reads the SETTINGS: a few
/// round trips and lost packets (RFC 9114 section 6.2 wants room for three streams from the beginning). The
/// same for a GOAWAY.
pub(crate) const CONTROL_WAIT: Duration = Duration::from_secs(10);

/// The period of [`CONTROL_EVENTS`].
pub(crate) const CONTROL_PERIOD: Duration = Duration::from_secs(10);

/// Unidirectional streams of the peer that are read at one time: control, two of QPACK, and some whose type
/// is not known yet.
pub(crate) const UNIDIRECTIONAL_STREAMS: usize = 8;

/// Chunks taken from QUIC in one read: one chunk is one packet, 32 fill a socket write.
pub(crate) const CHUNKS_PER_READ: usize = 32;

/// Chunks taken while a head is awaited: it usually comes in one packet, with a small body in the
/// next; clearing more places than are used costs each request.
pub(crate) const CHUNKS_PER_HEAD_READ: usize = 4;

/// A request that the peer cancels within this time of its opening was reset "rapidly". A request cancelled
/// later has held one of the streams that the peer may have open until then.
pub(crate) const RAPID_RESET: Duration = Duration::from_secs(1);

/// Requests per second that a peer may cancel rapidly while they are being served. One costs some 100 us,
/// because an application's connection of HTTP/1.1 ends with it: a fifth of a core.
pub(crate) const WORK_TAKEN_BACK_A_SECOND: u32 = 2000;

/// The same at once: a second's worth, for an application that hangs while its callers give up.
pub(crate) const WORK_TAKEN_BACK_AT_ONCE: u32 = 2000;

/// Longest time for which a peer's next request waits after that: other callers share the connection.
pub(crate) const PACE_MAX: Duration = Duration::from_secs(1);

/// Streams per second that the peer may end before there was a request. One costs some 10 us.
pub(crate) const NOTHING_ASKED_A_SECOND: u32 = 1000;

/// The same at once: all that may be open by default. An honest peer whose path was cut for a while resets
/// all streams whose callers gave up.
pub(crate) const NOTHING_ASKED_AT_ONCE: u32 = 16_384;

/// How often a connection whose window has reached its bound is checked for stopped readers.
pub(crate) const STOPPED_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A reader that took nothing for this many checks (2 s) has stopped: an application that is only slow takes
/// a piece within milliseconds, and one that collects garbage within a second.
pub(crate) const STOPPED_LOOKS: u32 = 8;

/// How long a connection stays after its shutdown and its last exchange, so that the end of the last response
/// is acknowledged, even after a loss or two; the peer usually closes first.
pub(crate) const DRAIN_LINGER: Duration = Duration::from_secs(1);
