//! One measurement of one variant: runs the load and reads the resources that it used.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_loadtest::compare::answer::{Answer, Process};
use weft_loadtest::compare::kernel::{self, Cpu, Machine, Unused};
use weft_loadtest::compare::load::Loads;
use weft_loadtest::compare::observe::{self, Figure, Observation, Spent};
use weft_loadtest::compare::{Measurement, Role};
use weft_loadtest::engine::Run;

use super::call::HeldConnections;
use crate::failure::{Code, Failure};

/// How often the run is checked; CPU times are read this close to its beginning and end.
const TICK: Duration = Duration::from_millis(5);
/// After this time a fresh or idle pair is at rest: connections are set up, buffers that shrink have shrunk,
/// and allocators that delay returning memory have returned it.
const SETTLE: Duration = Duration::from_secs(10);

/// The processes that a measurement covers.
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where to send the load.
    pub address: SocketAddr,
    /// The proxies; none for direct.
    pub processes: &'a [Process],
}

impl<'a> Subject<'a> {
    /// A pair, if it can carry this.
    pub fn of(name: &'a str, answer: &'a Answer, measurement: Measurement) -> Option<Self> {
        Some(Self {
            name,
            address: answer.address(measurement.path())?,
            processes: &answer.processes,
        })
    }
}

/// Runs the load of `measurement`.
pub async fn load(
    round: u32,
    measurement: Measurement,
    subject: &Subject<'_>,
    loads: &Loads,
) -> Result<Observation, Failure> {
    let failed = |line: String| Failure::new(Code::Failed, format!("{}: {line}", subject.name));
    let plan = loads.plan(measurement, subject.address).map_err(failed)?;
    let Some(plan) = plan else {
        return Err(failed(format!("{measurement} is no load")));
    };
    let plan = Arc::new(plan);
    let mut begin = Meter::read(subject.processes)?;
    let run = Run::start(&plan, vec![subject.address]);
    let run = run.map_err(|error| failed(error.to_string()))?;
    let mut is_warm = plan.warm_up.is_zero();
    while !run.is_finished() {
        tokio::time::sleep(TICK).await;
        if !is_warm && run.elapsed() >= plan.warm_up {
            is_warm = true;
            begin = Meter::read(subject.processes)?;
        }
    }
    let spent = Meter::read(subject.processes)?.since(&begin);
    let finished = run.finish().map_err(|error| failed(error.to_string()))?;
    let found = &finished.measurements;
    let figures = observe::loaded(measurement, found, finished.measured, &spent);
    let most = found.errors.iter().max_by_key(|(_, count)| **count);
    Ok(Observation {
        round,
        variant: subject.name.to_owned(),
        measurement,
        requests: found.counts.requests(),
        failed: found.counts.failed,
        failure: most.map(|(kind, _)| kind.token()),
        coarse: if figures.contains_key(&Figure::P50) {
            observe::coarse(found)
        } else {
            Vec::new()
        },
        figures,
        generator_late: observe::generator_late(measurement, found),
        stolen: stolen(&spent.machine),
    })
}

/// Reads the memory of a fresh pair, opens connections through it, and reads it again.
pub async fn idle(
    measurement: Measurement,
    subject: &Subject<'_>,
    connections: usize,
) -> Result<Observation, Failure> {
    tokio::time::sleep(SETTLE).await;
    let fresh = resident(subject.processes)?;
    let held = HeldConnections::open(subject.address, connections).await?;
    tokio::time::sleep(SETTLE).await;
    held.check()?;
    let with = resident(subject.processes)?;
    Ok(Observation {
        round: 0,
        variant: subject.name.to_owned(),
        measurement,
        figures: observe::idle(fresh, with, connections),
        requests: connections as u64,
        failed: 0,
        failure: None,
        coarse: Vec::new(),
        generator_late: false,
        stolen: 0.0,
    })
}

/// The load average of one minute.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

/// CPU time spent since the machine was started.
struct Meter {
    at: Instant,
    pair: Option<[Cpu; 2]>,
    machine: Unused,
}

impl Meter {
    fn read(processes: &[Process]) -> Result<Self, Failure> {
        let mut pair = [Cpu::default(); 2];
        for process in processes {
            let text = read(*process, "stat")?;
            let cpu = kernel::process(&text).ok_or_else(|| unreadable(*process))?;
            let side = &mut pair[index(process.role)];
            *side = side.plus(cpu);
        }
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let machine = kernel::unused(&text);
        Ok(Self {
            at: Instant::now(),
            pair: (!processes.is_empty()).then_some(pair),
            machine: machine
                .ok_or_else(|| Failure::new(Code::Failed, "/proc/stat cannot be read"))?,
        })
    }

    fn since(&self, earlier: &Self) -> Spent {
        let pair = self.pair.zip(earlier.pair);
        Spent {
            pair: pair.map(|(now, then)| [now[0].since(then[0]), now[1].since(then[1])]),
            machine: self
                .machine
                .since(earlier.machine, (self.at - earlier.at).as_secs_f64()),
        }
    }
}

fn resident(processes: &[Process]) -> Result<[u64; 2], Failure> {
    let mut sides = [0; 2];
    for process in processes {
        let text = read(*process, "status")?;
        let bytes = kernel::resident(&text).ok_or_else(|| unreadable(*process))?;
        sides[index(process.role)] += bytes;
    }
    Ok(sides)
}

fn index(role: Role) -> usize {
    match role {
        Role::Caller => 0,
        Role::Server => 1,
    }
}

fn read(process: Process, file: &str) -> Result<String, Failure> {
    let path = Path::new("/proc").join(process.pid.to_string()).join(file);
    std::fs::read_to_string(path).map_err(|_| unreadable(process))
}

fn unreadable(process: Process) -> Failure {
    let line = format!(
        "the process {} of a pair cannot be read: has it ended?",
        process.pid
    );
    Failure::new(Code::Failed, line)
}

fn stolen(machine: &Machine) -> f64 {
    if machine.all > 0.0 {
        machine.stolen / machine.all
    } else {
        0.0
    }
}
