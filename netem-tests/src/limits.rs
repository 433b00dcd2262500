//! Every bound of this crate, with its unit and its reason.

use std::time::Duration;

/// The queue of a bottleneck without a stated limit: 50 ms at its rate, as in a middling router, and at least
/// [`QUEUE_BYTES_MIN`].
pub const QUEUE_DEFAULT: Duration = Duration::from_millis(50);

/// Bytes that a queue without a stated limit holds at least: twenty full packets, so that a slow
/// link still carries TCP.
pub const QUEUE_BYTES_MIN: u64 = 30_000;

/// How many times its mean a Pareto jitter adds at most: the tail beyond is one packet in 1300, and
/// without an end a test would wait for it.
pub const PARETO_CUTOFF: f64 = 20.0;

/// Steps of a rate trace: an hour in steps of 100 ms.
pub const TRACE_STEPS_MAX: usize = 36_000;

/// Steps of a rate trace that a status shows: a line of a terminal or two.
pub const TRACE_STEPS_SHOWN: usize = 16;

/// Longest round of a rate trace: a day, beyond the longest scenario.
pub const TRACE_PERIOD_MAX: Duration = Duration::from_hours(24);

/// Bytes of the name of a host or link: Linux's names of interfaces (IFNAMSIZ, without its zero).
pub const NAME_BYTES_MAX: usize = 15;

/// Hosts and routers of a lab: each has a thread and a network namespace.
pub const NODES_MAX: usize = 64;

/// Links of a lab: each has two threads, two TUN devices and one /24 of the lab's addresses.
pub const LINKS_MAX: usize = 128;

/// MTU of a link if none is given: Ethernet's.
pub const MTU_DEFAULT: u16 = 1500;

/// Smallest MTU of a link: the least that IPv4 demands of one (RFC 791 section 3.2) and that
/// Linux gives to an interface.
pub const MTU_MIN: u16 = 68;

/// Largest MTU of a link: jumbo frames, with room for their headers.
pub const MTU_MAX: u16 = 9216;

/// Longest delay, jitter or holding back of a packet: far beyond any path on Earth (a geostationary satellite
/// is 300 ms away), short enough that the packets in flight stay bounded.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Fastest rate of a bottleneck, bits per second: more than any emulator in user space carries.
pub const RATE_MAX: u64 = 1_000_000_000_000;

/// Packets in flight in one direction: 250 000 packets/s with a second of delay.
pub const PACKETS_ON_THEIR_WAY_MAX: usize = 1 << 18;

/// Bytes in flight in one direction: 1 Gbit/s with a second of delay.
pub const BYTES_ON_THEIR_WAY_MAX: usize = 128 << 20;

/// First port that NAT gives out: above those of services.
pub const NAT_PORT_FIRST: u16 = 20_000;

/// Mappings of one NAT: fewer than the ports from [`NAT_PORT_FIRST`] on, so that a free port exists.
pub const NAT_MAPPINGS_MAX: usize = 32_768;

/// How long a mapping without an outgoing packet is kept where room is short (RFC 4787 section 4.3
/// demands two minutes at least).
pub const NAT_IDLE_MAX: Duration = Duration::from_secs(120);

/// Packets that a TUN device holds for the emulator (its txqueuelen). It has no back-pressure, so a
/// burst of a TCP window of 15 MB must fit.
pub const TUN_QUEUE_PACKETS: u32 = 10_000;

/// Packets that an emulator's thread reads before it checks which are due: 16 take about 50 us.
pub const PUMP_BATCH: usize = 16;

/// A thread stays awake for waits shorter than this: a sleep ends some 10 to 20 us late.
pub const PUMP_SPIN: Duration = Duration::from_micros(20);

/// Longest sleep of an emulator's thread; every event that it must handle wakes it.
pub const PUMP_SLEEP_MAX: Duration = Duration::from_secs(1);

/// How late packets may be delivered in a valid run, 99th percentile. An idle machine needs a tenth of it;
/// beyond it, delays and rates are not those that were asked for.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(3);

/// Bytes that are kept of each stream of a program's output: that of a talkative program in some minutes.
pub const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a program's name, which is a part of file names.
pub const PROGRAM_NAME_BYTES_MAX: usize = 64;

/// How long a command and a lab wait for each other.
pub const CONTROL_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request to a lab or of its answer: a status of the largest topology.
pub const CONTROL_LINE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of each packet that a capture keeps: IPv4, TCP with options or UDP, and the headers of QUIC
/// and TLS records.
pub const CAPTURE_PACKET_BYTES: usize = 128;

/// Memory of the capture of one direction: the last minute of 700 packets/s both sent and delivered, or
/// the last seconds of a fast download.
pub const CAPTURE_BYTES_MAX: usize = 16 << 20;

/// Age of the oldest packet of a capture.
pub const CAPTURE_AGE_MAX: Duration = Duration::from_mins(1);

/// Bytes of each packet of cross traffic: full ones, as bulk transfers send.
pub const CROSS_PACKET_BYTES: usize = 1500;

/// Packets of cross traffic that are made up for after an idle time: more than a queue holds, and done within
/// milliseconds.
pub const CROSS_MISSED_MAX: u32 = 100_000;
