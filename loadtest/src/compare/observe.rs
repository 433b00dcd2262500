//! Turns one measurement of one variant into its figures. Pure. `summary.rs` combines several rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::kernel::{Cpu, Machine};
use super::{Direction, Measurement, Path, Role};
use crate::limits;
use crate::measurements::Measurements;

/// A quantity that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Requests, or connections, that succeeded per second.
    PerSecond,
    /// Decimal megabytes per second.
    Throughput,
    /// The median latency in microseconds, from when a request was due if it was due by the clock.
    P50,
    /// The 99th percentile.
    P99,
    /// The 99.9th percentile.
    P99_9,
    /// How much the median exceeds that of the direct connection in the same round, in microseconds.
    Added,
    /// CPU time: microseconds per request or connection, seconds per GiB of a bulk transfer.
    Cpu(Part),
    /// Resident memory of a fresh side, in MiB.
    Idle(Role),
    /// The memory that an idle connection adds, in KiB.
    PerConnection(Role),
}

/// The processes whose CPU time is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All processes of the pair.
    Pair,
    /// The caller's side in its programs.
    CallerUser,
    /// The caller's side in the kernel.
    CallerSystem,
    /// The server's side in its programs.
    ServerUser,
    /// The server's side in the kernel.
    ServerSystem,
    /// The whole machine, with the generator, the server and the kernel's work that belongs to no process.
    Machine,
    /// How much that exceeds the direct connection in the same round: the total cost of the pair.
    MachineAdded,
}

impl Figure {
    /// Its name in results.
    pub fn token(self) -> &'static str {
        match self {
            Self::PerSecond => "per_second",
            Self::Throughput => "mb_per_second",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P99_9 => "p99_9_us",
            Self::Added => "p50_added_us",
            Self::Cpu(Part::Pair) => "cpu",
            Self::Cpu(Part::CallerUser) => "cpu_caller_user",
            Self::Cpu(Part::CallerSystem) => "cpu_caller_system",
            Self::Cpu(Part::ServerUser) => "cpu_server_user",
            Self::Cpu(Part::ServerSystem) => "cpu_server_system",
            Self::Cpu(Part::Machine) => "cpu_machine",
            Self::Cpu(Part::MachineAdded) => "cpu_machine_added",
            Self::Idle(Role::Caller) => "rss_idle_caller_mib",
            Self::Idle(Role::Server) => "rss_idle_server_mib",
            Self::PerConnection(Role::Caller) => "rss_per_connection_caller_kib",
            Self::PerConnection(Role::Server) => "rss_per_connection_server_kib",
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::Throughput)
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.token())
    }
}

/// One measurement of one variant in one round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// From 0.
    pub round: u32,
    /// Its name.
    pub variant: String,
    /// The measurement.
    pub measurement: Measurement,
    /// The figures.
    pub figures: BTreeMap<Figure, f64>,
    /// Requests that were due, of which some may have failed.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The kind of failure that was most frequent, in the words of `weft load`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Percentiles with so few requests beyond them that another run may give quite another value.
    pub coarse: Vec<Figure>,
    /// Whether the generator was later than its measurements allow.
    pub generator_late: bool,
    /// Share of the machine's time that its host withheld during it.
    pub stolen: f64,
}

/// The resources used during it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// By the caller's side and the server's side, if there are proxies.
    pub pair: Option<[Cpu; 2]>,
    /// By all.
    pub machine: Machine,
}

/// The result of a load: `measured` is the time that counted.
pub fn loaded(
    measurement: Measurement,
    found: &Measurements,
    measured: Duration,
    spent: &Spent,
) -> BTreeMap<Figure, f64> {
    let counts = &found.counts;
    let mut figures = BTreeMap::new();
    let mut put = |figure, value: Option<f64>| {
        if let Some(value) = value {
            figures.insert(figure, value);
        }
    };
    let per_second =
        |amount: f64| (amount > 0.0).then(|| amount / measured.as_secs_f64().max(1e-9));
    let succeeded = counts.succeeded as f64;
    let bytes = match measurement {
        Measurement::Bulk(_, Direction::Down) => counts.bytes_in,
        Measurement::Bulk(_, Direction::Up) => counts.bytes_out,
        Measurement::Closed(_)
        | Measurement::Serial(_)
        | Measurement::Rate(..)
        | Measurement::Connect(_)
        | Measurement::Idle(_) => 0,
    };
    // An incomplete transfer does not count.
    let bytes = if counts.succeeded > 0 {
        bytes as f64
    } else {
        0.0
    };
    let percentile = |percent| {
        let found = found.latency.percentile(percent)?;
        Some(found.value.as_secs_f64() * 1e6)
    };
    // The unit by which CPU time is divided.
    let work = match measurement {
        Measurement::Closed(_) | Measurement::Connect(_) => {
            put(Figure::PerSecond, per_second(succeeded));
            succeeded / 1e6
        }
        Measurement::Serial(_) => {
            put(Figure::P50, percentile(50.0));
            put(Figure::P99, percentile(99.0));
            succeeded / 1e6
        }
        Measurement::Rate(..) => {
            put(Figure::P50, percentile(50.0));
            put(Figure::P99, percentile(99.0));
            put(Figure::P99_9, percentile(99.9));
            succeeded / 1e6
        }
        Measurement::Bulk(..) => {
            put(Figure::Throughput, per_second(bytes / 1e6));
            bytes / f64::from(1 << 30)
        }
        Measurement::Idle(_) => 0.0,
    };
    if work > 0.0 {
        let mut put = |part, seconds: f64| figures.insert(Figure::Cpu(part), seconds / work);
        if let Some([caller, server]) = spent.pair {
            put(Part::Pair, caller.total() + server.total());
            put(Part::CallerUser, caller.user);
            put(Part::CallerSystem, caller.system);
            put(Part::ServerUser, server.user);
            put(Part::ServerSystem, server.system);
        }
        put(Part::Machine, spent.machine.busy);
    }
    figures
}

