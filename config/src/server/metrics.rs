//! The counts of the config service, taken from the shared state when its admin port is asked.

use std::sync::Arc;

use weft_transport::metrics::{
    CONFIG_REFUSALS, Metric, SIDECARS_BEHIND, SIDECARS_CONNECTED, SIDECARS_LOST, SIDECARS_REFUSING,
    SIDECARS_WITHHELD, SIGNAL_BYTES, SIGNAL_EDGES, SIGNAL_STREAMS, SIGNALS_LEFT_OUT,
    STORE_REVISION, Sample, WORKLOADS,
};

use super::state::ServerState;
use crate::operator::SidecarState;
use crate::table::{Feature, Loss};

/// A handle to the service's counts.
#[derive(Clone, Debug)]
pub struct MetricsHandle(Arc<ServerState>);

impl MetricsHandle {
    pub(super) fn new(state: Arc<ServerState>) -> Self {
        Self(state)
    }

    /// Every value at this moment.
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
        let gauge = |metric: &'static Metric, value: u64| metric.sample(&[], value as f64);
        let restricts = |feature: &Feature| feature.about().loss != Loss::Words;
        let withheld = Feature::ALL.into_iter().filter(restricts).map(|feature| {
            let lacks = |state: &&SidecarState| {
                let mut withheld = state.withheld.iter();
                withheld.any(|one| one.feature == feature.name())
            };
            let lacking = states.iter().filter(lacks).count();
            SIDECARS_WITHHELD.sample(&[feature.name()], count(lacking) as f64)
        });
        let size = self.0.signals.size();
        let mut samples = vec![
            gauge(&STORE_REVISION, revision.number),
            gauge(&SIDECARS_CONNECTED, count(states.len())),
            gauge(&SIDECARS_LOST, count(all - states.len())),
            gauge(&SIDECARS_BEHIND, count(behind.count())),
            gauge(&SIDECARS_REFUSING, count(refusing.count())),
            gauge(&CONFIG_REFUSALS, self.0.refused()),
            gauge(&WORKLOADS, count(self.0.workloads())),
            gauge(&SIGNAL_STREAMS, count(size.streams)),
            gauge(&SIGNAL_EDGES, count(size.edges)),
            gauge(&SIGNAL_BYTES, count(size.bytes)),
            SIGNALS_LEFT_OUT.sample(&["no_room"], size.spilled as f64),
            SIGNALS_LEFT_OUT.sample(&["not_its_own"], size.refused as f64),
        ];
        samples.extend(withheld);
        samples
    }
}
