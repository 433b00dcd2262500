//! Every bound of this crate outside [`crate::http3`], with its unit and its reason.

use std::time::Duration;

/// Bytes of a trust domain name (SPIFFE-ID section 2.1).
pub(crate) const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Bytes of a whole SPIFFE ID (SPIFFE-ID section 2.3: implementations must support 2048 and
/// should not produce more).
pub(crate) const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// How far the clocks of two hosts may differ before a certificate counts as expired or not yet valid: NTP
/// keeps hosts within milliseconds, unsynchronised virtual machines within seconds.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(20);

/// Certificates that a peer may present: leaf, issuing, and for the CA its root; one more for an operator's
/// own intermediate. More than that would only slow path building down.
pub(crate) const PRESENTED_CHAIN_MAX: usize = 4;

/// Roots in a bundle: a rotation overlaps two; an operator who merges meshes has a few more.
pub(crate) const BUNDLE_ROOTS_MAX: usize = 16;

/// Time for a TLS handshake over TCP with a control-plane process, both sides.
pub(crate) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes under way, per worker, above which a peer whose address is not validated must first
/// answer a Retry (RFC 9000 section 8.1.2): spoofed floods cost a packet each, not a handshake.
pub(crate) const HANDSHAKES_BEFORE_RETRY: usize = 32;

/// Handshakes under way, per worker; for one more, the oldest is given up. A handshake whose peer is silent
/// costs 0.3 ms of CPU and 42 KiB, one that completes 1 ms.
pub(crate) const HANDSHAKES_MAX: usize = 512;

/// Handshakes that begin in a second, per worker: silent ones cost a third of a core at most. Half a second's
/// worth is under way at most, so that a peer has half a second for its part even when all others are silent.
pub(crate) const HANDSHAKES_A_SECOND: u32 = 1000;

/// Round-trip time that a handshake assumes while many are under way, if the settings say more. quinn keeps
/// the state of an abandoned handshake for nine times this, so 900 of them, 37 MiB, at
/// [`HANDSHAKES_A_SECOND`]. A peer that is farther away gets the server's part twice.
pub(crate) const HURRIED_RTT: Duration = Duration::from_millis(100);

/// Connections that one identity may have to a worker. Each worker of each of its replicas has one, so this
/// allows a thousand replicas with eight workers that reach a sidecar with two.
pub(crate) const CONNECTIONS_EACH: usize = 4096;

/// Connections that all peers may have to a worker.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;

/// Time for the requests under way on a connection that had to make room for a newer one.
pub(crate) const DISPLACED_GRACE: Duration = Duration::from_secs(3);

/// Handshakes whose bytes are counted, per worker, until their addresses are validated: some seconds of
/// [`HANDSHAKES_A_SECOND`], 600 KiB.
pub(crate) const HELLOS_KEPT: usize = 4096;

/// First packets that wait for `accept`, per worker.
pub(crate) const INCOMING_MAX: usize = 1024;

/// Bytes that one connection not yet accepted may have buffered: a large ClientHello with a
/// post-quantum share is about 2 KiB, retransmitted a few times.
pub(crate) const INCOMING_BUFFER: u64 = 16 << 10;

/// Bytes that all connections not yet accepted may have buffered, per worker.
pub(crate) const INCOMING_BUFFER_TOTAL: u64 = 4 << 20;

/// Bytes that a connection may have unacknowledged before it proves more, that a peer may send before its
/// first message head, and the unit by which both grow: more than the 38 KiB that may be in flight before the
/// first acknowledgement.
pub(crate) const WINDOW_PAGE: u64 = 64 << 10;

/// Bytes that a connection may have unacknowledged once it sends much, before its peer has acknowledged
/// [`SEND_PROOF`].
pub(crate) const SEND_WINDOW_FIRST: u64 = 1 << 20;

/// Bytes that a peer must have acknowledged before its connection gets all that it can use.
pub(crate) const SEND_PROOF: u64 = 256 << 10;

/// How many connections of a worker may have `send_window` unacknowledged at once.
pub(crate) const SEND_WINDOWS: u64 = 32;

/// How many of them may be with one identity.
pub(crate) const SEND_WINDOWS_EACH: u64 = 4;

/// Bytes that a peer may send ahead of readers once the head of a message has come: small bodies at 50 MB/s
/// over 20 ms.
pub(crate) const RECEIVE_WINDOW_FIRST: u64 = 1 << 20;

/// Bytes of a body that counts as short: an open stream that carries no more gets this much room.
pub(crate) const SHORT_BODY: u64 = 16 << 10;

/// How many connections that a worker accepted may have `connection_window` unread at once.
pub(crate) const RECEIVE_WINDOWS: u64 = 64;

/// How many of them may be with one identity.
pub(crate) const RECEIVE_WINDOWS_EACH: u64 = 4;

/// Bytes that a peer dialled by this side may send ahead of readers without further proof.
pub(crate) const DIALLED_WINDOW: u64 = 1 << 20;

/// How many connections that a worker dialled may have `connection_window_max` unread at once: answers to its
/// own applications.
pub(crate) const RECEIVE_WINDOWS_DIALLED: u64 = 16;

/// How many of them may be with one identity.
pub(crate) const RECEIVE_WINDOWS_DIALLED_EACH: u64 = 4;

/// How often a connection that holds more than a page is checked for whether all has been acknowledged.
pub(crate) const SEND_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of packets that carry only acknowledgements: a header, a tag, and some twenty ranges.
pub(crate) const ACKNOWLEDGEMENT_MAX: u64 = 150;

/// Bytes of handshake messages out of order, per connection: a chain of four certificates is
/// below 8 KiB.
pub(crate) const CRYPTO_BUFFER: usize = 32 << 10;

/// Peers that one worker's pool keeps connections to. No host talks to more sidecars than this through one
/// worker.
pub(crate) const PEERS_MAX: usize = 4096;

/// Wait before a peer that takes no new connections is asked again. It answers, so asking costs little; its
/// successor needs about this long to start.
pub(crate) const REDIAL_CLOSED: Duration = Duration::from_millis(250);

/// Wait before the second attempt to reach a peer, then doubled.
pub(crate) const REDIAL_FIRST: Duration = Duration::from_millis(100);

/// Longest wait between attempts to reach a peer that requests ask for: after a partition heals, traffic
/// flows again within this time.
pub(crate) const REDIAL_CAP: Duration = Duration::from_secs(2);

/// How long a request waits for a handshake if it may go to another peer instead: three round trips to the
/// far side of the world. The handshake goes on for other requests.
pub(crate) const ELSEWHERE_AFTER: Duration = Duration::from_millis(750);

/// How often a connection with open streams is checked for silence.
pub(crate) const LIVENESS_INTERVAL: Duration = Duration::from_millis(100);

/// Wait between the attempts that race a silent connection, before jitter.
pub(crate) const RACE_INTERVAL: Duration = Duration::from_millis(500);

/// How often the silent connection of a race is checked: within a handshake's time on a short path, so that a
/// path that recovers is noticed before a new connection exists.
pub(crate) const RACE_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Attempts of a race that follow each other this closely: six seconds of them.
pub(crate) const CLOSE_RACERS: usize = 12;

/// Wait between the attempts after those, before jitter. Each attempt sends at once and again after a second,
/// so a path that recovers after a long time is noticed within a second, not within the three of a handshake
/// that gives up.
pub(crate) const LATE_RACE_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts under way in one race, if handshakes may take longer than three seconds.
pub(crate) const RACERS_MAX: usize = 12;

/// Fraction of the remaining life of this side's SVID within which connections move to its successor.
pub(crate) const MOVE_WITHIN: f64 = 0.1;

/// Longest time within which they do.
pub(crate) const MOVE_WITHIN_MAX: Duration = Duration::from_secs(60);

/// How often a connection without streams is checked.
pub(crate) const IDLE_INTERVAL: Duration = Duration::from_millis(500);

/// How long requests on a silent connection still wait for their answer once its successor exists: the old
/// connection doubles the interval of its probes each time, so that after an outage of a second the next one
/// may be as far away. A peer that was restarted resets the connection at that probe.
pub(crate) const HEALING_TIME: Duration = Duration::from_secs(1);

/// A peer that owes an answer for this long gets no new streams until it, or its successor, answers; streams
/// on a connection that was replaced fail after it.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);

/// TLS sessions that a client outside of the mesh keeps for resumption: one for each server, and a tool uses
/// few.
pub(crate) const EXTERNAL_SESSIONS: usize = 256;

/// Bytes of forwarded datagrams that wait in the kernel, per worker, for the process before this one: what
/// a connection at 1 Gbit/s sends within some 30 ms.
pub(crate) const RELAY_BUFFER: usize = 4 << 20;

/// Earlier processes on the same port that may still drain. More restarts within one grace are a crash loop.
pub(crate) const PREDECESSORS_MAX: usize = 16;

/// Bytes of one file of qlog: some 80 000 packets, more than a person reads.
pub(crate) const QLOG_BYTES_MAX: u64 = 16 << 20;

/// Files of qlog of one side in a directory: beyond that, an operator probably forgot to switch it off.
pub(crate) const QLOG_FILES_MAX: usize = 256;

/// A pass over all ready tasks of a worker's thread counts as long from this duration: a request waits for
/// some four passes, and a thousand busy connections make one of 10 ms.
pub(crate) const PASS_LONG: Duration = Duration::from_millis(20);

/// A worker whose passes are all long for this time is behind: bursts are over by then (RFC 8289 section 4.3
/// takes the same time).
pub(crate) const PASS_INTERVAL: Duration = Duration::from_millis(100);

/// A worker is behind until its passes have been short for this time: callers that caused it have then had
/// the time to come back.
pub(crate) const PASS_RELEASE: Duration = Duration::from_secs(1);

/// Pause after a short pass before the next is measured: a hundred per second cost nothing noticeable.
pub(crate) const PASS_PAUSE: Duration = Duration::from_millis(10);

/// A worker that is behind has as many requests under way as it finishes in this time, so a request waits
/// about as long: less than a caller's patience, more than round trips.
pub(crate) const FINISHED_SOON: Duration = Duration::from_millis(200);

/// The number that it may have under way in addition, however little it finished.
pub(crate) const TAKES_ON_LEAST: u32 = 16;

/// A stream that has been open for longer waits for its application or carries a tunnel, and does not count
/// as work that the worker is behind with. Longer than the deadlines of requests that an overload delays,
/// because those must count.
pub(crate) const STREAM_SETTLED: Duration = Duration::from_secs(5);

/// Connections to a private Unix socket that may wait in the kernel: more than the commands
/// of one host that start at the same moment.
pub(crate) const PRIVATE_BACKLOG: i32 = 128;

/// A worker logs its actions against peers at most this often; the rest is counted.
pub(crate) const GUARD_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Head start of an address of a name before the next one is tried as well (RFC 8305 section 5).
pub(crate) const CONNECT_HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried: both families of some hosts.
pub(crate) const CONNECT_TRIES_MAX: usize = 8;

/// Connections that wait to be accepted, the default of tokio; the kernel clamps it to net.core.somaxconn.
pub(crate) const LISTEN_BACKLOG: i32 = 1024;

/// Lines of the log about one kind of event that peers or callers can cause, in a span; the rest is counted.
pub(crate) const LOG_OF_CALLERS: (u32, Duration) = (60, Duration::from_secs(60));

/// Log lines that a lasting state repeats, in a span: for example that no descriptors are left.
pub(crate) const LOG_OF_A_STATE: (u32, Duration) = (1, Duration::from_secs(10));

/// Largest file in bytes that is read from a state or CA directory (a bundle of a few hundred roots).
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Interim responses before the final one: enough for hints, too few for a flood.
pub(crate) const INFORMATIONAL_RESPONSES: u8 = 32;
/// The lower bound of the patience: a busy host may not schedule a process for this long.
pub(crate) const SILENCE_PATIENCE_MIN: Duration = Duration::from_millis(500);

/// The upper bound, so that one wrong measurement of the round trip does not hide a dead peer.
pub(crate) const SILENCE_PATIENCE_MAX: Duration = Duration::from_secs(3);

/// Flights in a handshake with client certificates: three, and room for what comes after it.
pub(crate) const REHEARSAL_FLIGHTS_MAX: usize = 6;
