//! Counts the load of one connection, and sets what quinn allows on it: the streams that the peer may open,
//! the bytes that it may send ahead of readers, and the bytes that are sent ahead of its acknowledgements.
//!
//! The HTTP/3 connection holds it. Every exchange holds a [`StreamSlot`] until both of its directions are
//! over, and a [`LongBody`] while it may receive much. The arithmetic is in [`crate::stream_limit`],
//! [`crate::receive_window`] and [`crate::send_window`].

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{Notify, watch};

use crate::acknowledged::Acknowledged;
use crate::identity::SpiffeId;
use crate::lag::{Lag, Pace};
use crate::limits::WINDOW_PAGE;
use crate::locks::lock;
use crate::receive_window::{Carries, ReceivePool, ReceiveWindow};
use crate::send_window::{SendPool, SendWindow};
use crate::stream_limit::StreamLimit;
use crate::tuning::Tuning;

/// The windows of one connection.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
}

/// The pools for the windows of one side of a worker: of the connections that it accepts, or of those that it
/// dials.
#[derive(Clone, Debug)]
pub(crate) struct WindowPools {
    pub(crate) send: SendPool,
    pub(crate) receive: ReceivePool,
}

impl WindowPools {
    /// The windows of a connection with `peer`.
    pub(crate) fn windows(&self, peer: &SpiffeId) -> Windows {
        Windows {
            send: self.send.window(peer),
            receive: self.receive.window(peer),
        }
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    open: AtomicU32,
    /// Open streams with a body that is long or may be.
    long: AtomicU32,
    /// The head of a message has come.
    messages: AtomicBool,
    finished: AtomicU32,
    allowance: Mutex<Allowance>,
    connection: quinn::Connection,
    /// The pace of the worker that serves them.
    lag: Lag,
    /// Whether the receive window has reached its bound.
    at_bound: watch::Sender<bool>,
    send: Mutex<SendWindow>,
    idle_timeout: Duration,
    /// Bytes that may be written until the send window is checked again.
    until_look: AtomicU64,
    /// The send window holds pages.
    send_grew: Notify,
    /// The allowance was not raised because the worker did not keep up.
    held: Notify,
}

/// The limits of the peer.
#[derive(Debug)]
struct Allowance {
    streams: StreamLimit,
    window: ReceiveWindow,
}

/// One open exchange.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<Streams>);

/// An exchange that may receive much.
#[derive(Debug)]
pub(crate) struct LongBody(Arc<Streams>);

impl Streams {
    /// Of a connection that shares nothing with others.
    pub(crate) fn new(connection: quinn::Connection, tuning: &Tuning) -> Arc<Self> {
        let windows = Windows {
            send: SendWindow::alone(tuning),
            receive: ReceiveWindow::alone(tuning),
        };
        Self::of_worker(connection, tuning, Lag::default(), windows)
    }

    /// For a connection whose peer opens streams only as far as this worker keeps up, and gets bytes only as
    /// far as it acknowledges them.
    pub(crate) fn of_worker(
        connection: quinn::Connection,
        tuning: &Tuning,
        lag: Lag,
        windows: Windows,
    ) -> Arc<Self> {
        let Windows { send, receive } = windows;
        connection.set_send_window(send.bytes());
        connection.set_receive_window(var_int(receive.bytes()));
        Arc::new(Self {
            open: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            long: AtomicU32::new(0),
            messages: AtomicBool::new(false),
            at_bound: watch::Sender::new(receive.is_at_bound()),
            allowance: Mutex::new(Allowance {
                streams: StreamLimit::new(tuning),
                window: receive,
            }),
            connection,
            lag,
            send: Mutex::new(send),
            idle_timeout: tuning.settings().idle_timeout,
            until_look: AtomicU64::new(WINDOW_PAGE / 2),
            send_grew: Notify::new(),
            held: Notify::new(),
        })
    }

    /// QUIC has taken `bytes` to send. From time to time this checks whether QUIC may take more ahead of
    /// acknowledgements.
    pub(crate) fn wrote(&self, bytes: usize) {
        let left = self.until_look.load(Ordering::Relaxed);
        let left = left.saturating_sub(bytes as u64);
        self.until_look.store(left, Ordering::Relaxed);
        if left > 0 {
            return;
        }
        let mut send = self.send();
        if let Some(window) = send.grow(self.acknowledged(), self.open()) {
            self.connection.set_send_window(window);
            self.send_grew.notify_one();
        }
        self.look_again(&send);
    }

    /// How long a peer may owe a sign of life.
    pub(crate) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Done when the send window holds pages that others could use.
    pub(crate) async fn send_window_grew(&self) {
        while !self.send().holds_pages() {
            self.send_grew.notified().await;
        }
    }

