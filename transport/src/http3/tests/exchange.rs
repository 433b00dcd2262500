//! The client side with the server side.

use super::*;

#[tokio::test]
async fn a_get_is_answered() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |request| async move {
        assert_eq!(request.head.method, "GET");
        assert_eq!(request.head.uri, "https://orders.shop/a?b=c");
        assert_eq!(request.head.headers["x-one"], "1");
        let head = response(404, &[("content-length", "7")]);
        let mut send = request
            .respond
            .head_with(&head, Bytes::from_static(b"missing"), true)
            .await
            .unwrap();
        send.finish().await.unwrap();
    });
    let client = client(&quic.client, &mut tasks);
    let head = request("GET", "https://orders.shop/a?b=c", &[("x-one", "1")]);
    let (_send, mut answer) = client.open(&head, true).await.unwrap();
    let head = answer.head().await.unwrap();
    assert_eq!(head.status(), 404);
    let mut body = answer.into_body();
    assert_eq!(body.size_hint().exact(), Some(7));
    let (data, trailers) = read(&mut body).await.unwrap();
    assert_eq!((data.as_slice(), trailers), (&b"missing"[..], None));
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a_reader_that_stops_at_the_declared_length_has_seen_the_end() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |request| async move {
        let head = response(200, &[("content-length", "3")]);
        let body = Bytes::from_static(b"all");
        request.respond.head_with(&head, body, true).await.unwrap();
    });
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    answer.head().await.unwrap();
    let mut body = answer.into_body();
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx));
    assert!(frame.await.unwrap().unwrap().is_data());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |mut request| async move {
        let (data, trailers) = read(&mut request.recv).await.unwrap();
        let mut send = request
            .respond
            .head(&response(200, &[]), false)
            .await
            .unwrap();
        for chunk in data.chunks(100_000) {
            send.send_data(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        send.send_trailers(&trailers.unwrap()).await.unwrap();
    });
    let client = client(&quic.client, &mut tasks);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let length = sent.len().to_string();
    let head = request(
        "POST",
        "https://orders.shop/",
        &[("content-length", &length)],
    );
    let (mut send, mut answer) = client.open(&head, false).await.unwrap();
    let mut chunks: Vec<Bytes> = sent.chunks(7777).map(Bytes::copy_from_slice).collect();
    send.send_chunks(&mut chunks).await.unwrap();
    assert!(chunks.is_empty());
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "42".parse().unwrap());
    send.send_trailers(&trailers).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 200);
    let (data, back) = read(&mut answer.into_body()).await.unwrap();
    assert!(data == sent);
    assert_eq!(back, Some(trailers));
}

#[tokio::test]
async fn interim_responses_come_one_by_one_before_the_final_one() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |mut request| async move {
        for status in [100, 103] {
            let head = response(status, &[("link", "</a>")]);
            request.respond.informational(&head).await.unwrap();
        }
        let refused = request.respond.informational(&response(101, &[])).await;
        assert!(matches!(refused, Err(SendError::InvalidHead(_))));
        let head = response(204, &[]);
        request.respond.head(&head, true).await.unwrap();
    });
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    for status in [100, 103, 204] {
        assert_eq!(answer.head().await.unwrap().status(), status);
    }
    let (data, _) = read(&mut answer.into_body()).await.unwrap();
    assert!(data.is_empty());
}

#[tokio::test]
async fn a_tunnel_carries_bytes_half_close_and_reset() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |mut request| async move {
        assert_eq!(request.head.method, "CONNECT");
        assert_eq!(request.head.uri.to_string(), "orders.shop:5432");
        let mut send = request
            .respond
            .head(&response(200, &[]), false)
            .await
            .unwrap();
        // The client half-closes; this side still answers, then resets.
        let data = read_tunnel(&mut request.recv, usize::MAX).await.unwrap();
        send.send_data(Bytes::from(data)).await.unwrap();
        assert_eq!(send.stopped().await, Some(Reason::NoError));
        send.reset(Reason::TunnelBroke);
    });
    let client = client(&quic.client, &mut tasks);
    let (mut send, mut answer) = client.open(&connect(), false).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 200);
    send.send_data(Bytes::from_static(b"ping")).await.unwrap();
    send.finish().await.unwrap();
    let mut recv = answer.into_body();
    assert_eq!(read_tunnel(&mut recv, 4).await.unwrap(), b"ping");
    recv.stop(Reason::NoError);

    // The other way round: a reset arrives with its code.
    let (mut send, mut answer) = client.open(&connect(), false).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 200);
    send.reset(Reason::TunnelBroke);
    tasks.shutdown().await;
}

