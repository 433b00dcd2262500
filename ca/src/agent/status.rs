//! What an agent counts, for whoever renders it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weft_transport::credentials::Credentials;

use crate::attest::unix_seconds;
use crate::metrics::Sample;

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
        *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn unsaved(&self) -> Option<String> {
        let reason = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
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
        let sample = |name, help, is_counter, value| Sample {
            name,
            help,
            is_counter,
            label: None,
            value,
        };
        vec![
            sample(
                "weft_identity_renewals_total",
                "Certificates renewed.",
                true,
                self.status.renewals.load(Ordering::Relaxed),
            ),
            sample(
                "weft_identity_renewal_failures_total",
                "Attempts to renew the certificate that failed.",
                true,
                self.status.failures.load(Ordering::Relaxed),
            ),
            sample(
                "weft_identity_expiry_timestamp_seconds",
                "End of the certificate in force, Unix time.",
                false,
                expiry,
            ),
            sample(
                "weft_identity_renewal_alarm",
                "1 while renewal fails and less than a third of the life is left.",
                false,
                self.is_alarmed().into(),
            ),
            sample(
                "weft_identity_unsaved",
                "1 while the identity in force is not on disk, because the state directory cannot be written.",
                false,
                self.unsaved().is_some().into(),
            ),
        ]
    }

    /// Why the identity in force is not on disk.
    #[must_use]
    pub fn unsaved(&self) -> Option<String> {
        self.status.unsaved()
    }

    /// What an operator should look after, although the identity in force is good.
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
