//! What the streams of one connection share: the QUIC connection, the peer, and its verdicts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::error::{ConnectionError, ErrorCode, StreamError};
use super::frame::FrameError;
use super::message::MessageError;
use super::reset_guard::{ResetGuard, Verdict};
use super::settings::Settings;
use crate::identity::PeerId;
use crate::pool::{ConnectionStatus, connection_status};
use crate::streams::{StreamSlot, Streams};

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

pub(super) struct Shared {
    pub(super) quic: quinn::Connection,
    pub(super) peer: PeerId,
    pub(super) streams: Arc<Streams>,
    pub(super) side: Side,
    /// The peer's settings once they have come.
    pub(super) settings: watch::Sender<Option<Settings>>,
    /// What those who wait on the connection must hear of.
    pub(super) outlook: watch::Sender<Outlook>,
    /// Copy of the setting, for every head that is written.
    field_section_size_max: AtomicU64,
    violation: OnceLock<ConnectionError>,
    resets: Mutex<ResetGuard>,
    exchanges: AtomicUsize,
    idle: Notify,
}

/// What is known of the connection's future.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outlook {
    /// The stream ID of a GOAWAY: received by a client, to be sent by a server.
    pub(super) goaway: Option<u64>,
    /// The peer owes acknowledgements for too long, and cannot be dialled anew either.
    pub(super) silent: bool,
}

impl Shared {
    pub(super) fn new(
        quic: quinn::Connection,
        peer: PeerId,
        streams: Arc<Streams>,
        side: Side,
    ) -> Arc<Self> {
        Arc::new(Self {
            quic,
            peer,
            streams,
            side,
            settings: watch::Sender::new(None),
            outlook: watch::Sender::default(),
            field_section_size_max: AtomicU64::new(Settings::default().field_section_size_max),
            violation: OnceLock::new(),
            resets: Mutex::new(ResetGuard::new()),
            exchanges: AtomicUsize::new(0),
            idle: Notify::new(),
        })
    }

    pub(super) fn status(&self) -> ConnectionStatus {
        connection_status(&self.quic, self.streams.open())
    }

    pub(super) fn field_section_size_max(&self) -> u64 {
        self.field_section_size_max.load(Ordering::Relaxed)
    }

    pub(super) fn set_settings(&self, settings: Settings) {
        self.field_section_size_max
            .store(settings.field_section_size_max, Ordering::Relaxed);
        self.settings.send_replace(Some(settings));
    }

    /// Closes the connection because the peer broke a rule; the first rule broken is what counts.
    pub(super) fn violation(&self, code: ErrorCode, reason: &'static str) -> ConnectionError {
        let error = self
            .violation
            .get_or_init(|| ConnectionError::PeerViolation { code, reason })
            .clone();
        self.quic.close(code.to_quic(), reason.as_bytes());
        error
    }

    /// QUIC's error as ours: a close of our own is told by its reason.
    pub(super) fn lost(&self, error: quinn::ConnectionError) -> ConnectionError {
        match (error.into(), self.violation.get()) {
            (ConnectionError::ClosedHere, Some(violation)) => violation.clone(),
            (error, _) => error,
        }
    }

    pub(super) fn frame_error(&self, error: FrameError) -> StreamError {
        match error {
            FrameError::Connection(code, reason) => self.violation(code, reason).into(),
            FrameError::HeadersTooLarge => StreamError::TooLarge("field section"),
        }
    }

    pub(super) fn message_error(&self, error: MessageError) -> StreamError {
        match error {
            MessageError::Connection(code, reason) => self.violation(code, reason).into(),
            MessageError::Malformed(reason) => StreamError::Malformed(reason),
            MessageError::TooLarge => StreamError::TooLarge("field section"),
        }
    }

    /// Done when no exchange is under way.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.exchanges.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// One request and its response: alive until both halves of the stream are dropped.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    opened: Instant,
    _slot: StreamSlot,
}

impl Exchange {
    /// Counts an exchange in and gives a guard for each of its halves.
    pub(super) fn begin(shared: &Arc<Shared>) -> (HalfGuard, HalfGuard) {
        shared.exchanges.fetch_add(1, Ordering::AcqRel);
        let exchange = Arc::new(Self {
            shared: Arc::clone(shared),
            opened: Instant::now(),
            _slot: shared.streams.enter(),
        });
        (
            HalfGuard::new(Arc::clone(&exchange)),
            HalfGuard::new(exchange),
        )
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.shared.exchanges.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Held by each half of a stream: remembers how it ended.
pub(super) struct HalfGuard {
    exchange: Arc<Exchange>,
    ended_by_peer: bool,
}

impl HalfGuard {
    fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            ended_by_peer: false,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.exchange.shared
    }

    /// The peer cut this half short, or made this side do it by a malformed message.
    pub(super) fn ended_by_peer(&mut self) {
        self.ended_by_peer = true;
    }
}

impl Drop for HalfGuard {
    fn drop(&mut self) {
        let shared = self.shared();
        if shared.side != Side::Server {
            return;
        }
        let verdict = shared
            .resets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended(self.exchange.opened.elapsed(), self.ended_by_peer);
        //= https://www.rfc-editor.org/rfc/rfc9114#section-10.5
        //# An endpoint MAY treat activity that is suspicious as a connection error of type
        //# H3_EXCESSIVE_LOAD
        if verdict == Verdict::Flood {
            shared.violation(ErrorCode::H3_EXCESSIVE_LOAD, "rapid resets");
        }
    }
}
