//! One worker's thread: a current-thread runtime that owns its sockets, its endpoint and its tasks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::HeaderValue;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_config::table::Table;
use weft_transport::alone::alone;
use weft_transport::endpoint::MeshTls;
use weft_transport::identity::TrustDomain;
use weft_transport::limited_log::LimitedLog;
use weft_transport::pool::Pool;
use weft_transport::tasks::{TaskSet, Tasks};
use weft_transport::vital;
use weft_transport::wire::{Listener as MeshListener, Port};

use super::RunError;
use super::bind::{LeadsTo, Unowned};
use super::memory::give_back;
use crate::directory::Directory;
use crate::http::upload::ReplayMemory;
use crate::inbound::{self, Inbound};
use crate::limits;
use crate::metrics::Shard;
use crate::outbound::passing::Passing;
use crate::outbound::{self, Listener, Socket};
use crate::plaintext;
use crate::record::Observers;
use crate::worker::{Shared, Worker, follow};

/// All that a worker needs.
pub(super) struct Plan {
    pub(super) shared: Arc<Shared>,
    pub(super) observers: Arc<Observers>,
    pub(super) shard: Arc<Shard>,
    pub(super) mesh_port: Port,
    pub(super) serves: bool,
    /// Its listeners.
    pub(super) sockets: Vec<(LeadsTo, Unowned)>,
    pub(super) tables: watch::Receiver<Option<Arc<Table>>>,
    /// The subscription whose tables are used.
    pub(super) trust_domain: TrustDomain,
    pub(super) tls: MeshTls,
    /// Cancelled when connections may be accepted.
    pub(super) go: CancellationToken,
    /// Cancelled when connections shall end.
    pub(super) finish: CancellationToken,
    /// Cancelled when idle connections shall end, too.
    pub(super) rest: CancellationToken,
    /// Cancelled when new peers are to be refused: no other process serves them here.
    pub(super) refuse: CancellationToken,
    /// When running work is cut off; known once the drain begins.
    pub(super) deadline: watch::Receiver<Option<Instant>>,
}

/// What the control side sees of a running worker.
pub(super) struct Started {
    pub(super) pool: Pool,
    /// The snapshot by which it decides.
    pub(super) directory: watch::Receiver<Arc<Directory>>,
}

type Outcome = Result<Started, RunError>;

/// The work of a listener.
type Accepting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts the thread. The first receiver reports that it runs, the second that it is over.
pub(super) fn spawn(
    index: usize,
    plan: Plan,
) -> io::Result<(oneshot::Receiver<Outcome>, oneshot::Receiver<()>)> {
    let (started, hears_start) = oneshot::channel();
    let (over, hears_end) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                // Dropping the runtime ends the tasks that the drain could not wait for.
                Ok(runtime) => {
                    runtime.block_on(vital::unbroken("a worker", work(plan, started)));
                }
                Err(error) => drop(started.send(Err(RunError::Worker(error)))),
            }
            drop(over);
        })?;
    Ok((hears_start, hears_end))
}

