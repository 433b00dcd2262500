//! A worker's part of the mesh port, which several processes may hold: who reads it at which time.
//!
//! ```text
//!            begin              hand_over                take_back, or the successor is gone
//!   waiting -------> reading ------------> relayed -----------------------------------------> reading
//! ```
//! A process that takes the port over begins *waiting*. One that has handed it over is *relayed*: it gets
//! the datagrams of its own connections from its successor, and sends through the port as before. Between
//! the two no process reads, and the kernel keeps what comes. The relay is `relay.rs`.
//!
//! The process that reads has a way to each earlier one that still runs, and so it does not matter in which order they
//! end. Two never read at once: what is for the other one's connections would be answered with a stateless reset.
//!
//! What is sent to an address that is not validated passes through `amplification.rs`.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio_util::sync::CancellationToken;

use super::amplification::{Ledger, is_long};
use super::forwarded::{Addressee, Origin, addressee};
use super::relay::{Elder, Elders, FromSuccessor};
use crate::locks::lock;

/// Says who reads a worker's part of the port. The other side of the worker's socket.
#[derive(Debug)]
pub struct Reading {
    turn: Mutex<Turn>,
    /// Wakes the endpoint when that changes.
    waker: AtomicWaker,
    elders: Elders,
}

/// Where the worker's datagrams come from.
#[derive(Debug)]
enum Turn {
    /// Nowhere yet: a process before this one reads.
    Waiting,
    /// From the port.
    Reading,
    /// From the port until the worker looks here, and then from the successor. The token is cancelled when this
    /// process has read the port for the last time.
    Leaving(OwnedFd, CancellationToken),
    /// From the successor.
    Relayed(FromSuccessor),
}

impl Reading {
    /// Of a port that this process bound: read from the start.
    pub(super) fn own() -> Self {
        Self::new(Turn::Reading, Elders::default())
    }

    /// Of a port that an earlier process reads until [`Self::begin`].
    pub(super) fn inherited(elders: Elders) -> Self {
        Self::new(Turn::Waiting, elders)
    }

    fn new(turn: Turn, elders: Elders) -> Self {
        Self {
            turn: Mutex::new(turn),
            waker: AtomicWaker::new(),
            elders,
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }

    /// Reads from here on: the process before has stopped.
    pub fn begin(&self) {
        *self.turn() = Turn::Reading;
        self.waker.wake();
    }

    /// Lets a successor read, which sends what is for this process to the other end of `receiving`.
    /// Returns when this process reads nothing more itself.
    pub async fn hand_over(&self, receiving: OwnedFd) {
        let left = CancellationToken::new();
        *self.turn() = Turn::Leaving(receiving, left.clone());
        self.waker.wake();
        left.cancelled().await;
    }

    /// Reads again: the successor did not begin, and will not. Ends its relay.
    pub fn take_back(&self) {
        self.begin();
    }

    /// Datagrams sent on to earlier processes, and those for which there was no room.
    pub fn forwarded(&self) -> (u64, u64) {
        self.elders.counts()
    }

    /// Sends on what is for an earlier process and takes it out of the buffer; datagrams of one size may lie
    /// one after the other in it.
    fn keep_own(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        if meta.stride == 0 || self.elders.are_gone() {
            return;
        }
        let origin = Origin::of(meta);
        let (mut from, mut kept) = (0, 0);
        while from < meta.len {
            let to = (from + meta.stride).min(meta.len);
            let datagram = buffer.get(from..to).unwrap_or_default();
            let owner = addressee(datagram, |epoch| self.elders.has(epoch));
            if let Addressee::Elder(epoch) | Addressee::Either(epoch) = owner {
                self.elders.forward(epoch, origin, datagram);
            }
            if let Addressee::Own | Addressee::Either(_) = owner {
                buffer.copy_within(from..to, kept);
                kept += to - from;
            }
            from = to;
        }
        meta.len = kept;
    }
}

/// The earlier processes that still run, for one that takes the port over from this one, too: the workers' ways to
/// each, in the order of `readings`.
///
/// # Errors
/// When there are too many open files.
pub fn elders<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> io::Result<Vec<Elder>> {
    let mut all: Vec<(Elder, bool)> = Vec::new();
    for reading in readings {
        for (index, (epochs, relay, ended)) in reading.elders.share()?.into_iter().enumerate() {
            match all.get_mut(index) {
                Some((elder, all_ended)) => {
                    elder.relays.push(relay);
                    *all_ended &= ended;
                }
                None => {
                    let relays = vec![relay];
                    all.push((Elder { epochs, relays }, ended));
                }
            }
        }
    }
    let running = all.into_iter().filter(|(_, ended)| !ended);
    Ok(running.map(|(elder, _)| elder).collect())
}

/// The socket of a worker's listening endpoint.
#[derive(Debug)]
pub(super) struct SharedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    reading: Arc<Reading>,
    /// Asked for packets with long headers only: handshakes.
    ledger: Mutex<Ledger>,
}

impl SharedSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, reading: Arc<Reading>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            reading,
            ledger: Mutex::default(),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
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

    fn poll_source(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut turn = self.reading.turn();
        if let Turn::Leaving(receiving, left) = &*turn {
            match receiving.try_clone().and_then(FromSuccessor::new) {
                Ok(relay) => {
                    left.cancel();
                    *turn = Turn::Relayed(relay);
                }
                // Out of descriptors, say. An error here would end the endpoint with all of its connections;
                // as it is, this process reads on, and the takeover waits for it or is given up.
                Err(error) => tracing::warn!(%error, "the mesh port cannot be handed over yet"),
            }
        }
        match &*turn {
            Turn::Waiting => return Poll::Pending,
            Turn::Relayed(relay) => match ready!(relay.poll_recv(cx, buffers, meta))? {
                0 => {
                    tracing::warn!("the successor is gone: reading the mesh port again");
                    *turn = Turn::Reading;
                }
                count => return Poll::Ready(Ok(count)),
            },
            Turn::Reading | Turn::Leaving(..) => {}
        }
        drop(turn);
        self.inner.poll_recv(cx, buffers, meta)
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
