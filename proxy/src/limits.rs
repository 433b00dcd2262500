//! Every limit of the data path, with its unit and its reason. Limits of QUIC and HTTP/3 themselves are
//! in `weft_transport`, the defaults of what settings may change in `weft_config::settings`.

mod access_log;
mod outside;
mod plaintext;
mod recent;
mod traces;

use std::time::Duration;

use weft_transport::shares::Bounds;

pub use access_log::*;
pub use outside::*;
pub use plaintext::*;
pub use recent::*;
pub use traces::*;

/// Bytes of one request or response head on the application's side; more is answered 431.
/// Envoy's default is 60 KiB and the peer's HTTP/3 side takes 64 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a head that are reserved for fields that the mesh adds to a response: `:status`, `weft-retry` and
/// `weft-time`, with 32 bytes for each.
pub const HEAD_BYTES_OF_MESH: usize = 192;

/// Bytes of a head that are read over HTTP/2. Heads between [`HEAD_BYTES_MAX`] and this get a complete answer
/// that refuses them. h2 has one number both for the limit that it announces and for the one beyond which it
/// refuses a head on its own, so this is the announced one, too.
pub const HTTP2_HEAD_BYTES_READ: u32 = 2 * HEAD_BYTES_MAX as u32;

/// Fields of one head or trailer section; more is answered 431. Envoy's default.
pub const FIELDS_MAX: usize = 100;

/// Tokens of one request that are tried: cookies of one name, which clients send for several paths.
pub const SESSION_TOKENS_READ_MAX: usize = 8;

/// Time between two notes of what rules got: how exact the last minute is that `/routes` shows.
pub const MINUTE_NOTE_INTERVAL: Duration = Duration::from_secs(5);

/// Notes that are kept: those of a minute. Each has 150 bytes for each of up to `METRIC_SERIES_MAX` rules.
pub const MINUTE_NOTES: usize = 12;

/// From an application's connection to the peer's answer to CONNECT, over all attempts: mesh handshake (3 s),
/// application connect (1 s), a round trip.
pub const TUNNEL_OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait until the peer allows one more stream. Sidecars raise their limit long before it is
/// reached, so a wait means a burst, or the beginning of an overload.
pub const STREAM_WAIT: Duration = Duration::from_secs(3);

/// Once requests have waited for streams without a break for this time and a few round trips, the wait is no
/// burst: the peer does not keep up.
pub const CROWD_STANDING: Duration = Duration::from_millis(100);

/// Round trips that a peer may need to raise its limit for a burst: the limit doubles in each.
pub const CROWD_ROUND_TRIPS: u32 = 4;

/// How long a request waits for a stream of a peer that does not keep up. Short, because otherwise all
/// requests would wait for as long as they may and every answer would be late; long enough to keep such a
/// peer busy.
pub const CROWD_WAIT: Duration = Duration::from_millis(20);

/// The same while this worker itself is overloaded: the peer's credit may have arrived without the worker
/// having had time to read it.
pub const CROWD_WAIT_SLOW: Duration = Duration::from_millis(200);

/// A client that sent `Expect: 100-continue` is told to go on after this time, even if the application never
/// says so (RFC 9110 section 10.1.1 lets clients do the same on their own).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A client of HTTP/2 whose request was answered, and which has sent all bytes that it declared, has this
/// time to end its stream. Its end is under way, and late only where the host has more to do than it can.
pub const LATE_END: Duration = Duration::from_secs(2);

/// Informational responses forwarded for one request; later ones are dropped. Real uses send one or two.
pub const INFORMATIONAL_MAX: usize = 32;

/// The time that a request with a declared body may take in addition to the time that its bytes earn. It
/// allows for a caller that is itself held up (the default of Apache's mod_reqtimeout).
pub const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that earn one more second of that (the same default).
pub const BODY_BYTES_PER_SECOND_LEAST: u64 = 500;

/// Idle connections kept per application and worker; more are closed when their response ends. The number
/// equals the default of requests that one service may have in flight: with fewer, a service that gets more
/// at a time would open a connection for each, which doubles the cost of a request. They are kept for a
/// second or two; beyond the number, the least recently used one is closed.
pub const APPLICATION_IDLE_CONNECTIONS_MAX: usize = 1024;

/// Connections to one application per worker, idle ones included: four times as many as one service has
/// requests in flight by default. Each has two descriptors and some 20 KiB of buffers.
pub const APPLICATION_CONNECTIONS_MAX: u32 = 4096;

