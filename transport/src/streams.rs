//! Counts the open streams of one connection and raises its allowance with them.
//!
//! Held by the HTTP/3 connection; every exchange holds a [`StreamSlot`] until both of its
//! directions are over. The arithmetic is in [`crate::elastic`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::VarInt;

use crate::elastic::Elastic;
use crate::tuning::Tuning;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    open: AtomicU32,
    elastic: Mutex<Elastic>,
    connection: quinn::Connection,
}

/// One open exchange.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<Streams>);

impl Streams {
    pub(crate) fn new(connection: quinn::Connection, tuning: &Tuning) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(0),
            elastic: Mutex::new(Elastic::new(tuning)),
            connection,
        })
    }

    /// How many exchanges are open.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts an exchange in, and tells quinn when the allowance rises.
    pub(crate) fn enter(self: &Arc<Self>) -> StreamSlot {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let raise = self
            .elastic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .opened(open);
        if let Some(raise) = raise {
            // Only a server's peer opens request streams (RFC 9114 section 6.1).
            if let (Some(streams), quinn::Side::Server) = (raise.streams, self.connection.side()) {
                self.connection
                    .set_max_concurrent_bi_streams(streams.into());
            }
            if let Some(window) = raise.window {
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
    }
}
