//! The scenarios that ship, embedded: `weft lab list` shows them, `weft lab run NAME` runs one, and
//! each file in `scenarios/` is meant to be read and copied. Pure.

use crate::scenario::{Override, Scenario, ScenarioError, parse};

/// A scenario that ships.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// Whether it is one of the short selection that the tests run.
    pub short: bool,
}

macro_rules! shipped {
    ($($name:literal $(($short:ident))?),* $(,)?) => {
        &[$(Shipped {
            name: $name,
            text: include_str!(concat!("../scenarios/", $name, ".yaml")),
            short: shipped!(@ $($short)?),
        }),*]
    };
    (@ short) => { true };
    (@) => { false };
}

/// All of them, in the order of the documentation.
pub const SUITE: &[Shipped] = shipped![
    "clean-baseline"(short),
    "loss-0.1",
    "loss-1",
    "loss-5"(short),
    "loss-10",
    "loss-30",
    "loss-in-bursts",
    "rtt-50",
    "rtt-200",
    "reorder-duplicate",
    "corruption"(short),
    "bandwidth-collapse",
    "cross-traffic",
    "mtu-black-hole"(short),
    "blackout-1s"(short),
    "blackout-5s",
    "blackout-20s",
    "blackout-one-way",
    "nat-rebinding"(short),
    "address-change-caller",
    "address-change-service",
    "control-plane-partition",
    "connection-storm",
    "kill-ca",
    "kill-config",
    "kill-service-sidecar"(short),
    "kill-caller-sidecar",
    "kill-application",
    "paused-sidecar",
    "slow-endpoint",
    "failing-endpoint",
    "small-beside-bulk",
    "head-of-line",
    "disk-full",
    "clock-step"(short),
    "clock-behind",
    "clock-ahead",
    "network-wifi",
    "network-lte",
    "network-satellite",
    "network-transatlantic",
];

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    SUITE.iter().find(|shipped| shipped.name == name)
}

impl Shipped {
    /// Reads it, with some fields replaced.
    ///
    /// # Errors
    /// The fault of a replaced field.
    pub fn parse(&self, overrides: &[Override]) -> Result<Scenario, ScenarioError> {
        let origin = format!("{}.yaml", self.name);
        parse(self.name, &origin, self.text, overrides, &|name| {
            Err(format!(
                "{name}: there are no files beside a scenario that ships"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_scenario_that_ships_is_valid() {
        for shipped in SUITE {
            if let Err(error) = shipped.parse(&[]) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_ships_once_and_opens_with_what_it_is_about() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let shipped: Vec<String> = SUITE
            .iter()
            .map(|one| format!("{}.yaml", one.name))
            .collect();
        assert_eq!(files, shipped.iter().cloned().collect());
        assert_eq!(files.len(), shipped.len());
        for shipped in SUITE {
            assert!(shipped.text.starts_with("# "), "{}", shipped.name);
        }
    }

    #[test]
    fn the_suite_and_its_short_selection_fit_their_times() {
        // How long a lab takes to come up, to end and to be judged, on a busy machine.
        let overhead = Duration::from_secs(8);
        let time = |short: bool| -> Duration {
            let chosen = SUITE.iter().filter(|one| one.short || !short);
            chosen
                .map(|one| one.parse(&[]).unwrap().duration + overhead)
                .sum()
        };
        assert!(time(false) < Duration::from_mins(15), "{:?}", time(false));
        assert!(time(true) < Duration::from_mins(4), "{:?}", time(true));
    }
}
