//! Every transport setting takes effect: each is read back from live connections on loopback, by their
//! behaviour or by quinn's counts.

mod flow_control;

use std::time::Duration;

use futures_util::FutureExt as _;
use quinn::congestion;
use socket2::SockRef;
use tokio::time::sleep;

use super::*;
use crate::acknowledged::Observed;
use crate::congestion::Tolerant;
use crate::error::DialError;
use crate::streams::Streams;
use crate::testing::{self, Authority, FRONTEND, ORDERS};
use crate::tuning::{Congestion, PostQuantum, TransportSettings};

/// Generous: it bounds a run that hangs, and never expires in a good one.
const PATIENCE: Duration = Duration::from_secs(20);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn defaults() -> TransportSettings {
    TransportSettings::default()
}

#[tokio::test]
async fn congestion_chooses_the_controller() {
    let choices = [
        Congestion::Tolerant,
        Congestion::Cubic,
        Congestion::Bbr,
        Congestion::Newreno,
    ];
    for choice in choices {
        let pair = Pair::with(TransportSettings {
            congestion: choice,
            ..defaults()
        })
        .await;
        let controller = || {
            let observed = pair.client.congestion_state().into_any();
            let observed = observed.downcast::<Observed>().ok().unwrap();
            observed.controller.into_any()
        };
        let found = [
            controller().is::<Tolerant>(),
            controller().is::<congestion::Cubic>(),
            controller().is::<congestion::Bbr>(),
            controller().is::<congestion::NewReno>(),
        ];
        assert_eq!(found, choices.map(|other| other == choice), "{choice:?}");
    }
}

#[tokio::test]
async fn post_quantum_required_on_one_side_refuses_a_peer_without_it() {
    use PostQuantum::{Off, Prefer, Require};
    for (client, server, meet) in [
        (Prefer, Require, true),
        (Prefer, Off, true),
        (Require, Prefer, true),
        (Require, Off, false),
        (Off, Require, false),
    ] {
        let side = |post_quantum| TransportSettings {
            post_quantum,
            ..defaults()
        };
        let pair = Pair::meet(side(client), side(server)).await;
        assert_eq!(pair.is_ok(), meet, "{client:?} to {server:?}");
    }
}

#[tokio::test]
async fn keep_alive_pings_from_the_dialling_side_only() {
    let pair = Pair::with(TransportSettings {
        keep_alive: Duration::from_millis(100),
        mtu_max: 1200,
        ..defaults()
    })
    .await;
    until(|| pair.client.stats().frame_tx.ping >= 2).await;
    assert_eq!(pair.server.stats().frame_tx.ping, 0);
}

#[tokio::test]
async fn idle_timeout_ends_a_connection_whose_peer_vanished() {
    let settings = TransportSettings {
        keep_alive: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(1),
        ..defaults()
    };
    let (address, vanish) = server_on_its_own_runtime(settings.clone());
    let (_listener, dialler) = start(settings, Authority::shared(), FRONTEND);
    let (connection, _) = dialler
        .dial(address, &ORDERS.parse().unwrap())
        .await
        .unwrap();
    vanish();
    let ended = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert_eq!(ended, quinn::ConnectionError::TimedOut);
}

#[tokio::test]
async fn handshake_timeout_ends_the_wait_for_a_host_that_does_not_answer() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let settings = TransportSettings {
        handshake_timeout: Duration::from_millis(100),
        ..defaults()
    };
    let (_listener, dialler) = start(settings, Authority::shared(), FRONTEND);
    let address = silent.local_addr().unwrap();
    let expected = ORDERS.parse().unwrap();
    // quinn alone would wait for the idle timeout, a minute.
    let dialled = timeout(PATIENCE, dialler.dial(address, &expected));
    let error = dialled.await.unwrap().err();
    assert_eq!(error, Some(DialError::Timeout(address)));
}

#[tokio::test]
async fn initial_rtt_sets_the_first_probe() {
    let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let settings = TransportSettings {
        initial_rtt: Duration::from_millis(5),
        handshake_timeout: Duration::from_millis(900),
        ..defaults()
    };
    let (_listener, dialler) = start(settings, Authority::shared(), FRONTEND);
    let address = silent.local_addr().unwrap();
    let expected = ORDERS.parse().unwrap();
    let probes = async {
        // The hello takes two datagrams; at 333 ms the first probe would come after the timeout.
        for _ in 0..6 {
            silent.recv(&mut [0; 2048]).await.unwrap();
        }
    };
    tokio::select! {
        _ = dialler.dial(address, &expected) => panic!("timed out before the probes"),
        () = probes => {}
    }
}

#[tokio::test]
async fn mtu_initial_is_used_at_once_and_mtu_max_is_discovered() {
    let pair = Pair::with(TransportSettings {
        mtu_initial: 1400,
        mtu_max: 1400,
        ..defaults()
    })
    .await;
    assert_eq!(pair.client.stats().path.current_mtu, 1400);

    let pair = Pair::with(TransportSettings {
        mtu_max: 6500,
        ..defaults()
    })
    .await;
    // Discovery ends within a few bytes of the bound.
    until(|| pair.client.stats().path.current_mtu > 6400).await;
    assert!(pair.client.stats().path.current_mtu <= 6500);
}

#[tokio::test]
async fn udp_buffer_is_asked_of_the_kernel_for_both_directions() {
    let sockets = bind(&mesh_settings(TransportSettings {
        udp_buffer: 96 * KIB,
        ..defaults()
    }));
    let sockets = sockets.unwrap();
    let socket = SockRef::from(&sockets[0].socket);
    // Linux books twice what is asked for (socket(7), SO_RCVBUF).
    let booked = 2 * 96 * 1024;
    assert_eq!(socket.recv_buffer_size().unwrap(), booked);
    assert_eq!(socket.send_buffer_size().unwrap(), booked);
}

