//! Each side against a peer that writes arbitrary bytes.

mod answers;

use std::sync::atomic::{AtomicU32, Ordering};

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
    let code = send.stopped().await.unwrap().unwrap();
    assert_eq!(ErrorCode::from_quic(code), ErrorCode::H3_NO_ERROR);
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
    // Many times the stream window: it is read and dropped, or this call would not return.
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
    // The head was valid and is with the handler, which drops both halves.
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

#[tokio::test]
async fn callers_that_give_up_and_a_priority_update_for_each_leave_the_connection_open() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let (served, mut accepted) = tokio::sync::mpsc::channel(1);
    let mut server = server(&quic.server);
    tasks.spawn(async move {
        let mut handlers = JoinSet::new();
        while let Ok(Some(request)) = server.accept().await {
            // It is being served before it is cancelled.
            served.send(()).await.unwrap();
            handlers.spawn(async move { request.respond.stopped().await });
        }
    });
    let mut control = quic.client.open_uni().await.unwrap();
    let mut bytes = vec![0x00];
    bytes.extend_from_slice(&raw_frame(frame::SETTINGS, b""));
    control.write_all(&bytes).await.unwrap();
    let update = raw_frame(frame::PRIORITY_UPDATE, b"\0u=3");
    for _ in 0..1500 {
        control.write_chunk(update.clone()).await.unwrap();
        let (mut send, mut receive) = quic.client.open_bi().await.unwrap();
        send.write_all(&head_frame(&GET)).await.unwrap();
        accepted.recv().await.unwrap();
        let _ = send.reset(ErrorCode::H3_REQUEST_CANCELLED.to_quic());
        let _ = receive.stop(ErrorCode::H3_REQUEST_CANCELLED.to_quic());
    }
    assert_eq!(quic.client.close_reason(), None);
}

#[tokio::test]
async fn priority_updates_without_requests_are_a_flood_of_control_frames() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut control = quic.client.open_uni().await.unwrap();
    let mut bytes = vec![0x00];
    bytes.extend_from_slice(&raw_frame(frame::SETTINGS, b""));
    let updates = limits::PRIORITY_UPDATES_AHEAD + limits::CONTROL_EVENTS;
    let update = raw_frame(frame::PRIORITY_UPDATE, b"\0u=3");
    bytes.extend_from_slice(&update.repeat(updates as usize));
    let _ = control.write_all(&bytes).await;
    assert_eq!(close_code(&quic.client).await, ErrorCode::H3_EXCESSIVE_LOAD);
}

#[tokio::test]
async fn a_peer_that_takes_back_all_it_asks_waits_and_its_connection_lives() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    let mut server = server(&quic.server);
    let (pauses, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let of_pauses = Arc::clone(&pauses);
    let of_seen = Arc::clone(&seen);
    tasks.spawn(async move {
        let mut handlers = JoinSet::new();
        while let Ok(Some(request)) = server.accept().await {
            of_seen.fetch_add(1, Ordering::Relaxed);
            of_pauses.fetch_add(u32::from(server.was_paced()), Ordering::Relaxed);
            handlers.spawn(async move { request.respond.stopped().await });
        }
    });
    let cancelled = ErrorCode::H3_REQUEST_CANCELLED.to_quic();
    let mut asked = 0;
    while pauses.load(Ordering::Relaxed) == 0 {
        asked += 1;
        let (mut send, mut receive) = quic.client.open_bi().await.unwrap();
        send.write_all(&head_frame(&GET)).await.unwrap();
        let _ = send.finish();
        // It is being served before it is cancelled, unless it has to wait.
        while seen.load(Ordering::Relaxed) < asked && pauses.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let _ = receive.stop(cancelled);
    }
    assert!(asked > limits::WORK_TAKEN_BACK_AT_ONCE, "{asked}");
    // Its next requests are served all the same, after a moment.
    for _ in 0..10 {
        let before = seen.load(Ordering::Relaxed);
        let (mut send, _receive) = quic.client.open_bi().await.unwrap();
        send.write_all(&head_frame(&GET)).await.unwrap();
        while seen.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(quic.client.close_reason(), None);
}

#[tokio::test]
async fn a_peer_that_grants_no_stream_is_served_at_first_and_closed_in_time() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(0_u8.into());
    let quic = quic_with(transport).await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let answer = raw_request(&quic.client, &head_frame(&GET)).await.unwrap();
    assert!(is_status(&answer, "200"));
    tokio::time::pause();
    let code = close_code(&quic.client).await;
    assert_eq!(code, ErrorCode::H3_GENERAL_PROTOCOL_ERROR);
}

#[tokio::test]
async fn what_a_peer_without_streams_for_us_does_on_its_control_stream_is_judged_all_the_same() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(0_u8.into());
    let quic = quic_with(transport).await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut control = quic.client.open_uni().await.unwrap();
    control.write_all(&[0x00, 0x21, 0x00]).await.unwrap();
    let code = close_code(&quic.client).await;
    assert_eq!(code, ErrorCode::H3_MISSING_SETTINGS);
}

#[tokio::test]
async fn servers_announce_no_extended_connect_and_take_none() {
    let quic = quic().await;
    let mut tasks = JoinSet::new();
    serve_echo(&quic.server, &mut tasks);
    let mut control = quic.client.accept_uni().await.unwrap();
    let mut settings = [0; 64];
    let read = control.read(&mut settings).await.unwrap().unwrap();
    // Type of the stream, type and length of the frame.
    let payload = &settings[3..read];
    assert!(settings::decode(payload).is_ok());
    assert!(!payload.starts_with(&[0x08]) && !payload.windows(2).any(|pair| pair == [0x08, 0x01]));
    let connect = head_frame(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "orders.shop"),
        (":path", "/chat"),
    ]);
    let reset = raw_request(&quic.client, &connect).await;
    assert_eq!(reset, Err(ErrorCode::H3_MESSAGE_ERROR));
}
