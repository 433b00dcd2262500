//! Counters of the CA, for the command's admin port. Plain atomics, and no labels from outside. The catalogue
//! of `weft_transport::metrics` says what they mean.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_transport::metrics::{
    CA_CERTIFICATE_EXPIRY, CA_CONNECTIONS_ENDED, CA_FAILED, CA_REFUSED, CA_REPEATED, CA_SIGNED,
    CA_TOKENS, Metric, Sample,
};

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

impl Metrics {
    /// Every value at this moment.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        let by = |metric: &'static Metric, reasons: &[&'static str], counts: &[AtomicU64]| {
            let both = reasons.iter().zip(counts);
            let all = both.map(|(reason, count)| metric.sample(&[reason], read(count)));
            all.collect::<Vec<_>>()
        };
        let mut samples = vec![
            CA_SIGNED.sample(&[], read(&self.signed)),
            CA_REPEATED.sample(&[], read(&self.repeated)),
            CA_FAILED.sample(&[], read(&self.failed)),
            CA_TOKENS.sample(&[], read(&self.tokens_created)),
            CA_CERTIFICATE_EXPIRY.sample(&["issuing"], read(&self.issuing_not_after)),
            CA_CERTIFICATE_EXPIRY.sample(&["root"], read(&self.root_not_after)),
        ];
        samples.extend(by(
            &CA_CONNECTIONS_ENDED,
            &NotAccepted::REASONS,
            &self.connections_ended,
        ));
        samples.extend(by(&CA_REFUSED, &Refusal::REASONS, &self.refused));
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
            .find(|sample| sample.labels == ["token_used"])
            .unwrap();
        assert_eq!((used.metric.name(), used.value), (CA_REFUSED.name(), 1.0));
    }
}
