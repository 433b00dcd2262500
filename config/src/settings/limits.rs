//! Every default and bound of the settings files, once, with its unit and its reason.
//!
//! The QUIC knobs have theirs in `weft_transport::tuning`.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

/// UDP port of the mesh side of a sidecar.
pub const MESH_PORT: u16 = 6143;
/// TCP port of a sidecar's admin endpoint.
pub const ADMIN_PORT: u16 = 6191;
/// TCP port of the CA.
pub const CA_PORT: u16 = 6200;
/// TCP port of the config service.
pub const CONFIG_PORT: u16 = 6201;

/// Most workers by default: a sidecar is a guest on its host, and two move more than 10 Gbit/s.
pub const WORKERS_DEFAULT_MAX: usize = 2;
/// Workers: packets are steered by one byte for the worker's number.
pub const WORKERS: RangeInclusive<usize> = 1..=256;

/// Longest settings file in bytes; a larger one is a mistake, and is not read.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Listeners of one sidecar: each costs a socket per worker.
pub const LISTENERS_MAX: usize = 1024;
/// Services that one sidecar serves.
pub const SERVICES_MAX: usize = 256;
/// Addresses of one control-plane service.
pub const ADDRESSES_MAX: usize = 32;
/// Names of one admin endpoint: a host has a few.
pub const ADMIN_HOSTS_MAX: usize = 32;

/// Application connect: the application is on this host, so one lost SYN (1 s) is already a failure.
pub const APPLICATION_CONNECT: Duration = Duration::from_secs(1);
/// Request headers, from the first byte to the last: bounds slow senders.
pub const REQUEST_HEADERS: Duration = Duration::from_secs(10);
/// A request stream without progress. Long polls last a minute or two.
pub const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);
/// A tunnel without progress: an hour would break pools of database connections.
pub const TUNNEL_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Idle pooled application connection: applications close theirs after 2 to 5 s, so the sidecar closes its
/// own first.
pub const APPLICATION_IDLE: Duration = Duration::from_millis(1500);
/// From one health check of an application to the next: an application that ends is noticed within seconds.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// What that may be: more than ten checks in a second would be load, less than one an hour no check.
pub const HEALTH_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60 * 60);
/// One health check in all: the application is on this host, and has nothing to do but to answer.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// What that may be: below 10 ms it fires on a busy host, and an application that needs more than a minute
/// does not serve.
pub const HEALTH_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// Failed requests in a row that take an application out: one late answer of a busy application must not
/// (the default of Kubernetes).
pub const HEALTH_UNHEALTHY: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
/// What the thresholds of health checks may be.
pub const HEALTH_THRESHOLD: RangeInclusive<u32> = 1..=100;
/// What the grace at the start may be: no application starts for longer than an hour.
pub const HEALTH_GRACE_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(60 * 60);
/// Bytes of a path, a host or the name of a gRPC service in a health check.
pub const HEALTH_TEXT_MAX: usize = 512;

/// The range of a timeout: below 10 ms it fires on a busy host, above 7 days it has no effect.
pub const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(7 * 24 * 60 * 60);

/// Drain: how long new work is accepted after the withdrawal, until callers know of it.
pub const DRAIN_ACCEPT: Duration = Duration::from_secs(2);
/// Drain in all: below the 30 s after which supervisors send SIGKILL.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// What a drain may last.
pub const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);

/// Requests in flight per inbound service; more are refused with 503.
pub const IN_FLIGHT: usize = 1024;
/// What the limit of requests in flight may be.
pub const IN_FLIGHT_RANGE: RangeInclusive<usize> = 1..=1_000_000;

/// Life of an SVID: short enough to need no revocation list, long enough for a day without the CA.
pub const SVID_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// What an SVID's life may be: renewal happens at two thirds, so 30 s leaves 10 s for it.
pub const SVID_TTL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_secs(90 * 24 * 60 * 60);
/// How long an expired SVID still authenticates one renewal at the CA: a weekend.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(72 * 60 * 60);
/// What the renewal grace may be; zero turns it off.
pub const RENEWAL_GRACE_RANGE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(30 * 24 * 60 * 60);

/// The share of the traces that begin at a sidecar: one of a hundred shows what is usual, and costs little.
pub const TRACES_RATIO: f64 = 0.01;
/// One export of spans (the default of OpenTelemetry).
pub const TRACES_TIMEOUT: Duration = Duration::from_secs(10);
/// What that may be: a collector far away needs more than 100 ms, and after a minute newer spans are lost.
pub const TRACES_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// The port of OTLP/HTTP; that of gRPC is 4317.
pub const OTLP_HTTP_PORT: u16 = 4318;
/// Fields of one's own in each export: a token, a tenant.
pub const TRACES_HEADERS_MAX: usize = 16;
/// Attributes of one's own of the resource.
pub const TRACES_RESOURCE_MAX: usize = 64;
/// Bytes of one of them, name or value.
pub const TRACES_TEXT_MAX: usize = 4096;

/// Resolvers of names outside of the mesh: as many as other resolvers ask at most.
pub const DNS_SERVERS_MAX: usize = 3;
