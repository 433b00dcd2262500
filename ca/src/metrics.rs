//! Counters of the CA, for whoever renders them (the command's admin port). Plain atomics: no registry, no labels
//! from outside.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::attest::Refusal;
use crate::connection::NotAccepted;

/// What the CA counted since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    signed: AtomicU64,
    repeated: AtomicU64,
    refused: [AtomicU64; Refusal::REASONS.len()],
    failed: AtomicU64,
    tokens_created: AtomicU64,
    connections_ended: [AtomicU64; NotAccepted::REASONS.len()],
    issuing_not_after: AtomicU64,
    root_not_after: AtomicU64,
}

/// One value for a metrics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Prometheus name.
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// Whether the value only grows.
    pub is_counter: bool,
    /// At most one label, name and value.
    pub label: Option<(&'static str, &'static str)>,
    /// The value.
    pub value: u64,
}

impl Metrics {
    /// Every value, samples of one name together.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let counter = |name, help, value: &AtomicU64| Sample {
            name,
            help,
            is_counter: true,
            label: None,
            value: value.load(Ordering::Relaxed),
        };
        let mut samples = vec![
            counter("weft_ca_signed_total", "Certificates issued.", &self.signed),
            counter(
                "weft_ca_repeated_total",
                "Certificates sent again to the key that bought them.",
                &self.repeated,
            ),
            counter(
                "weft_ca_failed_total",
                "Requests that failed for a reason within the CA.",
                &self.failed,
            ),
            counter(
                "weft_ca_tokens_created_total",
                "Join tokens made.",
                &self.tokens_created,
            ),
        ];
        let ended = NotAccepted::REASONS.iter().zip(&self.connections_ended);
        samples.extend(ended.map(|(reason, value)| Sample {
            label: Some(("reason", reason)),
            ..counter(
                "weft_ca_connections_ended_total",
                "Connections that were not accepted, or had to end, by reason.",
                value,
            )
        }));
        samples.extend(
            Refusal::REASONS
                .iter()
                .zip(&self.refused)
                .map(|(reason, value)| Sample {
                    label: Some(("reason", reason)),
                    ..counter(
                        "weft_ca_refused_total",
                        "Requests refused, by reason.",
                        value,
                    )
                }),
        );
        for (certificate, value) in [
            ("issuing", &self.issuing_not_after),
            ("root", &self.root_not_after),
        ] {
            samples.push(Sample {
                is_counter: false,
                label: Some(("certificate", certificate)),
                ..counter(
                    "weft_ca_certificate_expiry_timestamp_seconds",
                    "End of the CA's own certificates, Unix time.",
                    value,
                )
            });
        }
        samples
    }

    pub(crate) fn count_signed(&self) {
        self.signed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused(&self, refusal: &Refusal) {
        if let Some(counter) = self.refused.get(refusal.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_tokens(&self, count: u32) {
        self.tokens_created
            .fetch_add(count.into(), Ordering::Relaxed);
    }

    pub(crate) fn count_connection_ended(&self, reason: &NotAccepted) {
        if let Some(counter) = self.connections_ended.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_expiry(&self, issuing: u64, root: u64) {
        self.issuing_not_after.store(issuing, Ordering::Relaxed);
        self.root_not_after.store(root, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_under_its_reason() {
        let metrics = Metrics::default();
        metrics.count_refused(&Refusal::TokenUsed);
        let used = metrics
            .samples()
            .into_iter()
            .find(|sample| sample.label == Some(("reason", "token_used")))
            .unwrap();
        assert_eq!((used.name, used.value), ("weft_ca_refused_total", 1));
    }
}
