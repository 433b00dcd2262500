//! The metrics page of a sidecar: the merged shards of all workers, and gauges read at the moment of the
//! scrape. The catalogue of `weft_transport::metrics` says what each metric means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_transport::metrics::{
    ATTEMPT_PARTS, DECISIONS, EGRESS_PASSED, Family, HANDSHAKES, LOG_DROPPED, LOG_SUPPRESSED,
    MIGRATIONS, Metric, Page, REQUEST_DURATION, REQUESTS, Sample, TUNNEL_RECEIVED, TUNNEL_SENT,
    TUNNELS_ACTIVE, TUNNELS_CLOSED, TUNNELS_FAILED, TUNNELS_OPENED, WORKER_BEHIND, WORKER_LIMITED,
};

use super::parts::{Histogram, Sums};
use super::{Decision, Labels, Outcome, RequestCounts, Shard, TunnelSeries, lock};

/// The whole page.
pub(crate) fn expose(shards: &[Arc<Shard>], samples: &[Sample]) -> String {
    let mut page = Page::new();
    requests(&mut page, shards);
    parts(&mut page, shards);
    tunnels(&mut page, shards);
    decisions(&mut page, shards);
    handshakes(&mut page, shards);
    let mut total = |metric, read| total(&mut page, metric, shards, read);
    total(&MIGRATIONS, |shard| &shard.migrations);
    total(&LOG_SUPPRESSED, |shard| &shard.log_suppressed);
    total(&LOG_DROPPED, |shard| &shard.log_dropped);
    total(&EGRESS_PASSED, |shard| &shard.egress_observed);
    let mut time = |metric, read| time(&mut page, metric, shards, read);
    time(&WORKER_BEHIND, |shard| shard.lag.behind());
    time(&WORKER_LIMITED, |shard| shard.intake.limited_for());
    page.samples(samples);
    page.finish()
}

fn requests(page: &mut Page, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<Labels, RequestCounts> = BTreeMap::new();
    for shard in shards {
        for (labels, series) in lock(&shard.requests).iter() {
            let counts = lock(&series.counts).clone();
            // Subtracted for calls that are still under way, or that were counted elsewhere in the end.
            if counts.durations.count == 0 {
                continue;
            }
            let sum = merged.entry(labels.clone()).or_default();
            sum.durations.merge(&counts.durations);
            for (outcome, count) in counts.outcomes {
                match sum.outcomes.iter_mut().find(|(one, _)| *one == outcome) {
                    Some((_, sum)) => *sum += count,
                    None => sum.outcomes.push((outcome, count)),
                }
            }
        }
    }
    let mut family = page.family(&REQUESTS);
    for (labels, counts) in &merged {
        for (outcome, count) in &counts.outcomes {
            let Outcome {
                status,
                error,
                failed,
            } = *outcome;
            let status = status.to_string();
            let classification = if failed { "failure" } else { "success" };
            let mut values = values(labels);
            values.extend([status.as_str(), classification, error]);
            family.sample(&values, *count as f64);
        }
    }
    let mut family = page.family(&REQUEST_DURATION);
    for (labels, counts) in &merged {
        histogram(&mut family, &values(labels), &counts.durations);
    }
}

fn parts(page: &mut Page, shards: &[Arc<Shard>]) {
    let mut sums = Sums::default();
    for shard in shards {
        shard.parts.merge_into(&mut sums);
    }
    let mut family = page.family(&ATTEMPT_PARTS);
    for (labels, counts) in sums.iter() {
        histogram(&mut family, &labels, counts);
    }
}

fn histogram(family: &mut Family<'_>, labels: &[&str], counts: &Histogram) {
    family.histogram(labels, &counts.buckets, counts.sum, counts.count);
}

