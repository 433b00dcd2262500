//! Many clients that begin a handshake or open connections, beside an honest one.

use std::fmt::Debug;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, UdpPoller};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::external::{Identity, QuicServer, ServerTls, Trust};
use crate::shares::{Bounds, Places, Source};
use crate::testing::{self, Authority, FRONTEND, ORDERS};
use crate::tuning::{PostQuantum, TransportSettings};

/// Generous: it bounds a run that hangs, and never expires in a good one.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_peer_gets_in_beside_silent_handshakes_from_its_own_address() {
    let (listener, _) = start(ORDERS);
    let listener = Arc::new(listener);
    let address = listener.local_address().unwrap();
    let mut silent = Silent::new();
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(Arc::clone(&listener)));

    // The first few need no Retry, the others answer one. They come a few at a time, which the kernel's
    // buffers hold.
    for dialled in (0..limits::HANDSHAKES_MAX).step_by(32) {
        silent.dial(address, 32);
        until(|| listener.handshakes.taken() == dialled + 32).await;
    }
    silent.dial(address, 32);
    let (_, dialler) = start(FRONTEND);
    let expected = ORDERS.parse().unwrap();
    let dialled = timeout(PATIENCE, dialler.dial(address, &expected)).await;
    assert!(dialled.unwrap().is_ok());

    // quinn forgets handshakes that were given up.
    let left = limits::HANDSHAKES_MAX + 1;
    until(|| listener.endpoint.open_connections() <= left).await;
}

#[tokio::test]
async fn a_handshake_that_is_given_up_says_so_and_its_connection_is_forgotten() {
    let (listener, _) = start(ORDERS);
    let address = listener.local_address().unwrap();
    let mut silent = Silent::new();
    silent.dial(address, 1);
    let incoming = listener.accept().await.unwrap().unwrap();
    let mut handshake = Box::pin(incoming.handshake());
    assert!(futures_util::poll!(&mut handshake).is_pending());
    assert_eq!(listener.endpoint.open_connections(), 1);
    let source = Source::from(address.ip());
    let _newer: Vec<_> = (0..limits::HANDSHAKES_MAX)
        .map(|_| listener.handshakes.enter(source))
        .collect();
    let given_up = timeout(PATIENCE, handshake).await.unwrap();
    assert!(matches!(given_up, Err(HandshakeError::GivenUp)));
    until(|| listener.endpoint.open_connections() == 0).await;
}

#[tokio::test]
async fn an_address_that_answers_nothing_gets_three_times_what_it_sent_at_most() {
    // The server repeats its flight after 15 ms, 30 ms and so on; the client its hello after a second.
    let (listener, _) = start_with(
        TransportSettings {
            initial_rtt: Duration::from_millis(5),
            handshake_timeout: Duration::from_millis(900),
            ..TransportSettings::default()
        },
        ORDERS,
    );
    for post_quantum in [PostQuantum::Prefer, PostQuantum::Off] {
        let mut silent = Silent::with(TransportSettings {
            post_quantum,
            ..TransportSettings::default()
        });
        silent.dial(listener.local_address().unwrap(), 1);
        let incoming = listener.accept().await.unwrap().unwrap();
        let ended = incoming.handshake().await;
        assert!(matches!(ended, Err(HandshakeError::Timeout)));
        let [sent, heard] = silent.bytes();
        assert!(heard > 2 * sent && heard <= 3 * sent, "{heard} of {sent}");
    }
}

#[tokio::test]
async fn a_server_outside_of_the_mesh_keeps_to_three_times_too() {
    let tuning = TransportSettings {
        initial_rtt: Duration::from_millis(5),
        ..TransportSettings::default()
    };
    let tuning = tuning.validate().unwrap();
    let identity = Identity::self_made(vec!["localhost".to_owned()]).unwrap();
    let tls = ServerTls::new(identity, Trust::AnyPeer);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let server = QuicServer::new(&tls, &tuning, socket).unwrap();
    let mut silent = Silent::new();
    silent.dial(address, 1);
    let incoming = server.accept().await.unwrap();
    // The client repeats its hello after a second.
    let ended = timeout(Duration::from_millis(900), incoming.handshake()).await;
    assert!(ended.is_err());
    let [sent, heard] = silent.bytes();
    assert!(heard > 2 * sent && heard <= 3 * sent, "{heard} of {sent}");
}

