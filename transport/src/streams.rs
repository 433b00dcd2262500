//! Counts the open streams of one connection and raises its allowance with them.
//!
//! Held by the HTTP/3 connection; every exchange holds a [`StreamSlot`] until both of its
//! directions are over. The arithmetic is in [`crate::elastic`]. So it is for the bytes that are sent ahead of
//! acknowledgements, and that arithmetic is in [`crate::send_window`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{Notify, watch};

use crate::acknowledged::Acknowledged;
use crate::elastic::Elastic;
use crate::lag::{Lag, Pace};
use crate::limits::SEND_PAGE;
use crate::send_window::SendWindow;
use crate::tuning::Tuning;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    open: AtomicU32,
    finished: AtomicU32,
    elastic: Mutex<Elastic>,
    connection: quinn::Connection,
    /// How the worker fares that serves them.
    lag: Lag,
    /// Whether the window has reached its bound.
    at_bound: watch::Sender<bool>,
    send: Mutex<SendWindow>,
    idle_timeout: Duration,
    /// Bytes that may be written until the send window is looked at again.
    until_look: AtomicU64,
    /// The send window holds pages.
    send_grew: Notify,
    /// The allowance was not raised because the worker did not fare well.
    held: Notify,
}

/// One open exchange.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<Streams>);

impl Streams {
    /// Of a connection that shares nothing with others.
    pub(crate) fn new(connection: quinn::Connection, tuning: &Tuning) -> Arc<Self> {
        let send = SendWindow::alone(tuning);
        Self::of_worker(connection, tuning, Lag::default(), send)
    }

    /// Of a connection whose peer opens streams only as far as this worker keeps up with them, and is sent
    /// bytes as far as it acknowledges them.
    pub(crate) fn of_worker(
        connection: quinn::Connection,
        tuning: &Tuning,
        lag: Lag,
        send: SendWindow,
    ) -> Arc<Self> {
        let elastic = Elastic::new(tuning);
        connection.set_send_window(send.bytes());
        Arc::new(Self {
            open: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            at_bound: watch::Sender::new(elastic.window_is_at_bound()),
            elastic: Mutex::new(elastic),
            connection,
            lag,
            send: Mutex::new(send),
            idle_timeout: tuning.settings().idle_timeout,
            until_look: AtomicU64::new(SEND_PAGE / 2),
            send_grew: Notify::new(),
            held: Notify::new(),
        })
    }

    /// QUIC has taken `bytes` to send. Now and then, looks whether it may take more ahead of acknowledgements.
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

    /// Done when the send window holds what others could use.
    pub(crate) async fn send_window_grew(&self) {
        while !self.send().holds_pages() {
            self.send_grew.notified().await;
        }
    }

    /// What the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        Acknowledged::of(&self.connection)
    }

    /// Gives back what the send window holds.
    pub(crate) fn shrink_send_window(&self) {
        let mut send = self.send();
        self.connection.set_send_window(send.shrink());
        // The bytes until the next look were a part of the larger window: it would stay small for all of them.
        self.look_again(&send);
    }

    /// Several times within a window, which doubles in a round trip at most.
    fn look_again(&self, send: &SendWindow) {
        let bytes = (send.bytes() / 8).max(SEND_PAGE / 2);
        self.until_look.store(bytes, Ordering::Relaxed);
    }

    fn send(&self) -> MutexGuard<'_, SendWindow> {
        self.send.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Done when the connection's window cannot grow any more. Returns how many stopped readers
    /// still leave room for others.
    pub(crate) async fn window_at_bound(&self) -> usize {
        let mut at_bound = self.at_bound.subscribe();
        // Fails only when the sender is gone, which is here.
        let _ = at_bound.wait_for(|at_bound| *at_bound).await;
        self.elastic().stopped_readers_bearable()
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

    /// Allows the peer what a worker can do that is behind, see [`Elastic::behind`].
    pub(crate) fn hold_back(&self, fresh: u32, settled: u32) {
        let streams = self.elastic().behind(fresh, settled);
        self.connection
            .set_max_concurrent_bi_streams(streams.into());
    }

    fn elastic(&self) -> MutexGuard<'_, Elastic> {
        self.elastic.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Done when the allowance was not raised because the worker did not fare well.
    pub(crate) async fn held(&self) {
        self.held.notified().await;
    }

    /// Raises the allowance once the worker fares well, unless it falls behind. A peer that has used up all of it opens
    /// no stream that would do it.
    pub(crate) async fn raise_when_well(&self) {
        self.lag.is_not_late().await;
        self.raise(self.open());
    }

    fn raise(&self, open: u32) {
        let pace = self.lag.pace();
        let mut elastic = self.elastic();
        let raise = elastic.opened(open, pace);
        if pace != Pace::Well && elastic.wants_streams(open) {
            self.held.notify_one();
        }
        drop(elastic);
        if let Some(raise) = raise {
            // Only a server's peer opens request streams (RFC 9114 section 6.1).
            if let (Some(streams), quinn::Side::Server) = (raise.streams, self.connection.side()) {
                self.connection
                    .set_max_concurrent_bi_streams(streams.into());
            }
            if let Some(window) = raise.window {
                if raise.window_at_bound {
                    self.at_bound.send_replace(true);
                }
                let window = VarInt::from_u64(window).unwrap_or(VarInt::MAX);
                self.connection.set_receive_window(window);
            }
        }
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}
