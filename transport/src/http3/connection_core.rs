//! Judges the bytes on the streams that belong to the connection, and decides what this side answers: a state
//! machine without IO. Pure.
//!
//! ```text
//! bytes of a unidirectional stream --push--> PeerStream --Core::next--> StreamEvent
//! its end ------------------------ended----> Core::ended
//! ```
//!
//! The driver (`peer_streams.rs`) makes a [`PeerStream`] for each stream, pushes the bytes that it reads, and
//! calls [`Core::next`] until that returns nothing. [`Broken`] is a connection error: the driver closes with
//! its code. [`RequestIds`] says which requests are taken after a GOAWAY. The rules of a control stream are
//! in `control.rs`.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::chunks::Chunks;
use super::code::ErrorCode;
use super::control::{self, Broken, PeerControl};
use super::frame::{self, Event, FrameError, FrameReader};
use super::limits;
use super::qpack::{InstructionReader, StreamKind};
use super::settings::{self, Settings};
use super::shared::Side;
use super::varint;

const CONTROL: u64 = 0x00;
const PUSH: u64 = 0x01;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// What an event on a stream of the peer means to the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEvent {
    /// The peer's settings; once only.
    Settings(Settings),
    /// To a client: requests on this stream ID and above will not be processed.
    Goaway(u64),
    /// The stream is of an unknown type: it is to be stopped.
    Ignore,
}

/// The state of all streams of the peer.
#[derive(Debug)]
pub(super) struct Core {
    /// Which side *this* endpoint is.
    side: Side,
    control: PeerControl,
    has_control: bool,
    has_encoder: bool,
    has_decoder: bool,
    budget: Budget,
}

/// One unidirectional stream of the peer.
#[derive(Debug)]
pub(super) struct PeerStream {
    chunks: Chunks,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// This many bytes of its type have come.
    Unknown(BytesMut),
    Control(FrameReader),
    Instructions(InstructionReader, ErrorCode),
    Ignored,
}

impl PeerStream {
    pub(super) fn new() -> Self {
        Self {
            chunks: Chunks::default(),
            kind: Kind::Unknown(BytesMut::new()),
        }
    }

    /// More of it has come.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.chunks.push(bytes);
    }
}

impl Core {
    pub(super) fn new(side: Side, now: Instant) -> Self {
        Self {
            side,
            control: PeerControl::new(side),
            has_control: false,
            has_encoder: false,
            has_decoder: false,
            budget: Budget::new(now),
        }
    }

    /// The next event in the bytes that were pushed; `None` until more come. `requests` is the number of
    /// requests that the peer has made; it wraps around.
    pub(super) fn next(
        &mut self,
        stream: &mut PeerStream,
        now: Instant,
        requests: u32,
    ) -> Result<Option<StreamEvent>, Broken> {
        loop {
            match &mut stream.kind {
                Kind::Unknown(seen) => {
                    let Some(kind) = stream_type(seen, &mut stream.chunks) else {
                        return Ok(None);
                    };
                    stream.kind = self.begin(kind)?;
                    if let Kind::Ignored = stream.kind {
                        self.count(now)?;
                        return Ok(Some(StreamEvent::Ignore));
                    }
                }
                Kind::Control(frames) => {
                    let Some((frame, payload)) = control_frame(frames, &mut stream.chunks)? else {
                        return Ok(None);
                    };
                    self.count_frame(frame, now, requests)?;
                    match self.control.frame(frame, &payload)? {
                        Some(control::ControlEvent::Settings(settings)) => {
                            return Ok(Some(StreamEvent::Settings(settings)));
                        }
                        Some(control::ControlEvent::Goaway(id)) => {
                            return Ok(Some(StreamEvent::Goaway(id)));
                        }
                        None => {}
                    }
                }
                Kind::Instructions(reader, code) => {
                    while !stream.chunks.is_empty() {
                        let bytes = stream.chunks.take(usize::MAX);
                        if reader.read(&bytes).is_err() {
                            let reason = "a QPACK instruction for a table of capacity 0";
                            return broken(*code, reason);
                        }
                    }
                    return Ok(None);
                }
                Kind::Ignored => return Ok(None),
            }
        }
    }