/// HTTP/2 connections of one caller to one application per worker. A further one is made when the application
/// allows no more streams on the existing ones. Most applications allow 100 or more, so these carry more than
/// a service has in flight by default.
pub const APPLICATION_HTTP2_CONNECTIONS_EACH: usize = 16;

/// How long to wait for a connection to the application, or for a stream of one. Less than callers wait for a
/// stream of a sidecar ([`STREAM_WAIT`]): another endpoint may have room.
pub const APPLICATION_WAIT: Duration = Duration::from_secs(1);

/// A waiting request looks again after this time at the latest: the application may have raised its limit
/// without ending a stream.
pub const APPLICATION_WAIT_STEP: Duration = Duration::from_millis(50);

/// Requests that may wait at a time, per application and worker; all are woken when a place is free.
pub const APPLICATION_WAITERS_MAX: usize = 256;

/// How often a request is sent to the application again. A connection that ends may be followed by another
/// that ends; an application that ends four in a row is not able to serve.
pub const APPLICATION_RESENDS_MAX: u32 = 3;

/// Bytes of a request's body that are kept until its answer begins, to be sent again. Of a larger body none
/// are kept. They count towards [`REPLAY_BYTES_MAX`], too.
pub const APPLICATION_REPLAY_BYTES_MAX: usize = 64 * 1024;

/// A new connection that stayed open for this long after its first answer is expected to stay open.
/// Applications that close after each answer do so at once, or as soon as they get CPU time.
pub const APPLICATION_PROBATION: Duration = Duration::from_millis(50);

/// For this long after an application closed an idle connection without notice, requests that cannot be sent
/// again get new connections.
pub const APPLICATION_CLOSES_REMEMBERED: Duration = Duration::from_secs(60);

/// An HTTP/2 connection of a caller to the application that carried no new request for this time is left to
/// end: gRPC calls come in bursts with pauses, and a new connection costs two round trips on one host.
pub const APPLICATION_HTTP2_IDLE: Duration = Duration::from_secs(60);

/// Callers whose HTTP/2 connections are kept per application and worker; beyond that number, the least
/// recently used ones are removed.
pub const APPLICATION_HTTP2_CALLERS_MAX: usize = 1024;

/// After a response ended, how long its connection may take to become reusable before it is dropped.
pub const APPLICATION_READY_WAIT: Duration = Duration::from_millis(100);

/// Tunnels in flight per inbound TCP service over all workers. Tunnels are long and mostly idle, so
/// this is not the figure for requests; each active one may hold 128 KiB.
pub const INBOUND_TUNNELS_MAX: usize = 16 * 1024;

/// Connections of the application that may wait in the kernel until they are accepted. It clamps this to
/// `net.core.somaxconn`, whose default is the same.
pub const BACKLOG: u32 = 4096;

/// How often an overloaded worker decides how many requests it takes in: half of the delay that makes a
/// worker count as behind.
pub const INTAKE_CYCLE: Duration = Duration::from_millis(10);

/// A cycle that took this long began too many requests.
pub const INTAKE_CYCLE_LONG: Duration = Duration::from_millis(20);

/// Requests that are taken in per cycle, even if a cycle takes long.
pub const INTAKE_LEAST: u32 = 16;

/// The upper bound: with more, each request would take less than two microseconds of a ten-millisecond cycle.
pub const INTAKE_MOST: u32 = 4096;

/// The portion of a cycle grows by this factor while there is time left.
pub const INTAKE_GROWTH: u32 = 8;

/// While callers give up and others wait to be read, a connection is accepted this often. That is often
/// enough for a caller that tries again.
pub const INTAKE_ACCEPTS_EACH: Duration = Duration::from_millis(100);

/// A request that has waited for less than this has not waited for long: callers wait as long for a distant
/// service.
pub const INTAKE_WAIT: Duration = Duration::from_millis(200);

/// For this time after callers gave up, others are expected to give up, too.
pub const INTAKE_PATIENCE: Duration = Duration::from_secs(10);

/// While callers give up, one in this many is the one that has waited longest.
pub const INTAKE_OLDEST_ONE_IN: u32 = 8;

/// All are taken in at once after this time without any wait: callers that caused the wait have then had time
/// to come back.
pub const INTAKE_RELEASE: Duration = Duration::from_secs(1);

/// If connections wait to be accepted without a break for this time, the wait is no burst (RFC 8289 section
/// 4.3 uses the same time).
pub const INTAKE_STANDING: Duration = Duration::from_millis(100);

