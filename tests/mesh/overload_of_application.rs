//! An application that gets more requests than it can answer, on default settings: the results of its
//! callers, and that slow answers alone cause no refusal.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::figures::Seen;
use crate::harness::{Mesh, OpenLoad, Origin, Sidecar, heavy, pause, service};
use crate::shown_refusals::metric;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An application that works on a few requests at once and lets the others wait, oldest first. It does not
/// notice that a caller has gone.
struct Workers(Mutex<Turns>);

struct Turns {
    free: usize,
    waiting: VecDeque<SyncSender<()>>,
}

impl Workers {
    fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turns {
            free: at_once,
            waiting: VecDeque::new(),
        })))
    }

    fn work(&self, time: Duration) {
        let mut turns = self.0.lock().unwrap();
        if turns.free > 0 {
            turns.free -= 1;
            drop(turns);
        } else {
            let (mine, turn) = sync_channel(1);
            turns.waiting.push_back(mine);
            drop(turns);
            turn.recv().unwrap();
        }
        pause(time);
        let mut turns = self.0.lock().unwrap();
        match turns.waiting.pop_front() {
            Some(next) => next.send(()).unwrap(),
            None => turns.free += 1,
        }
    }
}

/// `orders` with this application, and a caller of it. No policy is applied.
fn shop(mesh: &Mesh, origin: &Origin) -> (Sidecar, Sidecar, SocketAddr) {
    mesh.apply(&service("orders", 80, "http"));
    let serving = mesh.sidecar("orders").serves("orders:80", origin.address);
    let orders = serving.start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let to = shop.listener("orders:80");
    (orders, shop, to)
}

fn refused(orders: &Sidecar) -> f64 {
    let parts = ["weft_overload_total", "adaptive", "enforce"];
    metric(orders, &parts)
}

fn adaptive(orders: &Sidecar) -> serde_json::Value {
    orders.admin_json("/endpoints")["served"][0]["adaptive"].clone()
}

#[test]
fn at_twice_five_and_ten_times_its_capacity_an_application_answers_nine_tenths_of_what_it_can() {
    let _quiet = heavy();
    let mesh = Mesh::start();
    // 100 a second.
    let workers = Workers::new(2);
    let origin = Origin::http(mesh.address(), move |_, out| {
        workers.work(Duration::from_millis(20));
        out.write_all(OK).map(|()| true)
    });
    let (orders, _shop, to) = shop(&mesh, &origin);
    let peak = Seen::of(&mesh, to, 80, 5, &["--warm-up", "1s"]);
    assert_eq!((peak.count("failed"), refused(&orders)), (0, 0.0));
    assert_eq!(adaptive(&orders)["acting"], false);
    for (times, warm_up) in [(2, "4s"), (5, "8s"), (10, "10s")] {
        let flags = ["--deadline", "1s", "--warm-up", warm_up];
        let flooded = Seen::of(&mesh, to, 100 * times, 8, &flags);
        let goodput = flooded.good_per_second();
        assert!(goodput >= 88.0, "{times}: {goodput}");
        // Refusals come at once, though the answers of the application take their time.
        let refused = &flooded.0["failed"]["percentiles"]["p50"]["us"];
        assert!(refused.as_u64().unwrap() <= 50_000, "{refused} us");
        let told = adaptive(&orders);
        assert!(
            told["acting"] == true && told["limit"].as_u64().unwrap() < 64,
            "{told}"
        );
    }
    assert!(
        orders
            .process
            .log()
            .contains("the application is overloaded")
    );
    pause(Duration::from_secs(6));
    let before = refused(&orders);
    let normal = Seen::of(&mesh, to, 50, 3, &[]);
    assert_eq!((normal.count("failed"), refused(&orders)), (0, before));
    pause(Duration::from_secs(3));
    assert_eq!(adaptive(&orders)["acting"], false);
}

#[test]
fn slow_answers_long_polls_and_streams_beside_quick_ones_refuse_nothing() {
    let _quiet = heavy();
    let mesh = Mesh::start();
    let workers = Workers::new(64);
    let count = Arc::new(Mutex::new(0_u64));
    let origin = Origin::http(mesh.address(), move |request, out| {
        match request.path() {
            "/poll" => pause(Duration::from_secs(4)),
            "/stream" => {
                out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for _ in 0..10 {
                    out.write_all(b"1\r\nx\r\n")?;
                    pause(Duration::from_secs(1));
                }
                return out.write_all(b"0\r\n\r\n").map(|()| true);
            }
            _ => {
                let mut count = count.lock().unwrap();
                *count += 1;
                let slow = count.is_multiple_of(2);
                // As after a start with a cold cache.
                let cold = *count < 1000;
                drop(count);
                let time = match (slow, cold) {
                    (true, _) => 500,
                    (false, true) => 100,
                    (false, false) => 1,
                };
                workers.work(Duration::from_millis(time));
            }
        }
        out.write_all(OK).map(|()| true)
    });
    let (orders, _shop, to) = shop(&mesh, &origin);
    let load = |path: &str, rate, seconds| {
        let load = mesh.weft_command(&["load"]);
        OpenLoad::of_url(load, &format!("http://{to}{path}"), rate, seconds, &[])
    };
    // 64 workers do 213 of the cold ones a second, and 255 later.
    let polls = load("/poll", 30, 12);
    let streams = load("/stream", 5, 12);
    let quick = load("/", 170, 12);
    for one in [polls, streams, quick] {
        // The last polls and streams do not end before the load does.
        let seen = one.result();
        let open = seen["errors"]["open_at_end"].as_u64().unwrap_or(0);
        assert_eq!(seen["summary"]["failed"], open, "{seen}");
    }
    assert_eq!(refused(&orders), 0.0);
}

#[test]
fn a_light_caller_is_served_while_a_heavy_one_overloads_the_application() {
    let _quiet = heavy();
    let mesh = Mesh::start();
    let workers = Workers::new(2);
    let origin = Origin::http(mesh.address(), move |_, out| {
        workers.work(Duration::from_millis(20));
        out.write_all(OK).map(|()| true)
    });
    let (_orders, _shop, heavy_to) = shop(&mesh, &origin);
    let cart = mesh.sidecar("cart").calls("orders:80").start();
    cart.wait_endpoints("orders:80", 1);
    Seen::of(&mesh, heavy_to, 50, 3, &[]);
    let flood = mesh.weft_command(&["load"]);
    let flood = OpenLoad::start(flood, heavy_to, 500, 20, &["--deadline", "1s"]);
    let flags = ["--deadline", "1s", "--warm-up", "8s"];
    let light = Seen::of(&mesh, cart.listener("orders:80"), 10, 8, &flags);
    flood.result();
    let (good, failed) = (light.count("succeeded"), light.count("failed"));
    assert!(failed * 20 <= good, "{good} {failed}");
}
