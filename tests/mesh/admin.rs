//! Which callers may use the admin endpoints, and for what: programs of this host read, only the sidecar's
//! own user and root change it, other hosts see health and metrics. Pages in a browser are in
//! `admin_browser.rs`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{
    Load, Mesh, Need, Origin, Response, Sidecar, WEFT, connect, eventually, exchange, get, need,
    program, run, service,
};

/// A user without rights.
const NOBODY: &str = "65534";

/// One request with these fields after its line.
fn ask(address: SocketAddr, line: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = format!("{line} HTTP/1.1\r\n");
    for (name, value) in fields {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.push_str("content-length: 0\r\nconnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).unwrap()
}

fn sidecar(mesh: &Mesh) -> Sidecar {
    mesh.apply(&service("orders", 80, "http"));
    mesh.sidecar("shop").calls("orders:80").start()
}

#[track_caller]
pub(crate) fn expect_no_drain(sidecar: &Sidecar) {
    let ready = sidecar.admin_get("/ready").unwrap();
    assert_eq!((ready.status, ready.text()), (200, "ready\n".to_owned()));
}

#[test]
fn a_name_that_strangers_point_at_loopback_reaches_no_admin_endpoint() {
    let mesh = Mesh::start();
    let shop = sidecar(&mesh);
    let [ca, config] = mesh.control_admins();
    for admin in [shop.admin(), ca, config] {
        let port = admin.port();
        for host in [
            format!("evil.test:{port}"),
            "evil.test".to_owned(),
            format!("127.0.0.1.evil.test:{port}"),
            format!("localhost.evil.test:{port}"),
            format!("0.0.0.0:{port}"),
            format!("10.1.2.3:{port}"),
        ] {
            for line in ["GET /metrics", "GET /config_dump", "POST /drain"] {
                let answer = ask(admin, line, &[("host", &host)]);
                assert_eq!(answer.status, 421, "{line} {host}");
                assert!(!answer.text().contains("weft_"), "{answer:?}");
            }
        }
        for host in [
            admin.to_string(),
            format!("localhost:{port}"),
            "127.0.0.1".to_owned(),
        ] {
            let answer = ask(admin, "GET /metrics", &[("host", &host)]);
            assert_eq!(answer.status, 200, "{host}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'"), "{policy}");
        }
        assert_eq!(ask(admin, "GET /live", &[]).status, 400);
        let two = [("host", "localhost"), ("host", "evil.test")];
        assert_eq!(ask(admin, "GET /live", &two).status, 400);
    }
    expect_no_drain(&shop);
}

#[test]
fn what_a_page_of_another_site_asks_is_refused() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    // Even if changes are taken over TCP.
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting("changes: loopback")
        .start();
    let [ca, config] = mesh.control_admins();
    for admin in [shop.admin(), ca, config] {
        let host = admin.to_string();
        let same_address = format!("http://{}:8000", admin.ip());
        for field in [
            ("origin", "http://evil.test"),
            ("origin", "null"),
            ("origin", same_address.as_str()),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for line in [
                "POST /drain",
                "PUT /logging",
                "GET /metrics",
                "OPTIONS /drain",
            ] {
                let answer = ask(admin, line, &[("host", &host), field]);
                assert_eq!(answer.status, 403, "{line} {field:?}");
                let allows = |(name, _): &(String, String)| name.starts_with("access-control-");
                assert!(!answer.headers.iter().any(allows), "{answer:?}");
            }
        }
        let own = format!("http://{host}");
        for field in [("origin", own.as_str()), ("sec-fetch-site", "none")] {
            let answer = ask(admin, "GET /live", &[("host", &host), field]);
            assert_eq!(answer.status, 200, "{field:?}");
        }
    }
    expect_no_drain(&shop);
}

