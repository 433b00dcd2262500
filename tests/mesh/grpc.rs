//! gRPC with grpcio on both sides: every kind of call, metadata, trailers and error codes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Mesh, Need, Process, need, python, python_command, service};

#[test]
fn every_kind_of_call_passes_with_its_metadata_and_code() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let application = SocketAddr::from((mesh.address(), 50051));
    let mut command = python_command("grpc_peer.py");
    command.args(["serve", &application.to_string()]);
    let mut server = Process::spawn("grpc-server", mesh.folder(), &mut command);
    server.wait_for_line("serving");
    mesh.apply(&service("echo", 50051, "grpc"));
    let _served = mesh
        .sidecar("echo")
        .serves("echo:50051", application)
        .start();
    let caller = mesh.sidecar("shop").calls("echo:50051").start();
    caller.wait_endpoints("echo:50051", 1);

    let through = caller.listener("echo:50051").to_string();
    let seen = python("grpc_peer.py", &["call", &through]);
    assert_eq!(seen["unary"], "hello");
    assert_eq!(seen["initial"], json!(["first", "0001ff"]));
    assert_eq!(seen["trailing"], json!(["last", "answer"]));
    assert_eq!(seen["empty"], 0);
    assert_eq!(seen["large"], true);
    assert_eq!(seen["client_stream"], 499_500);
    assert_eq!(seen["server_stream"], true);
    assert_eq!(seen["bidirectional"], 50);
    assert_eq!(seen["late_error"], json!(["one", "two", "DATA_LOSS"]));
    assert_eq!(seen["deadline"], "DEADLINE_EXCEEDED");
    assert_eq!(seen["unimplemented"], "UNIMPLEMENTED", "{seen}");
    assert_eq!(seen["concurrent"], true);
    let codes = seen["codes"].as_object().unwrap();
    assert_eq!(codes.len(), 16);
    for (code, got) in codes {
        assert_eq!(*got, json!([code, "message with space and ü", "because"]));
    }
}

#[test]
fn a_sidecar_whose_calls_are_over_ends_long_before_the_deadline_of_the_drain() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let application = SocketAddr::from((mesh.address(), 50051));
    let mut command = python_command("grpc_peer.py");
    command.args(["serve", &application.to_string()]);
    let mut server = Process::spawn("grpc-server", mesh.folder(), &mut command);
    server.wait_for_line("serving");
    mesh.apply(&service("echo", 50051, "grpc"));
    let mut served = mesh
        .sidecar("echo")
        .serves("echo:50051", application)
        .start();
    let caller = mesh.sidecar("shop").calls("echo:50051").start();
    caller.wait_endpoints("echo:50051", 1);
    let through = caller.listener("echo:50051").to_string();
    assert_eq!(
        python("grpc_peer.py", &["call", &through])["unary"],
        "hello"
    );

    // The connection to the application is idle, and would be kept for a minute. The deadline is 25 s.
    served.terminate();
    let status = served.process.wait_exit(Duration::from_secs(15));
    assert!(status.success(), "{status}");
}

#[test]
fn a_service_without_endpoint_is_unavailable_and_a_denied_call_permission_denied() {
    if !need(&[Need::Python]) {
        return;
    }
    let mesh = Mesh::start();
    let application = SocketAddr::from((mesh.address(), 50051));
    mesh.apply(&format!(
        "{}{}{}",
        service("absent", 50051, "grpc"),
        service("closed", 50051, "grpc"),
        crate::authorization::allow("closed", &["somebody"]),
    ));
    let mut command = python_command("grpc_peer.py");
    command.args(["serve", &application.to_string()]);
    let mut server = Process::spawn("grpc-server", mesh.folder(), &mut command);
    server.wait_for_line("serving");
    let _served = mesh
        .sidecar("closed")
        .serves("closed:50051", application)
        .start();
    let caller = mesh
        .sidecar("shop")
        .calls("absent:50051")
        .calls("closed:50051")
        .start();
    let code = |service: &str| {
        let address = caller.listener(service).to_string();
        python("grpc_peer.py", &["status", &address])["code"].clone()
    };
    assert_eq!(code("absent:50051"), "UNAVAILABLE");
    assert_eq!(code("closed:50051"), "PERMISSION_DENIED");
}
