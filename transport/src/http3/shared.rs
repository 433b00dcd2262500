//! The state that the streams of one connection share: the QUIC connection, the peer, and its verdicts.
//!
//! A part of the driver, and not of the core: it owns QUIC's handle, the locks between tasks and the wakers
//! of those that wait, so there is little left of it without them. What is decided here is decided by pure
//! parts, to which it tells the time: `reset_guard.rs` (streams cut short), `stopped_readers.rs` (streams
//! given up), `connection_core.rs` (GOAWAY and settings), and `lag::takes_on` (how many streams a slow worker
//! takes on).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::Poll;
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::code::ErrorCode;
use super::frame::FrameError;
use super::limits;
use super::message::MessageError;
use super::reset_guard::{Cut, ResetGuard, Verdict};
use super::settings::Settings;
use super::stopped_readers::{LastRead, WAITING, Watch};
use crate::acknowledged;
use crate::error::{ConnectionError, ReceiveError};
use crate::lag::takes_on;
use crate::limits::{PASS_INTERVAL, SEND_LOOK_INTERVAL, STREAM_SETTLED};
use crate::status::{ConnectionStatus, connection_status};
use crate::streams::{StreamSlot, Streams};

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

pub(super) struct Shared {
    pub(super) quic: quinn::Connection,
    /// When the peer's proof of identity expires, if it has one.
    expires: Option<SystemTime>,
    pub(super) streams: Arc<Streams>,
    pub(super) side: Side,
    /// The peer's settings once they have come.
    pub(super) settings: watch::Sender<Option<Settings>>,
    /// The events for which waiting tasks are woken.
    pub(super) outlook: watch::Sender<Outlook>,
    /// Copy of the setting, for every head that is written.
    field_section_size_max: AtomicU64,
    violation: OnceLock<ConnectionError>,
    resets: Mutex<ResetGuard>,
    /// Whether the peer's next request has to wait, see [`Self::paced_until`].
    paced: AtomicBool,
    /// The exchanges under way, by stream ID.
    exchanges: Mutex<BTreeMap<u64, Weak<Exchange>>>,
    idle: Notify,
    /// The number with which a read is stamped, see [`Watch::looks`].
    looks: AtomicU32,
    /// Streams given up because their readers stood still.
    given_up: AtomicU64,
}

/// The state that decides the connection's future.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outlook {
    /// The stream ID of a GOAWAY: received by a client, to be sent by a server.
    pub(super) goaway: Option<u64>,
    /// The peer's acknowledgements are overdue.
    pub(super) doubtful: bool,
    /// They have been overdue for too long, and the peer cannot be dialled anew either.
    pub(super) silent: bool,
}

impl Shared {
    pub(super) fn new(
        quic: quinn::Connection,
        expires: Option<SystemTime>,
        streams: Arc<Streams>,
        side: Side,
    ) -> Arc<Self> {
        Arc::new(Self {
            quic,
            expires,
            streams,
            side,
            settings: watch::Sender::new(None),
            outlook: watch::Sender::default(),
            field_section_size_max: AtomicU64::new(Settings::default().field_section_size_max),
            violation: OnceLock::new(),
            resets: Mutex::new(ResetGuard::new(Instant::now().into_std())),
            paced: AtomicBool::new(false),
            exchanges: Mutex::default(),
            idle: Notify::new(),
            looks: AtomicU32::new(0),
            given_up: AtomicU64::new(0),
        })
    }

    /// Whether the peer's proof has expired at `now`: it gets no new streams.
    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn status(&self) -> ConnectionStatus {
        let given_up = self.given_up.load(Ordering::Relaxed);
        connection_status(&self.quic, self.streams.open(), given_up)
    }

    pub(super) fn field_section_size_max(&self) -> u64 {
        self.field_section_size_max.load(Ordering::Relaxed)
    }

    pub(super) fn set_settings(&self, settings: Settings) {
        self.field_section_size_max
            .store(settings.field_section_size_max, Ordering::Relaxed);
        self.settings.send_replace(Some(settings));
    }

    /// Closes the connection because the peer broke a rule; the first broken rule counts.
    pub(super) fn violation(&self, code: ErrorCode, reason: &'static str) -> ConnectionError {
        let error = self
            .violation
            .get_or_init(|| ConnectionError::PeerViolation {
                code: code.reason(),
                reason,
            })
            .clone();
        self.quic.close(code.to_quic(), reason.as_bytes());
        error
    }

    /// Translates QUIC's error: a close by this side is reported with its own reason.
    pub(super) fn lost(&self, error: quinn::ConnectionError) -> ConnectionError {
        match (error.into(), self.violation.get()) {
            (ConnectionError::ClosedHere, Some(violation)) => violation.clone(),
            (error, _) => error,
        }
    }

