//! The contract of the wire: each fact holds over HTTP/3, with real endpoints on loopback, and in memory.

mod memory;

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::memory::Network;
use super::*;
use crate::endpoint::{self, Epoch, MeshSettings, ResetKey, Workers};
use crate::testing::{Authority, FRONTEND, ORDERS, start};
use crate::tuning::Tuning;

/// Generous: it bounds a run that hangs, and never expires in a good one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of one connection, with the values that must outlive them.
struct Ends {
    client: ClientConnection,
    server: ServerConnection,
    tasks: JoinSet<()>,
    _listener: Listener,
    _dialler: Dialler,
}

async fn over_http3() -> Ends {
    let settings = MeshSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Workers::new(1).unwrap(),
        tuning: Tuning::default(),
        epoch: Epoch(1),
        reset_key: ResetKey::new([7; ResetKey::LENGTH]),
    };
    let socket = || endpoint::bind(&settings).unwrap().remove(0);
    let serving = socket();
    let address = serving.local_address().unwrap();
    let (listener, _) = start(serving, &Authority::shared().credentials(ORDERS));
    let (_, dialler) = start(socket(), &Authority::shared().credentials(FRONTEND));
    meet(listener.into(), dialler.into(), address).await
}

async fn in_memory() -> Ends {
    let network = Network::default();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let listener = network.listen(address, &ORDERS.parse().unwrap());
    let dialler = network.dialler(&FRONTEND.parse().unwrap());
    meet(listener, dialler, address).await
}

async fn meet(listener: Listener, dialler: Dialler, address: SocketAddr) -> Ends {
    let orders = ORDERS.parse().unwrap();
    let accepting = async {
        let incoming = listener.accept().await.unwrap().unwrap();
        incoming.handshake().await.unwrap()
    };
    let (dialled, accepted) = tokio::join!(dialler.dial(address, &orders), accepting);
    let (client, driver) = dialled.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        driver.await;
    });
    Ends {
        client,
        server: accepted.http,
        tasks,
        _listener: listener,
        _dialler: dialler,
    }
}

impl Ends {
    /// Answers each request with `handler`, until the connection ends.
    fn serve<F>(self, handler: impl Fn(ServerRequest) -> F + Send + 'static) -> Serving
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self {
            client,
            mut server,
            mut tasks,
            ..
        } = self;
        tasks.spawn(async move {
            let mut handlers = JoinSet::new();
            while let Ok(Some(request)) = server.accept().await {
                handlers.spawn(handler(request));
            }
            while let Some(result) = handlers.join_next().await {
                result.unwrap();
            }
        });
        Serving {
            client,
            _tasks: tasks,
            _ends: (self._listener, self._dialler),
        }
    }
}

struct Serving {
    client: ClientConnection,
    _tasks: JoinSet<()>,
    _ends: (Listener, Dialler),
}

/// Each of these facts is a test over each of these wires. A wire is named by the function that makes its
/// [`Ends`].
macro_rules! contract {
    (over $($wire:ident)+: $facts:tt) => {
        $(contract!(@ $wire $facts);)+
    };
    (@ $wire:ident [$($fact:ident,)+]) => {
        mod $wire {
            $(#[tokio::test]
            async fn $fact() {
                let run = async { super::$fact(super::$wire().await).await };
                tokio::time::timeout(super::PATIENCE, run).await.unwrap();
            })+
        }
    };
}

contract! {
    over over_http3 in_memory: [
        a_message_arrives_whole_both_ways,
        each_side_knows_the_identity_of_the_other,
        an_end_behind_the_declared_length_is_seen_with_the_last_byte,
        a_refused_request_is_unprocessed_and_the_connection_lives,
        a_peer_with_too_much_to_do_is_busy_and_says_not_that_nothing_was_processed,
        a_reset_carries_its_reason_and_stays,
        a_refusal_after_an_interim_response_breaks_the_rules,
        a_dropped_responder_and_a_dropped_body_are_cancelled_and_never_a_clean_end,
        a_reader_that_stops_tells_its_sender_why,
        what_cannot_be_said_or_breaks_its_length_is_not_sent,
        a_tunnel_carries_bytes_and_each_side_ends_alone,
        a_shutdown_lets_accepted_requests_finish_and_refuses_later_ones,
        a_connection_that_is_closed_for_a_reason_is_lost_for_that_reason,
        a_client_that_closes_well_ends_the_server_in_good_order,
        leave_that_is_not_used_never_was_a_request,
    ]
}

