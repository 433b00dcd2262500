//! A hostile peer with a valid identity (aioquic, raw frames), on default settings.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Load, Mesh, Need, Origin, Sidecar, get, heavy, need, pause, python, service};

struct Target {
    mesh: Mesh,
    origin: Origin,
    orders: Sidecar,
    /// The identity that the attacker has.
    attacker: Sidecar,
    /// A bystander, which must not be affected.
    bystander: Sidecar,
}

fn target(origin: impl FnOnce(&Mesh) -> Origin) -> Target {
    target_with("", origin)
}

/// With a line of settings for the attacked sidecar.
fn target_with(setting: &str, origin: impl FnOnce(&Mesh) -> Origin) -> Target {
    let mesh = Mesh::start();
    let origin = origin(&mesh);
    let store = origin.address.to_string();
    start(mesh, setting, origin, &store)
}

/// With an application for `store:7000`.
fn start(mesh: Mesh, setting: &str, origin: Origin, store: &str) -> Target {
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("store", 7000, "tcp").replace(
            "spec: {",
            "spec: { identities: [\"spiffe://demo.test/ns/shop/sa/orders\"],"
        )
    ));
    let orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .serves("store:7000", store)
        .setting(setting)
        .start();
    let attacker = mesh.sidecar("attacker").calls("orders:80").start();
    let bystander = mesh.sidecar("bystander").calls("orders:80").start();
    bystander.wait_endpoints("orders:80", 1);
    // The connections and buffers that any traffic brings.
    for _ in 0..50 {
        get(bystander.listener("orders:80"), "/").unwrap();
    }
    Target {
        mesh,
        origin,
        orders,
        attacker,
        bystander,
    }
}

fn echo(mesh: &Mesh) -> Origin {
    Origin::echo(mesh.address(), "orders")
}

impl Target {
    /// Runs a scenario beside a well-behaved load, which must not lose a request. Returns the verdicts, and
    /// by how many KiB the sidecar grew at its peak.
    fn attack(&mut self, scenario: &str) -> (Value, u64) {
        let resident = self.orders.process.resident();
        self.orders.process.forget_peak();
        let load = Load::start(
            self.bystander.listener("orders:80"),
            "/",
            2,
            Duration::from_millis(40),
        );
        let address = self.orders.mesh_address().to_string();
        let identity = self.attacker.state();
        let seen = python(
            "hostile_h3.py",
            &[scenario, &address, "--identity", identity.to_str().unwrap()],
        );
        load.finish_after(5).expect_all_good(5);
        let grown = self.orders.process.resident_peak().saturating_sub(resident);
        self.orders.expect_alive();
        (seen, grown)
    }
}

fn is_refused(verdict: &Value) -> bool {
    ["reset", "stopped", "closed"]
        .iter()
        .any(|key| !verdict[key].is_null())
        || verdict["status"]
            .as_u64()
            .is_some_and(|status| status >= 400)
}

#[test]
fn a_giant_header_frame_is_refused_before_it_is_buffered() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, grown) = target.attack("giant-headers");
    assert!(is_refused(&seen["one"]), "{seen}");
    // Bytes in flight when the refusal came count as taken by QUIC, not by weft.
    assert!(seen["one"]["taken"].as_u64().unwrap() <= 2 << 20, "{seen}");
    assert_eq!(seen["hundred"], 100, "{seen}");
    assert!(is_refused(&seen["trickled"]), "{seen}");
    assert!(grown <= 8 << 10, "grew by {grown} KiB");
}

#[test]
fn giant_unknown_frames_and_floods_of_empty_ones_are_not_buffered() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, grown) = target.attack("unknown-frames");
    assert!(is_refused(&seen["empty"]), "{seen}");
    assert!(grown <= 4 << 10, "grew by {grown} KiB: {seen}");
}

