//! A page of `/metrics` in the text format of Prometheus (0.0.4). Pure. The catalogue beside this file says
//! which metrics a page may have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{DURATION_BUCKETS, Kind, Metric, all};

/// One value of a metric, to be written later.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its metric.
    pub metric: &'static Metric,
    /// In the order of the metric's labels.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Metric {
    /// A value of it, with a value for each of its labels.
    #[must_use]
    pub fn sample(&'static self, labels: &[&str], value: f64) -> Sample {
        self.judge(labels);
        Sample {
            metric: self,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            value,
        }
    }

    /// 1 if the condition holds, else 0.
    #[must_use]
    pub fn flag(&'static self, holds: bool) -> Sample {
        self.sample(&[], f64::from(u8::from(holds)))
    }

    /// A mistake in the program, which its tests find: a label without a value, or a label that the catalogue
    /// does not have.
    fn judge(&self, labels: &[&str]) {
        debug_assert_eq!(labels.len(), self.labels().count(), "{}", self.name());
        let mut both = self.labels().zip(labels);
        debug_assert!(
            both.all(|(label, value)| label.takes(value)),
            "{} {labels:?} is not in the catalogue",
            self.name()
        );
    }
}

/// A page that grows.
#[derive(Debug, Default)]
pub struct Page(String);

/// The samples of one metric, under its head.
#[derive(Debug)]
pub struct Family<'p> {
    page: &'p mut String,
    metric: &'static Metric,
}

impl Page {
    /// The `content-type` of the answer.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(String::with_capacity(16 * 1024))
    }

    /// The head of a metric, for the samples that follow. A page has each metric once.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let name = metric.name();
        let kind = match metric.kind() {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = metric.meaning().replace('`', "");
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            page: &mut self.0,
            metric,
        }
    }

    /// Samples of any metrics; those of one metric follow each other, in their order.
    pub fn samples(&mut self, samples: &[Sample]) {
        let mut by_name: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in samples {
            let same = by_name.entry(sample.metric.name()).or_default();
            same.push(sample);
        }
        for metric in all() {
            let Some(same) = by_name.remove(metric.name()) else {
                continue;
            };
            let mut family = self.family(metric);
            for sample in same {
                let labels: Vec<&str> = sample.labels.iter().map(String::as_str).collect();
                family.sample(&labels, sample.value);
            }
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One value, with a value for each label of the metric.
    pub fn sample(&mut self, labels: &[&str], value: f64) {
        self.metric.judge(labels);
        self.line("", labels, None, value);
    }

    /// The counts of a histogram. `buckets` are parallel to [`DURATION_BUCKETS`], and each counts only what
    /// is not in the one before.
    pub fn histogram(
        &mut self,
        labels: &[&str],
        buckets: &[u64; DURATION_BUCKETS.len()],
        sum: f64,
        count: u64,
    ) {
        debug_assert_eq!(
            self.metric.kind(),
            Kind::Histogram,
            "{}",
            self.metric.name()
        );
        self.metric.judge(labels);
        let mut cumulative = 0;
        for (bound, bucket) in DURATION_BUCKETS.iter().zip(buckets) {
            cumulative += bucket;
            self.line(
                "_bucket",
                labels,
                Some(&bound.to_string()),
                cumulative as f64,
            );
        }
        self.line("_bucket", labels, Some("+Inf"), count as f64);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: f64) {
        self.page.push_str(self.metric.name());
        self.page.push_str(suffix);
        let names = self.metric.labels().map(|label| label.name);
        let pairs = names.zip(labels.iter().copied());
        let mut any = false;
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.page.push(if any { ',' } else { '{' });
            any = true;
            self.page.push_str(name);
            self.page.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.page.push_str("\\\\"),
                    '"' => self.page.push_str("\\\""),
                    '\n' => self.page.push_str("\\n"),
                    character => self.page.push(character),
                }
            }
            self.page.push('"');
        }
        if any {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CA_REFUSED, CA_SIGNED, DECISIONS, REQUEST_DURATION};
    use super::*;

    #[test]
    fn a_metric_is_explained_once_for_all_its_labels() {
        let mut page = Page::new();
        page.samples(&[
            CA_REFUSED.sample(&["token_used"], 2.0),
            CA_SIGNED.sample(&[], 3.0),
            CA_REFUSED.sample(&["bad_csr"], 0.0),
        ]);
        assert_eq!(
            page.finish(),
            "# HELP weft_ca_signed_total Certificates issued.\n\
             # TYPE weft_ca_signed_total counter\n\
             weft_ca_signed_total 3\n\
             # HELP weft_ca_refused_total Requests refused, by reason.\n\
             # TYPE weft_ca_refused_total counter\n\
             weft_ca_refused_total{reason=\"token_used\"} 2\n\
             weft_ca_refused_total{reason=\"bad_csr\"} 0\n"
        );
    }

    #[test]
    fn what_others_chose_cannot_end_a_label() {
        let mut page = Page::new();
        page.family(&DECISIONS).sample(&["deny", "a\"} 1\n\\"], 1.0);
        let text = page.finish();
        let line = "weft_authz_decisions_total{decision=\"deny\",policy=\"a\\\"} 1\\n\\\\\"} 1\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn the_buckets_of_a_histogram_are_cumulative_and_end_with_all() {
        let mut page = Page::new();
        let mut buckets = [0; DURATION_BUCKETS.len()];
        (buckets[0], buckets[2]) = (1, 2);
        let labels = ["outbound", "", "", "", "", ""];
        page.family(&REQUEST_DURATION)
            .histogram(&labels, &buckets, 90.5, 4);
        let text = page.finish();
        for (bound, count) in [
            ("0.001", 1),
            ("0.002", 1),
            ("0.005", 3),
            ("30", 3),
            ("+Inf", 4),
        ] {
            assert!(
                text.contains(&format!(",le=\"{bound}\"}} {count}\n")),
                "{text}"
            );
        }
        assert!(
            text.contains(
                "weft_request_duration_seconds_sum{direction=\"outbound\",source_service=\"\""
            ),
            "{text}"
        );
    }

    #[test]
    #[should_panic(expected = "is not in the catalogue")]
    fn a_value_that_the_catalogue_does_not_have_is_found_by_tests() {
        let _ = CA_REFUSED.sample(&["made_up"], 1.0);
    }
}
