//! Every limit of the load generator, with its unit and its reason.

use std::time::Duration;

/// Requests per second that can be asked for. Far beyond the capacity of one process: a typing error is
/// refused, and every limit can still be searched for from above.
pub const RATE_MAX: f64 = 10_000_000.0;

/// The lowest rate: one request in a thousand seconds.
pub const RATE_MIN: f64 = 0.001;

/// Stages of one run. No person writes a file with more.
pub const STAGES_MAX: usize = 1000;

/// How long one run may take: a week. Long enough for a soak test over a weekend.
pub const LENGTH_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Requests open at once, unless `--max-in-flight` says otherwise. At 1000/s that is a stall of ten seconds;
/// more open requests would add no information.
pub const IN_FLIGHT: usize = 10_000;

/// The most that `--max-in-flight` may be. Each open HTTP/1.1 request holds a connection, and an
/// address pair has 64 Ki ports; HTTP/2 and HTTP/3 hold a few KiB for each.
pub const IN_FLIGHT_MAX: usize = 1_000_000;

/// Threads of the generator, unless `--threads` says otherwise and the machine has as many. Two saturate most
/// servers; the rest of the machine is for the server.
pub const THREADS: usize = 2;

/// The most threads: more than any machine that runs one generator.
pub const THREADS_MAX: usize = 256;

/// Connections of a closed loop, unless `--connections` says otherwise.
pub const CLOSED_CONNECTIONS: usize = 10;

/// A run without `--duration` or `--requests` ends by itself.
pub const LENGTH: Duration = Duration::from_secs(10);

/// A request that takes longer fails, unless `--deadline` says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long requests that are open when the run ends may still take, unless `--grace` says otherwise.
/// Longer than the usual stall (a retransmission timeout, a pause of a garbage collector).
pub const GRACE: Duration = Duration::from_secs(2);

/// Targets of one run.
pub const TARGETS_MAX: usize = 1000;

/// The weight of one target.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Requests that one HTTP/2 or HTTP/3 connection carries at once in an open loop, unless `--streams` says
/// otherwise. What RFC 9113 section 6.5.2 asks servers to allow at least.
pub const STREAMS: usize = 100;

/// The most that `--streams` may be: QUIC and HTTP/2 peers rarely allow more.
pub const STREAMS_MAX: usize = 10_000;

/// A data file (`--data @FILE`) is held in memory.
pub const BODY_MAX: usize = 1 << 30;

/// Arrivals that a worker starts in a row before it looks at its sockets. When it is behind, answers must
/// still be read in time, or the tool would measure itself.
pub(crate) const BURST: usize = 32;

/// All threads are up and wait for this long before the first arrival.
pub(crate) const LEAD: Duration = Duration::from_millis(50);

/// The longest time that a thread stays awake for an arrival. Alarms in a virtual machine were late by 50 us
/// in the median and by up to 290 in 199 of 200; for later ones, other programs had the processor.
pub(crate) const EARLY_WAKE_MAX: Duration = Duration::from_micros(300);

/// The share of a thread's time that it stays awake for arrivals. With two threads at 1000 requests per
/// second this is 200 us for each, enough for all but the longest waits; at tens of thousands it is next to
/// nothing, and the processor is the server's.
pub(crate) const EARLY_WAKE_SHARE_MAX: f64 = 0.1;

/// The unused part of that share that a thread may save: ten of the longest waits in a row, because
/// independent arrivals bunch.
pub(crate) const EARLY_WAKE_CREDIT_MAX: Duration = Duration::from_millis(3);

/// How often one request is sent again that servers do not process. A connection that ends reports the
/// requests that came too late for it, which are the first on the next connection; a server that refuses as
/// many in a row refuses all. curl has the same number.
pub(crate) const RESENDS_MAX: u32 = 5;

/// A connection is made, or given up, within this time, unless the request's deadline is nearer.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a response's head. A longer one is an attack, or another protocol.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fields of a response's head.
pub(crate) const FIELDS_MAX: usize = 128;

/// Bytes that a connection reads at once to begin with. Small answers fit, and ten thousand idle connections
/// hold no more than 80 MiB.
pub(crate) const READ_BUFFER: usize = 8 * 1024;

/// The size to which a connection's buffer grows when answers are larger.
pub(crate) const READ_BUFFER_MAX: usize = 256 * 1024;

/// The longest duration that histograms distinguish; longer ones count as this. An hour is beyond any
/// deadline of a load test.
pub const DURATION_RECORDED_MAX: Duration = Duration::from_secs(3600);

/// Digits that histograms keep: 0.1 %, in 190 KiB for the whole range. A fourth would cost ten times
/// the memory, and no machine repeats a run that exactly.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// Digits of the histograms of single steps of the time line: 1 %, 13 KiB each.
pub const TIMELINE_SIGNIFICANT_DIGITS: u8 = 2;

/// The finest step of the time line.
pub const TIMELINE_STEP_MIN: Duration = Duration::from_secs(1);

/// Steps of the time line before they get coarser: ten minutes of seconds, 8 MiB at most.
pub const TIMELINE_STEPS_MAX: usize = 600;

/// How exactly it is known when answers came.
pub const PRESENCE_SLOT_MIN: Duration = Duration::from_millis(1);

/// Slots for when answers came before they get coarser: 128 KiB, 17 minutes of milliseconds.
pub const PRESENCE_SLOTS_MAX: usize = 1 << 20;

/// A percentile with fewer samples beyond it tells little about the next run.
pub const SAMPLES_BEYOND_PERCENTILE_MIN: u64 = 10;

