//! Cubic (RFC 9438) that tells loss by chance from loss by congestion.
//!
//! Cubic takes each loss for a full queue. So over a path that loses one packet in a hundred it sends a dozen
//! packets per round trip, however fast the path is, and all streams of the connection share those. But a
//! full queue can be measured: packets that waited in it were slow. [`Tolerant`] is Cubic, except that it
//! ignores a loss if both are true of the last two round trips:
//!
//! - at least one packet took at most an eighth longer than the fastest recent one, so there was no queue
//!   (the threshold of HyStart++, RFC 9406 section 4.2, without its bounds: below 8 ms jitter decides, which
//!   leaves plain Cubic);
//! - the losses are no more than a path with 2 % random loss causes (the bound up to which BBR version 3
//!   tolerates loss, draft-ietf-ccwg-bbr), with three standard deviations for small numbers. A bottleneck
//!   whose queue is too short to measure loses more when it overflows.
//!
//! Persistent congestion and ECN marks are never ignored. The first window has 32 packets. [`Round`] makes
//! the decision, without IO.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// The share of packets whose loss counts as chance.
const LOSS_BY_CHANCE: f64 = 0.02;

/// How far above its mean the number of losses may be, in standard deviations: on a path that loses exactly
/// [`LOSS_BY_CHANCE`], one round in a thousand is above it.
const DEVIATIONS: f64 = 3.0;

/// A packet that took longer than the fastest by this fraction waited in a queue.
const QUEUE_SHARE: u32 = 8;

/// The fastest packet is remembered for at least this long, and at most twice as long; after that, a path
/// that became longer no longer looks like one with a queue. BBR's filter has the same length
/// (draft-ietf-ccwg-bbr).
const FASTEST_KEPT: Duration = Duration::from_secs(10);

/// Bytes in flight before the first acknowledgement: 32 packets, three times what RFC 9002 section 7.2
/// recommends and the value of QUICHE, hence Envoy. One connection carries the requests of a whole
/// application, and packets are paced. With a smaller window, unanswered requests fill it within a second,
/// and then no packet probes whether the path has recovered.
const INITIAL_WINDOW: u64 = 32 * 1200;

/// Makes [`Tolerant`] controllers.
#[derive(Clone, Debug)]
pub struct TolerantConfig(Arc<CubicConfig>);

impl Default for TolerantConfig {
    fn default() -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(INITIAL_WINDOW);
        Self(Arc::new(cubic))
    }
}

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant {
            cubic: Cubic::new(Arc::clone(&self.0), now, current_mtu),
            mtu: current_mtu,
            fastest: Fastest::new(now),
            began: now,
            round: Round::default(),
            before: Round::default(),
        })
    }
}

/// The controller of one path.
#[derive(Clone, Debug)]
pub(crate) struct Tolerant {
    cubic: Cubic,
    mtu: u16,
    fastest: Fastest,
    /// When the present round began; it ends when a packet sent since then is acknowledged.
    began: Instant,
    round: Round,
    before: Round,
}

/// The shortest recent round trip.
#[derive(Clone, Copy, Debug)]
struct Fastest {
    began: Instant,
    shortest: Option<Duration>,
    before: Option<Duration>,
}

impl Fastest {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            shortest: None,
            before: None,
        }
    }

    fn acknowledge(&mut self, now: Instant, took: Duration) {
        if now.saturating_duration_since(self.began) >= FASTEST_KEPT {
            (self.before, self.shortest, self.began) = (self.shortest, None, now);
        }
        self.shortest = shorter(self.shortest, Some(took));
    }

    fn get(self) -> Option<Duration> {
        shorter(self.shortest, self.before)
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The packets of one round trip, by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    acknowledged: u64,
    lost: u64,
    shortest: Option<Duration>,
}

impl Round {
    fn acknowledge(&mut self, bytes: u64, took: Duration) {
        self.acknowledged += bytes;
        self.shortest = shorter(self.shortest, Some(took));
    }

    fn with(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            lost: self.lost + other.lost,
            shortest: shorter(self.shortest, other.shortest),
        }
    }

    /// Whether its losses look like losses by chance.
    fn lost_by_chance(self, fastest: Duration, mtu: u16) -> bool {
        let no_queue = self
            .shortest
            .is_some_and(|shortest| shortest <= fastest + fastest / QUEUE_SHARE);
        let mtu = f64::from(mtu);
        let [sent, lost] =
            [self.acknowledged + self.lost, self.lost].map(|bytes| bytes as f64 / mtu);
        let mean = sent * LOSS_BY_CHANCE;
        no_queue && lost <= mean + DEVIATIONS * mean.sqrt()
    }
}

impl Controller for Tolerant {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        if sent >= self.began {
            self.before = std::mem::take(&mut self.round);
            self.began = now;
        }
        let took = now.saturating_duration_since(sent);
        self.round.acknowledge(bytes, took);
        self.fastest.acknowledge(now, took);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.round.lost += lost_bytes;
        let marked = lost_bytes == 0;
        let by_chance = self.fastest.get().is_some_and(|fastest| {
            self.round
                .with(self.before)
                .lost_by_chance(fastest, self.mtu)
        });
        if marked || is_persistent_congestion || !by_chance {
            // Cubic answers a burst once; the burst's losses do not count in the rounds after it.
            (self.round, self.before, self.began) = (Round::default(), Round::default(), now);
            self.cubic
                .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1000;
    const FASTEST: Duration = Duration::from_millis(40);

    fn round(packets: u64, lost: u64, shortest: u64) -> Round {
        Round {
            acknowledged: (packets - lost) * u64::from(MTU),
            lost: lost * u64::from(MTU),
            shortest: Some(Duration::from_millis(shortest)),
        }
    }

    #[test]
    fn losses_within_chance_pass_and_one_more_does_not() {
        // Mean and three deviations: 0.1 + 0.9, 2 + 4.2, 20 + 13.4.
        for (packets, most) in [(5, 1), (100, 6), (1000, 33)] {
            assert!(round(packets, most, 40).lost_by_chance(FASTEST, MTU));
            assert!(!round(packets, most + 1, 40).lost_by_chance(FASTEST, MTU));
        }
    }

    #[test]
    fn a_standing_queue_makes_any_loss_count() {
        assert!(round(100, 1, 45).lost_by_chance(FASTEST, MTU));
        assert!(!round(100, 1, 46).lost_by_chance(FASTEST, MTU));
    }

    #[test]
    fn without_an_acknowledgement_nothing_is_known() {
        let lost = Round {
            lost: MTU.into(),
            ..Round::default()
        };
        assert!(!lost.lost_by_chance(FASTEST, MTU));
    }

    #[test]
    fn a_path_that_became_longer_is_accepted_after_a_while() {
        let start = Instant::now();
        let mut fastest = Fastest::new(start);
        fastest.acknowledge(start, FASTEST);
        let longer = 3 * FASTEST;
        for seconds in 1..20 {
            fastest.acknowledge(start + Duration::from_secs(seconds), longer);
            assert_eq!(fastest.get(), Some(FASTEST), "{seconds}");
        }
        fastest.acknowledge(start + Duration::from_secs(20), longer);
        assert_eq!(fastest.get(), Some(longer));
    }

    #[test]
    fn two_rounds_count_together() {
        let both = round(10, 1, 50).with(round(20, 1, 41));
        assert_eq!(both, round(30, 2, 41));
    }
}
