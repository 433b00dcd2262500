//! The mesh changes many times a second while it is used: no request fails, no stream ends, and each request
//! is served by the one revision that its answer names.
//!
//! `WEFT_CHANGE_SECONDS=60` makes it last a minute.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Content, Mesh, Need, Origin, Process, Sidecar, Version, connect, eventually,
    expect_echo, need, pause, python_command, run,
};

/// Unless the environment says another time.
const SECONDS: u64 = 10;

/// Operators who change the mesh, each of them as often: ten changes a second in all, where the machine keeps
/// up.
const OPERATORS: u64 = 5;

/// Between the beginnings of two changes of an operator.
const TICK: Duration = Duration::from_millis(500);

/// How often each outcome was seen: the revision that the answer named, the number that the filter of that
/// revision set, the application that answered.
type Seen = BTreeMap<(u64, u64, String), u64>;

/// The revision that the answer to each path named.
type Paths = BTreeMap<String, u64>;

/// The weights of both backends at the change of a number.
fn weights(change: u64) -> (u32, u32) {
    match change % 4 {
        0 => (1, 0),
        1 => (0, 1),
        2 => (50, 50),
        _ => (99, 1),
    }
}

/// Whether an application may answer at the change of a number.
fn may_answer(change: u64, application: &str) -> bool {
    let (one, two) = weights(change);
    match application {
        "v1" => one > 0,
        "v2" => two > 0,
        _ => false,
    }
}

