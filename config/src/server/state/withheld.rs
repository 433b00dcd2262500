//! Parts of tables that sidecars cannot be sent because their builds do not support them, as operators see
//! them. `compile/fit.rs` decides which parts these are.

use super::ServerState;
use crate::server::registry::Workload;
use crate::table::{Revision, Withheld};

impl ServerState {
    /// A sidecar cannot read the tables of this service: to operators that is the same as a refusal.
    pub(in crate::server) fn cannot_tell(
        &self,
        workload: &Workload,
        number: u64,
        revision: Revision,
        reason: &str,
    ) {
        let refused = self
            .lock()
            .sessions
            .sidecars
            .stream(workload, number)
            .is_some_and(|sidecar| {
                let refused = sidecar.refused.as_ref();
                refused.is_some_and(|(of, _)| *of == revision)
            });
        if !refused {
            self.acknowledge(workload, number, revision, reason.to_owned());
        }
    }

    /// The parts missing in the table that a sidecar was sent. Operators are told of new ones.
    pub(in crate::server) fn withhold(
        &self,
        workload: &Workload,
        number: u64,
        withheld: &[Withheld],
    ) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.sessions.sidecars.stream(workload, number) else {
            return;
        };
        if *sidecar.withheld == *withheld {
            return;
        }
        let before = std::mem::replace(&mut sidecar.withheld, withheld.into());
        drop(inner);
        for one in withheld.iter().filter(|one| !before.contains(one)) {
            self.progress.refusals.log(|left_out| {
                tracing::warn!(
                    peer = %workload.identity,
                    instance = ?workload.instance,
                    resource = one.resource,
                    feature = one.feature,
                    instead = one.instead,
                    left_out,
                    "a sidecar does not support a part of a resource, and does not get it: \
                     run a newer weft there"
                );
            });
        }
    }
}