fn tunnels(page: &mut Page, shards: &[Arc<Shard>]) {
    type Read = fn(&TunnelSeries) -> &AtomicU64;
    let counters: [(&'static Metric, Read); 4] = [
        (&TUNNELS_OPENED, |series| &series.opened),
        (&TUNNELS_CLOSED, |series| &series.closed),
        (&TUNNEL_SENT, |series| &series.sent),
        (&TUNNEL_RECEIVED, |series| &series.received),
    ];
    let merge = |read: Read| {
        let mut merged: BTreeMap<Labels, u64> = BTreeMap::new();
        for shard in shards {
            for (labels, series) in lock(&shard.tunnels).iter() {
                if series.is_used() {
                    *merged.entry(labels.clone()).or_default() +=
                        read(series).load(Ordering::Relaxed);
                }
            }
        }
        merged
    };
    for (metric, read) in counters {
        let mut family = page.family(metric);
        for (labels, count) in &merge(read) {
            family.sample(&values(labels), *count as f64);
        }
    }
    // The ends are read first, so that a call that opens and ends in between cannot make this negative.
    let closed = merge(|series| &series.closed);
    let mut family = page.family(&TUNNELS_ACTIVE);
    for (labels, opened) in &merge(|series| &series.opened) {
        let closed = closed.get(labels).copied().unwrap_or_default();
        family.sample(&values(labels), opened.saturating_sub(closed) as f64);
    }
    let mut merged: BTreeMap<(Labels, &'static str), u64> = BTreeMap::new();
    for shard in shards {
        for (labels, series) in lock(&shard.tunnels).iter() {
            for (error, count) in lock(&series.failed).iter() {
                *merged.entry((labels.clone(), error)).or_default() += count;
            }
        }
    }
    let mut family = page.family(&TUNNELS_FAILED);
    for ((labels, error), count) in &merged {
        let mut values = values(labels);
        values.push(error);
        family.sample(&values, *count as f64);
    }
}

fn decisions(page: &mut Page, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<(&'static str, Box<str>), u64> = BTreeMap::new();
    for shard in shards {
        let by_policy = lock(&shard.decisions).clone();
        for (decision, policies) in Decision::ALL.into_iter().zip(by_policy) {
            for (policy, count) in policies {
                *merged.entry((decision.as_str(), policy)).or_default() += count;
            }
        }
    }
    let mut family = page.family(&DECISIONS);
    for ((decision, policy), count) in &merged {
        family.sample(&[decision, policy], *count as f64);
    }
}

fn handshakes(page: &mut Page, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<&'static str, u64> = BTreeMap::new();
    for shard in shards {
        for (result, count) in lock(&shard.handshakes).iter() {
            *merged.entry(result).or_default() += count;
        }
    }
    let mut family = page.family(&HANDSHAKES);
    for (result, count) in merged {
        family.sample(&[result], count as f64);
    }
}

fn total(
    page: &mut Page,
    metric: &'static Metric,
    shards: &[Arc<Shard>],
    read: fn(&Shard) -> &AtomicU64,
) {
    let counts = shards
        .iter()
        .map(|shard| read(shard).load(Ordering::Relaxed));
    let total: u64 = counts.sum();
    page.family(metric).sample(&[], total as f64);
}

fn time(
    page: &mut Page,
    metric: &'static Metric,
    shards: &[Arc<Shard>],
    read: fn(&Shard) -> Duration,
) {
    let total: Duration = shards.iter().map(|shard| read(shard)).sum();
    page.family(metric).sample(&[], total.as_secs_f64());
}

/// Of the labels that all metrics of calls have, in the order of the catalogue.
fn values(labels: &Labels) -> Vec<&str> {
    vec![
        labels.direction.as_str(),
        &labels.source_service,
        &labels.source_principal,
        &labels.destination_service,
        &labels.destination_principal,
        &labels.route,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, Series};
    use super::*;

    #[test]
    fn shards_are_merged_and_labels_escaped() {
        let labels = Labels {
            direction: Direction::Inbound,
            source_service: Arc::from("a.shop"),
            source_principal: Arc::from("a\"} 1\n"),
            destination_service: Arc::from("orders.shop:80"),
            destination_principal: Arc::from("me"),
            route: Arc::from(""),
        };
        let shards = [Arc::new(Shard::default()), Arc::new(Shard::default())];
        for shard in &shards {
            let outcome = Outcome {
                status: 200,
                error: "",
                failed: false,
            };
            let Series::Requests(series) = &shard.requests(labels.clone()).series else {
                panic!()
            };
            series.count(outcome, Duration::from_millis(3));
        }
        let text = expose(&shards, &[]);
        let expected = "weft_requests_total{direction=\"inbound\",source_service=\"a.shop\",source_principal=\"a\\\"} 1\\n\",destination_service=\"orders.shop:80\",destination_principal=\"me\",route=\"\",status=\"200\",classification=\"success\",error=\"\"} 2\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("le=\"0.005\"} 2\n"), "{text}");
        assert!(text.contains("le=\"0.002\"} 0\n"), "{text}");
    }

    #[test]
    fn a_tunnel_is_active_from_its_opening_to_its_end_and_never_if_it_was_refused() {
        let labels = Labels {
            direction: Direction::Outbound,
            source_service: Arc::from(""),
            source_principal: Arc::from("me"),
            destination_service: Arc::from("db.shop:5432"),
            destination_principal: Arc::from("db"),
            route: Arc::from(""),
        };
        let shard = Arc::new(Shard::default());
        let Series::Tunnels(series) = &shard.tunnels(labels).series else {
            panic!()
        };
        series.open();
        series.open();
        series.end(true, "");
        series.end(false, "connection_refused");
        let text = expose(&[shard], &[]);
        let value = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name}{{")));
            line.and_then(|line| line.rsplit_once(' ')).unwrap().1
        };
        assert_eq!(value("weft_tcp_connections_active"), "1");
        assert_eq!(value("weft_tcp_connections_opened_total"), "2");
        assert_eq!(value("weft_tcp_connections_closed_total"), "1");
        assert_eq!(value("weft_tcp_connections_failed_total"), "1");
    }
}
