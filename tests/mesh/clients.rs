//! Clients that use HTTP/1 in ways that the RFCs allow and that are rare: some end their side after the
//! request, others write its head in one of its rarer forms.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Load, Mesh, Origin, Shop, connect, eventually, exchange, get, pause, service,
};

/// A caller of `origin`, by TCP, by a Unix socket and by host.
fn shop(mesh: Mesh, origin: &Origin) -> Shop {
    let socket = mesh.folder().join("shop.sock");
    Shop::calling(mesh, origin.address, |shop| {
        // The one worker that is waited for has all requests.
        shop.setting("workers: 1")
            .calls_by_socket("orders:80", &socket)
            .calls_by_host()
    })
}

/// Answers after enough time for a client's end to be seen.
fn slow_echo(mesh: &Mesh) -> Origin {
    Origin::http(mesh.address(), |request, out| {
        pause(Duration::from_millis(300));
        let text = format!("{} {}", request.line, request.body.len());
        let length = text.len();
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
        )?;
        Ok(true)
    })
}

/// All bytes that come back on a connection whose client ends its side behind `request`.
fn said_and_ended(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_that_ends_its_side_behind_its_request_gets_its_answer_and_then_the_end() {
    let mesh = Mesh::start();
    let origin = slow_echo(&mesh);
    let shop = shop(mesh, &origin);
    let bystander = Load::start(shop.address, "/", 1, Duration::from_millis(20));
    for (request, answers) in [
        (
            "GET /a HTTP/1.1\r\nhost: orders\r\n\r\n",
            &["GET /a HTTP/1.1 0"][..],
        ),
        ("GET /b HTTP/1.0\r\n\r\n", &["GET /b HTTP/1.1 0"]),
        (
            "POST /c HTTP/1.1\r\nhost: orders\r\ncontent-length: 3\r\n\r\nabc",
            &["POST /c HTTP/1.1 3"],
        ),
        (
            "POST /d HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            &["POST /d HTTP/1.1 2"],
        ),
        (
            "GET /e HTTP/1.1\r\nhost: a\r\n\r\nPOST /f HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nxGET /g HTTP/1.1\r\nhost: a\r\n\r\n",
            &[
                "GET /e HTTP/1.1 0",
                "POST /f HTTP/1.1 1",
                "GET /g HTTP/1.1 0",
            ],
        ),
    ] {
        let answer = said_and_ended(shop.address, request);
        assert_eq!(
            answer.matches(" 200 OK\r\n").count(),
            answers.len(),
            "{request:?}: {answer:?}"
        );
        let mut rest = answer.as_str();
        for one in answers {
            let at = rest
                .find(one)
                .unwrap_or_else(|| panic!("{one} in {answer:?}"));
            rest = &rest[at..];
        }
    }
    // By a Unix socket, too.
    let mut stream = UnixStream::connect(shop.mesh.folder().join("shop.sock")).unwrap();
    stream
        .write_all(b"GET /u HTTP/1.1\r\nhost: orders\r\n\r\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("GET /u HTTP/1.1 0"), "{answer:?}");
    bystander.finish_after(3).expect_all_good(3);
}

#[test]
fn an_end_within_a_head_or_a_body_makes_no_whole_request() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    for request in [
        "GET / HTTP/1.1\r\nhost: orders\r\n",
        "POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "POST / HTTP/1.1\r\nhost: orders\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    ] {
        let answer = said_and_ended(shop.address, request);
        assert!(!answer.contains(" 200 "), "{request:?}: {answer:?}");
    }
    assert_eq!(said_and_ended(shop.address, ""), "");
    assert_eq!(origin.requests().len(), 0);
}

/// An application that never answers. It reports each request, and when the request is given up.
fn stuck(mesh: &Mesh) -> (Origin, Receiver<&'static str>) {
    let (tell, told) = sync_channel(16);
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::raw(mesh.address(), move |mut tap| {
        let tell = tell.lock().unwrap().clone();
        let mut buffer = [0; 4096];
        if tap.read(&mut buffer)? > 0 {
            tell.send("request").unwrap();
            while tap.read(&mut buffer).is_ok_and(|read| read > 0) {}
            let _ = tell.send("gone");
        }
        Ok(())
    });
    (origin, told)
}

#[test]
fn a_request_is_given_up_soon_when_its_client_is_gone_and_not_when_it_has_only_ended_its_side() {
    let mesh = Mesh::start();
    let (origin, told) = stuck(&mesh);
    let shop = shop(mesh, &origin);
    let wait = |what, within| {
        assert_eq!(told.recv_timeout(within), Ok(what));
    };
    let (soon, request) = (
        Duration::from_secs(3),
        b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n",
    );
    let reset = |stream: &TcpStream| {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    };

    // A reset and a close over TCP of the same host, at once, and behind an end of the client's side.
    for (is_reset, is_ended) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut client = connect(shop.address).unwrap();
        client.write_all(request).unwrap();
        wait("request", soon);
        if is_ended {
            client.shutdown(Shutdown::Write).unwrap();
            assert!(told.recv_timeout(Duration::from_secs(2)).is_err());
        }
        if is_reset {
            reset(&client);
        }
        drop(client);
        wait("gone", soon);
    }

    // Behind a request of which the next waits.
    let mut client = connect(shop.address).unwrap();
    client.write_all(&[request, &request[..]].concat()).unwrap();
    wait("request", soon);
    reset(&client);
    drop(client);
    wait("gone", soon);

    // A Unix socket tells a close from the end of one side.
    let socket = shop.mesh.folder().join("shop.sock");
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(request).unwrap();
    wait("request", soon);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(told.recv_timeout(Duration::from_secs(2)).is_err());
    drop(client);
    wait("gone", soon);
}

