//! The state of one connection, which both of its ends share under one lock. A change wakes all tasks that
//! wait on the connection, in the order in which they began to wait: there are few, and the order is the same
//! in each run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::limits;
use crate::error::{ConnectionError, Reason, ReceiveError};

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// One connection.
pub(super) struct Link(Mutex<State>);

pub(super) struct State {
    /// Why it is over, as reported to each side.
    ends: [Option<ConnectionError>; 2],
    /// The first exchange that the server does not take.
    pub(super) goaway: Option<u64>,
    pub(super) doubtful: bool,
    pub(super) silent: bool,
    /// Exchanges that the server allows at once.
    pub(super) exchanges_max: usize,
    /// Permissions that were given and not used yet.
    pub(super) reserved: usize,
    /// Since when there have always been callers that wait for permission, and how many there are.
    pub(super) crowded: Option<(Instant, u32)>,
    next: u64,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    /// Requests that the server has not taken yet.
    pub(super) arriving: VecDeque<u64>,
    wakers: Vec<Waker>,
}

/// One request and its response.
pub(super) struct Exchange {
    /// By the side that sends.
    flows: [Flow; 2],
    /// Halves that each side still holds.
    halves: [u8; 2],
}

/// One direction.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) pieces: VecDeque<Piece>,
    /// Content among them.
    pub(super) bytes: usize,
    /// The clean end follows the pieces.
    pub(super) ended: bool,
    /// The sender gave up.
    pub(super) reset: Option<ReceiveError>,
    /// The receiver reads no more.
    pub(super) stopped: Option<Reason>,
}

pub(super) enum Piece {
    /// A field section.
    Head(Bytes),
    Data(Bytes),
    /// A field section.
    Trailers(Bytes),
    /// Something that breaks HTTP's rules.
    Malformed(&'static str),
}

impl Link {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            ends: [None, None],
            goaway: None,
            doubtful: false,
            silent: false,
            exchanges_max: limits::EXCHANGES_MAX,
            reserved: 0,
            crowded: None,
            next: 0,
            exchanges: BTreeMap::new(),
            arriving: VecDeque::new(),
            wakers: Vec::new(),
        }))
    }

    /// Looks at it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it, and wakes all that wait.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        wake(state);
        result
    }

    /// Changes it if possible, and waits for another change if not.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        change: impl FnOnce(&mut State) -> Poll<T>,
    ) -> Poll<T> {
        let mut state = self.lock();
        let result = change(&mut state);
        if result.is_ready() {
            wake(state);
        } else if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        result
    }

    /// Ends it, unless it is over: `client` and `server` are the reasons that the sides get.
    pub(super) fn end(&self, client: ConnectionError, server: ConnectionError) {
        self.change(|state| {
            if state.ends[0].is_none() {
                state.ends = [Some(client), Some(server)];
            }
        });
    }

    /// One side closes it.
    pub(super) fn close(&self, side: Side, reason: Reason) {
        let (here, there) = (
            ConnectionError::ClosedHere,
            ConnectionError::ClosedByPeer(reason),
        );
        match side {
            Side::Client => self.end(here, there),
            Side::Server => self.end(there, here),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock can panic half-way.
        crate::locks::lock(&self.0)
    }
}

/// Not under the lock: a woken task may take it at once.
fn wake(mut state: MutexGuard<'_, State>) {
    let wakers = std::mem::take(&mut state.wakers);
    drop(state);
    for waker in wakers {
        waker.wake();
    }
}

impl State {
    /// Why it is over, as reported to one side.
    pub(super) fn ended(&self, side: Side) -> Option<ConnectionError> {
        self.ends[side as usize].clone()
    }

    /// Exchanges that count against what the server allows.
    pub(super) fn under_way(&self) -> usize {
        let held = |exchange: &&Exchange| exchange.halves[Side::Server as usize] > 0;
        self.exchanges.values().filter(held).count()
    }

    /// A new exchange, of which each side holds two halves. It arrives once its head is sent.
    pub(super) fn begin(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        self.exchanges.insert(
            id,
            Exchange {
                flows: [Flow::default(), Flow::default()],
                halves: [2, 2],
            },
        );
        id
    }

    /// The bytes that one side sends.
    pub(super) fn flow(&mut self, id: u64, sender: Side) -> Option<&mut Flow> {
        let exchange = self.exchanges.get_mut(&id)?;
        Some(&mut exchange.flows[sender as usize])
    }

    /// The server takes no more requests.
    pub(super) fn shut_down(&mut self) {
        if self.goaway.is_some() {
            return;
        }
        self.goaway = Some(self.arriving.front().copied().unwrap_or(self.next));
        for id in std::mem::take(&mut self.arriving) {
            self.release(id, Side::Server, 2);
        }
    }

    /// One side drops this many halves.
    pub(super) fn release(&mut self, id: u64, side: Side, halves: u8) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let held = &mut exchange.halves[side as usize];
        *held = held.saturating_sub(halves);
        if exchange.halves == [0, 0] {
            self.exchanges.remove(&id);
        }
    }
}
