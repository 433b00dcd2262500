//! Probes whether the application accepts connections, and reports it to the config service, so that a
//! service is registered only while its application runs.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_transport::vital;

use crate::inbound::served::ServedService;
use crate::limits;
use crate::run::ControlPlane;
use crate::run::table::{self, Snapshots};
use crate::stream::{ApplicationStream, close};
use crate::worker::Shared;

/// Probes every served application until the drain begins. The drain withdraws all registrations.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    snapshots: Snapshots,
    control: Arc<dyn ControlPlane>,
    draining: CancellationToken,
) {
    let mut probes = JoinSet::new();
    for service in shared.served.iter() {
        let timeout = shared.timeouts.application_connect;
        let probing = probe(
            Arc::clone(service),
            snapshots.clone(),
            Arc::clone(&control),
            timeout,
        );
        probes.spawn(vital::until(
            "probing the application",
            draining.clone(),
            probing,
        ));
    }
    draining.cancelled().await;
    probes.shutdown().await;
    for service in shared.served.iter() {
        control.set_health(&service.name, service.port, false);
    }
}

async fn probe(
    service: Arc<ServedService>,
    mut snapshots: Snapshots,
    control: Arc<dyn ControlPlane>,
    timeout: std::time::Duration,
) {
    let mut was: Option<bool> = None;
    loop {
        // What the table does not name is denied: callers that learned of this workload before would be
        // refused.
        table::named(&mut snapshots, &service.name).await;
        let outcome = ApplicationStream::connect(&service.application, timeout).await;
        let healthy = outcome.is_ok();
        if was != Some(healthy) {
            match &outcome {
                Ok(_) => {
                    tracing::info!(service = %service.label, application = %service.application, "application accepts")
                }
                Err(error) => {
                    tracing::warn!(service = %service.label, application = %service.application, %error,
                    "application does not accept: not registered")
                }
            }
            control.set_health(&service.name, service.port, healthy);
            was = Some(healthy);
        }
        if let Ok(stream) = outcome {
            close(stream).await;
        }
        let interval = if healthy {
            limits::PROBE_INTERVAL_UP
        } else {
            limits::PROBE_INTERVAL_DOWN
        };
        tokio::time::sleep(interval).await;
    }
}
