//! A worker's part of the mesh port, which two processes may hold: who reads it at which time.
//!
//! ```text
//!            begin              hand_over              the successor is gone
//!   waiting -------> reading ------------> relayed ----------------------------> reading
//! ```
//! A process that takes the port over begins *waiting*. One that has handed it over is *relayed*: it gets
//! the datagrams of its own connections from its successor, and sends through the port as before. Between
//! the two nobody reads, and the kernel keeps what comes. The relay is `relay.rs`.
//!
//! What is sent to an address that is not validated passes through `amplification.rs`.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio_util::sync::CancellationToken;

use super::amplification::{Ledger, is_long};
use super::forwarded::{Origin, Whose, whose};
use super::relay::{FromSuccessor, Predecessors};

/// Says who reads a worker's part of the port. The other side of the worker's socket.
#[derive(Debug)]
pub struct Reading {
    begun: AtomicBool,
    /// Wakes the endpoint when this changes.
    waker: AtomicWaker,
    successor: OnceLock<OwnedFd>,
    /// Cancelled when this process has read the port for the last time.
    relayed: CancellationToken,
    orphaned: AtomicBool,
    predecessors: Option<Predecessors>,
}

impl Reading {
    /// Of a port that this process bound: read from the start.
    pub(super) fn own() -> Self {
        Self::new(true, None)
    }

    /// Of a port that a predecessor reads until [`Self::begin`].
    pub(super) fn inherited(predecessors: Predecessors) -> Self {
        Self::new(false, Some(predecessors))
    }

    fn new(begun: bool, predecessors: Option<Predecessors>) -> Self {
        Self {
            begun: AtomicBool::new(begun),
            waker: AtomicWaker::new(),
            successor: OnceLock::new(),
            relayed: CancellationToken::new(),
            orphaned: AtomicBool::new(false),
            predecessors,
        }
    }

    /// Reads from here on: the predecessor has stopped.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Lets a successor read, which sends what is for this process to the other end of `receiving`.
    /// Returns when this process reads nothing more itself. Only the first call counts.
    pub async fn hand_over(&self, receiving: OwnedFd) {
        // A second one finds the relay of the first.
        let _ = self.successor.set(receiving);
        self.waker.wake();
        self.relayed.cancelled().await;
    }

    /// Datagrams sent on to the predecessor, and those for which there was no room.
    pub fn forwarded(&self) -> (u64, u64) {
        self.predecessors
            .as_ref()
            .map_or((0, 0), Predecessors::counts)
    }

    /// Sends on what is for the predecessor and takes it out of the buffer; datagrams of one size may lie
    /// one after the other in it.
    fn keep_own(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let Some(predecessors) = &self.predecessors else {
            return;
        };
        let epochs = predecessors.epochs();
        if epochs.is_empty() || meta.stride == 0 {
            return;
        }
        let origin = Origin::of(meta);
        let (mut from, mut kept) = (0, 0);
        while from < meta.len {
            let to = (from + meta.stride).min(meta.len);
            let datagram = buffer.get(from..to).unwrap_or_default();
            let owner = whose(datagram, epochs);
            if owner != Whose::Own {
                predecessors.forward(origin, datagram);
            }
            if owner != Whose::Predecessor {
                buffer.copy_within(from..to, kept);
                kept += to - from;
            }
            from = to;
        }
        meta.len = kept;
    }
}

/// The socket of a worker's listening endpoint.
#[derive(Debug)]
pub(super) struct SharedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    reading: Arc<Reading>,
    from_successor: OnceLock<FromSuccessor>,
    /// Asked for packets with long headers only: handshakes.
    ledger: Mutex<Ledger>,
}

impl SharedSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, reading: Arc<Reading>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            reading,
            from_successor: OnceLock::new(),
            ledger: Mutex::default(),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing that is done under the lock can panic half-way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what came for handshakes.
    fn count(&self, buffer: &[u8], meta: &RecvMeta) {
        let received = buffer.get(..meta.len).unwrap_or_default();
        for datagram in received.chunks(meta.stride.max(1)) {
            if is_long(datagram) {
                self.ledger().receive(meta.addr, datagram);
            }
        }
    }

    /// Sends as much of a handshake's flight as its address may get; the rest is lost.
    fn try_send_handshake(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut ledger = self.ledger();
        let allowed = ledger.allowed(transmit.destination, transmit.contents, segment);
        let contents = transmit.contents.get(..allowed).unwrap_or_default();
        if contents.is_empty() {
            return Ok(());
        }
        self.inner.try_send(&Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents,
            segment_size: transmit.segment_size.filter(|size| *size < allowed),
            src_ip: transmit.src_ip,
        })?;
        ledger.send(transmit.destination, contents, segment);
        Ok(())
    }

    /// What comes from the successor, once there is one.
    fn relay(&self) -> io::Result<Option<&FromSuccessor>> {
        let Some(receiving) = self.reading.successor.get() else {
            return Ok(None);
        };
        if self.reading.orphaned.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(relay) = self.from_successor.get() {
            return Ok(Some(relay));
        }
        let relay = match receiving.try_clone().and_then(FromSuccessor::new) {
            Ok(relay) => relay,
            // Out of descriptors, say. An error here would end the endpoint with all of its connections;
            // as it is, two processes read until the descriptor is to be had.
            Err(error) => {
                tracing::warn!(%error, "the mesh port cannot be handed over yet");
                return Ok(None);
            }
        };
        self.reading.relayed.cancel();
        Ok(Some(self.from_successor.get_or_init(|| relay)))
    }

    fn poll_source(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let Some(relay) = self.relay()? {
            match ready!(relay.poll_recv(cx, buffers, meta))? {
                0 => {
                    tracing::warn!("the successor is gone: reading the mesh port again");
                    self.reading.orphaned.store(true, Ordering::Relaxed);
                }
                count => return Poll::Ready(Ok(count)),
            }
        }
        if self.reading.begun.load(Ordering::Acquire) {
            self.inner.poll_recv(cx, buffers, meta)
        } else {
            Poll::Pending
        }
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A flight begins with its handshake packets.
        if is_long(transmit.contents) {
            self.try_send_handshake(transmit)
        } else {
            self.inner.try_send(transmit)
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Before the state is looked at, so that no change of it is missed.
        self.reading.waker.register(cx.waker());
        let count = ready!(self.poll_source(cx, buffers, meta))?;
        for (buffer, meta) in buffers.iter_mut().zip(meta.iter_mut()).take(count) {
            self.reading.keep_own(buffer, meta);
            self.count(buffer, meta);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
