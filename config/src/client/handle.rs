//! The data path's side of a subscription: the table to run, and the reports about the sidecar.

use std::sync::Arc;

use tokio::sync::watch;

use super::{CallSource, Health, Registration, Shared, SubscriptionStatus};
use crate::table::{Revision, ServiceName, Table};

/// The data path's side. Clones are cheap.
#[derive(Clone, Debug)]
pub struct SubscriptionHandle {
    shared: Arc<Shared>,
}

impl SubscriptionHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The table to run; `None` until the first one came from disk or the config service. Each new one must
    /// be answered with one [`Self::acknowledge`]; a table with an acknowledged revision differs only in its
    /// endpoints and in the keys of sessions. After a refusal this is the last good one again.
    pub fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.shared.tables.subscribe()
    }

    /// Whether the application behind a service is healthy. It counts as unhealthy until the first
    /// report.
    pub fn set_health(&self, service: &ServiceName, port: u16, health: impl Into<Health>) {
        if self.shared.lock().set_health(service, port, health.into()) {
            self.shared.changed.notify_one();
        }
    }

    /// The last such report, of this process or of the one that it took over from.
    pub fn is_healthy(&self, service: &ServiceName, port: u16) -> bool {
        self.shared.lock().is_healthy(service, port)
    }

    /// The sidecar runs this revision, or says why it does not and goes on with its last good one.
    pub fn acknowledge(&self, revision: &Revision, result: Result<(), String>) {
        if let Err(reason) = &result {
            tracing::warn!(%revision, reason, "table refused; the last good one stays");
        }
        let mut state = self.shared.lock();
        state.settle(revision, &result);
        self.shared.show_newest(&state);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// From here on the config service is told what this has counted.
    pub fn tell_of(&self, calls: Arc<dyn CallSource>) {
        self.shared.observed.watch(calls);
    }

    /// How the subscription is doing.
    pub fn status(&self) -> SubscriptionStatus {
        let heard = self.shared.last_heard.last();
        SubscriptionStatus {
            last_heard: heard.map(|time| format!("{time:.0}")),
            ..self.shared.lock().status().clone()
        }
    }

    /// The state with which a successor goes on with the registration. The newest table is on disk for it
    /// when this returns, unless it cannot be written, which is logged.
    pub async fn registration(&self) -> Registration {
        self.shared.save_anyway().await;
        Registration {
            instance: self.shared.instance.clone(),
            healthy: self.shared.lock().healthy(),
        }
    }

    /// A successor registers from here on: tables still come, but this process reports nothing, withdraws
    /// nothing and writes nothing to disk any more.
    pub fn hand_over(&self) {
        self.shared.lock().hand_over();
    }
}
