//! A caller that policy allows, and that takes all it can: another caller of the same service must not be
//! affected.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{
    Connection, Mesh, Need, Origin, Process, eventually, exchange, get, need, pause, python,
    python_command, service,
};

/// More than the places of a service.
const REQUESTS: usize = 1_100;

#[test]
fn requests_without_their_bodies_leave_places_to_others_and_are_ended() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let greedy = mesh.sidecar("greedy").calls("orders:80").start();
    let bystander = mesh.sidecar("bystander").calls("orders:80").start();
    for sidecar in [&greedy, &bystander] {
        sidecar.wait_endpoints("orders:80", 1);
        assert_eq!(get(sidecar.listener("orders:80"), "/").unwrap().status, 200);
    }
    let before = orders.process.resident();

    let head = b"POST /held HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let mut first = Connection::open(greedy.listener("orders:80")).unwrap();
    first.send(head).unwrap();
    let began = Instant::now();
    let mut held = Vec::with_capacity(REQUESTS);
    for _ in 1..REQUESTS {
        let mut stream = TcpStream::connect(greedy.listener("orders:80")).unwrap();
        stream.write_all(head).unwrap();
        held.push(stream);
    }
    eventually("the greedy caller has its share", || {
        let metrics = orders.admin_get("/metrics").unwrap().text();
        metrics.lines().any(|line| {
            line.starts_with("weft_overload_total")
                && line.contains("limit=\"share\"")
                && line.contains("mode=\"enforce\"")
                && !line.ends_with(" 0")
        })
    });
    for _ in 0..20 {
        let asked = Instant::now();
        let response = get(bystander.listener("orders:80"), "/").unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
    let grown = orders.process.resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");

    // Their bodies never come, so they are ended.
    let refused = first.receive(false).unwrap();
    assert_eq!(refused.status, 408, "{refused:?}");
    let took = began.elapsed().as_secs();
    assert!((18..40).contains(&took), "{took} s");
    drop(held);
    orders.expect_alive();
}

#[test]
fn streams_and_windows_of_an_application_are_not_taken_by_one_caller_of_grpc() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let application = SocketAddr::from((mesh.address(), 50051));
    let spawn = |name: &str, mode: &str, address: SocketAddr, count: &str| {
        let mut command = python_command("grpc_greedy.py");
        command
            .args([mode, &address.to_string(), count])
            .stdin(Stdio::null());
        Process::spawn(name, mesh.folder(), &mut command)
    };
    let mut server = spawn("grpc-application", "serve", application, "");
    server.wait_for_line("serving");
    mesh.apply(&service("echo", 50051, "grpc"));
    let _echo = mesh
        .sidecar("echo")
        .serves("echo:50051", application)
        .start();
    let greedy = mesh.sidecar("greedy").calls("echo:50051").start();
    let bystander = mesh.sidecar("bystander").calls("echo:50051").start();
    for sidecar in [&greedy, &bystander] {
        sidecar.wait_endpoints("echo:50051", 1);
    }
    let through = bystander.listener("echo:50051").to_string();
    // More streams than the application allows on a connection for each worker, then more unread bytes than
    // fill the window of one.
    for (mode, count) in [("hold", "300"), ("unread", "20")] {
        let mut holder = spawn(mode, mode, greedy.listener("echo:50051"), count);
        holder.wait_for_line("holding");
        assert_eq!(
            python("grpc_greedy.py", &["ask", &through, "20"]),
            20,
            "{mode}"
        );
        holder.kill();
    }
}

#[test]
fn no_bytes_of_a_caller_reach_an_application_that_does_not_speak_http2() {
    let mesh = Mesh::start();
    // It skips bytes that it cannot parse, and takes each line for a request.
    let origin = Origin::raw(mesh.address(), |mut tap| {
        let mut buffer = [0; 4096];
        while std::io::Read::read(&mut tap, &mut buffer)? > 0 {
            tap.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let body = "\r\nDELETE /smuggled HTTP/1.1\r\nweft-client-id: somebody\r\n\r\n";
    let request = format!(
        "POST /x HTTP/1.1\r\nhost: orders\r\ncontent-type: application/grpc\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = exchange(shop.listener("orders:80"), request.as_bytes()).unwrap();
    assert_eq!(response.header("grpc-status"), Some("14"), "{response:?}");
    pause(Duration::from_millis(200));
    let seen = origin.bytes();
    let seen = String::from_utf8_lossy(&seen);
    assert!(
        !seen.contains("smuggled") && !seen.contains("orders"),
        "{seen}"
    );
}