async fn work(plan: Plan, started: oneshot::Sender<Outcome>) {
    let (listener, dialler) = match plan.mesh_port.start(&plan.tls, &plan.shard.lag) {
        Ok(endpoints) => endpoints,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    let pool = Pool::new(dialler);
    // Before any socket listens: with a table from disk, no request meets a worker without one.
    let destinations = Arc::clone(&plan.shared.destinations);
    let (directory, keep_in_step) = follow(
        plan.tables,
        plan.trust_domain,
        plan.shared.locality.clone(),
        destinations,
        plan.shared.names.answers(),
    );
    let none: Arc<str> = Arc::from("");
    let worker = Arc::new(Worker {
        via_http1: via("1.1", &plan.shared.via),
        via_http2: via("2", &plan.shared.via),
        unrouted: plan.shard.requests(Worker::astray(&plan.shared, &none)),
        no_service: none,
        shared: plan.shared,
        pool: pool.clone(),
        directory: directory.clone(),
        shard: plan.shard,
        observers: plan.observers,
        tasks: Tasks::default(),
        finish: plan.finish.clone(),
        rest: plan.rest,
        cut: CancellationToken::new(),
        room: Arc::new(ReplayMemory::new(limits::REPLAY_BYTES_MAX)),
        passing: Passing::default(),
        passing_log: LimitedLog::by_callers(),
        mirrors: Arc::new(Semaphore::new(limits::MIRRORS_MAX)),
        random: Mutex::new(StdRng::from_rng(&mut rand::rng())),
    });
    // Housekeeping, which ends with the worker; requests are in `worker.tasks`.
    let mut background = TaskSet::default();
    let finish = || worker.finish.clone();
    // If its sender ends, the control side has ended, which is watched itself.
    background.spawn(vital::unbroken("following the table", keep_in_step));
    let (lag, intake) = (&worker.shard.lag, &worker.shard.intake);
    background.spawn(vital::until(
        "measuring lag",
        finish(),
        lag.clone().measure(),
    ));
    let keeping = Arc::clone(intake).keep(lag.clone());
    background.spawn(vital::until("the intake", finish(), keeping));
    background.spawn(vital::until("giving memory back", finish(), give_back()));
    let listener = Arc::new(listener);
    let sweeping = sweep_outside(Arc::downgrade(&worker), worker.directory.clone());
    // It ends with the directory, as above.
    background.spawn(vital::unbroken(
        "sweeping connections out of the mesh",
        sweeping,
    ));
    let inbound = (plan.serves).then(|| Arc::new(Inbound::new(Arc::clone(&worker))));
    if let Some(inbound) = &inbound {
        let sweeping = sweep(Arc::downgrade(inbound));
        background.spawn(vital::until("sweeping connections", finish(), sweeping));
        let accepting = inbound::listen(Arc::clone(inbound), Arc::clone(&listener));
        let (name, ending) = ("accepting peers", finish());
        worker.tasks.spawn(vital::until(name, ending, accepting));
    }
    let room = Arc::new(Semaphore::new(limits::OUTBOUND_CONNECTIONS_MAX));
    let mut failure = None;
    let mut listeners: Vec<Accepting> = Vec::new();
    for (leads_to, socket) in plan.sockets {
        let socket = match own(socket) {
            Ok(socket) => socket,
            Err(error) => {
                failure = Some(RunError::Worker(error));
                continue;
            }
        };
        match (leads_to, &inbound) {
            (LeadsTo::Mesh(destination), _) => {
                let listener = Arc::new(Listener {
                    worker: Arc::clone(&worker),
                    destination,
                });
                let accepting = outbound::listen(listener, socket, Arc::clone(&room));
                listeners.push(Box::pin(accepting));
            }
            (LeadsTo::Application(service), Some(inbound)) => {
                let listener = plaintext::Listener::new(Arc::clone(inbound), service);
                // Of its own, so that callers without mutual TLS leave the application its connections.
                let room = Arc::new(Semaphore::new(limits::PLAINTEXT_ROOM));
                let accepting = plaintext::listen(Arc::new(listener), socket, room);
                listeners.push(Box::pin(accepting));
            }
            // Only a sidecar that serves has such a listener.
            (LeadsTo::Application(_), None) => {}
        }
    }
    drop(inbound);
    if let Some(failure) = failure {
        return drop(started.send(Err(failure)));
    }
    if started
        .send(Ok(Started {
            pool: pool.clone(),
            directory,
        }))
        .is_err()
    {
        return;
    }

    tokio::select! {
        () = plan.go.cancelled() => {}
        () = plan.finish.cancelled() => return,
    }
    for accepting in listeners {
        let (name, ending) = ("accepting the application", finish());
        worker.tasks.spawn(vital::until(name, ending, accepting));
    }
    plan.finish.cancelled().await;
    worker.tasks.close();
    if plan.serves {
        let refusing = refuse(Arc::clone(&listener), plan.refuse);
        background.spawn(alone("refusing peers", refusing));
    }
    let deadline = plan
        .deadline
        .borrow()
        .unwrap_or_else(|| Instant::now() + limits::DRAIN_DEADLINE);
    if tokio::time::timeout_at(deadline, worker.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            left = worker.tasks.len(),
            "the drain's deadline is over: the rest is cut off"
        );
        worker.cut.cancel();
        // Tunnels tell both of their sides why they end.
        let _ = tokio::time::timeout(limits::CUT_TIME, worker.tasks.wait()).await;
    }
    // Peers are told, so that none waits for an idle timeout.
    let patience = Duration::from_millis(500);
    tokio::join!(pool.close(patience), listener.close(patience));
    background.shutdown().await;
}

/// Refuses peers that dial while this sidecar drains.
async fn refuse(listener: Arc<MeshListener>, begin: CancellationToken) {
    begin.cancelled().await;
    listener.refuse().await;
}

/// Drops idle connections to the application on time even if no request comes. It keeps none of them: those
/// that are idle when the last peer is gone end then, and a drain does not wait for them.
async fn sweep(inbound: Weak<Inbound>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(inbound) = inbound.upgrade() else {
            return;
        };
        for application in inbound.applications() {
            application.sweep(std::time::Instant::now());
        }
    }
}

/// The same for connections that lead out of the mesh. A sidecar whose table lets nothing out sleeps until
/// there is another table.
async fn sweep_outside(worker: Weak<Worker>, mut directory: watch::Receiver<Arc<Directory>>) {
    loop {
        let may_leave = directory.borrow_and_update().lets_out();
        if !may_leave {
            if let Some(worker) = worker.upgrade() {
                worker.passing.clear();
            }
            if directory.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(worker) = worker.upgrade() else {
            return;
        };
        let now = std::time::Instant::now();
        for outside in worker.directory.borrow().outside() {
            outside.sweep(now);
        }
        worker.passing.sweep(now);
    }
}

fn own(socket: Unowned) -> io::Result<Socket> {
    Ok(match socket {
        Unowned::Tcp(listener) => Socket::Tcp(tokio::net::TcpListener::from_std(listener)?),
        Unowned::Unix(listener) => Socket::Unix(tokio::net::UnixListener::from_std(listener)?),
    })
}

fn via(protocol: &str, name: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{protocol} {name}")).unwrap_or(HeaderValue::from_static("weft"))
}
