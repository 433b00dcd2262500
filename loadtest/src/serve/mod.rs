//! `weft load serve`: a server whose behaviour is known, so that what a load generator reports can be compared
//! with what must be true.
//!
//! [`behaviour`] says what a request gets (pure), `http.rs` and `echo.rs` speak, `alarms.rs` waits exactly. Each
//! thread has its own runtime and its own sockets on the same port.

mod alarms;
pub mod behaviour;
mod echo;
mod http;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::alarms::Alarms;
use self::behaviour::{Behaviour, Fate};
use crate::clock::Clock;
use crate::limits;

/// Where to listen; a port 0 takes a free one.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// HTTP/1.1, HTTP/2 with prior knowledge, and gRPC, told apart by their first bytes.
    pub http: Option<SocketAddr>,
    /// TCP: every byte comes back.
    pub tcp: Option<SocketAddr>,
    /// UDP: every datagram comes back.
    pub udp: Option<SocketAddr>,
}

/// A server that is bound, but does not serve yet.
pub struct Server {
    threads: Vec<Sockets>,
    behaviour: Arc<Behaviour>,
    seed: u64,
    /// Where it listens.
    pub listen: Listen,
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not of this host.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel refused a thread or a descriptor.
    #[error("cannot serve: {0}")]
    System(#[from] io::Error),
    /// A thread ended by a defect.
    #[error("a thread of the server ended by a defect")]
    Defect,
}

#[derive(Default)]
struct Sockets {
    http: Option<TcpListener>,
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

impl Server {
    /// Takes the addresses, once for each thread.
    ///
    /// # Errors
    /// When one is taken.
    pub fn bind(
        listen: Listen,
        threads: usize,
        behaviour: Behaviour,
        seed: u64,
    ) -> Result<Self, ServeError> {
        let mut sockets = Vec::new();
        let mut bound = listen;
        for _ in 0..threads {
            let http = bound.http.map(tcp_listener).transpose()?;
            let tcp = bound.tcp.map(tcp_listener).transpose()?;
            let udp = bound.udp.map(udp_socket).transpose()?;
            // The port that the first thread got is the others' too.
            bound.http = http.as_ref().map(TcpListener::local_addr).transpose()?;
            bound.tcp = tcp.as_ref().map(TcpListener::local_addr).transpose()?;
            bound.udp = udp.as_ref().map(UdpSocket::local_addr).transpose()?;
            sockets.push(Sockets { http, tcp, udp });
        }
        Ok(Self {
            threads: sockets,
            behaviour: Arc::new(behaviour),
            seed,
            listen: bound,
        })
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// When a thread cannot be started or fails.
    pub fn run(self, stop: &CancellationToken) -> Result<(), ServeError> {
        let clock = Clock::beginning_in(Duration::ZERO);
        let first = Arc::new(OnceLock::new());
        let mut handles = Vec::new();
        for (index, sockets) in self.threads.into_iter().enumerate() {
            let desk = Desk {
                clock,
                behaviour: Arc::clone(&self.behaviour),
                first: Arc::clone(&first),
                alarms: Alarms::new(clock),
                random: Arc::new(Mutex::new(StdRng::seed_from_u64(self.seed ^ index as u64))),
            };
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("serve-{index}"));
            handles.push(thread.spawn(move || work(sockets, desk, &stop))?);
        }
        for handle in handles {
            handle.join().map_err(|_| ServeError::Defect)??;
        }
        Ok(())
    }
}

/// What the connections of one thread share.
#[derive(Clone)]
struct Desk {
    clock: Clock,
    behaviour: Arc<Behaviour>,
    /// When the first request came, of all threads.
    first: Arc<OnceLock<Duration>>,
    alarms: Alarms,
    random: Arc<Mutex<StdRng>>,
}

impl Desk {
    /// When a request came, and what it gets.
    fn receive(&self) -> (Duration, Fate) {
        let now = self.clock.now();
        self.first.get_or_init(|| now);
        let random = self.random.lock();
        let mut random = random.unwrap_or_else(PoisonError::into_inner);
        (now, self.behaviour.draw(&mut random))
    }

    /// Waits until `at`, or until the freeze that it falls into is over.
    async fn wait(&self, at: Duration) {
        let first = self.first.get().copied().unwrap_or_default();
        let thawed = first + self.behaviour.thawed(at.saturating_sub(first));
        self.alarms.at(thawed).await;
    }
}

fn work(sockets: Sockets, desk: Desk, stop: &CancellationToken) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Connections under way end with the runtime.
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(desk.alarms.clone().drive());
        if let Some(listener) = sockets.http {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(http::serve(listener, desk.clone()));
        }
        if let Some(listener) = sockets.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(echo::serve_tcp(listener, desk.clone()));
        }
        if let Some(socket) = sockets.udp {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tasks.spawn(echo::serve_udp(socket, desk.clone()));
        }
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Ok(result)) => result,
                Some(Err(_)) | None => Err(io::Error::other("a part of the server ended by a defect")),
            },
        }
    })
}

/// A listener on a port that the other threads share.
fn tcp_listener(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bind = || {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        socket.listen(limits::SERVE_BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| ServeError::Bind { address, error })
}

fn udp_socket(address: SocketAddr) -> Result<UdpSocket, ServeError> {
    let bind = || Ok(socket(address, Type::DGRAM, Protocol::UDP)?.into());
    bind().map_err(|error| ServeError::Bind { address, error })
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
