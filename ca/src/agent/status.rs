//! What an agent counts, for whoever renders it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weft_transport::credentials::Credentials;

use crate::attest::unix_seconds;
use crate::metrics::Sample;

#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) renewals: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) alarm: AtomicBool,
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
        ]
    }

    /// Whether renewal fails and less than a third of the life is left.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.status.alarm.load(Ordering::Relaxed)
    }
}
