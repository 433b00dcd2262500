//! Compares answers with the plan's expectations, at no cost if there are none. Pure.

use aws_lc_rs::digest::{Context, SHA256};

use crate::plan::expect::{Expectations, both};
use crate::sample::Outcome;

/// The expectations of a run.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    expectations: Expectations,
}

/// The facts about one answer.
pub(crate) struct Verdict<'a> {
    expectations: &'a Expectations,
    outcome: Outcome,
    digest: Option<Context>,
}

impl Judge {
    pub(crate) fn new(expectations: &Expectations) -> Self {
        Self {
            expectations: expectations.clone(),
        }
    }

    /// Begins with an answer.
    pub(crate) fn begin(&self) -> Verdict<'_> {
        let hashed = self.expectations.body_sha256.is_some();
        Verdict {
            expectations: &self.expectations,
            outcome: Outcome::Success,
            digest: hashed.then(|| Context::new(&SHA256)),
        }
    }
}

impl Verdict<'_> {
    /// The status of HTTP.
    pub(crate) fn status(&mut self, status: u16) {
        self.outcome = both(self.outcome, self.expectations.status(status));
    }

    /// The status of gRPC.
    pub(crate) fn grpc_status(&mut self, status: u8) {
        self.outcome = both(self.outcome, self.expectations.grpc_status(status));
    }

    /// The head's fields; `has` as [`Expectations::fields`] wants it.
    pub(crate) fn fields(&mut self, has: impl FnMut(&str, Option<&[u8]>) -> bool) {
        self.outcome = both(self.outcome, self.expectations.fields(has));
    }

    /// The next bytes of the body.
    pub(crate) fn body(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }

    /// The verdict on the whole answer. The first fault counts.
    pub(crate) fn outcome(self) -> Outcome {
        match self.digest {
            None => self.outcome,
            Some(digest) => both(
                self.outcome,
                self.expectations.body(digest.finish().as_ref()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::expect::parse_sha256;
    use crate::sample::ErrorKind;

    #[test]
    fn a_body_is_judged_by_its_digest_in_whatever_pieces_it_came() {
        // FIPS 180-4's own example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let judge = Judge::new(&Expectations {
            body_sha256: Some(parse_sha256(abc).unwrap()),
            ..Expectations::default()
        });
        let outcome = |pieces: &[&str]| {
            let mut verdict = judge.begin();
            verdict.status(200);
            for piece in pieces {
                verdict.body(piece.as_bytes());
            }
            verdict.outcome()
        };
        assert_eq!(outcome(&["abc"]), Outcome::Success);
        assert_eq!(outcome(&["a", "", "bc"]), Outcome::Success);
        let wrong = Outcome::Failure(ErrorKind::UnexpectedBody);
        assert_eq!(outcome(&["abd"]), wrong);
    }

    #[test]
    fn the_first_thing_that_is_wrong_counts() {
        let judge = Judge::new(&Expectations {
            body_sha256: Some([0; 32]),
            ..Expectations::default()
        });
        let mut verdict = judge.begin();
        verdict.status(503);
        let outcome = verdict.outcome();
        assert_eq!(outcome, Outcome::Failure(ErrorKind::Status(503)));
    }
}
