//! The bounds of what leaves the mesh, and of the names that lead there.

use std::time::Duration;

/// A connection out of the mesh, TLS included: three round trips around the world with a lost packet each,
/// which TCP sends again after 1 s.
pub const OUTSIDE_CONNECT: Duration = Duration::from_secs(5);

/// How long files of TLS are taken for what they were when they were read: certificates are renewed hours
/// before they end, and reading the roots of a system costs some milliseconds.
pub const OUTSIDE_TLS_FILES_LIFE: Duration = Duration::from_secs(60);

/// Bytes of a file of TLS. The roots of a system are some 250 KiB.
pub const OUTSIDE_TLS_FILE_BYTES_MAX: u64 = 4 << 20;

/// Bytes that one read of a connection out of the mesh takes: a record of TLS.
pub const OUTSIDE_READ_BYTES: usize = 16 * 1024;

/// Names outside of the mesh that a sidecar resolves. At one question in 5 s each it asks 200 a second.
pub const NAMES_MAX: usize = 1000;

/// Addresses of one name that are kept: as many endpoints.
pub const NAME_ADDRESSES_MAX: usize = 64;

/// Records of one answer: CNAMEs, and addresses of which NAME_ADDRESSES_MAX are kept. One with more is no
/// sound answer.
pub const NAME_RECORDS_MAX: usize = 256;

/// Names of one answer that stand for another (CNAME), one after the other.
pub const NAME_ALIASES_MAX: usize = 8;

/// Names that are asked for at once.
pub const NAME_LOOKUPS_MAX: usize = 16;

/// The least time for which an answer holds: one of 0 s would be asked for at each request.
pub const NAME_LIFE_MIN: Duration = Duration::from_secs(5);

/// The longest time for which an answer holds: a service that moves is found within minutes, whatever its old
/// answer said.
pub const NAME_LIFE_MAX: Duration = Duration::from_secs(300);

/// The wait before a name is asked for again that led nowhere; it doubles.
pub const NAME_RETRY: Duration = Duration::from_secs(1);

/// The longest such wait.
pub const NAME_RETRY_MAX: Duration = Duration::from_secs(30);

/// How long addresses hold that no answer renews: longer than an outage of a resolver, shorter than addresses
/// are given to others.
pub const NAME_STALE_MAX: Duration = Duration::from_secs(3600);

/// How long one question may take, with all servers and repetitions: resolvers repeat after 5 s.
pub const NAME_LOOKUP_TIME: Duration = Duration::from_secs(15);

/// How long one resolver may take for one answer: a recursion over several servers far away.
pub const NAME_SERVER_TIME: Duration = Duration::from_millis(2500);

/// How often each resolver is asked: a datagram may be lost.
pub const NAME_ROUNDS: usize = 2;

/// Bytes of a datagram of a resolver: more than the 1232 that are asked for, as some send more.
pub const NAME_DATAGRAM_BYTES_MAX: usize = 4096;

/// Resolvers of the system that are asked (MAXNS of resolv.conf(5)).
pub const NAME_SERVERS_MAX: usize = 3;

/// The port of DNS (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;

/// Names and ports outside of the mesh that pass without an ExternalService, for each worker, with their
/// connections.
pub const PASSING_NAMES_MAX: usize = 256;

/// Bytes of a name outside of the mesh that the log shows: the longest name of DNS.
pub const PASSING_LOGGED_BYTES_MAX: usize = 253;

/// Characters of a name of DNS, with its dots (RFC 1035 section 2.3.4: 255 bytes on the wire).
pub const DNS_NAME_LENGTH_MAX: usize = 255;

/// Pointers of one compressed name. Each leads back, so there is an end; no sound name has more than a few.
pub const DNS_POINTERS_MAX: usize = 16;

/// Names in a row that stand for others in one answer: as many as resolvers follow.
pub const DNS_ALIASES_MAX: usize = 8;

/// Addresses of a service outside of the mesh that are dialled for one call of a peer, one after the other:
/// the time of each is bounded by OUTSIDE_CONNECT, and the peer sends a call again by itself.
pub const LEAVING_DIALS_MAX: usize = 3;
