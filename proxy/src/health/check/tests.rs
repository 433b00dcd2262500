//! Tests of `proxy/src/health/check.rs`: applications of every kind, and what a check makes of them.

use std::future::pending;
use std::num::NonZeroU32;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Long enough for every answer that comes.
const PATIENT: Duration = Duration::from_secs(20);
/// For answers that do not come whole.
const SHORT: Duration = Duration::from_millis(100);

fn http_check() -> Question {
    Question::Http {
        path: "/healthz?full=1".into(),
        host: "orders.internal".into(),
    }
}

fn grpc_check() -> Question {
    Question::Grpc {
        service: "shop.Orders".into(),
    }
}

/// Asks an application that serves its one connection by `serve`.
async fn ask<F: Future<Output = io::Result<()>>>(
    question: Question,
    timeout: Duration,
    serve: impl FnOnce(TcpStream) -> F,
) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = LocalAddress::Tcp(listener.local_addr().unwrap());
    let settings = HealthCheck {
        question,
        healthy: NonZeroU32::MIN,
        ..HealthCheck::connects(address, timeout)
    };
    let application = async {
        let (stream, _) = listener.accept().await.unwrap();
        // The check may be over by then.
        let _ = serve(stream).await;
        pending::<()>().await;
    };
    tokio::select! {
        result = check(&settings) => result.map_err(|failed| failed.to_string()),
        () = application => panic!("the application ended before the check"),
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Asks one that answers with these bytes and closes.
async fn answered(answer: &[u8]) -> Result<(), String> {
    ask(http_check(), PATIENT, async |mut stream: TcpStream| {
        read_head(&mut stream).await?;
        stream.write_all(answer).await?;
        stream.shutdown().await
    })
    .await
}

#[tokio::test]
async fn an_application_that_answers_200_to_299_is_well_and_is_asked_plainly() {
    let mut asked = String::new();
    let result = ask(http_check(), PATIENT, async |mut stream: TcpStream| {
        asked = read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
    });
    assert_eq!(result.await, Ok(()));
    let lines: Vec<&str> = asked.split("\r\n").collect();
    assert_eq!(lines[0], "GET /healthz?full=1 HTTP/1.1");
    assert!(lines.contains(&"host: orders.internal") && lines.contains(&"connection: close"));
    assert!(!asked.contains("weft-service"), "{asked}");
}

#[tokio::test]
async fn other_answers_fail_with_what_they_were() {
    let redirect = answered(b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n").await;
    assert_eq!(
        redirect.unwrap_err(),
        "answered 302 Found: redirects are not followed, name the path that answers itself"
    );
    let busy = answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    assert_eq!(busy.unwrap_err(), "answered 503 Service Unavailable");
    for broken in [
        &b""[..],
        b"220 mail ready\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
    ] {
        let said = answered(broken).await.unwrap_err();
        assert!(
            said.starts_with("gave no answer that can be understood"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_many_bytes_is_cut_off_and_a_head_of_many_refused() {
    let endless = ask(http_check(), PATIENT, async |mut stream: TcpStream| {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        loop {
            stream.write_all(&[b'a'; 4096]).await?;
        }
    });
    assert_eq!(endless.await, Ok(()));
    let head = ask(http_check(), PATIENT, async |mut stream: TcpStream| {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\na: ").await?;
        loop {
            stream.write_all(&[b'a'; 4096]).await?;
        }
    });
    assert!(head.await.unwrap_err().contains("understood"));
}

#[tokio::test]
async fn an_application_that_stalls_anywhere_fails_when_its_time_is_up() {
    for stalls_after in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
    ] {
        let stalled = ask(http_check(), SHORT, async |mut stream: TcpStream| {
            read_head(&mut stream).await?;
            stream.write_all(stalls_after).await?;
            pending().await
        });
        let said = stalled.await.unwrap_err();
        assert_eq!(said, "gave no whole answer within 100ms");
    }
    // One byte at a time, faster than any timeout between two of them.
    let drips = ask(http_check(), SHORT, async |mut stream: TcpStream| {
        stream.set_nodelay(true)?;
        loop {
            stream.write_all(b"a").await?;
            tokio::task::yield_now().await;
        }
    });
    assert!(drips.await.is_err());
    let mute = ask(grpc_check(), SHORT, async |_: TcpStream| pending().await);
    assert_eq!(mute.await.unwrap_err(), "gave no whole answer within 100ms");
}

#[tokio::test]
async fn an_application_that_is_not_there_accepts_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = LocalAddress::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let settings = HealthCheck::connects(address, PATIENT);
    let said = check(&settings).await.unwrap_err().to_string();
    assert!(said.starts_with("accepts no connection: "), "{said}");
    let well = ask(Question::Tcp, PATIENT, async |_: TcpStream| Ok(()));
    assert_eq!(well.await, Ok(()));
}

/// An application of gRPC that answers with this message and status.
async fn serve_grpc(
    stream: TcpStream,
    message: &[u8],
    status: Option<&'static str>,
) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let head = http::Response::builder().header(CONTENT_TYPE, "application/grpc");
        let mut body = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        body.send_data(Bytes::copy_from_slice(message), status.is_none())
            .unwrap();
        if let Some(status) = status {
            let trailers = [(
                "grpc-status".parse().unwrap(),
                HeaderValue::from_static(status),
            )];
            body.send_trailers(trailers.into_iter().collect()).unwrap();
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_of_grpc_says_whether_it_serves() {
    let (up, down) = ([0, 0, 0, 0, 2, 8, 1], [0, 0, 0, 0, 2, 8, 2]);
    let long = vec![0; limits::HEALTH_GRPC_BYTES_MAX + 1];
    for (message, status, said) in [
        (&up[..], Some("0"), None),
        (&down, Some("0"), Some("does not serve (NotServing)")),
        (&[], Some("5"), Some("does not know the service")),
        (&[], Some("12"), Some("grpc.health.v1.Health")),
        (&up, None, Some("it has no grpc-status")),
        (&[1, 2], Some("0"), Some("no HealthCheckResponse")),
        (&long, Some("0"), Some("too long")),
    ] {
        let result = ask(grpc_check(), PATIENT, |stream| {
            serve_grpc(stream, message, status)
        });
        match (result.await, said) {
            (Ok(()), None) => {}
            (Err(error), Some(said)) => assert!(error.contains(said), "{error}"),
            (result, said) => panic!("{result:?}, not {said:?}"),
        }
    }
}

#[tokio::test]
async fn an_application_of_http1_fails_a_question_of_grpc() {
    let other = ask(grpc_check(), PATIENT, async |mut stream: TcpStream| {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await?;
        stream.shutdown().await?;
        // A close with bytes unread would be a reset, which may overtake the answer.
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .map(drop)
    });
    let said = other.await.unwrap_err();
    assert!(said.contains("understood"), "{said}");
}