/// An encoded histogram after decompression: each of the 24 000 counters takes 9 bytes at most.
pub const HISTOGRAM_BYTES_MAX: u64 = 256 * 1024;

/// How late the generator may start 1 % of the requests without making the run invalid: a busy kernel's
/// scheduler delays any process as much.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(1);

/// The same as a share of the 99th percentile of the latency, which includes it.
pub const LATENESS_SHARE_MAX: f64 = 0.1;

/// Requests of a log that is replayed: 400 MiB of memory, an hour at 1400/s.
pub const REPLAY_ARRIVALS_MAX: usize = 5_000_000;

/// Bytes of a line of the log: a path of 8 KiB in any encoding, and the other fields.
pub const REPLAY_LINE_MAX: usize = 64 * 1024;

/// Different methods, authorities and paths of a log that are kept once.
pub const REPLAY_NAMES_MAX: usize = 100_000;

/// Connections that wait to be accepted by `weft load serve`. The kernel clamps it to `net.core.somaxconn`.
pub(crate) const SERVE_BACKLOG: i32 = 4096;

/// Bytes that an echoing connection of `weft load serve` takes at once.
pub(crate) const SERVE_BUFFER: usize = 64 * 1024;

/// Bytes that `weft load serve` moves at once where only bytes are moved: fewer system calls.
pub(crate) const SERVE_BULK_BUFFER: usize = 256 * 1024;

/// Datagrams that wait for their answer on a thread of `weft load serve`; more are lost, as from a full
/// socket buffer.
pub(crate) const SERVE_DATAGRAMS_MAX: usize = 16 * 1024;

/// Pause of `weft load serve` when no connection can be accepted: descriptors become free when other
/// connections end.
pub(crate) const SERVE_ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The largest body that `weft load serve` answers with; it is held in memory once for each thread.
pub const SERVE_BODY_MAX: u64 = 1 << 30;

/// The largest UDP payload (RFC 768: 16 bits of length, with 8 bytes of header and 20 of IPv4).
pub(crate) const DATAGRAM_MAX: usize = 65_507;

/// The trailer that ends a call of gRPC.
pub(crate) const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

/// Bytes that TCP and UDP send when `--data` says nothing: a small request.
pub(crate) const PAYLOAD: usize = 64;

/// Trials of one search: with a rate that is off by a factor of a million, doubling, halving and
/// confirming take about 35.
pub const SEARCH_TRIALS_MAX: usize = 60;

/// How often the best rate of a search must hold again.
pub const SEARCH_CONFIRMATIONS: u32 = 2;

/// How near a search comes to the limit. Trials of ten seconds on one machine differ by as much.
pub const SEARCH_PRECISION: f64 = 0.05;

/// Steps of a sweep: an hour and a half of trials of ten seconds.
pub const SWEEP_STEPS_MAX: u32 = 500;

/// Beyond the knee, the p99 is more than this times that at low rates.
pub const KNEE_LATENCY_FACTOR: f64 = 2.0;

/// Beyond the knee, more requests than this fail, as a share.
pub const KNEE_ERROR_SHARE_MAX: f64 = 0.01;

/// Beyond the knee, fewer than this share of the requests due succeed within the time.
pub const KNEE_RATE_SHARE_MIN: f64 = 0.95;

/// The normal quantile of a 99 % interval: a comparison looks at some ten quantities at once, and should find
/// a difference between equal runs at most once in ten comparisons.
pub const DIFF_Z: f64 = 2.576;

/// The number of steps needed to judge how much they differ.
pub const DIFF_STEPS_MIN: usize = 5;

/// Ratios nearer to 1 than this are no difference unless the user says otherwise: equal runs on one machine
/// differ by as much.
pub const DIFF_TOLERANCE: f64 = 0.05;

/// Bytes of a body that go with the head of an HTTP/3 request. A packet or two: more would only be copied.
pub(crate) const FIRST_WRITE: usize = 2048;

/// A file that is read as a result: 600 steps and seven histograms take a tenth of it.
pub const RESULT_BYTES_MAX: u64 = 16 << 20;

/// Where a search begins if no rate is given: any service does a hundred requests per second, and seven
/// doublings are ten thousand.
pub const SEARCH_START: f64 = 100.0;

/// Clock ticks per second in `/proc`: USER_HZ, which is 100 on every architecture that weft runs on
/// (proc(5)).
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// Processes of one pair of proxies in a comparison: a proxy with a process for each of 32 cores, on both
/// sides.
pub const PLUGIN_PROCESSES_MAX: usize = 64;

/// Bytes of the line that a plug-in prints when it is up.
pub const PLUGIN_LINE_MAX: u64 = 64 * 1024;

/// Rounds of a comparison: a night of them.
pub const COMPARE_ROUNDS_MAX: u32 = 1000;

/// Rates of one comparison; each is a measurement of its own in every round.
pub const COMPARE_RATES_MAX: usize = 10;

/// Requests that may be open in a comparison's load at a fixed rate. A proxy that cannot keep up must not be
/// flooded with connections: requests beyond the limit are failures, and are shown.
pub(crate) const COMPARE_IN_FLIGHT: usize = 1000;

/// Connections of the comparison's loop that makes a new one for each request. Enough to keep a worker busy;
/// more would wait for its queue.
pub(crate) const COMPARE_CONNECTING: usize = 16;

/// How long one bulk transfer of a comparison may take.
pub(crate) const COMPARE_BULK_DEADLINE: Duration = Duration::from_secs(300);

/// Share of the machine's time that its host may withhold in a comparison before the report mentions it.
/// Beyond it the rounds of a shared machine differ visibly.
pub(crate) const COMPARE_STOLEN_MAX: f64 = 0.05;
