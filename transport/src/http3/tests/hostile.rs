//! Each side against a peer that writes what it likes.

use super::*;

/// The code that this peer closed the connection with.
async fn close_code(connection: &quinn::Connection) -> ErrorCode {
    let error = connection.closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = error else {
        panic!("{error}");
    };
    ErrorCode::from_quic(close.error_code)
}

/// A server that answers each request with its body and 200.
fn serve_echo(connection: &quinn::Connection, tasks: &mut JoinSet<()>) {
    serve(connection, tasks, |mut request| async move {
        let Ok((data, _)) = read(&mut request.recv).await else {
            return;
        };
        if let Ok(mut send) = request.respond.head(&response(200, &[]), false).await {
            let _ = send.send_data(data.into()).await;
            let _ = send.finish().await;
        }
    });
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "orders.shop"),
    (":path", "/"),
];

/// Writes raw bytes on a request stream, ends it, and reads the answer; `Err` is a reset.
async fn raw_request(connection: &quinn::Connection, bytes: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // The server may stop reading before the end.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    match receive.read_to_end(1 << 20).await {
        Ok(answer) => Ok(answer),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
            Err(ErrorCode::from_quic(code))
        }
        Err(other) => panic!("{other}"),
    }
}

/// The status of a raw answer: the server writes `:status` as the first field.
fn is_status(answer: &[u8], status: &str) -> bool {
    let section = head_frame(&[(":status", status)]);
    answer.get(7..section.len()) == section.get(7..)
}

#[tokio::test]
async fn a_giant_headers_frame_is_refused_by_431_before_it_is_sent() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut bytes = BytesMut::new();
    varint::encode(frame::HEADERS, &mut bytes);
    varint::encode(1 << 40, &mut bytes);
    let (mut send, mut receive) = quic.client.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    let answer = receive.read_to_end(1000).await.unwrap();
    assert!(is_status(&answer, "431"), "{answer:?}");
    assert!(send.stopped().await.unwrap().is_some());
    // The connection lives on.
    let answer = raw_request(&quic.client, &head_frame(&GET)).await.unwrap();
    assert!(is_status(&answer, "200"));
}

#[tokio::test]
async fn a_giant_unknown_frame_is_skipped_and_the_server_goes_on() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut bytes = BytesMut::new();
    varint::encode(0x21, &mut bytes);
    varint::encode(1 << 40, &mut bytes);
    let (mut send, _receive) = quic.client.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    // Many times the stream window: it is read and dropped, or this would not return.
    let block = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..16 {
        send.write_chunk(block.clone()).await.unwrap();
    }
    let answer = raw_request(&quic.client, &head_frame(&GET)).await.unwrap();
    assert!(is_status(&answer, "200"));
}

#[tokio::test]
async fn malformed_requests_are_reset_and_the_connection_lives() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let with = |field: (&'static str, &'static str)| head_frame(&[&GET[..], &[field]].concat());
    let body = |length: &'static str, data: &[u8]| {
        let mut bytes = with(("content-length", length));
        bytes.extend_from_slice(&raw_frame(frame::DATA, data));
        bytes
    };
    for bytes in [
        head_frame(&GET[..3]),
        with(("transfer-encoding", "chunked")),
        with(("X-Upper", "1")),
    ] {
        let reset = raw_request(&quic.client, &bytes).await;
        assert_eq!(reset, Err(ErrorCode::H3_MESSAGE_ERROR));
    }
    let reset = raw_request(&quic.client, b"").await;
    assert_eq!(reset, Err(ErrorCode::H3_REQUEST_INCOMPLETE));
    // The head was good and is with the handler, which drops both halves.
    for bytes in [
        body("3", b"four"),
        body("5", b"four"),
        with(("content-length", "1")),
    ] {
        let reset = raw_request(&quic.client, &bytes).await;
        assert_eq!(reset, Err(ErrorCode::H3_REQUEST_CANCELLED));
    }
    let answer = raw_request(&quic.client, &body("4", b"four"))
        .await
        .unwrap();
    assert!(is_status(&answer, "200"));
    assert!(answer.ends_with(b"four"));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_cancelled_after_its_time() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let head = head_frame(&GET);
    let (mut send, mut receive) = quic.client.open_bi().await.unwrap();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    send.write_all(&head[..head.len() - 1]).await.unwrap();
    let error = receive.read_to_end(100).await.unwrap_err();
    let code = ErrorCode::H3_REQUEST_CANCELLED.to_quic();
    let expected = quinn::ReadToEndError::Read(quinn::ReadError::Reset(code));
    assert_eq!(error, expected);
    assert!(begun.elapsed() >= limits::HEADER_TIMEOUT);
    assert!(quic.client.close_reason().is_none());
}

