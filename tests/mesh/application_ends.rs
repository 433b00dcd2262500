//! Applications that end connections and streams as they may: no request is lost that they did not process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::harness::{
    Connection, Http2, Mesh, Need, Origin, Process, Sidecar, Streams, eventually, need, pause,
    program, service,
};

/// A service between two sidecars.
struct Between {
    _mesh: Mesh,
    served: Sidecar,
    caller: Sidecar,
}

impl Between {
    fn to(mesh: Mesh, application: SocketAddr, protocol: &str) -> Self {
        mesh.apply(&service("echo", 80, protocol));
        let served = mesh.sidecar("echo").serves("echo:80", application).start();
        let caller = mesh.sidecar("shop").calls("echo:80").start();
        caller.wait_endpoints("echo:80", 1);
        Self {
            _mesh: mesh,
            served,
            caller,
        }
    }

    fn address(&self) -> SocketAddr {
        self.caller.listener("echo:80")
    }

    /// The sum of a metric of the serving sidecar with these labels.
    fn counted(&self, name: &str, labels: &str) -> f64 {
        let metrics = self.served.admin_get("/metrics").unwrap().text();
        let lines = metrics.lines();
        let named = lines.filter(|line| line.starts_with(name) && line.contains(labels));
        let values = named.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }
}

/// nginx that ends each connection after 100 requests.
fn nginx(mesh: &Mesh, listen: &str) -> (Process, SocketAddr) {
    let folder = mesh.folder().join("nginx");
    std::fs::create_dir_all(&folder).unwrap();
    let address = SocketAddr::from((mesh.address(), 8080));
    let shown = folder.display();
    let user = if nix::unistd::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let configuration = format!(
        "daemon off; master_process off; {user} pid {shown}/pid; error_log stderr warn;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; keepalive_requests 100;
           client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;
           fastcgi_temp_path {shown}/fastcgi; uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi;
           server {{ listen {address} {listen}; location / {{ return 200 well; }} }}
         }}"
    );
    std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let mut command: Command = program("nginx");
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .args(["-e", "stderr"]);
    let process = Process::spawn("nginx", &folder, &mut command);
    eventually("nginx listens", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    (process, address)
}

#[test]
fn no_call_is_lost_to_an_nginx_that_ends_its_http2_connections_after_100_requests() {
    if !need(&[Need::Program("nginx")]) {
        return;
    }
    let mesh = Mesh::start();
    let (_nginx, address) = nginx(&mesh, "http2");
    let between = Between::to(mesh, address, "grpc");
    let client = Streams::open(between.address(), 1);
    let outcomes = client.unary("/call", 3000, 16);
    let bad: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
    assert!(bad.is_empty(), "{} of 3000: {:?}", bad.len(), bad[0]);
    // The test would show nothing if no connection had ended under way.
    assert!(between.counted("weft_application_resends_total", "") > 0.0);
}

#[test]
fn no_request_is_lost_to_an_nginx_that_ends_its_connections_after_100_requests() {
    if !need(&[Need::Program("nginx")]) {
        return;
    }
    let mesh = Mesh::start();
    let (_nginx, address) = nginx(&mesh, "");
    let between = Between::to(mesh, address, "http");
    let at = between.address();
    let clients: Vec<_> = (0..16)
        .map(|_| thread::spawn(move || ask(at, "GET", 190)))
        .collect();
    let bad: Vec<u16> = clients
        .into_iter()
        .flat_map(|one| one.join().unwrap())
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// Sends requests on one connection, and gives the statuses that are not 200.
fn ask(at: SocketAddr, method: &str, requests: usize) -> Vec<u16> {
    ask_on(&mut Connection::open(at).unwrap(), method, requests)
}

fn ask_on(connection: &mut Connection, method: &str, requests: usize) -> Vec<u16> {
    let body = match method {
        "GET" => "\r\n",
        _ => "content-length: 2\r\n\r\nhi",
    };
    let request = format!("{method} / HTTP/1.1\r\nhost: echo\r\n{body}");
    let mut bad = Vec::new();
    for _ in 0..requests {
        connection.send(request.as_bytes()).unwrap();
        let status = connection.receive(false).unwrap().status;
        if status != 200 {
            bad.push(status);
        }
    }
    bad
}

#[test]
fn an_application_that_closes_after_each_answer_without_notice_costs_no_post() {
    let mesh = Mesh::start();
    let count = AtomicUsize::new(0);
    let origin = Origin::http(mesh.address(), move |_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell")?;
        // The answer is there before the end, as with applications that have something to clean up.
        let after = count.fetch_add(1, Ordering::Relaxed) % 8;
        pause(Duration::from_micros(500) * u32::try_from(after).unwrap());
        Ok(false)
    });
    let between = Between::to(mesh, origin.address, "http");
    let at = between.address();
    let clients: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || ask(at, "POST", 100)))
        .collect();
    let bad: Vec<u16> = clients
        .into_iter()
        .flat_map(|one| one.join().unwrap())
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    // None was sent twice either.
    assert_eq!(origin.requests().len(), 400);
}

#[test]
fn posts_reuse_the_connections_of_an_application_that_keeps_them() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "echo");
    let between = Between::to(mesh, origin.address, "http");
    // One connection, and so one worker of each sidecar.
    let mut connection = Connection::open(between.address()).unwrap();
    assert!(ask_on(&mut connection, "POST", 100).is_empty());
    // The first ones had to show that connections stay open.
    pause(Duration::from_millis(100));
    assert!(ask_on(&mut connection, "POST", 1).is_empty());
    let before = origin.connections();
    assert!(ask_on(&mut connection, "POST", 100).is_empty());
    assert_eq!(origin.connections(), before);
}

#[test]
fn a_call_whose_stream_the_application_refuses_is_sent_again() {
    let mesh = Mesh::start();
    let count = Arc::new(AtomicUsize::new(0));
    let application = Http2::start(mesh.address(), 100, move |_, mut respond| {
        let refused = count.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        Box::pin(async move {
            if refused {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                return;
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"well"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            body.send_trailers(trailers).unwrap();
        })
    });
    let between = Between::to(mesh, application.address, "grpc");
    let client = Streams::open(between.address(), 1);
    let outcomes = client.unary("/call", 100, 1);
    let bad: Vec<_> = outcomes.iter().filter(|one| !one.is_good()).collect();
    assert!(bad.is_empty(), "{} of 100: {:?}", bad.len(), bad[0]);
    let reason = "reason=\"refused_stream\"";
    assert!(between.counted("weft_application_resends_total", reason) >= 40.0);
}