/// The result of idle connections: resident bytes of the caller's side and the server's side, fresh and with
/// `connections` idle ones.
pub fn idle(fresh: [u64; 2], held: [u64; 2], connections: usize) -> BTreeMap<Figure, f64> {
    let mut figures = BTreeMap::new();
    for (index, role) in [Role::Caller, Role::Server].into_iter().enumerate() {
        figures.insert(Figure::Idle(role), fresh[index] as f64 / f64::from(1 << 20));
        let more = held[index] as f64 - fresh[index] as f64;
        let each = more / 1024.0 / connections.max(1) as f64;
        figures.insert(Figure::PerConnection(role), each);
    }
    figures
}

/// The percentiles with too few requests beyond them.
pub fn coarse(found: &Measurements) -> Vec<Figure> {
    let percentiles = [
        (50.0, Figure::P50),
        (99.0, Figure::P99),
        (99.9, Figure::P99_9),
    ];
    let coarse = percentiles.into_iter().filter(|(percent, _)| {
        let percentile = found.latency.percentile(*percent);
        percentile.is_some_and(|percentile| percentile.is_coarse())
    });
    coarse.map(|(_, figure)| figure).collect()
}

/// Whether the generator was later than its measurements allow, as `weft load` judges it.
pub fn generator_late(measurement: Measurement, found: &Measurements) -> bool {
    let at = |durations: &crate::histogram::Durations| {
        let found = durations.percentile(99.0);
        found.map_or(Duration::ZERO, |percentile| percentile.value)
    };
    let allowed = at(&found.latency).mul_f64(limits::LATENESS_SHARE_MAX);
    // Only requests that start by the clock can start late.
    let is_open = matches!(measurement, Measurement::Rate(..));
    is_open && at(&found.lateness) > allowed.max(limits::LATENESS_P99_MAX)
}

/// Adds the difference to the direct connection: only within one round, because both then ran at about the
/// same time.
pub fn compare_with_direct(observations: &mut [Observation]) {
    let differences = [
        (Figure::P50, Figure::Added),
        (Figure::Cpu(Part::Machine), Figure::Cpu(Part::MachineAdded)),
    ];
    let direct: BTreeMap<(u32, Measurement, Figure), f64> = observations
        .iter()
        .filter(|one| one.variant == super::DIRECT)
        .flat_map(|one| {
            let key = move |figure| (one.round, one.measurement, figure);
            one.figures
                .iter()
                .map(move |(figure, value)| (key(*figure), *value))
        })
        .collect();
    for one in observations
        .iter_mut()
        .filter(|one| one.variant != super::DIRECT)
    {
        for (of, difference) in differences {
            // With a fixed rate the percentiles are shown side by side; only with a serial load does one path
            // add to the other.
            if difference == Figure::Added && !matches!(one.measurement, Measurement::Serial(_)) {
                continue;
            }
            let base = direct.get(&(one.round, one.measurement, of));
            if let (Some(base), Some(own)) = (base, one.figures.get(&of)) {
                one.figures.insert(difference, own - base);
            }
        }
    }
}

