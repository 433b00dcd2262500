//! The start of a sidecar, as a chain of types of which each consumes the one before:
//!
//! ```text
//! Bound --build--> Built --start--> Started --confirm--> Confirmed --serve--> Running
//! ```
//! - [`Bound`]: every socket is here, taken over or new. No work is done.
//! - [`Built`]: the state that all workers share, the log and TLS exist.
//! - [`Started`]: the workers run, and neither read the mesh port nor accept.
//! - [`Confirmed`]: no step can fail any more, and no other process reads the mesh port.
//!
//! Dropping one of them before [`Confirmed`] leaves the predecessor as it was, and ends workers that run. The
//! only way to accept is [`Confirmed::serve`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft_config::settings::ProxySettings;
use weft_transport::credentials::{Credentials, Svid};
use weft_transport::endpoint::{Epoch, MeshSettings, MeshTls, Reading, StartError, Workers};
use weft_transport::private_socket::{Opening, PrivateSocket, SocketPlace};
use weft_transport::tasks::TaskSet;
use weft_transport::vital;
use weft_transport::wire::Port;

use super::admin::{self, At};
use super::listeners::{self, Listener};
use super::mesh_port::{self, Carrier};
use super::running::{Serving, Signals};
use super::thread::{self, Plan};
use super::traces::{Queues, SpanExport};
use super::{ControlPlane, Process, RunError, Running, random, reset_key, served, table};
use crate::access_log::Writer;
use crate::admin::outlook::Listening;
use crate::admin::server::{Endpoint, Servers};
use crate::admin::{self as routes, State};
use crate::health;
use crate::inbound::served::{Served, ServedService};
use crate::metrics::Shard;
use crate::recent::{Recent, Recorder};
use crate::record::{Observer, Observers};
use crate::resilience::destination::Destinations;
use crate::resilience::rate::NamedRates;
use crate::signals::Calls;
use crate::takeover::{
    Before, Expected, Incumbent, KeptSockets, MeshPortRight, Predecessor, socket_error,
};
use crate::traces::Tracing;
use crate::worker::Shared;

/// The values that every stage passes on.
struct StageContext {
    settings: ProxySettings,
    credentials: Credentials,
    control: Arc<dyn ControlPlane>,
    process: Option<Arc<dyn Process>>,
    /// The certificate with which it started.
    svid: Arc<Svid>,
}

/// The mesh port.
struct Mesh {
    address: SocketAddr,
    /// One for each worker.
    ports: Vec<Port>,
}

/// Every socket is here.
pub(super) struct Bound {
    given: StageContext,
    namespace: String,
    services: Vec<Arc<ServedService>>,
    destinations: Arc<Destinations>,
    mesh: Mesh,
    listeners: Vec<Listener>,
    admin: admin::Bound,
    incumbent: Option<Incumbent>,
    before: Before,
}

/// The state that workers share is made.
pub(super) struct Built {
    given: StageContext,
    shared: Arc<Shared>,
    writer: Writer,
    tls: MeshTls,
    mesh: Mesh,
    listeners: Vec<Listener>,
    admin: admin::Bound,
    incumbent: Option<Incumbent>,
    before: Before,
}

/// The workers run.
pub(super) struct Started {
    before: Before,
    sidecar: Sidecar,
}

/// Nothing can fail any more.
pub(super) struct Confirmed {
    right: MeshPortRight,
    sidecar: Sidecar,
}

/// A sidecar whose workers run.
struct Sidecar {
    given: StageContext,
    state: Arc<State>,
    signals: Signals,
    /// Ends the workers if the start fails.
    failed: DropGuard,
    workers: Vec<oneshot::Receiver<()>>,
    /// The reader of the mesh port, for each worker.
    readings: Vec<Arc<Reading>>,
    mesh: SocketAddr,
    listeners: Vec<Listener>,
    admin: Admin,
    incumbent: Option<Incumbent>,
    queues: Queues,
}

