//! The events of a scenario and their times. Pure: reads the timeline and checks its names. `change.rs`
//! computes the state of links; `run/timeline.rs` runs all events by the clock.

use std::fmt;
use std::time::Duration;

use weft_config::settings::DurationText;

use super::change::{self, Change};
use super::check::{Checker, Names};
use super::clock::ClockStep;
use super::limits;
use super::raw::RawEvent;
use crate::lab::{LinkName, LinkSpec, NodeName, Topology};
use crate::link::Impairment;

/// An event, with its time after the loads began.
#[derive(Clone, Debug)]
pub struct Event {
    /// After the loads began.
    pub at: Duration,
    /// The event.
    pub action: Action,
}

/// The kinds of events.
#[derive(Clone, Debug)]
pub enum Action {
    /// A link changes.
    Link {
        /// Its name.
        link: LinkName,
        /// The impairments from then on of packets from the first of its ends, and from the second.
        impairments: Box<[Impairment; 2]>,
        /// The change in the words of the file, for reports.
        what: String,
    },
    /// The NAT of a link forgets its mappings and gives new ports.
    Rebind(LinkName),
    /// A host leaves its address and gets another.
    Readdress(NodeName),
    /// A process gets a signal.
    Signal(String, Signal),
    /// A process starts again.
    Start(String),
    /// A process's state directory has no space left.
    FillDisk(String),
    /// It has space again.
    FreeDisk(String),
    /// A process's wall clock jumps.
    StepClock(String, ClockStep),
}

/// The actions on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
}

/// An entry before the state of the links is known.
enum Entry {
    Change(Change),
    Done(Action),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { link, what, .. } => write!(f, "{link}: {what}"),
            Self::Rebind(link) => write!(f, "NAT of {link} rebinds"),
            Self::Readdress(host) => write!(f, "{host} changes its address"),
            Self::Signal(process, Signal::Kill) => write!(f, "kill -9 {process}"),
            Self::Signal(process, Signal::Terminate) => write!(f, "terminate {process}"),
            Self::Signal(process, Signal::Pause) => write!(f, "pause {process}"),
            Self::Signal(process, Signal::Resume) => write!(f, "resume {process}"),
            Self::Start(process) => write!(f, "start {process}"),
            Self::FillDisk(process) => write!(f, "disk of {process} is full"),
            Self::FreeDisk(process) => write!(f, "disk of {process} is free"),
            Self::StepClock(process, step) => write!(f, "clock of {process} jumps by {step}"),
        }
    }
}

/// The timeline in the order of time, with the state of each link after each change.
pub(super) fn timeline(
    checker: &mut Checker<'_>,
    raw: Vec<RawEvent>,
    names: &Names,
    topology: &Topology,
) -> Vec<Event> {
    let links = topology.links();
    let mut entries = Vec::new();
    for (index, event) in raw.into_iter().enumerate() {
        entry(checker, index, event, names, links, &mut entries);
    }
    // Stable: the first in the file happens first.
    entries.sort_by_key(|(at, _)| *at);
    let mut state: Vec<[Impairment; 2]> =
        links.iter().map(|link| link.impairments.clone()).collect();
    let mut events = Vec::with_capacity(entries.len());
    for (at, entry) in entries {
        let action = match entry {
            Entry::Done(action) => action,
            Entry::Change(change) => change.apply(checker, links, &mut state),
        };
        events.push(Event { at, action });
    }
    events
}

/// Reads one entry; a blackout becomes two.
fn entry(
    checker: &mut Checker<'_>,
    index: usize,
    raw: RawEvent,
    names: &Names,
    links: &[LinkSpec],
    entries: &mut Vec<(Duration, Entry)>,
) {
    let path = |field: &str| format!("timeline[{index}].{field}");
    let Some(DurationText(at)) = raw.at else {
        checker.problem(path("at"), "say when, as `at: 5s`");
        return;
    };
    if at > limits::SCENARIO_DURATION_MAX {
        checker.problem(path("at"), "no scenario takes that long");
    }
    let told = [
        ("kill", &raw.kill, Signal::Kill),
        ("terminate", &raw.terminate, Signal::Terminate),
        ("pause", &raw.pause, Signal::Pause),
        ("resume", &raw.resume, Signal::Resume),
    ];
    let things = told.iter().map(|(_, name, _)| *name).chain([
        &raw.start,
        &raw.fill_disk,
        &raw.free_disk,
        &raw.step_clock,
        &raw.readdress,
        &raw.rebind,
        &raw.link,
    ]);
    if things.filter(|name| name.is_some()).count() != 1 {
        checker.problem(
            format!("timeline[{index}]"),
            "write one thing that happens: link, rebind, readdress, kill, terminate, pause, resume, start, fill_disk, free_disk or step_clock",
        );
        return;
    }
    let mut checked = |field: &str, name: &Option<String>, kind: &str, known: &[String]| {
        let name = name.clone()?;
        checker
            .known(path(field), kind, &name, known)
            .then_some(name)
    };
    let mut done: Option<Action> = None;
    for (field, name, signal) in told {
        let name = checked(field, name, "process", &names.processes);
        done = done.or(name.map(|name| Action::Signal(name, signal)));
    }
    let start = checked("start", &raw.start, "process", &names.processes);
    let fill = checked("fill_disk", &raw.fill_disk, "process", &names.stateful);
    let free = checked("free_disk", &raw.free_disk, "process", &names.stateful);
    let clock = checked("step_clock", &raw.step_clock, "process", &names.processes);
    let host = checked("readdress", &raw.readdress, "host", &names.hosts);
    let nat = checked("rebind", &raw.rebind, "link with a NAT", &names.nats);
    done = done
        .or(start.map(Action::Start))
        .or(fill.map(Action::FillDisk))
        .or(free.map(Action::FreeDisk))
        .or(clock
            .zip(raw.by)
            .map(|(name, step)| Action::StepClock(name, step)))
        .or(host
            .and_then(|name| NodeName::new(&name).ok())
            .map(Action::Readdress))
        .or(nat
            .and_then(|name| LinkName::new(&name).ok())
            .map(Action::Rebind));
    match (&raw.step_clock, raw.by) {
        (Some(_), None) => checker.problem(
            path("step_clock"),
            "say how far it jumps: `by: +1h` or `by: -90s`",
        ),
        (None, Some(_)) => {
            checker.problem(path("by"), "belongs to a clock: add `step_clock: NAME`");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let Some(link) = &raw.link else {
        for (field, is_there) in [
            ("from", raw.from.is_some()),
            ("set", raw.set.is_some()),
            ("blackout", raw.blackout.is_some()),
        ] {
            if is_there {
                checker.problem(path(field), "belongs to a link: add `link: NAME`");
            }
        }
        entries.extend(done.map(|action| (at, Entry::Done(action))));
        return;
    };
    let changes = change::read(checker, index, link, &raw, names, links);
    let changes = changes.into_iter();
    entries
        .extend(changes.map(|(later, change)| (at.saturating_add(later), Entry::Change(change))));
}
