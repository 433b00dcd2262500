//! Runs a scenario: [`run`] has all steps in order.
//!
//! `mesh.rs` brings the mesh up, `fleet.rs` owns its processes, `load.rs` talks to `weft load`, `timeline.rs`
//! causes the faults, `judge.rs` compares claims with results, and [`Outcome`] is the data of reports.
//! [`crate::scenario`] defines a scenario.

mod admin;
mod clocks;
mod disk;
mod fleet;
mod judge;
pub mod keep;
mod limits;
mod load;
mod machine;
mod mesh;
mod metrics;
pub mod outcome;
mod pairs;
mod resources;
pub mod stop;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::backend::Choice;
use crate::lab::clock::NoLibrary;
use crate::lab::{
    ChangeError, Lab, LinkSpec, Options, Process, Program, SpawnError, Topology, UpError,
};
use crate::link::{End, Impairment, Seed};
use crate::scenario::{Action, Load, Scenario};
use clocks::Clocks;
use disk::Disks;
use fleet::Fleet;
use judge::Doubts;
use limits::LOAD_GRACE;
use machine::Shares;
use mesh::{Builder, Listeners, node};
use outcome::{LinkCounts, LoadReport, Outcome};
use stop::{Stop, Stopped};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `weft` binary under test.
    pub weft: PathBuf,
    /// An empty directory for state and logs.
    pub directory: PathBuf,
    /// The back-end for its links.
    pub backend: Choice,
    /// Whether sidecars record their connections packet by packet.
    pub qlog: bool,
}