/// The admin endpoint, which does not answer yet.
struct Admin {
    address: SocketAddr,
    place: Option<SocketPlace>,
    opening: Option<Opening>,
    endpoints: Vec<(Endpoint, Router)>,
}

impl Bound {
    /// Takes the sockets of a predecessor, and binds those that it does not have.
    pub(super) fn bind(
        carrier: Carrier,
        settings: ProxySettings,
        credentials: Credentials,
        control: Arc<dyn ControlPlane>,
        process: Option<Arc<dyn Process>>,
        predecessor: Option<Predecessor>,
    ) -> Result<Self, RunError> {
        let svid = credentials.svid();
        let workload = svid.id().workload();
        let namespace = workload.map_or_else(String::new, |one| one.namespace.to_owned());
        let destinations = Arc::new(Destinations::default());
        let services = served(&settings, &namespace, &destinations)?;
        let workers = u8::try_from(settings.workers.get()).unwrap_or(u8::MAX);
        let workers = Workers::try_from(workers).unwrap_or(Workers::MIN);
        let earlier = predecessor.as_ref().map(Predecessor::epochs);
        let earlier = earlier.unwrap_or_default();
        let listen = settings.inbound.as_ref().map(|inbound| inbound.listen);
        let mesh_settings = MeshSettings {
            listen: listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            workers,
            tuning: settings.transport.clone(),
            epoch: Epoch::choose(random(|random| random.random()), &earlier),
            reset_key: reset_key::reset_key(&settings.state_dir),
        };
        let (mut offered, before) = match predecessor.map(Predecessor::inherit) {
            Some((offered, before)) => (Some(offered), before),
            None => (None, Before::None),
        };
        let inherited = offered.as_mut().and_then(|offered| offered.mesh.take());
        let ports = mesh_port::ports(carrier, &mesh_settings, svid.id(), inherited)?;
        let mesh = Mesh::of(ports, &mesh_settings, settings.inbound.is_some())?;
        let workers = usize::from(workers.get());
        let offers = offered.as_mut();
        let listeners = listeners::all(&settings, &namespace, &services, workers, offers)?;
        let admin = admin::Bound::bind(&settings.admin, offered.as_mut())?;
        // This closes the sockets that the settings no longer name.
        drop(offered);
        let epoch = mesh_settings.epoch;
        let incumbent = incumbent(&settings, &svid, &mesh, &listeners, &admin, epoch)?;
        Ok(Self {
            given: StageContext {
                settings,
                credentials,
                control,
                process,
                svid,
            },
            namespace,
            services,
            destinations,
            mesh,
            listeners,
            admin,
            incumbent,
            before,
        })
    }

    /// Makes what the workers share.
    pub(super) fn build(self) -> Result<Built, RunError> {
        let Self {
            given,
            namespace,
            services,
            destinations,
            mesh,
            listeners,
            admin,
            incumbent,
            before,
        } = self;
        let (settings, svid) = (&given.settings, &given.svid);
        let served = Served::new(services, &namespace);
        let (service, traces) = (served.only_name(), settings.traces.as_ref());
        let shared = Arc::new(Shared {
            identity: svid.id().clone(),
            locality: settings.locality.clone(),
            principal: Arc::from(svid.id().as_str()),
            service: service.map_or_else(|| Arc::from(""), |name| Arc::from(name.to_string())),
            via: format!("weft-{:08x}", random(|random| random.random::<u32>())).into(),
            served,
            timeouts: settings.timeouts,
            in_flight_max: settings.concurrency.in_flight_max,
            destinations,
            route_rates: NamedRates::default(),
            revision_header: settings.revision_header,
            server_timing: settings.server_timing,
            names: Arc::default(),
            propagation: Arc::default(),
            tracing: traces.map(|traces| Arc::new(Tracing::new(traces.ratio))),
            follows_traces: settings.inbound.is_some() && !settings.outbound.is_empty(),
        });
        let writer = Writer::start(settings.access_log)?;
        let tls =
            MeshTls::new(&given.credentials, &settings.transport).map_err(StartError::from)?;
        Ok(Built {
            given,
            shared,
            writer,
            tls,
            mesh,
            listeners,
            admin,
            incumbent,
            before,
        })
    }
}