#[tokio::test]
async fn gso_sends_many_datagrams_in_one_call_and_off_sends_each_alone() {
    for gso in [true, false] {
        let pair = Pair::with(TransportSettings { gso, ..defaults() }).await;
        let (mut send, _recv) = pair.client.open_bi().await.unwrap();
        fill(&mut send);
        until(|| pair.client.stats().udp_tx.bytes > MIB).await;
        let sent = pair.client.stats().udp_tx;
        assert_eq!(sent.ios < sent.datagrams, gso, "{sent:?}");
    }
}

#[tokio::test]
async fn ack_frequency_is_asked_of_the_peer_only_when_set() {
    for (ack_frequency, asked) in [(20, true), (0, false)] {
        let pair = Pair::with(TransportSettings {
            ack_frequency,
            ..defaults()
        })
        .await;
        let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (mut back, _) = pair.server.accept_bi().await.unwrap();
        back.write_all(b"y").await.unwrap();
        recv.read_exact(&mut [0]).await.unwrap();
        let frames = pair.client.stats().frame_tx.ack_frequency;
        assert_eq!(frames > 0, asked, "{ack_frequency}");
    }
}

#[tokio::test]
async fn migration_follows_a_client_to_its_new_address_unless_switched_off() {
    for migration in [true, false] {
        let pair = Pair::with(TransportSettings {
            migration,
            ..defaults()
        })
        .await;
        let before = pair.server.remote_address();
        let socket = ephemeral_socket(&mesh_settings(defaults())).unwrap();
        pair.dialler.endpoint.rebind(socket).unwrap();
        let (mut send, _recv) = pair.client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        if migration {
            until(|| pair.server.remote_address() != before).await;
        } else {
            until(|| pair.client.stats().frame_tx.stream > 0).await;
            assert_eq!(pair.server.remote_address(), before);
        }
    }
}

/// The streams of a connection that shares a worker's pool.
fn of_worker(connection: &quinn::Connection, settings: TransportSettings) -> Arc<Streams> {
    let tuning = settings.validate().unwrap();
    let pools = WindowPools {
        send: SendPool::new(&tuning),
        receive: ReceivePool::new(Origin::Accepted, &tuning),
    };
    let windows = pools.windows(&ORDERS.parse().unwrap());
    Streams::of_worker(connection.clone(), &tuning, Lag::default(), windows)
}

/// Two endpoints, connected.
struct Pair {
    client: quinn::Connection,
    server: quinn::Connection,
    dialler: Dialler,
    _listener: Listener,
}

impl Pair {
    /// With windows as if they had grown.
    async fn with(settings: TransportSettings) -> Self {
        let pair = Self::with_credit(settings.clone()).await;
        for connection in [&pair.client, &pair.server] {
            connection.set_send_window(settings.send_window);
        }
        pair
    }

    /// With windows for receiving as if they had grown.
    async fn with_credit(settings: TransportSettings) -> Self {
        let pair = Self::fresh(settings.clone()).await;
        let ends = [&pair.client, &pair.server];
        for connection in ends {
            let window = settings.connection_window.try_into().unwrap();
            connection.set_receive_window(window);
        }
        // A client whose full allowance applies from the start.
        let told = || ends.map(|end| end.stats().frame_rx.max_data);
        until(|| told()[0] > 0 && (settings.connection_window <= MIB || told()[1] > 0)).await;
        pair
    }

    async fn fresh(settings: TransportSettings) -> Self {
        Self::meet(settings.clone(), settings).await.unwrap()
    }

    async fn meet(client: TransportSettings, server: TransportSettings) -> Result<Self, DialError> {
        let authority = Authority::shared();
        let (listener, _) = start(server, authority, ORDERS);
        let (_, dialler) = start(client, authority, FRONTEND);
        let address = listener.local_address().unwrap();
        let expected = ORDERS.parse().unwrap();
        let accept = async { listener.endpoint.accept().await.unwrap().await };
        let (client, server) = tokio::join!(dialler.dial(address, &expected), accept);
        let (client, _) = client?;
        Ok(Self {
            client,
            server: server.unwrap(),
            dialler,
            _listener: listener,
        })
    }
}

fn start(settings: TransportSettings, authority: &Authority, id: &str) -> (Listener, Dialler) {
    let socket = bind(&mesh_settings(settings)).unwrap().remove(0);
    testing::start(socket, &authority.credentials(id))
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

/// Accepts connections until the returned function stops the whole runtime, as a kill would.
fn server_on_its_own_runtime(settings: TransportSettings) -> (SocketAddr, impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let entered = runtime.enter();
    let (listener, _) = start(settings, Authority::shared(), ORDERS);
    drop(entered);
    let address = listener.local_address().unwrap();
    runtime.spawn(async move {
        let mut connections = Vec::new();
        while let Some(incoming) = listener.endpoint.accept().await {
            connections.push(incoming.await);
        }
    });
    (address, move || runtime.shutdown_background())
}

async fn fill_streams(connection: &quinn::Connection, count: usize) -> u64 {
    let mut total = 0;
    let mut open = Vec::new();
    for _ in 0..count {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        total += fill(&mut send);
        open.push((send, recv));
    }
    total
}

/// Writes until QUIC takes no more, without yielding; returns the number of bytes taken.
fn fill(send: &mut quinn::SendStream) -> u64 {
    let chunk = [0; 16 << 10];
    let mut total = 0;
    while let Some(Ok(written)) = send.write(&chunk).now_or_never() {
        total += u64::try_from(written).unwrap();
    }
    total
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}
