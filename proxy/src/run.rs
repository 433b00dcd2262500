//! Starts and stops the sidecar: binds every socket, starts the workers, follows the table, drains.
//!
//! [`start`] is all that can fail; after it the sidecar runs until [`Running::until`] has drained it.

pub(crate) mod admin;
mod bind;
mod memory;
mod mesh;
mod reset_key;
mod running;
pub(crate) mod table;
mod thread;

pub use running::Running;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rand::RngExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_config::client::Registration;
use weft_config::settings::{OutboundTarget, ProxySettings};
use weft_config::table::{NameError, Revision, ServiceName, Table};
use weft_transport::credentials::Credentials;
use weft_transport::endpoint::{BindError, Epoch, MeshSettings, MeshTls, StartError, Workers};
use weft_transport::private_socket::PrivateSocket;
use weft_transport::vital;
use weft_transport::wire::Port;
#[cfg(feature = "testing")]
use weft_transport::wire::memory::Network;

use crate::access_log::Writer;
use crate::admin::outlook::Doors;
use crate::admin::server::Servers;
use crate::admin::{self as routes, State};
use crate::health;
use crate::inbound::served::{Served, ServedService};
use crate::metrics::Shard;
use crate::outbound::route::Destination;
use crate::resilience::destination::Destinations;
use crate::resilience::rate::NamedRates;
use crate::takeover::{Expected, Incumbent, Kept, Predecessor, TakeoverError, socket_error};
use crate::worker::Shared;
use admin::At;
use mesh::Carrier;
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
    /// Tables that were refused before [`Self::tables`] had them.
    fn refused_unseen(&self) -> u64;
    /// Whether the config service is being heard.
    fn is_connected(&self) -> bool;
    /// What `/config_dump` shows of the connection to the config service.
    fn status(&self) -> serde_json::Value;
    /// What a process that takes over needs to go on with the registration, with the newest table on disk
    /// for it.
    fn registration(&self) -> Pin<Box<dyn Future<Output = Registration> + Send + '_>>;
    /// Another process has taken over, and registers from here on.
    fn hand_over(&self);
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
}

/// The process around the sidecar, for the admin endpoint.
pub trait Process: Send + Sync + 'static {
    /// The directives of the log in force, as `info,weft_proxy=debug`.
    fn log_filter(&self) -> String;
    /// Replaces them.
    ///
    /// # Errors
    /// When they cannot be parsed; the old ones stay.
    fn set_log_filter(&self, directives: &str) -> Result<(), String>;
    /// What an operator should look after, although it stops nothing: `/ready` says it.
    fn concerns(&self) -> Vec<String>;
    /// More of `/metrics`, in the text format of Prometheus.
    fn exposition(&self) -> String;
    /// Tells the service manager that this process is the service, rather than another one that took part in a
    /// takeover.
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
        /// What it is for, and what to write for another one.
        purpose: &'static str,
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
    /// The process that runs already could not be taken over. It goes on.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
}

/// Runs the sidecar until `shutdown` is cancelled and what ran is over, or the drain's deadline is.
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

/// Binds everything and starts the workers. Of a `predecessor` it takes what that has, once nothing can fail
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
    start_over(
        Carrier::Udp,
        settings,
        credentials,
        control,
        process,
        predecessor,
    )
    .await
}

