//! Answers that a caller does not read. hyper asks for more of an answer only when it has room for that, so
//! an answer whose caller reads nothing would end neither by its time nor by a policy, and would keep a place
//! among the calls under way. Its connection ends in its place.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use http::{Method, Uri};
use tokio::sync::Notify;
use weft_transport::locks::lock;

use super::judge;
use crate::application::body::Moved;
use crate::inbound::served::ServedService;
use crate::limits;
use crate::worker::Worker;

/// The answers under way on one connection.
#[derive(Default)]
pub(super) struct Answers {
    all: Mutex<Vec<Weak<Answer>>>,
    comes: Notify,
}

/// One of them. It is under way for as long as its body holds this.
pub(super) struct Answer {
    moved: Arc<Moved>,
    asked: (Method, Uri),
    /// How long it may make no progress.
    idle: Duration,
    /// When it has to be over.
    end: Option<Instant>,
    /// The bytes that had passed, and since when it is so.
    progress: Mutex<(u64, Instant)>,
}

impl Answer {
    pub(super) fn new(
        moved: Arc<Moved>,
        asked: (Method, Uri),
        (idle, end): (Duration, Option<Instant>),
        now: Instant,
    ) -> Arc<Self> {
        let progress = Mutex::new((moved.total(), now));
        Arc::new(Self {
            moved,
            asked,
            idle,
            end,
            progress,
        })
    }

    /// Whether its time is over.
    fn is_late(&self, now: Instant) -> bool {
        let total = self.moved.total();
        let mut progress = lock(&self.progress);
        if progress.0 != total {
            *progress = (total, now);
        }
        let still = now.saturating_duration_since(progress.1);
        still >= self.idle || self.end.is_some_and(|end| now >= end)
    }
}

impl Answers {
    /// One more is under way.
    pub(super) fn add(&self, answer: &Arc<Answer>) {
        let mut answers = lock(&self.all);
        answers.retain(|one| one.strong_count() > 0);
        answers.push(Arc::downgrade(answer));
        drop(answers);
        self.comes.notify_one();
    }

    fn under_way(&self) -> Vec<Arc<Answer>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }

    /// Done when one is under way although its time is over, or although the policies came to forbid it. One
    /// whose caller reads has ended before that.
    pub(super) async fn stuck(&self, worker: &Worker, service: &Arc<ServedService>) {
        let mut directory = worker.directory.clone();
        loop {
            if self.under_way().is_empty() {
                // A connection that rests costs nothing.
                self.comes.notified().await;
            }
            tokio::time::sleep(limits::PLAINTEXT_LOOK).await;
            let now = Instant::now();
            let answers = self.under_way();
            if answers.iter().any(|answer| answer.is_late(now)) {
                return;
            }
            if !directory.has_changed().unwrap_or(false) {
                continue;
            }
            let newest = Arc::clone(&directory.borrow_and_update());
            let forbidden = answers.iter().any(|answer| {
                let (method, uri) = &answer.asked;
                judge(&newest, service, Some((method.as_str(), uri.path()))).is_err()
            });
            if forbidden {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn an_answer_is_late_after_its_time_without_progress_and_at_its_end() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let moved = Arc::new(Moved::default());
        let asked = || (Method::GET, Uri::from_static("/"));
        let limits = (second * 10, Some(start + second * 30));
        let answer = Answer::new(Arc::clone(&moved), asked(), limits, start);
        assert!(!answer.is_late(start + second * 9));
        assert!(answer.is_late(start + second * 10));
        moved.received.fetch_add(1, Ordering::Relaxed);
        assert!(!answer.is_late(start + second * 11));
        assert!(!answer.is_late(start + second * 20));
        moved.received.fetch_add(1, Ordering::Relaxed);
        assert!(answer.is_late(start + second * 30), "whatever passes");
    }

    #[test]
    fn only_answers_whose_bodies_are_there_are_under_way() {
        let answers = Answers::default();
        let asked = || (Method::GET, Uri::from_static("/"));
        let limits = (Duration::from_secs(1), None);
        let make = || Answer::new(Arc::default(), asked(), limits, Instant::now());
        let (one, two) = (make(), make());
        answers.add(&one);
        answers.add(&two);
        drop(one);
        assert_eq!(answers.under_way().len(), 1);
        drop(two);
        answers.add(&make());
        assert_eq!(answers.under_way().len(), 0);
    }
}
