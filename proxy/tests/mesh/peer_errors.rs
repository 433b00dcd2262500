//! Faults of a peer, by kind, and what the caller's application gets. The peer is this test, over the wire in
//! memory: no real sidecar breaks the rules on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weft_config::table::Traffic;
use weft_transport::wire::memory;
use weft_transport::wire::{
    ConnectionError, Listener, Reason, Responder, ServerConnection, ServerRequest,
};

use crate::fabric::Fabric;
use crate::http_ends::{Answer, call, get};

/// How a peer handles the requests other than the bystander's.
type Deed = fn(ServerRequest, &mut Scene<'_>);

/// The place and the moment at which a peer acts.
struct Scene<'a> {
    /// How many such requests came before, to any peer.
    before: usize,
    connection: &'a ServerConnection,
    /// Cases that take time.
    work: &'a mut JoinSet<()>,
    /// Told by the test.
    go: Arc<Notify>,
}

/// A sidecar whose application calls `orders`, and peers that are played.
struct Stage {
    fabric: Fabric,
    caller: usize,
    /// Requests that the peers saw, without the bystander's.
    seen: Arc<AtomicUsize>,
    go: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Stage {
    async fn new(peers: usize, deed: Deed) -> Self {
        let mut fabric = Fabric::new();
        let caller = fabric.add("frontend", &[], &["orders"]).await;
        let seen = Arc::<AtomicUsize>::default();
        let go = Arc::<Notify>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..peers {
            let listener = fabric.peer("orders", "orders");
            tasks.spawn(play(listener, Arc::clone(&seen), Arc::clone(&go), deed));
        }
        fabric.publish(|_| Traffic::default()).await;
        Self {
            fabric,
            caller,
            seen,
            go,
            _tasks: tasks,
        }
    }

    /// A request that must not be executed twice.
    async fn post(&self) -> Answer {
        let request = Request::post("/").header("host", "orders");
        let request = request.body(Full::from("once")).unwrap();
        call(self.fabric.listener(self.caller, 0), request).await
    }

    /// Another request over the same connection, before and after the deed.
    async fn bystander_is_served(&self) {
        let answer = call(self.fabric.listener(self.caller, 0), get("orders", "/calm")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

async fn play(listener: Listener, seen: Arc<AtomicUsize>, go: Arc<Notify>, deed: Deed) {
    let mut connections = JoinSet::new();
    while let Some(Ok(incoming)) = listener.accept().await {
        let (seen, go) = (Arc::clone(&seen), Arc::clone(&go));
        connections.spawn(async move {
            let mut connection = incoming.handshake().await.unwrap().http;
            let mut work = JoinSet::new();
            while let Ok(Some(request)) = connection.accept().await {
                if request.head.uri.path() == "/calm" {
                    work.spawn(echo(request));
                } else {
                    let mut scene = Scene {
                        before: seen.fetch_add(1, Ordering::Relaxed),
                        connection: &connection,
                        work: &mut work,
                        go: Arc::clone(&go),
                    };
                    deed(request, &mut scene);
                }
            }
        });
    }
}

/// Answers with what it was sent.
async fn echo(request: ServerRequest) {
    let body = request.recv.collect().await.unwrap().to_bytes();
    let (head, ()) = Response::new(()).into_parts();
    let _ = request.respond.head_with(&head, body, true).await;
}

fn as_memory(responder: Responder) -> memory::Responder {
    match responder {
        Responder::Memory(responder) => responder,
        Responder::Http3(_) => panic!("this one is in memory"),
    }
}

fn lose(connection: &ServerConnection, error: &ConnectionError) {
    match connection {
        ServerConnection::Memory(connection) => connection.lose(error),
        ServerConnection::Http3(_) => panic!("this one is in memory"),
    }
}

/// The text of an answer of the mesh.
fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_peer_did_not_process_goes_to_another_one_whatever_its_method() {
    let stage = Stage::new(2, |request, scene| {
        if scene.before == 0 {
            request.respond.reset(Reason::Unprocessed);
        } else {
            scene.work.spawn(echo(request));
        }
    });
    let stage = stage.await;
    stage.bystander_is_served().await;
    let answer = stage.post().await;
    assert_eq!(
        (answer.status, text(&answer)),
        (StatusCode::OK, "once".into())
    );
    assert_eq!(stage.seen(), 2);
    stage.bystander_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_a_peer_resets_is_a_502_with_the_reason_and_is_not_sent_again() {
    let stage = Stage::new(2, |request, _| request.respond.reset(Reason::Internal)).await;
    stage.bystander_is_served().await;
    let answer = stage.post().await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(
        text(&answer).contains("internal error"),
        "{}",
        text(&answer)
    );
    assert_eq!(stage.seen(), 1);
    stage.bystander_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_too_much_to_do_makes_a_503() {
    let stage = Stage::new(1, |request, _| request.respond.reset(Reason::Busy)).await;
    let answer = stage.post().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&answer).contains("too much load"), "{}", text(&answer));
    assert_eq!(stage.seen(), 1);
    stage.bystander_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_answer_is_a_502_that_says_what_is_wrong_with_it() {
    let stage = Stage::new(2, |request, _| {
        as_memory(request.respond).malformed("two statuses");
    });
    let stage = stage.await;
    let answer = stage.post().await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(text(&answer).contains("two statuses"), "{}", text(&answer));
    assert_eq!(stage.seen(), 1);
    stage.bystander_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lost_connection_the_request_is_lost_and_the_next_one_finds_a_new_connection() {
    let restarted: Deed = |_, scene| lose(scene.connection, &ConnectionError::Reset);
    let silent: Deed = |_, scene| lose(scene.connection, &ConnectionError::TimedOut);
    for (deed, expected) in [
        (restarted, StatusCode::BAD_GATEWAY),
        (silent, StatusCode::GATEWAY_TIMEOUT),
    ] {
        let stage = Stage::new(1, deed).await;
        stage.bystander_is_served().await;
        let answer = stage.post().await;
        assert_eq!(answer.status, expected, "{}", text(&answer));
        assert_eq!(stage.seen(), 1);
        stage.bystander_is_served().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_a_response_never_looks_like_its_end() {
    let stage = Stage::new(1, |request, scene| {
        let go = Arc::clone(&scene.go);
        scene.work.spawn(async move {
            let (head, ()) = Response::new(()).into_parts();
            let half = Bytes::from_static(b"half");
            let send = request.respond.head_with(&head, half, false).await;
            let mut send = send.unwrap();
            // Bytes that were unread before a reset are lost with it, the head as well.
            go.notified().await;
            send.reset(Reason::Internal);
        });
    });
    let stage = stage.await;
    let stream = TcpStream::connect(stage.fabric.listener(stage.caller, 0));
    let stream = TokioIo::new(stream.await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let response = sender.send_request(get("orders", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let half = body.frame().await.unwrap().unwrap();
    assert_eq!(half.into_data().unwrap(), "half");
    stage.go.notify_one();
    assert!(body.collect().await.is_err());
    stage.bystander_is_served().await;
}