fn resources(change: u64) -> String {
    let mut text = services();
    let (one, two) = weights(change);
    for (kind, service, port, filter) in [
        ("HTTPRoute", "orders", 80, true),
        ("GRPCRoute", "calls", 7070, true),
        ("TCPRoute", "bytes", 9000, false),
    ] {
        let filter = match filter {
            true => format!(
                "filters: [ {{ type: RequestHeaderModifier, requestHeaderModifier: {{ set: [ {{ name: x-configured, value: \"{change}\" }} ] }} }} ]\n      "
            ),
            false => String::new(),
        };
        text += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: r, namespace: shop }}\nspec:\n  \
             parentRefs: [ {{ group: \"\", kind: Service, name: {service} }} ]\n  rules:\n    - {filter}backendRefs:\n        \
             - {{ name: v1, port: {port}, weight: {one} }}\n        - {{ name: v2, port: {port}, weight: {two} }}\n"
        );
    }
    text + &format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: times, namespace: shop }}\nspec:\n  \
         targetRefs: [ {{ kind: Service, name: orders }} ]\n  timeouts: {{ request: {}s }}\n\
         ---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: callers, namespace: shop }}\nspec:\n  \
         targetRefs: [ {{ kind: Service, name: v1 }} ]\n  action: Allow\n  \
         from: [ {{ principals: [\"spiffe://{domain}/ns/shop/sa/client\", \"spiffe://{domain}/ns/shop/sa/other-{change}\"] }} ]\n",
        30 + change % 5,
        domain = Mesh::DOMAIN,
    )
}

fn services() -> String {
    let ports = "ports: [ { port: 80, protocol: http }, { port: 7070, protocol: grpc }, { port: 9000, protocol: tcp } ]";
    ["orders", "calls", "bytes", "v1", "v2"]
        .map(|name| {
            format!(
                "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ {ports} }}\n"
            )
        })
        .concat()
}

/// Applies one change, and gives the number of its revision.
fn apply(mesh: &Mesh, change: u64) -> u64 {
    let path = mesh.folder().join(format!("change-{change}.yaml"));
    std::fs::write(&path, resources(change)).unwrap();
    let told = run(mesh.weft_command(&["apply", "-f"]).arg(path)).ok();
    let number = told.lines().find_map(|line| line.strip_prefix("revision "));
    number
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{told}"))
}

/// Says its name and the number that the filter set.
fn application(mesh: &Mesh, name: &'static str) -> Origin {
    Origin::http(mesh.address(), move |request, out| {
        let body = format!("{name} {}", request.header("x-configured").unwrap_or("0"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        out.write_all((head + &body).as_bytes())?;
        Ok(true)
    })
}

/// Says its name, and then whatever it hears.
fn echo(mesh: &Mesh, name: &'static str) -> Origin {
    Origin::raw(mesh.address(), move |mut tap| {
        tap.write_all(name.as_bytes())?;
        let mut writer = tap.try_clone()?;
        std::io::copy(&mut tap, &mut writer).map(drop)
    })
}

/// Asks until it ends, on one connection. With what was seen: the revision of each path.
fn ask(version: Version, address: SocketAddr, ended: &AtomicBool) -> (Seen, Paths) {
    let (mut seen, mut paths) = (Seen::new(), Paths::new());
    let mut client = Client::open(version, address);
    let mut number = 0u64;
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        let path = format!("/{version:?}/{number}");
        let reply = client.ask("GET", &path, &[], Content::None);
        let reply = reply.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let revision = reply.header("weft-revision").unwrap().parse().unwrap();
        let (name, configured) = reply.body.split_once(' ').unwrap();
        let told = (revision, configured.parse().unwrap(), name.to_owned());
        *seen.entry(told).or_default() += 1;
        paths.insert(path, revision);
    }
    (seen, paths)
}

/// New connections, one after the other: each must be carried.
fn dial(address: SocketAddr, ended: &AtomicBool) -> u64 {
    let mut made = 0;
    while !ended.load(Ordering::Relaxed) {
        let mut stream = connect(address).unwrap();
        let mut name = [0; 2];
        std::io::Read::read_exact(&mut stream, &mut name).unwrap();
        expect_echo(&mut stream, b"once");
        made += 1;
    }
    made
}

/// An endpoint of `v1` comes and goes.
fn come_and_go(mesh: &Mesh, serves: &Serves, ended: &AtomicBool) -> u64 {
    let mut times = 0;
    while !ended.load(Ordering::Relaxed) {
        let plan = serves.by(mesh.sidecar("v1").named(&format!("v1-more-{times}")), "v1");
        let mut more = plan.start();
        more.terminate();
        assert!(more.process.wait_exit(Duration::from_secs(40)).success());
        times += 1;
    }
    times
}

/// The applications of a workload.
struct Serves {
    http: SocketAddr,
    grpc: SocketAddr,
    tcp: SocketAddr,
}

impl Serves {
    fn by(&self, plan: crate::harness::SidecarPlan, name: &str) -> crate::harness::SidecarPlan {
        plan.serves(&format!("{name}:80"), self.http)
            .serves(&format!("{name}:7070"), self.grpc)
            .serves(&format!("{name}:9000"), self.tcp)
    }
}

#[test]
fn no_request_fails_and_each_is_served_by_the_revision_that_it_names() {
    if !need(&[Need::Python]) {
        return;
    }
    let seconds = std::env::var_os("WEFT_CHANGE_SECONDS").and_then(|text| text.into_string().ok());
    let seconds = seconds.map_or(SECONDS, |text| text.parse().unwrap());
    let mesh = Mesh::start();
    let first = (apply(&mesh, 2), 2);
    let (mut running, mut workloads) = (Vec::new(), Vec::new());
    let mut served = Vec::new();
    for name in ["v1", "v2"] {
        let grpc = SocketAddr::from((mesh.address(), 7070));
        let mut command = python_command("grpc_stub.py");
        command.args(["serve", &grpc.to_string(), name]);
        let mut process = Process::spawn(&format!("stub-{name}"), mesh.folder(), &mut command);
        process.wait_for_line("serving");
        let (http, tcp) = (application(&mesh, name), echo(&mesh, name));
        let serves = Serves {
            http: http.address,
            grpc,
            tcp: tcp.address,
        };
        served.push(serves.by(mesh.sidecar(name), name).start());
        running.push((process, http, tcp));
        workloads.push(serves);
    }
    let client = mesh
        .sidecar("client")
        .setting("access_log: all")
        .outbound_setting("revision_header: true")
        .calls("orders:80")
        .calls("calls:7070")
        .calls("bytes:9000")
        .start();
    for service in ["v1:80", "v2:80", "v1:7070", "v2:7070", "v1:9000", "v2:9000"] {
        client.wait_endpoints(service, 1);
    }

    let report = change_under_load(&mesh, &client, &workloads[0], first, seconds);
    eprintln!("{report}");
}

/// What was done and seen.
fn change_under_load(
    mesh: &Mesh,
    client: &Sidecar,
    serves: &Serves,
    first: (u64, u64),
    seconds: u64,
) -> String {
    let ended = AtomicBool::new(false);
    let stop = mesh.folder().join("stop");
    let revisions = Mutex::new(BTreeMap::from([first]));
    let pings = AtomicU64::new(0);
    let mut paths = Paths::new();
    let [http, grpc, tcp] =
        ["orders:80", "calls:7070", "bytes:9000"].map(|one| client.listener(one));
    // One stream that lasts as long as all changes.
    let mut stream = connect(tcp).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0; 2]).unwrap();
    let (seen, dialled, came) = thread::scope(|scope| {
        let asking = [Version::Http11, Version::Http2].map(|version| {
            scope.spawn({
                let ended = &ended;
                move || ask(version, http, ended)
            })
        });
        let dialling = scope.spawn(|| dial(tcp, &ended));
        let coming = scope.spawn(|| come_and_go(mesh, serves, &ended));
        let calling = scope.spawn(|| {
            let mut command = python_command("grpc_stub.py");
            run(command.args(["loop", &grpc.to_string()]).arg(&stop)).ok()
        });
        let streaming = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                expect_echo(&mut stream, b"ping");
                pings.fetch_add(1, Ordering::Relaxed);
            }
        });
        let changes = AtomicU64::new(first.1);
        let change = || {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(seconds) {
                let due = Instant::now() + TICK;
                let change = changes.fetch_add(1, Ordering::Relaxed) + 1;
                let revision = apply(mesh, change);
                revisions.lock().unwrap().insert(revision, change);
                pause(due.saturating_duration_since(Instant::now()));
            }
        };
        let change = &change;
        thread::scope(|scope| {
            for _ in 0..OPERATORS {
                scope.spawn(change);
            }
        });
        ended.store(true, Ordering::Relaxed);
        std::fs::write(&stop, "").unwrap();
        let mut seen = Seen::new();
        for asked in asking {
            let (asked, named) = asked.join().unwrap();
            merge(&mut seen, asked);
            paths.extend(named);
        }
        merge(&mut seen, of_calls(&calling.join().unwrap()));
        streaming.join().unwrap();
        (seen, dialling.join().unwrap(), coming.join().unwrap())
    });
    let revisions = revisions.into_inner().unwrap();
    let mut named: BTreeMap<u64, u64> = BTreeMap::new();
    for ((revision, configured, application), count) in &seen {
        assert_eq!(
            revisions.get(revision),
            Some(configured),
            "revision {revision}, by {application}"
        );
        assert!(
            may_answer(*configured, application),
            "{application} at change {configured}"
        );
        *named.entry(*revision).or_default() += count;
    }
    // On a machine that is busy with other things, too.
    assert!(
        revisions.len() as u64 > seconds,
        "{} changes",
        revisions.len()
    );
    assert!(
        named.len() * 2 > revisions.len(),
        "{} of {}",
        named.len(),
        revisions.len()
    );
    log_agrees(client, &paths);
    format!(
        "{seconds} s: {} changes, {} requests by {} revisions, {dialled} connections, {} pings on one stream, an \
         endpoint came and went {came} times; none failed",
        revisions.len(),
        named.values().sum::<u64>(),
        named.len(),
        pings.into_inner(),
    )
}

fn merge(all: &mut Seen, seen: Seen) {
    for (told, count) in seen {
        *all.entry(told).or_default() += count;
    }
}

/// What `grpc_stub.py loop` says.
fn of_calls(text: &str) -> Seen {
    let rows: Vec<(Option<String>, Option<String>, String, u64)> =
        serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(!rows.is_empty());
    let row = |(revision, configured, application, count): (
        Option<String>,
        Option<String>,
        String,
        u64,
    )| {
        let number = |text: Option<String>| {
            let text = text.unwrap_or_else(|| panic!("a call ended with {application}"));
            text.parse().unwrap()
        };
        (
            (number(revision), number(configured), application.clone()),
            count,
        )
    };
    rows.into_iter().map(row).collect()
}

/// Each line of the access log that is of one of these requests names the revision that its answer named.
fn log_agrees(client: &Sidecar, paths: &Paths) {
    eventually("the access log names revisions", || {
        let mut compared = 0;
        for line in client.process.log().lines() {
            // The process's own log is in the same file.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            let named = line["path"].as_str().and_then(|path| paths.get(path));
            if let Some(named) = named {
                assert_eq!(line["revision"], *named, "{line}");
                compared += 1;
            }
        }
        compared > 10
    });
}
