//! What the config service counts, for whoever renders it. Taken from the shared state when asked for.

use std::sync::Arc;

use weft_ca::metrics::Sample;

use super::mesh::Mesh;
use crate::operator::SidecarState;
use crate::table::{Feature, Loss};

/// A handle on the service's numbers.
#[derive(Clone, Debug)]
pub struct MetricsHandle(Arc<Mesh>);

impl MetricsHandle {
    pub(super) fn new(mesh: Arc<Mesh>) -> Self {
        Self(mesh)
    }

    /// Every value at this moment, samples of one name together.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let (revision, _) = self.0.current();
        let mut states = self.0.states(&revision);
        let all = states.len();
        states.retain(|state| !state.lost);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let refusing = states.iter().filter(|state| state.refusal.is_some());
        let behind = states
            .iter()
            .filter(|state| !state.acknowledged && state.refusal.is_none());
        let gauge = |name, help, value| Sample {
            name,
            help,
            is_counter: false,
            label: None,
            value,
        };
        let withheld = |feature: Feature| {
            let lacks = |state: &&SidecarState| {
                let mut withheld = state.withheld.iter();
                withheld.any(|one| one.feature == feature.name())
            };
            Sample {
                label: Some(("feature", feature.name())),
                ..gauge(
                    "weft_config_sidecars_withheld",
                    "Connected sidecars that are not told what a resource says, as they do not know this feature.",
                    count(states.iter().filter(lacks).count()),
                )
            }
        };
        let restricts = |feature: &Feature| feature.about().loss == Loss::Calls;
        let withheld: Vec<Sample> = Feature::ALL
            .into_iter()
            .filter(restricts)
            .map(withheld)
            .collect();
        let mut samples = vec![
            gauge(
                "weft_config_store_revision",
                "Number of the revision in force.",
                revision.number,
            ),
            gauge(
                "weft_config_sidecars_connected",
                "Sidecars that hear of changes.",
                count(states.len()),
            ),
            gauge(
                "weft_config_sidecars_lost",
                "Sidecars whose stream broke less than a lease ago.",
                count(all - states.len()),
            ),
            gauge(
                "weft_config_sidecars_behind",
                "Connected sidecars that have not yet acknowledged the revision in force.",
                count(behind.count()),
            ),
            gauge(
                "weft_config_sidecars_refusing",
                "Connected sidecars that refused the revision in force.",
                count(refusing.count()),
            ),
            Sample {
                is_counter: true,
                ..gauge(
                    "weft_config_refusals_total",
                    "Revisions that a sidecar refused.",
                    self.0.refused(),
                )
            },
            gauge(
                "weft_config_workloads_registered",
                "Workloads whose lease is valid.",
                count(self.0.workloads()),
            ),
        ];
        samples.extend(withheld);
        samples
    }
}
