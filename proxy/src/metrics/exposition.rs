//! Metrics as text for Prometheus: the shards of all workers merged, and gauges read at the moment.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    DURATION_BUCKETS, Decision, Labels, Outcome, RequestCounts, Shard, TunnelSeries, lock,
};

/// A value that is read when scraped.
pub(crate) struct Gauge {
    /// With its unit; a counter's ends in `_total`.
    pub(crate) name: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
    /// Label pairs.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// The value.
    pub(crate) value: f64,
}

/// The whole exposition (Prometheus text format 0.0.4).
pub(crate) fn expose(shards: &[Arc<Shard>], gauges: &[Gauge]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    requests(&mut text, shards);
    tunnels(&mut text, shards);
    decisions(&mut text, shards);
    handshakes(&mut text, shards);
    migrations(&mut text, shards);
    behind(&mut text, shards);
    limited(&mut text, shards);
    log(&mut text, shards);
    for (index, gauge) in gauges.iter().enumerate() {
        if gauges.iter().position(|one| one.name == gauge.name) == Some(index) {
            let kind = if gauge.name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            head(&mut text, gauge.name, kind, gauge.help);
            for same in gauges.iter().filter(|one| one.name == gauge.name) {
                let labels: Vec<(&str, &str)> = same
                    .labels
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                sample(&mut text, gauge.name, &labels, same.value);
            }
        }
    }
    text
}

fn requests(text: &mut String, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<Labels, RequestCounts> = BTreeMap::new();
    for shard in shards {
        for (labels, series) in lock(&shard.requests).iter() {
            let counts = lock(&series.counts).clone();
            // Taken for a call that is still under way, or that was counted elsewhere in the end.
            if counts.count == 0 {
                continue;
            }
            let sum = merged.entry(labels.clone()).or_default();
            sum.count += counts.count;
            sum.duration_sum += counts.duration_sum;
            sum.buckets
                .iter_mut()
                .zip(counts.buckets)
                .for_each(|(sum, count)| *sum += count);
            for (outcome, count) in counts.outcomes {
                match sum.outcomes.iter_mut().find(|(one, _)| *one == outcome) {
                    Some((_, sum)) => *sum += count,
                    None => sum.outcomes.push((outcome, count)),
                }
            }
        }
    }
    let name = "weft_requests_total";
    head(
        text,
        name,
        "counter",
        "Requests that ended, by status, classification and error (RFC 9209).",
    );
    for (labels, counts) in &merged {
        for (
            Outcome {
                status,
                error,
                failed,
            },
            count,
        ) in &counts.outcomes
        {
            let status = status.to_string();
            let mut pairs = pairs(labels);
            pairs.push(("status", &status));
            pairs.push((
                "classification",
                if *failed { "failure" } else { "success" },
            ));
            pairs.push(("error", error));
            sample(text, name, &pairs, *count as f64);
        }
    }
    let name = "weft_request_duration_seconds";
    head(
        text,
        name,
        "histogram",
        "Time from the complete request head to the end of the response.",
    );
    for (labels, counts) in &merged {
        let mut cumulative = 0;
        for (bound, count) in DURATION_BUCKETS.iter().zip(counts.buckets) {
            cumulative += count;
            let bound = bound.to_string();
            let mut pairs = pairs(labels);
            pairs.push(("le", &bound));
            sample(
                text,
                "weft_request_duration_seconds_bucket",
                &pairs,
                cumulative as f64,
            );
        }
        let mut pairs = pairs(labels);
        sample(
            text,
            "weft_request_duration_seconds_sum",
            &pairs,
            counts.duration_sum,
        );
        sample(
            text,
            "weft_request_duration_seconds_count",
            &pairs,
            counts.count as f64,
        );
        pairs.push(("le", "+Inf"));
        sample(
            text,
            "weft_request_duration_seconds_bucket",
            &pairs,
            counts.count as f64,
        );
    }
}

