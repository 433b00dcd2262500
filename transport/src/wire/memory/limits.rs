//! The bounds of the wire in memory. They suit tests: small enough to be reached.

use std::time::Duration;

/// Bytes of content that one direction of an exchange holds before its sender waits.
pub(super) const WINDOW: usize = 64 * 1024;

/// Exchanges under way on one connection, unless a test says fewer.
pub(super) const EXCHANGES_MAX: usize = 1024;

/// Connections that wait to be accepted at one address. Further ones get no answer.
pub(super) const ARRIVING_MAX: usize = 64;

/// Bound of a handshake, which takes no time here.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(1);

/// No test waits for the end of an unused connection.
pub(super) const UNUSED: Duration = Duration::from_hours(1);
