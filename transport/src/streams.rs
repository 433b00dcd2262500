//! Counts the open streams of one connection and raises its allowance with them.
//!
//! Held by the HTTP/3 connection; every exchange holds a [`StreamSlot`] until both of its
//! directions are over. The arithmetic is in [`crate::elastic`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::VarInt;
use tokio::sync::watch;

use crate::elastic::Elastic;
use crate::lag::Lag;
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
}

/// One open exchange.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<Streams>);

impl Streams {
    pub(crate) fn new(connection: quinn::Connection, tuning: &Tuning) -> Arc<Self> {
        Self::paced(connection, tuning, Lag::default())
    }

    /// Of a connection whose peer opens streams only as far as this worker keeps up with them.
    pub(crate) fn paced(connection: quinn::Connection, tuning: &Tuning, lag: Lag) -> Arc<Self> {
        let elastic = Elastic::new(tuning);
        Arc::new(Self {
            open: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            at_bound: watch::Sender::new(elastic.window_is_at_bound()),
            elastic: Mutex::new(elastic),
            connection,
            lag,
        })
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
        let raise = self.elastic().opened(open, self.lag.pace());
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
        StreamSlot(Arc::clone(self))
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}
