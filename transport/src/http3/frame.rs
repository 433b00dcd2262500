//! Frames of HTTP/3 (RFC 9114 section 7): an incremental reader, and headers to write. Pure.
//!
//! The reader buffers only a header of at most 16 bytes, and payloads that must be complete; it judges their
//! size by the length in the header before it keeps any of them.

use bytes::{BufMut, Bytes, BytesMut};

use super::chunks::Chunks;
use super::code::ErrorCode;
use super::limits;
use super::varint;

pub(super) const DATA: u64 = 0x00;
pub(super) const HEADERS: u64 = 0x01;
pub(super) const CANCEL_PUSH: u64 = 0x03;
pub(super) const SETTINGS: u64 = 0x04;
pub(super) const PUSH_PROMISE: u64 = 0x05;
pub(super) const GOAWAY: u64 = 0x07;
pub(super) const MAX_PUSH_ID: u64 = 0x0d;
/// Of a request (RFC 9218 section 7.2). It has no effect here.
pub(super) const PRIORITY_UPDATE: u64 = 0x0f_0700;

/// The longest frame header, in bytes: two integers.
pub(super) const HEADER_MAX: usize = 2 * varint::LENGTH_MAX;

/// The kind of stream that is read: it decides which frames are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// A request stream, either direction.
    Request {
        /// Whether this side is the client.
        client: bool,
    },
    /// The peer's control stream.
    Control,
}

/// The reader's findings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A piece of a DATA frame's payload, never empty.
    Data(Bytes),
    /// A whole encoded field section.
    Headers(Bytes),
    /// A whole frame of the control stream: type and payload. Of an unknown type: its header only.
    Control(u64, Bytes),
}

/// Why reading must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// A connection error.
    Connection(ErrorCode, &'static str),
    /// The field section is longer than this side accepts.
    HeadersTooLarge,
}

/// Finds frames in the bytes of one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    kind: StreamKind,
    state: State,
    /// Frames without payload for the reader since the last frame that had some.
    futile: u32,
}

#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; HEADER_MAX],
        length: usize,
    },
    Data {
        left: u64,
    },
    Skip {
        left: u64,
    },
    Collect {
        frame: u64,
        left: usize,
        collected: BytesMut,
    },
}

impl State {
    const START: Self = Self::Header {
        bytes: [0; HEADER_MAX],
        length: 0,
    };
}

/// How to treat a frame, known from its header.
enum Plan {
    Data,
    Skip,
    Collect { max: u64 },
}

impl FrameReader {
    pub(super) fn new(kind: StreamKind) -> Self {
        Self {
            kind,
            state: State::START,
            futile: 0,
        }
    }

