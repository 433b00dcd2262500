//! The throughput of congestion controllers on links of the model. Deterministic except for the keys of TLS,
//! which do not change a packet's length.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic is how a failure is told"
)]

mod simulation;

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, CubicConfig};
use simulation::{Controller, rates};
use weft_netem_tests::link::Impairment;
use weft_transport::congestion::TolerantConfig;

const LASTS: Duration = Duration::from_secs(30);

fn tolerant() -> Controller {
    Arc::new(TolerantConfig::default())
}

fn cubic() -> Controller {
    Arc::new(CubicConfig::default())
}

fn bbr() -> Controller {
    Arc::new(BbrConfig::default())
}

/// A link as a scenario writes it.
fn link(settings: &[(&str, &str)]) -> Impairment {
    let mut impairment = Impairment::default();
    for (key, value) in settings {
        impairment.set(key, value).unwrap();
    }
    impairment
}

/// The throughput of one flow alone over a path of 100 Mbit/s and 40 ms with this loss, in MB/s.
fn alone(controller: Controller, loss: &str) -> f64 {
    let wan = link(&[
        ("delay", "20ms"),
        ("loss", loss),
        ("rate", "100mbit"),
        ("queue", "500kB"),
    ]);
    rates(&wan, &[controller], LASTS)[0] / 1e6
}

/// The throughput of two flows over one bottleneck of 20 Mbit/s and 40 ms with this queue, in MB/s.
fn together(flows: [Controller; 2], queue: &str) -> [f64; 2] {
    let wan = link(&[("delay", "20ms"), ("rate", "20mbit"), ("queue", queue)]);
    let found = rates(&wan, &flows, LASTS);
    [found[0] / 1e6, found[1] / 1e6]
}

#[test]
fn loss_by_chance_does_not_slow_the_tolerant() {
    let whole = alone(tolerant(), "0%");
    for (loss, share) in [("0.1%", 0.9), ("1%", 0.9), ("2%", 0.5)] {
        let (found, plain) = (alone(tolerant(), loss), alone(cubic(), loss));
        println!(
            "loss {loss}: tolerant {found:.2} MB/s, cubic {plain:.2} MB/s, without loss {whole:.2} MB/s"
        );
        assert!(found >= share * whole, "{loss}: {found} of {whole} MB/s");
        assert!(
            plain <= 0.15 * whole,
            "{loss}: there is nothing to tolerate, {plain} MB/s"
        );
    }
}

#[test]
fn loss_beyond_chance_slows_the_tolerant() {
    let (found, whole) = (alone(tolerant(), "10%"), alone(tolerant(), "0%"));
    assert!(found <= 0.1 * whole, "{found} of {whole} MB/s");
}

#[test]
fn where_a_queue_shows_the_tolerant_shares_like_cubic() {
    // From an eighth of the round trip of the path (12 kB) to more than all of it.
    for queue in ["25kB", "50kB", "100kB", "400kB"] {
        let [own, neighbour] = together([tolerant(), cubic()], queue);
        let [first, second] = together([cubic(), cubic()], queue);
        println!(
            "queue {queue}: tolerant {own:.2} beside cubic {neighbour:.2} MB/s; \
             cubic {first:.2} beside cubic {second:.2} MB/s"
        );
        assert!(
            own <= 2.5 * neighbour,
            "{queue}: {own} beside {neighbour} MB/s"
        );
    }
}

#[test]
fn where_no_queue_shows_its_neighbour_is_not_starved() {
    for queue in ["5kB", "12kB"] {
        let [own, neighbour] = together([tolerant(), cubic()], queue);
        let [greedy, starved] = together([bbr(), cubic()], queue);
        println!(
            "queue {queue}: tolerant {own:.2} beside cubic {neighbour:.2} MB/s; \
             bbr {greedy:.2} beside cubic {starved:.2} MB/s"
        );
        assert!(
            own <= 6.0 * neighbour,
            "{queue}: {own} beside {neighbour} MB/s"
        );
    }
}

#[test]
fn two_of_the_tolerant_share_the_link() {
    for queue in ["5kB", "25kB", "100kB", "400kB"] {
        let [first, second] = together([tolerant(), tolerant()], queue);
        let (less, more) = (first.min(second), first.max(second));
        println!("queue {queue}: {less:.2} and {more:.2} MB/s");
        assert!(more <= 2.5 * less, "{queue}: {first} and {second} MB/s");
        let plain: f64 = together([cubic(), cubic()], queue).iter().sum();
        assert!(
            first + second >= 0.95 * plain,
            "{queue}: {first} and {second} MB/s, two of cubic {plain} MB/s"
        );
    }
}