#[test]
fn empty_lines_before_a_request_are_none_and_never_answered() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let mut connection = Connection::open(shop.address).unwrap();
    for path in ["/a", "/b", "/c"] {
        connection.send(b"\r\n\r\n").unwrap();
        assert_eq!(connection.get(path).unwrap().status, 200);
    }
    assert_eq!(said_and_ended(shop.address, "\r\n\r\n"), "");
}

#[test]
fn the_absolute_form_is_the_authority_whatever_host_stands_beside_it() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let by_host = shop.sidecar.by_host();
    for (target, host, path) in [
        ("http://orders.shop/a", "elsewhere", "/a"),
        ("http://orders.shop/a", "orders.shop", "/a"),
        ("http://orders.shop/a", "", "/a"),
        ("http://orders.shop?x=1", "orders.shop", "/?x=1"),
        ("http://orders.shop:80?x=1", "elsewhere", "/?x=1"),
        ("http://orders.shop", "elsewhere", "/"),
    ] {
        for version in ["1.1", "1.0"] {
            let request =
                format!("GET {target} HTTP/{version}\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = said_and_ended(by_host, &request);
            assert!(answer.contains(" 200 OK\r\n"), "{request:?}: {answer:?}");
            let seen = origin.requests().pop().unwrap();
            assert_eq!(seen.path(), path, "{request:?}");
            let authority = target.trim_start_matches("http://");
            let authority = authority.split(['/', '?']).next();
            assert_eq!(seen.header("host"), authority, "{request:?}");
        }
    }
    let before = origin.requests().len();
    // A Host field cannot lead anywhere else, nor be anything but a host.
    for (target, host) in [
        ("http://elsewhere/", "orders.shop"),
        ("http://orders.shop/", "ord ers"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let response = exchange(by_host, request.as_bytes()).unwrap();
        assert!(response.status >= 400, "{request:?}: {response:?}");
    }
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn options_of_the_server_as_a_whole_reaches_the_application() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    let request = b"OPTIONS * HTTP/1.1\r\nhost: orders.shop\r\nconnection: close\r\n\r\n";
    for address in [shop.address, shop.sidecar.by_host()] {
        let response = exchange(address, request).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        let seen = origin.requests().pop().unwrap();
        assert_eq!(seen.line, "OPTIONS * HTTP/1.1");
    }
}

#[test]
fn white_space_before_the_colon_of_a_response_is_removed_and_in_a_request_refused() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        let head = if request.path() == "/length" {
            "content-length : 2\r\nx-a\t : 1\r\n"
        } else {
            "transfer-encoding \t: chunked\r\nx-a : 1\r\n"
        };
        let body = if request.path() == "/length" {
            "ok"
        } else {
            "2\r\nok\r\n0\r\n\r\n"
        };
        write!(out, "HTTP/1.1 200 OK\r\n{head}\r\n{body}")?;
        Ok(true)
    });
    let shop = shop(mesh, &origin);
    for path in ["/length", "/chunked"] {
        let response = get(shop.address, path).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert!(response.headers.iter().any(|(name, _)| name == "x-a"));
    }
    let before = origin.requests().len();
    let request = b"GET / HTTP/1.1\r\nhost: orders\r\nx-a : 1\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(shop.address, request).unwrap().status, 400);
    assert_eq!(origin.requests().len(), before);
}