#[test]
fn changes_are_refused_over_tcp_and_done_over_the_socket() {
    let mesh = Mesh::start();
    let mut shop = sidecar(&mesh);
    let host = shop.admin().to_string();
    for line in ["POST /drain", "PUT /logging"] {
        let answer = ask(shop.admin(), line, &[("host", &host)]);
        assert_eq!(answer.status, 403, "{line}");
        let socket = shop.admin_socket().display().to_string();
        assert!(answer.text().contains(&socket), "{}", answer.text());
    }
    let refused = mesh.weft(&["proxy", "drain", "--admin", &host]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(refused.stderr.contains("admin.sock"), "{}", refused.stderr);
    expect_no_drain(&shop);

    let mode = std::fs::metadata(shop.admin_socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let state = shop.state().display().to_string();
    let settings = shop.folder().join("proxy.yaml").display().to_string();
    for read in [
        &["proxy", "status", "--config", &settings][..],
        &["proxy", "status", "--state-dir", &state],
        &["proxy", "config", "--state-dir", &state],
        &["endpoints", "--state-dir", &state],
    ] {
        mesh.weft(read).ok();
    }
    mesh.weft(&[
        "proxy",
        "logging",
        "--state-dir",
        &state,
        "warn,weft_proxy=debug",
    ])
    .ok();
    let filter = mesh.weft(&["proxy", "logging", "--config", &settings]).ok();
    assert!(filter.contains("weft_proxy=debug"), "{filter}");
    assert_eq!(
        shop.admin_ask("PUT /logging", "no=such=level")
            .unwrap()
            .status,
        400
    );

    let begun = Instant::now();
    let drained = mesh.weft(&["proxy", "drain", "--config", &settings, "--wait", "30s"]);
    drained.ok();
    // It has ended, and took the socket's path with it.
    assert!(begun.elapsed() > Duration::from_secs(1));
    assert!(shop.process.wait_exit(Duration::from_millis(500)).success());
    assert!(!shop.admin_socket().exists());
    let gone = mesh.weft(&["proxy", "drain", "--state-dir", &state]);
    assert_eq!(gone.code, 69, "{}", gone.stderr);
    assert!(
        gone.stderr.contains("there is no such socket"),
        "{}",
        gone.stderr
    );
}

#[test]
fn changes_over_tcp_are_done_where_the_settings_say_so() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting("changes: loopback, socket: off")
        .start();
    assert!(!shop.admin_socket().exists());
    let settings = shop.folder().join("proxy.yaml").display().to_string();
    mesh.weft(&["proxy", "drain", "--config", &settings]).ok();
    assert!(shop.process.wait_exit(Duration::from_secs(30)).success());
}

#[test]
fn another_user_changes_nothing_even_where_it_reaches_the_socket() {
    if !need(&[Need::Root, Need::Program("setpriv"), Need::Program("curl")]) {
        return;
    }
    let mesh = Mesh::start();
    let shop = sidecar(&mesh);
    // The temporary folder and the state directory keep others out as well.
    for folder in [mesh.folder(), &shop.folder(), &shop.state()] {
        set_mode(folder, 0o711);
    }
    let socket = shop.admin_socket();
    let post = || {
        let mut curl = program("setpriv");
        curl.args([
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "curl",
            "-si",
        ])
        .args(["--max-time", "10", "-X", "POST", "--unix-socket"])
        .arg(&socket)
        .arg("http://localhost/drain");
        run(&mut curl)
    };
    let refused = post();
    assert_eq!(
        (refused.code, refused.stdout.as_str()),
        (7, ""),
        "{}",
        refused.stderr
    );
    let command = mesh.folder().join("weft");
    std::fs::copy(WEFT, &command).unwrap();
    let mut drain = program("setpriv");
    drain
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(&command)
        .args(["proxy", "drain", "--state-dir"])
        .arg(shop.state());
    let refused = run(&mut drain);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("only the user"),
        "{}",
        refused.stderr
    );
    // A mode that was changed by mistake lets others connect, but do no more.
    set_mode(&socket, 0o666);
    let refused = post();
    assert!(
        refused.stdout.starts_with("HTTP/1.1 403"),
        "{}",
        refused.stdout
    );
    expect_no_drain(&shop);
    assert_eq!(shop.admin_ask("GET /ready", "").unwrap().status, 200);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn other_hosts_see_health_and_metrics_and_nothing_else() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let observe = SocketAddr::from((mesh.address(), 6192));
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting(&format!("observe: \"{observe}\", hosts: [shop.internal]"))
        .start();
    for host in [
        observe.to_string(),
        "10.1.2.3:30192".to_owned(),
        "[2001:db8::1]:6192".to_owned(),
        "shop.internal:6192".to_owned(),
    ] {
        for path in ["/live", "/ready", "/metrics"] {
            let answer = ask(observe, &format!("GET {path}"), &[("host", &host)]);
            assert_eq!(answer.status, 200, "{path} {host}");
        }
    }
    for line in [
        "GET /config_dump",
        "GET /connections",
        "GET /endpoints",
        "GET /certs",
        "GET /logging",
        "PUT /logging",
        "POST /drain",
        "GET /",
    ] {
        let answer = ask(observe, line, &[("host", "10.1.2.3")]);
        assert_eq!((answer.status, answer.text().as_str()), (404, ""), "{line}");
    }
    let evil = [("host", "evil.test:6192")];
    assert_eq!(ask(observe, "GET /metrics", &evil).status, 421);
    let page = [("host", "10.1.2.3:6192"), ("origin", "http://evil.test")];
    assert_eq!(ask(observe, "GET /metrics", &page).status, 403);
    expect_no_drain(&shop);
}