async fn a_message_arrives_whole_both_ways(ends: Ends) {
    let serving = ends.serve(|mut request| async move {
        assert_eq!(request.head.method, "POST");
        assert_eq!(request.head.uri, "https://orders.shop/a?b=c");
        assert_eq!(request.head.headers["x-one"], "1");
        let (data, trailers) = read(&mut request.recv).await.unwrap();
        request.respond.informational(&answer(103)).await.unwrap();
        let mut send = request.respond.head(&answer(200), false).await.unwrap();
        for piece in data.chunks(70_000) {
            send.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        send.send_trailers(&trailers.unwrap()).await.unwrap();
    });
    let mut head = ask("POST", "https://orders.shop/a?b=c");
    head.headers.insert("x-one", HeaderValue::from_static("1"));
    let (mut send, mut response) = serving.client.open(&head, false).await.unwrap();
    let sent: Vec<u8> = (0..500_000u32).map(|n| (n % 251) as u8).collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let upload = async {
        send.send_data(Bytes::from(sent.clone())).await.unwrap();
        send.send_trailers(&trailers).await.unwrap();
    };
    let download = async {
        assert_eq!(response.head().await.unwrap().status(), 103);
        assert_eq!(response.head().await.unwrap().status(), 200);
        read(&mut response.into_body()).await.unwrap()
    };
    let ((), (data, echoed)) = tokio::join!(upload, download);
    assert!(data == sent);
    assert_eq!(echoed, Some(trailers));
}

async fn each_side_knows_the_identity_of_the_other(ends: Ends) {
    assert_eq!(ends.client.peer().id().as_str(), ORDERS);
    assert_eq!(ends.server.peer().id().as_str(), FRONTEND);
}

async fn an_end_behind_the_declared_length_is_seen_with_the_last_byte(ends: Ends) {
    let serving = ends.serve(|request| async move {
        let mut head = answer(200);
        head.headers.insert("content-length", HeaderValue::from(3));
        let body = Bytes::from_static(b"all");
        request.respond.head_with(&head, body, true).await.unwrap();
    });
    let (_send, mut response) = serving.client.open(&get(), true).await.unwrap();
    response.head().await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert!(!poll_fn(|cx| body.poll_end(cx)).await);
    let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "all");
    assert!(body.is_end_stream());
    assert!(poll_fn(|cx| body.poll_end(cx)).await);
}

async fn a_refused_request_is_unprocessed_and_the_connection_lives(ends: Ends) {
    let serving = ends.serve(|request| async move {
        request.respond.reset(Reason::Unprocessed);
    });
    for _ in 0..2 {
        let (_send, mut response) = serving.client.open(&get(), true).await.unwrap();
        let error = response.head().await.unwrap_err();
        assert_eq!(error, ReceiveError::Unprocessed(Unprocessed::Refused));
        assert!(error.is_unprocessed());
    }
    assert!(serving.client.is_usable());
}

async fn a_peer_with_too_much_to_do_is_busy_and_says_not_that_nothing_was_processed(ends: Ends) {
    let serving = ends.serve(|request| async move { request.respond.reset(Reason::Busy) });
    let (_send, mut response) = serving.client.open(&get(), true).await.unwrap();
    let error = response.head().await.unwrap_err();
    assert_eq!(error, ReceiveError::Busy);
    assert!(!error.is_unprocessed());
}

async fn a_reset_carries_its_reason_and_stays(ends: Ends) {
    let serving = ends.serve(|request| async move {
        let mut send = request.respond.head(&answer(200), false).await.unwrap();
        send.send_data(Bytes::from_static(b"half")).await.unwrap();
        // Bytes sent before a reset may be lost, so it waits until they were read.
        let mut recv = request.recv;
        read_tunnel(&mut recv).await.unwrap();
        send.reset(Reason::TunnelBroke);
    });
    let connect = ask("CONNECT", "orders.shop:5432");
    let (mut send, mut response) = serving.client.open(&connect, false).await.unwrap();
    assert_eq!(response.head().await.unwrap().status(), 200);
    let mut body = response.into_body();
    let mut chunks = Vec::new();
    let read = poll_fn(|cx| body.poll_chunks(cx, &mut chunks)).await;
    assert_eq!((read, chunks.concat()), (Ok(1), b"half".to_vec()));
    send.finish().await.unwrap();
    for _ in 0..2 {
        let error = read_tunnel(&mut body).await.unwrap_err();
        assert_eq!(error, ReceiveError::Reset(Reason::TunnelBroke));
    }
}

