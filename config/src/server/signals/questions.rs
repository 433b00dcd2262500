//! What operators ask of sidecars while they wait: a question goes down the stream of each sidecar that is
//! meant, and what they answer comes together here. A sidecar whose stream ends answers no more, and is no
//! longer waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, mpsc};
use tonic::Status;
use weft_transport::identity::SpiffeId;
use weft_transport::locks;

use crate::limits;
use crate::proto::question::Kind;
use crate::proto::{Answer, Question};

/// What is sent to a sidecar.
pub(super) type ToSidecar = mpsc::Sender<Result<Question, Status>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_stream: u64,
    last_question: u64,
    streams: BTreeMap<u64, (SpiffeId, ToSidecar)>,
    open: BTreeMap<u64, Open>,
}

/// A question that waits.
#[derive(Debug)]
struct Open {
    /// Streams that have not answered.
    waits_for: BTreeSet<u64>,
    heard: Heard,
    /// All have answered.
    complete: Arc<Notify>,
}

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What sidecars told, each as a line of its access log.
    pub(super) calls: Vec<(SpiffeId, Vec<u8>)>,
    /// Those that were asked.
    pub(super) asked: usize,
    /// Those of them that did not answer.
    pub(super) silent: Vec<SpiffeId>,
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        locks::lock(&self.0)
    }

    /// A sidecar may be asked from here on. The number names its stream.
    pub(super) fn join(&self, identity: &SpiffeId, to: ToSidecar) -> u64 {
        let mut inner = self.lock();
        inner.last_stream += 1;
        let number = inner.last_stream;
        inner.streams.insert(number, (identity.clone(), to));
        number
    }

    /// Its stream has ended.
    pub(super) fn leave(&self, stream: u64) {
        let mut inner = self.lock();
        inner.streams.remove(&stream);
        for open in inner.open.values_mut() {
            open.settled(stream);
        }
    }

    /// Takes an answer of a sidecar.
    pub(super) fn answer(&self, stream: u64, answer: Answer) {
        let mut inner = self.lock();
        let identity = inner
            .streams
            .get(&stream)
            .map(|(identity, _)| identity.clone());
        let open = inner.open.get_mut(&answer.id);
        // An answer to a question that is over, or that another was asked, is late or made up.
        let (Some(identity), Some(open)) = (identity, open) else {
            return;
        };
        if !open.waits_for.contains(&stream) {
            return;
        }
        let room = limits::ANSWERS_MAX.saturating_sub(open.heard.calls.len());
        let calls = answer
            .calls
            .into_iter()
            .filter(|call| call.len() <= limits::ANSWER_CALL_BYTES_MAX);
        open.heard
            .calls
            .extend(calls.take(room).map(|call| (identity.clone(), call)));
        if answer.over {
            open.settled(stream);
        }
    }

    /// Asks every sidecar, and waits for what they answer.
    pub(super) async fn ask(&self, kind: Kind) -> Result<Heard, Status> {
        let (id, complete) = {
            let mut inner = self.lock();
            if inner.open.len() >= limits::QUESTIONS_OPEN {
                return Err(Status::resource_exhausted(
                    "many operators ask at this moment: try again",
                ));
            }
            inner.last_question += 1;
            let id = inner.last_question;
            let question = Question {
                id,
                kind: Some(kind),
            };
            // One whose queue is full does not read: it counts as silent.
            let asked: Vec<u64> = inner.streams.keys().copied().collect();
            let sent = inner
                .streams
                .values()
                .map(|(_, to)| to.try_send(Ok(question.clone())));
            let _unsent = sent.filter(Result::is_err).count();
            let complete = Arc::new(Notify::new());
            let open = Open {
                heard: Heard {
                    asked: asked.len(),
                    ..Heard::default()
                },
                waits_for: asked.into_iter().collect(),
                complete: Arc::clone(&complete),
            };
            if open.waits_for.is_empty() {
                return Ok(open.heard);
            }
            inner.open.insert(id, open);
            (id, complete)
        };
        // Ended in any case: also when the operator goes away.
        let asking = Asking {
            questions: self,
            id,
        };
        let _in_time = tokio::time::timeout(limits::ANSWERS_TIMEOUT, complete.notified()).await;
        Ok(asking.end())
    }

    fn close(&self, id: u64) -> Heard {
        let mut inner = self.lock();
        let Some(mut open) = inner.open.remove(&id) else {
            return Heard::default();
        };
        let identity = |stream: &u64| {
            inner
                .streams
                .get(stream)
                .map(|(identity, _)| identity.clone())
        };
        open.heard.silent = open.waits_for.iter().filter_map(identity).collect();
        open.heard
    }
}

impl Open {
    fn settled(&mut self, stream: u64) {
        if self.waits_for.remove(&stream) && self.waits_for.is_empty() {
            self.complete.notify_one();
        }
    }
}

struct Asking<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Asking<'_> {
    fn end(self) -> Heard {
        self.questions.close(self.id)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.questions.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Recent;

    fn sidecar(
        questions: &Questions,
        name: &str,
    ) -> (u64, mpsc::Receiver<Result<Question, Status>>) {
        let (to, asked) = mpsc::channel(1);
        let identity = format!("spiffe://demo.test/ns/shop/sa/{name}")
            .parse()
            .unwrap();
        (questions.join(&identity, to), asked)
    }

    fn answer(id: u64, call: &str, over: bool) -> Answer {
        Answer {
            id,
            calls: vec![call.as_bytes().to_vec()],
            over,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_together_and_one_that_is_silent_is_named() {
        let questions = Questions::default();
        let (one, mut asked) = sidecar(&questions, "one");
        let (two, _not_read) = sidecar(&questions, "two");
        let (gone, _) = sidecar(&questions, "gone");
        let asking = questions.ask(Kind::Recent(Recent::default()));
        let answering = async {
            let question = asked.recv().await.unwrap().unwrap();
            questions.answer(one, answer(question.id, "a", false));
            questions.answer(one, answer(question.id, "b", true));
            // Late, unasked, and made up.
            questions.answer(one, answer(question.id, "c", true));
            questions.answer(two, answer(question.id + 1, "d", true));
            questions.answer(99, answer(question.id, "e", true));
            questions.leave(gone);
        };
        let (heard, ()) = tokio::join!(asking, answering);
        let heard = heard.unwrap();
        let calls: Vec<_> = heard.calls.iter().map(|(_, call)| &call[..]).collect();
        assert_eq!(calls, [b"a", b"b"]);
        let silent: Vec<_> = heard.silent.iter().map(ToString::to_string).collect();
        assert_eq!(
            (heard.asked, silent),
            (3, vec!["spiffe://demo.test/ns/shop/sa/two".to_owned()])
        );
        assert!(questions.lock().open.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_sidecars_there_is_no_wait_and_an_operator_that_goes_away_leaves_nothing() {
        let questions = Questions::default();
        let begun = tokio::time::Instant::now();
        assert_eq!(
            questions
                .ask(Kind::Recent(Recent::default()))
                .await
                .unwrap()
                .asked,
            0
        );
        assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
        let (_one, _asked) = sidecar(&questions, "one");
        let asking = questions.ask(Kind::Recent(Recent::default()));
        let brief = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(brief, asking).await.is_err());
        assert!(questions.lock().open.is_empty());
    }
}