impl Mesh {
    fn of(ports: Vec<Port>, settings: &MeshSettings, serves: bool) -> Result<Self, RunError> {
        let address = ports
            .first()
            .map_or(Ok(settings.listen), Port::local_address)?;
        if serves && address.is_ipv4() && settings.listen.is_ipv6() {
            tracing::warn!(mesh = %address, wanted = %settings.listen,
                "the mesh port stays without IPv6, as the process that is taken over bound it: restart without a takeover to change that");
        }
        Ok(Self { address, ports })
    }
}

/// The sockets that a later process may take over, if the settings have a socket for it.
fn incumbent(
    settings: &ProxySettings,
    svid: &Svid,
    mesh: &Mesh,
    listeners: &[Listener],
    admin: &admin::Bound,
    epoch: Epoch,
) -> Result<Option<Incumbent>, RunError> {
    let Some(path) = &settings.takeover_socket else {
        return Ok(None);
    };
    let listeners = listeners.iter().map(|one| one.bound.share());
    Ok(Some(Incumbent {
        socket: PrivateSocket::make(path).map_err(|error| socket_error(path, error))?,
        expects: Expected::new(settings, svid.id()),
        kept: KeptSockets {
            mesh: match settings.inbound {
                Some(_) => Some(mesh_port::share(&mesh.ports)?),
                None => None,
            },
            listeners: listeners.collect::<io::Result<_>>()?,
            admin: admin.share()?,
        },
        epoch,
    }))
}

