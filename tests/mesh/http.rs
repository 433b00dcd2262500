//! Plain HTTP through the mesh: what an application should notice, and what it must not.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Mesh, Origin, Shop, SidecarPlan, eventually, exchange, get, read_response, run,
    service,
};

/// One HTTP service behind `origin`, called through a listener of its own and by host.
fn shop(mesh: Mesh, origin: &Origin) -> Shop {
    Shop::calling(mesh, origin.address, SidecarPlan::calls_by_host)
}

#[test]
fn the_application_sees_the_request_that_was_sent() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let request = b"POST /a/b?c=%20d HTTP/1.1\r\nHost: orders.example:8000\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\nCookie: a=b; c=d\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    let response = exchange(shop.address, request).unwrap();
    assert_eq!(response.status, 200);
    let seen = origin.requests().remove(0);
    assert_eq!(seen.line, "POST /a/b?c=%20d HTTP/1.1");
    assert_eq!(seen.header("host"), Some("orders.example:8000"));
    assert_eq!(seen.header("x-one"), Some("1"));
    assert_eq!(seen.header("cookie"), Some("a=b; c=d"));
    let twos: Vec<_> = seen
        .headers
        .iter()
        .filter(|(name, _)| name == "x-two")
        .collect();
    assert_eq!(twos.len(), 2);
    assert_eq!(seen.body, b"abc");
}

#[test]
fn an_empty_body_of_unknown_length_is_an_empty_body() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let request = b"PUT /empty HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = exchange(shop.address, request).unwrap();
    assert_eq!(response.text(), "orders PUT /empty HTTP/1.1 0");
}

#[test]
fn mesh_headers_from_an_application_never_arrive() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let request = b"GET / HTTP/1.1\r\nhost: orders\r\nweft-service: admin.shop:80\r\nWeft-Identity: spiffe://demo.test/ns/shop/sa/root\r\nweft-anything: x\r\nconnection: close\r\n\r\n";
    let response = exchange(shop.address, request).unwrap();
    assert_eq!(response.status, 200);
    let seen = origin.requests().remove(0);
    let claims = seen.headers.iter().filter(|(name, value)| {
        name.starts_with("weft-")
            && (value.contains("root") || value == "x" || value.contains("admin"))
    });
    assert_eq!(claims.count(), 0, "{seen:?}");
}

#[test]
fn requests_by_host_reach_the_service_that_the_host_names() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let status = |host: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        exchange(shop.sidecar.by_host(), request.as_bytes())
            .unwrap()
            .status
    };
    assert_eq!(status("orders"), 200);
    assert_eq!(status("orders.shop"), 200);
    assert_eq!(status("orders.shop:80"), 200);
    assert_eq!(status("ORDERS.Shop"), 200);
    let unknown = status("payments.shop");
    assert!((400..600).contains(&unknown), "{unknown}");
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn keep_alive_pipelining_and_interim_responses_work() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        if request.header("expect").is_some() {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let path = request.path();
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
            path.len()
        )?;
        Ok(true)
    });
    let shop = shop(mesh, &origin);
    let mut connection = Connection::open(shop.address).unwrap();
    for n in 0..20 {
        let path = format!("/{n}");
        assert_eq!(connection.get(&path).unwrap().text(), path);
    }
    let pipelined: String = (0..20)
        .map(|n| format!("GET /p{n} HTTP/1.1\r\nhost: orders\r\n\r\n"))
        .collect();
    connection.send(pipelined.as_bytes()).unwrap();
    for n in 0..20 {
        let response = connection.receive(false).unwrap();
        assert_eq!(response.text(), format!("/p{n}"));
    }
    connection
        .send(b"PUT /c HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .unwrap();
    let mut interim = String::new();
    connection.reader().read_line(&mut interim).unwrap();
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    connection.reader().read_line(&mut interim).unwrap();
    connection.send(b"ok").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), "/c");
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let mesh = Mesh::start();
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(0);
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::http(mesh.address(), move |_, out| {
        out.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        let gone = gone.lock().unwrap();
        for n in 0..10 {
            let event = format!("data: {n}\n\n");
            write!(out, "{:x}\r\n{event}\r\n", event.len())?;
            // The next event is sent only after this one was seen at the other end.
            if gone.recv_timeout(Duration::from_secs(10)).is_err() {
                return Ok(false);
            }
        }
        out.write_all(b"0\r\n\r\n")?;
        Ok(true)
    });
    let shop = shop(mesh, &origin);
    let mut connection = Connection::open(shop.address).unwrap();
    connection
        .send(b"GET /events HTTP/1.1\r\nhost: orders\r\n\r\n")
        .unwrap();
    let mut line = String::new();
    for n in 0..10 {
        let wanted = format!("data: {n}\n");
        while line != wanted {
            line.clear();
            connection.reader().read_line(&mut line).unwrap();
        }
        go.send(()).unwrap();
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        let sum = request
            .trailers
            .iter()
            .find(|(name, _)| name == "x-sum")
            .map_or("none", |(_, value)| value);
        write!(
            out,
            "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: {sum}\r\n\r\n"
        )?;
        Ok(true)
    });
    let shop = shop(mesh, &origin);
    let request = b"POST / HTTP/1.1\r\nhost: orders\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\nconnection: close, te\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 294\r\n\r\n";
    let response = exchange(shop.address, request).unwrap();
    assert_eq!(response.text(), "ok");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "294".to_owned())]);
}