#[test]
fn an_admin_address_that_other_hosts_reach_is_refused_with_what_to_write() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let refused = shop.run_again(&["--admin", "0.0.0.0:6191"]);
    assert_eq!(refused.code, 65, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("admin.observe"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_sidecar_that_waits_for_its_identity_says_so_wherever_it_is_asked() {
    let mut mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let observe = SocketAddr::from((mesh.address(), 6192));
    let plan = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting(&format!("observe: \"{observe}\""));
    mesh.ca.kill();
    let mut shop = plan.spawn();
    eventually("it answers", || {
        get(observe, "/live").is_ok_and(|live| live.status == 200)
    });
    for answer in [
        get(observe, "/ready").unwrap(),
        shop.admin_get("/ready").unwrap(),
        shop.admin_ask("GET /ready", "").unwrap(),
    ] {
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("waiting for"), "{answer:?}");
    }
    let host = shop.admin().to_string();
    let page = [("host", host.as_str()), ("origin", "http://evil.test")];
    assert_eq!(ask(shop.admin(), "GET /ready", &page).status, 403);
    assert_eq!(
        ask(shop.admin(), "GET /ready", &[("host", "evil.test")]).status,
        421
    );
    mesh.restart_ca();
    shop.wait_ready();
    assert_eq!(get(observe, "/ready").unwrap().status, 200);
    assert_eq!(shop.admin_ask("GET /ready", "").unwrap().status, 200);
}

#[test]
fn the_socket_outlives_a_killed_process_and_a_takeover() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let observe = SocketAddr::from((mesh.address(), 6192));
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .setting("takeover_socket: takeover.sock")
        .admin_setting(&format!("observe: \"{observe}\""))
        .start();
    let is_asked = |shop: &Sidecar| {
        let live = |answer: std::io::Result<Response>| answer.is_ok_and(|live| live.status == 200);
        live(shop.admin_ask("GET /ready", "")) && live(get(observe, "/ready"))
    };
    assert!(is_asked(&shop));
    shop.process.kill();
    assert!(shop.admin_socket().exists());
    shop.restart();
    shop.wait_ready();
    assert!(is_asked(&shop));
    for _ in 0..2 {
        let mut old = shop.take_over();
        eventually("the new process answers", || is_asked(&shop));
        assert!(old.wait_exit(Duration::from_secs(30)).success());
        // The old one's end leaves the path to the new one.
        assert!(is_asked(&shop));
    }
    assert_eq!(shop.admin_ask("POST /drain", "").unwrap().status, 202);
    assert!(shop.process.wait_exit(Duration::from_secs(30)).success());
}

#[test]
fn connections_that_say_nothing_keep_no_caller_out() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let observe = SocketAddr::from((mesh.address(), 6192));
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .admin_setting(&format!("observe: \"{observe}\""))
        .start();
    shop.wait_endpoints("orders:80", 1);
    let load = Load::start(
        shop.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(10),
    );
    let mut silent: Vec<TcpStream> = Vec::new();
    for address in [shop.admin(), observe] {
        silent.extend((0..300).map(|_| connect(address).unwrap()));
        let begun = Instant::now();
        assert_eq!(get(address, "/ready").unwrap().status, 200);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    // The oldest have lost their places to the newest.
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
    let long = "x".repeat(64 * 1024);
    let mut stream = connect(shop.admin()).unwrap();
    let _ = write!(
        stream,
        "GET /live HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n"
    );
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    load.finish_after(20).expect_all_good(20);
    shop.expect_alive();
}
