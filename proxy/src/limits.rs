//! Every limit of the data path, with its unit and its reason. Limits of QUIC and HTTP/3 themselves are
//! in `weft_transport`, the defaults of what settings may change in `weft_config::settings`.

use std::time::Duration;

use weft_transport::shares::Bounds;

/// Bytes of one request or response head on the application's side; more is answered 431.
/// Envoy's default is 60 KiB and the peer's HTTP/3 side takes 64 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a head that are kept for what the mesh itself adds to a response: `:status` and `weft-retry`, with 32 bytes
/// for each.
pub const HEAD_BYTES_OF_MESH: usize = 128;

/// Bytes of a head that are read over HTTP/2, where heads between [`HEAD_BYTES_MAX`] and this are refused by a whole
/// answer. h2 has one number for what it announces and what it refuses without a word of ours, so this is the announced
/// one, too.
pub const HTTP2_HEAD_BYTES_READ: u32 = 2 * HEAD_BYTES_MAX as u32;

/// Fields of one head or trailer section; more is answered 431. Envoy's default.
pub const FIELDS_MAX: usize = 100;

/// From an application's connection to the peer's answer to CONNECT, over all attempts: mesh handshake (3 s), application
/// connect (1 s), a round trip.
pub const TUNNEL_OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Waiting until the peer allows one more stream. Sidecars raise their limit long before it is reached, so a
/// wait is a burst, or the beginning of an overload.
pub const STREAM_WAIT: Duration = Duration::from_secs(3);

/// Where others have been waiting for streams for this time and a few round trips without a break, it is no burst:
/// the peer is behind with its work.
pub const CROWD_STANDING: Duration = Duration::from_millis(100);

/// Round trips that a peer may need to raise its limit as far as a burst needs it: it doubles in each.
pub const CROWD_ROUND_TRIPS: u32 = 4;

/// Waiting for a stream of a peer that is behind. Short, because all who wait would otherwise wait as long as they
/// may, and answers come too late for everybody; long enough to keep such a peer busy.
pub const CROWD_WAIT: Duration = Duration::from_millis(20);

/// The same while this worker has more to do than it can itself: credit may be here that it had no time to look at.
pub const CROWD_WAIT_SLOW: Duration = Duration::from_millis(200);

/// A client that sent `Expect: 100-continue` is told to go on after this time even if the application
/// never says so (RFC 9110 section 10.1.1 lets clients do the same on their own).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Informational responses forwarded for one request; later ones are dropped. Real uses send one or two.
pub const INFORMATIONAL_MAX: usize = 32;

/// How long a request with a declared body may be waited for, beside what its bytes buy. A caller declares what it
/// has; this is for one that is itself held up (the default of Apache's mod_reqtimeout).
pub const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that buy one more second of that (the same default).
pub const BODY_BYTES_PER_SECOND_LEAST: u64 = 500;

/// Idle connections kept per application and worker; more are closed when their response ends. As many as one
/// service has requests in flight by default: with fewer, one that is asked for more at a time gets a new connection
/// for each, which doubles what a request costs. They are kept for a second or two; where there are more, the one
/// that was used least recently goes.
pub const APPLICATION_IDLE_CONNECTIONS_MAX: usize = 1024;

/// Connections to one application per worker, idle ones included: four times as many as one service has requests in
/// flight by default. Each has two descriptors and some 20 KiB of buffers.
pub const APPLICATION_CONNECTIONS_MAX: u32 = 4096;

/// HTTP/2 connections of one caller to one application per worker. One more is made when the application allows no more
/// streams on those that are there: most allow 100 or more, so these carry more than a service has in flight by default.
pub const APPLICATION_HTTP2_CONNECTIONS_EACH: usize = 16;

/// Waiting for a connection to the application, or for a stream of one. Less than callers wait for a stream of a
/// sidecar ([`STREAM_WAIT`]): another endpoint may have room.
pub const APPLICATION_WAIT: Duration = Duration::from_secs(1);

/// Who waits looks again after this time at the latest: the application may have raised its limit without a stream that
/// ended.
pub const APPLICATION_WAIT_STEP: Duration = Duration::from_millis(50);

