//! Every bound and default of the certificate authority and its clients, each with its unit and reason.

use std::time::Duration;

use weft_transport::shares::Bounds;

/// Life of the root certificate. Replacing a root touches every workload, so it outlives the hardware.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * DAY);
/// Life of the issuing certificate: short enough to limit the harm of a lost key.
pub const ISSUING_LIFE: Duration = Duration::from_secs(365 * DAY);
/// Life of an SVID unless the operator sets another: a stolen key is usable for a day.
pub const SVID_TTL_DEFAULT: Duration = Duration::from_secs(DAY);
/// Shortest SVID life that is issued: below it, renewal and clock skew leave no usable time.
pub const SVID_TTL_MIN: Duration = Duration::from_secs(10);
/// Longest SVID life: revocation here is expiry, so a stolen key is usable for a week at most.
pub const SVID_TTL_MAX: Duration = Duration::from_secs(7 * DAY);
/// `notBefore` lies this far in the past, for verifiers whose clock is behind.
pub const NOT_BEFORE_SLACK: Duration = Duration::from_secs(60);
/// The issuer signs nothing when less than this is left of its own life (twice the allowed skew): half of the
/// verifiers would refuse the certificate.
pub const ISSUER_LEFT_MIN: Duration = Duration::from_secs(120);
/// An SVID that expired less than this ago still authenticates its own renewal: a CA may be away for a
/// weekend.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(72 * 3600);

/// Largest CSR in bytes. A P-384 CSR with every usual attribute is below 2 KiB. Requests that arrive slowly
/// are held in memory: [`CONNECTIONS`] times [`CALLS_PER_CONNECTION`] of these are 34 MiB.
pub const CSR_BYTES_MAX: usize = 16 * 1024;
/// Largest gRPC message in bytes that the CA reads: a CSR and its envelope.
pub const MESSAGE_BYTES_MAX: usize = CSR_BYTES_MAX + 1024;
/// Largest gRPC message in bytes that a client of the CA reads: a chain and a bundle, generously.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Largest gRPC message in bytes on the local socket: [`TOKENS_PER_CALL_MAX`] tokens of 1 KiB or an
/// inspection.
pub const ADMIN_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Life of a join token unless the operator says otherwise: long enough to start a machine.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest life of a join token: it is stored in files and pipelines.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * DAY);
/// Spent and expired tokens are remembered this long, so that a late use gets a precise refusal.
pub const TOKEN_MEMORY: Duration = Duration::from_secs(7 * DAY);
/// Secret bytes of a join token: no rate of guessing can find one.
pub const TOKEN_SECRET_BYTES: usize = 32;
/// Longest token text in bytes: eight long addresses and an identity fit.
pub const TOKEN_TEXT_MAX: usize = 8 * 1024;
/// Digits of a token's version that an error repeats: more are no version, and may be a secret.
pub const TOKEN_VERSION_DIGITS_MAX: usize = 4;
/// Tokens that one call creates: one transaction stays short.
pub const TOKENS_PER_CALL_MAX: u32 = 1000;
/// Tokens that the store holds, spent ones included; about 1 KiB each.
pub const TOKENS_MAX: u64 = 100_000;
/// Tokens, or keys, that are forgotten or marked in one commit, so that others wait for milliseconds and
/// little is in memory; old ones are forgotten every minute.
pub const CHANGED_AT_ONCE: usize = 10_000;
/// Addresses of one CA that a token carries.
pub const ADDRESSES_MAX: usize = 8;
/// Longest `HOST:PORT` in bytes (a DNS name has at most 253).
pub const ADDRESS_BYTES_MAX: usize = 260;

/// Entries of the issuance log, about 0.5 KiB each; the oldest go first, and the chain of hashes stays
/// checkable.
pub const LOG_ENTRIES_MAX: u64 = 1_000_000;
/// Longest text field of a log entry in bytes.
pub const LOG_FIELD_BYTES_MAX: usize = 512;
/// Entries that `inspect` shows.
pub const LOG_ENTRIES_SHOWN: usize = 20;
/// Refusals written to the log per minute; further ones are only counted, so that a stranger cannot push out
/// history.
pub const REFUSALS_LOGGED_PER_MINUTE: u32 = 60;
/// Of these, refusals of one source: the log has room for five others beside a source that tries bad tokens.
pub const REFUSALS_LOGGED_PER_SOURCE: u32 = 10;
/// Sources whose refusals are counted for that; about 64 B each.
pub const REFUSED_SOURCES_MAX: usize = 4096;

