//! Asks the application whether it is able to serve, and reports that to the config service, so that a
//! service is registered only while its application is healthy. `state.rs` decides by the results (pure),
//! `check.rs` asks, `grpc.rs` reads and writes what gRPC's question says (pure).

mod check;
mod grpc;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_config::client::Health as Told;
use weft_config::settings::{HealthCheck, Question};
use weft_transport::locks::lock;
use weft_transport::metrics::{APPLICATION_CHECKS, APPLICATION_HEALTHY, Sample};
use weft_transport::tasks::TaskSet;
use weft_transport::vital;

use crate::inbound::served::ServedService;
use crate::run::ControlPlane;
use crate::run::table::{self, Snapshots};
use crate::worker::Shared;
use check::{CheckResult, Failed, check};
use state::{Health, Standing};

/// The health of one application as operators see it.
#[derive(Debug)]
pub(crate) struct ShownHealth {
    /// How it is asked, if there is any.
    check: Option<HealthCheck>,
    shown: Mutex<Shown>,
    /// How checks ended, in the order of [`CheckResult::ALL`].
    results: [AtomicU64; CheckResult::ALL.len()],
}

#[derive(Debug)]
struct Shown {
    standing: Standing,
    since: Instant,
    /// Why the last check failed, if it did.
    failed: Option<String>,
}

impl ShownHealth {
    /// Of an application that was not asked yet.
    pub(crate) fn new(check: Option<HealthCheck>, now: Instant) -> Self {
        Self {
            check,
            shown: Mutex::new(Shown {
                standing: Standing::Starting,
                since: now,
                failed: None,
            }),
            results: Default::default(),
        }
    }

    /// For the admin endpoint.
    pub(crate) fn to_json(&self, now: Instant, wall: std::time::SystemTime) -> Value {
        let shown = lock(&self.shown);
        let since = wall - now.saturating_duration_since(shown.since);
        let since = jiff::Timestamp::try_from(since).map(|time| time.to_string());
        json!({
            "state": shown.standing.as_str(),
            "since": since.unwrap_or_default(),
            "check": self.question(),
            "failed": shown.failed,
        })
    }

    /// For the metrics of the service of that label.
    pub(crate) fn samples(&self, service: &str) -> Vec<Sample> {
        let is_in = lock(&self.shown).standing == Standing::In;
        let mut samples = vec![APPLICATION_HEALTHY.sample(&[service], f64::from(u8::from(is_in)))];
        for ((_, label), count) in CheckResult::ALL.iter().zip(&self.results) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                samples.push(APPLICATION_CHECKS.sample(&[service, label], count as f64));
            }
        }
        samples
    }

    fn question(&self) -> String {
        match &self.check {
            Some(check) => health_question(check),
            None => "none: there is no application".to_owned(),
        }
    }

    fn count(&self, result: &Result<(), Failed>) {
        let result = match result {
            Ok(()) => CheckResult::Passed,
            Err(failed) => failed.result(),
        };
        for ((one, _), count) in CheckResult::ALL.iter().zip(&self.results) {
            if *one == result {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn show(&self, standing: Standing, failed: Option<String>, now: Instant) {
        let mut shown = lock(&self.shown);
        if shown.standing != standing {
            (shown.standing, shown.since) = (standing, now);
        }
        shown.failed = failed;
    }
}

/// What a health check asks an application, and where.
pub fn health_question(check: &HealthCheck) -> String {
    let HealthCheck {
        address, question, ..
    } = check;
    match question {
        Question::Tcp => format!("tcp {address}"),
        Question::Http { path, .. } => format!("http {path} at {address}"),
        Question::Grpc { service } if service.is_empty() => format!("grpc at {address}"),
        Question::Grpc { service } => format!("grpc {service} at {address}"),
    }
}

/// Asks an application once, as a running sidecar does.
///
/// # Errors
/// How it failed, in words for operators.
pub async fn ask_health(check: &HealthCheck) -> Result<(), String> {
    let asked = check::check(check).await;
    asked.map_err(|failed| failed.to_string())
}

/// Asks every served application until the drain begins. The drain withdraws all registrations.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    snapshots: Snapshots,
    control: Arc<dyn ControlPlane>,
    draining: CancellationToken,
) {
    let mut probes = TaskSet::default();
    for service in shared.served.iter() {
        let asking = ask(Arc::clone(service), snapshots.clone(), Arc::clone(&control));
        probes.spawn(vital::until(
            "probing the application",
            draining.clone(),
            asking,
        ));
    }
    draining.cancelled().await;
    probes.shutdown().await;
    for service in shared.served.iter() {
        control.set_health(&service.name, service.port, false.into());
    }
}

async fn ask(
    service: Arc<ServedService>,
    mut snapshots: Snapshots,
    control: Arc<dyn ControlPlane>,
) {
    let health = &service.health;
    let Some(asked) = &health.check else {
        table::named(&mut snapshots, &service.name).await;
        health.show(Standing::In, None, Instant::now());
        control.set_health(&service.name, service.port, Told::Good);
        return std::future::pending().await;
    };
    let was_in = control.is_healthy(&service.name, service.port);
    let mut state = Health::new(asked, was_in, Instant::now());
    loop {
        // What the table does not name is denied: callers that learned of this workload before would be
        // refused.
        table::named(&mut snapshots, &service.name).await;
        let result = check(asked).await;
        let now = Instant::now();
        health.count(&result);
        let failed = result.err().map(|failed| failed.to_string());
        let change = state.handle(asked, failed.is_none(), now);
        health.show(state.standing(), failed.clone(), now);
        if let Some(standing) = change {
            tell(&service, standing, failed.as_deref());
        } else if let Some(reason) = &failed {
            tracing::debug!(service = %service.label, check = health.question(), reason, "a health check failed");
        }
        let told = match (state.standing(), failed) {
            (Standing::In, _) => Some(Told::Good),
            (Standing::Starting | Standing::Out, Some(reason)) => {
                Some(Told::Bad(format!("{}: {reason}", health.question())))
            }
            // It passes, and not often enough yet.
            (Standing::Starting | Standing::Out, None) => None,
        };
        if let Some(told) = told {
            control.set_health(&service.name, service.port, told);
        }
        tokio::time::sleep(state.pause(asked)).await;
    }
}

fn tell(service: &ServedService, standing: Standing, failed: Option<&str>) {
    let check = service.health.question();
    match standing {
        Standing::In => {
            tracing::info!(service = %service.label, check, "the application is healthy")
        }
        Standing::Out | Standing::Starting => {
            let reason = failed.unwrap_or_default();
            tracing::warn!(service = %service.label, check, reason, "the application is not healthy: not registered");
        }
    }
}
