//! The settings of the QUIC transport: ranges, units, defaults and their reasons.
//!
//! [`TransportSettings`] are the values of a file; [`Tuning`] holds those that passed the range checks.
//! [`crate::endpoint`] turns a `Tuning` into quinn's configuration. Streams and the connection window grow
//! with use, see [`crate::stream_limit`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The `transport` block of a sidecar's settings. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportSettings {
    /// Congestion controller. Default `tolerant`: as fair to its neighbours as Cubic where a queue shows
    /// that a path is full, and not slowed by loss that comes without one.
    pub congestion: Congestion,
    /// Key exchange. Default `prefer`: X25519MLKEM768 first, X25519 with peers that lack it.
    pub post_quantum: PostQuantum,
    /// A ping goes out when nothing was received for this long. Default 10s (100ms to 60s): twice
    /// within the shortest UDP timeouts of NATs, which are about 30 s (RFC 9308 section 3.2).
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// A connection without any packet for this long is closed. Default 60s (1s to 10m, at least
    /// three times `keep_alive`): networks heal after 30 to 50 s, and streams should outlive that.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// Time for a mesh handshake. Default 3s (100ms to 30s): three losses on a 100 ms path.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// A connection that carried no stream for this long is closed. Default 10m (1s to 24h).
    #[serde(with = "units::duration")]
    pub unused_timeout: Duration,
    /// Round-trip time assumed before the first measurement. Default 333ms (1ms to 5s), of
    /// RFC 9002 section 6.2.2.
    #[serde(with = "units::duration")]
    pub initial_rtt: Duration,
    /// Concurrent requests and tunnels that a fresh connection allows its peer. Default 256 (1 to
    /// 16384): quinn keeps state for every allowed stream.
    pub streams: u32,
    /// The bound to which `streams` is raised while at least half are in use. Default 16384.
    pub streams_max: u32,
    /// Unidirectional streams that a peer may open. Default 4 (3 to 16): control, two of QPACK
    /// and one of an unknown type (RFC 9114 section 6.2).
    pub uni_streams: u32,
    /// Bytes that a peer may send on one stream ahead of the application. Default 2MiB (64KiB to
    /// 64MiB): 100 MB/s at 20 ms; a stopped reader holds no more than this.
    #[serde(with = "units::bytes")]
    pub stream_window: u64,
    /// Bytes ahead over all streams of a fresh connection. Default 16MiB (1MiB to 1GiB, at least
    /// two stream windows).
    #[serde(with = "units::bytes")]
    pub connection_window: u64,
    /// The bound to which `connection_window` grows with the number of open streams, so that
    /// stopped readers leave room for the others. Default 256MiB (at most 4GiB).
    #[serde(with = "units::bytes")]
    pub connection_window_max: u64,
    /// Bytes sent and not yet acknowledged, per connection. Default 16MiB (256KiB to 1GiB). A connection gets
    /// them as far as its peer acknowledges, those of one identity four times as much, all of a worker 32
    /// times.
    #[serde(with = "units::bytes")]
    pub send_window: u64,
    /// Largest UDP payload: what discovery searches up to and what is accepted. Default 6500 bytes
    /// (1200 to 6500): ten segments of more than 6550 exceed what one GSO send may carry.
    pub mtu_max: u16,
    /// UDP payload assumed before discovery. Default 1200 bytes (1200 to `mtu_max`), which every
    /// QUIC path carries (RFC 9000 section 14).
    pub mtu_initial: u16,
    /// Kernel buffers of each UDP socket, each direction. Default 4MiB (64KiB to 64MiB): bursts of
    /// a full window arrive faster than a busy core reads. The kernel may clamp it; `weft check`
    /// says so.
    #[serde(with = "units::bytes")]
    pub udp_buffer: u64,
    /// Generic segmentation offload: many packets in one system call. Default true; a sender
    /// without it takes about three times the CPU at MTU 1500.
    pub gso: bool,
    /// Ask the peer to acknowledge only every n-th packet. Default 0: the peer's own habit
    /// (0, or 2 to 100). About 20 helps bulk over MTU 1500.
    pub ack_frequency: u32,
    /// Follow a peer whose address changes. Default true (RFC 9000 section 9).
    pub migration: bool,
    /// An existing directory for a line about each packet (qlog), at most 16 MiB for each worker and
    /// side. Default none: it is for finding faults and costs more than the packet itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qlog_dir: Option<PathBuf>,
}

/// Congestion controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Cubic that lets up to 2 % of random loss pass, see [`crate::congestion`].
    Tolerant,
    /// RFC 9438.
    Cubic,
    /// BBR version 1.
    Bbr,
    /// RFC 9002 section 7.
    Newreno,
}

/// Hybrid key exchange X25519MLKEM768.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostQuantum {
    /// Offered first.
    Prefer,
    /// Nothing else is accepted.
    Require,
    /// Not offered.
    Off,
}