/// At least this many connections may wait in the kernel even then, however slowly they are accepted.
pub const BACKLOG_LEAST: u32 = 16;

/// Application connections accepted per worker; at the limit no more are accepted until one ends.
/// About 20 KiB each when idle.
pub const OUTBOUND_CONNECTIONS_MAX: usize = 16 * 1024;

/// Of a ClientHello that is read to find its route. One with shares of post-quantum key exchange and a large
/// ticket has some 4 KiB.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;

/// A client must send its whole ClientHello within this time, as the head of a request. Clients of TLS send
/// it when they are connected.
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest piece read from a socket into a tunnel; one such piece fills about 10 GSO batches.
pub const TUNNEL_READ_MAX: usize = 64 * 1024;

/// First piece read from a tunnel's socket; interactive protocols rarely need more.
pub const TUNNEL_READ_MIN: usize = 2 * 1024;

/// Pieces of a body below this size are joined with the data that is already behind them. Each piece costs a
/// frame and some hundred bytes of bookkeeping until it is acknowledged. Without joining, a sender of
/// one-byte chunks could hold a hundred times what it sends.
pub const BODY_PIECE_SMALL: usize = 4 * 1024;

/// Bytes of an application's `x-request-id` that are accepted; longer ones are replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Bytes of `tracestate` passed on (W3C Trace Context section 3.3.1.5 asks for at least 512).
pub const TRACESTATE_BYTES_MAX: usize = 4096;

/// Bytes of `baggage` passed on (W3C Baggage section 3.3.2: at least 8192).
pub const BAGGAGE_BYTES_MAX: usize = 8192;

/// How often a request may pass one sidecar, as its own `Via` entries count, before it is a loop (508).
pub const VIA_OWN_MAX: usize = 2;

/// Label sets of one metric per worker; later ones share the series whose labels are `other`.
pub const METRIC_SERIES_MAX: usize = 2000;

/// The longest time between two health checks of an application of which the last one failed or did not yet
/// decide: callers wait for it.
pub const PROBE_INTERVAL_DOWN: Duration = Duration::from_secs(1);

/// Bytes of the head of an answer to a health check; a longer one fails it. The least that hyper allows.
pub const HEALTH_HEAD_BYTES_MAX: usize = 8192;

/// Bytes of the body of an answer to a health check that are read, to see whether it breaks off. A body that
/// is longer has said enough.
pub const HEALTH_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the one message of gRPC's health service; it has two.
pub const HEALTH_GRPC_BYTES_MAX: usize = 1024;

/// How long tunnels that are cut at the end of a drain may take to reset their two sides; they only have to
/// write.
pub const CUT_TIME: Duration = Duration::from_millis(200);

/// A drain ends after this long in all, below the 30 s after which supervisors kill.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// Pause after a failed `accept` (file descriptors ran out): the listener must not spin.
pub const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// File descriptors, the highest numbers that the process may have, that connections of the application leave
/// free for other uses: connections to served applications, the mesh, the state directory, the admin
/// endpoint. Each listener of each worker may take one of them. If the limit is low, an eighth of it.
pub const DESCRIPTORS_KEPT: u64 = 64;

/// The bounds of one HTTP/2 connection that the sidecar serves.
#[derive(Clone, Copy, Debug)]
pub struct Http2Bounds {
    /// Streams that the client may have open.
    pub streams: u32,
    /// Bytes of an answer that are held for one stream until the client has room.
    pub send_bytes: usize,
    /// Flow-control window of one stream, in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection, in bytes.
    pub connection_window: u32,
}

/// Of the application, which is trusted with the memory of its own sidecar: windows for 10 Gbit/s at the
/// sub-millisecond round trips of one host. Streams and held bytes are hyper's defaults, made explicit.
pub const HTTP2_OF_APPLICATION: Http2Bounds = Http2Bounds {
    streams: 200,
    send_bytes: 400 * 1024,
    stream_window: 1024 * 1024,
    connection_window: 4 * 1024 * 1024,
};

/// How long a connection of HTTP/1.1 keeps the buffers of its last request, 16 KiB. Making them anew costs a
/// microsecond or two, so at less than two requests per second a connection should release them.
pub const BUFFERS_KEPT: Duration = Duration::from_millis(500);

/// How long a client may take to read that its request is refused for its syntax.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that such a client may still send; they are read and dropped so that the answer reaches it.
pub const REFUSED_BYTES_MAX: usize = 256 * 1024;