/// Certificates per second that one identity may obtain on average; its replicas share the figure.
pub const SIGNATURES_PER_SECOND: f64 = 10.0;
/// Certificates that one identity may obtain at once, for replicas that start together.
pub const SIGNATURES_BURST: f64 = 200.0;
/// Identities whose rate is remembered; about 200 B each.
pub const RATED_IDENTITIES_MAX: usize = 16_384;

/// Connections whose handshake is under way; each costs about 20 KiB. If a source opens 600 a second, each
/// still lasts for more than a second, which is enough for a handshake on a busy machine.
pub const HANDSHAKES: Bounds = Bounds {
    places: 1024,
    each: 768,
};
/// Connections after the handshake; each costs about 50 KiB. One holder has room for [`SIGNATURES_BURST`]
/// replicas that start together.
pub const CONNECTIONS: Bounds = Bounds {
    places: 512,
    each: 256,
};
/// Age at which a connection is asked to end: clients connect for one call.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);
/// Age at which it is closed, whatever its peer does: a call that began last has had its time.
pub const CONNECTION_LIFE_MAX: Duration = CONNECTION_AGE_MAX.saturating_add(CALL_TIMEOUT);
/// HTTP/2 pings, and how long their answer may take: a dead peer is noticed before [`CONNECTION_AGE_MAX`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Calls at once on one connection: clients make one.
pub const CALLS_PER_CONNECTION: usize = 4;
/// Bytes that a peer may send ahead on one connection: three of the largest messages.
pub const CONNECTION_WINDOW: u32 = 64 * 1024;
/// Signing calls at once, each of which waits for the store's disk, and how many of them one holder may have.
/// Further calls of one holder wait for each other.
pub const CALLS: Bounds = Bounds {
    places: 128,
    each: 32,
};
/// Connections of local commands at once: they are open for milliseconds, except for a backup.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// Time for one call of a local command: it may copy a whole store.
pub const ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest life of a local command's connection: some calls, one after the other.
pub const ADMIN_CONNECTION_LIFE_MAX: Duration = Duration::from_secs(300);
/// How long a local command waits for a store that another process holds: a server opens it a
/// moment before it listens on its socket, and other local commands hold it for milliseconds.
pub const STORE_WAIT: Duration = Duration::from_secs(3);
/// Pause between two attempts to open it.
pub const STORE_POLL: Duration = Duration::from_millis(50);
/// Time for one call, reading it included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that running calls get when the CA stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the CA forgets old tokens and keys and looks at its own certificates.
pub const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Time for a client to connect to one CA address, name resolution and handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a failed attempt to reach the CA, at most; each is at least half of its step.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause between attempts to reach the CA.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest pause while a process waits for its first identity: its start depends on it.
pub const JOIN_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The pause between attempts is at most this part of the SVID's life, so that short lives get several
/// attempts.
pub const BACKOFF_LIFE_DIVISOR: u32 = 20;
/// Part of an SVID's life after which it is renewed.
pub const RENEWAL_AT: f64 = 2.0 / 3.0;
/// Spread of [`RENEWAL_AT`], as a fraction of it: sidecars that started together must not renew together.
pub const RENEWAL_JITTER: f64 = 0.1;
/// Part of the life left at which failing to renew is an alarm.
pub const ALARM_AT: f64 = 1.0 / 3.0;
/// How often the wall clock is compared with the renewal's monotonic plan (suspended machines).
pub const WALL_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often saving a new identity is tried again if the state directory cannot be written: a few small
/// files.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// A renewal that the wall clock brings forward is spread over this time.
pub const WALL_CHECK_SPREAD: Duration = Duration::from_secs(60);

const DAY: u64 = 24 * 3600;

/// Pause after an accept that failed.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