fn tunnels(text: &mut String, shards: &[Arc<Shard>]) {
    type Read = fn(&TunnelSeries) -> &AtomicU64;
    let counters: [(&str, &str, Read); 4] = [
        (
            "weft_tcp_connections_opened_total",
            "TCP tunnels that began.",
            |series| &series.opened,
        ),
        (
            "weft_tcp_connections_closed_total",
            "TCP tunnels that ended.",
            |series| &series.closed,
        ),
        (
            "weft_tcp_sent_bytes_total",
            "Bytes from the caller to the service.",
            |series| &series.sent,
        ),
        (
            "weft_tcp_received_bytes_total",
            "Bytes from the service to the caller.",
            |series| &series.received,
        ),
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
    for (name, help, read) in counters {
        head(text, name, "counter", help);
        for (labels, count) in &merge(read) {
            sample(text, name, &pairs(labels), *count as f64);
        }
    }
    let name = "weft_tcp_connections_active";
    head(text, name, "gauge", "TCP tunnels that run.");
    // The ends are read first: what opens and ends in between must not make this negative.
    let closed = merge(|series| &series.closed);
    for (labels, opened) in &merge(|series| &series.opened) {
        let closed = closed.get(labels).copied().unwrap_or_default();
        sample(
            text,
            name,
            &pairs(labels),
            opened.saturating_sub(closed) as f64,
        );
    }
    let name = "weft_tcp_connections_failed_total";
    head(
        text,
        name,
        "counter",
        "TCP tunnels that ended other than by both sides closing, by error.",
    );
    let mut merged: BTreeMap<(Labels, &'static str), u64> = BTreeMap::new();
    for shard in shards {
        for (labels, series) in lock(&shard.tunnels).iter() {
            for (error, count) in lock(&series.failed).iter() {
                *merged.entry((labels.clone(), error)).or_default() += count;
            }
        }
    }
    for ((labels, error), count) in &merged {
        let mut pairs = pairs(labels);
        pairs.push(("error", error));
        sample(text, name, &pairs, *count as f64);
    }
}

fn decisions(text: &mut String, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<(&'static str, Box<str>), u64> = BTreeMap::new();
    for shard in shards {
        let by_policy = lock(&shard.decisions).clone();
        for (decision, policies) in Decision::ALL.into_iter().zip(by_policy) {
            for (policy, count) in policies {
                *merged.entry((decision.as_str(), policy)).or_default() += count;
            }
        }
    }
    let name = "weft_authz_decisions_total";
    head(
        text,
        name,
        "counter",
        "Authorisation decisions, by decision and the policy that spoke.",
    );
    for ((decision, policy), count) in &merged {
        sample(
            text,
            name,
            &[("decision", decision), ("policy", policy)],
            *count as f64,
        );
    }
}

fn handshakes(text: &mut String, shards: &[Arc<Shard>]) {
    let mut merged: BTreeMap<&'static str, u64> = BTreeMap::new();
    for shard in shards {
        for (result, count) in lock(&shard.handshakes).iter() {
            *merged.entry(result).or_default() += count;
        }
    }
    let name = "weft_quic_handshakes_total";
    head(
        text,
        name,
        "counter",
        "Handshakes that peers began, by result.",
    );
    for (result, count) in merged {
        sample(text, name, &[("result", result)], count as f64);
    }
}

fn migrations(text: &mut String, shards: &[Arc<Shard>]) {
    let name = "weft_quic_migrations_total";
    head(
        text,
        name,
        "counter",
        "Changes of address of peers whose connections went on.",
    );
    sample(text, name, &[], total(shards, |shard| &shard.migrations));
}

fn behind(text: &mut String, shards: &[Arc<Shard>]) {
    let name = "weft_worker_behind_seconds_total";
    let help = "Time in which a worker had more to do than it could, and took on no more.";
    head(text, name, "counter", help);
    let behind: std::time::Duration = shards.iter().map(|shard| shard.lag.behind()).sum();
    sample(text, name, &[], behind.as_secs_f64());
}

fn limited(text: &mut String, shards: &[Arc<Shard>]) {
    let name = "weft_worker_limited_seconds_total";
    let help = "Time in which a worker read no more of what the application asks than it could do at once.";
    head(text, name, "counter", help);
    let limited: std::time::Duration = shards.iter().map(|shard| shard.intake.limited_for()).sum();
    sample(text, name, &[], limited.as_secs_f64());
}

fn total(shards: &[Arc<Shard>], read: fn(&Shard) -> &AtomicU64) -> f64 {
    let counts = shards
        .iter()
        .map(|shard| read(shard).load(Ordering::Relaxed));
    counts.sum::<u64>() as f64
}

fn log(text: &mut String, shards: &[Arc<Shard>]) {
    let name = "weft_access_log_suppressed_total";
    head(
        text,
        name,
        "counter",
        "Access-log lines over the rate limit.",
    );
    sample(
        text,
        name,
        &[],
        total(shards, |shard| &shard.log_suppressed),
    );
    let name = "weft_access_log_dropped_total";
    head(
        text,
        name,
        "counter",
        "Access-log lines for which a slow writer had no room.",
    );
    sample(text, name, &[], total(shards, |shard| &shard.log_dropped));
}

fn pairs(labels: &Labels) -> Vec<(&'static str, &str)> {
    vec![
        ("direction", labels.direction.as_str()),
        ("source_service", &labels.source_service),
        ("source_principal", &labels.source_principal),
        ("destination_service", &labels.destination_service),
        ("destination_principal", &labels.destination_principal),
        ("route", &labels.route),
    ]
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (index, (label, content)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for c in content.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
