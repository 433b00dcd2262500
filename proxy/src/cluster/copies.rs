//! How many copies of requests one worker has under way for a mirror: few at first, one more with each that
//! is answered, and few again after one that is not. So a mirror that answers nothing costs its callers a
//! handful of copies, and not a burst of as many as a quick one may have. Pure except for atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Lasting;
use crate::limits;

/// The copies of one mirror.
#[derive(Debug)]
pub(crate) struct Copies {
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(limits::MIRRORS_BEGIN),
        }
    }
}

/// One copy under way. It was not answered unless it says so.
#[derive(Debug)]
pub(crate) struct UnderWay {
    of: Arc<Lasting>,
    answered: bool,
}

impl UnderWay {
    /// One more, if there is room.
    pub(crate) fn begin(of: &Arc<Lasting>) -> Option<Self> {
        let copies = &of.copies;
        let most = copies.most.load(Ordering::Relaxed);
        let one_more = |now: usize| (now < most).then_some(now + 1);
        let order = Ordering::Relaxed;
        copies
            .under_way
            .fetch_update(order, order, one_more)
            .ok()
            .map(|_| Self {
                of: Arc::clone(of),
                answered: false,
            })
    }

    /// The mirror answered it.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let copies = &self.of.copies;
        copies.under_way.fetch_sub(1, Ordering::Relaxed);
        let most = match self.answered {
            // Of one worker, so no other thread changes it.
            true => (copies.most.load(Ordering::Relaxed) + 1).min(limits::MIRRORS_MAX),
            false => limits::MIRRORS_BEGIN,
        };
        copies.most.store(most, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(of: &Arc<Lasting>) -> Vec<UnderWay> {
        std::iter::from_fn(|| UnderWay::begin(of)).collect()
    }

    #[test]
    fn a_mirror_that_answers_gets_more_copies_at_once_and_one_that_does_not_gets_few() {
        let of = Arc::new(Lasting::default());
        let first = fill(&of);
        assert_eq!(first.len(), limits::MIRRORS_BEGIN);
        for mut copy in first {
            copy.answered();
        }
        assert_eq!(fill(&of).len(), limits::MIRRORS_BEGIN * 2);
        // These were dropped unanswered.
        assert_eq!(fill(&of).len(), limits::MIRRORS_BEGIN);
        for _ in 0..1000 {
            UnderWay::begin(&of).unwrap().answered();
        }
        assert_eq!(fill(&of).len(), limits::MIRRORS_MAX);
    }
}