    /// The bytes that the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        Acknowledged::of(&self.connection)
    }

    /// Returns the pages of the send window.
    pub(crate) fn shrink_send_window(&self) {
        let mut send = self.send();
        self.connection.set_send_window(send.shrink());
        // The bytes until the next check were a fraction of the larger window, and would be too many for the
        // small one.
        self.look_again(&send);
    }

    /// Several times within a window, which at most doubles in a round trip.
    fn look_again(&self, send: &SendWindow) {
        let bytes = (send.bytes() / 8).max(WINDOW_PAGE / 2);
        self.until_look.store(bytes, Ordering::Relaxed);
    }

    fn send(&self) -> MutexGuard<'_, SendWindow> {
        lock(&self.send)
    }

    /// Done when the receive window cannot grow any more, for now.
    pub(crate) async fn window_at_bound(&self) {
        let mut at_bound = self.at_bound.subscribe();
        // Fails only when the sender is gone; this value holds it.
        let _ = at_bound.wait_for(|at_bound| *at_bound).await;
    }

    /// How many stopped readers leave room for others, once the receive window has grown as far as it can.
    pub(crate) fn allowed_stopped_readers(&self) -> usize {
        let mut allowance = self.allowance();
        self.grow_receive_window(&mut allowance);
        allowance.window.allowed_stopped_readers()
    }

    /// Done when the worker is behind.
    pub(crate) async fn fell_behind(&self) {
        self.lag.fell_behind().await;
    }

    /// Whether the worker is behind.
    pub(crate) fn is_behind(&self) -> bool {
        self.lag.is_behind()
    }

    /// How many exchanges are over; it wraps around.
    pub(crate) fn finished(&self) -> u32 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Sets the peer's allowance for a worker that is behind, see [`StreamLimit::behind`].
    pub(crate) fn hold_back(&self, fresh: u32, settled: u32) {
        let streams = self.allowance().streams.behind(fresh, settled);
        self.connection
            .set_max_concurrent_bi_streams(streams.into());
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        lock(&self.allowance)
    }

    /// How many exchanges are open.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts an exchange in, and tells quinn when the allowance rises.
    pub(crate) fn enter(self: &Arc<Self>) -> StreamSlot {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.raise(open);
        StreamSlot(Arc::clone(self))
    }

    /// Done when the allowance was not raised because the worker did not keep up.
    pub(crate) async fn held(&self) {
        self.held.notified().await;
    }

    /// Raises the allowance once the worker keeps up, unless it falls behind. It has to be raised here,
    /// because a peer that has used it up opens no stream that would raise it.
    pub(crate) async fn raise_when_well(&self) {
        self.lag.is_not_late().await;
        self.raise(self.open());
    }

    fn raise(&self, open: u32) {
        let pace = self.lag.pace();
        let mut allowance = self.allowance();
        let streams = allowance.streams.opened(open, pace);
        if pace != Pace::Well && allowance.streams.wants_streams(open) {
            self.held.notify_one();
        }
        // Only a server's peer opens request streams (RFC 9114 section 6.1).
        if let (Some(streams), quinn::Side::Server) = (streams, self.connection.side()) {
            self.connection
                .set_max_concurrent_bi_streams(streams.into());
        }
        self.grow_receive_window(&mut allowance);
    }

    /// The head of a message has come.
    pub(crate) fn message_came(&self) {
        // A swap for each message would cost more than checking the first one twice.
        if !self.messages.load(Ordering::Relaxed) {
            self.messages.store(true, Ordering::Relaxed);
            self.grow_receive_window(&mut self.allowance());
        }
    }

    /// Counts in a body that is long, or may become so.
    pub(crate) fn long_body(self: &Arc<Self>) -> LongBody {
        self.long.fetch_add(1, Ordering::Relaxed);
        self.grow_receive_window(&mut self.allowance());
        LongBody(Arc::clone(self))
    }

    fn grow_receive_window(&self, allowance: &mut Allowance) {
        let carries = Carries {
            messages: self.messages.load(Ordering::Relaxed),
            open: self.open(),
            long: self.long.load(Ordering::Relaxed),
        };
        if let Some(window) = allowance.window.grow(carries) {
            self.connection.set_receive_window(var_int(window));
        }
        if allowance.window.is_at_bound() && !*self.at_bound.borrow() {
            self.at_bound.send_replace(true);
        }
    }
}

fn var_int(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for LongBody {
    fn drop(&mut self) {
        self.0.long.fetch_sub(1, Ordering::Relaxed);
    }
}
