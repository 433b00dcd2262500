//! What the transport knows of a peer, as plain numbers.

use std::net::SocketAddr;

use serde::Serialize;

use super::{State, Target};

/// One peer of one worker.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it is expected to be.
    pub identity: String,
    /// `ready`, `dialling` or `failed`.
    pub state: &'static str,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Numbers of the connection in use.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionStatus>,
}

/// Counters and gauges of one QUIC connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Smoothed round-trip time, in seconds.
    pub rtt_seconds: f64,
    /// Congestion window, in bytes.
    pub congestion_window_bytes: u64,
    /// UDP payload in use, in bytes.
    pub mtu_bytes: u16,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// QUIC packets declared lost.
    pub lost_packets: u64,
    /// Congestion events.
    pub congestion_events: u64,
    /// UDP bytes sent.
    pub sent_bytes: u64,
    /// UDP bytes received.
    pub received_bytes: u64,
    /// Streams open.
    pub streams: u32,
    /// Streams given up because their readers stood still while others had to wait.
    pub given_up_streams: u64,
}

pub(super) fn status(target: &Target, state: &State) -> PeerStatus {
    let (name, error, connection) = match state {
        State::Dialling => ("dialling", None, None),
        State::Failed(error) => ("failed", Some(error.to_string()), None),
        State::Ready(connection) => ("ready", None, Some(connection.status())),
    };
    PeerStatus {
        address: target.address,
        identity: target.identity.to_string(),
        state: name,
        error,
        connection,
    }
}

/// Reads the numbers of a connection.
pub(crate) fn connection_status(
    connection: &quinn::Connection,
    streams: u32,
    given_up_streams: u64,
) -> ConnectionStatus {
    let stats = connection.stats();
    ConnectionStatus {
        rtt_seconds: stats.path.rtt.as_secs_f64(),
        congestion_window_bytes: stats.path.cwnd,
        mtu_bytes: stats.path.current_mtu,
        sent_packets: stats.path.sent_packets,
        lost_packets: stats.path.lost_packets,
        congestion_events: stats.path.congestion_events,
        sent_bytes: stats.udp_tx.bytes,
        received_bytes: stats.udp_rx.bytes,
        streams,
        given_up_streams,
    }
}
