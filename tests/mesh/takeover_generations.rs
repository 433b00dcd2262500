//! Takeovers that follow each other while earlier processes still drain: each process keeps its own
//! connections, in whatever order the later ones end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::{
    Mesh, Origin, Process, Response, Sidecar, connect, expect_echo, get, pause, read_response,
    service,
};

const SOCKET: &str = "takeover_socket: takeover.sock";

/// Between two takeovers: long enough for a process that carries nothing to end.
const APART: Duration = Duration::from_secs(2);

/// Longer than any drain.
const END: Duration = Duration::from_secs(40);

/// How long the running work takes.
const RUNS: Duration = Duration::from_secs(9);

/// Servers of HTTP and TCP, and a caller; the sidecars can be taken over.
struct Shop {
    _mesh: Mesh,
    http: Origin,
    _tcp: Origin,
    orders: Sidecar,
    store: Sidecar,
    shop: Sidecar,
}

impl Shop {
    fn start() -> Self {
        let mesh = Mesh::start();
        let http = Origin::echo(mesh.address(), "orders");
        let tcp = Origin::raw(mesh.address(), |mut tap| {
            let mut writer = tap.try_clone()?;
            std::io::copy(&mut tap, &mut writer)?;
            writer.stream.shutdown(Shutdown::Write)
        });
        mesh.apply(&(service("orders", 80, "http") + &service("store", 7000, "tcp")));
        let orders = mesh.sidecar("orders");
        let orders = orders.serves("orders:80", http.address).setting(SOCKET);
        let store = mesh.sidecar("store");
        let store = store.serves("store:7000", tcp.address).setting(SOCKET);
        let shop = mesh.sidecar("shop").calls("orders:80").calls("store:7000");
        let (orders, store) = (orders.start(), store.start());
        let shop = shop.setting(SOCKET).start();
        shop.wait_endpoints("orders:80", 1);
        shop.wait_endpoints("store:7000", 1);
        Self {
            _mesh: mesh,
            http,
            _tcp: tcp,
            orders,
            store,
            shop,
        }
    }

    /// Has the sidecars of `side` taken over `count` times while uploads and a tunnel run, and expects all of
    /// them to succeed.
    fn expect_whole_through(&mut self, count: u32, side: Side) {
        let address = self.shop.listener("orders:80");
        // Twice as large as any window; and one that hardly moves.
        let upload = pour(address, 256 << 10, Duration::from_millis(50));
        let slow_post = pour(address, 16, Duration::from_millis(200));
        let mut tunnel = connect(self.shop.listener("store:7000")).unwrap();
        expect_echo(&mut tunnel, b"before");
        pause(Duration::from_millis(500));
        let mut old: Vec<Process> = Vec::new();
        for turn in 0..count {
            if turn > 0 {
                pause(APART);
            }
            match side {
                Side::Callers => old.push(self.shop.take_over()),
                Side::Servers => old.extend([self.orders.take_over(), self.store.take_over()]),
            }
            expect_echo(&mut tunnel, &[7; 20_000]);
            assert_eq!(get(address, "/beside").unwrap().status, 200);
        }
        // A process without work has ended by then.
        pause(APART);
        expect_echo(&mut tunnel, &[8; 20_000]);
        tunnel.shutdown(Shutdown::Write).unwrap();
        assert_eq!(tunnel.read(&mut [0; 16]).unwrap(), 0);
        for (sent, answer) in [upload, slow_post].map(|one| one.join().unwrap()) {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let said = format!("orders POST /upload HTTP/1.1 {sent}");
            assert_eq!(answer.text(), said);
        }
        for process in &mut old {
            assert!(process.wait_exit(END).success());
        }
        for sidecar in [&mut self.orders, &mut self.store, &mut self.shop] {
            sidecar.expect_alive();
        }
        let uploads = self.http.requests();
        let uploads = uploads.iter().filter(|seen| seen.path() == "/upload");
        assert_eq!(uploads.count(), 2, "none was sent again");
    }
}

#[derive(Clone, Copy)]
enum Side {
    Callers,
    Servers,
}

/// Posts pieces of this size, one every so often, in all for [`RUNS`]. Gives how much it sent, and the
/// answer.
fn pour(
    address: SocketAddr,
    piece: usize,
    every: Duration,
) -> JoinHandle<(usize, std::io::Result<Response>)> {
    thread::spawn(move || {
        let pieces = usize::try_from(RUNS.as_millis() / every.as_millis()).unwrap();
        let length = pieces * piece;
        let exchange = || {
            let mut stream = connect(address)?;
            let head =
                format!("POST /upload HTTP/1.1\r\nhost: app\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            for _ in 0..pieces {
                stream.write_all(&vec![b'x'; piece])?;
                pause(every);
            }
            read_response(&mut std::io::BufReader::new(stream), false)
        };
        (length, exchange())
    })
}

#[test]
fn two_takeovers_of_the_serving_sidecars_cut_nothing_that_the_first_process_carries() {
    Shop::start().expect_whole_through(2, Side::Servers);
}

#[test]
fn three_takeovers_of_the_serving_sidecars_cut_nothing_that_the_first_process_carries() {
    Shop::start().expect_whole_through(3, Side::Servers);
}

#[test]
fn three_takeovers_of_the_calling_sidecar_cut_nothing_that_the_first_process_carries() {
    Shop::start().expect_whole_through(3, Side::Callers);
}

#[test]
fn the_drain_of_the_newest_process_cuts_nothing_that_the_one_before_carries() {
    let mut shop = Shop::start();
    let address = shop.shop.listener("orders:80");
    let upload = pour(address, 64 << 10, Duration::from_millis(50));
    pause(Duration::from_millis(500));
    let mut old = shop.orders.take_over();
    shop.orders.terminate();
    let (_, answer) = upload.join().unwrap();
    assert_eq!(answer.unwrap().status, 200);
    assert!(old.wait_exit(END).success());
    assert!(shop.orders.process.wait_exit(END).success());
}

/// More processes than may drain at once have come and gone, while each of them overlaps the next.
#[test]
fn processes_that_have_ended_do_not_count_among_those_that_drain() {
    let mut shop = Shop::start();
    let address = shop.shop.listener("orders:80");
    let mut old = Vec::new();
    for _ in 0..20 {
        // Every one has a request to finish when the next one comes.
        let slow = pour_briefly(address);
        old.push(shop.orders.take_over());
        assert_eq!(slow.join().unwrap().unwrap().status, 200);
    }
    for process in &mut old {
        assert!(process.wait_exit(END).success());
    }
    shop.orders.expect_alive();
}

/// A post that takes a second and a half.
fn pour_briefly(address: SocketAddr) -> JoinHandle<std::io::Result<Response>> {
    thread::spawn(move || {
        let mut stream = connect(address)?;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 15\r\n\r\n")?;
        for _ in 0..15 {
            stream.write_all(b"x")?;
            pause(Duration::from_millis(100));
        }
        read_response(&mut std::io::BufReader::new(stream), false)
    })
}
