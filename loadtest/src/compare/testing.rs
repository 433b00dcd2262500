//! Comparisons that tests look at.

use std::time::Duration;

use super::document::{Comparison, Conditions, Facts, Variant};
use super::observe::{Figure, Observation, Part};
use super::{Measurement, Path};

/// Equal but for rounding.
pub(crate) fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * other.abs().max(1.0)
}

/// An observation with these figures and without failures.
pub(crate) fn observation(
    round: u32,
    variant: &str,
    measurement: Measurement,
    figures: &[(Figure, f64)],
) -> Observation {
    Observation {
        round,
        variant: variant.to_owned(),
        measurement,
        figures: figures.iter().copied().collect(),
        requests: 1000,
        failed: 0,
        failure: None,
        coarse: Vec::new(),
        generator_late: false,
        stolen: 0.0,
    }
}

/// Three rounds of a closed loop: one proxy costs twice what weft costs, another the same.
pub(crate) fn comparison() -> Comparison {
    let closed = Measurement::Closed(Path::Http);
    let mut observations = Vec::new();
    for round in 0..3 {
        let slow = 1.0 + f64::from(round) / 10.0;
        for (variant, rate, cpu) in [
            ("direct", 40_000.0, None),
            ("weft", 10_000.0, Some(50.0)),
            ("weft again", 9_800.0, Some(51.0)),
            ("<twice>", 5_000.0, Some(100.0)),
            ("same", 10_050.0, Some(50.2)),
        ] {
            let mut figures = vec![(Figure::PerSecond, rate / slow)];
            figures.extend(cpu.map(|cpu| (Figure::Cpu(Part::Pair), cpu * slow)));
            observations.push(observation(round, variant, closed, &figures));
        }
    }
    Comparison::new(facts(), observations)
}

pub(crate) fn facts() -> Facts {
    let variant = |name: &str, version: &str| Variant {
        name: name.to_owned(),
        version: version.to_owned(),
        command: None,
    };
    Facts {
        command: "weft load compare <twice> same".to_owned(),
        started_unix_ms: 1_763_900_000_000,
        wire: "two network namespaces, veth of MTU 1500".to_owned(),
        machine: crate::result::Machine::default(),
        conditions: Conditions {
            rounds: 3,
            duration_s: Duration::from_secs(3).as_secs_f64(),
            warm_up_s: 0.5,
            connections: 64,
            rates: vec![1000],
            bulk_bytes: 1 << 28,
            idle_connections: 1000,
            body_bytes: 55,
            workers: 1,
            generator_threads: 1,
            mtu: Some(1500),
        },
        variants: vec![
            variant("direct", "no proxy"),
            variant("weft", "0.1.0"),
            variant("<twice>", "1.0"),
            variant("same", "1.0"),
        ],
        load_average: [0.5, 1.5],
        debug_build: false,
    }
}
