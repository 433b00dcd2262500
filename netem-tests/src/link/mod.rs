//! The fate of a packet on a link: packets, time and a seed in, packets out. Pure.
//!
//! [`Direction`] is one direction of a link: feed it with [`Direction::push`], take from it with
//! [`Direction::poll`] until it returns `None`, and come back at [`Direction::next_due`]. It never reads a
//! clock, so a test under a simulated clock and the emulator with its threads run the same code.
//!
//! A packet meets, in this order: black hole and blackout, the bottleneck and its queue, loss, duplication,
//! delay with jitter and reordering, corruption. NAT comes before all of it, in both directions.
//!
//! - `impairment.rs`: the settings as values; `settings.rs` and `show.rs`: the form in which people write and
//!   read them.
//! - `direction.rs`: the order above; `bottleneck.rs`, `fate.rs`, `jitter.rs`: its parts; `trace.rs`: rates
//!   that change with time.
//! - `packet.rs`: what a packet must offer; `ip.rs`: IP packets; `nat.rs`: address translation.

mod bottleneck;
mod counters;
mod cross;
mod direction;
mod fate;
mod impairment;
mod ip;
mod jitter;
mod nat;
mod packet;
mod settings;
mod show;
mod trace;

pub use counters::Counters;
pub use direction::{Departure, Direction};
pub use impairment::{
    Corruption, Distribution, GilbertElliott, Impairment, Jitter, Loss, Match, Order, Probability,
    QueueLimit, Rate, Reorder,
};
pub use ip::IpPacket;
pub use nat::{NatTable, Translated};
pub use packet::Packet;
pub use settings::{SettingError, parse_duration, parse_probability, parse_rate};
pub use trace::{Step, Trace, TraceError};

/// One of the two ends of a link, in the order in which the topology names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The end named first.
    First,
    /// The end named second.
    Second,
}

impl End {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// The seed that makes a run repeatable: each random choice is a function of the seed, the link, the
/// direction, the packet's number and the purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of one direction of the link `name`: packets that enter at `from`.
    pub fn of(self, name: &str, from: End) -> Self {
        // FNV-1a: stable across versions and machines, unlike the standard library's hasher.
        let hash = name
            .bytes()
            .chain([b'/', b'0' + from.index() as u8])
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(self.0 ^ hash)
    }
}
