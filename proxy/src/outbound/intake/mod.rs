//! Limits how many of the application's requests an overloaded worker takes in.
//!
//! A request costs next to nothing until it is read. So when a worker falls behind, or its connections wait
//! long to be accepted, it begins in each pass over the ready tasks only as many requests as one pass has
//! time for ([`portion`]). The others wait in the kernel, where TCP slows their callers down, and
//! [`mod@line`] picks the next. The worker accepts connections by the same measure ([`acceptor`]). After a
//! second in which nothing waited, the worker takes everything in as it comes.
//!
//! A request on a connection that carries many at once (HTTP/2) must be read before the sidecar knows of it.
//! It then waits as well. At most as many wait as streams are open on the connection, and the client sends no
//! more.

mod acceptor;
mod line;
mod portion;
#[cfg(test)]
mod turn_simulations;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::sync::Notify;
use tokio::time::Instant;
use weft_transport::lag::Lag;

use crate::limits;
pub(super) use acceptor::Acceptor;
use line::{Line, Place};
use portion::Portion;
use weft_transport::locks::lock;

/// The intake of one worker.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Whether intake is limited; if not, no other field here is read.
    limited: AtomicBool,
    cycle: Mutex<Cycle>,
    /// A listener found that connections wait long to be accepted.
    stands: Notify,
    /// The limit has ended.
    released: Notify,
    /// Microseconds for which it was limited.
    limited_for: AtomicU64,
}

/// Requests that may begin before the next cycle.
#[derive(Debug, Default)]
struct Cycle {
    left: u32,
    begun: u32,
    /// Connections with something to read.
    line: Line<Waker>,
    /// The listeners that wait until they may accept.
    acceptors: Vec<Waker>,
    /// When a request last had its turn before connections that wait to be read.
    accepted: Option<Instant>,
}

impl Cycle {
    /// Begins a new cycle with this many, and wakes those whose turn it is.
    fn begin(&mut self, requests: u32, now: Instant) {
        self.left = requests;
        self.begun = 0;
        let kept = self.kept(now);
        while self.left > kept
            && let Some(waker) = self.line.next(now.into_std())
        {
            self.take();
            waker.wake();
        }
        self.acceptors.drain(..).for_each(Waker::wake);
    }

    /// How many of those left may be accepted connections while others wait to be read: half, which is fair,
    /// unless callers give up. Then one more connection would only be one more that waits.
    fn kept(&mut self, now: Instant) -> u32 {
        if self.acceptors.is_empty() || self.line.is_empty() {
            return 0;
        }
        if !self.line.callers_give_up(now.into_std()) {
            return self.left / 2;
        }
        let is_due = self
            .accepted
            .is_none_or(|accepted| now - accepted >= limits::INTAKE_ACCEPTS_EACH);
        if is_due {
            self.accepted = Some(now);
        }
        u32::from(is_due)
    }

    fn take(&mut self) -> bool {
        let may = self.left > 0;
        if may {
            self.left -= 1;
            self.begun += 1;
        }
        may
    }

    fn is_waited_for(&self) -> bool {
        !self.line.is_empty() || !self.acceptors.is_empty()
    }
}

impl Intake {
    /// Whether a request has to wait for its turn.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// How long it was limited, in all.
    pub(crate) fn limited_for(&self) -> Duration {
        Duration::from_micros(self.limited_for.load(Ordering::Relaxed))
    }

    /// Waits until one more may be read. Cancel-safe.
    pub(crate) async fn turn(self: &Arc<Self>) {
        let mut turn = Turn::new(self);
        poll_fn(|context| turn.poll(context)).await;
    }

    /// A turn was granted and is not needed, because the client is gone. The one that has waited longest gets
    /// it, and may be gone as well. So connections of clients that left do not pile up.
    pub(super) fn pass_on(&self) {
        let mut cycle = lock(&self.cycle);
        cycle.line.gone(Instant::now().into_std());
        match cycle.line.oldest() {
            Some(waker) => waker.wake(),
            None => cycle.left = cycle.left.saturating_add(1),
        }
    }