    pub(super) fn frame_error(&self, error: FrameError) -> ReceiveError {
        match error {
            FrameError::Connection(code, reason) => self.violation(code, reason).into(),
            FrameError::HeadersTooLarge => ReceiveError::TooLarge("field section"),
        }
    }

    pub(super) fn message_error(&self, error: MessageError) -> ReceiveError {
        match error {
            MessageError::Connection(code, reason) => self.violation(code, reason).into(),
            MessageError::Malformed(reason) => ReceiveError::Malformed(reason),
            MessageError::TooLarge => ReceiveError::TooLarge("field section"),
        }
    }

    /// Until when the peer's next request waits, after it has cancelled too many. Called for each request.
    pub(super) fn paced_until(&self) -> Option<Instant> {
        if !self.paced.load(Ordering::Relaxed) {
            return None;
        }
        let until = lock(&self.resets).resumes().into();
        let waits = Instant::now() < until;
        self.paced.store(waits, Ordering::Relaxed);
        waits.then_some(until)
    }

    /// The peer has cut a stream short.
    fn cut(&self, cut: Cut) {
        let verdict = lock(&self.resets).cut(cut, Instant::now().into_std());
        match verdict {
            Verdict::Continue => {}
            Verdict::Pace => self.paced.store(true, Ordering::Relaxed),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-10.5
            //# An endpoint MAY treat activity that is suspicious as a connection error of type
            //# H3_EXCESSIVE_LOAD
            Verdict::Flood => {
                self.violation(ErrorCode::H3_EXCESSIVE_LOAD, "rapid resets");
            }
        }
    }

    /// Done when no exchange is under way.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if lock(&self.exchanges).is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// Gives up stopped readers whenever they leave no room for the other streams.
    pub(super) async fn give_up_stopped_readers(&self) -> Infallible {
        self.streams.window_at_bound().await;
        let mut watch = Watch::default();
        loop {
            sleep(limits::STOPPED_LOOK_INTERVAL).await;
            let frames = self.quic.stats().frame_rx.stream;
            // Ending an exchange here takes the lock, so the lock must not be held.
            let exchanges: Vec<_> = lock(&self.exchanges).values().cloned().collect();
            let exchanges: BTreeMap<u64, _> = exchanges
                .iter()
                .filter_map(Weak::upgrade)
                .filter(|exchange| lock(&exchange.receive).is_some())
                .map(|exchange| (exchange.id, exchange))
                .collect();
            let last_reads = exchanges.iter().map(|(id, exchange)| {
                let last = exchange.last_read.load(Ordering::Relaxed);
                (*id, last)
            });
            let allowed = self.streams.allowed_stopped_readers();
            for id in watch.look(frames, allowed, last_reads) {
                if exchanges
                    .get(&id)
                    .is_some_and(|exchange| exchange.give_up())
                {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.looks.store(watch.looks(), Ordering::Relaxed);
        }
    }

    /// While this worker is behind, lets the peer have about as many streams under way as will be finished
    /// soon. Afterwards, and after a short delay, it lets the peer have as many as it needs again.
    pub(super) async fn hold_back_while_behind(&self) -> Infallible {
        loop {
            tokio::select! {
                biased;
                () = self.streams.fell_behind() => {}
                () = self.streams.held() => {
                    self.streams.raise_when_well().await;
                    continue;
                }
            }
            let (mut finished, mut from) = (self.streams.finished(), Instant::now());
            while self.streams.is_behind() {
                sleep(PASS_INTERVAL).await;
                // A thread that is behind returns late.
                let (before, since) = (finished, from);
                (finished, from) = (self.streams.finished(), Instant::now());
                let fresh = takes_on(finished.wrapping_sub(before), from - since);
                self.streams.hold_back(fresh, self.settled(from));
            }
            self.streams.raise_when_well().await;
        }
    }

    /// Returns the send window that the connection no longer needs, and ends the connection when its peer
    /// acknowledges nothing for the idle timeout. The peer may send packets all that time, so QUIC's own
    /// timeout would not end it.
    pub(super) async fn watch_send_window(&self) -> Infallible {
        loop {
            self.streams.send_window_grew().await;
            let (mut before, mut since) = (None, Instant::now());
            let mut owed = acknowledged::asked_for(&self.quic);
            loop {
                sleep(SEND_LOOK_INTERVAL).await;
                let now = self.streams.acknowledged();
                // At the first look the remaining bytes may still wait to be sent; at the second they were
                // sent.
                if self.streams.open() == 0 && now.all && before == Some(now) {
                    self.streams.shrink_send_window();
                    break;
                }
                let moved = now.all || before.is_none_or(|before| before.bytes != now.bytes);
                // A peer that owes an acknowledgement is probed. A peer that owes none was sent only
                // acknowledgements.
                let asked = acknowledged::asked_for(&self.quic);
                if moved || asked == owed {
                    (since, owed) = (Instant::now(), asked);
                } else if since.elapsed() >= self.streams.idle_timeout() {
                    self.violation(ErrorCode::H3_EXCESSIVE_LOAD, "no acknowledgement");
                }
                before = Some(now);
            }
        }
    }

    /// How many exchanges have been under way for long.
    fn settled(&self, now: Instant) -> u32 {
        // As above: not under the lock.
        let exchanges: Vec<_> = lock(&self.exchanges).values().cloned().collect();
        let settled = exchanges
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|exchange| now - exchange.opened >= STREAM_SETTLED);
        u32::try_from(settled.count()).unwrap_or(u32::MAX)
    }
}

/// One request and its response: alive until both halves of the stream are dropped.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    id: u64,
    opened: Instant,
    /// The source of the receiving half; none once that half is over or was given up.
    receive: Mutex<Option<quinn::RecvStream>>,
    last_read: AtomicU32,
    /// Whether its request was handed out to be served.
    accepted: AtomicBool,
    /// Whether the peer cut a half of it short, or made this side do so by a malformed message.
    ended_by_peer: AtomicBool,
    _slot: StreamSlot,
}

