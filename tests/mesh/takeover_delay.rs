//! How long a request takes when a takeover comes in between. The test compares it with the same load without
//! a takeover, in the same run, because machines are slow at times.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Connection, Mesh, Origin, heavy, pause, service};

const SOCKET: &str = "takeover_socket: takeover.sock";

/// Connections, and the rate of each: 500 requests a second in all.
const CONNECTIONS: u32 = 16;
const EACH: Duration = Duration::from_millis(32);

/// One takeover, or none, in each of as many seconds.
const TURN: Duration = Duration::from_secs(3);
const TURNS: u32 = 5;

/// The delay that a takeover may add to the longest one. It is the median of several, on a machine with other
/// work.
const ADDED_MAX: Duration = Duration::from_millis(100);

/// Requests by the clock, however earlier ones ended.
struct OpenLoad {
    begun: Instant,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

/// When a request was due, and how long after that its answer came.
struct Sample {
    due: Duration,
    outcome: Result<Duration, String>,
}

impl OpenLoad {
    fn start(address: SocketAddr) -> Self {
        let (begun, ended) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let threads = (0..CONNECTIONS).map(|index| {
            let ended = Arc::clone(&ended);
            let first = EACH * index / CONNECTIONS;
            thread::spawn(move || drive(address, begun, first, &ended))
        });
        Self {
            begun,
            threads: threads.collect(),
            ended,
        }
    }

    /// The longest delay of each turn.
    #[track_caller]
    fn finish(self) -> BTreeMap<u32, Duration> {
        self.ended.store(true, Ordering::Release);
        let mut longest = BTreeMap::new();
        let samples = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        for sample in samples {
            let turn = u32::try_from(sample.due.as_millis() / TURN.as_millis()).unwrap();
            match sample.outcome {
                Ok(took) => {
                    let seen = longest.entry(turn).or_insert(took);
                    *seen = took.max(*seen);
                }
                Err(error) => panic!("at {:?}: {error}", sample.due),
            }
        }
        longest
    }
}

fn drive(address: SocketAddr, begun: Instant, first: Duration, ended: &AtomicBool) -> Vec<Sample> {
    let (mut due, mut open) = (first, None);
    let mut samples = Vec::new();
    while !ended.load(Ordering::Acquire) {
        pause(due.saturating_sub(begun.elapsed()));
        let connection = match open.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(address),
        };
        let answered = connection.and_then(|mut connection| {
            let response = connection.get("/")?;
            Ok((connection, response))
        });
        let took = begun.elapsed().saturating_sub(due);
        let outcome = match answered {
            Ok((connection, response)) if response.status == 200 => {
                let goes_on = response.header("connection") != Some("close");
                open = goes_on.then_some(connection);
                Ok(took)
            }
            Ok((_, response)) => Err(format!("{} {}", response.status, response.text())),
            Err(error) => Err(error.to_string()),
        };
        samples.push(Sample { due, outcome });
        due += EACH;
    }
    samples
}

fn middle(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

#[test]
fn a_takeover_under_load_hardly_delays_a_request_on_either_side() {
    let _alone = heavy();
    let mesh = Mesh::start();
    let http = Origin::http(mesh.address(), |_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")?;
        Ok(true)
    });
    mesh.apply(&service("orders", 80, "http"));
    let orders = mesh.sidecar("orders").serves("orders:80", http.address);
    let mut orders = orders.setting(SOCKET).start();
    let shop = mesh.sidecar("shop").calls("orders:80").setting(SOCKET);
    let mut shop = shop.start();
    shop.wait_endpoints("orders:80", 1);

    let load = OpenLoad::start(shop.listener("orders:80"));
    let mut old = Vec::new();
    // Which turns have no takeover, which one of the caller's sidecar, and which one of the server's.
    let mut turns: [Vec<u32>; 3] = Default::default();
    for turn in 0..TURNS * 3 {
        pause((TURN * turn).saturating_sub(load.begun.elapsed()));
        // A slow machine comes late, and then looks at the turn in which it happens.
        let at = load.begun.elapsed().as_millis() / TURN.as_millis();
        turns[turn as usize % 3].push(u32::try_from(at).unwrap());
        match turn % 3 {
            0 => {}
            1 => old.push(shop.take_over()),
            _ => old.push(orders.take_over()),
        }
    }
    pause((TURN * TURNS * 3).saturating_sub(load.begun.elapsed()));
    let longest = load.finish();
    let [without, of_caller, of_server] =
        turns.map(|turns| turns.iter().map(|turn| longest[turn]).collect::<Vec<_>>());
    eprintln!(
        "longest delays\n  without   {without:?}\n  of caller {of_caller:?}\n  of server {of_server:?}"
    );
    let usual = middle(without);
    for delays in [of_caller, of_server] {
        let delay = middle(delays.clone());
        assert!(delay <= usual + ADDED_MAX, "{delays:?}, usually {usual:?}");
    }
    for process in &mut old {
        assert!(process.wait_exit(Duration::from_secs(40)).success());
    }
    orders.expect_alive();
    shop.expect_alive();
}