/// Why a scenario could not be run. None of these says anything about weft under faults, except that a step
/// of the bring-up on a perfect network failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The lab did not come up.
    #[error(transparent)]
    Up(#[from] UpError),
    /// A program did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The lab could not be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Clocks cannot be stepped on this machine.
    #[error(transparent)]
    Clock(#[from] NoLibrary),
    /// A step of the bring-up failed.
    #[error("cannot {what}: {said}")]
    Step {
        /// The step.
        what: String,
        /// The last lines of the process that failed.
        said: String,
    },
    /// The system refused.
    #[error("cannot {what}: {source}")]
    System {
        /// The step.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// It was asked to end.
    #[error("interrupted")]
    Stopped,
}

impl From<Stopped> for RunError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Runs `scenario`. Only inside a sandbox. `progress` gets a line for each step.
///
/// # Errors
/// When it could not be run; a claim that does not hold is an [`Outcome`].
pub fn run(
    scenario: &Scenario,
    setup: &Setup,
    stop: &Stop,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, RunError> {
    let start = Instant::now();
    let mut outcome = Outcome::broken(scenario, String::new());
    let clocks = Clocks::new(scenario, &setup.directory)?;
    pairs::prepare(scenario, &setup.directory, stop, progress)?;
    let mut disks = Disks::default();
    for process in filled(scenario) {
        disks.add(&setup.directory, &process)?;
    }
    // A bring-up over lossy links would only add noise. But the links have their delay, because connections
    // would otherwise start with round-trip times of another network.
    let lab = Lab::up(
        only_delayed(&scenario.topology)?,
        Options {
            seed: Seed(scenario.seed),
            directory: setup.directory.clone(),
            backend: setup.backend,
            later: impairments(scenario),
            capture: true,
            tcp_congestion: scenario.tcp_congestion.clone(),
        },
    )?;
    let mut fleet = Fleet::new(&lab, &setup.directory, clocks);
    let listeners = Builder {
        scenario,
        weft: &setup.weft,
        qlog: setup.qlog,
        fleet: &mut fleet,
        stop,
        applications: BTreeMap::new(),
    }
    .bring_up(progress)?;
    fleet.require_clocks()?;
    impair(&lab, &scenario.topology)?;

    progress("loads begin");
    fleet.read_first();
    let cpu = machine::cpu();
    let (began, began_unix_ms) = (Instant::now(), machine::unix_ms(SystemTime::now()));
    let mut loads = BTreeMap::new();
    let mut start_load = |load: &Load| {
        let process = start_load(load, scenario, setup, &lab, &listeners)?;
        loads.insert(load.name.clone(), process);
        Ok(())
    };
    outcome.events =
        timeline::perform(scenario, began, &mut fleet, &mut start_load, stop, progress)?;
    let waiting = Waiting {
        scenario,
        began,
        began_unix_ms,
        stop,
    };
    // A generator that was late reports latencies that are too long.
    let mut late = BTreeMap::new();
    for load in &scenario.loads {
        let Some(process) = loads.get_mut(&load.name) else {
            continue;
        };
        let (report, why) = waiting.collect(&load.name, load.deadline, process)?;
        outcome.loads.push(report);
        late.extend(why.map(|why| (load.name.as_str(), why)));
    }
    let shares = Shares::between(cpu, machine::cpu());
    (outcome.cpu_busy, outcome.cpu_others) = (shares.busy, shares.others);
    outcome.cpu_stolen = shares.stolen;
    let lives = fleet.read_all_last();

    outcome.links = counts(&lab);
    let health = lab.health();
    outcome.lateness_p99 = health.lateness[1];
    outcome.verdicts = judge::judge(&scenario.assertions, &outcome.loads, &lives);
    let doubts = Doubts {
        lab: health.invalid(),
        late,
        starved: shares.starved(),
    };
    outcome.state = doubts.state(&scenario.assertions, &outcome.verdicts);
    if !outcome.is_as_expected() {
        for (link, capture) in lab.take_captures() {
            let path = setup.directory.join(format!("{link}.pcapng"));
            mesh::write_file(&path, &capture)?;
        }
    }
    fleet.end();
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// The processes whose disks the timeline fills.
fn filled(scenario: &Scenario) -> BTreeSet<String> {
    let actions = scenario.timeline.iter().map(|event| &event.action);
    let filled = actions.filter_map(|action| match action {
        Action::FillDisk(process) => Some(process.clone()),
        Action::Link { .. }
        | Action::Rebind(_)
        | Action::Readdress(_)
        | Action::Signal(..)
        | Action::Start(_)
        | Action::FreeDisk(_)
        | Action::StepClock(..) => None,
    });
    filled.collect()
}

/// All later settings of links.
fn impairments(scenario: &Scenario) -> Vec<Impairment> {
    let links = scenario.topology.links().iter();
    let mut all: Vec<Impairment> = links.flat_map(|link| link.impairments.clone()).collect();
    for event in &scenario.timeline {
        if let Action::Link { impairments, .. } = &event.action {
            all.extend(impairments.iter().cloned());
        }
    }
    all
}

/// The topology with links that only delay packets.
fn only_delayed(topology: &Topology) -> Result<Topology, RunError> {
    let links = topology.links().iter().map(|link| LinkSpec {
        impairments: link.impairments.clone().map(|impairment| Impairment {
            delay: impairment.delay,
            ..Impairment::default()
        }),
        ..link.clone()
    });
    Topology::new(topology.nodes().to_vec(), links.collect()).map_err(|error| RunError::Step {
        what: "build the topology".to_owned(),
        said: error.to_string(),
    })
}

/// Sets the links to their state when the loads begin.
fn impair(lab: &Lab, topology: &Topology) -> Result<(), RunError> {
    for link in topology.links() {
        for end in End::BOTH {
            lab.set(&link.name, end, link.impairments[end.index()].clone())?;
        }
    }
    Ok(())
}

fn start_load(
    load: &Load,
    scenario: &Scenario,
    setup: &Setup,
    lab: &Lab,
    listeners: &Listeners,
) -> Result<Process, RunError> {
    let mut callers = scenario.callers.iter();
    let caller = callers.find(|caller| caller.name == load.from);
    let port = match &load.over {
        None => listeners
            .get(&(load.from.clone(), load.to.clone()))
            .copied(),
        Some(pair) => pairs::listener(scenario, pair, &load.to),
    };
    // The scenario's check let only known names pass.
    let (Some(caller), Some(port)) = (caller, port) else {
        return Err(RunError::Step {
            what: format!("start {}", load.name),
            said: "there is nothing that it could call".to_owned(),
        });
    };
    let program = Program {
        name: load.name.clone(),
        command: load::command(load, &setup.weft, port, scenario.seed),
        environment: Vec::new(),
        directory: Some(setup.directory.clone()),
    };
    Ok(lab.spawn(&node(&caller.host)?, program)?)
}

/// The values needed to wait for a load's end.
struct Waiting<'a> {
    scenario: &'a Scenario,
    began: Instant,
    began_unix_ms: u64,
    stop: &'a Stop,
}

impl Waiting<'_> {
    /// Waits for a load's result; the second is why the generator was not good enough, if so.
    fn collect(
        &self,
        name: &str,
        deadline: Duration,
        process: &mut Process,
    ) -> Result<(LoadReport, Option<String>), RunError> {
        let end = self.began + self.scenario.duration + deadline + LOAD_GRACE;
        loop {
            let ended = process.try_wait().map_err(|source| RunError::System {
                what: format!("wait for {name}"),
                source,
            })?;
            if ended.is_some() {
                break;
            }
            if Instant::now() >= end {
                return Err(RunError::Step {
                    what: format!("end {name}"),
                    said: "it runs on after its time".to_owned(),
                });
            }
            self.stop.sleep(limits::GLANCE)?;
        }
        let text = read_file(process.stdout())?;
        match load::read(name, &text, self.began_unix_ms) {
            Ok(read) => Ok((read.report, read.invalid)),
            Err(why) => Err(RunError::Step {
                what: format!("read what {name} found ({why})"),
                said: fleet::tail(process.stderr()),
            }),
        }
    }
}

fn counts(lab: &Lab) -> Vec<LinkCounts> {
    let reports = lab.links().into_iter();
    let counts = reports.map(|report| {
        let link = lab.topology().link(report.link.as_str());
        let from = link.map(|link| link.ends[report.from.index()].to_string());
        LinkCounts {
            link: report.link.to_string(),
            from: from.unwrap_or_default(),
            counters: report.counters,
        }
    });
    counts.collect()
}

fn read_file(path: &Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|source| RunError::System {
        what: format!("read {}", path.display()),
        source,
    })
}