    /// A stream has ended, cleanly or by a reset, after all of its events were taken.
    pub(super) fn ended(&mut self, stream: &PeerStream, now: Instant) -> Result<(), Broken> {
        match stream.kind {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
            //# A receiver MUST tolerate unidirectional streams being closed or reset prior to the
            //# reception of the unidirectional stream header.
            Kind::Unknown(_) => self.count(now),
            Kind::Control(_) | Kind::Instructions(..) => Err(CLOSED_CRITICAL),
            Kind::Ignored => Ok(()),
        }
    }

    /// The type of a stream is known.
    fn begin(&mut self, kind: u64) -> Result<Kind, Broken> {
        match kind {
            CONTROL => {
                once(&mut self.has_control)?;
                Ok(Kind::Control(FrameReader::new(frame::StreamKind::Control)))
            }
            QPACK_ENCODER => {
                once(&mut self.has_encoder)?;
                let reader = InstructionReader::new(StreamKind::Encoder);
                let code = ErrorCode::QPACK_ENCODER_STREAM_ERROR;
                Ok(Kind::Instructions(reader, code))
            }
            QPACK_DECODER => {
                once(&mut self.has_decoder)?;
                let reader = InstructionReader::new(StreamKind::Decoder);
                let code = ErrorCode::QPACK_DECODER_STREAM_ERROR;
                Ok(Kind::Instructions(reader, code))
            }
            //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.2
            //# Only servers can push; if a server receives a client-initiated push stream, this MUST
            //# be treated as a connection error of type H3_STREAM_CREATION_ERROR.
            PUSH => match self.side {
                Side::Server => broken(
                    ErrorCode::H3_STREAM_CREATION_ERROR,
                    "a push stream of the client",
                ),
                Side::Client => broken(ErrorCode::H3_ID_ERROR, "a push stream without MAX_PUSH_ID"),
            },
            //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
            //# The recipient MUST either abort reading of the stream or discard incoming data without
            //# further processing.
            _ => Ok(Kind::Ignored),
        }
    }

    /// As [`Self::count`], for a frame of the control stream.
    fn count_frame(&mut self, frame: u64, now: Instant, requests: u32) -> Result<(), Broken> {
        //= https://www.rfc-editor.org/rfc/rfc9218#section-7.2
        //# The client can send the PRIORITY_UPDATE frame before or after the request
        if frame == frame::PRIORITY_UPDATE && self.budget.is_due(requests) {
            return Ok(());
        }
        self.count(now)
    }

