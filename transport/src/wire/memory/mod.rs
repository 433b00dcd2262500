//! The wire of tests: connections in this process's memory, without UDP, TLS or waiting. Steps that a test
//! takes in one order happen in that order.
//!
//! A [`Network`] has addresses, like the real one: [`Network::listen`] takes one, [`Network::dialler`]
//! reaches it. Heads and trailers cross as field sections of HTTP/3, so what HTTP/3 cannot express cannot be
//! sent here either. Methods play hostile and faulty peers: [`Responder::malformed`],
//! [`ServerConnection::lose`], [`ServerConnection::allow`].
//!
//! The contract that this wire shares with HTTP/3 is `../tests/`. Not here: silence, because no message is
//! lost on the way.

mod client;
mod halves;
mod limits;
mod link;
mod receive;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::client::Times;
use super::{DialError, Reason};
use crate::identity::{PeerId, SpiffeId};
pub use client::{ClientConnection, Driver, Reserved, ResponseHalf};
pub use halves::SendHalf;
use link::{Link, Side};
pub use receive::RecvHalf;
pub(in crate::wire) use server::ServerRequest;
pub use server::{Incoming, Listener, Responder, ServerConnection, TrustGuard};

/// Until when proofs of identity are valid here.
const PROOF: Duration = Duration::from_hours(24);

/// See [`crate::wire::Port`].
pub struct Port {
    network: Network,
    identity: SpiffeId,
    listener: Listener,
}

impl Port {
    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    pub(super) fn start(self) -> (super::Listener, super::Dialler) {
        let dialler = self.network.dialler(&self.identity);
        (super::Listener::Memory(self.listener), dialler)
    }
}

/// Addresses, and the listener of each. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<BTreeMap<SocketAddr, Arc<Seat>>>>);

impl Network {
    /// Listens as `identity` at `address`, or at a free port of it if its port is 0.
    pub fn listen(&self, address: SocketAddr, identity: &SpiffeId) -> super::Listener {
        super::Listener::Memory(self.seat(address, identity))
    }

    /// A worker's part of the mesh port at `address`, as for [`Self::listen`].
    pub fn port(&self, address: SocketAddr, identity: &SpiffeId) -> super::Port {
        super::Port::Memory(Port {
            network: self.clone(),
            identity: identity.clone(),
            listener: self.seat(address, identity),
        })
    }

    fn seat(&self, mut address: SocketAddr, identity: &SpiffeId) -> Listener {
        let mut seats = lock(&self.0);
        if address.port() == 0 {
            let is_free = |port: &u16| !seats.contains_key(&SocketAddr::new(address.ip(), *port));
            address.set_port((1..u16::MAX).find(is_free).unwrap_or(u16::MAX));
        }
        let seat = Arc::new(Seat {
            address,
            identity: proven(identity),
            queue: Mutex::default(),
        });
        seats.insert(address, Arc::clone(&seat));
        Listener { seat }
    }

    /// Dials as `identity`.
    pub fn dialler(&self, identity: &SpiffeId) -> super::Dialler {
        super::Dialler::Memory(Dialler {
            network: self.clone(),
            own: Arc::new(proven(identity)),
            swaps: watch::Sender::new(0),
            dialled: Arc::default(),
        })
    }
}

fn proven(identity: &SpiffeId) -> PeerId {
    PeerId::for_tests(identity.clone(), SystemTime::now() + PROOF)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks can panic half-way.
    crate::locks::lock(mutex)
}

/// An address that is listened on.
struct Seat {
    address: SocketAddr,
    identity: PeerId,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    arriving: VecDeque<Incoming>,
    /// All connections that came, to be closed with it.
    links: Vec<Weak<Link>>,
    refuses: bool,
    is_closed: bool,
    waker: Option<Waker>,
}

impl Seat {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let mut queue = lock(&self.queue);
        if let Some(incoming) = queue.arriving.pop_front() {
            return Poll::Ready(Some(incoming));
        }
        if queue.is_closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn refuse(&self) {
        lock(&self.queue).refuses = true;
    }

    fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.is_closed = true;
        let arriving = std::mem::take(&mut queue.arriving);
        let links = std::mem::take(&mut queue.links);
        let waker = queue.waker.take();
        drop(queue);
        drop(arriving);
        close_all(&links, Side::Server);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn arrives(&self, incoming: Incoming) -> Result<(), DialError> {
        let address = self.address;
        let mut queue = lock(&self.queue);
        if queue.refuses {
            return Err(DialError::Closed(address));
        }
        if queue.is_closed || queue.arriving.len() >= limits::ARRIVING_MAX {
            return Err(DialError::Timeout(address));
        }
        queue.links.retain(|link| link.strong_count() > 0);
        queue.links.push(Arc::downgrade(&incoming.connection.link));
        queue.arriving.push_back(incoming);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        Ok(())
    }
}

fn close_all(links: &[Weak<Link>], side: Side) {
    for link in links.iter().filter_map(Weak::upgrade) {
        link.close(side, Reason::NoError);
    }
}

/// See [`crate::wire::Dialler`].
#[derive(Clone)]
pub struct Dialler {
    network: Network,
    own: Arc<PeerId>,
    swaps: watch::Sender<u64>,
    dialled: Arc<Mutex<Vec<Weak<Link>>>>,
}

impl Dialler {
    pub(super) fn dial(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<(ClientConnection, Driver), DialError> {
        let seat = lock(&self.network.0).get(&address).cloned();
        let seat = seat.ok_or(DialError::Timeout(address))?;
        if seat.identity.id() != expected {
            return Err(DialError::WrongIdentity {
                address,
                expected: expected.clone(),
                proven: seat.identity.id().clone(),
            });
        }
        let link = Arc::new(Link::new());
        seat.arrives(Incoming {
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connection: ServerConnection {
                link: Arc::clone(&link),
                peer: PeerId::clone(&self.own),
            },
        })?;
        let mut dialled = lock(&self.dialled);
        dialled.retain(|link| link.strong_count() > 0);
        dialled.push(Arc::downgrade(&link));
        let connection = ClientConnection {
            link: Arc::clone(&link),
            peer: Arc::new(seat.identity.clone()),
        };
        Ok((connection, Driver(link)))
    }

    #[expect(clippy::unused_self, reason = "as on the other wires")]
    pub(super) fn times(&self) -> Times {
        Times {
            handshake: limits::HANDSHAKE,
            unused: limits::UNUSED,
        }
    }

    pub(super) fn own_not_after(&self) -> SystemTime {
        self.own.not_after()
    }

    pub(super) fn swaps(&self) -> watch::Receiver<u64> {
        self.swaps.subscribe()
    }

    pub(super) fn close(&self) {
        let dialled = std::mem::take(&mut *lock(&self.dialled));
        close_all(&dialled, Side::Client);
    }
}
