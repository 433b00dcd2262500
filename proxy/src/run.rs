//! Starts and stops the sidecar: binds every socket, starts the workers, follows the table, drains.
//!
//! [`start`] is all that can fail; after it the sidecar runs until [`Running::until`] has drained it.

mod bind;
pub(crate) mod table;
mod thread;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rand::RngExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_config::settings::{LocalAddress, OutboundTarget, ProxySettings};
use weft_config::table::{NameError, Revision, ServiceName, Table};
use weft_transport::credentials::Credentials;
use weft_transport::endpoint::{BindError, Epoch, MeshSettings, ResetKey, StartError, Workers};

use crate::access_log::Writer;
use crate::admin::{self, State};
use crate::health;
use crate::inbound::served::{Served, ServedService};
use crate::metrics::Shard;
use crate::outbound::route::Destination;
use crate::resilience::destination::Destinations;
use crate::resilience::rate::NamedRates;
use crate::worker::Shared;
use thread::Plan;

/// What the sidecar needs of the config service.
pub trait ControlPlane: Send + Sync + 'static {
    /// The table, whole, each time it changes.
    fn tables(&self) -> watch::Receiver<Option<Arc<Table>>>;
    /// Tells whether the application behind a service accepts connections. A service is registered
    /// only while it does.
    fn set_health(&self, service: &ServiceName, port: u16, healthy: bool);
    /// Tells that a revision is in force, or why it is not.
    fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>);
    /// Whether the config service is being heard.
    fn is_connected(&self) -> bool;
    /// What `/config_dump` shows of the connection to the config service.
    fn status(&self) -> serde_json::Value;
}

impl ControlPlane for weft_config::client::SubscriptionHandle {
    fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        Self::tables(self)
    }

    fn set_health(&self, service: &ServiceName, port: u16, healthy: bool) {
        Self::set_health(self, service, port, healthy);
    }

    fn acknowledge(&self, revision: &Revision, outcome: Result<(), String>) {
        Self::acknowledge(self, revision, outcome);
    }

    fn is_connected(&self) -> bool {
        Self::status(self).connected
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(Self::status(self)).unwrap_or_default()
    }
}

/// Changes what the process logs, for `/logging`.
pub trait LogFilter: Send + Sync + 'static {
    /// The directives in force, as `info,weft_proxy=debug`.
    fn current(&self) -> String;
    /// Replaces them.
    ///
    /// # Errors
    /// When they cannot be parsed; the old ones stay.
    fn replace(&self, directives: &str) -> Result<(), String>;
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
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As the settings name it.
        address: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// A service without a namespace, and an identity that has none either.
    #[error("the service {service} needs a namespace, as NAME.NAMESPACE: {error}")]
    Service {
        /// As the settings name it.
        service: String,
        /// What is wrong with the name.
        error: NameError,
    },
    /// The kernel refused a thread, a runtime or a file of the state directory.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
    /// A thread ended while it started.
    #[error("a worker ended while it started")]
    Died,
}

/// Runs the sidecar until `shutdown` is cancelled and what ran is over, or the drain's deadline is.
///
/// # Errors
/// When something cannot be started; nothing runs then.
pub async fn run(
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    log: Option<Arc<dyn LogFilter>>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let running = start(settings, credentials, control, log).await?;
    running.until(shutdown).await;
    Ok(())
}

/// A sidecar that runs.
pub struct Running {
    state: Arc<State>,
    control: Arc<dyn ControlPlane>,
    settings: ProxySettings,
    outbound: Vec<LocalAddress>,
    mesh: SocketAddr,
    admin: SocketAddr,
    finish: CancellationToken,
    deadline: watch::Sender<Option<Instant>>,
    workers: Vec<oneshot::Receiver<()>>,
    /// Control work: table, health, admin.
    tasks: JoinSet<()>,
}