#[tokio::test]
async fn a_reset_of_a_tunnel_carries_its_code() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let client = client(&quic.client, &mut tasks);
    let (mut send, _answer) = client.open(&connect(), false).await.unwrap();
    let mut request = server.accept().await.unwrap().unwrap();
    send.reset(Reason::TunnelBroke);
    let error = read_tunnel(&mut request.recv, 1).await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::TunnelBroke));
    // It stays so.
    let error = read_tunnel(&mut request.recv, 1).await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::TunnelBroke));
}

#[tokio::test]
async fn a_body_dropped_before_its_end_is_a_reset_and_not_an_end() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let client = client(&quic.client, &mut tasks);
    let head = request("POST", "https://orders.shop/", &[]);
    let (mut send, _answer) = client.open(&head, false).await.unwrap();
    send.send_data(Bytes::from_static(b"half")).await.unwrap();
    let mut request = server.accept().await.unwrap().unwrap();
    drop(send);
    let error = read(&mut request.recv).await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::Cancelled));
}

#[tokio::test]
async fn cancelling_a_pending_read_stops_the_peer_on_both_sides() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let client = client(&quic.client, &mut tasks);
    let head = request("POST", "https://orders.shop/", &[]);
    let (mut send, mut answer) = client.open(&head, false).await.unwrap();
    let mut request = server.accept().await.unwrap().unwrap();
    let head = response(200, &[]);
    let answering = request.respond.head(&head, false).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 200);
    let mut body = answer.into_body();

    let mut chunks = Vec::new();
    let pending = std::future::poll_fn(|cx| {
        let polled = request.recv.poll_chunks(cx, &mut chunks);
        std::task::Poll::Ready(polled.is_pending())
    });
    assert!(pending.await);
    drop(request.recv);
    assert_eq!(send.stopped().await, Some(Reason::Cancelled));
    let error = send.send_data(Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error, SendError::Stopped(Reason::Cancelled));

    let pending = std::future::poll_fn(|cx| {
        let polled = body.poll_chunks(cx, &mut chunks);
        std::task::Poll::Ready(polled.is_pending())
    });
    assert!(pending.await);
    drop(body);
    assert_eq!(answering.stopped().await, Some(Reason::Cancelled));
}

#[tokio::test]
async fn what_breaks_its_content_length_is_not_sent() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let client = client(&quic.client, &mut tasks);
    let head = request("POST", "https://orders.shop/", &[("content-length", "3")]);
    let (mut send, _answer) = client.open(&head, false).await.unwrap();
    let mut request = server.accept().await.unwrap().unwrap();
    let error = send.send_data(Bytes::from_static(b"four")).await;
    assert!(matches!(error, Err(SendError::Misuse(_))));
    send.send_data(Bytes::from_static(b"2b")).await.unwrap();
    assert!(matches!(send.finish().await, Err(SendError::Misuse(_))));
    drop(send);
    let error = read(&mut request.recv).await.unwrap_err();
    assert_eq!(error, ReceiveError::Reset(Reason::Cancelled));
}

#[tokio::test]
async fn goaway_lets_accepted_requests_finish_and_refuses_later_ones() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let client = client(&quic.client, &mut tasks);
    let (_first, mut answer) = client.open(&get(), true).await.unwrap();
    let accepted = server.accept().await.unwrap().unwrap();
    server.shutdown();
    // Opened before the GOAWAY has arrived.
    let (_late, mut late_answer) = client.open(&get(), true).await.unwrap();
    tasks.spawn(async move {
        assert!(server.accept().await.unwrap().is_none());
    });
    let error = late_answer.head().await.unwrap_err();
    assert!(error.is_unprocessed(), "{error}");
    while client.is_usable() {
        tokio::task::yield_now().await;
    }
    let error = client.open(&get(), true).await.err().unwrap();
    assert_eq!(error, OpenError::Draining);
    let head = response(200, &[]);
    accepted.respond.head(&head, true).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_rejected_request_is_known_to_be_unprocessed() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |request| async move {
        request.respond.reset(Reason::Unprocessed);
    });
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    assert!(answer.head().await.unwrap_err().is_unprocessed());
    assert!(client.is_usable());
}
