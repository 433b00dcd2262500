//! Shares of many requests, and what mirrors cost the requests that are copied.

use std::io::Write;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Client, Content, Mesh, OpenLoad, Origin, Sidecar, Version, eventually, heavy, pause, run,
    service,
};

const REQUESTS: u32 = 10_000;

/// Clients at once.
const CLIENTS: u32 = 8;

fn answering(mesh: &Mesh, name: &'static str) -> Origin {
    Origin::http(mesh.address(), move |_, out| {
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
        out.write_all(answer.as_bytes())?;
        Ok(true)
    })
}

fn route(rule: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r, namespace: shop }}\nspec:\n  \
         parentRefs: [ {{ group: \"\", kind: Service, name: orders }} ]\n  rules: [ {{ {rule} }} ]\n"
    )
}

/// `orders`, whose backends are `v1` and another one, and a client.
fn start(mesh: &Mesh, other: &str, address: impl ToString, v1: &Origin) -> [Sidecar; 3] {
    mesh.apply(
        &["orders", "v1", other]
            .map(|name| service(name, 80, "http"))
            .concat(),
    );
    let one = mesh.sidecar("v1").serves("v1:80", v1.address).start();
    let other = mesh.sidecar(other).serves(&format!("{other}:80"), address);
    [
        one,
        other.start(),
        mesh.sidecar("client").calls("orders:80").start(),
    ]
}

#[test]
fn shares_of_ten_thousand_requests_are_within_two_points() {
    let _heavy = heavy();
    let mesh = Mesh::start();
    let (v1, v2) = (answering(&mesh, "v1"), answering(&mesh, "v2"));
    let [_one, _two, client] = start(&mesh, "v2", v2.address, &v1);
    let orders = client.listener("orders:80");
    for (one, two) in [(70u32, 30u32), (1, 99)] {
        let backend =
            |name: &str, weight: u32| format!("{{ name: {name}, port: 80, weight: {weight} }}");
        let rule = format!(
            "backendRefs: [ {}, {} ]",
            backend("v1", one),
            backend("v2", two)
        );
        mesh.apply(&route(&rule));
        client.wait_endpoints("v1:80", 1);
        client.wait_endpoints("v2:80", 1);
        let found: u32 = thread::scope(|scope| {
            let asking = (0..CLIENTS).map(|_| {
                scope.spawn(|| {
                    let mut client = Client::open(Version::Http11, orders);
                    let mut of_one = 0;
                    for _ in 0..REQUESTS / CLIENTS {
                        let reply = client.ask("GET", "/", &[], Content::None).unwrap();
                        assert_eq!(reply.status, 200, "{reply:?}");
                        of_one += u32::from(reply.body == "v1");
                    }
                    of_one
                })
            });
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|one| one.join().unwrap()).sum()
        });
        let points = f64::from(found) * 100.0 / f64::from(REQUESTS);
        eprintln!("{one}/{two}: {points:.2} % of {REQUESTS}");
        assert!(
            (points - f64::from(one)).abs() <= 2.0,
            "{one}/{two}: {points} %"
        );
    }
}

/// Pairs of rounds, without and with the mirror.
const ROUNDS: usize = 10;

/// Of each round.
const SECONDS: u32 = 5;

/// The mirror's backend.
#[derive(Clone, Copy, Debug)]
enum Mirrored {
    /// Its sidecar does not answer.
    Dead,
    /// Its application answers after a minute.
    Slow,
    /// Its application resets each connection.
    Refusing,
}

/// `cargo test --release --test mesh shares::mirrors -- --ignored --nocapture`, on a machine that does nothing
/// else.
#[test]
#[ignore = "a measurement of some minutes, which other work on the machine makes worthless"]
fn mirrors_that_go_nowhere_leave_the_latency_of_requests_as_it_is() {
    for mirrored in [Mirrored::Dead, Mirrored::Slow, Mirrored::Refusing] {
        let mesh = Mesh::start();
        let v1 = answering(&mesh, "v1");
        let far = Origin::http(mesh.address(), move |_, _| {
            if matches!(mirrored, Mirrored::Slow) {
                pause(Duration::from_secs(60));
            }
            Ok(false)
        });
        let [_one, two, client] = start(&mesh, "copies", far.address, &v1);
        let backend = "backendRefs: [ { name: v1, port: 80 } ]";
        let without = route(backend);
        let with = route(&format!(
            "filters: [ {{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: copies, port: 80 }} }} }} ], {backend}"
        ));
        mesh.apply(&with);
        client.wait_endpoints("copies:80", 1);
        let orders = client.listener("orders:80");
        let url = format!("http://{orders}/");
        eventually("requests are answered", || {
            crate::harness::get(orders, "/").is_ok_and(|answer| answer.status == 200)
        });
        if matches!(mirrored, Mirrored::Dead) {
            two.process.signal(Signal::SIGSTOP);
        }
        mesh.apply(&without);
        let mut closed = mesh.weft_command(&["load", "--closed", "--connections", "16", &url]);
        let most = run(closed.args(["--duration", "5s", "--quiet", "-o", "json"]));
        let most: serde_json::Value = serde_json::from_str(&most.stdout).unwrap();
        let most = most["summary"]["succeeded_per_second"].as_f64().unwrap();
        let rate = (most / 5.0) as u32;
        let p99 = |resources: &str| {
            mesh.try_apply(resources);
            let load = mesh.weft_command(&["load"]);
            let result = OpenLoad::of_url(load, &url, rate, SECONDS, &[]).result();
            assert_eq!(result["summary"]["failed"], 0, "{}", result["summary"]);
            result["latency"]["percentiles"]["p99"]["us"]
                .as_f64()
                .unwrap()
        };
        let pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (p99(&without), p99(&with))).collect();
        let (low, high) = pairs
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), (one, _)| {
                (low.min(*one), high.max(*one))
            });
        let mut mirrors: Vec<f64> = pairs.iter().map(|(_, with)| *with).collect();
        mirrors.sort_by(f64::total_cmp);
        let median = f64::midpoint(mirrors[ROUNDS / 2 - 1], mirrors[ROUNDS / 2]);
        eprintln!(
            "{mirrored:?}: {rate} requests/s, p99 without {low} to {high} us, with the mirror {median} us (median): {pairs:?}"
        );
        assert!(
            median <= high,
            "{mirrored:?}: {median} us, without the mirror {low} to {high} us"
        );
        two.process.signal(Signal::SIGCONT);
    }
}
