//! The impairments of a link's direction: the validated values. Pure.
//!
//! `settings.rs` has the form in which people write them (`loss=5%`); `direction.rs` applies them to packets.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Trace;

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// Never.
    pub const NEVER: Self = Self(0.0);
    /// Always.
    pub const ALWAYS: Self = Self(1.0);

    /// From a share; `None` outside 0 to 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The share, 0 to 1.
    pub fn share(self) -> f64 {
        self.0
    }
}

/// All impairments of one direction of a link. The default is a perfect wire.
///
/// A packet meets the parts in the order of the fields, except that `black_hole` and `blackout` come first:
/// packets that vanish there take no bandwidth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// A bottleneck with a finite queue.
    pub rate: Option<Rate>,
    /// The size of the queue before the bottleneck; `None`: [`QUEUE_DEFAULT`](crate::limits::QUEUE_DEFAULT)
    /// at the rate in force. It has no meaning without `rate`.
    pub queue: Option<QueueLimit>,
    /// Bits per second of other packets before the bottleneck. It has no meaning without `rate`.
    pub cross: Option<u64>,
    /// Packets that are lost after the bottleneck.
    pub loss: Loss,
    /// Packets that arrive twice.
    pub duplicate: Probability,
    /// Time from the end of the transmission to the other end.
    pub delay: Duration,
    /// How `delay` varies.
    pub jitter: Option<Jitter>,
    /// Packets that are held back, so that later ones overtake them.
    pub reorder: Option<Reorder>,
    /// Packets whose payload is damaged.
    pub corrupt: Option<Corruption>,
    /// Bytes of an IP packet above which packets vanish, without an ICMP message.
    pub black_hole: Option<u16>,
    /// Nothing passes.
    pub blackout: bool,
    /// The packets to which `loss`, `duplicate`, `reorder`, `corrupt`, `black_hole` and `blackout` apply.
    /// Rate, delay and jitter are properties of the path and apply to all packets.
    pub only: Match,
}

/// The model of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// Nothing.
    #[default]
    None,
    /// Each packet on its own.
    Random(Probability),
    /// In bursts.
    Bursts(GilbertElliott),
}

/// A channel with a good and a bad state, which each packet may change (Gilbert 1960, Elliott 1963).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// From good to bad, per packet.
    pub to_bad: Probability,
    /// From bad to good, per packet: the mean length of a burst is its inverse.
    pub to_good: Probability,
    /// Loss while good.
    pub loss_good: Probability,
    /// Loss while bad.
    pub loss_bad: Probability,
}

impl GilbertElliott {
    /// The channel that loses `mean` of all packets in bursts of `length` packets on average.
    /// `None` if no channel does: a length below 1, or a mean of 1.
    pub fn of_bursts(mean: Probability, length: f64) -> Option<Self> {
        if !(length >= 1.0 && mean.share() < 1.0) {
            return None;
        }
        let to_good = 1.0 / length;
        Some(Self {
            to_bad: Probability::new(to_good * mean.share() / (1.0 - mean.share()))?,
            to_good: Probability::new(to_good)?,
            loss_good: Probability::NEVER,
            loss_bad: Probability::ALWAYS,
        })
    }
}

/// How the delay varies around its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Half the width (uniform), the standard deviation (normal), or the mean of the added time (Pareto).
    pub deviation: Duration,
    /// The shape.
    pub distribution: Distribution,
    /// How much a packet's jitter resembles that of the packet before (the lag-1 correlation of the
    /// normal variable behind it; the distribution itself stays as it is).
    pub correlation: Probability,
    /// Whether packets may overtake each other because of it.
    pub order: Order,
}

/// Shapes of jitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Between `delay - deviation` and `delay + deviation`.
    #[default]
    Uniform,
    /// Around `delay`, cut off below zero.
    Normal,
    /// `delay` and more: a long tail of shape 3, cut off at
    /// [`PARETO_CUTOFF`](crate::limits::PARETO_CUTOFF) times the deviation.
    Pareto,
}

/// Whether a varying delay may change the order of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// A packet waits for those before it, as in a queue.
    #[default]
    Keep,
    /// Packets overtake each other: the test then also covers reordering.
    Overtake,
}

/// Packets that are held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    /// How many.
    pub probability: Probability,
    /// How long, in addition to the delay.
    pub by: Duration,
}

/// Damage of the payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corruption {
    /// How many packets. Bits of one byte of the TCP or UDP payload are flipped.
    pub probability: Probability,
    /// Corrects the checksum afterwards, so that TLS and QUIC receive the damage; otherwise the receiving
    /// kernel drops the packet, and corruption is loss.
    pub fix_checksum: bool,
}

/// The speed of the bottleneck.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    /// Bits of IP packets per second, at least 1.
    Constant(u64),
    /// Changing with time.
    Trace(Arc<Trace>),
}

/// The size of the queue before the bottleneck; packets that come when it is full are dropped (drop-tail).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// Bytes of IP packets.
    Bytes(u64),
    /// Packets.
    Packets(u64),
}

/// A selection of packets by their headers. The default matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// UDP packets from or to this port.
    pub udp_port: Option<u16>,
    /// Bytes of the IP packet.
    pub length: RangeInclusive<u16>,
    /// Only the first packets up to this number, counted from the moment at which the impairment is set.
    pub first: Option<u64>,
}

impl Default for Match {
    fn default() -> Self {
        Self {
            udp_port: None,
            length: 0..=u16::MAX,
            first: None,
        }
    }
}
