//! Makes many waits precise to about ten microseconds, with one timerfd. tokio's timers would add up to a
//! millisecond to each delay, and a server that checks the precision of a measurement must be more precise
//! than that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use weft_transport::locks::lock;

use crate::clock::Clock;
use crate::pacer::Pacer;

/// The waits of one thread. Clones share them.
#[derive(Clone)]
pub(super) struct Alarms {
    clock: Clock,
    shared: Arc<Shared>,
}

struct Shared {
    /// By time and, for equal times, by order. Each belongs to a request under way, so there are no more
    /// than connections and streams allow.
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    alarms: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    number: u64,
}

impl Alarms {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            shared: Arc::new(Shared {
                waiting: Mutex::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// Done at `at` on the clock, while [`Self::drive`] runs.
    pub(super) async fn at(&self, at: Duration) {
        if self.clock.now() >= at {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        let is_first = self.with(|waiting| {
            waiting.number += 1;
            let key = (at, waiting.number);
            waiting.alarms.insert(key, sender);
            waiting.alarms.first_key_value().map(|(first, _)| *first) == Some(key)
        });
        if is_first {
            self.shared.changed.notify_one();
        }
        // The driver lives as long as the thread.
        let _ = receiver.await;
    }

    /// Wakes the waits whose time has come. Runs as long as the thread.
    ///
    /// # Errors
    /// The error of the kernel's timer.
    pub(super) async fn drive(self) -> io::Result<()> {
        let pacer = Pacer::new(self.clock)?;
        loop {
            let now = self.clock.now();
            let next = self.with(|waiting| {
                while let Some(first) = waiting.alarms.first_entry() {
                    if first.key().0 > now {
                        return Some(first.key().0);
                    }
                    // A wait that was dropped needs no waking.
                    let _ = first.remove().send(());
                }
                None
            });
            match next {
                None => self.shared.changed.notified().await,
                Some(next) => tokio::select! {
                    () = self.shared.changed.notified() => {}
                    waited = pacer.until(next) => waited?,
                },
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        act(&mut lock(&self.shared.waiting))
    }
}