/// Binds everything and starts the workers.
///
/// # Errors
/// See [`RunError`].
pub async fn start(
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    log: Option<Arc<dyn LogFilter>>,
) -> Result<Running, RunError> {
    let svid = credentials.svid();
    let namespace = svid
        .id()
        .workload()
        .map_or_else(String::new, |workload| workload.namespace.to_owned());
    let called = Arc::new(Destinations::default());
    let served = served(&settings, &namespace, &called)?;
    let workers = Workers::try_from(u8::try_from(settings.workers.get()).unwrap_or(u8::MAX))
        .unwrap_or(Workers::MIN);
    let mesh_settings = MeshSettings {
        listen: settings
            .inbound
            .as_ref()
            .map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |inbound| {
                inbound.listen
            }),
        workers,
        tuning: settings.transport.clone(),
        epoch: Epoch(random(|random| random.random())),
        reset_key: reset_key(&settings.state_dir)?,
    };
    let mesh_sockets = weft_transport::endpoint::bind(&mesh_settings)?;
    let mesh = mesh_sockets
        .first()
        .map_or(Ok(mesh_settings.listen), |socket| socket.local_address())?;
    let destinations = destinations(&settings, &namespace)?;
    let bound = bind::outbound(&settings.outbound, usize::from(workers.get()))?;
    let admin_listener = bind::admin(settings.admin)?;
    let admin_address = admin_listener.local_addr()?;
    if !admin_address.ip().is_loopback() {
        tracing::warn!(
            address = %admin_address,
            "the admin endpoint is not on loopback: whoever reaches it can read metrics, peers and the table"
        );
    }

    let served = Served::new(served, &namespace);
    let shared = Arc::new(Shared {
        identity: svid.id().clone(),
        principal: Arc::from(svid.id().as_str()),
        service: served
            .only_name()
            .map_or_else(|| Arc::from(""), |name| Arc::from(name.to_string())),
        via: format!("weft-{:08x}", random(|random| random.random::<u32>())).into(),
        served,
        timeouts: settings.timeouts,
        in_flight_max: settings.concurrency.in_flight_max,
        destinations: called,
        route_rates: NamedRates::default(),
        traces: Arc::default(),
        follows_traces: settings.inbound.is_some() && !settings.outbound.is_empty(),
    });
    let writer = Writer::start(settings.access_log)?;
    let finish = CancellationToken::new();
    let (deadline, drained_by) = watch::channel(None);
    let mut ended = Vec::new();
    let (mut shards, mut pools, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
    let outbound = bound.addresses;
    for (index, (mesh_socket, sockets)) in mesh_sockets.into_iter().zip(bound.workers).enumerate() {
        let shard = Arc::new(Shard::default());
        let plan = Plan {
            shared: Arc::clone(&shared),
            log: Arc::new(writer.log(settings.access_log, Arc::clone(&shard))),
            shard: Arc::clone(&shard),
            mesh_socket,
            serves: settings.inbound.is_some(),
            sockets: destinations
                .iter()
                .cloned()
                .zip(sockets)
                .filter_map(|(one, socket)| Some((one, socket?)))
                .collect(),
            listener_ports: outbound.iter().map(port).collect(),
            tables: control.tables(),
            trust_domain: svid.id().trust_domain().clone(),
            credentials: credentials.clone(),
            finish: finish.clone(),
            deadline: drained_by.clone(),
        };
        let (started, over) = thread::spawn(index, plan)?;
        let started = started.await.map_err(|_| RunError::Died)??;
        pools.push(started.pool);
        snapshots.push(started.directory);
        shards.push(shard);
        ended.push(over);
    }
    let state = Arc::new(State::new(
        credentials,
        Arc::clone(&control),
        shards,
        pools,
        snapshots.clone(),
        Arc::clone(&shared),
        log,
    ));
    let mut tasks = JoinSet::new();
    tasks.spawn(table::acknowledge(
        Arc::clone(&control),
        snapshots,
        svid.id().trust_domain().clone(),
        state.updates(),
    ));
    tasks.spawn(health::watch(
        Arc::clone(&shared),
        Arc::clone(&control),
        state.draining(),
    ));
    tasks.spawn(admin::serve(admin_listener, Arc::clone(&state)));
    Ok(Running {
        state,
        control,
        settings,
        outbound,
        mesh,
        admin: admin_address,
        finish,
        deadline,
        workers: ended,
        tasks,
    })
}

impl Running {
    /// Where the application connects, in the order of the settings.
    pub fn outbound(&self) -> &[LocalAddress] {
        &self.outbound
    }

    /// The UDP address of the mesh side.
    pub fn mesh(&self) -> SocketAddr {
        self.mesh
    }

    /// The address of the admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until every worker decides by a table: from then on requests are served.
    pub fn served(&self) -> impl Future<Output = ()> + Send + use<> {
        table::everywhere(self.state.snapshots().clone())
    }

    /// Waits for `shutdown` or `POST /drain`, then drains: deregister, go on accepting while callers
    /// still have the old endpoints, GOAWAY, finish, and cut off at the deadline.
    pub async fn until(mut self, shutdown: CancellationToken) {
        let draining = self.state.draining();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = draining.cancelled() => {}
        }
        draining.cancel();
        let deadline = Instant::now() + self.settings.drain.deadline;
        tracing::info!(
            deadline_s = self.settings.drain.deadline.as_secs(),
            "draining"
        );
        self.deadline.send_replace(Some(deadline));
        // The health watch has withdrawn the services; callers learn it within the grace.
        tokio::time::sleep(self.settings.drain.accept).await;
        self.finish.cancel();
        for worker in self.workers.drain(..) {
            // A worker that died has ended, too.
            let _ = worker.await;
        }
        for address in &self.outbound {
            if let LocalAddress::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        self.tasks.shutdown().await;
        drop(self.control);
        tracing::info!("drained");
    }
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
            Ok(Arc::new(ServedService::new(
                name,
                one.port,
                one.application.clone(),
                destinations,
                now,
            )))
        })
        .collect()
}

fn destinations(settings: &ProxySettings, namespace: &str) -> Result<Vec<Destination>, RunError> {
    settings
        .outbound
        .iter()
        .map(|listener| match &listener.target {
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
                listener_port: None,
            }),
        })
        .collect()
}

fn port(address: &LocalAddress) -> Option<u16> {
    match address {
        LocalAddress::Tcp(address) => Some(address.port()),
        LocalAddress::Unix(_) => None,
    }
}

/// The key of stateless reset tokens: kept, so that after a crash peers learn at once that their
/// connections are gone.
fn reset_key(state_dir: &Path) -> io::Result<ResetKey> {
    let path = state_dir.join("reset.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = <[u8; ResetKey::LENGTH]>::try_from(bytes)
    {
        return Ok(ResetKey::new(key));
    }
    let key: [u8; ResetKey::LENGTH] = random(|random| random.random());
    write_private(&path, &key)?;
    Ok(ResetKey::new(key))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The one place where the data path's randomness comes from.
fn random<T>(make: impl FnOnce(&mut rand::rngs::ThreadRng) -> T) -> T {
    make(&mut rand::rng())
}