/// As [`start`], with its peers in this process's memory, for tests of what does not depend on UDP or TLS. One worker.
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
    mut predecessor: Option<Predecessor>,
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
    let earlier = predecessor.as_ref().map(Predecessor::epochs);
    let earlier = earlier.unwrap_or_default();
    let mesh_settings = MeshSettings {
        listen: settings
            .inbound
            .as_ref()
            .map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |inbound| {
                inbound.listen
            }),
        workers,
        tuning: settings.transport.clone(),
        epoch: Epoch::choose(random(|random| random.random()), &earlier),
        reset_key: reset_key::reset_key(&settings.state_dir),
    };
    let mut estate = predecessor.as_mut().and_then(Predecessor::take_estate);
    let inherited = estate.as_mut().and_then(|estate| estate.mesh.take());
    let mesh_ports = mesh::ports(carrier, &mesh_settings, svid.id(), inherited)?;
    let readings: Vec<_> = mesh_ports.iter().filter_map(Port::reading).collect();
    let mesh = mesh_ports
        .first()
        .map_or(Ok(mesh_settings.listen), Port::local_address)?;
    if settings.inbound.is_some() && mesh.is_ipv4() && mesh_settings.listen.is_ipv6() {
        tracing::warn!(%mesh, wanted = %mesh_settings.listen,
            "the mesh port stays without IPv6, as the process that is taken over bound it: restart without a takeover to change that");
    }
    let mut listeners = Vec::new();
    for (number, listener) in settings.outbound.iter().enumerate() {
        let workers = usize::from(workers.get());
        let bound = bind::outbound(&listener.listen, number, workers, estate.as_mut())?;
        let destination = destination(&listener.target, &namespace, bound.port())?;
        listeners.push((destination, bound));
    }
    let admin_sockets = admin::Bound::bind(&settings.admin, estate.as_mut())?;
    // What the settings no longer name is closed with it.
    drop(estate);
    let incumbent = match &settings.takeover_socket {
        Some(path) => Some(Incumbent {
            door: PrivateSocket::make(path).map_err(|error| socket_error(path, error))?,
            expects: Expected::new(&settings, svid.id()),
            kept: Kept {
                mesh: match settings.inbound {
                    Some(_) => Some(mesh::share(&mesh_ports)?),
                    None => None,
                },
                listeners: listeners
                    .iter()
                    .map(|(_, bound)| bound.share())
                    .collect::<io::Result<_>>()?,
                admin: admin_sockets.share()?,
            },
            epoch: mesh_settings.epoch,
        }),
        None => None,
    };
    let admin_address = admin_sockets.address()?;

    let served = Served::new(served, &namespace);
    let shared = Arc::new(Shared {
        identity: svid.id().clone(),
        locality: settings.locality.clone(),
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
    let tls = MeshTls::new(&credentials, &settings.transport).map_err(StartError::from)?;
    let [go, finish, rest, refuse] = [(); 4].map(|()| CancellationToken::new());
    // Workers that run already end if a later step fails.
    let failed = finish.clone().drop_guard();
    let (deadline, drained_by) = watch::channel(None);
    let mut ended = Vec::new();
    let (mut shards, mut pools, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
    for (index, mesh_port) in mesh_ports.into_iter().enumerate() {
        let shard = Arc::new(Shard::default());
        let plan = Plan {
            shared: Arc::clone(&shared),
            log: Arc::new(writer.log(settings.access_log, Arc::clone(&shard))),
            shard: Arc::clone(&shard),
            mesh_port,
            serves: settings.inbound.is_some(),
            sockets: listeners
                .iter_mut()
                .filter_map(|(destination, bound)| Some((destination.clone(), bound.take(index)?)))
                .collect(),
            tables: control.tables(),
            trust_domain: svid.id().trust_domain().clone(),
            tls: tls.clone(),
            go: go.clone(),
            finish: finish.clone(),
            rest: rest.clone(),
            refuse: refuse.clone(),
            deadline: drained_by.clone(),
        };
        let (started, over) = thread::spawn(index, plan)?;
        let started = started.await.map_err(|_| RunError::Died)??;
        pools.push(started.pool);
        snapshots.push(started.directory);
        shards.push(shard);
        ended.push(over);
    }
    let outbound = listeners.iter();
    let doors = Doors {
        mesh: settings.inbound.is_some().then_some(mesh),
        outbound: outbound
            .map(|(destination, bound)| (bound.address.clone(), destination.clone()))
            .collect(),
    };
    let state = Arc::new(State::new(
        credentials,
        Arc::clone(&control),
        shards,
        pools,
        snapshots.clone(),
        (Arc::clone(&shared), doors),
        process.clone(),
    ));
    let (admin_place, admin_opening) = (admin_sockets.place(), admin_sockets.opening());
    let refusal = admin::refusal_of_changes(&settings.admin);
    let endpoints = admin_sockets.endpoints(|at| match (at, &refusal) {
        (At::Observe, _) => routes::observe(Arc::clone(&state)),
        (At::Loopback, Some(refusal)) => routes::reads(Arc::clone(&state), refusal),
        (At::Loopback, None) | (At::Socket, _) => routes::changes(Arc::clone(&state)),
    })?;
    if let Some(predecessor) = &mut predecessor {
        predecessor.confirm().await?;
    }
    for reading in &readings {
        reading.begin();
    }
    go.cancel();
    let mut tasks = JoinSet::new();
    let acknowledging = table::acknowledge(
        Arc::clone(&control),
        snapshots,
        svid.id().trust_domain().clone(),
        state.updates(),
    );
    tasks.spawn(vital::until(
        "acknowledging tables",
        finish.clone(),
        acknowledging,
    ));
    let watching = health::watch(Arc::clone(&shared), Arc::clone(&control), state.draining());
    tasks.spawn(vital::until(
        "watching the application",
        state.draining(),
        watching,
    ));
    let mut servers = Servers::default();
    for (endpoint, router) in endpoints {
        servers.serve(endpoint, router);
    }
    failed.disarm();
    Ok(Running {
        state,
        control,
        drain: settings.drain,
        outbound: listeners.into_iter().map(|(_, one)| one.address).collect(),
        mesh,
        admin: admin_address,
        finish,
        rest,
        refuse,
        handed_over: CancellationToken::new(),
        deadline,
        workers: ended,
        readings,
        predecessor,
        incumbent,
        process,
        tasks,
        servers,
        admin_place,
        admin_opening,
    })
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
            let mut served =
                ServedService::new(name, one.port, one.application.clone(), destinations, now);
            served.send_via = one.send_via;
            Ok(Arc::new(served))
        })
        .collect()
}

/// What a listener leads to, which is on this port if it is on one.
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