/// Requests that wait so at a time, per application and worker; all are woken when a place is free.
pub const APPLICATION_WAITERS_MAX: usize = 256;

/// How often a request is sent to the application again. A connection that ends may be followed by another one that
/// does; an application that ends four in a row does not mean to serve.
pub const APPLICATION_RESENDS_MAX: u32 = 3;

/// Bytes of a request's body that are kept until its answer begins, to be sent again; of larger ones nothing is. They
/// count to [`REPLAY_BYTES_MAX`], too.
pub const APPLICATION_REPLAY_BYTES_MAX: usize = 64 * 1024;

/// A new connection that stayed open for so long after its first answer is no longer suspected to be closed behind each
/// answer. Applications that close do it at once, or as soon as they have a processor.
pub const APPLICATION_PROBATION: Duration = Duration::from_millis(50);

/// For so long after an application closed an idle connection without a word, what cannot be sent again gets a new
/// connection.
pub const APPLICATION_CLOSES_REMEMBERED: Duration = Duration::from_secs(60);

/// An HTTP/2 connection of a caller to the application that carried no new request for this time is left to end:
/// gRPC calls come in bursts with pauses, and a new connection costs two round trips on one host.
pub const APPLICATION_HTTP2_IDLE: Duration = Duration::from_secs(60);

/// Callers whose HTTP/2 connections are kept per application and worker; of more, those go that were used least
/// recently.
pub const APPLICATION_HTTP2_CALLERS_MAX: usize = 1024;

/// After a response ended, how long its connection may take to become reusable before it is dropped.
pub const APPLICATION_READY_WAIT: Duration = Duration::from_millis(100);

/// Tunnels in flight per inbound TCP service over all workers. Tunnels are long and mostly idle, so
/// this is not the figure for requests; each active one may hold 128 KiB.
pub const INBOUND_TUNNELS_MAX: usize = 16 * 1024;

/// Connections of the application that may wait in the kernel until they are accepted. It clamps this to
/// `net.core.somaxconn`, whose default is the same.
pub const BACKLOG: u32 = 4096;

/// How often a worker that has more to do than it can decides how much it takes in: half of what makes one fall
/// behind.
pub const INTAKE_CYCLE: Duration = Duration::from_millis(10);

/// A cycle that took this long had too much in it.
pub const INTAKE_CYCLE_LONG: Duration = Duration::from_millis(20);

/// Requests that are taken in per cycle, however long it takes.
pub const INTAKE_LEAST: u32 = 16;

/// The most: what takes ten milliseconds takes more than two microseconds each.
pub const INTAKE_MOST: u32 = 4096;

/// The portion of a cycle grows by this part of itself while there is time left.
pub const INTAKE_GROWTH: u32 = 8;

/// While callers give up and others wait to be read, a connection is accepted this often: often enough for a
/// caller that tries again.
pub const INTAKE_ACCEPTS_EACH: Duration = Duration::from_millis(100);

/// Who has waited for less has not waited for long: callers wait as long for a far service.
pub const INTAKE_WAIT: Duration = Duration::from_millis(200);

/// Callers that gave up are taken for the kind that does, for this time.
pub const INTAKE_PATIENCE: Duration = Duration::from_secs(10);

/// While callers give up, one in so many is the one that has waited longest.
pub const INTAKE_OLDEST_ONE_IN: u32 = 8;

/// All are taken in as they come once nobody has waited for this time: whoever caused it has had the time to come
/// back.
pub const INTAKE_RELEASE: Duration = Duration::from_secs(1);

/// Connections that always wait to be accepted, for this time, are no burst (RFC 8289 section 4.3 takes the same).
pub const INTAKE_STANDING: Duration = Duration::from_millis(100);

/// So many connections may wait in the kernel even then, however slowly they are accepted.
pub const BACKLOG_LEAST: u32 = 16;

/// Application connections accepted per worker; at the limit no more are accepted until one ends.
/// About 20 KiB each when idle.
pub const OUTBOUND_CONNECTIONS_MAX: usize = 16 * 1024;

/// Largest piece read from a socket into a tunnel; one such piece fills about 10 GSO batches.
pub const TUNNEL_READ_MAX: usize = 64 * 1024;

/// First piece read from a tunnel's socket; interactive protocols rarely need more.
pub const TUNNEL_READ_MIN: usize = 2 * 1024;