    /// Waits until a connection may be accepted. Cancel-safe.
    async fn accepts(&self) {
        poll_fn(|context| {
            if !self.is_limited() {
                return Poll::Ready(());
            }
            let mut cycle = lock(&self.cycle);
            if cycle.take() {
                return Poll::Ready(());
            }
            // A listener may be looked at for another reason, any number of times within a cycle.
            let waits = |acceptor: &Waker| acceptor.will_wake(context.waker());
            if !cycle.acceptors.iter().any(waits) {
                cycle.acceptors.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Connections have waited to be accepted for longer than a burst lasts.
    fn stands(&self) {
        self.stands.notify_one();
    }

    /// Done when nothing is limited.
    async fn released(&self) {
        let released = self.released.notified();
        if self.is_limited() {
            released.await;
        }
    }

    fn release(&self) {
        self.limited.store(false, Ordering::Relaxed);
        self.released.notify_waiters();
    }

    /// Limits intake whenever the worker is overloaded. Runs without end.
    pub(crate) async fn keep(self: Arc<Self>, lag: Lag) {
        loop {
            tokio::select! {
                () = lag.fell_behind() => {}
                () = self.stands.notified() => {}
            }
            self.limit().await;
        }
    }

    /// Limits intake until nothing has waited for a while.
    async fn limit(&self) {
        let mut portion = Portion::default();
        let mut began = Instant::now();
        // The connections that caused the limit wait.
        let (mut waits, mut waited) = (true, began);
        self.limited.store(true, Ordering::Relaxed);
        while began - waited < limits::INTAKE_RELEASE {
            lock(&self.cycle).begin(portion.requests(), began);
            if !waits {
                tokio::time::sleep(limits::INTAKE_CYCLE).await;
            }
            // Every ready task has its turn before this continues.
            tokio::task::yield_now().await;
            let now = Instant::now();
            let took = now - began;
            let begun;
            (begun, waits) = {
                let cycle = lock(&self.cycle);
                (cycle.begun, cycle.is_waited_for())
            };
            portion.over(took, begun, waits);
            if waits {
                waited = now;
            }
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.limited_for.fetch_add(took, Ordering::Relaxed);
            began = now;
        }
        self.release();
    }
}

/// One connection's turn to be read. Dropping it leaves the line.
#[derive(Debug)]
pub(super) struct Turn {
    intake: Arc<Intake>,
    place: Option<Place>,
}

impl Turn {
    pub(super) fn new(intake: &Arc<Intake>) -> Self {
        Self {
            intake: Arc::clone(intake),
            place: None,
        }
    }

    /// Whether it has to wait.
    pub(super) fn is_needed(&self) -> bool {
        self.place.is_some() || self.intake.is_limited()
    }

    /// See [`Intake::pass_on`].
    pub(super) fn pass_on(&self) {
        self.intake.pass_on();
    }

    /// Ready when a request may be read; after that another turn begins.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_needed() {
            return Poll::Ready(());
        }
        let mut cycle = lock(&self.intake.cycle);
        match self.place {
            Some(place) => match cycle.line.waker(place) {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => {
                    self.place = None;
                    Poll::Ready(())
                }
            },
            None if cycle.take() => Poll::Ready(()),
            None => {
                let waker = context.waker().clone();
                self.place = Some(cycle.line.join(waker, Instant::now().into_std()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            lock(&self.intake.cycle).line.leave(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use futures_util::task::noop_waker;
    use tokio::task::JoinSet;

    use super::*;

    /// This many wait to be read, and one listener would accept.
    fn crowd(connections: u32, now: Instant) -> Cycle {
        let mut cycle = Cycle::default();
        for _ in 0..connections {
            cycle.line.join(noop_waker(), now.into_std());
        }
        cycle.acceptors.push(noop_waker());
        cycle
    }

    #[test]
    fn half_of_a_cycle_is_for_connections_to_accept_unless_callers_give_up() {
        let now = Instant::now();
        let mut cycle = crowd(100, now);
        cycle.begin(20, now);
        assert_eq!((cycle.begun, cycle.left), (10, 10));
        let mut cycle = crowd(100, now);
        let mut later = now + limits::INTAKE_WAIT;
        cycle.line.gone(later.into_std());
        let mut left = Vec::new();
        for _ in 0..3 {
            cycle.acceptors.push(noop_waker());
            cycle.begin(20, later);
            left.push(cycle.left);
            later += limits::INTAKE_ACCEPTS_EACH / 2;
        }
        assert_eq!(left, [1, 0, 1]);
        assert!(cycle.acceptors.is_empty());
    }

    #[test]
    fn the_rest_of_a_cycle_is_for_the_next_to_come() {
        let now = Instant::now();
        let mut cycle = crowd(3, now);
        cycle.begin(20, now);
        assert_eq!((cycle.begun, cycle.left), (3, 17));
        let taken = (0..20).filter(|_| cycle.take()).count();
        assert_eq!((taken, cycle.begun), (17, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_after_a_while_without_waiting_when_all_had_a_turn() {
        let intake = Arc::new(Intake::default());
        assert!(intake.turn().now_or_never().is_some());
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&intake).keep(Lag::default()));
        intake.stands();
        tokio::task::yield_now().await;
        assert!(intake.is_limited());
        join_all((0..1000).map(|_| intake.turn())).await;
        assert!(intake.is_limited());
        tokio::time::sleep(limits::INTAKE_RELEASE * 2).await;
        assert!(!intake.is_limited());
        assert!(intake.limited_for() >= limits::INTAKE_RELEASE);
    }

    #[test]
    fn a_listener_that_is_looked_at_again_and_again_waits_once() {
        let intake = Arc::new(Intake::default());
        intake.limited.store(true, Ordering::Relaxed);
        let mut accepts = std::pin::pin!(intake.accepts());
        for _ in 0..1000 {
            assert!(accepts.as_mut().now_or_never().is_none());
        }
        assert_eq!(lock(&intake.cycle).acceptors.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_of_a_client_that_left_goes_to_the_next() {
        let intake = Arc::new(Intake::default());
        intake.limited.store(true, Ordering::Relaxed);
        let mut turns = [(); 3].map(|()| Box::pin(intake.turn()));
        for turn in &mut turns {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        let [first, second, third] = turns;
        drop(first);
        intake.pass_on();
        assert!(third.now_or_never().is_none());
        assert!(second.now_or_never().is_some());
        // No connection is left to take it, so the next one that comes does.
        intake.pass_on();
        assert!(intake.turn().now_or_never().is_some());
        assert!(intake.turn().now_or_never().is_none());
    }
}
