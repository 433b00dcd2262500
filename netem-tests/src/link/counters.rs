//! The counts of one direction's packets. Pure.

use serde::{Deserialize, Serialize};

/// Counts of packets since the direction began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Came in.
    pub received: u64,
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Went out, copies included.
    pub delivered: u64,
    /// Bytes that went out.
    pub delivered_bytes: u64,
    /// Lost by `loss`.
    pub lost: u64,
    /// Dropped because the bottleneck's queue was full.
    pub queue_full: u64,
    /// Dropped by `black_hole`.
    pub too_long: u64,
    /// Dropped by `blackout`.
    pub blacked_out: u64,
    /// Dropped by NAT: no mapping, or none left.
    pub unmapped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Held back by `reorder`.
    pub held_back: u64,
    /// Damaged by `corrupt`.
    pub corrupted: u64,
    /// Dropped because the model had no room for more packets in flight: no impairment asked for that, so the
    /// run is invalid.
    pub overflowed: u64,
}
