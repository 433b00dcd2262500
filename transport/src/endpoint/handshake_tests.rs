//! Many who begin a handshake or open connections, beside one who means it.

use std::fmt::Debug;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, UdpPoller};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::shares::{Bounds, Places, Source};
use crate::testing::{self, Authority, FRONTEND, ORDERS};
use crate::tuning::TransportSettings;

/// Generous: it bounds a broken run and never passes in a good one.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_peer_gets_in_beside_silent_handshakes_from_its_own_address() {
    let (listener, _) = start(ORDERS);
    let listener = Arc::new(listener);
    let address = listener.local_address().unwrap();
    let mut silent = Silent::new();
    let mut accepting = JoinSet::new();
    accepting.spawn(accept(Arc::clone(&listener)));

    // The first few need no Retry, the others answer one. A few at a time, which the kernel's buffers hold.
    for dialled in (0..limits::HANDSHAKES_MAX).step_by(32) {
        silent.dial(address, 32);
        until(|| listener.handshakes.taken() == dialled + 32).await;
    }
    silent.dial(address, 32);
    let (_, dialler) = start(FRONTEND);
    let expected = ORDERS.parse().unwrap();
    let dialled = timeout(PATIENCE, dialler.dial(address, &expected)).await;
    assert!(dialled.unwrap().is_ok());

    // Quinn forgets those that were given up.
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
async fn the_oldest_connection_of_an_identity_makes_room_and_nobody_elses_does() {
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

/// Runs the handshake of whoever comes and keeps what came in.
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

/// A client that says hello, answers a Retry, and hears nothing else.
struct Silent {
    endpoint: quinn::Endpoint,
    dialled: Vec<quinn::Connecting>,
}

impl Silent {
    fn new() -> Self {
        let settings = mesh_settings();
        let tls = MeshTls::new(&Authority::shared().credentials(FRONTEND), &settings.tuning);
        let worker = Worker::all(Workers::MIN).next().unwrap();
        let config = quic::client_config(&tls.unwrap(), &settings.tuning, worker);
        let socket = ephemeral_socket(&settings).unwrap();
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        let mut endpoint = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            Arc::new(HearsRetries(inner)),
            Arc::new(TokioRuntime),
        )
        .unwrap();
        endpoint.set_default_client_config(config.unwrap());
        Self {
            endpoint,
            dialled: Vec::new(),
        }
    }

    fn dial(&mut self, address: SocketAddr, count: usize) {
        let endpoint = &self.endpoint;
        let dial = |_| endpoint.connect(address, tls::SERVER_NAME).unwrap();
        self.dialled.extend((0..count).map(dial));
    }
}

#[derive(Debug)]
struct HearsRetries(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for HearsRetries {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.0.poll_recv(cx, buffers, meta))?;
        for (buffer, meta) in buffers.iter().zip(meta.iter_mut()).take(count) {
            // A long header of type 3 (RFC 9000 section 17.2.5).
            if buffer[0] & 0xf0 != 0xf0 {
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn mesh_settings() -> MeshSettings {
    MeshSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Workers::MIN,
        tuning: TransportSettings {
            handshake_timeout: PATIENCE,
            ..TransportSettings::default()
        }
        .validate()
        .unwrap(),
        epoch: Epoch(0),
        reset_key: ResetKey::new([0; ResetKey::LENGTH]),
    }
}

fn start(identity: &str) -> (Listener, Dialler) {
    let socket = bind(&mesh_settings()).unwrap().remove(0);
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
