//! The bounds of callers that come without mutual TLS.

use std::time::Duration;

use weft_transport::shares::Bounds;

use super::Http2Bounds;

/// Connections of such callers to one service, over all workers, and those of one address: a host with its
/// pools, or a small site behind one address. A connection that is idle costs a descriptor and 2 KiB. The
/// oldest one of an address that has most makes room for a new one.
pub const PLAINTEXT_CONNECTIONS: Bounds = Bounds {
    places: 4096,
    each: 1024,
};

/// Connections that one listener of a worker accepts at once, 16 more than there are places: a newcomer has
/// to be accepted before it can take a place.
pub const PLAINTEXT_ROOM: usize = PLAINTEXT_CONNECTIONS.places + 16;

/// Addresses of such callers that are remembered for one service, with 100 bytes each: more are left only at
/// the very beginning of a move, and then the list is no help.
pub const PLAINTEXT_CALLERS_KEPT: usize = 256;

/// A caller that was not seen for this long is not counted as one that is left. It covers what runs hourly.
pub const PLAINTEXT_RECENT: Duration = Duration::from_secs(3600);

/// How long a connection may take to end once its service is Strict: the calls on it are refused or broken
/// off at once, and what is left is to write that.
pub const PLAINTEXT_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// An HTTP/2 connection of such a caller. It is a stranger: what it does not read is held here, up to 512 KiB
/// for a connection, and what the application does not read, up to 256 KiB.
pub const PLAINTEXT_HTTP2: Http2Bounds = Http2Bounds {
    streams: 32,
    send_bytes: 16 * 1024,
    stream_window: 64 * 1024,
    connection_window: 256 * 1024,
};

/// How often the sidecar looks for answers that such a caller does not read. An answer ends this much later
/// than its time without progress, or than the change of policy that forbids it.
pub const PLAINTEXT_LOOK: Duration = Duration::from_secs(2);

/// The requests of all such callers of a service together may have one of this many parts of its places: they
/// are strangers with as many addresses as they like, and leave the rest to identities.
pub const PLAINTEXT_PARTS: u32 = 2;
