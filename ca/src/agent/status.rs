//! The counts of an agent, for the admin port of its process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use weft_transport::credentials::Credentials;
use weft_transport::locks::lock;
use weft_transport::metrics::{
    IDENTITY_EXPIRY, IDENTITY_RENEWAL_ALARM, IDENTITY_RENEWAL_FAILURES, IDENTITY_RENEWALS,
    IDENTITY_UNSAVED, Sample,
};

use crate::attest::unix_seconds;

#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) renewals: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) alarm: AtomicBool,
    /// Why the identity in force is not on disk; empty when it is.
    unsaved: Mutex<String>,
}

impl Status {
    pub(super) fn set_unsaved(&self, reason: String) {
        *lock(&self.unsaved) = reason;
    }

    fn unsaved(&self) -> Option<String> {
        let reason = lock(&self.unsaved);
        Some(reason.clone()).filter(|reason| !reason.is_empty())
    }
}

/// A handle on an agent's counters.
#[derive(Clone)]
pub struct AgentStatus {
    pub(super) status: Arc<Status>,
    pub(super) credentials: Credentials,
}

impl AgentStatus {
    /// Every value at this moment.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let expiry = unix_seconds(self.credentials.svid().not_after());
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        vec![
            IDENTITY_RENEWALS.sample(&[], read(&self.status.renewals)),
            IDENTITY_RENEWAL_FAILURES.sample(&[], read(&self.status.failures)),
            IDENTITY_EXPIRY.sample(&[], expiry as f64),
            IDENTITY_RENEWAL_ALARM.flag(self.is_alarmed()),
            IDENTITY_UNSAVED.flag(self.unsaved().is_some()),
        ]
    }

    /// Why the identity in force is not on disk.
    #[must_use]
    pub fn unsaved(&self) -> Option<String> {
        self.status.unsaved()
    }

    /// A condition that an operator should look into, although the identity in force is valid.
    #[must_use]
    pub fn concerns(&self) -> Vec<String> {
        let unsaved = self.unsaved();
        let unsaved =
            unsaved.map(|reason| format!("the identity in force is not on disk ({reason})"));
        let alarm = "the identity cannot be renewed, and less than a third of its life is left";
        let alarm = self.is_alarmed().then(|| alarm.to_owned());
        unsaved.into_iter().chain(alarm).collect()
    }

    /// Whether renewal fails and less than a third of the life is left.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.status.alarm.load(Ordering::Relaxed)
    }
}
