//! Does what a scenario's timeline says, by the clock.

use std::time::Instant;

use super::RunError;
use super::disk;
use super::fleet::Fleet;
use super::outcome::Done;
use super::stop::Stop;
use crate::link::End;
use crate::scenario::{Action, Event};

/// Does all events, each at its time after `began`; returns what was done and when in fact.
pub(super) fn perform(
    events: &[Event],
    began: Instant,
    fleet: &mut Fleet<'_>,
    stop: &Stop,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Done>, RunError> {
    let mut done = Vec::with_capacity(events.len());
    for event in events {
        stop.sleep_until(began + event.at)?;
        let at = began.elapsed();
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
    }
    Ok(())
}
