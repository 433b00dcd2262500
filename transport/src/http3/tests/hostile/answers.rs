//! A client against a server that sends arbitrary answers.

use super::*;

/// How a client reads one raw answer.
async fn raw_answer(bytes: &[u8]) -> (ReceiveError, bool) {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    let (mut send, _receive) = quic.server.accept_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    let error = loop {
        match answer.head().await {
            Err(error) => break error,
            Ok(head) if head.status().is_informational() => {}
            Ok(_) => break read(&mut answer.into_body()).await.unwrap_err(),
        }
    };
    (error, client.is_usable())
}

#[tokio::test]
async fn a_client_judges_answers_as_strictly() {
    let ok = head_frame(&[(":status", "200"), ("content-length", "2")]);
    let data = |bytes: &[u8]| [&ok[..], &raw_frame(frame::DATA, bytes)[..]].concat();
    for bytes in [
        vec![],
        data(b"1"),
        data(b"123"),
        head_frame(&[(":status", "101")]).to_vec(),
        head_frame(&[(":path", "/")]).to_vec(),
    ] {
        let (error, usable) = raw_answer(&bytes).await;
        assert!(matches!(error, ReceiveError::Malformed(_)), "{error}");
        assert!(usable);
    }
    let interim = head_frame(&[(":status", "103")]);
    let (error, usable) = raw_answer(&interim.repeat(33)).await;
    assert_eq!(error, ReceiveError::TooLarge("interim responses"));
    assert!(usable);

    for (bytes, expected) in [
        (raw_frame(frame::DATA, b"x"), ErrorCode::H3_FRAME_UNEXPECTED),
        (
            raw_frame(frame::PUSH_PROMISE, b"\0"),
            ErrorCode::H3_ID_ERROR,
        ),
    ] {
        let (error, usable) = raw_answer(&bytes).await;
        assert!(
            matches!(error, ReceiveError::ConnectionLost(ConnectionError::PeerViolation { code, .. }) if code == expected.reason()),
            "{error}"
        );
        assert!(!usable);
    }
}

#[tokio::test]
async fn a_goaway_fails_pending_requests_as_unprocessed_without_a_reset() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    let mut control = quic.server.open_uni().await.unwrap();
    let mut bytes = vec![0x00];
    bytes.extend_from_slice(&raw_frame(frame::SETTINGS, b""));
    bytes.extend_from_slice(&raw_frame(frame::GOAWAY, b"\0"));
    control.write_all(&bytes).await.unwrap();
    assert_eq!(
        answer.head().await.unwrap_err(),
        ReceiveError::Unprocessed(Unprocessed::GoingAway)
    );
    assert!(!client.is_usable());

    control
        .write_all(&raw_frame(frame::GOAWAY, b"\x04"))
        .await
        .unwrap();
    assert_eq!(close_code(&quic.server).await, ErrorCode::H3_ID_ERROR);
}

#[tokio::test]
async fn no_request_is_opened_once_a_goaway_came_with_the_credit_for_it() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let client = client(&quic.client, &mut tasks);
    let open = client.open(&get(), true).await.unwrap();
    let reserved = client.reserve().await.unwrap();
    let mut control = quic.server.open_uni().await.unwrap();
    let mut bytes = vec![0x00];
    bytes.extend_from_slice(&raw_frame(frame::SETTINGS, b""));
    bytes.extend_from_slice(&raw_frame(frame::GOAWAY, b"\x04"));
    control.write_all(&bytes).await.unwrap();
    while client.is_usable() {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let late = reserved.send(&get(), Bytes::new(), true).await;
    assert_eq!(late.err(), Some(OpenError::Draining));
    drop(open);
    // The peer sees a reset of the reserved stream, and no request.
    let (_, mut first) = quic.server.accept_bi().await.unwrap();
    assert!(first.read_to_end(1000).await.is_ok());
    let (_, mut second) = quic.server.accept_bi().await.unwrap();
    let error = second.read_to_end(1000).await.unwrap_err();
    let code = ErrorCode::H3_REQUEST_CANCELLED.to_quic();
    assert_eq!(
        error,
        quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))
    );
}

#[tokio::test]
async fn a_request_that_was_refused_after_an_interim_response_is_not_unprocessed() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let client = client(&quic.client, &mut tasks);
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    let (mut send, _receive) = quic.server.accept_bi().await.unwrap();
    let interim = head_frame(&[(":status", "103")]);
    send.write_all(&interim).await.unwrap();
    assert_eq!(answer.head().await.unwrap().status(), 103);
    send.reset(ErrorCode::H3_REQUEST_REJECTED.to_quic())
        .unwrap();
    let error = answer.head().await.unwrap_err();
    assert!(!error.is_unprocessed(), "{error}");
}
