//! The streams that belong to the connection: our control stream and the peer's unidirectional ones (RFC 9114
//! section 6.2). One future per connection, polled by its owner: it moves the bytes of `connection_core.rs`,
//! which decides.
//!
//! This side opens no QPACK streams: with a table of capacity 0 they would stay empty.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use super::code::ErrorCode;
use super::connection_core::{CLOSED_CRITICAL, Core, PeerStream, StreamEvent, goaway, greeting};
use super::control::Broken;
use super::limits;
use super::shared::{Shared, Side};
use crate::error::ConnectionError;

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
    let core = Mutex::new(Core::new(shared.side, Instant::now().into_std()));
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
                streams.push(read_stream(shared, &core, stream));
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

/// Opens this side's control stream, and sends its frames on it for as long as the connection lives. It runs
/// beside the rest: a peer that lets this side open no stream must not keep it from serving the connection.
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
    // Not only changes from here on: the shutdown may have come first.
    outlook.mark_changed();
    loop {
        tokio::select! {
            Ok(()) = outlook.changed(), if shared.side == Side::Server => {
                let Some(id) = outlook.borrow_and_update().goaway else {
                    continue;
                };
                let said = write_control(shared, &mut control, goaway(id));
                if let Err(error) = in_time(shared, "the peer takes no GOAWAY", said).await {
                    return error;
                }
            }
            stopped = &mut stopped => {
                return match stopped {
                    Ok(_) | Err(quinn::StoppedError::ZeroRttRejected) => closed_for(shared, CLOSED_CRITICAL),
                    Err(quinn::StoppedError::ConnectionLost(error)) => shared.lost(error),
                };
            }
        }
    }
}

/// Closes the connection if the peer does not let this side send on its control stream.
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
    write_control(shared, &mut control, greeting()).await?;
    Ok(control)
}

async fn write_control(
    shared: &Shared,
    control: &mut quinn::SendStream,
    bytes: Bytes,
) -> Result<(), ConnectionError> {
    match control.write_chunk(bytes).await {
        Ok(()) => Ok(()),
        Err(quinn::WriteError::ConnectionLost(error)) => Err(shared.lost(error)),
        Err(
            quinn::WriteError::Stopped(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected,
        ) => Err(closed_for(shared, CLOSED_CRITICAL)),
    }
}

/// Reads one unidirectional stream to its end, or until its remaining bytes have no meaning.
async fn read_stream(
    shared: &Shared,
    core: &Mutex<Core>,
    mut stream: quinn::RecvStream,
) -> Result<(), ConnectionError> {
    let mut peer = PeerStream::new();
    loop {
        let more = match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                peer.push(chunk.bytes);
                true
            }
            Err(quinn::ReadError::ConnectionLost(error)) => return Err(shared.lost(error)),
            Ok(None)
            | Err(
                quinn::ReadError::Reset(_)
                | quinn::ReadError::ClosedStream
                | quinn::ReadError::IllegalOrderedRead
                | quinn::ReadError::ZeroRttRejected,
            ) => false,
        };
        if !more {
            let ended = lock(core).ended(&peer, Instant::now().into_std());
            return ended.map_err(|error| closed_for(shared, error));
        }
        let streams = &shared.streams;
        let requests = streams.finished().wrapping_add(streams.open());
        loop {
            let next = lock(core).next(&mut peer, Instant::now().into_std(), requests);
            match next.map_err(|error| closed_for(shared, error))? {
                None => break,
                Some(StreamEvent::Settings(settings)) => shared.set_settings(settings),
                Some(StreamEvent::Goaway(id)) => {
                    shared
                        .outlook
                        .send_modify(|outlook| outlook.goaway = Some(id));
                }
                Some(StreamEvent::Ignore) => {
                    let code = ErrorCode::H3_STREAM_CREATION_ERROR.to_quic();
                    // Fails only when the stream has ended already.
                    let _ = stream.stop(code);
                    return Ok(());
                }
            }
        }
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // No code under the lock can panic half-way.
    crate::locks::lock(core)
}

fn closed_for(shared: &Shared, broken: Broken) -> ConnectionError {
    shared.violation(broken.code, broken.reason)
}
