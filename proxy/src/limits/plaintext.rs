//! The bounds of callers that come without mutual TLS.

use std::time::Duration;

use weft_transport::shares::Bounds;

/// Connections of such callers to one service, over all workers, and those of one address: a host with its
/// pools, or a small site behind one address. A connection that is idle costs a descriptor and 2 KiB. The
/// oldest one of an address that has most makes room for a new one.
pub const PLAINTEXT_CONNECTIONS: Bounds = Bounds {
    places: 4096,
    each: 1024,
};

/// Connections that one listener of a worker accepts at once: more than have places, so that a new one is
/// there to take the place of an old one.
pub const PLAINTEXT_ROOM: usize = PLAINTEXT_CONNECTIONS.places + 16;

/// Addresses of such callers that are remembered for one service, with 100 bytes each: more are left only at
/// the very beginning of a move, and then the list is no help.
pub const PLAINTEXT_CALLERS_KEPT: usize = 256;

/// A caller that was not seen for this long is not counted as one that is left. It covers what runs hourly.
pub const PLAINTEXT_RECENT: Duration = Duration::from_secs(3600);

/// How long a connection may take to end once its service is Strict: the calls on it are refused or broken
/// off at once, and what is left is to write that.
pub const PLAINTEXT_ENDS_WITHIN: Duration = Duration::from_secs(2);
