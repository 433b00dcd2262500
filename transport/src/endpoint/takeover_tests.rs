//! Two processes on one port, played by two sets of endpoints: every packet reaches the process that has its
//! connection.

use std::time::Duration;

use quinn::Connection;
use tokio::time::timeout;

use super::*;
use crate::testing::{self, Authority, FRONTEND, ORDERS};
use crate::tuning::TransportSettings;

/// Generous: it bounds a run that hangs, and never expires in a good one.
const PATIENCE: Duration = Duration::from_secs(20);

/// One process: its listening side, and the sockets that it hands over.
struct Process {
    listener: Listener,
    reading: Arc<Reading>,
    shared: UdpSocket,
    epoch: Epoch,
}

impl Process {
    fn first() -> Self {
        let socket = bind(&settings(Epoch(1))).unwrap().remove(0);
        Self::start(socket, Epoch(1))
    }

    /// Takes the port of `before`, which reads on until it hands it over.
    fn after(before: &Self, epoch: u8) -> (Self, OwnedFd) {
        let RelayPair { sending, receiving } = RelayPair::new().unwrap();
        let mut all = vec![EarlierProcess {
            epochs: vec![before.epoch],
            relays: vec![sending],
        }];
        all.extend(elders([&*before.reading]).unwrap());
        let inherited = Inherited {
            sockets: vec![before.shared.try_clone().unwrap()],
            elders: all,
        };
        let epoch = Epoch(epoch);
        let socket = inherit(&settings(epoch), inherited).unwrap().remove(0);
        (Self::start(socket, epoch), receiving)
    }

    fn start(socket: WorkerSocket, epoch: Epoch) -> Self {
        let (reading, shared) = (socket.reading(), socket.share().unwrap());
        let (listener, _) = testing::start(socket, &Authority::shared().credentials(ORDERS));
        Self {
            listener,
            reading,
            shared,
            epoch,
        }
    }

    async fn succeed(&self, epoch: u8) -> Self {
        let (successor, receiving) = Self::after(self, epoch);
        let handed = self.reading.hand_over(receiving);
        timeout(PATIENCE, handed).await.unwrap();
        successor.reading.begin();
        successor
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_address().unwrap()
    }
}

fn settings(epoch: Epoch) -> MeshSettings {
    MeshSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Workers::MIN,
        tuning: TransportSettings::default().validate().unwrap(),
        epoch,
        reset_key: ResetKey::new([0; ResetKey::LENGTH]),
    }
}

fn dialler() -> Dialler {
    let socket = bind(&settings(Epoch(99))).unwrap().remove(0);
    testing::start(socket, &Authority::shared().credentials(FRONTEND)).1
}

/// A connection of `dialler` that `process` serves; both of its ends.
async fn connect(dialler: &Dialler, process: &Process) -> (Connection, Connection) {
    let expected = ORDERS.parse().unwrap();
    let accept = async { process.listener.endpoint.accept().await.unwrap().await };
    let dial = dialler.dial(process.address(), &expected);
    let both = async { tokio::join!(dial, accept) };
    let (client, server) = timeout(PATIENCE, both).await.unwrap();
    (client.unwrap().0, server.unwrap())
}

/// Sends a megabyte and returns how much arrived.
async fn exchange(client: &Connection, server: &Connection) {
    let bytes = vec![7; 1 << 20];
    let send = async {
        let (mut send, mut receive) = client.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        receive.read_to_end(64).await.unwrap()
    };
    let answer = async {
        let (mut send, mut receive) = server.accept_bi().await.unwrap();
        let count = receive.read_to_end(2 << 20).await.unwrap().len();
        send.write_all(count.to_string().as_bytes()).await.unwrap();
        send.finish().unwrap();
    };
    let both = async { tokio::join!(send, answer) };
    let (heard, ()) = timeout(PATIENCE, both).await.unwrap();
    assert_eq!(heard, bytes.len().to_string().as_bytes());
}

