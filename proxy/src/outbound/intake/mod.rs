//! How much of what the application asks a worker takes in, while it has more to do than it can.
//!
//! A request costs next to nothing as long as it is not read. So a worker that falls behind, or whose connections
//! wait to be accepted for long, begins only as many requests in each pass over what is ready as one pass has time for
//! ([`portion`]). The others wait in the kernel, where TCP lets their callers feel it, and [`mod@line`] tells who is next.
//! Connections are accepted by the same measure ([`door`]). When nobody has waited for a second, all are taken in as
//! they come.
//!
//! A request that had to be read to be seen, because it came on a connection that carries others too (HTTP/2),
//! waits as well: as many as may be open on one connection, and no more are sent.

mod door;
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
pub(super) use door::Door;
use line::{Line, Place};
use portion::Portion;
use weft_transport::locks::lock;

/// What one worker takes in.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Whether it is limited; if not, nothing else here is looked at.
    limited: AtomicBool,
    cycle: Mutex<Cycle>,
    /// Somebody found that connections wait to be accepted for long.
    stands: Notify,
    /// The limit has ended.
    released: Notify,
    /// Microseconds in which it was limited.
    limited_for: AtomicU64,
}

/// What may begin before the next cycle does.
#[derive(Debug, Default)]
struct Cycle {
    left: u32,
    begun: u32,
    /// Connections with something to read.
    line: Line<Waker>,
    /// Listeners that would accept.
    doors: Vec<Waker>,
    /// When one of them had its turn before connections that wait to be read.
    accepted: Option<Instant>,
}

impl Cycle {
    /// Begins anew with so many, and wakes those whose turn it is.
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
        self.doors.drain(..).for_each(Waker::wake);
    }

    /// How many of those that are left may be connections to accept though others wait to be read: half, which is
    /// fair, unless callers give up. Then one more connection would only be one more that waits.
    fn kept(&mut self, now: Instant) -> u32 {
        if self.doors.is_empty() || self.line.is_empty() {
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
        !self.line.is_empty() || !self.doors.is_empty()
    }
}

impl Intake {
    /// Whether a turn has to be waited for.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// How long it was limited, in all.
    pub(crate) fn limited_for(&self) -> Duration {
        Duration::from_micros(self.limited_for.load(Ordering::Relaxed))
    }

    /// Waits until one more may be read. Cancel-safe.
    pub(super) async fn turn(self: &Arc<Self>) {
        let mut turn = Turn::new(self);
        poll_fn(|context| turn.poll(context)).await;
    }

    /// The turn that was waited for is not needed, because the client is gone: whoever has waited longest has it, and
    /// may be gone as well. So those who are do not pile up.
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
            let waits = |door: &Waker| door.will_wake(context.waker());
            if !cycle.doors.iter().any(waits) {
                cycle.doors.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Connections have been waiting to be accepted for longer than a burst takes.
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

    /// Limits what is taken in whenever there is more than the worker can do. Without end.
    pub(crate) async fn keep(self: Arc<Self>, lag: Lag) {
        loop {
            tokio::select! {
                () = lag.fell_behind() => {}
                () = self.stands.notified() => {}
            }
            self.limit().await;
        }
    }

    /// Limits until nobody has waited for a while.
    async fn limit(&self) {
        let mut portion = Portion::default();
        let mut began = Instant::now();
        // Whoever made it necessary waits.
        let (mut waits, mut waited) = (true, began);
        self.limited.store(true, Ordering::Relaxed);
        while began - waited < limits::INTAKE_RELEASE {
            lock(&self.cycle).begin(portion.requests(), began);
            if !waits {
                tokio::time::sleep(limits::INTAKE_CYCLE).await;
            }
            // Everything that is ready has its turn before this comes back.
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

/// The turn of one connection to be read. Dropped, it has left the line.
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

    /// Whether it has to be waited for.
    pub(super) fn is_needed(&self) -> bool {
        self.place.is_some() || self.intake.is_limited()
    }

    /// See [`Intake::pass_on`].
    pub(super) fn pass_on(&self) {
        self.intake.pass_on();
    }

    /// Ready when something may be read; after that another turn begins.
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

    /// So many that wait to be read, and a listener that would accept.
    fn crowd(connections: u32, now: Instant) -> Cycle {
        let mut cycle = Cycle::default();
        for _ in 0..connections {
            cycle.line.join(noop_waker(), now.into_std());
        }
        cycle.doors.push(noop_waker());
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
            cycle.doors.push(noop_waker());
            cycle.begin(20, later);
            left.push(cycle.left);
            later += limits::INTAKE_ACCEPTS_EACH / 2;
        }
        assert_eq!(left, [1, 0, 1]);
        assert!(cycle.doors.is_empty());
    }

    #[test]
    fn what_is_left_of_a_cycle_is_for_whoever_comes() {
        let now = Instant::now();
        let mut cycle = crowd(3, now);
        cycle.begin(20, now);
        assert_eq!((cycle.begun, cycle.left), (3, 17));
        let taken = (0..20).filter(|_| cycle.take()).count();
        assert_eq!((taken, cycle.begun), (17, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_when_nobody_has_waited_for_a_while_and_everybody_had_a_turn() {
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
        assert_eq!(lock(&intake.cycle).doors.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_of_one_that_is_gone_goes_to_the_next_and_who_leaves_has_none() {
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
        // Nobody is left to have it, so whoever comes does.
        intake.pass_on();
        assert!(intake.turn().now_or_never().is_some());
        assert!(intake.turn().now_or_never().is_none());
    }
}
