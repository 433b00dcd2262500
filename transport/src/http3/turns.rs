//! Requests that wait until the peer allows one more stream, in the order in which they came.
//!
//! quinn wakes all tasks that wait for credit whenever there is some. Here one at a time asks for it, so that
//! a waiting queue costs nothing. The task that asks also opens streams for those behind it, as far as the
//! credit goes: if each needed its own turn on the thread, a busy thread would leave credit unused while the
//! queue waits. Callers decide how long to wait: [`StreamQueue::crowded_for`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use crate::locks::lock;

/// The queue of one connection, for streams in the form that `open` makes.
#[derive(Debug)]
pub(super) struct StreamQueue<T> {
    asks: tokio::sync::Mutex<()>,
    waiting: Mutex<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// By the order in which they came.
    queue: BTreeMap<u64, oneshot::Sender<T>>,
    next: u64,
    /// Since when the queue has never been empty.
    since: Option<Instant>,
}

impl<T> Default for StreamQueue<T> {
    fn default() -> Self {
        let waiting = Waiting {
            queue: BTreeMap::new(),
            next: 0,
            since: None,
        };
        Self {
            asks: tokio::sync::Mutex::default(),
            waiting: Mutex::new(waiting),
        }
    }
}

impl<T> StreamQueue<T> {
    /// Opens a stream when it is this task's turn and there is credit. Cancel-safe if the result of `open`
    /// is.
    pub(super) async fn take<F: Future<Output = T>>(&self, open: impl Fn() -> F) -> T {
        // Usually there is credit, and the queue is empty.
        if !self.is_waited_for()
            && let Some(opened) = open().now_or_never()
        {
            return opened;
        }
        // Boxed, because few requests need it and the others should not carry its size.
        Box::pin(async {
            let mut place = Place::new(self, Instant::now());
            let asks = async {
                let _asks = self.asks.lock().await;
                open().await
            };
            let opened = tokio::select! {
                biased;
                Ok(opened) = &mut place.handed => return opened,
                opened = asks => opened,
            };
            drop(place);
            while self.is_waited_for()
                && let Some(opened) = open().now_or_never()
            {
                self.hand(opened);
            }
            opened
        })
        .await
    }

    /// How long the queue has been occupied without a break; zero if it is empty.
    pub(super) fn crowded_for(&self, now: Instant) -> Duration {
        let since = self.waiting().since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn is_waited_for(&self) -> bool {
        !self.waiting().queue.is_empty()
    }

    /// To the task that has waited longest.
    fn hand(&self, mut opened: T) {
        loop {
            let first = self.waiting().pop();
            let Some(first) = first else { return };
            match first.send(opened) {
                Ok(()) => return,
                // It is just leaving.
                Err(back) => opened = back,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        lock(&self.waiting)
    }
}

impl<T> Waiting<T> {
    fn pop(&mut self) -> Option<oneshot::Sender<T>> {
        let first = self.queue.pop_first();
        self.note();
        first.map(|(_, first)| first)
    }

    fn note(&mut self) {
        if self.queue.is_empty() {
            self.since = None;
        }
    }
}

/// The place of a waiting task. Dropping it leaves the queue, and a stream that it was handed goes to the
/// next.
struct Place<'a, T> {
    turns: &'a StreamQueue<T>,
    number: u64,
    handed: oneshot::Receiver<T>,
}

impl<'a, T> Place<'a, T> {
    fn new(turns: &'a StreamQueue<T>, now: Instant) -> Self {
        let (hand, handed) = oneshot::channel();
        let mut waiting = turns.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.queue.insert(number, hand);
        waiting.since.get_or_insert(now);
        Self {
            turns,
            number,
            handed,
        }
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        {
            let mut waiting = self.turns.waiting();
            waiting.queue.remove(&self.number);
            waiting.note();
        }
        if let Ok(opened) = self.handed.try_recv() {
            self.turns.hand(opened);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn, ready};
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_request_that_has_a_stream_at_once_was_never_in_the_queue() {
        let turns = StreamQueue::default();
        assert_eq!(turns.take(|| ready(7)).now_or_never(), Some(7));
        assert_eq!(turns.crowded_for(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn no_request_overtakes_and_one_that_gives_up_leaves_the_queue() {
        let turns = StreamQueue::default();
        let now = Instant::now();
        let mut first = Box::pin(turns.take(pending::<()>));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(turns.take(|| ready(())));
        assert!(second.as_mut().now_or_never().is_none());
        let later = now + Duration::from_secs(2);
        assert!(turns.crowded_for(later) > Duration::from_secs(1));
        drop(first);
        // The queue is still occupied.
        assert!(turns.crowded_for(later) > Duration::from_secs(1));
        assert_eq!(second.now_or_never(), Some(()));
        assert_eq!(turns.crowded_for(later), Duration::ZERO);
    }

    /// Streams are numbered as they are opened.
    struct Credit {
        left: Cell<u32>,
        opened: Cell<u32>,
    }

    impl Credit {
        async fn open(&self) -> u32 {
            poll_fn(|_| {
                let Some(left) = self.left.get().checked_sub(1) else {
                    return Poll::Pending;
                };
                self.left.set(left);
                self.opened.set(self.opened.get() + 1);
                Poll::Ready(self.opened.get())
            })
            .await
        }
    }

    #[test]
    fn the_request_whose_turn_it_is_opens_for_those_behind_as_far_as_the_credit_goes() {
        let credit = Credit {
            left: Cell::new(0),
            opened: Cell::new(0),
        };
        let turns = StreamQueue::default();
        let mut waiting: Vec<_> = (0..5)
            .map(|_| Box::pin(turns.take(|| credit.open())))
            .collect();
        for one in &mut waiting {
            assert_eq!(one.as_mut().now_or_never(), None);
        }
        credit.left.set(4);
        // Only the first has its turn on the thread, and the third leaves before its own.
        assert_eq!(waiting[0].as_mut().now_or_never(), Some(1));
        assert_eq!((credit.left.get(), credit.opened.get()), (0, 4));
        drop(waiting.remove(2));
        let mut got: Vec<_> = waiting.drain(1..).map(|one| one.now_or_never()).collect();
        assert_eq!(got.remove(0), Some(2));
        assert_eq!(got, [Some(4), Some(3)]);
        assert_eq!(turns.crowded_for(Instant::now()), Duration::ZERO);
    }
}