#[tokio::test]
async fn connections_stay_with_the_process_that_accepted_them_and_new_ones_go_to_the_newest() {
    let first = Process::first();
    let dialler = dialler();
    let of_first = connect(&dialler, &first).await;
    let second = first.succeed(2).await;
    let of_second = connect(&dialler, &second).await;
    let third = second.succeed(3).await;
    let so_far = second.reading.forwarded();
    let of_third = connect(&dialler, &third).await;
    for (client, server) in [&of_first, &of_second, &of_third] {
        exchange(client, server).await;
    }
    // Forwarded by the reading process to each of the others.
    assert!(third.reading.forwarded().0 > 0);
    assert_eq!(second.reading.forwarded(), so_far);
}

#[tokio::test]
async fn the_end_of_a_process_cuts_none_before_it() {
    let first = Process::first();
    let dialler = dialler();
    let (client, server) = connect(&dialler, &first).await;
    let second = first.succeed(2).await;
    let third = second.succeed(3).await;
    drop(second);
    exchange(&client, &server).await;
    let fourth = third.succeed(4).await;
    exchange(&client, &server).await;
    let (newer, its_server) = connect(&dialler, &fourth).await;
    exchange(&newer, &its_server).await;
}

#[tokio::test]
async fn a_process_that_has_ended_is_no_elder_any_more() {
    let first = Process::first();
    let second = first.succeed(2).await;
    let of = |process: &Process| -> Vec<Epoch> {
        let elders = elders([&*process.reading]).unwrap();
        elders.into_iter().flat_map(|elder| elder.epochs).collect()
    };
    assert_eq!(of(&second), [Epoch(1)]);
    drop(first);
    let ended = async {
        while !of(&second).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn a_process_takes_its_port_back_and_hands_it_over_once_more() {
    let first = Process::first();
    let dialler = dialler();
    let (client, server) = connect(&dialler, &first).await;
    // It is ready, and then hangs.
    let (_hung, receiving) = Process::after(&first, 2);
    timeout(PATIENCE, first.reading.hand_over(receiving))
        .await
        .unwrap();
    first.reading.take_back();
    exchange(&client, &server).await;
    let third = first.succeed(3).await;
    exchange(&client, &server).await;
    let (newer, its_server) = connect(&dialler, &third).await;
    exchange(&newer, &its_server).await;
}

#[tokio::test]
async fn a_process_reads_nothing_before_it_may() {
    let first = Process::first();
    let (second, _receiving) = Process::after(&first, 2);
    let (client, server) = connect(&dialler(), &first).await;
    exchange(&client, &server).await;
    assert_eq!(second.reading.forwarded(), (0, 0));
}

#[tokio::test]
async fn a_process_whose_successor_dies_reads_again() {
    let first = Process::first();
    let (client, server) = connect(&dialler(), &first).await;
    let second = first.succeed(2).await;
    exchange(&client, &server).await;
    drop(second);
    exchange(&client, &server).await;
}

#[test]
fn what_does_not_fit_the_settings_is_refused() {
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let elder = |relays, epochs: &[u8]| EarlierProcess {
        epochs: epochs.iter().copied().map(Epoch).collect(),
        relays: (0..relays)
            .map(|_| RelayPair::new().unwrap().sending)
            .collect(),
    };
    let refused = |sockets, elders| {
        let inherited = Inherited { sockets, elders };
        let refused = inherit(&settings(Epoch(3)), inherited).err();
        refused.unwrap().to_string()
    };
    let two = vec![socket(), socket()];
    assert!(refused(two, vec![elder(2, &[])]).contains("set workers: 2"));
    assert!(refused(vec![socket()], vec![elder(0, &[])]).contains("relay"));
    assert!(refused(vec![socket()], vec![elder(1, &[3])]).contains("earlier"));
    let most = u8::try_from(limits::PREDECESSORS_MAX).unwrap();
    let many = (100..=100 + most).map(|epoch| elder(1, &[epoch]));
    assert!(refused(vec![socket()], many.collect()).contains("earlier"));
}