impl Measurement {
    /// The figures that it has, in the order of the table.
    pub fn figures(self) -> Vec<Figure> {
        let cpu = [
            Part::Pair,
            Part::CallerUser,
            Part::CallerSystem,
            Part::ServerUser,
            Part::ServerSystem,
            Part::Machine,
            Part::MachineAdded,
        ];
        let first: &[Figure] = match self {
            Self::Closed(_) | Self::Connect(_) => &[Figure::PerSecond],
            Self::Serial(_) => &[Figure::P50, Figure::P99, Figure::Added],
            Self::Rate(..) => &[Figure::P50, Figure::P99, Figure::P99_9],
            Self::Bulk(..) => &[Figure::Throughput],
            Self::Idle(Path::Http | Path::Tcp) => {
                return vec![
                    Figure::Idle(Role::Caller),
                    Figure::Idle(Role::Server),
                    Figure::PerConnection(Role::Caller),
                    Figure::PerConnection(Role::Server),
                ];
            }
        };
        first.iter().copied().chain(cpu.map(Figure::Cpu)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::{near, observation};
    use crate::sample::{Outcome, Sample};

    fn thousand_requests() -> Measurements {
        let mut found = Measurements::new(Duration::ZERO);
        for index in 0..1000u64 {
            let at = Duration::from_millis(index);
            let mut sample = Sample::begin(at, at);
            sample.finished = at + Duration::from_micros(500);
            sample.outcome = Outcome::Success;
            sample.bytes_in = 1 << 20;
            found.record(&sample);
        }
        found
    }

    #[test]
    fn time_of_processors_is_shared_among_the_requests_that_succeeded() {
        let spent = Spent {
            pair: Some([
                Cpu {
                    user: 0.02,
                    system: 0.03,
                },
                Cpu {
                    user: 0.01,
                    system: 0.04,
                },
            ]),
            machine: Machine {
                busy: 0.4,
                ..Machine::default()
            },
        };
        let found = thousand_requests();
        let second = Duration::from_secs(1);
        let figures = loaded(Measurement::Closed(Path::Http), &found, second, &spent);
        assert!(near(figures[&Figure::PerSecond], 1000.0));
        assert!(near(figures[&Figure::Cpu(Part::Pair)], 100.0));
        assert!(near(figures[&Figure::Cpu(Part::ServerSystem)], 40.0));
        assert!(near(figures[&Figure::Cpu(Part::Machine)], 400.0));
        assert!(
            !figures.contains_key(&Figure::P50),
            "closed loops have no latency to read"
        );
        let bulk = Measurement::Bulk(Path::Tcp, Direction::Down);
        let figures = loaded(bulk, &found, second, &spent);
        assert!(near(figures[&Figure::Throughput], 1048.576));
        assert!(near(
            figures[&Figure::Cpu(Part::Pair)],
            0.1 * 1024.0 / 1000.0
        ));
    }

    #[test]
    fn a_percentile_with_fewer_than_ten_requests_beyond_it_is_coarse() {
        let mut found = Measurements::new(Duration::ZERO);
        for index in 0..5000u64 {
            let at = Duration::from_millis(index);
            let mut sample = Sample::begin(at, at);
            sample.finished = at + Duration::from_micros(index);
            sample.outcome = Outcome::Success;
            found.record(&sample);
        }
        assert_eq!(coarse(&found), [Figure::P99_9]);
    }

    #[test]
    fn nothing_measured_has_no_figures() {
        let nothing = Measurements::new(Duration::ZERO);
        for measurement in [
            Measurement::Closed(Path::Http),
            Measurement::Rate(Path::Tcp, 9),
        ] {
            let figures = loaded(measurement, &nothing, Duration::ZERO, &Spent::default());
            assert!(figures.is_empty(), "{figures:?}");
        }
    }

    #[test]
    fn every_figure_of_a_load_is_one_that_its_table_has() {
        let spent = Spent {
            pair: Some([Cpu::default(); 2]),
            ..Spent::default()
        };
        for measurement in Measurement::list(&super::super::Group::ALL, &[10]) {
            let found = loaded(
                measurement,
                &thousand_requests(),
                Duration::from_secs(1),
                &spent,
            );
            let listed = measurement.figures();
            assert!(
                found.keys().all(|figure| listed.contains(figure)),
                "{measurement}"
            );
        }
    }

    #[test]
    fn an_idle_connection_costs_what_the_side_grew_by() {
        let figures = idle([10 << 20, 20 << 20], [11 << 20, 20 << 20], 64);
        assert!(near(figures[&Figure::Idle(Role::Caller)], 10.0));
        assert!(near(figures[&Figure::PerConnection(Role::Caller)], 16.0));
        assert!(near(figures[&Figure::PerConnection(Role::Server)], 0.0));
    }

    #[test]
    fn what_a_pair_adds_is_the_difference_to_direct_of_the_same_round() {
        let serial = Measurement::Serial(Path::Http);
        let mut observations = vec![
            observation(0, "direct", serial, &[(Figure::P50, 100.0)]),
            observation(0, "weft", serial, &[(Figure::P50, 350.0)]),
            observation(1, "weft", serial, &[(Figure::P50, 400.0)]),
        ];
        compare_with_direct(&mut observations);
        assert!(near(observations[1].figures[&Figure::Added], 250.0));
        assert!(!observations[2].figures.contains_key(&Figure::Added));
        assert!(!observations[0].figures.contains_key(&Figure::Added));
    }
}
