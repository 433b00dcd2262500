//! A worker's part of the mesh port, which several processes may hold: decides which of them reads it at
//! which time.
//!
//! ```text
//!            begin              hand_over                take_back, or the successor is gone
//!   waiting -------> reading ------------> relayed -----------------------------------------> reading
//! ```
//! A process that takes the port over begins in the state *waiting*. A process that has handed it over is
//! *relayed*: its successor forwards the datagrams of its connections, and it sends through the port as
//! before. Between the two states no process reads, and the kernel keeps the datagrams. The relay is
//! `relay.rs`.
//!
//! The reading process has a relay to each earlier one that still runs, so they may end in any order. Two
//! processes never read at once: a datagram for the other process's connections would be answered with a
//! stateless reset.
//!
//! Bytes for an address that is not validated pass through `amplification.rs`.

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
use super::relay::{EarlierProcess, EarlierProcesses, FromSuccessor};
use crate::locks::lock;

/// Controls which process reads a worker's part of the port. The other side of the worker's socket.
#[derive(Debug)]
pub struct Reading {
    turn: Mutex<Turn>,
    /// Wakes the endpoint when that changes.
    waker: AtomicWaker,
    elders: EarlierProcesses,
}

/// The source of the worker's datagrams.
#[derive(Debug)]
enum Turn {
    /// None yet: an earlier process reads.
    Waiting,
    /// From the port.
    Reading,
    /// The port until the worker looks here, and then the successor. The token is cancelled when this process
    /// has read the port for the last time.
    Leaving(OwnedFd, CancellationToken),
    /// From the successor.
    Relayed(FromSuccessor),
}

impl Reading {
    /// For a port that this process bound: it reads from the start.
    pub(super) fn own() -> Self {
        Self::new(Turn::Reading, EarlierProcesses::default())
    }

    /// For a port that an earlier process reads until [`Self::begin`].
    pub(super) fn inherited(elders: EarlierProcesses) -> Self {
        Self::new(Turn::Waiting, elders)
    }

    fn new(turn: Turn, elders: EarlierProcesses) -> Self {
        Self {
            turn: Mutex::new(turn),
            waker: AtomicWaker::new(),
            elders,
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }

    /// Reads from here on: the earlier process has stopped.
    pub fn begin(&self) {
        *self.turn() = Turn::Reading;
        self.waker.wake();
    }

    /// Lets a successor read, which sends the datagrams of this process to the other end of `receiving`.
    /// Returns when this process reads no more itself.
    pub async fn hand_over(&self, receiving: OwnedFd) {
        let left = CancellationToken::new();
        *self.turn() = Turn::Leaving(receiving, left.clone());
        self.waker.wake();
        left.cancelled().await;
    }

    /// Reads again: the successor did not begin, and will not. Closes its relay.
    pub fn take_back(&self) {
        self.begin();
    }

    /// Datagrams forwarded to earlier processes, and those for which there was no room.
    pub fn forwarded(&self) -> (u64, u64) {
        self.elders.counts()
    }

    /// Forwards datagrams of an earlier process and removes them from the buffer, which may hold several
    /// datagrams of one size in a row.
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
            if let Addressee::Earlier(epoch) | Addressee::Either(epoch) = owner {
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

/// The earlier processes that still run, for a successor of this one: the workers' relays to each, in the
/// order of `readings`.
///
/// # Errors
/// When there are too many open files.
pub fn elders<'a>(
    readings: impl IntoIterator<Item = &'a Reading>,
) -> io::Result<Vec<EarlierProcess>> {
    let mut all: Vec<(EarlierProcess, bool)> = Vec::new();
    for reading in readings {
        for (index, (epochs, relay, ended)) in reading.elders.share()?.into_iter().enumerate() {
            match all.get_mut(index) {
                Some((elder, all_ended)) => {
                    elder.relays.push(relay);
                    *all_ended &= ended;
                }
                None => {
                    let relays = vec![relay];
                    all.push((EarlierProcess { epochs, relays }, ended));
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
    /// Called for packets with long headers only: handshakes.
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

    /// Sends as much of a handshake's flight as its address may get; the rest is dropped.
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
                // For example, no descriptor is left. Returning an error would end the endpoint with all of
                // its connections. So this process reads on, and the takeover waits for it or is given up.
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
        // Registered before the state is read, so that no change is missed.
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