/// How often the sidecar checks whether a client is still there that has sent more than the request under
/// way, or has ended its side. It is short so that an application does not work for long in vain, and costs
/// two system calls per second.
pub const PRESENCE_LOOK: Duration = Duration::from_millis(500);

/// How often the sidecar has the kernel probe a client that has ended its side. A minute after a client has
/// closed, its kernel no longer knows the connection.
pub const HALF_CLOSED_PROBE: Duration = Duration::from_secs(15);

/// A client that has ended its side and reads nothing of its answer for this time is given up, like a request
/// without progress (`timeouts.stream_idle`).
pub const HALF_CLOSED_STALL: Duration = Duration::from_secs(300);

/// A client must send the first bytes of a connection within this time, or the connection is closed. Some
/// clients connect before they need to; those that wait longer reconnect.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The same on a listener whose service is unknown. Such a connection cannot be served; an HTTP client, which
/// speaks first, gets time to be told why. A TCP client may wait for the service to speak first, and should
/// soon learn that it will not.
pub const DETECT_UNKNOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for the end of a gRPC response whose head holds its status. The end comes in the same
/// packet, unless the packet was split.
pub const TRAILERS_ONLY_WAIT: Duration = Duration::from_secs(1);

/// Time in which a measured latency loses weight by a factor of e. A peak of 2 s, beside endpoints that take
/// a millisecond, no longer counts after 27 s (7.6 times this).
pub const LATENCY_DECAY: Duration = Duration::from_millis(3500);

/// An answer that has lasted this long is a stream: large bodies take less.
pub const ANSWERED_SETTLED: Duration = Duration::from_secs(8);

/// This many streams weigh as much as one request.
pub const STREAMS_PER_REQUEST: u32 = 64;

/// A passed deadline counts against an endpoint only if it allowed this many times the usual answer time:
/// latencies have long tails.
pub const LATE_TIMES: u32 = 3;

/// A caller's own deadline does not count if it allowed less than this: a caller that asks for the impossible
/// must not put an endpoint out for all others.
pub const LATE_LEAST: Duration = Duration::from_millis(100);

/// The same if no endpoint of the service has ever answered.
pub const LATE_UNKNOWN: Duration = Duration::from_secs(1);

/// A response that reports too little time, and comes this shortly before this side's own deadline, reports
/// that same deadline: hops on the way count in milliseconds.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(10);

/// A peer that was not reached within this time has failed, even if the request could not wait for the end of
/// the handshake: a handshake takes three round trips, with a lost packet a few hundred milliseconds.
pub const UNREACHED: Duration = Duration::from_millis(100);

/// The fraction of its share that an endpoint gets while it says that it is busy: enough to notice when it no
/// longer is.
pub const SPARED_SHARE: f64 = 0.05;

/// How long an endpoint is avoided that says it is busy, but not for how long.
pub const SPARED: Duration = Duration::from_secs(1);

/// No endpoint is avoided for longer than this, whatever its `Retry-After` says.
pub const SPARED_MAX: Duration = Duration::from_secs(300);

/// The fraction of its share with which a new endpoint begins if a policy asks for a slow start.
pub const SLOW_START_SHARE: f64 = 0.1;

/// A probe decides nothing after this time: another request may probe the endpoint. Longer than answers take
/// for which callers wait.
pub const PROBE_DECIDES: Duration = Duration::from_secs(5);

/// A probe waits this long for a request that could be repeated if it fails; after that any request will do.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Traces followed at once by one sidecar: several times the number of requests that it serves. About 100
/// bytes each. Beyond that number, deadlines do not pass through applications that forward only
/// `traceparent`.
pub const TRACES_MAX: usize = 16 * 1024;

/// Bytes of request bodies that one worker keeps to send them again.
pub const REPLAY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pieces of one body that are kept for another attempt. A body of 64 KiB comes in some ten reads; one that
/// came in single bytes would take forty times its size.
pub const REPLAY_PIECES_MAX: usize = 256;

/// Copies of requests that one worker has under way for routes that mirror; further ones are dropped and
/// counted. Each costs some kilobytes beside its body: at 1,000 per second, as many as are under way where a
/// mirror takes 0.2 s.
pub const MIRRORS_MAX: usize = 256;

/// Copies that one mirror may have under way at a worker before it has answered any. At 1,000 per second they
/// come within 30 ms, which the 99th percentile of a minute does not see.
pub const MIRRORS_BEGIN: usize = 32;

/// Copies in a row without an answer after which a mirror counts as one that answers none. As many as may be
/// under way at first: those that began together say no more than one.
pub const MIRROR_UNANSWERED_MAX: usize = 32;

