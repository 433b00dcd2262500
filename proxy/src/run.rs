//! Starts and stops the sidecar: binds every socket, starts the workers, follows the table, drains.
//!
//! All that can fail is in [`start`]; after it the sidecar runs until [`Running::until`] has drained it. The
//! types of `stages.rs` fix the order of the steps.

pub(crate) mod admin;
mod bind;
mod listeners;
mod memory;
mod mesh_port;
mod reset_key;
mod running;
mod stages;
pub(crate) mod table;
mod thread;
mod traces;

pub use running::Running;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_config::client::{CallSource, Health, Registration};
use weft_config::settings::{OutboundTarget, ProxySettings};
use weft_config::table::{NameError, Revision, ServiceName, Table};
use weft_transport::credentials::Credentials;
use weft_transport::endpoint::{BindError, StartError};
use weft_transport::metrics::Sample;
#[cfg(feature = "testing")]
use weft_transport::wire::memory::Network;

use crate::inbound::served::ServedService;
use crate::outbound::route::Destination;
use crate::resilience::destination::Destinations;
use crate::takeover::{Predecessor, TakeoverError};
use mesh_port::Carrier;

/// What the sidecar needs from the config service.
pub trait ControlPlane: Send + Sync + 'static {
    /// The table, whole, each time it changes.
    fn tables(&self) -> watch::Receiver<Option<Arc<Table>>>;
    /// Tells whether the application behind a service is healthy. A service is registered only while it is.
    fn set_health(&self, service: &ServiceName, port: u16, health: Health);
    /// What was told last, by this process or the one that it took over from.
    fn is_healthy(&self, service: &ServiceName, port: u16) -> bool;
    /// Reports that a revision is in force, or why it is not.
    fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>);
    /// Tables that were refused before [`Self::tables`] received them.
    fn refused_unseen(&self) -> u64;
    /// Whether bytes from the config service still arrive.
    fn is_connected(&self) -> bool;
    /// The connection to the config service as `/config_dump` shows it.
    fn status(&self) -> serde_json::Value;
    /// The state with which a successor goes on with the registration; the newest table for it is on disk.
    fn registration(&self) -> Pin<Box<dyn Future<Output = Registration> + Send + '_>>;
    /// Another process has taken over, and registers from here on.
    fn hand_over(&self);
    /// From here on the control plane is told of these calls, if it wants to know.
    fn tell_of(&self, calls: Arc<dyn CallSource>) {
        drop(calls);
    }
}

impl ControlPlane for weft_config::client::SubscriptionHandle {
    fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        Self::tables(self)
    }

    fn set_health(&self, service: &ServiceName, port: u16, health: Health) {
        Self::set_health(self, service, port, health);
    }

    fn is_healthy(&self, service: &ServiceName, port: u16) -> bool {
        Self::is_healthy(self, service, port)
    }

    fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>) {
        Self::acknowledge(self, revision, outcome);
    }

    fn refused_unseen(&self) -> u64 {
        Self::status(self).refused_unseen
    }

    fn is_connected(&self) -> bool {
        Self::status(self).connected
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(Self::status(self)).unwrap_or_default()
    }

    fn registration(&self) -> Pin<Box<dyn Future<Output = Registration> + Send + '_>> {
        Box::pin(Self::registration(self))
    }

    fn hand_over(&self) {
        Self::hand_over(self);
    }

    fn tell_of(&self, calls: Arc<dyn CallSource>) {
        Self::tell_of(self, calls);
    }
}

/// The process around the sidecar, for the admin endpoint.
pub trait Process: Send + Sync + 'static {
    /// The directives of the log in force, as `info,weft_proxy=debug`.
    fn log_filter(&self) -> String;
    /// Replaces the directives of the log filter.
    ///
    /// # Errors
    /// When they cannot be parsed; the old ones stay.
    fn set_log_filter(&self, directives: &str) -> Result<(), String>;
    /// Conditions that an operator should look into, although they stop nothing: `/ready` shows them.
    fn concerns(&self) -> Vec<String>;
    /// More of `/metrics`.
    fn samples(&self) -> Vec<Sample>;
    /// Tells the service manager that this process is the service, rather than another process of a takeover.
    fn is_main(&self);
}

