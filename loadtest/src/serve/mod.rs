//! `weft load serve`: a server whose behaviour is known, so that the reports of a load generator can be
//! compared with known values.
//!
//! [`behaviour`] decides the treatment of a request (pure), `http.rs`, `http3.rs` and `bytes.rs` speak the
//! protocols, `sockets.rs` binds, `alarms.rs` waits precisely. Each thread has its own runtime and its own
//! sockets on the same ports.

mod alarms;
pub mod behaviour;
mod bytes;
mod http;
mod http3;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_transport::external::{ExternalError, QuicServer, ServerTls, TlsServer};
use weft_transport::locks::lock;

use self::alarms::Alarms;
use self::behaviour::{Behaviour, Fate};
use self::bytes::Role;
use self::sockets::Sockets;
use crate::client::http3::tuning;
use crate::clock::Clock;

/// Where to listen; a port 0 takes a free one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listen {
    /// HTTP/1.1, HTTP/2 with prior knowledge, and gRPC, told apart by their first bytes.
    pub http: Option<SocketAddr>,
    /// The same over TLS.
    pub https: Option<SocketAddr>,
    /// HTTP/3, a UDP port.
    pub http3: Option<SocketAddr>,
    /// TCP: every byte comes back.
    pub tcp: Option<SocketAddr>,
    /// TCP: bytes are thrown away until the client has sent its last.
    pub tcp_sink: Option<SocketAddr>,
    /// TCP: a body is sent.
    pub tcp_source: Option<SocketAddr>,
    /// UDP: every datagram comes back.
    pub udp: Option<SocketAddr>,
}

impl Listen {
    /// Whether there is nothing to listen on.
    pub fn is_empty(&self) -> bool {
        let tcp = self.http.or(self.https).or(self.tcp);
        let bulk = self.tcp_sink.or(self.tcp_source);
        tcp.or(bulk).or(self.http3).or(self.udp).is_none()
    }
}

/// A server that is bound, but does not serve yet.
pub struct Server {
    threads: Vec<Sockets>,
    tls: Option<ServerTls>,
    behaviour: Arc<Behaviour>,
    seed: u64,
    /// Where it listens.
    pub listen: Listen,
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not one of this host.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the kernel.
        error: io::Error,
    },
    /// The kernel refused a thread or a descriptor.
    #[error("cannot serve: {0}")]
    System(#[from] io::Error),
    /// A certificate and a key that do not match, or of a kind that TLS does not support.
    #[error(transparent)]
    Tls(#[from] ExternalError),
    /// A thread ended by a defect.
    #[error("a thread of the server ended by a defect")]
    Defect,
}

impl Server {
    /// Takes the addresses, once for each thread. HTTPS and HTTP/3 take a `tls`; without one they are not
    /// served.
    ///
    /// # Errors
    /// When an address is taken, or TLS cannot be set up.
    pub fn bind(
        listen: Listen,
        tls: Option<ServerTls>,
        threads: usize,
        behaviour: Behaviour,
        seed: u64,
    ) -> Result<Self, ServeError> {
        // An unusable certificate is reported before anything is served.
        tls.as_ref().map(secure).transpose()?;
        let (threads, listen) = sockets::bind(listen, threads)?;
        Ok(Self {
            threads,
            tls,
            behaviour: Arc::new(behaviour),
            seed,
            listen,
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
            let context = ThreadContext {
                clock,
                behaviour: Arc::clone(&self.behaviour),
                first: Arc::clone(&first),
                alarms: Alarms::new(clock),
                random: Arc::new(Mutex::new(StdRng::seed_from_u64(self.seed ^ index as u64))),
            };
            let (stop, tls) = (stop.clone(), self.tls.clone());
            let thread = std::thread::Builder::new().name(format!("serve-{index}"));
            handles.push(thread.spawn(move || work(sockets, tls.as_ref(), context, &stop))?);
        }
        for handle in handles {
            handle.join().map_err(|_| ServeError::Defect)??;
        }
        Ok(())
    }
}

/// The state that the connections of one thread share.
#[derive(Clone)]
struct ThreadContext {
    clock: Clock,
    behaviour: Arc<Behaviour>,
    /// When the first request came, on any thread.
    first: Arc<OnceLock<Duration>>,
    alarms: Alarms,
    random: Arc<Mutex<StdRng>>,
}

impl ThreadContext {
    /// When a request came, and its treatment.
    fn receive(&self) -> (Duration, Fate) {
        let now = self.clock.now();
        self.first.get_or_init(|| now);
        (now, self.behaviour.draw(&mut lock(&self.random)))
    }

    /// Waits until `at`, or until the end of the freeze that covers it.
    async fn wait(&self, at: Duration) {
        let first = self.first.get().copied().unwrap_or_default();
        let thawed = first + self.behaviour.thawed(at.saturating_sub(first));
        self.alarms.at(thawed).await;
    }
}

fn work(
    sockets: Sockets,
    tls: Option<&ServerTls>,
    context: ThreadContext,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Connections under way end with the runtime.
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(context.alarms.clone().drive());
        let tcp = tokio::net::TcpListener::from_std;
        if let Some(listener) = sockets.http {
            tasks.spawn(http::serve(tcp(listener)?, None, context.clone()));
        }
        for (listener, role) in [
            (sockets.tcp, Role::Echo),
            (sockets.tcp_sink, Role::Sink),
            (sockets.tcp_source, Role::Source),
        ] {
            if let Some(listener) = listener {
                tasks.spawn(bytes::serve_tcp(tcp(listener)?, role, context.clone()));
            }
        }
        if let Some(socket) = sockets.udp {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tasks.spawn(bytes::serve_udp(socket, context.clone()));
        }
        if let (Some(listener), Some(tls)) = (sockets.https, tls) {
            tasks.spawn(http::serve(
                tcp(listener)?,
                Some(secure(tls)?),
                context.clone(),
            ));
        }
        if let (Some(socket), Some(tls)) = (sockets.http3, tls) {
            let server = QuicServer::new(tls, &tuning()?, socket)?;
            tasks.spawn(http3::serve(server, context.clone()));
        }
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Ok(result)) => Ok(result?),
                Some(Err(_)) | None => Err(ServeError::Defect),
            },
        }
    })
}

fn secure(tls: &ServerTls) -> Result<TlsServer, ExternalError> {
    TlsServer::new(tls, &http::ALPN)
}
