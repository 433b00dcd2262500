//! The figures that resilience promises, with real processes: what callers see of endpoints that are slow,
//! failing, stalling or overloaded. The load is an open loop (`weft load`), so that waiting callers count.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Connection, Mesh, OpenLoad, Origin, Sidecar, heavy, pause, service};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// What an open loop of `rate` requests per second saw.
pub(crate) struct Seen(pub(crate) Value);

impl Seen {
    pub(crate) fn of(
        mesh: &Mesh,
        address: SocketAddr,
        rate: u32,
        seconds: u32,
        flags: &[&str],
    ) -> Self {
        let load = mesh.weft_command(&["load"]);
        Self(OpenLoad::start(load, address, rate, seconds, flags).result())
    }

    pub(crate) fn percentile(&self, which: &str) -> Duration {
        let us = self.0["latency"]["percentiles"][which]["us"].as_u64();
        Duration::from_micros(us.unwrap())
    }

    pub(crate) fn count(&self, field: &str) -> u64 {
        self.0["summary"][field].as_u64().unwrap()
    }

    pub(crate) fn good_per_second(&self) -> f64 {
        self.0["summary"]["succeeded_per_second"].as_f64().unwrap()
    }

    fn error_share(&self) -> f64 {
        self.0["summary"]["error_share"].as_f64().unwrap()
    }
}

/// Five instances of a service with a sidecar each, and a caller of it.
fn five(mesh: &Mesh, origins: &[Origin]) -> (Vec<Sidecar>, Sidecar) {
    mesh.apply(&service("orders", 80, "http"));
    let names = ["orders-1", "orders-2", "orders-3", "orders-4", "orders-5"];
    let serving = origins.iter().zip(names).map(|(origin, name)| {
        let plan = mesh.sidecar("orders").named(name);
        plan.serves("orders:80", origin.address).start()
    });
    let serving: Vec<Sidecar> = serving.collect();
    let plan = mesh.sidecar("shop").calls("orders:80");
    let shop = plan.setting("workers: 1").start();
    shop.wait_endpoints("orders:80", serving.len());
    (serving, shop)
}