#[tokio::test]
async fn what_the_rfc_calls_a_connection_error_on_a_request_stream_is_one() {
    let head = head_frame(&GET);
    let after_head = |frame: &[u8]| [&head[..], frame].concat();
    for (bytes, code) in [
        (
            raw_frame(frame::DATA, b"x").to_vec(),
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (
            after_head(&raw_frame(frame::SETTINGS, b"")),
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (
            after_head(&raw_frame(frame::CANCEL_PUSH, b"\0")),
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (
            after_head(&raw_frame(0x06, b"")),
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (after_head(&[0x00, 0x05, 1, 2]), ErrorCode::H3_FRAME_ERROR),
        (head[..head.len() - 1].to_vec(), ErrorCode::H3_FRAME_ERROR),
        (
            raw_frame(frame::HEADERS, &[3, 0x81, 0x10]).to_vec(),
            ErrorCode::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            raw_frame(frame::HEADERS, &[0, 0, 0xff, 0x24]).to_vec(),
            ErrorCode::QPACK_DECOMPRESSION_FAILED,
        ),
        (
            raw_frame(0x21, b"").repeat(200),
            ErrorCode::H3_EXCESSIVE_LOAD,
        ),
    ] {
        let quic = quic().await;
        let mut tasks = JoinSet::new();
        serve_echo(&quic.server, &mut tasks);
        let (mut send, _receive) = quic.client.open_bi().await.unwrap();
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        assert_eq!(close_code(&quic.client).await, code, "{bytes:?}");
    }
}

#[tokio::test]
async fn what_the_rfc_calls_a_connection_error_on_other_streams_is_one() {
    let control = |frames: &[Bytes]| {
        let mut bytes = vec![0x00];
        for frame in frames {
            bytes.extend_from_slice(frame);
        }
        bytes
    };
    let settings = raw_frame(frame::SETTINGS, b"");
    let then = |frame: Bytes| control(&[settings.clone(), frame]);
    for (streams, ended, code) in [
        (
            vec![control(&[raw_frame(frame::GOAWAY, b"\0")])],
            false,
            ErrorCode::H3_MISSING_SETTINGS,
        ),
        (
            vec![control(&[raw_frame(0x21, b"")])],
            false,
            ErrorCode::H3_MISSING_SETTINGS,
        ),
        (
            vec![then(settings.clone())],
            false,
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (
            vec![control(&[raw_frame(frame::SETTINGS, &[2, 0])])],
            false,
            ErrorCode::H3_SETTINGS_ERROR,
        ),
        (
            vec![control(&[raw_frame(frame::SETTINGS, &[6, 0, 6, 0])])],
            false,
            ErrorCode::H3_SETTINGS_ERROR,
        ),
        (
            vec![then(raw_frame(frame::DATA, b"x"))],
            false,
            ErrorCode::H3_FRAME_UNEXPECTED,
        ),
        (
            vec![then(raw_frame(frame::CANCEL_PUSH, b"\0"))],
            false,
            ErrorCode::H3_ID_ERROR,
        ),
        (
            vec![control(&[
                settings.clone(),
                raw_frame(frame::MAX_PUSH_ID, b"\x05"),
                raw_frame(frame::MAX_PUSH_ID, b"\x04"),
            ])],
            false,
            ErrorCode::H3_ID_ERROR,
        ),
        (
            vec![then(raw_frame(frame::GOAWAY, b"\0\0"))],
            false,
            ErrorCode::H3_FRAME_ERROR,
        ),
        (
            vec![then(settings.slice(..0)), then(settings.slice(..0))],
            false,
            ErrorCode::H3_STREAM_CREATION_ERROR,
        ),
        (
            vec![then(settings.slice(..0))],
            true,
            ErrorCode::H3_CLOSED_CRITICAL_STREAM,
        ),
        (vec![vec![0x02]], true, ErrorCode::H3_CLOSED_CRITICAL_STREAM),
        (
            vec![vec![0x01, 0x00]],
            false,
            ErrorCode::H3_STREAM_CREATION_ERROR,
        ),
        (
            vec![vec![0x02, 0x3f, 0xbd, 0x01]],
            false,
            ErrorCode::QPACK_ENCODER_STREAM_ERROR,
        ),
        (
            vec![vec![0x03, 0x84]],
            false,
            ErrorCode::QPACK_DECODER_STREAM_ERROR,
        ),
        (
            vec![then(raw_frame(0x21, b"").repeat(1000).into())],
            false,
            ErrorCode::H3_EXCESSIVE_LOAD,
        ),
    ] {
        let quic = quic().await;
        let mut tasks = JoinSet::new();
        serve_echo(&quic.server, &mut tasks);
        let mut open = Vec::new();
        for bytes in &streams {
            let mut stream = quic.client.open_uni().await.unwrap();
            let _ = stream.write_all(bytes).await;
            open.push(stream);
        }
        if ended {
            open.clear();
        }
        assert_eq!(close_code(&quic.client).await, code, "{streams:?}");
    }
}

#[tokio::test]
async fn unknown_unidirectional_streams_are_stopped_and_bounded() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut stream = quic.client.open_uni().await.unwrap();
    stream.write_all(&[0x21, 1, 2, 3]).await.unwrap();
    let code = stream.stopped().await.unwrap().unwrap();
    assert_eq!(
        ErrorCode::from_quic(code),
        ErrorCode::H3_STREAM_CREATION_ERROR
    );
    for _ in 0..limits::CONTROL_EVENTS {
        let Ok(mut stream) = quic.client.open_uni().await else {
            break;
        };
        let _ = stream.write_all(&[0x21]).await;
    }
    assert_eq!(close_code(&quic.client).await, ErrorCode::H3_EXCESSIVE_LOAD);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let head = head_frame(&GET).freeze();
    loop {
        let Ok((mut send, mut receive)) = quic.client.open_bi().await else {
            break;
        };
        if send.write_chunk(head.clone()).await.is_err() {
            break;
        }
        let _ = send.reset(ErrorCode::H3_REQUEST_CANCELLED.to_quic());
        let _ = receive.stop(ErrorCode::H3_REQUEST_CANCELLED.to_quic());
    }
    assert_eq!(close_code(&quic.client).await, ErrorCode::H3_EXCESSIVE_LOAD);
}

/// What a client makes of one raw answer.
async fn raw_answer(bytes: &[u8]) -> (StreamError, bool) {
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
        assert!(matches!(error, StreamError::Malformed(_)), "{error}");
        assert!(usable);
    }
    let interim = head_frame(&[(":status", "103")]);
    let (error, usable) = raw_answer(&interim.repeat(33)).await;
    assert_eq!(error, StreamError::TooLarge("interim responses"));
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
            matches!(error, StreamError::ConnectionLost(ConnectionError::PeerViolation { code, .. }) if code == expected),
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
    assert_eq!(answer.head().await.unwrap_err(), StreamError::NotProcessed);
    assert!(!client.is_usable());

    control
        .write_all(&raw_frame(frame::GOAWAY, b"\x04"))
        .await
        .unwrap();
    assert_eq!(close_code(&quic.server).await, ErrorCode::H3_ID_ERROR);
}
