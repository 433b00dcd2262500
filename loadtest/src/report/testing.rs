//! A run to show in tests: twenty seconds at 1000/s against a server that stalls in the ninth.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::measurements::Measurements;
use crate::result::{Ended, Machine, PlanSummary, RunResult, Stage, Target, ThresholdResult};
use crate::sample::{ErrorKind, Outcome, Sample};

/// Its measurements.
pub(crate) fn measurements() -> Measurements {
    let mut random = StdRng::seed_from_u64(7);
    let mut measurements = Measurements::new(Duration::ZERO);
    for index in 0..20_000u64 {
        let due = Duration::from_millis(index);
        let start = due + Duration::from_micros(random.random_range(5..60));
        let stumbles = (8_000..8_800).contains(&index);
        let below: f64 = random.random();
        let mut micros = 800.0 - 400.0 * (1.0 - below).ln();
        if stumbles {
            micros += (8_800 - index) as f64 * 50.0;
        }
        let outcome = match index {
            8_000..8_190 => Outcome::Failure(ErrorKind::Status(503)),
            8_190..8_200 => Outcome::Failure(ErrorKind::Deadline),
            _ => Outcome::Success,
        };
        let finished = start + Duration::from_micros(micros as u64);
        measurements.record(&Sample {
            connected: (index < 8).then(|| start + Duration::from_micros(70)),
            tls_done: (index < 8).then(|| start + Duration::from_micros(700)),
            handshakes: u32::from(index < 8),
            resumed: u32::from((4..8).contains(&index)),
            first_byte: Some(start + Duration::from_micros((micros * 0.9) as u64)),
            finished,
            outcome,
            bytes_in: 512,
            bytes_out: 96,
            reused: index >= 8,
            ..Sample::begin(due, start)
        });
    }
    measurements
}

/// Its result.
pub(crate) fn run() -> RunResult {
    let plan = PlanSummary {
        protocol: "http1".into(),
        targets: vec![Target {
            url: "http://127.0.0.1:8080/".into(),
            weight: 1.0,
        }],
        method: Some("GET".into()),
        arrivals: Some("constant".into()),
        stages: vec![Stage {
            from: 1000.0,
            to: 1000.0,
            seconds: 20.0,
        }],
        duration_s: Some(20.0),
        max_in_flight: Some(10_000),
        keep_alive: true,
        threads: 1,
        ..PlanSummary::default()
    };
    let machine = Machine {
        weft: "0.1.0".into(),
        kernel: "Linux 6.1".into(),
        cpu: "Example CPU".into(),
        cores: 2,
        memory_bytes: 8 << 30,
    };
    let mut result = RunResult::new(
        &measurements(),
        Duration::from_secs(20),
        Ended::Completed,
        1_700_000_000_000,
        plan,
        machine,
    );
    result.thresholds.push(ThresholdResult {
        condition: "p99>50ms".into(),
        measured: Some("31.0 ms".into()),
        failed: false,
        coarse: false,
    });
    result
}
