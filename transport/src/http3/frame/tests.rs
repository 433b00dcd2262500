//! Tests of `transport/src/http3/frame.rs`.

use super::*;

const REQUEST: StreamKind = StreamKind::Request { client: false };

/// Types and payloads of frames.
type Found = Vec<(u64, Vec<u8>)>;

/// The frames found, and whether the input ended between two.
fn events(kind: StreamKind, input: &[u8], step: usize) -> Result<(Found, bool), FrameError> {
    let mut reader = FrameReader::new(kind);
    let mut chunks = Chunks::default();
    let mut found = Found::new();
    for part in input.chunks(step) {
        chunks.push(Bytes::copy_from_slice(part));
        while let Some(event) = reader.next(&mut chunks)? {
            match event {
                Event::Data(data) => match found.last_mut() {
                    Some((DATA, last)) => last.extend_from_slice(&data),
                    _ => found.push((DATA, data.to_vec())),
                },
                Event::Headers(section) => found.push((HEADERS, section.to_vec())),
                Event::Control(frame, payload) => found.push((frame, payload.to_vec())),
            }
        }
    }
    Ok((found, reader.is_between_frames()))
}

fn message() -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(HEADERS, b"head", &mut out);
    put_frame(0x21, &[7; 300], &mut out);
    put_frame(DATA, &[1; 100], &mut out);
    put_frame(DATA, b"", &mut out);
    put_frame(HEADERS, b"trailers", &mut out);
    out
}

#[test]
fn frames_are_found_however_the_bytes_are_cut() {
    let message = message();
    for step in 1..=message.len() {
        let (found, complete) = events(REQUEST, &message, step).unwrap();
        assert!(complete);
        assert_eq!(
            found,
            [
                (HEADERS, b"head".to_vec()),
                (DATA, vec![1; 100]),
                (HEADERS, b"trailers".to_vec())
            ]
        );
    }
}

#[test]
fn truncation_within_a_frame_is_seen_at_every_byte() {
    let message = message();
    let mut borders = 0;
    for end in 0..message.len() {
        if events(REQUEST, &message[..end], 7).unwrap().1 {
            borders += 1;
        }
    }
    assert_eq!(borders, 5);
}

#[test]
fn a_giant_headers_frame_is_refused_by_its_header_alone() {
    let mut input = BytesMut::new();
    varint::encode(HEADERS, &mut input);
    varint::encode(1 << 40, &mut input);
    assert_eq!(
        events(REQUEST, &input, 1).unwrap_err(),
        FrameError::HeadersTooLarge
    );
}

#[test]
fn a_giant_unknown_frame_is_skipped_without_being_kept() {
    let mut input = BytesMut::new();
    varint::encode(0x21, &mut input);
    varint::encode(1 << 40, &mut input);
    let mut reader = FrameReader::new(REQUEST);
    let mut chunks = Chunks::default();
    chunks.push(input.freeze());
    for _ in 0..1000 {
        chunks.push(Bytes::from_static(&[0; 4096]));
        assert_eq!(reader.next(&mut chunks), Ok(None));
        assert!(chunks.is_empty());
    }
    assert!(!reader.is_between_frames());
}

#[test]
fn floods_of_empty_frames_are_refused_and_payload_resets_the_count() {
    for frame in [DATA, 0x21] {
        let mut flood = BytesMut::new();
        for _ in 0..=limits::FUTILE_FRAMES {
            put_frame(frame, b"", &mut flood);
        }
        assert!(matches!(
            events(REQUEST, &flood, 1 << 20),
            Err(FrameError::Connection(ErrorCode::H3_EXCESSIVE_LOAD, _))
        ));
    }
    let mut mixed = BytesMut::new();
    for _ in 0..1000 {
        put_frame(0x21, b"", &mut mixed);
        put_frame(DATA, b"x", &mut mixed);
    }
    assert_eq!(events(REQUEST, &mixed, 1 << 20).unwrap().0[0].1.len(), 1000);
}

#[test]
fn frames_on_wrong_streams_are_connection_errors() {
    let unexpected = ErrorCode::H3_FRAME_UNEXPECTED;
    let client = StreamKind::Request { client: true };
    for (kind, frame, code) in [
        (REQUEST, SETTINGS, unexpected),
        (REQUEST, GOAWAY, unexpected),
        (REQUEST, CANCEL_PUSH, unexpected),
        (REQUEST, MAX_PUSH_ID, unexpected),
        (REQUEST, PUSH_PROMISE, unexpected),
        (client, PUSH_PROMISE, ErrorCode::H3_ID_ERROR),
        (client, 0x02, unexpected),
        (StreamKind::Control, 0x09, unexpected),
        (StreamKind::Control, DATA, unexpected),
        (StreamKind::Control, HEADERS, unexpected),
    ] {
        let mut input = BytesMut::new();
        put_frame(frame, &[0], &mut input);
        match events(kind, &input, 3) {
            Err(FrameError::Connection(found, _)) => assert_eq!(found, code),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn control_frames_of_a_wrong_size_are_refused() {
    let mut input = BytesMut::new();
    put_frame(GOAWAY, &[0; 9], &mut input);
    assert!(matches!(
        events(StreamKind::Control, &input, 3),
        Err(FrameError::Connection(ErrorCode::H3_FRAME_ERROR, _))
    ));
    let mut input = BytesMut::new();
    put_frame(SETTINGS, &vec![0; 1 << 16], &mut input);
    assert!(matches!(
        events(StreamKind::Control, &input, 3),
        Err(FrameError::Connection(ErrorCode::H3_EXCESSIVE_LOAD, _))
    ));
}
