//! How many copies of requests one worker has under way for a mirror: few at first, one more with each that
//! is answered, and few again after one that is not. So a mirror that answers nothing costs its callers a
//! handful of copies, and not a burst of as many as a quick one may have.
//!
//! One that refuses at once would get a copy of every request nevertheless, as none is under way for long.
//! After a number of copies without any answer it gets a single one now and then, until it answers that. Pure
//! except for atomics and a lock; the time is an argument.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use weft_transport::locks::lock;

use super::Lasting;
use crate::limits;

/// The copies of one mirror.
#[derive(Debug)]
pub(crate) struct Copies {
    under_way: AtomicUsize,
    most: AtomicUsize,
    /// That were not answered since one was.
    unanswered: AtomicUsize,
    /// When a mirror that answers none gets the next one. Asked only while it answers none.
    next: Mutex<Option<Instant>>,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(limits::MIRRORS_BEGIN),
            unanswered: AtomicUsize::new(0),
            next: Mutex::new(None),
        }
    }
}

/// Why a copy is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Too many are under way.
    Crowded,
    /// The mirror answered none of the last ones.
    Failing,
}

/// One copy under way. It says nothing of the mirror unless it is told how it ended.
#[derive(Debug)]
pub(crate) struct UnderWay {
    of: Arc<Lasting>,
}

impl UnderWay {
    /// One more, if there is room.
    pub(crate) fn begin(of: &Arc<Lasting>, now: Instant) -> Result<Self, Dropped> {
        let copies = &of.copies;
        if copies.is_failing() && lock(&copies.next).is_some_and(|next| now < next) {
            return Err(Dropped::Failing);
        }
        let most = match copies.is_failing() {
            true => 1,
            false => copies.most.load(Ordering::Relaxed),
        };
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let order = Ordering::Relaxed;
        let begun = copies.under_way.fetch_update(order, order, one_more);
        match begun {
            Ok(_) => Ok(Self { of: Arc::clone(of) }),
            Err(_) if copies.is_failing() => Err(Dropped::Failing),
            Err(_) => Err(Dropped::Crowded),
        }
    }

    /// The mirror answered it.
    pub(crate) fn answered(self) {
        let copies = &self.of.copies;
        // Of one worker, so no other thread changes it.
        let most = copies.most.load(Ordering::Relaxed) + 1;
        let most = most.min(limits::MIRRORS_MAX);
        copies.most.store(most, Ordering::Relaxed);
        copies.unanswered.store(0, Ordering::Relaxed);
    }

    /// It came to nothing.
    pub(crate) fn failed(self, now: Instant) {
        let copies = &self.of.copies;
        copies.most.store(limits::MIRRORS_BEGIN, Ordering::Relaxed);
        copies.unanswered.fetch_add(1, Ordering::Relaxed);
        if copies.is_failing() {
            *lock(&copies.next) = now.checked_add(limits::MIRROR_PAUSE);
        }
    }
}

impl Copies {
    fn is_failing(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) >= limits::MIRROR_UNANSWERED_MAX
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.of.copies.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fill(of: &Arc<Lasting>, now: Instant) -> Vec<UnderWay> {
        std::iter::from_fn(|| UnderWay::begin(of, now).ok()).collect()
    }

    #[test]
    fn a_mirror_that_answers_gets_more_copies_at_once_and_one_that_does_not_gets_few() {
        let (of, now) = (Arc::new(Lasting::default()), Instant::now());
        let first = fill(&of, now);
        assert_eq!(first.len(), limits::MIRRORS_BEGIN);
        first.into_iter().for_each(UnderWay::answered);
        let more = fill(&of, now);
        assert_eq!(more.len(), limits::MIRRORS_BEGIN * 2);
        assert_eq!(UnderWay::begin(&of, now).err(), Some(Dropped::Crowded));
        let mut more = more.into_iter();
        more.next().unwrap().failed(now);
        drop(more);
        assert_eq!(fill(&of, now).len(), limits::MIRRORS_BEGIN);
        for _ in 0..1000 {
            UnderWay::begin(&of, now).unwrap().answered();
        }
        assert_eq!(fill(&of, now).len(), limits::MIRRORS_MAX);
    }

    #[test]
    fn a_mirror_that_refuses_each_copy_at_once_gets_one_now_and_then_until_it_answers() {
        let (of, start) = (Arc::new(Lasting::default()), Instant::now());
        let mut sent = 0;
        // A thousand requests a second, for ten seconds.
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            match UnderWay::begin(&of, now) {
                Ok(copy) => {
                    sent += 1;
                    copy.failed(now);
                }
                Err(why) => assert_eq!(why, Dropped::Failing),
            }
        }
        assert!(
            (limits::MIRROR_UNANSWERED_MAX + 8..=limits::MIRROR_UNANSWERED_MAX + 10)
                .contains(&sent),
            "{sent}"
        );
        // One at a time, however long it takes.
        let now = start + Duration::from_secs(20);
        let only = UnderWay::begin(&of, now).unwrap();
        assert_eq!(UnderWay::begin(&of, now).err(), Some(Dropped::Failing));
        only.answered();
        assert_eq!(fill(&of, now).len(), limits::MIRRORS_BEGIN + 1);
    }

    #[test]
    fn copies_that_a_drain_gave_up_say_nothing_of_the_mirror() {
        let (of, now) = (Arc::new(Lasting::default()), Instant::now());
        for _ in 0..limits::MIRROR_UNANSWERED_MAX * 2 {
            drop(UnderWay::begin(&of, now));
        }
        assert_eq!(fill(&of, now).len(), limits::MIRRORS_BEGIN);
    }
}
