//! Every protocol carries requests, and reports its own failures.

use crate::harness::{Ran, Server, load};

#[track_caller]
fn all_succeed(url: &str, flags: &[&str]) -> Ran {
    let ran = load(&[&[url, "--rate", "200", "-n", "100"], flags].concat());
    assert_eq!(ran.summary("succeeded"), 100, "{url} {flags:?}: {ran:?}");
    ran
}

#[test]
fn each_protocol_carries_requests_and_reuses_its_connections() {
    let server = Server::start(&["--body", "100B"]);
    let call = "/test.Echo/Call";
    for (scheme, path, flags) in [
        ("http", "/", &[][..]),
        ("http", "/", &["-m", "POST", "--data", "hello"]),
        ("http", "/", &["--http2"]),
        ("http", "/", &["--http2", "--data-size", "200KiB"]),
        ("grpc", call, &["--data", "hello"]),
        ("tcp", "", &[]),
        ("tcp", "", &["--data-size", "300KiB"]),
        ("udp", "", &["--deadline", "2s"]),
    ] {
        let ran = all_succeed(&server.url(scheme, path), flags);
        let reused = ran.json()["summary"]["reused_share"].as_f64().unwrap();
        assert!(reused > 0.3, "{scheme} {flags:?}: {reused}");
        assert!(ran.summary("bytes_in") > 0, "{scheme} {flags:?}");
    }
}

#[test]
fn a_new_connection_for_each_request_is_one() {
    let server = Server::start(&[]);
    for (scheme, flags) in [
        ("http", &[][..]),
        ("tcp", &[]),
        ("tcp", &["--tcp", "connect"]),
    ] {
        let ran = all_succeed(
            &server.url(scheme, ""),
            &[&["--no-keep-alive"], flags].concat(),
        );
        let json = ran.json();
        assert_eq!(
            json["summary"]["reused_share"].as_f64(),
            Some(0.0),
            "{scheme}"
        );
        assert_eq!(
            json["phases"]["connect"]["samples"].as_u64(),
            Some(100),
            "{scheme}"
        );
    }
}

/// Five transfers one after the other.
fn five(url: &str, flags: &[&str]) -> Ran {
    let ran = load(&[&[url, "--closed", "-c", "1", "-n", "5"], flags].concat());
    assert_eq!(ran.summary("succeeded"), 5, "{ran:?}");
    ran
}

#[test]
fn bytes_go_up_over_tcp_until_the_peer_has_them_all() {
    let server = Server::on(&["tcp-sink", "tcp"], &[]);
    // More than the buffers of a connection hold. The echo returns it all in the meantime, which must not
    // stop the sender.
    for protocol in ["tcp-sink", "tcp"] {
        let flags = ["--tcp", "upload", "--data-size", "20MiB"];
        let ran = five(&server.url(protocol, ""), &flags);
        assert_eq!(ran.summary("bytes_out"), 100 << 20, "{ran:?}");
        let back = if protocol == "tcp" { 100 << 20 } else { 0 };
        assert_eq!(ran.summary("bytes_in"), back, "{ran:?}");
    }
}

#[test]
fn bytes_come_down_over_tcp_until_the_peer_closes() {
    let server = Server::on(&["tcp-source"], &["--body", "20MiB"]);
    let ran = five(&server.url("tcp-source", ""), &["--tcp", "download"]);
    assert_eq!(ran.summary("bytes_in"), 100 << 20, "{ran:?}");
    let failing = Server::on(&["tcp-source", "tcp-sink"], &["--errors", "100%"]);
    for (protocol, pattern) in [("tcp-source", "download"), ("tcp-sink", "upload")] {
        let url = failing.url(protocol, "");
        let plan = ["--rate", "50", "-n", "5", "--no-check"];
        let ran = load(&[&[url.as_str(), "--tcp", pattern], &plan[..]].concat());
        assert_eq!(ran.summary("failed"), 5, "{ran:?}");
    }
}

#[test]
fn a_call_of_grpc_fails_by_its_own_status() {
    let server = Server::start(&["--errors", "100%"]);
    let ran = load(&[
        &server.url("grpc", "/test.Echo/Call"),
        "--rate",
        "50",
        "-n",
        "10",
    ]);
    assert_eq!(ran.failed("grpc_14"), 10, "{ran:?}");
}

#[test]
fn http2_makes_a_connection_for_each_request_if_asked() {
    let server = Server::start(&[]);
    let ran = all_succeed(&server.url("http", "/"), &["--http2", "--no-keep-alive"]);
    let connections = &ran.json()["phases"]["connect"]["samples"];
    assert_eq!(connections.as_u64(), Some(100), "{ran:?}");
}

#[test]
fn many_streams_share_a_connection() {
    let server = Server::start(&["--latency", "100ms"]);
    let flags = [
        "--http2",
        "--closed",
        "-c",
        "1",
        "--streams",
        "50",
        "-n",
        "200",
    ];
    let ran = load(&[&[server.url("http", "/").as_str()], &flags[..]].concat());
    assert_eq!(ran.summary("succeeded"), 200, "{ran:?}");
    // One handshake, and four rounds of fifty.
    assert_eq!(
        ran.json()["phases"]["connect"]["samples"].as_u64(),
        Some(1),
        "{ran:?}"
    );
    assert!(ran.latency_ms("p99") < 1000.0, "{ran:?}");
}

#[test]
fn a_mix_of_targets_is_sent_by_weight() {
    let server = Server::start(&[]);
    let (all, none) = (server.url("http", "/"), "1@http://127.0.0.1:9/");
    let ran = load(&[
        &format!("9@{all}"),
        none,
        "--no-check",
        "--rate",
        "500",
        "-n",
        "500",
    ]);
    let refused = ran.failed("connect_refused");
    assert!((25..90).contains(&refused), "{ran:?}");
    assert_eq!(ran.summary("succeeded") + refused, 500, "{ran:?}");
}