#[test]
fn unix_sockets_serve_as_application_and_as_listener() {
    let mesh = Mesh::start();
    let application = mesh.folder().join("application.sock");
    let listener = mesh.folder().join("listener.sock");
    let server = UnixListener::bind(&application).unwrap();
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nunix",
                );
            }
        }
    });
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", format!("unix:{}", application.display()))
        .start();
    let shop = mesh
        .sidecar("shop")
        .calls_by_socket("orders:80", &listener)
        .start();
    shop.wait_endpoints("orders:80", 1);
    let mut stream = UnixStream::connect(&listener).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n")
        .unwrap();
    let response = read_response(&mut std::io::BufReader::new(stream), false).unwrap();
    assert_eq!(response.text(), "unix");
}

#[test]
fn a_split_of_90_to_10_is_seen_as_90_to_10() {
    const REQUESTS: usize = 2000;
    let mesh = Mesh::start();
    let one = Origin::echo(mesh.address(), "one");
    let two = Origin::echo(mesh.address(), "two");
    mesh.apply(&format!(
        "{}{}{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: split, namespace: shop }}\nspec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: orders, port: 80 }} ]\n  rules: [ {{ backendRefs: [ {{ name: orders-v1, port: 80, weight: 90 }}, {{ name: orders-v2, port: 80, weight: 10 }} ] }} ]\n",
        service("orders", 80, "http"),
        service("orders-v1", 80, "http"),
        service("orders-v2", 80, "http"),
    ));
    let _one = mesh
        .sidecar("orders-v1")
        .serves("orders-v1:80", one.address)
        .start();
    let _two = mesh
        .sidecar("orders-v2")
        .serves("orders-v2:80", two.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders-v1:80", 1);
    shop.wait_endpoints("orders-v2:80", 1);
    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    let mut connection = Connection::open(shop.listener("orders:80")).unwrap();
    for _ in 0..REQUESTS {
        let response = connection.get("/").unwrap();
        assert_eq!(response.status, 200);
        let name = response.text().split(' ').next().unwrap().to_owned();
        *answered.entry(name).or_default() += 1;
    }
    // Five standard deviations of a binomial distribution.
    let share = answered["two"] as f64 / REQUESTS as f64;
    assert!((0.066..0.134).contains(&share), "{answered:?}");
}

#[test]
fn a_failure_of_the_mesh_says_what_failed_and_in_which_request() {
    let mesh = Mesh::start();
    let origin = Origin::raw(mesh.address(), |_| Ok(()));
    let mute = Origin::http(mesh.address(), |_, _| Ok(false));
    mesh.apply(&format!(
        "{}{}{}",
        service("absent", 80, "http"),
        service("hangs-up", 80, "http"),
        service("mute", 80, "http")
    ));
    let _hangs_up = mesh
        .sidecar("hangs-up")
        .serves("hangs-up:80", origin.address)
        .start();
    let _mute = mesh.sidecar("mute").serves("mute:80", mute.address).start();
    let shop = mesh
        .sidecar("shop")
        .calls("absent:80")
        .calls("hangs-up:80")
        .calls("mute:80")
        .start();
    shop.wait_endpoints("hangs-up:80", 1);
    shop.wait_endpoints("mute:80", 1);
    for (name, statuses) in [
        ("absent:80", &[503][..]),
        ("hangs-up:80", &[502]),
        ("mute:80", &[502]),
    ] {
        let response = get(shop.listener(name), "/").unwrap();
        assert!(statuses.contains(&response.status), "{name}: {response:?}");
        let told = response.header("proxy-status").unwrap_or_default();
        assert!(told.contains("error="), "{name}: {response:?}");
        assert!(
            response.header("x-request-id").is_some(),
            "{name}: {response:?}"
        );
    }
}

#[test]
fn an_application_that_never_answers_is_a_504_in_time() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |_, out| {
        // Holds the connection until the other side gives up.
        let _ = out.stream.read(&mut [0; 1]);
        Ok(false)
    });
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("orders").serves("orders:80", origin.address);
    let _orders = plan.setting("timeouts: { stream_idle: 1s }").start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let begin = Instant::now();
    let response = get(shop.listener("orders:80"), "/").unwrap();
    let waited = begin.elapsed();
    assert_eq!(response.status, 504, "{response:?}");
    assert!(response.header("proxy-status").is_some(), "{response:?}");
    // Once, and not for each of several attempts.
    let stream_idle = Duration::from_secs(1);
    assert!(
        waited >= stream_idle && waited < 2 * stream_idle,
        "{waited:?}"
    );
}

