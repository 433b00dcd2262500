//! The resources in force: those of the newest revision, and the plan that they are compiled to.

use std::sync::Arc;

use weft_transport::identity::TrustDomain;

use super::ServerState;
use crate::compile::{Plan, SessionSecrets};
use crate::resources::Set;
use crate::store::StoreError;
use crate::table::Revision;

#[derive(Debug)]
pub(super) struct InForce {
    pub(super) set: Arc<Set>,
    pub(super) plan: Arc<Plan>,
}

impl InForce {
    pub(super) fn new(
        revision: Revision,
        trust_domain: TrustDomain,
        set: Set,
        secrets: &SessionSecrets,
    ) -> Self {
        let plan = Plan::new(revision, trust_domain, &set);
        Self {
            plan: Arc::new(plan.with_session_secrets(secrets.clone())),
            set: Arc::new(set),
        }
    }
}

impl ServerState {
    pub(in crate::server) fn current(&self) -> (Revision, Arc<Set>) {
        let inner = self.lock();
        let InForce { plan, set } = &inner.in_force;
        (plan.revision.clone(), Arc::clone(set))
    }

    /// Puts a written revision into force.
    pub(in crate::server) fn advance(&self, revision: Revision, set: Set) {
        let (domain, secrets) = (self.trust_domain.clone(), self.store.session_secrets());
        let next = InForce::new(revision, domain, set, &secrets);
        let mut inner = self.lock();
        inner.in_force = next;
        self.publish(&mut inner);
    }

    /// Rotates the secrets of sessions: every table gets other keys under the same revision. The caller holds
    /// `writing`, as each plan is made with the secrets of its time.
    pub(in crate::server) fn rotate_session_secrets(&self, forget: bool) -> Result<(), StoreError> {
        let secrets = self.store.rotate_session_secrets(forget)?;
        let plan = Arc::clone(&self.lock().in_force.plan);
        let plan = Plan::clone(&plan).with_session_secrets(secrets);
        let mut inner = self.lock();
        inner.in_force.plan = Arc::new(plan);
        self.publish(&mut inner);
        Ok(())
    }
}
