//! Applications and clients that write raw bytes, including those that a correct library would never send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::http_ends::{call, get};
use crate::sidecars::{Applications, Mesh, To, listener};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A mesh in front of one application for everything; the test serves its listener.
async fn mesh() -> (Mesh, TcpListener) {
    let (origin, address) = listener().await;
    let mesh = Mesh::start_in_memory(Applications {
        http: address,
        grpc: address,
        tcp: address,
    });
    (mesh.await, origin)
}

/// Runs `serve` for each connection that sends bytes (health probes do not) until the set is dropped.
fn serve<F>(
    tasks: &mut JoinSet<()>,
    origin: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = origin.accept().await {
            if stream.peek(&mut [0]).await.is_ok_and(|count| count > 0) {
                connections.spawn(serve(stream));
            }
        }
    });
}

/// Reads up to and with the next empty line; `None` at the end of the stream.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(seen).ok()
}

async fn reads(stream: &mut TcpStream, expected: &str) {
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_a_response_reach_no_caller() {
    for stray in [
        "stray",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ] {
        let (mesh, origin) = mesh().await;
        let mut tasks = JoinSet::new();
        serve(&mut tasks, origin, move |mut stream| async move {
            let mut answer = format!("{OK}{stray}");
            while head(&mut stream).await.is_some() {
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nreused".clone_into(&mut answer);
            }
        });
        for _ in 0..10 {
            let answer = call(mesh.listener(To::Orders), get("orders", "/")).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.body[..]),
                (200, &b"ok"[..])
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_head_beyond_the_limit_is_a_502() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    serve(&mut tasks, origin, |mut stream| async move {
        head(&mut stream).await;
        let long = "a".repeat(1024 * 1024);
        let answer = format!("HTTP/1.1 200 OK\r\nx-long: {long}\r\ncontent-length: 0\r\n\r\n");
        // No client reads it to its end.
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    let answer = call(mesh.listener(To::Orders), get("orders", "/")).await;
    assert_eq!(answer.status, 502);
    let why = answer.headers["proxy-status"].to_str().unwrap();
    assert!(why.contains("http_response_header_section_size"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_passes_before_the_next_one_is_there() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    let (seen, next) = mpsc::channel::<()>(1);
    let next = Arc::new(tokio::sync::Mutex::new(next));
    serve(&mut tasks, origin, move |mut stream| {
        let next = Arc::clone(&next);
        async move {
            head(&mut stream).await;
            let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(begin.as_bytes()).await.unwrap();
            for event in ["one", "two"] {
                let chunk = format!("b\r\ndata: {event}\n\n\r\n");
                stream.write_all(chunk.as_bytes()).await.unwrap();
                next.lock().await.recv().await;
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    });
    let stream = TcpStream::connect(mesh.listener(To::Orders)).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    let response = sender.send_request(get("orders", "/events")).await.unwrap();
    let mut body = response.into_body();
    for event in ["data: one\n\n", "data: two\n\n"] {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
        seen.send(()).await.unwrap();
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_is_told_to_go_on_when_the_application_says_so() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    serve(&mut tasks, origin, |mut stream| async move {
        let asked = head(&mut stream).await.unwrap();
        assert!(asked.contains("expect: 100-continue"), "{asked}");
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        reads(&mut stream, "body").await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let mut client = TcpStream::connect(mesh.listener(To::Orders)).await.unwrap();
    let request = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    reads(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_with_bodies_are_answered_in_order() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    // Answers with the request's own path, and later the shorter the path is.
    serve(&mut tasks, origin, |mut stream| async move {
        while let Some(asked) = head(&mut stream).await {
            if asked.contains("content-length: 4") {
                reads(&mut stream, "body").await;
            }
            let path = asked.split(' ').nth(1).unwrap();
            let length = path.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let mut client = TcpStream::connect(mesh.listener(To::Orders)).await.unwrap();
    let pipelined = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody\
        GET /b HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
        GET /d HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(pipelined.as_bytes()).await.unwrap();
    let mut seen = String::new();
    client.read_to_string(&mut seen).await.unwrap();
    let bodies: Vec<&str> = seen
        .match_indices("\r\n\r\n")
        .map(|(at, end)| &seen[at + end.len()..][..2])
        .collect();
    assert_eq!(bodies, ["/a", "/b", "/c", "/d"], "{seen}");
}

/// An application that resets every connection at its second request; counts them.
fn serve_once_per_connection(tasks: &mut JoinSet<()>, origin: TcpListener) -> Arc<AtomicUsize> {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    serve(tasks, origin, move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let asked = head(&mut stream).await.unwrap();
            assert!(!asked.contains("transfer-encoding"), "{asked}");
            stream.write_all(OK.as_bytes()).await.unwrap();
            if head(&mut stream).await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        }
    });
    resets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_a_reused_connection_loses_goes_out_again() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    let resets = serve_once_per_connection(&mut tasks, origin);
    // A connection may not be back in the pool yet when the next request comes.
    while resets.load(Ordering::Relaxed) < 3 {
        let answer = call(mesh.listener(To::Orders), get("orders", "/")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &b"ok"[..])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_a_reused_connection_loses_is_a_502_and_never_sent_twice() {
    let (mesh, origin) = mesh().await;
    let mut tasks = JoinSet::new();
    let resets = serve_once_per_connection(&mut tasks, origin);
    for _ in 0..200 {
        let before = resets.load(Ordering::Relaxed);
        let mut request = get("orders", "/");
        *request.method_mut() = ::http::Method::POST;
        let answer = call(mesh.listener(To::Orders), request).await;
        let lost = resets.load(Ordering::Relaxed) - before;
        assert_eq!(
            (lost, answer.status.as_u16()),
            if lost == 0 { (0, 200) } else { (1, 502) }
        );
        if lost == 1 {
            return;
        }
    }
    panic!("no connection was ever reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_of_an_unknown_service_is_reset() {
    let (mesh, _origin) = mesh().await;
    let mut client = TcpStream::connect(mesh.listener(To::Nowhere))
        .await
        .unwrap();
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let answer = call(mesh.listener(To::Nowhere), get("x", "/")).await;
    assert_eq!(answer.status, 503);
}
