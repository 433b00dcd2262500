//! The data path's side of a subscription: the table to run, and what is told of the sidecar.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Registration, Shared, SubscriptionStatus};
use crate::table::{Revision, ServiceName, Table};

/// The data path's side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SubscriptionHandle {
    shared: Arc<Shared>,
}

impl SubscriptionHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The table to run; `None` until the first one came from disk or the config service. Each new one
    /// asks for one [`Self::acknowledge`]; a table with an acknowledged revision only has other endpoints.
    /// After a refusal it is the last good one again.
    pub fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.shared.tables.subscribe()
    }

    /// Whether the application behind a service accepts connections. Unhealthy until first said.
    pub fn set_health(&self, service: &ServiceName, port: u16, healthy: bool) {
        let mut state = self.shared.lock();
        if let Some(known) = state.health.get_mut(&(service.clone(), port))
            && *known != healthy
        {
            *known = healthy;
            self.shared.changed.notify_one();
        }
    }

    /// The sidecar runs this revision, or says why it does not and goes on with its last good one.
    pub fn acknowledge(&self, revision: &Revision, result: Result<(), String>) {
        let mut state = self.shared.lock();
        let was_good = state.held.good().map(Arc::clone);
        state.held.settle(revision, &result);
        state.cache_is_old |= match (&was_good, state.held.good()) {
            (Some(before), Some(good)) => !Arc::ptr_eq(before, good),
            (before, good) => before.is_some() != good.is_some(),
        };
        let is_offered = state.status.offered.as_ref() == Some(revision);
        match result {
            Ok(()) => {
                state.status.acknowledged = Some(revision.clone());
                if is_offered {
                    state.status.refusal = None;
                }
            }
            Err(reason) => {
                tracing::warn!(%revision, reason, "table refused; the last good one stays");
                if is_offered {
                    state.status.refusal = Some(reason);
                }
                self.shared.show_newest(&state.held);
            }
        }
        self.shared.changed.notify_one();
    }

    /// How the subscription is doing.
    pub fn status(&self) -> SubscriptionStatus {
        let heard = self.shared.heard.last();
        SubscriptionStatus {
            last_heard: heard.map(|time| format!("{time:.0}")),
            ..self.shared.lock().status.clone()
        }
    }

    /// What a successor needs to go on with the registration. The newest table is on disk for it when this
    /// returns, unless it cannot be written, which is logged.
    pub async fn registration(&self) -> Registration {
        // Also where nothing changed: another write of it may be under way, and is waited for so.
        self.shared.write_table().await;
        let state = self.shared.lock();
        let healthy = state.health.iter().filter(|(_, healthy)| **healthy);
        Registration {
            instance: self.shared.instance.clone(),
            healthy: healthy.map(|(service, _)| service.clone()).collect(),
        }
    }

    /// A successor registers from here on: tables still come, and nothing is reported or withdrawn or
    /// written to disk any more.
    pub fn hand_over(&self) {
        self.shared.lock().handed_over = true;
    }
}