    /// Counts a control frame or an unknown stream.
    fn count(&mut self, now: Instant) -> Result<(), Broken> {
        if self.budget.count(now) {
            return Ok(());
        }
        broken(ErrorCode::H3_EXCESSIVE_LOAD, "control flood")
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//# If either control stream is closed at any point, this MUST be treated as a connection error of
//# type H3_CLOSED_CRITICAL_STREAM.
pub(super) const CLOSED_CRITICAL: Broken = Broken {
    code: ErrorCode::H3_CLOSED_CRITICAL_STREAM,
    reason: "a critical stream was closed",
};

/// The first bytes of this side's control stream: the stream's type, and its settings.
//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//# Each side MUST initiate a single control stream at the beginning of the connection and
//# send its SETTINGS frame as the first frame on this stream.
pub(super) fn greeting() -> Bytes {
    let mut payload = BytesMut::new();
    settings::encode(&mut payload);
    let mut out = BytesMut::new();
    varint::encode(CONTROL, &mut out);
    frame::put_frame(frame::SETTINGS, &payload, &mut out);
    out.freeze()
}

/// The frame by which this side refuses requests on `id` and above.
pub(super) fn goaway(id: u64) -> Bytes {
    let mut payload = BytesMut::new();
    varint::encode(id, &mut payload);
    let mut out = BytesMut::new();
    frame::put_frame(frame::GOAWAY, &payload, &mut out);
    out.freeze()
}

/// Which request streams a server takes.
#[derive(Debug, Default)]
pub(super) struct RequestIds {
    /// The stream ID after the last one taken.
    next: u64,
    /// The first stream ID that is refused, once shut down.
    goaway: Option<u64>,
}

impl RequestIds {
    /// Whether the server takes the request on this stream.
    pub(super) fn take(&mut self, id: u64) -> bool {
        if self.goaway.is_some_and(|first| id >= first) {
            return false;
        }
        // Streams of one kind are four apart (RFC 9000 section 2.1).
        self.next = self.next.max(id + 4);
        true
    }

    /// Takes no more requests from here on. Returns the ID for the GOAWAY; `None` if one was sent already.
    pub(super) fn shut_down(&mut self) -> Option<u64> {
        if self.goaway.is_some() {
            return None;
        }
        self.goaway = Some(self.next);
        self.goaway
    }

    /// Whether it was shut down.
    pub(super) fn is_shut_down(&self) -> bool {
        self.goaway.is_some()
    }
}

fn stream_type(seen: &mut BytesMut, chunks: &mut Chunks) -> Option<u64> {
    while let Some(byte) = chunks.next_byte() {
        seen.extend_from_slice(&[byte]);
        if let Some((kind, _)) = varint::decode(seen) {
            return Some(kind);
        }
    }
    None
}

fn control_frame(
    frames: &mut FrameReader,
    chunks: &mut Chunks,
) -> Result<Option<(u64, Bytes)>, Broken> {
    let unexpected = |reason| broken(ErrorCode::H3_FRAME_UNEXPECTED, reason);
    match frames.next(chunks) {
        Ok(Some(Event::Control(frame, payload))) => Ok(Some((frame, payload))),
        Ok(Some(Event::Data(_) | Event::Headers(_))) => {
            unexpected("a message on the control stream")
        }
        Ok(None) => Ok(None),
        Err(FrameError::Connection(code, reason)) => broken(code, reason),
        Err(FrameError::HeadersTooLarge) => unexpected("HEADERS on the control stream"),
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//# Only one control stream per peer is permitted; receipt of a second stream claiming to be a
//# control stream MUST be treated as a connection error of type H3_STREAM_CREATION_ERROR.
fn once(has: &mut bool) -> Result<(), Broken> {
    if std::mem::replace(has, true) {
        let code = ErrorCode::H3_STREAM_CREATION_ERROR;
        return broken(code, "a second stream of one type");
    }
    Ok(())
}

fn broken<T>(code: ErrorCode, reason: &'static str) -> Result<T, Broken> {
    Err(Broken { code, reason })
}

/// How many frames the peer may send that ask for nothing.
#[derive(Debug)]
struct Budget {
    period_start: Instant,
    events: u32,
    /// PRIORITY_UPDATE frames that may come without counting as such events.
    updates_left: u32,
    /// The peer's requests, which wrap around, when they were last counted.
    requests: u32,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            period_start: now,
            events: 0,
            updates_left: limits::PRIORITY_UPDATES_AHEAD,
            requests: 0,
        }
    }

    /// Whether a PRIORITY_UPDATE is one of those that accompany requests, of which there were `requests`.
    fn is_due(&mut self, requests: u32) -> bool {
        let fresh = requests.wrapping_sub(std::mem::replace(&mut self.requests, requests));
        let more = fresh.saturating_mul(limits::PRIORITY_UPDATES_EACH);
        self.updates_left = self
            .updates_left
            .saturating_add(more)
            .min(limits::PRIORITY_UPDATES_AHEAD);
        let left = self.updates_left.checked_sub(1);
        self.updates_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts a control frame or an unknown stream; `false` when there are too many.
    fn count(&mut self, now: Instant) -> bool {
        if now.duration_since(self.period_start) >= limits::CONTROL_PERIOD {
            self.period_start = now;
            self.events = 0;
        }
        self.events += 1;
        self.events <= limits::CONTROL_EVENTS
    }
}

#[cfg(test)]
#[path = "connection_core_tests.rs"]
mod tests;
