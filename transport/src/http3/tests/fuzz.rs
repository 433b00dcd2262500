//! What must hold of all bytes that a peer may send: of frames, of what it says on the connection's own
//! streams, of field sections, and of the messages in them. Their inputs are in `transport/fuzz/corpus`.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method};
use weft_fuzz::{Target, in_pieces};

use crate::error::HeadError;
use crate::http3::chunks::Chunks;
use crate::http3::connection_core::{Core, PeerStream, StreamEvent};
use crate::http3::control::Broken;
use crate::http3::frame::{self, Event, FrameError, FrameReader, StreamKind};
use crate::http3::limits;
use crate::http3::message::{self, BodyLength, MessageError};
use crate::http3::qpack::{self, DecodeError, Encoder, Field, Limits};
use crate::http3::shared::Side;

fn target(name: &'static str) -> Target {
    Target::new(env!("CARGO_MANIFEST_DIR"), name)
}

/// Frames by type and payload, and how it ended: between two, within one, or by an error.
type Read = (Vec<(u64, Vec<u8>)>, Result<bool, FrameError>);

fn read_frames(kind: StreamKind, pieces: &[&[u8]]) -> Read {
    let mut reader = FrameReader::new(kind);
    let mut chunks = Chunks::default();
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut came = 0;
    for piece in pieces {
        chunks.push(Bytes::copy_from_slice(piece));
        came += piece.len();
        loop {
            match reader.next(&mut chunks) {
                Ok(None) => break,
                Ok(Some(Event::Data(data))) => match found.last_mut() {
                    Some((frame::DATA, last)) => last.extend_from_slice(&data),
                    _ => found.push((frame::DATA, data.to_vec())),
                },
                Ok(Some(Event::Headers(section))) => found.push((frame::HEADERS, section.to_vec())),
                Ok(Some(Event::Control(frame, payload))) => found.push((frame, payload.to_vec())),
                Err(error) => return (found, Err(error)),
            }
        }
        // It grows with what comes, which is at most doubled, and never with what a header promises.
        assert!(
            reader.held() <= 2 * came.max(64),
            "{} of {came}",
            reader.held()
        );
    }
    (found, Ok(reader.is_between_frames()))
}

/// The first byte of an input says on which stream it comes: 0 of a client, 1 of a server, 2 control.
#[test]
fn frames_are_bounded_and_the_same_in_whatever_pieces_they_come() {
    let property = |input: &[u8]| {
        let Some((kind, stream)) = input.split_first() else {
            return "nothing".to_owned();
        };
        let kind = match kind % 3 {
            0 => StreamKind::Request { client: false },
            1 => StreamKind::Request { client: true },
            _ => StreamKind::Control,
        };
        let read = read_frames(kind, &[stream]);
        for pieces in in_pieces(stream) {
            assert_eq!(read_frames(kind, &pieces), read, "in pieces {pieces:?}");
        }
        let (found, end) = read;
        let mut written = BytesMut::new();
        for (frame, payload) in &found {
            let most = match (kind, *frame) {
                (_, frame::DATA) => u64::MAX,
                (StreamKind::Request { .. }, _) => limits::FIELD_SECTION_SIZE,
                (StreamKind::Control, _) => limits::SETTINGS_SIZE,
            };
            assert!(payload.len() as u64 <= most);
            frame::put_frame(*frame, payload, &mut written);
        }
        let count = found.len().min(3);
        assert_eq!(read_frames(kind, &[&written]), (found, Ok(true)));
        match end {
            Ok(between) => format!("{count} frames, {}", if between { "whole" } else { "cut" }),
            Err(FrameError::Connection(code, reason)) => format!("{code:?}: {reason}"),
            Err(FrameError::HeadersTooLarge) => "HEADERS too large".to_owned(),
        }
    };
    let seen = target("http3_frames")
        .longest(2000)
        .rounds(5000)
        .run(property);
    seen.expect("3 frames, whole").expect("HEADERS too large");
}

/// Streams of a peer: which one, how many bytes, and these, again and again.
fn on_streams(input: &[u8]) -> Vec<(usize, &[u8])> {
    let mut on_streams = Vec::new();
    let mut rest = input;
    while let Some(([stream, length], after)) = rest.split_first_chunk() {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        on_streams.push((usize::from(stream % 8), bytes));
        rest = after;
    }
    on_streams
}

/// What a connection makes of bytes on its own streams, each cut as `pieces` says.
fn hear(
    side: Side,
    on_streams: &[(usize, &[u8])],
    pieces: impl Fn(&[u8]) -> Vec<Bytes>,
) -> (Vec<StreamEvent>, Option<Broken>) {
    let now = Instant::now();
    let mut core = Core::new(side, now);
    let mut streams: [PeerStream; 8] = std::array::from_fn(|_| PeerStream::new());
    let mut heard = Vec::new();
    for (stream, bytes) in on_streams {
        for piece in pieces(bytes) {
            streams[*stream].push(piece);
            loop {
                match core.next(&mut streams[*stream], now, 1) {
                    Ok(Some(said)) => heard.push(said),
                    Ok(None) => break,
                    Err(broken) => return (heard, Some(broken)),
                }
            }
        }
    }
    (heard, None)
}

