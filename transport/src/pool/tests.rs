//! The pool against real endpoints on loopback: reuse, wrong peers, restarts, renewals.

mod silent;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::*;
use crate::credentials::Credentials;
use crate::endpoint::{
    self, Accepted, BindError, Epoch, Listener, MeshSettings, ResetKey, Workers,
};
use crate::error::ConnectionError;
use crate::testing::{Authority, FRONTEND, ORDERS, leaf, start};
use crate::tuning::{TransportSettings, Tuning};

/// Generous: it bounds a run that hangs, and never expires in a good one.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_to_one_peer_share_one_connection() {
    let mesh = Mesh::new();
    let server = mesh.serve(0, mesh.authority.credentials(ORDERS));
    let pool = mesh.pool();
    for _ in 0..3 {
        assert_eq!(get(&pool, &server.target).await, Ok(StatusCode::OK));
    }
    assert_eq!(pool.status().len(), 1);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_valid_peer_of_another_identity_gets_no_request() {
    let mesh = Mesh::new();
    let server = mesh.serve(0, mesh.authority.credentials(FRONTEND));
    let error = get(&mesh.pool(), &server.target).await.unwrap_err();
    assert!(matches!(error, DialError::WrongIdentity { .. }), "{error}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_peer_of_another_authority_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.serve(0, Authority::new().credentials(ORDERS));
    let error = get(&mesh.pool(), &server.target).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn while_the_next_attempt_is_not_due_a_request_fails_at_once() {
    let mesh = Mesh::new();
    let server = mesh.serve(0, mesh.authority.credentials(FRONTEND));
    let pool = mesh.pool();
    let first = get(&pool, &server.target).await.unwrap_err();
    let second = get(&pool, &server.target).await.unwrap_err();
    assert_eq!(first, second);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn after_a_renewal_the_connection_moves_and_no_request_fails() {
    // With ten seconds left, the move is due within one.
    let mut short = leaf(&[FRONTEND]);
    short.not_after = (SystemTime::now() + Duration::from_secs(10)).into();
    let mut mesh = Mesh::new();
    let (svid, bundle) = (mesh.authority.svid_with(short), mesh.authority.bundle());
    mesh.own = Credentials::new(svid, bundle).unwrap();
    let server = mesh.serve(0, mesh.authority.credentials(ORDERS));
    let pool = mesh.pool();
    assert_eq!(get(&pool, &server.target).await, Ok(StatusCode::OK));
    mesh.own
        .replace(mesh.authority.svid(FRONTEND), mesh.authority.bundle())
        .unwrap();
    let moved = timeout(PATIENCE, async {
        while server.accepted() < 2 {
            assert_eq!(get(&pool, &server.target).await, Ok(StatusCode::OK));
        }
    });
    moved.await.unwrap();
}

#[tokio::test]
async fn a_connection_whose_root_is_removed_from_trust_ends() {
    let mesh = Mesh::new();
    let server = mesh.serve(0, mesh.authority.credentials(ORDERS));
    let pool = mesh.pool();
    let connection = pool.get(&server.target).await.unwrap();
    let other = Authority::new();
    mesh.own
        .replace(other.svid(FRONTEND), other.bundle())
        .unwrap();
    timeout(PATIENCE, connection.closed()).await.unwrap();
}

#[tokio::test]
async fn an_unused_connection_is_closed_and_forgotten() {
    let settings = TransportSettings {
        unused_timeout: Duration::from_secs(1),
        ..TransportSettings::default()
    };
    let mesh = Mesh::tuned(settings.validate().unwrap());
    let server = mesh.serve(0, mesh.authority.credentials(ORDERS));
    let pool = mesh.pool();
    let connection = pool.get(&server.target).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.unwrap();
    timeout(PATIENCE, async {
        while !pool.status().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn connections_of_many_diallers_from_one_host_spread_over_the_workers() {
    let mesh = Mesh::new();
    let settings = mesh.settings(0, 2);
    let sockets = endpoint::bind(&settings).unwrap();
    let target = Target {
        address: sockets[0].local_address().unwrap(),
        identity: ORDERS.parse().unwrap(),
    };
    let own = mesh.authority.credentials(ORDERS);
    let servers: Vec<_> = sockets
        .into_iter()
        .map(|socket| Server::start(start(socket, &own).0, target.clone()))
        .collect();
    // Two workers of the dialling side, too: each asks for the worker of its own index.
    let dialling = endpoint::bind(&mesh.settings(0, 2)).unwrap();
    for socket in dialling {
        let (_listener, dialler) = start(socket, &mesh.own);
        let pool = Pool::new(dialler);
        assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    }
    assert_eq!([servers[0].accepted(), servers[1].accepted()], [1, 1]);
}

#[tokio::test]
async fn a_mesh_port_in_use_is_refused_although_workers_could_share_it() {
    let mesh = Mesh::new();
    let first = endpoint::bind(&mesh.settings(0, 2)).unwrap();
    let port = first[0].local_address().unwrap().port();
    let second = endpoint::bind(&mesh.settings(port, 2));
    assert!(matches!(second, Err(BindError::InUse(_))));
}

struct Mesh {
    authority: Authority,
    own: Credentials,
    tuning: Tuning,
}

impl Mesh {
    fn new() -> Self {
        Self::tuned(Tuning::default())
    }

    fn tuned(tuning: Tuning) -> Self {
        let authority = Authority::new();
        let own = authority.credentials(FRONTEND);
        Self {
            authority,
            own,
            tuning,
        }
    }

    fn settings(&self, port: u16, workers: u8) -> MeshSettings {
        MeshSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            workers: Workers::new(workers).unwrap(),
            tuning: self.tuning.clone(),
            epoch: Epoch(1),
            reset_key: ResetKey::new([7; ResetKey::LENGTH]),
        }
    }

    fn serve(&self, port: u16, credentials: Credentials) -> Server {
        self.serve_with(&self.settings(port, 1), credentials)
    }

    fn serve_with(&self, settings: &MeshSettings, credentials: Credentials) -> Server {
        let socket = endpoint::bind(settings).unwrap().remove(0);
        let target = Target {
            address: socket.local_address().unwrap(),
            identity: ORDERS.parse().unwrap(),
        };
        let (listener, _) = start(socket, &credentials);
        Server::start(listener, target)
    }

    /// A server, and how it is reached through a wire that the test can change.
    async fn serve_behind_wire(&self) -> (Server, Wire, Target) {
        let server = self.serve(0, self.authority.credentials(ORDERS));
        let wire = Wire::to(server.target.address).await;
        let target = Target {
            address: wire.address,
            identity: server.target.identity.clone(),
        };
        (server, wire, target)
    }

    fn pool(&self) -> Pool {
        let socket = endpoint::bind(&self.settings(0, 1)).unwrap().remove(0);
        Pool::new(start(socket, &self.own).1)
    }
}

/// A relay of datagrams between one dialler and its present target.
struct Wire {
    address: SocketAddr,
    leads_to: watch::Sender<Option<SocketAddr>>,
    /// Whether packets of handshakes wait until it is false again.
    holds_handshakes: watch::Sender<bool>,
    /// Notified when a first packet of a handshake waits.
    held: Arc<Notify>,
    /// Makes it use another address, as seen from the server.
    rebind: Arc<Notify>,
    _relay: JoinSet<()>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (near, mut far) = (bind().await.unwrap(), bind().await.unwrap());
        let address = near.local_addr().unwrap();
        let (leads_to, led_to) = watch::channel(Some(server));
        let (holds_handshakes, mut holds) = watch::channel(false);
        let (held, rebind) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, moved) = (Arc::clone(&held), Arc::clone(&rebind));
        let mut relay = JoinSet::new();
        relay.spawn(async move {
            let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
            let mut dialler = None;
            let mut waiting: Vec<Vec<u8>> = Vec::new();
            loop {
                tokio::select! {
                    () = moved.notified() => far = bind().await.unwrap(),
                    Ok(()) = holds.changed() => {
                        let (to, hold) = (*led_to.borrow(), *holds.borrow());
                        if let (Some(to), false) = (to, hold) {
                            for datagram in waiting.drain(..) {
                                far.send_to(&datagram, to).await.unwrap();
                            }
                        }
                    }
                    Ok((length, from)) = near.recv_from(&mut up) => {
                        dialler = Some(from);
                        let (to, hold) = (*led_to.borrow(), *holds.borrow());
                        // Long headers are those of handshakes (RFC 9000 section 17.2).
                        if up[0] & 0x80 != 0 && hold {
                            waiting.push(up[..length].to_vec());
                            if up[0] & 0x30 == 0 {
                                tell.notify_one();
                            }
                        } else if let Some(to) = to {
                            let _ = far.send_to(&up[..length], to).await;
                        }
                    }
                    Ok((length, from)) = far.recv_from(&mut down) => {
                        let open = *led_to.borrow() == Some(from);
                        if let (Some(dialler), true) = (dialler, open) {
                            let _ = near.send_to(&down[..length], dialler).await;
                        }
                    }
                }
            }
        });
        Self {
            address,
            leads_to,
            holds_handshakes,
            held,
            rebind,
            _relay: relay,
        }
    }
}

/// Answers every request with 200 and no body.
struct Server {
    target: Target,
    listener: Arc<Listener>,
    counts: Arc<Mutex<Counts>>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    accepted: usize,
    /// Handshakes that are over, successful or not.
    resolved: usize,
    moves: usize,
    /// By connection whose handshake succeeded.
    requests: Vec<usize>,
}

impl Server {
    fn start(listener: Listener, target: Target) -> Self {
        let listener = Arc::new(listener);
        let counts = Arc::<Mutex<Counts>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&listener), Arc::clone(&counts)));
        Self {
            target,
            listener,
            counts,
            tasks,
        }
    }

    fn accepted(&self) -> usize {
        self.counts.lock().unwrap().accepted
    }

    fn resolved(&self) -> usize {
        self.counts.lock().unwrap().resolved
    }

    fn moves(&self) -> usize {
        self.counts.lock().unwrap().moves
    }

    fn requests(&self) -> usize {
        self.counts.lock().unwrap().requests.iter().sum()
    }

    /// Without those that carried none.
    fn requests_by_connection(&self) -> Vec<usize> {
        let mut requests = self.counts.lock().unwrap().requests.clone();
        requests.retain(|count| *count > 0);
        requests
    }

    async fn stop(mut self) {
        self.listener.close(PATIENCE).await;
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: Arc<Listener>, counts: Arc<Mutex<Counts>>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = listener.accept().await {
        let incoming = incoming.unwrap();
        counts.lock().unwrap().accepted += 1;
        let counts = Arc::clone(&counts);
        connections.spawn(async move {
            let shaken = incoming.handshake().await;
            counts.lock().unwrap().resolved += 1;
            if let Ok(accepted) = shaken {
                answer(accepted, &counts).await;
            }
        });
    }
}

async fn answer(mut accepted: Accepted, counts: &Mutex<Counts>) {
    let index = {
        let mut counts = counts.lock().unwrap();
        counts.requests.push(0);
        counts.requests.len() - 1
    };
    while let Ok(Some(request)) = accepted.http.accept().await {
        {
            let mut counts = counts.lock().unwrap();
            counts.requests[index] += 1;
            counts.moves += usize::from(accepted.http.has_moved());
        }
        let (head, ()) = Response::new(()).into_parts();
        let _ = request.respond.head(&head, true).await;
    }
}

async fn get(pool: &Pool, target: &Target) -> Result<StatusCode, DialError> {
    let connection = pool.get(target).await?;
    let (head, ()) = get_root();
    let (_send, mut response) = connection.open(&head, true).await.unwrap();
    let status = response.head().await.unwrap().status();
    response.into_body().collect().await.unwrap();
    Ok(status)
}

fn get_root() -> (http::request::Parts, ()) {
    let request = Request::get("https://orders.shop/").body(());
    request.unwrap().into_parts()
}