impl Exchange {
    /// Counts an exchange in and makes a guard for each of its halves.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        receive: quinn::RecvStream,
    ) -> (HalfGuard, HalfGuard) {
        let id = u64::from(receive.id());
        let exchange = Arc::new(Self {
            shared: Arc::clone(shared),
            id,
            opened: Instant::now(),
            receive: Mutex::new(Some(receive)),
            last_read: AtomicU32::new(WAITING),
            accepted: AtomicBool::new(false),
            ended_by_peer: AtomicBool::new(false),
            _slot: shared.streams.enter(),
        });
        lock(&shared.exchanges).insert(id, Arc::downgrade(&exchange));
        (
            HalfGuard::new(Arc::clone(&exchange)),
            HalfGuard::new(exchange),
        )
    }

    /// Returns whether there was still a stream to give up.
    fn give_up(&self) -> bool {
        self.stop_receiving(ErrorCode::H3_REQUEST_CANCELLED)
    }

    fn stop_receiving(&self, code: ErrorCode) -> bool {
        let receive = lock(&self.receive).take();
        // It fails only when the stream is over, and then there is nothing to stop.
        receive.is_some_and(|mut receive| receive.stop(code.to_quic()).is_ok())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        {
            let mut exchanges = lock(&self.shared.exchanges);
            exchanges.remove(&self.id);
            if exchanges.is_empty() {
                self.shared.idle.notify_waiters();
            }
        }
        if self.shared.side == Side::Server && self.ended_by_peer.load(Ordering::Relaxed) {
            self.shared.cut(if self.accepted.load(Ordering::Relaxed) {
                Cut::WorkTakenBack(self.opened.elapsed())
            } else {
                Cut::NothingAsked
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks can panic half-way.
    crate::locks::lock(mutex)
}

/// Held by each half of a stream: reports to its exchange how the half ended.
pub(super) struct HalfGuard {
    exchange: Arc<Exchange>,
}

impl HalfGuard {
    fn new(exchange: Arc<Exchange>) -> Self {
        Self { exchange }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.exchange.shared
    }

    pub(super) fn streams(&self) -> &Arc<Streams> {
        &self.exchange.shared.streams
    }

    /// Reads by `poll`, and notes whether the reader then waits for the peer. `None` when the stream was
    /// given up.
    pub(super) fn read<T>(
        &self,
        poll: impl FnOnce(&mut quinn::RecvStream) -> Poll<T>,
    ) -> Option<Poll<T>> {
        let result = poll(lock(&self.exchange.receive).as_mut()?);
        let last: LastRead = match result {
            Poll::Pending => WAITING,
            Poll::Ready(_) => self.shared().looks.load(Ordering::Relaxed),
        };
        self.exchange.last_read.store(last, Ordering::Relaxed);
        Some(result)
    }

    /// Tells the peer to stop sending on this stream.
    pub(super) fn stop_receiving(&self, code: ErrorCode) {
        self.exchange.stop_receiving(code);
    }

    /// All was read.
    pub(super) fn end_receiving(&self) {
        drop(lock(&self.exchange.receive).take());
    }

    /// The request is handed out to be served.
    pub(super) fn accepted(&self) {
        self.exchange.accepted.store(true, Ordering::Relaxed);
    }

    /// The peer cut this half short, or made this side do so by a malformed message.
    pub(super) fn ended_by_peer(&self) {
        self.exchange.ended_by_peer.store(true, Ordering::Relaxed);
    }
}