/// The first byte of an input says which side hears: 0 a server, 1 a client. After it [`on_streams`].
#[test]
fn what_a_peer_says_on_its_own_streams_means_the_same_in_whatever_pieces_it_comes() {
    let property = |input: &[u8]| {
        let Some((side, rest)) = input.split_first() else {
            return "nothing".to_owned();
        };
        let side = match side % 2 {
            0 => Side::Server,
            _ => Side::Client,
        };
        let on_streams = on_streams(rest);
        let whole = |bytes: &[u8]| vec![Bytes::copy_from_slice(bytes)];
        let heard = hear(side, &on_streams, whole);
        for size in [1, 2, 3, 7] {
            let cut = |bytes: &[u8]| bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(hear(side, &on_streams, cut), heard, "in pieces of {size}");
        }
        let (said, broken) = heard;
        let settings = said
            .iter()
            .filter(|said| matches!(said, StreamEvent::Settings(_)));
        assert!(settings.count() <= 1);
        let ids = said.iter().filter_map(|said| match said {
            StreamEvent::Goaway(id) => Some(*id),
            StreamEvent::Settings(_) | StreamEvent::Ignore => None,
        });
        assert!(ids.is_sorted_by(|earlier, later| earlier >= later && later % 4 == 0));
        assert!(said.len() <= limits::CONTROL_EVENTS as usize);
        match broken {
            Some(Broken { code, reason }) => format!("{code:?}: {reason}"),
            None => format!("{} said", said.len().min(4)),
        }
    };
    let seen = target("http3_connection")
        .longest(2000)
        .rounds(10_000)
        .run(property);
    seen.expect("2 said")
        .expect("H3_EXCESSIVE_LOAD: control flood");
}

const SECTION: Limits = Limits {
    size: 4096,
    fields: 40,
    overhead: limits::FIELD_OVERHEAD,
};

fn fields(section: &[u8]) -> (Vec<Field>, Result<(), DecodeError>) {
    let mut fields = Vec::new();
    let end = qpack::decode(&Bytes::copy_from_slice(section), SECTION, |field| {
        fields.push(field);
        Ok::<_, DecodeError>(())
    });
    (fields, end)
}

/// An input is an encoded field section.
#[test]
fn field_sections_cost_no_more_than_their_limit_and_are_read_as_they_are_written() {
    let property = |input: &[u8]| {
        let (found, end) = fields(input);
        let size: usize = found
            .iter()
            .map(|field| field.name.len() + field.value.len())
            .sum();
        let cost = size as u64 + found.len() as u64 * SECTION.overhead;
        assert!(cost <= SECTION.size && found.len() <= SECTION.fields);
        for sensitive in [false, true] {
            let mut encoder = Encoder::new();
            for field in &found {
                encoder.field(&field.name, &field.value, sensitive);
            }
            assert_eq!(fields(encoder.section()), (found.clone(), Ok(())));
        }
        format!("{} fields, {end:?}", found.len().min(3))
    };
    let seen = target("qpack_sections")
        .longest(6000)
        .rounds(30_000)
        .run(property);
    seen.expect("3 fields, Ok(())")
        .expect("3 fields, Err(TooLarge)")
        .expect("0 fields, Err(Failed)");
}

/// The lines of an input, each a field: `:method: GET`. In a value `^J` is a line feed.
fn section(lines: &[u8]) -> Bytes {
    let mut encoder = Encoder::new();
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let colon = line.iter().skip(1).position(|byte| *byte == b':');
        let (name, rest) = line.split_at(colon.map_or(line.len(), |at| at + 1));
        let value = rest
            .strip_prefix(b": ")
            .or(rest.strip_prefix(b":"))
            .unwrap_or(rest);
        let value = replaced(value, b"^J", b"\n");
        encoder.field(name, &value, false);
    }
    Bytes::copy_from_slice(encoder.section())
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|part| part == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// That HTTP/1.1 can say it, and nothing else by it.
fn assert_is_safe(headers: &HeaderMap) {
    let mut size = 0;
    for (name, value) in headers {
        assert!(!name.as_str().bytes().any(|byte| byte.is_ascii_uppercase()));
        let bytes = value.as_bytes();
        assert!(
            !bytes
                .iter()
                .any(|byte| matches!(byte, b'\r' | b'\n' | b'\0'))
        );
        assert!(bytes.trim_ascii().len() == bytes.len(), "{name}: {value:?}");
        for refused in [
            "connection",
            "transfer-encoding",
            "upgrade",
            "keep-alive",
            "proxy-connection",
        ] {
            assert_ne!(name, refused);
        }
        assert!(name != "te" || bytes.eq_ignore_ascii_case(b"trailers"));
        size += name.as_str().len() + bytes.len() + limits::FIELD_OVERHEAD as usize;
    }
    assert!(size as u64 <= limits::FIELD_SECTION_SIZE && headers.len() <= limits::FIELDS);
}