/// Transport settings whose ranges were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning(TransportSettings);

/// A transport setting out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transport.{field}: {value} is out of range; write {range}")]
pub struct TuningError {
    /// The setting.
    pub field: &'static str,
    /// The value that was written.
    pub value: String,
    /// The values that may be written.
    pub range: String,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            congestion: Congestion::Tolerant,
            post_quantum: PostQuantum::Prefer,
            keep_alive: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(3),
            unused_timeout: Duration::from_mins(10),
            initial_rtt: Duration::from_millis(333),
            streams: 256,
            streams_max: 16_384,
            uni_streams: 4,
            stream_window: 2 * MIB,
            connection_window: 16 * MIB,
            connection_window_max: 256 * MIB,
            send_window: 16 * MIB,
            mtu_max: 6500,
            mtu_initial: 1200,
            udp_buffer: 4 * MIB,
            gso: true,
            ack_frequency: 0,
            migration: true,
            qlog_dir: None,
        }
    }
}

impl TransportSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that is out of its range, with the range.
    pub fn validate(self) -> Result<Tuning, TuningError> {
        use Duration as D;

        span(
            "keep_alive",
            self.keep_alive,
            D::from_millis(100),
            D::from_secs(60),
        )?;
        span(
            "idle_timeout",
            self.idle_timeout,
            D::from_secs(1),
            D::from_mins(10),
        )?;
        if self.idle_timeout < 3 * self.keep_alive {
            return Err(TuningError {
                field: "idle_timeout",
                value: units::format_duration(self.idle_timeout),
                range: format!(
                    "at least three times keep_alive, {}",
                    units::format_duration(3 * self.keep_alive)
                ),
            });
        }
        span(
            "handshake_timeout",
            self.handshake_timeout,
            D::from_millis(100),
            D::from_secs(30),
        )?;
        span(
            "unused_timeout",
            self.unused_timeout,
            D::from_secs(1),
            D::from_hours(24),
        )?;
        span(
            "initial_rtt",
            self.initial_rtt,
            D::from_millis(1),
            D::from_secs(5),
        )?;
        number("streams", self.streams, 1, 16_384)?;
        number("streams_max", self.streams_max, self.streams, 16_384)?;
        number("uni_streams", self.uni_streams, 3, 16)?;
        size("stream_window", self.stream_window, 64 * KIB, 64 * MIB)?;
        let two_streams = (2 * self.stream_window).max(MIB);
        size(
            "connection_window",
            self.connection_window,
            two_streams,
            1024 * MIB,
        )?;
        size(
            "connection_window_max",
            self.connection_window_max,
            self.connection_window,
            4096 * MIB,
        )?;
        size("send_window", self.send_window, 256 * KIB, 1024 * MIB)?;
        number("mtu_max", self.mtu_max.into(), 1200, 6500)?;
        number(
            "mtu_initial",
            self.mtu_initial.into(),
            1200,
            self.mtu_max.into(),
        )?;
        size("udp_buffer", self.udp_buffer, 64 * KIB, 64 * MIB)?;
        if self.ack_frequency != 0 {
            number("ack_frequency", self.ack_frequency, 2, 100)?;
        }
        Ok(Tuning(self))
    }
}

impl Tuning {
    /// The checked settings.
    pub fn settings(&self) -> &TransportSettings {
        &self.0
    }
}

fn span(
    field: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), TuningError> {
    let text = units::format_duration;
    within(field, value, min, max, text)
}

fn size(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), TuningError> {
    within(field, value, min, max, units::format_bytes)
}

fn number(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), TuningError> {
    within(field, value, min, max, |number| number.to_string())
}

fn within<T: PartialOrd>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
    text: impl Fn(T) -> String,
) -> Result<(), TuningError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(TuningError {
        field,
        value: text(value),
        range: format!("{} to {}", text(min), text(max)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert!(TransportSettings::default().validate().is_ok());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let settings = TransportSettings {
            keep_alive: Duration::from_millis(1),
            ..TransportSettings::default()
        };
        assert_eq!(
            settings.validate().unwrap_err().to_string(),
            "transport.keep_alive: 1ms is out of range; write 100ms to 1m"
        );
    }

    #[test]
    fn an_idle_timeout_that_pings_cannot_hold_up_is_refused() {
        let settings = TransportSettings {
            keep_alive: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            ..TransportSettings::default()
        };
        assert_eq!(
            settings.validate().unwrap_err().to_string(),
            "transport.idle_timeout: 20s is out of range; write at least three times keep_alive, 30s"
        );
    }

    #[test]
    fn a_connection_window_below_two_streams_would_let_one_stall_all() {
        let settings = TransportSettings {
            stream_window: 16 * MIB,
            connection_window: 16 * MIB,
            ..TransportSettings::default()
        };
        assert_eq!(settings.validate().unwrap_err().field, "connection_window");
    }
}