impl Built {
    /// Starts the workers. They perform a handshake with themselves, and wait.
    pub(super) async fn start(self) -> Result<Started, RunError> {
        let Self {
            given,
            shared,
            writer,
            tls,
            mesh,
            mut listeners,
            admin,
            incumbent,
            before,
        } = self;
        let settings = &given.settings;
        let readings: Vec<_> = mesh.ports.iter().filter_map(Port::reading).collect();
        let signals = Signals::new();
        // Workers that run already end if a later step fails.
        let failed = signals.finish.clone().drop_guard();
        let (mut workers, mut shards, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        let (mut snapshots, mut queues) = (Vec::new(), Queues::default());
        let recent = Arc::new(Recent::default());
        for (index, mesh_port) in mesh.ports.into_iter().enumerate() {
            let shard = Arc::new(Shard::default());
            let sockets = listeners.iter_mut().filter_map(|listener| {
                let socket = listener.bound.take(index)?;
                Some((listener.leads_to.clone(), socket))
            });
            let log = writer.log(settings.access_log, Arc::clone(&shard));
            let recorder = Recorder(Arc::clone(&recent));
            let mut observers: Vec<Box<dyn Observer + Send + Sync>> =
                vec![Box::new(log), Box::new(recorder)];
            observers.extend(queues.add(&shared));
            let plan = Plan {
                shared: Arc::clone(&shared),
                observers: Arc::new(Observers::new(observers)),
                shard: Arc::clone(&shard),
                mesh_port,
                serves: settings.inbound.is_some(),
                sockets: sockets.collect(),
                tables: given.control.tables(),
                trust_domain: given.svid.id().trust_domain().clone(),
                tls: tls.clone(),
                go: signals.go.clone(),
                finish: signals.finish.clone(),
                rest: signals.rest.clone(),
                refuse: signals.refuse.clone(),
                deadline: signals.deadline.subscribe(),
            };
            let (started, over) = thread::spawn(index, plan)?;
            let started = started.await.map_err(|_| RunError::Died)??;
            pools.push(started.pool);
            snapshots.push(started.directory);
            shards.push(shard);
            workers.push(over);
        }
        let listening = Listening {
            mesh: settings.inbound.is_some().then_some(mesh.address),
            outbound: listeners
                .iter()
                .filter_map(Listener::of_application)
                .collect(),
        };
        given
            .control
            .tell_of(Arc::new(Calls::new(shards.clone(), recent)));
        let state = Arc::new(State::new(
            given.credentials.clone(),
            Arc::clone(&given.control),
            shards,
            pools,
            snapshots,
            (shared, listening),
            given.process.clone(),
        ));
        let admin = Admin::new(admin, settings, &state)?;
        let sidecar = Sidecar {
            given,
            state,
            signals,
            failed,
            workers,
            readings,
            mesh: mesh.address,
            listeners,
            admin,
            incumbent,
            queues,
        };
        Ok(Started { before, sidecar })
    }
}

impl Admin {
    fn new(
        bound: admin::Bound,
        settings: &ProxySettings,
        state: &Arc<State>,
    ) -> Result<Self, RunError> {
        let (address, place, opening) = (bound.address()?, bound.place(), bound.opening());
        let refusal = admin::refusal_of_changes(&settings.admin);
        let endpoints = bound.endpoints(|at| match (at, &refusal) {
            (At::Observe, _) => routes::observe(Arc::clone(state)),
            (At::Loopback, Some(refusal)) => routes::reads(Arc::clone(state), refusal),
            (At::Loopback, None) | (At::Socket, _) => routes::changes(Arc::clone(state)),
        })?;
        Ok(Self {
            address,
            place,
            opening,
            endpoints,
        })
    }
}

impl Started {
    /// Asks a process before this one to hand over.
    pub(super) async fn confirm(self) -> Result<Confirmed, RunError> {
        let Self { before, sidecar } = self;
        let right = before.confirm().await?;
        Ok(Confirmed { right, sidecar })
    }
}

impl Confirmed {
    /// Reads, accepts and answers from here on.
    pub(super) fn serve(self) -> Running {
        let Self { right, sidecar } = self;
        let Sidecar {
            given,
            state,
            signals,
            failed,
            workers,
            readings,
            mesh,
            listeners,
            admin,
            incumbent,
            queues,
        } = sidecar;
        for reading in &readings {
            reading.begin();
        }
        signals.go.cancel();
        let tasks = control_work(&given, &state, &signals);
        let spans = SpanExport::start(queues, &given.settings, &state.shared());
        let mut servers = Servers::default();
        for (endpoint, router) in admin.endpoints {
            servers.serve(endpoint, router);
        }
        failed.disarm();
        let serving = Serving {
            state,
            control: given.control,
            drain: given.settings.drain,
            outbound: listeners
                .iter()
                .filter_map(|one| Some(one.of_application()?.0))
                .collect(),
            mesh,
            admin: admin.address,
            signals,
            handed_over: CancellationToken::new(),
            workers,
            readings,
            incumbent,
            process: given.process,
            tasks,
            spans,
            servers,
            admin_place: admin.place,
            admin_opening: admin.opening,
        };
        Running { right, serving }
    }
}

/// Acknowledging tables, and watching the application.
fn control_work(given: &StageContext, state: &Arc<State>, signals: &Signals) -> TaskSet<()> {
    let mut tasks = TaskSet::default();
    let acknowledging = table::acknowledge(
        Arc::clone(&given.control),
        state.snapshots().clone(),
        given.svid.id().trust_domain().clone(),
        state.updates(),
    );
    tasks.spawn(vital::until(
        "acknowledging tables",
        signals.finish.clone(),
        acknowledging,
    ));
    let resolving = Arc::clone(&state.shared().names)
        .keep(given.control.tables(), given.settings.dns_servers.clone());
    // If no table can come any more, the control side has ended, which is watched itself.
    tasks.spawn(vital::unbroken("resolving names", resolving));
    tasks.spawn(vital::until(
        "noting what rules got",
        signals.finish.clone(),
        Arc::clone(state).note_rules(),
    ));
    let (shared, control) = (state.shared(), Arc::clone(&given.control));
    let snapshots = state.snapshots().clone();
    let watching = health::watch(shared, snapshots, control, state.draining());
    tasks.spawn(vital::until(
        "watching the application",
        state.draining(),
        watching,
    ));
    tasks
}