/// Pieces of a body below this size are joined with what is there already behind them. Each piece costs
/// a frame and some hundred bytes of bookkeeping until it is acknowledged, which would let a sender of
/// one-byte chunks hold a hundred times what it sends.
pub const BODY_PIECE_SMALL: usize = 4 * 1024;

/// Bytes of an application's `x-request-id` that are kept; longer ones are replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Bytes of `tracestate` passed on (W3C Trace Context section 3.3.1.5 asks for at least 512).
pub const TRACESTATE_BYTES_MAX: usize = 4096;

/// Bytes of `baggage` passed on (W3C Baggage section 3.3.2: at least 8192).
pub const BAGGAGE_BYTES_MAX: usize = 8192;

/// How often a request may pass one sidecar, told by its own `Via` entries, before it is a loop (508).
pub const VIA_OWN_MAX: usize = 2;

/// Access-log lines per second and worker; the rest is counted.
pub const ACCESS_LOG_LINES_PER_SECOND: u32 = 10;

/// Access-log lines waiting for the writer thread; at the limit lines are dropped and counted, so that
/// a blocked pipe never blocks a request. At most [`ACCESS_LOG_LINE_BYTES_MAX`] each.
pub const ACCESS_LOG_QUEUE_MAX: usize = 1024;

/// Bytes of one line of the access log: what a pipe takes whole (`PIPE_BUF`, pipe(7)), so that lines of two
/// writers never mix, and less than any collector cuts off.
pub const ACCESS_LOG_LINE_BYTES_MAX: usize = 4096;

/// Bytes of its fixed part: the names of all fields, and every number at its longest.
pub const ACCESS_LOG_FRAME_BYTES_MAX: usize = 576;

/// Attempts of an exchange whose parts are kept for its record: the first three and the last. Policies rarely allow more,
/// and the log has a line's room for them.
pub const RECORD_ATTEMPTS_MAX: usize = 4;

/// Bytes of a method, as the log writes it; registered ones have at most 17.
pub const ACCESS_LOG_METHOD_BYTES_MAX: usize = 32;

/// Bytes of an authority: a DNS name with a port has at most 259.
pub const ACCESS_LOG_AUTHORITY_BYTES_MAX: usize = 272;

/// Bytes of a path: the beginning tells what was asked.
pub const ACCESS_LOG_PATH_BYTES_MAX: usize = 1024;

/// Bytes of a SPIFFE ID. Theirs have a hundred, and may have 2048.
pub const ACCESS_LOG_PRINCIPAL_BYTES_MAX: usize = 400;

/// Bytes of a service with its port, of a route or of a policy: three DNS labels.
pub const ACCESS_LOG_NAME_BYTES_MAX: usize = 200;

/// Bytes of the reason in words.
pub const ACCESS_LOG_DETAILS_BYTES_MAX: usize = 512;

/// Bytes of a request id; longer ones than [`REQUEST_ID_BYTES_MAX`] are replaced, quotes are written as two.
pub const ACCESS_LOG_REQUEST_ID_BYTES_MAX: usize = 2 * REQUEST_ID_BYTES_MAX;

const _: () = assert!(
    ACCESS_LOG_FRAME_BYTES_MAX
        + ACCESS_LOG_METHOD_BYTES_MAX
        + ACCESS_LOG_AUTHORITY_BYTES_MAX
        + ACCESS_LOG_PATH_BYTES_MAX
        + 2 * ACCESS_LOG_PRINCIPAL_BYTES_MAX
        + 3 * ACCESS_LOG_NAME_BYTES_MAX
        + ACCESS_LOG_DETAILS_BYTES_MAX
        + ACCESS_LOG_REQUEST_ID_BYTES_MAX
        <= ACCESS_LOG_LINE_BYTES_MAX
);

/// Label sets of one metric per worker; later ones share the series whose labels are `other`.
pub const METRIC_SERIES_MAX: usize = 2000;

/// How often the application is probed before it first accepts.
pub const PROBE_INTERVAL_DOWN: Duration = Duration::from_secs(1);

/// How often the application is probed while it accepts.
pub const PROBE_INTERVAL_UP: Duration = Duration::from_secs(5);