/// A declared length is the one that is obeyed.
fn assert_is_framed(headers: &HeaderMap, length: BodyLength) {
    let declared: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    assert!(declared.len() <= 1);
    if let Some(declared) = declared.first() {
        let number = declared.to_str().unwrap().parse::<u64>().unwrap();
        assert!(length.left() == Some(number) || length == BodyLength::NONE);
    }
}

fn refused(error: &MessageError) -> String {
    match error {
        MessageError::Connection(_, reason) | MessageError::Malformed(reason) => {
            (*reason).to_owned()
        }
        MessageError::TooLarge => "too large".to_owned(),
    }
}

const WORDS: &[&str] = &[
    "\n",
    ": ",
    ":method",
    ":scheme",
    ":authority",
    ":path",
    ":status",
    ":protocol",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
    "cookie",
    "te",
    "upgrade",
    "chunked",
    "trailers",
    "CONNECT",
    "OPTIONS",
    "HEAD",
    "https",
    "*",
    "/",
    "//",
    "@",
    "[::1]",
    "^J",
    "\r",
    "\0",
    "\u{e9}",
    "\t",
    "200",
    "101",
    "204",
    "304",
    "100",
];

/// An input is the fields of a request.
#[test]
fn a_request_that_is_taken_is_sent_on_as_it_came_and_says_nothing_else_in_http1() {
    let property = |input: &[u8]| {
        let (head, length) = match message::decode_request(&section(input)) {
            Ok(taken) => taken,
            Err(error) => return refused(&error),
        };
        assert_is_safe(&head.headers);
        assert_is_framed(&head.headers, length);
        assert!(!head.headers.contains_key(HOST));
        let authority = head.uri.authority().unwrap();
        assert!(!authority.host().is_empty() && !authority.as_str().contains('@'));
        if head.method == Method::CONNECT {
            assert!(authority.port_u16().is_some() && head.uri.path_and_query().is_none());
            assert_eq!(length, BodyLength::UNDECLARED);
        } else {
            let path = head.uri.path_and_query().unwrap().as_str();
            assert!(path.starts_with('/') || path == "*" && head.method == Method::OPTIONS);
            assert!(
                path.bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'#')
            );
        }
        match message::encode_request(&head, u64::MAX) {
            Ok((frame, written)) => {
                assert_eq!(written, length);
                let (again, length_again) =
                    message::decode_request(&message::section(frame)).unwrap();
                assert_eq!(length_again, length);
                assert_eq!((again.method, again.uri), (head.method, head.uri));
                assert_eq!(again.headers, head.headers);
            }
            Err(error) => assert_eq!(error, HeadError::TooLarge),
        }
        "taken".to_owned()
    };
    let seen = target("http3_requests")
        .words(WORDS)
        .rounds(30_000)
        .run(property);
    seen.expect("taken").expect("too large");
}

/// The first line of an input is the method of the request, the others are the fields of the response.
#[test]
fn a_response_that_is_taken_is_sent_on_as_it_came_and_says_nothing_else_in_http1() {
    let property = |input: &[u8]| {
        let end = input
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(input.len());
        let (method, lines) = input.split_at(end);
        let Ok(method) = Method::from_bytes(method) else {
            return "no method".to_owned();
        };
        let (head, length) = match message::decode_response(&section(lines), &method) {
            Ok(taken) => taken,
            Err(error) => return refused(&error),
        };
        assert_is_safe(&head.headers);
        assert_is_framed(&head.headers, length);
        assert_ne!(head.status, 101);
        match message::encode_response(&head, &method, u64::MAX) {
            Ok((frame, written)) => {
                assert_eq!(written, length);
                let section = message::section(frame);
                let (again, length_again) = message::decode_response(&section, &method).unwrap();
                assert_eq!(length_again, length);
                assert_eq!((again.status, again.headers), (head.status, head.headers));
            }
            Err(error) => assert_eq!(error, HeadError::TooLarge),
        }
        format!("taken, with {:?}", length.left().map(|left| left.min(1)))
    };
    let seen = target("http3_responses")
        .words(WORDS)
        .rounds(30_000)
        .run(property);
    seen.expect("taken, with Some(1)")
        .expect("taken, with None");
}

/// An input is the fields of trailers.
#[test]
fn trailers_that_are_taken_are_sent_on_as_they_came_and_frame_nothing() {
    let property = |input: &[u8]| {
        let trailers = match message::decode_trailers(&section(input)) {
            Ok(trailers) => trailers,
            Err(error) => return refused(&error),
        };
        assert_is_safe(&trailers);
        for forbidden in [
            "content-length",
            "host",
            "te",
            "trailer",
            "authorization",
            "cookie",
            "set-cookie",
        ] {
            assert!(!trailers.contains_key(forbidden));
        }
        let frame = message::encode_trailers(&trailers, u64::MAX).unwrap();
        let again = message::decode_trailers(&message::section(frame)).unwrap();
        assert_eq!(again, trailers);
        format!("{} taken", trailers.len().min(3))
    };
    let seen = target("http3_trailers")
        .words(WORDS)
        .rounds(30_000)
        .run(property);
    seen.expect("0 taken").expect("3 taken");
}
