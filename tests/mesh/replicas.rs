//! Replicas of a service that restart or die under load: the effect on callers.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Connection, Mesh, OpenLoad, Origin, Sidecar, heavy, pause, service};

/// Answers `/late` after four seconds, `/slow` within six, a third at a time, and everything else at once.
fn origin(mesh: &Mesh) -> Origin {
    Origin::http(mesh.address(), |request, out| {
        if request.path() == "/slow" {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ns")?;
            for _ in 0..2 {
                pause(Duration::from_secs(3));
                out.write_all(b"s")?;
            }
            return Ok(true);
        }
        if request.path() == "/late" {
            pause(Duration::from_secs(4));
        }
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell")?;
        Ok(true)
    })
}

/// Replicas of one service, and a sidecar that calls it.
struct Scene {
    replicas: Vec<Sidecar>,
    shop: Sidecar,
    mesh: Mesh,
    _origins: Vec<Origin>,
    _quiet: File,
}

impl Scene {
    fn of(replicas: usize) -> Self {
        let quiet = heavy();
        let mesh = Mesh::start();
        mesh.apply(&service("orders", 80, "http"));
        let origins: Vec<Origin> = (0..replicas).map(|_| origin(&mesh)).collect();
        let start = |(number, origin): (usize, &Origin)| {
            let plan = mesh.sidecar("orders").named(&format!("orders-{number}"));
            plan.serves("orders:80", origin.address).start()
        };
        let replicas: Vec<Sidecar> = origins.iter().enumerate().map(start).collect();
        let shop = mesh.sidecar("shop").calls("orders:80").start();
        shop.wait_endpoints("orders:80", replicas.len());
        Self {
            replicas,
            shop,
            mesh,
            _origins: origins,
            _quiet: quiet,
        }
    }

    /// Two hundred requests a second, however earlier ones ended.
    fn load(&self, seconds: u32) -> OpenLoad {
        let address = self.shop.listener("orders:80");
        OpenLoad::start(
            self.mesh.weft_command(&["load"]),
            address,
            200,
            seconds,
            &[],
        )
    }

    /// Every request got a good answer, and all but a thousandth within a second.
    fn expect_quick(&self, load: OpenLoad) {
        let result = load.result();
        let failed = &result["summary"]["failed"];
        assert_eq!(
            *failed,
            0,
            "{}\n{}",
            result["errors"],
            self.shop.process.log()
        );
        let latency = &result["latency"]["percentiles"];
        let us = |which: &str| latency[which]["us"].as_u64().unwrap();
        // Delays by a busy machine are not the mesh's doing: they also hit unaffected requests.
        assert!(us("p99_9") <= 1_000_000 + us("p95"), "{latency}");
    }
}

/// Requests that take seconds, one every 100 ms, until `ended`; returns those that failed.
fn slow_requests(address: SocketAddr, ended: &AtomicBool) -> (usize, Vec<String>) {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    while !ended.load(Ordering::Acquire) {
        let path = if all.len() % 2 == 0 { "/slow" } else { "/late" };
        all.push(thread::spawn(move || {
            Connection::open(address).and_then(|mut open| open.get(path))
        }));
        pause(Duration::from_millis(100));
    }
    let count = all.len();
    for one in all {
        match one.join().unwrap() {
            Ok(response) if response.status == 200 => {}
            Ok(response) => failed.push(format!(
                "{} {:?}",
                response.status,
                response.header("proxy-status")
            )),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (count, failed)
}

#[test]
fn two_of_three_replicas_restart_half_a_second_apart_and_no_request_fails_or_is_cut() {
    let mut scene = Scene::of(3);
    let address = scene.shop.listener("orders:80");
    let load = scene.load(20);
    let ended = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&ended);
    let slow = thread::spawn(move || slow_requests(address, &until));
    pause(Duration::from_secs(3));
    thread::scope(|scope| {
        for (replica, delay) in scene.replicas.iter_mut().zip([0, 500]) {
            scope.spawn(move || {
                pause(Duration::from_millis(delay));
                replica.terminate();
                assert!(replica.process.wait_exit(Duration::from_secs(30)).success());
                replica.restart();
                replica.wait_ready();
            });
        }
    });
    pause(Duration::from_secs(2));
    ended.store(true, Ordering::Release);
    let (count, failed) = slow.join().unwrap();
    let log = scene.shop.process.log();
    assert!(
        failed.is_empty(),
        "{} of {count}: {failed:?}\n{log}",
        failed.len()
    );
    scene.expect_quick(load);
}

#[test]
fn a_killed_replica_delays_all_but_a_thousandth_of_the_requests_by_less_than_a_second() {
    let mut scene = Scene::of(2);
    let load = scene.load(15);
    pause(Duration::from_secs(5));
    scene.replicas[0].process.kill();
    scene.expect_quick(load);
}

#[test]
fn a_replica_that_goes_while_no_config_service_tells_it_delays_no_request_by_a_second() {
    let mut scene = Scene::of(2);
    let load = scene.load(20);
    pause(Duration::from_secs(2));
    scene.mesh.config.kill();
    scene.replicas[0].terminate();
    let ended = scene.replicas[0].process.wait_exit(Duration::from_secs(30));
    assert!(ended.success());
    scene.expect_quick(load);
}
