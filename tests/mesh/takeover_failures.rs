//! A successor that dies or hangs before it has everything: the running sidecar goes on, or returns to its
//! work.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::harness::{Load, Mesh, Origin, Sidecar, eventually, get, pause, service};

const SOCKET: &str = "takeover_socket: takeover.sock";

/// Longer than the running sidecar waits for a message of the successor that it gave its port to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that asks for a sidecar's sockets, and goes as far as the test lets it. It keeps the sockets
/// that it gets.
struct Successor {
    stream: UnixStream,
    _got: Vec<OwnedFd>,
}

/// How far one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has the sockets.
    Offered,
    /// It has said that it is ready.
    Ready,
    /// It has been told to take the mesh port.
    Yours,
    /// It has said that it takes it.
    Taken,
}

impl Successor {
    fn up_to(stage: Stage, orders: &Sidecar) -> Self {
        let stream = UnixStream::connect(orders.folder().join("takeover.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut successor = Self {
            stream,
            _got: Vec::new(),
        };
        let request = json!({
            "identity": "spiffe://demo.test/ns/shop/sa/orders",
            "workers": 2,
            "mesh": orders.mesh_address().to_string(),
        });
        successor.say(json!({ "request": request })).unwrap();
        let offer = successor.hear().unwrap();
        assert!(offer["offer"].is_object(), "{offer}");
        successor.receive_descriptors();
        if stage >= Stage::Ready {
            successor.say(json!("ready")).unwrap();
        }
        if stage >= Stage::Yours {
            assert_eq!(successor.hear().unwrap(), "yours");
        }
        if stage >= Stage::Taken {
            successor.say(json!("taken")).unwrap();
        }
        successor
    }

    fn say(&mut self, message: Value) -> io::Result<()> {
        let text = json!({ "version": 1, "revision": 1, "message": message }).to_string();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&length, text.as_bytes()].concat())
    }

    fn hear(&mut self) -> io::Result<Value> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut text)?;
        let all: Value = serde_json::from_slice(&text)?;
        Ok(all["message"].clone())
    }

    /// Those of a small sidecar, which come at once.
    fn receive_descriptors(&mut self) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut carrier = [0];
        let parts = &mut [IoSliceMut::new(&mut carrier)];
        recvmsg(&self.stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self._got.extend(descriptors);
            }
        }
        assert!(!self._got.is_empty());
    }
}

fn origin(mesh: &Mesh) -> Origin {
    Origin::echo(mesh.address(), "orders")
}

fn times(orders: &Sidecar, text: &str) -> usize {
    orders.process.log().matches(text).count()
}

#[test]
fn a_successor_that_ends_or_hangs_at_any_stage_leaves_the_sidecar_at_its_work() {
    let mesh = Mesh::start();
    let http = origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .setting(SOCKET)
        .setting("workers: 2")
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    let kept = Load::start(address, "/", 4, Duration::from_millis(20));
    const GOES_ON: &str = "not taken over: this process goes on";

    for stage in [Stage::Offered, Stage::Ready, Stage::Yours, Stage::Taken] {
        let before = times(&orders, GOES_ON);
        drop(Successor::up_to(stage, &orders));
        eventually(&format!("{stage:?}: it goes on"), || {
            times(&orders, GOES_ON) > before
        });
        assert_eq!(get(address, "/new").unwrap().status, 200, "{stage:?}");
    }
    for stage in [Stage::Yours, Stage::Taken] {
        let before = times(&orders, GOES_ON);
        let mut hung = Successor::up_to(stage, &orders);
        // It returns when the failure is known, or earlier.
        assert_eq!(get(address, "/new").unwrap().status, 200, "{stage:?}");
        eventually(&format!("{stage:?}: it goes on"), || {
            times(&orders, GOES_ON) > before
        });
        // Its message now comes too late, and it is told so.
        let late = hung.say(json!("settled"));
        assert!(late.is_err(), "{stage:?}");
        let told = hung.hear().unwrap();
        let reason = told["refusal"].as_str().unwrap_or_default();
        assert!(reason.contains("goes on"), "{told}");
    }
    kept.finish().expect_all_good(20);
    // Neither registration nor identity, lock nor sockets have been given up.
    orders.expect_alive();
    shop.wait_endpoints("orders:80", 1);
    let mut old = orders.take_over();
    assert!(old.wait_exit(Duration::from_secs(40)).success());
    assert_eq!(get(address, "/after").unwrap().status, 200);
}

#[test]
fn a_successor_that_is_killed_or_stopped_while_it_starts_does_not_end_the_service() {
    let mesh = Mesh::start();
    let http = origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .setting(SOCKET)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    const TAKEN: &str = "another process has taken over: finishing";
    let mut cut_short = 0;
    // Somewhere within the start, which takes some tens of milliseconds or more.
    for (turn, delay) in (0..200).step_by(20).enumerate() {
        let before = times(&orders, TAKEN);
        let mut new = orders.successor();
        pause(Duration::from_millis(delay));
        new.signal(Signal::SIGSTOP);
        // Its earlier message has been read by then.
        pause(Duration::from_millis(200));
        let mut killed = false;
        if times(&orders, TAKEN) == before {
            cut_short += 1;
            killed = turn % 2 == 0;
            if killed {
                new.kill();
            }
            let begun = Instant::now();
            eventually("the service answers", || {
                get(address, "/").is_ok_and(|response| response.status == 200)
            });
            assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        }
        if killed {
            continue;
        }
        new.signal(Signal::SIGCONT);
        // It takes over, or finds that it came too late.
        let mut ended = false;
        eventually("it is clear which one is the sidecar", || {
            ended = !new.is_running();
            ended || times(&orders, TAKEN) > before
        });
        if !ended {
            let mut old = std::mem::replace(&mut orders.process, new);
            assert!(old.wait_exit(Duration::from_secs(40)).success());
        }
        assert_eq!(get(address, "/").unwrap().status, 200);
    }
    assert!(cut_short > 0);
    orders.expect_alive();
}