/// How long tunnels that are cut at the end of a drain have to reset their two sides: no more than to write.
pub const CUT_TIME: Duration = Duration::from_millis(200);

/// A drain ends after this long in all, below the 30 s after which supervisors kill.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// Pause after a failed `accept` (file descriptors ran out): the listener must not spin.
pub const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// File descriptors, of the highest numbers that the process may have, that connections of the application leave to
/// everything else: connections to served applications, the mesh, the state directory, the admin endpoint. Each
/// listener of each worker may take one of them. Of a low limit, an eighth.
pub const DESCRIPTORS_KEPT: u64 = 64;

/// Flow-control window of one HTTP/2 stream on the application's side: a bandwidth of 10 Gbit/s at the
/// sub-millisecond round trips of one host.
pub const HTTP2_STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for a whole HTTP/2 connection.
pub const HTTP2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Streams that a client may have open on one HTTP/2 connection (hyper's default, made explicit).
pub const HTTP2_STREAMS_MAX: u32 = 200;

/// How long a connection of HTTP/1.1 keeps the buffers of its last request, 16 KiB. Making them anew costs a
/// microsecond or two, so a connection with less than two requests per second is better off without them.
pub const BUFFERS_KEPT: Duration = Duration::from_millis(500);

/// How long a client may take to hear that its request is refused for its form.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that such a client may still send, which are read and thrown away so that the answer reaches it.
pub const REFUSED_BYTES_MAX: usize = 256 * 1024;

/// How often it is looked whether a client is still there that has sent more than the request under way, or has ended
/// its side: soon for an application that computes in vain, and two calls of the kernel in a second.
pub const PRESENCE_LOOK: Duration = Duration::from_millis(500);

/// How often the kernel of a client that has ended its side is asked whether the connection lives. It knows of none a
/// minute after the client has closed it.
pub const HALF_CLOSED_PROBE: Duration = Duration::from_secs(15);

/// A client that has ended its side and reads nothing of its answer for this time is not waited for, like a request
/// on which nothing moves (`timeouts.stream_idle`).
pub const HALF_CLOSED_STALL: Duration = Duration::from_secs(300);

/// A client must send the first bytes of a connection within this time, or it is closed. Clients that
/// connect ahead of need exist; those that wait longer reconnect.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The same on a listener whose service is unknown. Such a connection cannot be served; this only leaves
/// a client of HTTP, who speaks first, the time to be told why. A client of TCP may be waiting for the
/// service to speak first and is to hear soon that it will not.
pub const DETECT_UNKNOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of a gRPC response whose head holds its status is waited for this long; it comes in the same
/// packet, unless that one was split.
pub const TRAILERS_ONLY_WAIT: Duration = Duration::from_secs(1);

/// Time in which a measured latency loses weight by e: a peak of 2 s is as good as forgotten, beside endpoints that take a
/// millisecond, after 27 s (7.6 times this).
pub const LATENCY_DECAY: Duration = Duration::from_millis(3500);

/// An answer that has been going on for this long is a stream: longer than what large bodies take.
pub const ANSWERED_SETTLED: Duration = Duration::from_secs(8);

/// So many streams weigh as much as one request.
pub const STREAMS_PER_REQUEST: u32 = 64;

/// A deadline says something of an endpoint that has not answered by then only if it left so many times what an answer
/// usually takes: latencies have long tails.
pub const LATE_TIMES: u32 = 3;

/// A caller's own deadline says nothing if it left less: one caller may not put an endpoint out for all others by asking for
/// what no endpoint can do.
pub const LATE_LEAST: Duration = Duration::from_millis(100);

/// The same where no endpoint of the service has ever answered.
pub const LATE_UNKNOWN: Duration = Duration::from_secs(1);

/// A response that says that there was too little time, and comes so shortly before this side's own deadline, tells of
/// that deadline: hops on the way count in milliseconds.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(10);

/// A peer that was not reached within this has failed, even if the request could not wait for the end of the handshake:
/// one takes three round trips, with a lost packet a few hundred milliseconds.
pub const UNREACHED: Duration = Duration::from_millis(100);

/// The share of its part that an endpoint gets while it says that it is busy: enough to notice when it
/// no longer is.
pub const SPARED_SHARE: f64 = 0.05;

/// How long an endpoint that says it is busy, and not for how long, is spared.
pub const SPARED: Duration = Duration::from_secs(1);

/// No endpoint is spared for longer, whatever its `Retry-After` says.
pub const SPARED_MAX: Duration = Duration::from_secs(300);

/// The share of its part with which a new endpoint begins where a policy asks for a slow start.
pub const SLOW_START_SHARE: f64 = 0.1;

/// A probe decides nothing after this time: another request may try the endpoint. Longer than answers take that
/// callers wait for.
pub const PROBE_DECIDES: Duration = Duration::from_secs(5);

/// A probe waits this long for a request that could be repeated if it fails; then any request will do.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Traces followed at once by one sidecar: as many as it serves requests, a few times over. About 100
/// bytes each. Of more, deadlines do not pass through applications that forward only `traceparent`.
pub const TRACES_MAX: usize = 16 * 1024;

/// Bytes of request bodies that one worker keeps to send them again.
pub const REPLAY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pieces of one body that are kept for another attempt. A body of 64 KiB comes in some ten reads; one
/// in single bytes would cost forty times what it weighs.
pub const REPLAY_PIECES_MAX: usize = 256;

/// An attempt that would have less time before the deadline than this is not made: no answer is so quick.
pub const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(1);

/// A response that asks to wait longer before the next attempt is handed to the caller, who knows better
/// what else to do in that time.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(10);

/// The time in which the bucket of a rate limit fills, at most: the limiter counts nanoseconds in 64 bits, which end after
/// 584 years. A bucket that would take longer holds fewer tokens, and still more than a century of callers spends.
pub const RATE_BUCKET_FILLS_WITHIN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Callers, or routes, whose rate is limited apart; more share one set of buckets. About 200 bytes each.
pub const RATE_NAMES_MAX: usize = 4096;

/// Bytes of one message of a takeover: a thousand listeners and some hundred services by name.
pub const TAKEOVER_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Descriptors that one process hands over. The usual hard limit of open files is 1 048 576 or less.
pub const TAKEOVER_DESCRIPTORS_MAX: usize = 65_536;

/// One side of a takeover waits this long for the other: it binds sockets and starts threads in between.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(15);

/// A worker notices within this that it no longer reads the mesh port; it is idle or between two packets.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// A new process that was told that the mesh port is its own takes it within this; it waits for nothing else then.
/// No process reads the port meanwhile. With [`SUCCESSOR_SETTLES_WITHIN`] that is less than the 3 s after which peers
/// give up what they have under way.
pub const SUCCESSOR_TAKES_WITHIN: Duration = Duration::from_millis(1000);

/// It tells the service manager and says that it serves within this, which takes it some milliseconds. If it hangs,
/// no process reads the mesh port meanwhile.
pub const SUCCESSOR_SETTLES_WITHIN: Duration = Duration::from_millis(1500);

/// How long a sidecar that was taken over keeps idle connections of the application open. A client that
/// sends a request meanwhile gets its answer, with the word that the connection ends; one whose
/// connection is closed under its hands may take that for a failure.
pub const IDLE_LINGER: Duration = Duration::from_secs(5);

/// Connections of the admin endpoint on loopback. Callers there have one address in common, so each may have
/// all; an operator who is kept out by them has the Unix socket. About 20 KiB each.
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

/// From a request's head to its answer, the request's content included: nothing is computed for long.
pub const ADMIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head on an admin endpoint; browsers send one or two KiB.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a request's content there: the directives of a log filter.
pub const ADMIN_BODY_BYTES_MAX: usize = 16 * 1024;

/// Answers that are being read when an admin endpoint ends may take this long: less than a successor waits
/// ([`TAKEOVER_TIMEOUT`]).
pub const ADMIN_FINISH: Duration = Duration::from_secs(1);

/// Outcomes told apart within one series of requests: statuses and errors are few, but an application may send all 900
/// statuses.
pub const METRIC_OUTCOMES_MAX: usize = 128;

/// How often the allocator is made to look. What a burst needed is given back within twice that.
pub const MEMORY_LOOK_INTERVAL: Duration = Duration::from_secs(2);