async fn a_refusal_after_an_interim_response_breaks_the_rules(ends: Ends) {
    let serving = ends.serve(|mut request| async move {
        request.respond.informational(&answer(103)).await.unwrap();
        // A reset may overtake earlier bytes: the caller says when it has seen those.
        let _ = read(&mut request.recv).await;
        request.respond.reset(Reason::Unprocessed);
    });
    let head = ask("POST", "https://orders.shop/");
    let (mut send, mut response) = serving.client.open(&head, false).await.unwrap();
    assert_eq!(response.head().await.unwrap().status(), 103);
    send.finish().await.unwrap();
    let error = response.head().await.unwrap_err();
    assert!(matches!(error, ReceiveError::Malformed(_)), "{error}");
    assert!(!error.is_unprocessed());
}

async fn a_dropped_responder_and_a_dropped_body_are_cancelled_and_never_a_clean_end(ends: Ends) {
    let serving = ends.serve(|mut request| async move {
        let error = read(&mut request.recv).await.unwrap_err();
        assert_eq!(error, ReceiveError::Reset(Reason::Cancelled));
    });
    let head = ask("POST", "https://orders.shop/");
    let (mut send, mut response) = serving.client.open(&head, false).await.unwrap();
    send.send_data(Bytes::from_static(b"half")).await.unwrap();
    drop(send);
    let error = response.head().await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::Cancelled));
}

async fn a_reader_that_stops_tells_its_sender_why(ends: Ends) {
    let serving = ends.serve(|request| async move {
        let gone = request.respond.stopped();
        request.recv.stop(Reason::NoError);
        assert_eq!(gone.await, Some(Reason::Cancelled));
    });
    let head = ask("POST", "https://orders.shop/");
    let (mut send, response) = serving.client.open(&head, false).await.unwrap();
    assert_eq!(send.stopped().await, Some(Reason::NoError));
    let error = send.send_data(Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error, SendError::Stopped(Reason::NoError));
    drop(response);
    drop(send);
}

async fn what_cannot_be_said_or_breaks_its_length_is_not_sent(mut ends: Ends) {
    let mut head = get();
    head.headers
        .insert("connection", HeaderValue::from_static("close"));
    let refused = ends.client.open(&head, true).await.err();
    let expected = HeadError::ConnectionSpecific;
    assert_eq!(refused, Some(OpenError::InvalidHead(expected)));

    let mut head = ask("POST", "https://orders.shop/");
    head.headers.insert("content-length", HeaderValue::from(3));
    let (mut send, _response) = ends.client.open(&head, false).await.unwrap();
    let mut request = ends.server.accept().await.unwrap().unwrap();
    let error = send.send_data(Bytes::from_static(b"four")).await;
    assert!(matches!(error, Err(SendError::Misuse(_))));
    send.send_data(Bytes::from_static(b"2b")).await.unwrap();
    assert!(matches!(send.finish().await, Err(SendError::Misuse(_))));
    drop(send);
    let error = read(&mut request.recv).await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::Cancelled));
    // A final response is not an interim one, and the other way round.
    let mut respond = request.respond;
    let error = respond.informational(&answer(200)).await.unwrap_err();
    assert_eq!(error, SendError::InvalidHead(HeadError::InvalidStatus));
    let error = respond.head(&answer(103), true).await.err();
    assert_eq!(error, Some(HeadError::InvalidStatus.into()));
}

async fn a_tunnel_carries_bytes_and_each_side_ends_alone(ends: Ends) {
    let serving = ends.serve(|mut request| async move {
        assert_eq!(request.head.uri.to_string(), "orders.shop:5432");
        let mut send = request.respond.head(&answer(200), false).await.unwrap();
        let data = read_tunnel(&mut request.recv).await.unwrap();
        send.send_data(Bytes::from(data)).await.unwrap();
        send.finish().await.unwrap();
        send.finish().await.unwrap();
    });
    let connect = ask("CONNECT", "orders.shop:5432");
    let (mut send, mut response) = serving.client.open(&connect, false).await.unwrap();
    assert_eq!(response.head().await.unwrap().status(), 200);
    send.send_data(Bytes::from_static(b"ping")).await.unwrap();
    send.finish().await.unwrap();
    let mut body = response.into_body();
    assert_eq!(read_tunnel(&mut body).await.unwrap(), b"ping");
}