#[tokio::test]
async fn the_oldest_connection_of_an_identity_makes_room_and_that_of_no_other_does() {
    let (mut listener, _) = start(ORDERS);
    listener.connections = Places::new(Bounds { places: 8, each: 2 });
    let address = listener.local_address().unwrap();
    let expected = ORDERS.parse().unwrap();
    let mut served = JoinSet::new();
    let mut connections = Vec::new();
    for (name, identity) in [
        ("other", ORDERS),
        ("1", FRONTEND),
        ("2", FRONTEND),
        ("3", FRONTEND),
    ] {
        let (_, dialler) = start(identity);
        let shake = async {
            let incoming = listener.accept().await.unwrap().unwrap();
            incoming.handshake().await.unwrap()
        };
        let (dialled, mut accepted) = tokio::join!(dialler.dial(address, &expected), shake);
        connections.push((dialled.unwrap().0, dialler));
        served.spawn(async move {
            let ended = accepted.http.accept().await;
            (name, matches!(ended, Ok(None)))
        });
    }
    // GOAWAY and then the end, as nothing is under way.
    let ended = timeout(PATIENCE, served.join_next()).await.unwrap();
    assert_eq!(ended.unwrap().unwrap(), ("1", true));
    let open: Vec<bool> = connections
        .iter()
        .map(|(connection, _)| connection.close_reason().is_none())
        .collect();
    assert_eq!((open[0], &open[2..]), (true, [true, true].as_slice()));
    assert!(served.try_join_next().is_none());
}

/// Runs the handshakes of all clients and keeps the accepted connections.
async fn accept(listener: Arc<Listener>) {
    let mut tasks = JoinSet::new();
    while let Some(incoming) = listener.accept().await {
        if let Ok(incoming) = incoming {
            tasks.spawn(async move {
                if let Ok(accepted) = incoming.handshake().await {
                    accepted.trust.run().await;
                }
            });
        }
    }
}

/// A client that sends a hello, answers a Retry, and reads nothing else.
struct Silent {
    endpoint: quinn::Endpoint,
    socket: Arc<HearsRetries>,
    dialled: Vec<quinn::Connecting>,
}

impl Silent {
    fn new() -> Self {
        Self::with(TransportSettings::default())
    }

    fn with(settings: TransportSettings) -> Self {
        let settings = mesh_settings(settings);
        let tls = MeshTls::new(&Authority::shared().credentials(FRONTEND), &settings.tuning);
        let worker = Worker::all(Workers::MIN).next().unwrap();
        let config = quic::client_config(&tls.unwrap(), &settings.tuning, worker);
        let socket = ephemeral_socket(&settings).unwrap();
        let socket = Arc::new(HearsRetries {
            inner: TokioRuntime.wrap_udp_socket(socket).unwrap(),
            sent: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
        });
        let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        endpoint.set_default_client_config(config.unwrap());
        Self {
            endpoint,
            socket,
            dialled: Vec::new(),
        }
    }

    fn dial(&mut self, address: SocketAddr, count: usize) {
        let endpoint = &self.endpoint;
        let dial = |_| endpoint.connect(address, tls::SERVER_NAME).unwrap();
        self.dialled.extend((0..count).map(dial));
    }

    /// Packets sent, and packets received.
    fn bytes(&self) -> [usize; 2] {
        [&self.socket.sent, &self.socket.heard].map(|bytes| bytes.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct HearsRetries {
    inner: Arc<dyn AsyncUdpSocket>,
    sent: AtomicUsize,
    heard: AtomicUsize,
}

impl AsyncUdpSocket for HearsRetries {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.sent
            .fetch_add(transmit.contents.len(), Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, buffers, meta))?;
        for (buffer, meta) in buffers.iter().zip(meta.iter_mut()).take(count) {
            self.heard.fetch_add(meta.len, Ordering::Relaxed);
            // A long header of type 3 (RFC 9000 section 17.2.5).
            if buffer[0] & 0xf0 != 0xf0 {
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn mesh_settings(settings: TransportSettings) -> MeshSettings {
    MeshSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Workers::MIN,
        tuning: settings.validate().unwrap(),
        epoch: Epoch(0),
        reset_key: ResetKey::new([0; ResetKey::LENGTH]),
    }
}

/// With handshakes that time out later than the tests.
fn start(identity: &str) -> (Listener, Dialler) {
    let settings = TransportSettings {
        handshake_timeout: PATIENCE,
        ..TransportSettings::default()
    };
    start_with(settings, identity)
}

fn start_with(settings: TransportSettings, identity: &str) -> (Listener, Dialler) {
    let socket = bind(&mesh_settings(settings)).unwrap().remove(0);
    testing::start(socket, &Authority::shared().credentials(identity))
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}
