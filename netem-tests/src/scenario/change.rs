//! Changes of links on a timeline. Pure: reads the entries about a link, and computes its state after each;
//! the other entries are in `event.rs`.

use std::time::Duration;

use weft_config::settings::DurationText;

use super::check::{Checker, Names, settings};
use super::event::Action;
use super::limits;
use super::raw::{RawEvent, RawSettings};
use crate::lab::{LinkSpec, NodeName};
use crate::link::Impairment;

/// A change of a link whose resulting state is not computed yet.
pub(super) struct Change {
    link: usize,
    directions: [bool; 2],
    what: Effect,
}

enum Effect {
    Set { path: String, settings: RawSettings },
    Blackout(bool),
}

/// Reads the entry `index` about `link`: changes, and how long after the entry's time each follows. A
/// blackout is two.
pub(super) fn read(
    checker: &mut Checker<'_>,
    index: usize,
    link: &str,
    raw: &RawEvent,
    names: &Names,
    links: &[LinkSpec],
) -> Vec<(Duration, Change)> {
    let path = |field: &str| format!("timeline[{index}].{field}");
    let Some(position) = links.iter().position(|known| known.name.as_str() == link) else {
        checker.known(path("link"), "link", link, &names.links);
        return Vec::new();
    };
    let between = links[position].ends.each_ref().map(NodeName::as_str);
    let directions = match &raw.from {
        None => [true, true],
        Some(node) if between.contains(&node.as_str()) => between.map(|end| end == node),
        Some(_) => {
            let either = between.join(" or ");
            checker.problem(path("from"), format!("write an end of {link}: {either}"));
            return Vec::new();
        }
    };
    let change = |what| Change {
        link: position,
        directions,
        what,
    };
    match (&raw.set, raw.blackout) {
        (Some(settings), None) => {
            let (path, settings) = (path("set"), settings.clone());
            vec![(Duration::ZERO, change(Effect::Set { path, settings }))]
        }
        (None, Some(DurationText(lasts))) => {
            if lasts > limits::SCENARIO_DURATION_MAX {
                checker.problem(path("blackout"), "no scenario takes that long");
            }
            vec![
                (Duration::ZERO, change(Effect::Blackout(true))),
                (lasts, change(Effect::Blackout(false))),
            ]
        }
        (Some(_), Some(_)) | (None, None) => {
            checker.problem(
                path("link"),
                "say what happens to it: `set: { loss: 5% }` or `blackout: 5s`",
            );
            Vec::new()
        }
    }
}

impl Change {
    /// Changes its link; `state` has that of each.
    pub(super) fn apply(
        self,
        checker: &mut Checker<'_>,
        links: &[LinkSpec],
        state: &mut [[Impairment; 2]],
    ) -> Action {
        let link = &links[self.link];
        for direction in [0, 1] {
            if !self.directions[direction] {
                continue;
            }
            let impairment = &mut state[self.link][direction];
            match &self.what {
                Effect::Blackout(dark) => impairment.blackout = *dark,
                Effect::Set {
                    path,
                    settings: raw,
                } => settings(checker, path, raw, impairment),
            }
        }
        let mut what = match &self.what {
            Effect::Blackout(true) => "blackout".to_owned(),
            Effect::Blackout(false) => "heals".to_owned(),
            Effect::Set { settings, .. } => {
                let pairs = settings
                    .iter()
                    .map(|(key, value)| format!("{key}={}", value.0));
                pairs.collect::<Vec<_>>().join(" ")
            }
        };
        if self.directions != [true, true] {
            let from = &link.ends[usize::from(self.directions[1])];
            what = format!("{what} (from {from})");
        }
        Action::Link {
            link: link.name.clone(),
            impairments: Box::new(state[self.link].clone()),
            what,
        }
    }
}
