//! Every bound of the HTTP/3 mapping, with its unit and its reason.

use std::time::Duration;

/// Bytes of one field section, counted as RFC 9114 section 4.2.2 does (name + value + 32 each);
/// also the longest HEADERS frame that is buffered. What browsers and gRPC stay far below.
pub(crate) const FIELD_SECTION_SIZE: u64 = 64 * 1024;

/// Fields in one section: the 100 that HTTP/1 proxies allow, the pseudo-headers and the mesh's
/// own. More is an attack on hash maps.
pub(crate) const FIELDS: usize = 128;

/// What each field costs beside its bytes (RFC 9114 section 4.2.2).
pub(crate) const FIELD_OVERHEAD: u64 = 32;

/// How long a request head may take to arrive: slower is a stream held on purpose.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Request heads that may be incomplete at one time on a connection. QUIC's stream limit is
/// usually lower; this one holds whatever the transport settings are.
pub(crate) const PENDING_HEADS: usize = 1024;

/// Interim responses before the final one: enough for hints, too few for a flood.
pub(crate) const INFORMATIONAL_RESPONSES: u8 = 32;

/// Unknown or empty frames on a stream between two that carry payload: GREASE is rare.
pub(crate) const FUTILE_FRAMES: u32 = 100;

/// Bytes of a SETTINGS frame: about 250 settings, where RFC 9114 defines one.
pub(crate) const SETTINGS_SIZE: u64 = 4 * 1024;

/// Settings in one frame.
pub(crate) const SETTINGS_ENTRIES: usize = 256;

/// Frames on the control stream and unknown unidirectional streams, counted together, within
/// [`CONTROL_PERIOD`]: an honest peer sends a handful in its life.
pub(crate) const CONTROL_EVENTS: u32 = 200;

/// The period of [`CONTROL_EVENTS`].
pub(crate) const CONTROL_PERIOD: Duration = Duration::from_secs(10);

/// Unidirectional streams of the peer read at one time: control, two of QPACK, and some that
/// have not yet told their type.
pub(crate) const UNIDIRECTIONAL_STREAMS: usize = 8;

/// Chunks taken from QUIC in one read: one chunk is one packet, 32 fill a socket write.
pub(crate) const CHUNKS_PER_READ: usize = 32;

/// Chunks taken while a head is awaited: it usually comes in one packet, with a small body in the
/// next; clearing more places than are used costs each request.
pub(crate) const CHUNKS_PER_HEAD_READ: usize = 4;

/// Halves of streams over which resets are judged: each of 500 streams counts twice.
pub(crate) const RESET_WINDOW: usize = 1000;

/// A stream that dies within this time of its opening was reset "rapidly".
pub(crate) const RAPID_RESET: Duration = Duration::from_secs(1);

/// How often a connection whose window has reached its bound is looked at for stopped readers.
pub(crate) const STOPPED_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A reader that took nothing for this many looks (2 s) has stopped: an application that is only
/// slow takes a piece within milliseconds, one that collects its garbage within a second.
pub(crate) const STOPPED_LOOKS: u32 = 8;

/// How long a connection that was shut down lingers after its last exchange, so that the end of
/// the last response is acknowledged, after a loss or two as well; the peer usually closes first.
pub(crate) const DRAIN_LINGER: Duration = Duration::from_secs(1);