#[test]
fn of_five_endpoints_one_that_takes_two_seconds_is_hardly_met_after_ten_and_back_30_after_it_heals()
{
    let _quiet = heavy();
    let mesh = Mesh::start();
    let slow = Arc::new(AtomicU64::new(0));
    let origins: Vec<Origin> = (0..5)
        .map(|index| {
            let slow = Arc::clone(&slow);
            Origin::http(mesh.address(), move |_, out| {
                let late = if index == 0 {
                    slow.load(Ordering::Relaxed)
                } else {
                    0
                };
                pause(Duration::from_millis(10 + late));
                out.write_all(OK).map(|()| true)
            })
        })
        .collect();
    let (_serving, shop) = five(&mesh, &origins);
    let to = shop.listener("orders:80");
    let baseline = Seen::of(&mesh, to, 200, 4, &["--warm-up", "1s"]).percentile("p99");
    slow.store(2000, Ordering::Relaxed);
    Seen::of(&mesh, to, 200, 10, &[]);
    let after = Seen::of(&mesh, to, 200, 5, &[]);
    assert_eq!(after.count("failed"), 0);
    let p99 = after.percentile("p99");
    // Delays that a busy machine adds to single requests do not concern balancing.
    let noise = Duration::from_millis(50);
    assert!(
        p99 <= (2 * baseline).max(noise),
        "{p99:?}, before {baseline:?}"
    );
    slow.store(0, Ordering::Relaxed);
    let healed = Instant::now();
    // Half of its share of 200 requests per second.
    loop {
        let before = origins[0].requests().len();
        Seen::of(&mesh, to, 200, 2, &[]);
        if origins[0].requests().len() >= before + 40 {
            break;
        }
        assert!(healed.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn of_five_endpoints_one_that_fails_half_of_the_time_is_out_after_five_seconds_and_back_when_well()
{
    let _quiet = heavy();
    let mesh = Mesh::start();
    let (ill, met) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicUsize::new(0)));
    let origins: Vec<Origin> = (0..5)
        .map(|index| {
            let (ill, met) = (Arc::clone(&ill), Arc::clone(&met));
            Origin::http(mesh.address(), move |_, out| {
                let count = if index == 0 {
                    met.fetch_add(1, Ordering::Relaxed)
                } else {
                    0
                };
                let fails = count % 2 == 1 && ill.load(Ordering::Relaxed) == 1;
                out.write_all(if fails { BAD } else { OK }).map(|()| true)
            })
        })
        .collect();
    let (_serving, shop) = five(&mesh, &origins);
    let to = shop.listener("orders:80");
    Seen::of(&mesh, to, 400, 5, &[]);
    let after = Seen::of(&mesh, to, 400, 15, &[]);
    assert!(
        after.error_share() <= 0.001,
        "{} of {}",
        after.count("failed"),
        after.count("requests")
    );
    ill.store(0, Ordering::Relaxed);
    let (healed, before) = (Instant::now(), met.load(Ordering::Relaxed));
    // Its share of 400 requests per second is 80.
    while met.load(Ordering::Relaxed) < before + 100 {
        let well = Seen::of(&mesh, to, 400, 1, &[]);
        assert_eq!(well.count("failed"), 0);
        assert!(healed.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn a_hedge_at_p95_takes_stalls_of_two_percent_out_of_p99_for_a_tenth_more_requests() {
    let _quiet = heavy();
    let mesh = Mesh::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let stalling = || {
        let asked = Arc::clone(&asked);
        Origin::http(mesh.address(), move |_, out| {
            let stalls = asked.fetch_add(1, Ordering::Relaxed) % 50 == 49;
            pause(Duration::from_millis(if stalls { 400 } else { 5 }));
            out.write_all(OK).map(|()| true)
        })
    };
    let origins = [stalling(), stalling()];
    let (_serving, shop) = five(&mesh, &origins);
    let to = shop.listener("orders:80");
    let without = Seen::of(&mesh, to, 200, 6, &["--warm-up", "2s"]);
    mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: { name: hedged, namespace: shop }\nspec:\n  \
         targetRefs: [ { kind: Service, name: orders } ]\n  hedge: { after: p95 }\n",
    );
    Seen::of(&mesh, to, 200, 3, &[]);
    let before = asked.load(Ordering::Relaxed);
    let with = Seen::of(&mesh, to, 200, 6, &[]);
    let copies = asked.load(Ordering::Relaxed) - before;
    let (without, hedged) = (without.percentile("p99"), with.percentile("p99"));
    assert!(without >= Duration::from_millis(400), "{without:?}");
    assert!(hedged * 3 <= without, "{hedged:?} of {without:?}");
    let most = with.count("requests") * 11 / 10;
    assert!(copies as u64 <= most, "{copies} of {most}");
}

#[test]
fn a_deadline_of_300_ms_ends_a_chain_of_three_hops_down_to_the_stuck_application() {
    let mesh = Mesh::start();
    let gone = Arc::new(Mutex::new(None::<Instant>));
    let of_gone = Arc::clone(&gone);
    // Never answers; it notes when its caller goes away.
    let stuck = Origin::raw(mesh.address(), move |mut tap| {
        let mut buffer = [0; 4096];
        while std::io::Read::read(&mut tap, &mut buffer).is_ok_and(|read| read > 0) {}
        of_gone.lock().unwrap().get_or_insert_with(Instant::now);
        Ok(())
    });
    let services = ["first", "second", "third"].map(|name| service(name, 80, "http"));
    mesh.apply(&services.concat());
    let third = mesh
        .sidecar("third")
        .serves("third:80", stuck.address)
        .start();
    // Applications in between forward only the trace.
    let forward = |to: Arc<Mutex<Option<SocketAddr>>>| {
        Origin::http(mesh.address(), move |request, out| {
            let next = to.lock().unwrap().unwrap();
            let trace = request.header("traceparent").unwrap_or_default().to_owned();
            let mut call = Connection::open(next)?;
            call.send(
                format!("GET / HTTP/1.1\r\nhost: next\r\ntraceparent: {trace}\r\n\r\n").as_bytes(),
            )?;
            let answer = call.receive(false)?;
            write!(
                out,
                "HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n",
                answer.status
            )?;
            Ok(true)
        })
    };
    let hop = |name: &str, next: &str| {
        let to = Arc::new(Mutex::new(None));
        let origin = forward(Arc::clone(&to));
        let plan = mesh
            .sidecar(name)
            .serves(&format!("{name}:80"), origin.address);
        let sidecar = plan.calls(&format!("{next}:80")).start();
        sidecar.wait_endpoints(&format!("{next}:80"), 1);
        *to.lock().unwrap() = Some(sidecar.listener(&format!("{next}:80")));
        (origin, sidecar)
    };
    let _second = hop("second", "third");
    let _first = hop("first", "second");
    let shop = mesh.sidecar("shop").calls("first:80").start();
    shop.wait_endpoints("first:80", 1);
    let request = "GET / HTTP/1.1\r\nhost: first\r\nweft-deadline: 300\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let mut answers = Vec::new();
    // A busy machine may spoil one; connections are there after the first.
    for _ in 0..5 {
        *gone.lock().unwrap() = None;
        let mut caller = Connection::open(shop.listener("first:80")).unwrap();
        let began = Instant::now();
        caller.send(request.as_bytes()).unwrap();
        assert_eq!(caller.receive(false).unwrap().status, 504);
        let answered = began.elapsed();
        pause(Duration::from_millis(200));
        let heard = gone.lock().unwrap().map(|gone| gone - began);
        answers.push((answered, heard));
    }
    let limit = Duration::from_millis(320);
    let heard_limit = Duration::from_millis(370);
    assert!(
        answers
            .iter()
            .any(|(answered, heard)| *answered >= Duration::from_millis(299)
                && *answered <= limit
                && heard.is_some_and(|heard| heard <= heard_limit)),
        "{answers:?}"
    );
    drop(third);
}