#[test]
fn streams_that_never_send_a_head_end_in_time_and_harm_no_other() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, grown) = target.attack("exhaustion");
    let closed = !seen["closed"].is_null();
    assert!(closed || seen["ended"].as_u64().unwrap() >= 200, "{seen}");
    assert!(seen["after"].as_f64().unwrap() < 15.0, "{seen}");
    assert!(grown <= 16 << 10, "grew by {grown} KiB");
}

#[test]
fn a_reader_that_grants_no_credit_stops_the_application_and_not_the_sidecar() {
    if !need(&[Need::Python]) {
        return;
    }
    let _heavy = heavy();
    let written = Arc::new(AtomicU64::new(0));
    let mut target = target(large_answers(&written));
    let (seen, grown) = target.attack("stopped-reader");
    // A hundred streams, each up to its send cap and two sockets' buffers; not 10 GB.
    let taken = written.load(Ordering::Relaxed);
    assert!(
        taken < 100 * (6 << 20),
        "{taken} B were taken from the application"
    );
    assert!(grown <= 128 << 10, "grew by {grown} KiB: {seen}");
    drop(target.origin);
    drop(target.mesh);
}

#[test]
fn a_peer_that_acknowledges_nothing_holds_little_and_is_closed() {
    if !need(&[Need::Python]) {
        return;
    }
    let _heavy = heavy();
    let written = Arc::new(AtomicU64::new(0));
    let mut target = target_with(
        "transport: { idle_timeout: 3s, keep_alive: 1s }",
        large_answers(&written),
    );
    let (seen, grown) = target.attack("unacknowledged");
    // Although its pings come all the time.
    let log = target.orders.process.log();
    assert!(log.contains("no acknowledgement"), "{log}");
    // Twenty connections, which would have 16 MiB each if they acknowledged.
    assert!(grown <= 48 << 10, "grew by {grown} KiB: {seen}");
    drop(target.origin);
    drop(target.mesh);
}

#[test]
fn bytes_that_cannot_be_read_for_want_of_the_first_are_few() {
    if !need(&[Need::Python]) {
        return;
    }
    let _heavy = heavy();
    let mut target = target(echo);
    let (seen, grown) = target.attack("without-beginnings");
    assert_eq!(seen["closed"], serde_json::json!([]), "{seen}");
    // Sixteen connections with 64 KiB each, and their own cost.
    assert!(grown <= 16 << 10, "grew by {grown} KiB: {seen}");
}

#[test]
fn an_identity_whose_bytes_no_application_reads_holds_four_windows_however_many_connections_it_has()
{
    if !need(&[Need::Python]) {
        return;
    }
    let _heavy = heavy();
    let mesh = Mesh::start();
    let origin = echo(&mesh);
    // An application that takes connections and reads nothing; a Unix socket holds little.
    let socket = mesh.folder().join("unread.sock");
    let _application = UnixListener::bind(&socket).unwrap();
    let store = format!("unix:{}", socket.display());
    let mut target = start(mesh, "workers: 1", origin, &store);
    let (seen, grown) = target.attack("unread");
    // Of 256 MiB that are sent.
    assert!(grown >= 32 << 10, "nothing was held: {grown} KiB, {seen}");
    assert!(grown <= 96 << 10, "grew by {grown} KiB: {seen}");
}

/// Answers the attacker with 100 MiB, and counts how much it could write.
fn large_answers(written: &Arc<AtomicU64>) -> impl FnOnce(&Mesh) -> Origin + use<> {
    const ANSWER: usize = 100 << 20;
    let counter = Arc::clone(written);
    move |mesh| {
        Origin::http(mesh.address(), move |request, out| {
            if request.header("user-agent").is_none()
                && request.header("host") != Some("orders.shop")
            {
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                return Ok(true);
            }
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n")?;
            let block = vec![0; 1 << 20];
            for _ in 0..ANSWER >> 20 {
                out.write_all(&block)?;
                counter.fetch_add(1 << 20, Ordering::Relaxed);
            }
            Ok(true)
        })
    }
}

