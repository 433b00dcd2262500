//! The protocol of an application, by the `appProtocol` of its Service's port.

use std::process::Command;

use super::fixture::route_for;
use super::report::judging;
use crate::harness::{Answer, Http2, Mesh, Need, exchange, need, run};

const SERVICES: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: echo, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: v1, namespace: shop }
spec: { ports: [ { port: 80, protocol: http, appProtocol: kubernetes.io/h2c } ] }
"#;

#[test]
fn g48_an_application_of_h2c_gets_every_request_over_http2() {
    if !need(&[Need::Program("curl")]) {
        return;
    }
    let mesh = Mesh::start();
    // It ends a connection that begins otherwise.
    let (application, seen) = Http2::recording(mesh.address(), |_| Answer {
        pieces: vec!["from v1"],
        ..Answer::default()
    });
    let route = route_for(
        "g48",
        "shop",
        r#"{ group: "", kind: Service, name: echo }"#,
        "- { backendRefs: [ { name: v1, port: 80 } ] }\n",
    );
    mesh.apply(&(SERVICES.to_owned() + &route));
    let serving = mesh.sidecar("v1").serves("v1:80", application.address);
    let _serving = serving.start();
    let client = mesh.sidecar("client").calls("echo:80").start();
    client.wait_endpoints("v1:80", 1);
    let echo = client.listener("echo:80");

    let _judging = judging();
    let url = format!("http://{echo}/over-2");
    let arguments = ["-sS", "--http2-prior-knowledge", &url];
    assert_eq!(run(Command::new("curl").args(arguments)).ok(), "from v1");
    let one = b"GET /over-1 HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n";
    let answer = exchange(echo, one).unwrap();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "from v1"),
        "{answer:?}"
    );
    let seen = seen.lock().unwrap();
    let lines: Vec<&str> = seen.iter().map(|one| one.line.as_str()).collect();
    assert_eq!(lines, ["GET /over-2 HTTP/2.0", "GET /over-1 HTTP/2.0"]);
}