/// Time between the copies that a mirror gets which answers none: it costs its callers next to nothing, and
/// one that came back is noticed within a moment.
pub const MIRROR_PAUSE: Duration = Duration::from_secs(1);

/// Time for a copy, from its begin to the end of its answer: a mirror that is slower learns nothing more by
/// it.
pub const MIRROR_TIME_MAX: Duration = Duration::from_secs(15);

/// Bytes of a request's body that are kept for its copies, as the default of `retry.bodyReplay`; they count
/// to [`REPLAY_BYTES_MAX`], too. A request with more is not copied, and that is counted.
pub const MIRROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the answer to a copy that are read, so that a mirror is asked what its callers would ask of it;
/// then it is reset.
pub const MIRROR_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// An attempt that would have less time before the deadline than this is not made: no answer is so quick.
pub const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(1);

/// If a response asks to wait longer than this before the next attempt, the caller gets the response, because
/// it can use that time better.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(10);

/// The time in which the bucket of a rate limit fills, at most: the limiter counts nanoseconds in 64 bits,
/// which end after 584 years. A bucket that would take longer holds fewer tokens, and still more than a
/// century of callers spends.
pub const RATE_BUCKET_FILLS_WITHIN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Callers, or routes, with a separate rate limit; more share one set of buckets. About 200 bytes each.
pub const RATE_NAMES_MAX: usize = 4096;

/// Bytes of one message of a takeover: a thousand listeners and some hundred services by name.
pub const TAKEOVER_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Descriptors that one process hands over. The usual hard limit of open files is 1 048 576 or less.
pub const TAKEOVER_DESCRIPTORS_MAX: usize = 65_536;

/// How long one side of a takeover waits for the other, which binds sockets and starts threads in that time.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// A worker notices within this time that it no longer reads the mesh port: at most one packet is being
/// handled.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// A new process that was told to take the mesh port confirms it within this time; it has nothing else to do
/// then. No process reads the port in between. Together with [`SUCCESSOR_SETTLES_WITHIN`] this is less than
/// the 3 s after which peers give up their requests.
pub const SUCCESSOR_TAKES_WITHIN: Duration = Duration::from_millis(1000);

/// The new process reports to the service manager and says that it serves within this time; it needs some
/// milliseconds. If it hangs, no process reads the mesh port in the meantime.
pub const SUCCESSOR_SETTLES_WITHIN: Duration = Duration::from_millis(1500);

/// How long a sidecar that was taken over keeps idle connections of the application open. A client that sends
/// a request in that time gets its answer and learns that the connection ends. A client whose connection is
/// closed while it sends may take that for a failure.
pub const IDLE_LINGER: Duration = Duration::from_secs(5);

/// Connections of the admin endpoint on loopback. All callers there share one address, so each may hold all
/// of them; an operator who finds them taken has the Unix socket. About 20 KiB each.
pub const ADMIN_CONNECTIONS: Bounds = Bounds {
    places: 64,
    each: 64,
};

/// Connections of the Unix socket: people and hooks.
pub const ADMIN_SOCKET_CONNECTIONS: Bounds = Bounds {
    places: 32,
    each: 32,
};

/// Connections of the endpoint for other hosts: a few scrapers, and the probes of one host, which come one
/// after the other.
pub const OBSERVE_CONNECTIONS: Bounds = Bounds {
    places: 64,
    each: 16,
};

/// Connections to an admin endpoint that may wait in the kernel.
pub const ADMIN_BACKLOG: i32 = 128;

/// Waiting for a request's head on an admin endpoint, on a new connection or between two requests: clients on
/// this host send it at once.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// From a request's head to its answer, including the request's content: no path computes for long.
pub const ADMIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head on an admin endpoint; browsers send one or two KiB.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a request's content there: the directives of a log filter.
pub const ADMIN_BODY_BYTES_MAX: usize = 16 * 1024;

/// How long answers may take to be read when an admin endpoint ends: less than a successor waits
/// ([`TAKEOVER_TIMEOUT`]).
pub const ADMIN_FINISH: Duration = Duration::from_secs(1);

/// Outcomes counted separately within one series of requests: statuses and errors are few, but an application
/// may send all 900 statuses.
pub const METRIC_OUTCOMES_MAX: usize = 128;

/// How often the allocator is made to return memory. The memory of a burst is returned within twice this
/// time.
pub const MEMORY_LOOK_INTERVAL: Duration = Duration::from_secs(2);
