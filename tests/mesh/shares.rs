//! Shares of many requests, and what mirrors cost the requests that are copied.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use crate::harness::{
    Client, Content, Mesh, Need, OpenLoad, Origin, Process, Quota, Sidecar, Version, heavy, need,
    run, service,
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

/// Pairs of rounds, without and with the mirror, by which latencies are judged.
const ROUNDS: usize = 10;

/// What the mirror's backend and its sidecar may use of one core, in hundredths. Each has a control group of
/// its own: what they burn is not taken from those whose latency is judged.
const MIRROR_PERCENT: u32 = 20;

/// The mirror's backend.
#[derive(Clone, Copy, Debug)]
enum Mirrored {
    /// Its sidecar is gone, and still registered.
    Dead,
    /// Its application answers after a minute.
    Slow,
    /// Its application ends each connection without an answer.
    Refusing,
}

#[test]
fn a_mirror_whose_sidecar_is_gone_fails_no_request_and_leaves_its_latency_as_it_is() {
    judge(Mirrored::Dead);
}

#[test]
fn a_mirror_that_takes_a_minute_fails_no_request_and_leaves_its_latency_as_it_is() {
    judge(Mirrored::Slow);
}

#[test]
fn a_mirror_that_ends_each_connection_fails_no_request_and_leaves_its_latency_as_it_is() {
    judge(Mirrored::Refusing);
}

/// With `WEFT_MIRROR_ROUNDS=10` latencies are measured and judged, on a machine that does nothing else and
/// has control groups; otherwise one pair of short rounds shows that no request fails.
fn judge(mirrored: Mirrored) {
    let _heavy = heavy();
    let rounds = std::env::var_os("WEFT_MIRROR_ROUNDS").and_then(|text| text.into_string().ok());
    let rounds = rounds.map_or(1, |text| text.parse().unwrap());
    if rounds >= ROUNDS && !need(&[Need::Quota]) {
        return;
    }
    let pairs = latencies(mirrored, rounds);
    let without = pairs.iter().map(|(without, _)| *without);
    let (low, high) = (
        without.clone().fold(f64::MAX, f64::min),
        without.fold(0.0, f64::max),
    );
    let mut with: Vec<f64> = pairs.iter().map(|(_, with)| *with).collect();
    with.sort_by(f64::total_cmp);
    let median = with[rounds / 2];
    eprintln!("{mirrored:?}: p99 without {low} to {high} us, with {median} us (median)");
    if rounds >= ROUNDS {
        assert!(median <= high, "{mirrored:?}: {pairs:?}");
    }
}

/// The application of the mirror, a process of its own.
fn application(mesh: &Mesh, mirrored: Mirrored) -> (Process, SocketAddr) {
    let address = SocketAddr::from((mesh.address(), 8080));
    let at = address.to_string();
    let mut command = mesh.weft_command(&["load", "serve"]);
    command.args(match mirrored {
        Mirrored::Refusing => ["--tcp", &at, "--errors", "100%"],
        Mirrored::Dead | Mirrored::Slow => ["--http", &at, "--latency", "60s"],
    });
    let mut process = Process::spawn("mirrored", mesh.folder(), &mut command);
    process.wait_for_line(&at);
    (process, address)
}

/// The control groups of these, where the machine has them.
fn apart(processes: &[&Process]) -> Vec<Quota> {
    let limited = |process: &&Process| {
        let process = process.pid().as_raw().cast_unsigned();
        Quota::percent(process, MIRROR_PERCENT)
    };
    match Quota::is_possible() {
        true => processes.iter().map(limited).collect(),
        false => Vec::new(),
    }
}

/// The 99th percentiles of pairs of rounds at a fifth of what the mesh carries, without and with the mirror,
/// in microseconds. No request fails.
fn latencies(mirrored: Mirrored, rounds: usize) -> Vec<(f64, f64)> {
    let seconds = if rounds >= ROUNDS { 5 } else { 2 };
    let mesh = Mesh::start();
    let v1 = answering(&mesh, "v1");
    let (far, address) = application(&mesh, mirrored);
    let [_one, mut copies, client] = start(&mesh, "copies", address, &v1);
    let mut groups = apart(&[&far, &copies.process]);
    let backend = "backendRefs: [ { name: v1, port: 80 } ]";
    let without = route(backend);
    let with = route(&format!(
        "filters: [ {{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: copies, port: 80 }} }} }} ], {backend}"
    ));
    let orders = client.listener("orders:80");
    let url = format!("http://{orders}/");
    mesh.apply(&without);
    client.wait_endpoints("v1:80", 1);
    let mut closed = mesh.weft_command(&["load", "--closed", "--connections", "16", &url]);
    let most = run(closed.args(["--duration", "3s", "--quiet", "-o", "json"]));
    let most: serde_json::Value = serde_json::from_str(&most.stdout).unwrap();
    let most = most["summary"]["succeeded_per_second"].as_f64().unwrap();
    let rate = (most / 5.0) as u32;
    let p99 = || {
        let load = mesh.weft_command(&["load"]);
        let result = OpenLoad::of_url(load, &url, rate, seconds, &[]).result();
        assert_eq!(result["summary"]["failed"], 0, "{}", result["summary"]);
        let p99 = &result["latency"]["percentiles"]["p99"]["us"];
        p99.as_f64().unwrap()
    };
    let mut pairs = Vec::new();
    for round in 0..rounds {
        mesh.apply(&without);
        let plain = p99();
        mesh.apply(&with);
        client.wait_endpoints("copies:80", 1);
        if matches!(mirrored, Mirrored::Dead) {
            copies.process.kill();
        }
        pairs.push((plain, p99()));
        if matches!(mirrored, Mirrored::Dead) && round + 1 < rounds {
            copies.restart();
            copies.wait_ready();
            groups = apart(&[&copies.process]);
        }
    }
    drop(groups);
    pairs
}