    /// Takes bytes from `input` up to the next event; `None` when `input` is used up.
    pub(super) fn next(&mut self, input: &mut Chunks) -> Result<Option<Event>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, length } => {
                    let Some(header) = read_header(bytes, length, input) else {
                        return Ok(None);
                    };
                    if let Some(event) = self.begin(header.frame, header.length, input)? {
                        return Ok(Some(event));
                    }
                }
                State::Data { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let data = input.take(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::START;
                    }
                    self.futile = 0;
                    return Ok(Some(Event::Data(data)));
                }
                State::Skip { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    *left -= input.skip(usize::try_from(*left).unwrap_or(usize::MAX)) as u64;
                    if *left == 0 {
                        self.state = State::START;
                    }
                }
                State::Collect {
                    frame,
                    left,
                    collected,
                } => {
                    let before = collected.len();
                    input.copy_to(collected, *left);
                    *left -= collected.len() - before;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let frame = *frame;
                    let payload = std::mem::take(collected).freeze();
                    self.state = State::START;
                    return Ok(Some(self.whole(frame, payload)));
                }
            }
        }
    }

    /// Whether the stream may end here.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-7.1
    //# When a stream terminates cleanly, if the last frame on the stream was truncated, this
    //# MUST be treated as a connection error of type H3_FRAME_ERROR.
    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { length: 0, .. })
    }

    /// Bytes of memory for a payload that is to be whole.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Collect { collected, .. } => collected.capacity(),
            State::Header { .. } | State::Data { .. } | State::Skip { .. } => 0,
        }
    }

    fn begin(
        &mut self,
        frame: u64,
        length: u64,
        input: &mut Chunks,
    ) -> Result<Option<Event>, FrameError> {
        match self.plan(frame)? {
            Plan::Data if length > 0 => self.state = State::Data { left: length },
            Plan::Data => {
                self.state = State::START;
                self.count_futile()?;
            }
            Plan::Skip => {
                self.state = if length > 0 {
                    State::Skip { left: length }
                } else {
                    State::START
                };
                // The control stream counts all of its frames over time instead.
                if self.kind == StreamKind::Control {
                    return Ok(Some(Event::Control(frame, Bytes::new())));
                }
                self.count_futile()?;
            }
            Plan::Collect { max } => {
                let Some(length) = usize::try_from(length).ok().filter(|n| *n as u64 <= max) else {
                    return Err(self.too_long(frame));
                };
                // Usually the whole payload is in the present chunk: then no byte is copied.
                if input.front().len() >= length {
                    self.state = State::START;
                    let payload = input.take(length);
                    return Ok(Some(self.whole(frame, payload)));
                }
                // Grows with the bytes that arrive, not with the length in the header.
                self.state = State::Collect {
                    frame,
                    left: length,
                    collected: BytesMut::new(),
                };
            }
        }
        Ok(None)
    }

    fn whole(&self, frame: u64, payload: Bytes) -> Event {
        match self.kind {
            StreamKind::Request { .. } => Event::Headers(payload),
            StreamKind::Control => Event::Control(frame, payload),
        }
    }

    fn plan(&self, frame: u64) -> Result<Plan, FrameError> {
        let unexpected = |reason| {
            Err(FrameError::Connection(
                ErrorCode::H3_FRAME_UNEXPECTED,
                reason,
            ))
        };
        match (self.kind, frame) {
            (StreamKind::Request { .. }, DATA) => Ok(Plan::Data),
            (StreamKind::Request { .. }, HEADERS) => Ok(Plan::Collect {
                max: limits::FIELD_SECTION_SIZE,
            }),
            (StreamKind::Control, SETTINGS) => Ok(Plan::Collect {
                max: limits::SETTINGS_SIZE,
            }),
            (StreamKind::Control, GOAWAY | CANCEL_PUSH | MAX_PUSH_ID) => Ok(Plan::Collect {
                max: varint::LENGTH_MAX as u64,
            }),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.5
            //# A client MUST treat receipt of a PUSH_PROMISE frame that contains a larger push
            //# ID than the client has advertised as a connection error of H3_ID_ERROR.
            (StreamKind::Request { client: true }, PUSH_PROMISE) => Err(FrameError::Connection(
                ErrorCode::H3_ID_ERROR,
                "PUSH_PROMISE without MAX_PUSH_ID",
            )),
            (_, DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID) => {
                unexpected("a frame on the wrong stream")
            }
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.8
            //# their receipt MUST be treated as a connection error of type H3_FRAME_UNEXPECTED
            (_, 0x02 | 0x06 | 0x08 | 0x09) => unexpected("a frame of HTTP/2"),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-9
            //# Implementations MUST discard data or abort reading on unidirectional streams that
            //# have unknown or unsupported types; frames likewise.
            _ => Ok(Plan::Skip),
        }
    }

    fn too_long(&self, frame: u64) -> FrameError {
        match frame {
            HEADERS => FrameError::HeadersTooLarge,
            SETTINGS => FrameError::Connection(ErrorCode::H3_EXCESSIVE_LOAD, "SETTINGS too long"),
            _ => FrameError::Connection(ErrorCode::H3_FRAME_ERROR, "a frame of the wrong size"),
        }
    }

    fn count_futile(&mut self) -> Result<(), FrameError> {
        self.futile += 1;
        if self.futile > limits::FUTILE_FRAMES {
            return Err(FrameError::Connection(
                ErrorCode::H3_EXCESSIVE_LOAD,
                "a flood of empty or unknown frames",
            ));
        }
        Ok(())
    }
}

struct Header {
    frame: u64,
    length: u64,
}

/// Completes the header from `input`, one byte at a time only where it is split or short.
fn read_header(
    bytes: &mut [u8; HEADER_MAX],
    filled: &mut usize,
    input: &mut Chunks,
) -> Option<Header> {
    if *filled == 0
        && let Some((header, length)) = parse_header(input.front())
    {
        input.skip(length);
        return Some(header);
    }
    while let Some(byte) = input.next_byte() {
        // Two integers have at most 16 bytes, so a full buffer always parses.
        *bytes.get_mut(*filled)? = byte;
        *filled += 1;
        if let Some((header, _)) = parse_header(bytes.get(..*filled)?) {
            return Some(header);
        }
    }
    None
}

fn parse_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let (frame, frame_length) = varint::decode(bytes)?;
    let (length, length_length) = varint::decode(bytes.get(frame_length..)?)?;
    Some((Header { frame, length }, frame_length + length_length))
}

/// Appends the header of a DATA frame.
pub(super) fn put_data_header(length: u64, out: &mut BytesMut) {
    out.put_u8(DATA as u8);
    varint::encode(length, out);
}

/// Appends a whole frame.
pub(super) fn put_frame(frame: u64, payload: &[u8], out: &mut BytesMut) {
    varint::encode(frame, out);
    varint::encode(payload.len() as u64, out);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests;
