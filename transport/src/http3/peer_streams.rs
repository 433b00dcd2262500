//! The streams that belong to the connection: our control stream and the peer's unidirectional
//! ones (RFC 9114 section 6.2). One future per connection, polled by its owner.
//!
//! This side opens no QPACK streams: with a table of capacity 0 they would stay empty.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use super::chunks::Chunks;
use super::code::ErrorCode;
use super::control::{PeerControl, Said};
use super::frame::{self, Event, FrameError, FrameReader};
use super::limits;
use super::qpack::{InstructionReader, StreamKind};
use super::settings;
use super::shared::{Shared, Side};
use super::varint;
use crate::error::ConnectionError;

const CONTROL: u64 = 0x00;
const PUSH: u64 = 0x01;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// Serves the connection's own streams until it ends; says why it ended.
pub(super) async fn drive(shared: Arc<Shared>) -> ConnectionError {
    match serve(&shared).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

async fn serve(shared: &Arc<Shared>) -> Result<Never, ConnectionError> {
    let quic = &shared.quic;
    let control = keep_control(shared);
    tokio::pin!(control);
    let known = Mutex::new(Known::new(Instant::now()));
    let mut streams = FuturesUnordered::new();
    let stopped_readers = shared.give_up_stopped_readers();
    tokio::pin!(stopped_readers);
    let hold_back = shared.hold_back_while_behind();
    tokio::pin!(hold_back);
    let send_window = shared.watch_send_window();
    tokio::pin!(send_window);
    loop {
        tokio::select! {
            never = &mut stopped_readers => match never {},
            never = &mut send_window => match never {},
            // Only a client opens request streams (RFC 9114 section 6.1).
            never = &mut hold_back, if shared.side == Side::Server => match never {},
            stream = quic.accept_uni(), if streams.len() < limits::UNIDIRECTIONAL_STREAMS => {
                let stream = stream.map_err(|error| shared.lost(error))?;
                streams.push(read_stream(shared, &known, stream));
            }
            Some(result) = streams.next(), if !streams.is_empty() => result?,
            //= https://www.rfc-editor.org/rfc/rfc9114#section-6.1
            //# Clients MUST treat receipt of a server-initiated bidirectional stream as a
            //# connection error of type H3_STREAM_CREATION_ERROR
            stream = quic.accept_bi(), if shared.side == Side::Client => {
                stream.map_err(|error| shared.lost(error))?;
                return Err(shared.violation(
                    ErrorCode::H3_STREAM_CREATION_ERROR,
                    "a bidirectional stream of the server",
                ));
            }
            error = &mut control => return Err(error),
        }
    }
}

/// Opens this side's control stream, and says on it what is to be said, for as long as the connection lives. Beside
/// the rest: a peer that lets this side open none must not keep it from looking after the connection.
async fn keep_control(shared: &Shared) -> ConnectionError {
    let said = in_time(
        shared,
        "the peer takes no control stream",
        open_control(shared),
    )
    .await;
    let mut control = match said {
        Ok(control) => control,
        Err(error) => return error,
    };
    let stopped = control.stopped();
    tokio::pin!(stopped);
    let mut outlook = shared.outlook.subscribe();
    // Not only what changes from here on: the shutdown may have come first.
    outlook.mark_changed();
    loop {
        tokio::select! {
            Ok(()) = outlook.changed(), if shared.side == Side::Server => {
                let Some(id) = outlook.borrow_and_update().goaway else {
                    continue;
                };
                let goaway = write_goaway(shared, &mut control, id);
                if let Err(error) = in_time(shared, "the peer takes no GOAWAY", goaway).await {
                    return error;
                }
            }
            stopped = &mut stopped => {
                return match stopped {
                    Ok(_) | Err(quinn::StoppedError::ZeroRttRejected) => closed_critical(shared),
                    Err(quinn::StoppedError::ConnectionLost(error)) => shared.lost(error),
                };
            }
        }
    }
}

/// Closes the connection if the peer does not let this side say something on its control stream.
async fn in_time<T>(
    shared: &Shared,
    reason: &'static str,
    said: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    match timeout(limits::CONTROL_WAIT, said).await {
        Ok(said) => said,
        //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
        //# the transport parameters sent by both clients and servers MUST allow the peer to create
        //# at least three unidirectional streams
        Err(_) => Err(shared.violation(ErrorCode::H3_GENERAL_PROTOCOL_ERROR, reason)),
    }
}

async fn open_control(shared: &Shared) -> Result<quinn::SendStream, ConnectionError> {
    let opened = shared.quic.open_uni().await;
    let mut control = opened.map_err(|error| shared.lost(error))?;
    let mut payload = BytesMut::new();
    settings::encode(&mut payload);
    let mut out = BytesMut::new();
    varint::encode(CONTROL, &mut out);
    //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
    //# Each side MUST initiate a single control stream at the beginning of the connection and
    //# send its SETTINGS frame as the first frame on this stream.
    frame::put_frame(frame::SETTINGS, &payload, &mut out);
    write_control(shared, &mut control, out).await?;
    Ok(control)
}

async fn write_goaway(
    shared: &Shared,
    control: &mut quinn::SendStream,
    id: u64,
) -> Result<(), ConnectionError> {
    let mut payload = BytesMut::new();
    varint::encode(id, &mut payload);
    let mut out = BytesMut::new();
    frame::put_frame(frame::GOAWAY, &payload, &mut out);
    write_control(shared, control, out).await
}

async fn write_control(
    shared: &Shared,
    control: &mut quinn::SendStream,
    bytes: BytesMut,
) -> Result<(), ConnectionError> {
    match control.write_chunk(bytes.freeze()).await {
        Ok(()) => Ok(()),
        Err(quinn::WriteError::ConnectionLost(error)) => Err(shared.lost(error)),
        Err(
            quinn::WriteError::Stopped(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected,
        ) => Err(closed_critical(shared)),
    }
}

/// What is known of the peer's streams.
struct Known {
    control: bool,
    encoder: bool,
    decoder: bool,
    period_start: Instant,
    events: u32,
    /// PRIORITY_UPDATE frames that may come without being such events.
    updates_left: u32,
    /// Requests of the peer, which wrap around, when that was last counted.
    requests: u32,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self {
            control: false,
            encoder: false,
            decoder: false,
            period_start: now,
            events: 0,
            updates_left: limits::PRIORITY_UPDATES_AHEAD,
            requests: 0,
        }
    }

    /// Whether a PRIORITY_UPDATE is one that requests bring with them; there were so many `requests`.
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

async fn read_stream(
    shared: &Shared,
    known: &Mutex<Known>,
    stream: quinn::RecvStream,
) -> Result<(), ConnectionError> {
    let mut reader = Reader {
        shared,
        stream,
        chunks: Chunks::default(),
    };
    let Some(kind) = reader.stream_type().await? else {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
        //# A receiver MUST tolerate unidirectional streams being closed or reset prior to the
        //# reception of the unidirectional stream header.
        return count(shared, known);
    };
    match kind {
        CONTROL => {
            once(shared, known, |known| &mut known.control)?;
            reader.control(known).await
        }
        QPACK_ENCODER => {
            once(shared, known, |known| &mut known.encoder)?;
            let error = ErrorCode::QPACK_ENCODER_STREAM_ERROR;
            reader.instructions(StreamKind::Encoder, error).await
        }
        QPACK_DECODER => {
            once(shared, known, |known| &mut known.decoder)?;
            let error = ErrorCode::QPACK_DECODER_STREAM_ERROR;
            reader.instructions(StreamKind::Decoder, error).await
        }
        //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.2
        //# Only servers can push; if a server receives a client-initiated push stream, this MUST
        //# be treated as a connection error of type H3_STREAM_CREATION_ERROR.
        PUSH => Err(match shared.side {
            Side::Server => shared.violation(
                ErrorCode::H3_STREAM_CREATION_ERROR,
                "a push stream of the client",
            ),
            Side::Client => {
                shared.violation(ErrorCode::H3_ID_ERROR, "a push stream without MAX_PUSH_ID")
            }
        }),
        //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2
        //# The recipient MUST either abort reading of the stream or discard incoming data without
        //# further processing.
        _ => {
            let code = ErrorCode::H3_STREAM_CREATION_ERROR.to_quic();
            // Fails only when the stream has ended already.
            let _ = reader.stream.stop(code);
            count(shared, known)
        }
    }
}

/// Reads one unidirectional stream.
struct Reader<'a> {
    shared: &'a Shared,
    stream: quinn::RecvStream,
    chunks: Chunks,
}

impl Reader<'_> {
    /// More bytes; `false` when the stream has ended, cleanly or by a reset.
    async fn fill(&mut self) -> Result<bool, ConnectionError> {
        match self.stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                self.chunks.push(chunk.bytes);
                Ok(true)
            }
            Err(quinn::ReadError::ConnectionLost(error)) => Err(self.shared.lost(error)),
            Ok(None)
            | Err(
                quinn::ReadError::Reset(_)
                | quinn::ReadError::ClosedStream
                | quinn::ReadError::IllegalOrderedRead
                | quinn::ReadError::ZeroRttRejected,
            ) => Ok(false),
        }
    }

    async fn stream_type(&mut self) -> Result<Option<u64>, ConnectionError> {
        let mut bytes = BytesMut::new();
        loop {
            while let Some(byte) = self.chunks.next_byte() {
                bytes.extend_from_slice(&[byte]);
                if let Some((kind, _)) = varint::decode(&bytes) {
                    return Ok(Some(kind));
                }
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn control(&mut self, known: &Mutex<Known>) -> Result<(), ConnectionError> {
        let mut frames = FrameReader::new(frame::StreamKind::Control);
        let mut control = PeerControl::new(self.shared.side);
        loop {
            match frames.next(&mut self.chunks) {
                Ok(Some(Event::Control(frame, payload))) => {
                    count_frame(self.shared, known, frame)?;
                    match control.frame(frame, &payload) {
                        Ok(Some(Said::Settings(settings))) => self.shared.set_settings(settings),
                        Ok(Some(Said::Goaway(id))) => {
                            self.shared
                                .outlook
                                .send_modify(|outlook| outlook.goaway = Some(id));
                        }
                        Ok(None) => {}
                        Err(broken) => {
                            return Err(self.shared.violation(broken.code, broken.reason));
                        }
                    }
                }
                Ok(Some(Event::Data(_) | Event::Headers(_))) => {
                    let code = ErrorCode::H3_FRAME_UNEXPECTED;
                    return Err(self
                        .shared
                        .violation(code, "a message on the control stream"));
                }
                Ok(None) => {
                    if !self.fill().await? {
                        return Err(closed_critical(self.shared));
                    }
                }
                Err(FrameError::Connection(code, reason)) => {
                    return Err(self.shared.violation(code, reason));
                }
                Err(FrameError::HeadersTooLarge) => {
                    let code = ErrorCode::H3_FRAME_UNEXPECTED;
                    return Err(self.shared.violation(code, "HEADERS on the control stream"));
                }
            }
        }
    }

    async fn instructions(
        &mut self,
        kind: StreamKind,
        error: ErrorCode,
    ) -> Result<(), ConnectionError> {
        let mut reader = InstructionReader::new(kind);
        loop {
            while !self.chunks.is_empty() {
                let bytes = self.chunks.take(usize::MAX);
                if reader.read(&bytes).is_err() {
                    let reason = "a QPACK instruction for a table of capacity 0";
                    return Err(self.shared.violation(error, reason));
                }
            }
            if !self.fill().await? {
                return Err(closed_critical(self.shared));
            }
        }
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//# Only one control stream per peer is permitted; receipt of a second stream claiming to be a
//# control stream MUST be treated as a connection error of type H3_STREAM_CREATION_ERROR.
fn once(
    shared: &Shared,
    known: &Mutex<Known>,
    stream: impl FnOnce(&mut Known) -> &mut bool,
) -> Result<(), ConnectionError> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(stream(&mut known), true) {
        let code = ErrorCode::H3_STREAM_CREATION_ERROR;
        return Err(shared.violation(code, "a second stream of one type"));
    }
    Ok(())
}

/// As [`count`], for a frame of the control stream.
fn count_frame(shared: &Shared, known: &Mutex<Known>, frame: u64) -> Result<(), ConnectionError> {
    //= https://www.rfc-editor.org/rfc/rfc9218#section-7.2
    //# The client can send the PRIORITY_UPDATE frame before or after the request
    if frame == frame::PRIORITY_UPDATE {
        let streams = &shared.streams;
        let requests = streams.finished().wrapping_add(streams.open());
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_due(requests) {
            return Ok(());
        }
    }
    count(shared, known)
}

fn count(shared: &Shared, known: &Mutex<Known>) -> Result<(), ConnectionError> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.count(Instant::now()) {
        return Ok(());
    }
    let code = ErrorCode::H3_EXCESSIVE_LOAD;
    Err(shared.violation(code, "control flood"))
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
//# If either control stream is closed at any point, this MUST be treated as a connection error of
//# type H3_CLOSED_CRITICAL_STREAM.
fn closed_critical(shared: &Shared) -> ConnectionError {
    let code = ErrorCode::H3_CLOSED_CRITICAL_STREAM;
    shared.violation(code, "a critical stream was closed")
}