/// Why the sidecar cannot run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The mesh port.
    #[error(transparent)]
    Mesh(#[from] BindError),
    /// A worker's endpoint.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A listener for the application, or the admin endpoint.
    #[error("cannot listen on {address} {purpose}: {error}")]
    Listen {
        /// As the settings name it.
        address: String,
        /// Its use, and the setting that changes it.
        purpose: &'static str,
        /// The error of the kernel.
        error: io::Error,
    },
    /// A service without a namespace, while the sidecar's identity has none either.
    #[error("the service {service} needs a namespace, as NAME.NAMESPACE: {error}")]
    Service {
        /// As the settings name it.
        service: String,
        /// The fault in the name.
        error: NameError,
    },
    /// The kernel refused a thread, a runtime or a file of the state directory.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// A thread ended while it started.
    #[error("a worker ended while it started")]
    Died,
    /// The process that runs already could not be taken over. It goes on.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
}

/// Runs the sidecar until `shutdown` is cancelled and the running work is over, or the drain's deadline has
/// passed.
///
/// # Errors
/// When something cannot be started; nothing runs then.
pub async fn run(
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    process: Option<Arc<dyn Process>>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let running = start(settings, credentials, control, process, None).await?;
    running.until(shutdown).await
}

/// Binds everything and starts the workers. From a `predecessor` it takes the sockets, once no step can fail
/// any more.
///
/// # Errors
/// See [`RunError`]. A predecessor then goes on as if nothing had happened.
pub async fn start(
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    process: Option<Arc<dyn Process>>,
    predecessor: Option<Predecessor>,
) -> Result<Running, RunError> {
    let carrier = Carrier::Udp;
    start_over(
        carrier,
        settings,
        credentials,
        control,
        process,
        predecessor,
    )
    .await
}

/// As [`start`], with its peers in this process's memory, for tests that do not depend on UDP or TLS. One
/// worker.
///
/// # Errors
/// See [`RunError`].
#[cfg(feature = "testing")]
pub async fn start_in_memory(
    network: &Network,
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
) -> Result<Running, RunError> {
    let carrier = Carrier::Memory(network.clone());
    start_over(carrier, settings, credentials, control, None, None).await
}

async fn start_over(
    carrier: Carrier,
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    process: Option<Arc<dyn Process>>,
    predecessor: Option<Predecessor>,
) -> Result<Running, RunError> {
    let bound = stages::Bound::bind(
        carrier,
        settings,
        credentials,
        control,
        process,
        predecessor,
    )?;
    let started = bound.build()?.start().await?;
    Ok(started.confirm().await?.serve())
}

fn served(
    settings: &ProxySettings,
    namespace: &str,
    destinations: &Destinations,
) -> Result<Vec<Arc<ServedService>>, RunError> {
    let now = Instant::now().into_std();
    let services = settings
        .inbound
        .iter()
        .flat_map(|inbound| &inbound.services);
    services
        .map(|one| {
            let name = one.service.in_namespace(namespace);
            let name = name.map_err(|error| RunError::Service {
                service: one.service.to_string(),
                error,
            })?;
            let (application, check) = (one.application.clone(), one.health.clone());
            let mut served =
                ServedService::new(name, one.port, (application, check), destinations, now);
            served.send_via = one.send_via;
            Ok(Arc::new(served))
        })
        .collect()
}

/// The destination of the listener on this port, if there is one.
fn destination(
    target: &OutboundTarget,
    namespace: &str,
    listener_port: Option<u16>,
) -> Result<Destination, RunError> {
    match target {
        OutboundTarget::Service { service, port } => {
            let name = service.in_namespace(namespace);
            let name = name.map_err(|error| RunError::Service {
                service: service.to_string(),
                error,
            })?;
            Ok(Destination::Service {
                text: name.to_string().into(),
                name,
                port: *port,
            })
        }
        OutboundTarget::ByHost => Ok(Destination::ByHost {
            namespace: namespace.into(),
            listener_port,
        }),
    }
}

/// The one place where the data path's randomness comes from.
fn random<T>(make: impl FnOnce(&mut rand::rngs::ThreadRng) -> T) -> T {
    make(&mut rand::rng())
}
