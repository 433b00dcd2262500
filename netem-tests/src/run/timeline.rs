//! Runs a scenario's timeline and starts its loads, by the clock.

use std::time::{Duration, Instant};

use super::RunError;
use super::disk;
use super::fleet::Fleet;
use super::outcome::Done;
use super::stop::Stop;
use crate::link::End;
use crate::scenario::{Action, Event, Load, Scenario};

/// An event or a load with its time.
#[derive(Clone, Copy)]
enum Entry<'s> {
    Event(&'s Event),
    Load(&'s Load),
}

impl Entry<'_> {
    fn at(self) -> Duration {
        match self {
            Self::Event(event) => event.at,
            Self::Load(load) => load.after,
        }
    }
}

/// Runs all events and starts all loads, each at its time after `began`; returns the events with their actual
/// times.
pub(super) fn perform(
    scenario: &Scenario,
    began: Instant,
    fleet: &mut Fleet<'_>,
    start: &mut dyn FnMut(&Load) -> Result<(), RunError>,
    stop: &Stop,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Done>, RunError> {
    let loads = scenario.loads.iter().map(Entry::Load);
    let mut entries: Vec<Entry<'_>> = loads
        .chain(scenario.timeline.iter().map(Entry::Event))
        .collect();
    // Stable: entries with the same time keep their order, loads first.
    entries.sort_by_key(|entry| entry.at());
    let mut done = Vec::with_capacity(entries.len());
    for entry in entries {
        stop.sleep_until(began + entry.at())?;
        let at = began.elapsed();
        let event = match entry {
            Entry::Event(event) => event,
            Entry::Load(load) => {
                start(load)?;
                continue;
            }
        };
        act(&event.action, fleet)?;
        let what = event.action.to_string();
        progress(&format!("{:5.1}s  {what}", at.as_secs_f64()));
        done.push(Done {
            planned: event.at,
            at,
            what,
        });
    }
    Ok(done)
}

fn act(action: &Action, fleet: &mut Fleet<'_>) -> Result<(), RunError> {
    match action {
        Action::Link {
            link, impairments, ..
        } => {
            for end in End::BOTH {
                let impairment = impairments[end.index()].clone();
                fleet.lab().set(link, end, impairment)?;
            }
        }
        Action::Rebind(link) => fleet.lab().rebind(link, false)?,
        Action::Readdress(host) => {
            fleet.lab().change_address(host)?;
        }
        Action::Signal(process, signal) => fleet.signal(process, *signal)?,
        Action::Start(process) => fleet.start(process)?,
        Action::FillDisk(process) => disk::fill(fleet.directory(), process)?,
        Action::FreeDisk(process) => disk::free(fleet.directory(), process)?,
        Action::StepClock(process, step) => fleet.step_clock(process, *step)?,
    }
    Ok(())
}
