//! What must hold of all bytes that an application may answer with over HTTP/1.1. Their inputs are in
//! `proxy/fuzz/corpus/http1_answers`.

use std::path::Path;

use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use weft_fuzz::Target;

use super::*;
use crate::application::body::Moved;
use crate::application::interim;
use crate::http::reference_tests::{Front, Message, answer as read};
use crate::http::response::{self, ConnectionReuse};
use crate::http::upload::ReplayMemory;

/// Longer than the sidecar waits for anything here.
const LONG: Duration = Duration::from_secs(60);

/// What became of an answer.
#[derive(Debug, PartialEq)]
enum Heard {
    /// There is none that can be sent on.
    Refused,
    /// It ended too early.
    BrokenOff,
    Whole {
        status: u16,
        headers: HeaderMap,
        content: Vec<u8>,
        /// Whether another request may go over the connection.
        kept: bool,
    },
}

fn application(path: &Path, tasks: &Tasks) -> Arc<Application> {
    let timeouts = Timeouts {
        application_connect: LONG,
        application_idle: LONG,
        request_headers: LONG,
        stream_idle: LONG,
        tunnel_idle: LONG,
    };
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let room = Arc::new(ReplayMemory::new(0));
    Arc::new(Application::new(
        Reached::Here(address),
        &timeouts,
        Arc::default(),
        room,
        tasks.clone(),
    ))
}

/// Answers one request with these pieces, and closes when nothing happens any more.
async fn answer(listener: &UnixListener, pieces: &[&[u8]]) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    for piece in pieces {
        // It may have refused what came before.
        let _ = stream.write_all(piece).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(LONG * 10).await;
}

/// As the sidecar does it for a request, in the order of `relay` in `inbound/request.rs`.
async fn ask(application: Arc<Application>, method: &Method) -> Heard {
    let caller = Caller::default();
    let request = Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a");
    let moved = Arc::new(Moved::default());
    let body = RequestBody::none(Arc::clone(&moved));
    let mut request = request.body(body).unwrap();
    interim::listen(&mut request, None);
    let mut request = application.outgoing(request);
    let Ok(answered) = application.send(&caller, &mut request).await else {
        return Heard::Refused;
    };
    let (response, lease) = answered.into_parts();
    let (mut head, body) = response.into_parts();
    let Ok(afterwards) = response::check(&mut head, *method == Method::HEAD) else {
        return Heard::Refused;
    };
    assert!(head.headers.len() <= limits::FIELDS_MAX && crate::http::fields::fit(&head.headers));
    for name in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!head.headers.contains_key(name));
    }
    let Ok(content) = body.collect().await else {
        return Heard::BrokenOff;
    };
    let afterwards = afterwards.behind(content.trailers());
    if afterwards == ConnectionReuse::Lives && moved.leaves_no_doubt() {
        lease.give_back().await;
    } else {
        drop(lease);
    }
    Heard::Whole {
        status: head.status.as_u16(),
        headers: head.headers,
        content: content.to_bytes().to_vec(),
        kept: application.idle_connection(&caller, true).is_some(),
    }
}

async fn hear(listener: &UnixListener, path: &Path, method: &Method, pieces: &[&[u8]]) -> Heard {
    let tasks = Tasks::default();
    let application = application(path, &tasks);
    let heard = tokio::select! {
        heard = ask(application, method) => heard,
        () = answer(listener, pieces) => Heard::BrokenOff,
    };
    tasks.close();
    tasks.wait().await;
    heard
}

/// The answer at the front of these bytes, behind those that are interim, and how many bytes are behind it.
fn last_answer(input: &[u8], to_head: bool) -> Result<(Message, usize), &'static str> {
    let mut rest = input;
    loop {
        match read(rest, to_head) {
            Front::Clear(message, length) => {
                rest = &rest[length..];
                if !message.line[1].starts_with('1') || message.line[1] == "101" {
                    return Ok((message, rest.len()));
                }
            }
            Front::Doubtful(why) => return Err(why),
            Front::Cut => return Err("cut"),
        }
    }
}

fn judge(runtime: &Runtime, listener: &UnixListener, path: &Path, input: &[u8]) -> String {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (method, bytes) = input.split_at(end.unwrap_or(input.len()));
    let bytes = bytes.get(1..).unwrap_or_default();
    let Some(method) = Method::from_bytes(method)
        .ok()
        .filter(|one| *one != Method::CONNECT)
    else {
        return "no method".to_owned();
    };
    let hear = |pieces: &[&[u8]]| runtime.block_on(hear(listener, path, &method, pieces));
    let heard = hear(&[bytes]);
    // In two pieces it may be refused later, or be whole before what is wrong behind it has come.
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let in_two = hear(&[first, rest]);
    for heard in [&heard, &in_two] {
        check(heard, last_answer(bytes, method == Method::HEAD));
    }
    match heard {
        Heard::Refused => "refused".to_owned(),
        Heard::BrokenOff => "broken off".to_owned(),
        Heard::Whole {
            status,
            kept,
            content,
            ..
        } => {
            let has = if content.is_empty() {
                "no content"
            } else {
                "content"
            };
            let then = if kept { "kept" } else { "closed" };
            format!("{}xx, {has}, {then}", status / 100)
        }
    }
}

fn check(heard: &Heard, known: Result<(Message, usize), &'static str>) {
    let Heard::Whole {
        status,
        content,
        kept,
        ..
    } = heard
    else {
        return;
    };
    match known {
        Ok((message, behind)) => {
            assert_eq!(message.line[1], status.to_string());
            assert_eq!(message.body, *content);
            if *kept {
                assert!(message.delimited, "it ends with the connection");
                assert_eq!(behind, 0, "something is behind it");
                assert_eq!(message.line[0], "HTTP/1.1");
            }
        }
        Err("cut") => panic!("it is whole without its end"),
        Err(why) => assert!(
            !kept,
            "the connection is kept after a doubtful answer: {why}"
        ),
    }
}

#[test]
fn an_answer_is_the_same_to_every_reader_or_the_last_of_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("application");
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(&path).unwrap() });
    let words = &[
        "\r\n",
        "\n",
        "\r\n\r\n",
        "0\r\n\r\n",
        "5\r\nabcde\r\n",
        "\r\ncontent-length: 5",
        "\r\ntransfer-encoding: chunked",
        "\r\ncontent-length: 0",
        "\r\nconnection: close",
        "\r\nconnection: keep-alive",
        "HTTP/1.0",
        "HTTP/1.1",
        " 200 OK",
        " 204 No Content",
        " 304 Not Modified",
        " 100 Continue",
        " 103 Early Hints",
        " 101 Switching",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        "HEAD\n",
        "POST\n",
        ";x=y",
        "ffffffffffffffff\r\n",
        "+5",
        "0x5",
        "\r\ntransfer-encoding: gzip, chunked",
        "\0",
        "\t",
        " :",
        "\r\ntrailer: x",
        "x: y\r\n",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "http1_answers").words(words);
    let target = target.longest(2000).rounds(2000);
    let seen = target.run(|input| judge(&runtime, &listener, &path, input));
    seen.expect("2xx, content, kept")
        .expect("2xx, content, closed")
        .expect("refused")
        .expect("broken off");
}