#[test]
fn a_connect_that_is_none_is_refused_and_reaches_nothing() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let before = target.origin.bytes().len();
    let (seen, _) = target.attack("bad-connect");
    for (form, verdict) in seen.as_object().unwrap() {
        assert!(is_refused(verdict), "{form}: {verdict}");
    }
    let bytes = target.origin.bytes().split_off(before);
    assert!(!String::from_utf8_lossy(&bytes).contains("SECRET"));
}

#[test]
fn malformed_requests_are_refused_and_never_delivered() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, _) = target.attack("malformed");
    for (form, verdict) in seen.as_object().unwrap() {
        assert!(is_refused(verdict), "{form}: {verdict}");
    }
    let delivered: Vec<_> = target
        .origin
        .requests()
        .into_iter()
        .filter(|request| request.line.starts_with("POST") || request.line.contains("evil"))
        .collect();
    assert!(delivered.is_empty(), "{delivered:?}");
}

#[test]
fn exchanges_cancelled_in_the_middle_never_kill_the_connection() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, _) = target.attack("cancel");
    assert_eq!(seen["status"], 200, "{seen}");
    assert!(seen["closed"].is_null(), "{seen}");
    assert_eq!(seen["cancelled"], 200, "{seen}");
    let whole = target.origin.requests();
    assert!(
        whole.iter().all(|request| request.body.is_empty()),
        "{whole:?}"
    );
}

#[test]
fn a_client_that_gives_up_much_and_says_priorities_keeps_its_connection() {
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(echo);
    let (seen, _) = target.attack("impatient");
    assert_eq!(seen["given_up"], 600, "{seen}");
    assert_eq!(seen["status"], 200, "{seen}");
    let metrics = target.orders.admin_get("/metrics").unwrap().text();
    assert!(!metrics.contains("weft_mesh_guards_total"), "{metrics}");
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_stops_it_without_an_error() {
    const H3_NO_ERROR: u64 = 0x100;
    if !need(&[Need::Python]) {
        return;
    }
    let mut target = target(|mesh| {
        // Reads no body: it ends the connection instead.
        Origin::raw(mesh.address(), |mut tap| {
            let mut seen = Vec::new();
            let mut byte = [0];
            while tap.read(&mut byte)? > 0 {
                seen.push(byte[0]);
                if seen.ends_with(b"\r\n\r\n") {
                    tap.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                    if seen.starts_with(b"POST") {
                        return Ok(());
                    }
                    seen.clear();
                }
            }
            Ok(())
        })
    });
    let (seen, _) = target.attack("early-answer");
    assert_eq!(seen["status"], 200, "{seen}");
    assert_eq!(seen["stopped"], H3_NO_ERROR, "{seen}");
}

/// Datagrams that are not QUIC, or only partly, at the mesh's port.
#[test]
fn random_datagrams_are_ignored() {
    let mut target = target(echo);
    let load = Load::start(
        target.bystander.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(10),
    );
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for n in 0..20_000u32 {
        let mut datagram = vec![0; 1 + (n as usize * 7) % 1400];
        for byte in &mut datagram {
            // xorshift: the same datagrams in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        if n % 2 == 0 && datagram.len() > 5 {
            // A long header of version 1.
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        let _ = socket.send_to(&datagram, target.orders.mesh_address());
        if n % 500 == 0 {
            pause(Duration::from_millis(5));
        }
    }
    load.finish_after(10).expect_all_good(10);
    target.orders.expect_alive();
}

/// A server that is reached and never answers: nothing listens, or a socket receives and stays silent.
#[test]
fn a_peer_that_never_answers_is_a_504_or_502_in_time() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    // A socket that takes datagrams and says nothing.
    let mute = std::net::UdpSocket::bind((mesh.address(), 6143)).unwrap();
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .advertise(mute.local_addr().unwrap())
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let begin = std::time::Instant::now();
    let response = get(shop.listener("orders:80"), "/").unwrap();
    assert!(matches!(response.status, 502..=504), "{response:?}");
    assert!(response.header("proxy-status").is_some());
    assert!(begin.elapsed() < Duration::from_secs(10));
}
