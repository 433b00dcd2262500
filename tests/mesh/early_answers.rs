//! Applications that answer before they have read the request, and close: the caller gets the answer.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::harness::{Http2, Mesh, Origin, Sidecar, Streams, connect, get, read_response, service};

/// Of a body: less than one buffer, more than all buffers, much more.
const SIZES: [usize; 3] = [10 << 10, 100 << 10, 10 << 20];

const REFUSAL: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large";

struct Between {
    _mesh: Mesh,
    _served: Sidecar,
    caller: Sidecar,
}

fn between(mesh: Mesh, application: SocketAddr, protocol: &str) -> Between {
    mesh.apply(&service("echo", 80, protocol));
    let served = mesh.sidecar("echo").serves("echo:80", application).start();
    let caller = mesh.sidecar("shop").calls("echo:80").start();
    caller.wait_endpoints("echo:80", 1);
    Between {
        _mesh: mesh,
        _served: served,
        caller,
    }
}

/// Sends a request with a body of that size, and returns the status, however sending ends.
fn upload(at: SocketAddr, size: usize) -> io::Result<(u16, String)> {
    let mut stream = connect(at)?;
    let mut writer = stream.try_clone()?;
    let sending = thread::spawn(move || {
        let head = format!("POST /upload HTTP/1.1\r\nhost: echo\r\ncontent-length: {size}\r\n\r\n");
        let _ = writer.write_all(head.as_bytes());
        let piece = vec![b'x'; 16 << 10];
        let mut left = size;
        while left > 0 {
            let part = left.min(piece.len());
            if writer.write_all(&piece[..part]).is_err() {
                return;
            }
            left -= part;
        }
    });
    let response = read_response(&mut BufReader::new(&mut stream), false);
    let _ = stream.shutdown(Shutdown::Both);
    sending.join().unwrap();
    let response = response?;
    Ok((response.status, response.text()))
}

/// All of these uploads of each size get the early answer.
fn expect_refusals(at: SocketAddr, each: usize) {
    for size in SIZES {
        let (mut good, mut bad) = (0, Vec::new());
        for _ in 0..each {
            match upload(at, size) {
                Ok((413, text)) if text == "too large" => good += 1,
                other => bad.push(other),
            }
        }
        assert_eq!(good, each, "{size} bytes: {bad:?}");
    }
}

/// Serves `/` normally, and refuses uploads by `refuse`, whose connection then closes with unread bytes.
fn refusing(
    mesh: &Mesh,
    refuse: impl Fn(&mut std::net::TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> Origin {
    Origin::raw(mesh.address(), move |tap| {
        let mut stream = tap.stream;
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let end = read.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    some => read.extend_from_slice(&buffer[..some]),
                }
                continue;
            };
            if read.starts_with(b"POST") {
                return refuse(&mut stream);
            }
            read.drain(..end + 4);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell")?;
        }
    })
}

#[test]
fn an_early_answer_of_an_application_that_closes_reaches_every_caller() {
    let mesh = Mesh::start();
    let origin = refusing(&mesh, |stream| stream.write_all(REFUSAL));
    let between = between(mesh, origin.address, "http");
    let at = between.caller.listener("echo:80");
    expect_refusals(at, 100);
    // The endpoint is still in rotation.
    assert_eq!(get(at, "/").unwrap().status, 200);
}

#[test]
fn an_early_answer_of_an_application_that_resets_its_connection_reaches_every_caller() {
    let mesh = Mesh::start();
    let origin = refusing(&mesh, |stream| {
        stream.write_all(REFUSAL)?;
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
    });
    let between = between(mesh, origin.address, "http");
    let at = between.caller.listener("echo:80");
    expect_refusals(at, 100);
    assert_eq!(get(at, "/").unwrap().status, 200);
}

#[test]
fn an_early_answer_of_an_http2_application_reaches_every_caller() {
    let mesh = Mesh::start();
    let application = Http2::start(mesh.address(), 100, |request, mut respond| {
        Box::pin(async move {
            let upload = request.uri().path() == "/upload";
            let status = if upload { 413 } else { 200 };
            let head = Response::builder().status(status).body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(b"too large"), true)
                .unwrap();
            // RFC 9113 section 8.1: the answer is complete, and the rest of the request is not wanted. h2
            // reports that by RST_STREAM with NO_ERROR.
            drop(request);
        })
    });
    let between = between(mesh, application.address, "grpc");
    let at = between.caller.listener("echo:80");
    expect_refusals(at, 100);
    assert_eq!(get(at, "/").unwrap().status, 200);
}

#[test]
fn a_client_that_ends_its_stream_after_the_answer_to_all_of_its_content_is_not_reset() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "echo");
    let between = between(mesh, origin.address, "http");
    let client = Streams::open(between.caller.listener("echo:80"), 1);
    for _ in 0..2 {
        let patience = Duration::from_millis(500);
        assert_eq!(client.without_end(patience), (200, false));
    }
}
