//! The figures of one connection, as operators see them. Not here: the state of a peer without a connection
//! ([`crate::pool`]).

use serde::Serialize;

/// Counters and gauges of one connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Smoothed round-trip time, in seconds.
    pub rtt_seconds: f64,
    /// Congestion window, in bytes.
    pub congestion_window_bytes: u64,
    /// UDP payload in use, in bytes.
    pub mtu_bytes: u16,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets declared lost.
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
