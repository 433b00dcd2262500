//! Where a message ends, on both sides of the mesh: HTTP/1 says it by a length or a coding, the wire by the end of a
//! stream, so each must be made of the other.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::harness::{Mesh, Origin, connect, service};

#[test]
fn a_message_has_the_length_or_the_coding_that_its_receiver_needs_and_no_other() {
    let mesh = Mesh::start();
    let origin = Origin::http(mesh.address(), |request, out| {
        let is_head = request.line.starts_with("HEAD ");
        let (head, body) = match request.path() {
            "/streamed" => ("transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
            "/empty" => ("content-length: 0", ""),
            _ => ("content-length: 3", "abc"),
        };
        let body = if is_head { "" } else { body };
        write!(out, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")?;
        Ok(true)
    });
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let shop = mesh
        .sidecar("shop")
        .setting("workers: 1")
        .calls("orders:80")
        .start();
    shop.wait_endpoints("orders:80", 1);
    let mut count = 0;
    for version in ["1.1", "1.0"] {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"] {
            for path in ["/sized", "/streamed", "/empty"] {
                for (framing, body, length) in [
                    ("", "", None),
                    ("content-length: 0\r\n", "", Some(0)),
                    ("content-length: 3\r\n", "abc", Some(3)),
                    (
                        "transfer-encoding: chunked\r\n",
                        "3\r\nabc\r\n0\r\n\r\n",
                        Some(3),
                    ),
                ] {
                    // RFC 9112 section 6.1: no coding in HTTP/1.0.
                    if version == "1.0" && framing.starts_with("transfer") {
                        continue;
                    }
                    let request = format!(
                        "{method} {path} HTTP/{version}\r\nhost: a\r\nconnection: close\r\n{framing}\r\n{body}"
                    );
                    let mut stream = connect(shop.listener("orders:80")).unwrap();
                    stream.write_all(request.as_bytes()).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    count += 1;
                    let seen = origin.requests().pop().unwrap();
                    assert_eq!(origin.requests().len(), count, "{request:?}");
                    let got = seen.header("content-length");
                    let coded = seen.header("transfer-encoding").is_some();
                    assert_eq!(
                        seen.body.len(),
                        length.unwrap_or(0),
                        "{request:?}: {seen:?}"
                    );
                    assert!(got.is_none() || !coded, "{request:?}: {seen:?}");
                    // RFC 9110 section 8.6: a method that means content says that there is none.
                    if matches!(method, "POST" | "PUT" | "PATCH") {
                        assert!(got.is_some() || coded, "{request:?}: {seen:?}");
                    } else if length.is_none() {
                        assert!(got.is_none() && !coded, "{request:?}: {seen:?}");
                    }
                    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                    assert!(head.contains(" 200 OK"), "{request:?}: {answer:?}");
                    let head = head.to_ascii_lowercase();
                    let coded = head.contains("transfer-encoding");
                    assert!(!coded || version == "1.1", "{request:?}: {answer:?}");
                    let content = match (method, path) {
                        ("HEAD", _) | (_, "/empty") => "",
                        _ if coded => "3\r\nabc\r\n0\r\n\r\n",
                        _ => "abc",
                    };
                    assert_eq!(body, content, "{request:?}");
                    let said = match path {
                        "/sized" => "content-length: 3",
                        "/empty" => "content-length: 0",
                        _ => "",
                    };
                    assert!(head.contains(said), "{request:?}: {answer:?}");
                }
            }
        }
    }
}