#[test]
fn an_application_that_is_down_is_taken_out_and_comes_back() {
    let mesh = Mesh::start();
    let address = mesh.address();
    let origin = Origin::echo(address, "orders");
    let port = origin.address.port();
    let shop = shop(mesh, &origin);
    assert_eq!(get(shop.address, "/").unwrap().status, 200);
    drop(origin);
    eventually("the endpoint is withdrawn", || {
        let response = get(shop.address, "/").unwrap();
        assert!(matches!(response.status, 502..=504), "{response:?}");
        response.status == 503
    });
    let listener = std::net::TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    eventually("the endpoint is back", || {
        get(shop.address, "/").unwrap().status == 200
    });
}

#[test]
fn an_upgrade_is_refused_cleanly() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let request = b"GET /chat HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    let response = exchange(shop.address, request).unwrap();
    assert_eq!(response.status, 501, "{response:?}");
    let told = response.header("proxy-status").unwrap_or_default();
    assert!(told.contains("error=http_upgrade_failed"), "{told}");
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn http2_with_prior_knowledge_is_served_on_the_same_listener() {
    if !crate::harness::need(&[crate::harness::Need::Program("curl")]) {
        return;
    }
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let url = format!("http://{}/x", shop.address);
    let output = run(Command::new("curl").args([
        "-sS",
        "--http2-prior-knowledge",
        "-w",
        " %{http_version}",
        &url,
    ]))
    .ok();
    assert_eq!(output, "orders GET /x HTTP/1.1 0 2");
    let _ = shop.mesh;
}

#[test]
fn a_sidecar_that_is_killed_costs_its_callers_seconds_and_not_minutes() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let mut shop = shop(mesh, &origin);
    assert_eq!(get(shop.address, "/").unwrap().status, 200);
    shop.orders.process.kill();
    // The first one finds a connection that still looks alive.
    for _ in 0..3 {
        let begin = Instant::now();
        let response = get(shop.address, "/").unwrap();
        assert!(matches!(response.status, 502..=504), "{response:?}");
        assert!(begin.elapsed() < Duration::from_secs(15));
    }
}