#[test]
fn a_body_that_comes_though_100_continue_was_not_said_is_waited_for_no_longer() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    let shop = shop(mesh, &origin);
    get(shop.address, "/").unwrap();
    let length = "content-length: 3\r\n\r\n";
    let coding = "transfer-encoding: chunked\r\n\r\n";
    for (framing, body) in [(length, "abc"), (coding, "3\r\nabc\r\n0\r\n\r\n")] {
        for apart in [false, true] {
            let mut connection = Connection::open(shop.address).unwrap();
            // The first request on a connection is read by another code path than later ones.
            for _ in 0..2 {
                let begin = Instant::now();
                let head =
                    format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{framing}");
                if apart {
                    connection.send(head.as_bytes()).unwrap();
                    pause(Duration::from_millis(50));
                    connection.send(body.as_bytes()).unwrap();
                } else {
                    connection.send(format!("{head}{body}").as_bytes()).unwrap();
                }
                let response = connection.receive(false).unwrap();
                assert!(response.text().ends_with(" 3"), "{response:?}");
                let took = begin.elapsed();
                assert!(
                    took < Duration::from_millis(800),
                    "{framing:?} {apart}: {took:?}"
                );
            }
        }
    }
    // A client that waits is told.
    let mut connection = Connection::open(shop.address).unwrap();
    connection
        .send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .unwrap();
    let mut interim = [0; 25];
    connection.reader().read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(b"abc").unwrap();
    assert_eq!(connection.receive(false).unwrap().status, 200);
    eventually("all have their answers", || origin.requests().len() == 10);
}

#[test]
fn an_application_gets_via_unless_a_setting_forbids_it() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&[service("orders", 80, "http"), service("plain", 80, "http")].concat());
    let orders = mesh.sidecar("orders").serves("orders:80", origin.address);
    let _orders = orders.start();
    let plain = mesh.sidecar("plain").serves("plain:80", origin.address);
    let _plain = plain.service_setting("send_via: false").start();
    let shop = mesh
        .sidecar("shop")
        .setting("workers: 1")
        .calls("orders:80")
        .calls("plain:80")
        .start();
    for (service, has_via) in [("orders:80", true), ("plain:80", false)] {
        shop.wait_endpoints(service, 1);
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nvia: 1.1 front\r\nconnection: close\r\n\r\n";
        let response = exchange(shop.listener(service), request).unwrap();
        assert_eq!(response.status, 200, "{service}: {response:?}");
        let seen = origin.requests().pop().unwrap();
        assert_eq!(seen.header("via").is_some(), has_via, "{service}: {seen:?}");
    }
}