async fn a_shutdown_lets_accepted_requests_finish_and_refuses_later_ones(mut ends: Ends) {
    let (_first, mut response) = ends.client.open(&get(), true).await.unwrap();
    let accepted = ends.server.accept().await.unwrap().unwrap();
    ends.server.shutdown();
    let client = ends.client;
    let mut server = ends.server;
    ends.tasks.spawn(async move {
        assert!(server.accept().await.unwrap().is_none());
    });
    // It may have been opened before the client learns of the shutdown.
    let late = match client.open(&get(), true).await {
        Ok((_late, mut response)) => {
            let error = response.head().await.unwrap_err();
            assert!(error.is_unprocessed(), "{error}");
            client.closed_to_new().await
        }
        Err(error) => error,
    };
    assert_eq!(late, OpenError::Draining);
    assert!(late.is_unprocessed());
    accepted.respond.head(&answer(204), true).await.unwrap();
    assert_eq!(response.head().await.unwrap().status(), 204);
    drop((response, accepted.recv));
    while let Some(served) = ends.tasks.join_next().await {
        served.unwrap();
    }
}

impl ClientConnection {
    /// Why no more requests are taken, once that is so.
    async fn closed_to_new(&self) -> OpenError {
        while self.is_usable() {
            tokio::task::yield_now().await;
        }
        self.open(&get(), true).await.err().unwrap()
    }
}

async fn a_connection_that_is_closed_for_a_reason_is_lost_for_that_reason(mut ends: Ends) {
    let (_send, mut response) = ends.client.open(&get(), true).await.unwrap();
    let request = ends.server.accept().await.unwrap().unwrap();
    ends.server.close(Reason::Internal);
    let lost = ConnectionError::ClosedByPeer(Reason::Internal);
    let error = response.head().await.unwrap_err();
    assert_eq!(error, ReceiveError::ConnectionLost(lost.clone()));
    assert_eq!(ends.client.closed().await, lost);
    assert!(!ends.client.is_usable());
    let error = ends.client.open(&get(), true).await.err().unwrap();
    assert_eq!(error, OpenError::ConnectionLost(lost));
    assert!(error.is_unprocessed());
    let error = request.respond.head(&answer(200), true).await.err();
    let here = ConnectionError::ClosedHere;
    assert_eq!(error, Some(SendError::ConnectionLost(here)));
}

async fn a_client_that_closes_well_ends_the_server_in_good_order(mut ends: Ends) {
    ends.client.close(Reason::NoError, "over");
    assert!(ends.server.accept().await.unwrap().is_none());
    assert_eq!(ends.client.closed().await, ConnectionError::ClosedHere);
}

async fn leave_that_is_not_used_never_was_a_request(mut ends: Ends) {
    drop(ends.client.reserve().await.unwrap());
    let (_send, _response) = ends.client.open(&get(), true).await.unwrap();
    let request = ends.server.accept().await.unwrap().unwrap();
    assert_eq!(request.head.method, "GET");
    let more = timeout(Duration::from_millis(20), ends.server.accept()).await;
    assert!(more.is_err(), "nothing else came");
}

fn ask(method: &str, uri: &str) -> http::request::Parts {
    let request = Request::builder().method(method).uri(uri).body(());
    request.unwrap().into_parts().0
}

fn get() -> http::request::Parts {
    ask("GET", "https://orders.shop/")
}

fn answer(status: u16) -> http::response::Parts {
    let response = Response::builder().status(status).body(());
    response.unwrap().into_parts().0
}

/// Reads a body to its end.
async fn read(body: &mut RecvHalf) -> Result<(Vec<u8>, Option<HeaderMap>), ReceiveError> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// Reads a tunnel to its end.
async fn read_tunnel(body: &mut RecvHalf) -> Result<Vec<u8>, ReceiveError> {
    let mut chunks = Vec::new();
    while poll_fn(|cx| body.poll_chunks(cx, &mut chunks)).await? > 0 {}
    Ok(chunks.concat())
}
