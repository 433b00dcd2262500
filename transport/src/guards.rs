//! Actions against peers that went beyond a limit of HTTP/3, counted, so that every closed or delayed
//! connection is visible. Pure except for one lock. Not here: the limits ([`crate::http3`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::error::ConnectionError;
use crate::limits;

/// The action taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The connection was closed; all that ran on it has failed.
    Closed,
    /// New requests of the peer waited for a moment.
    Paced,
}

impl Action {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Paced => "paced",
        }
    }
}

/// One kind of behaviour of peers, and the action against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guarded {
    /// In few words.
    pub reason: &'static str,
    /// The action taken.
    pub action: Action,
}

impl Guarded {
    /// The peer cancelled too many requests soon after it opened them.
    pub const PACED: Self = Self {
        reason: "rapid resets",
        action: Action::Paced,
    };

    /// Why a connection ended, if this side closed it for the peer's behaviour.
    pub fn of(error: &ConnectionError) -> Option<Self> {
        match error {
            ConnectionError::PeerViolation { reason, .. } => Some(Self {
                reason,
                action: Action::Closed,
            }),
            ConnectionError::ClosedByPeer(_)
            | ConnectionError::ClosedHere
            | ConnectionError::TimedOut
            | ConnectionError::Reset
            | ConnectionError::Transport(_) => None,
        }
    }
}

/// Counts of one worker. The reasons are constants of this crate, so there are few.
#[derive(Debug, Default)]
pub struct Guards(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<Guarded, u64>,
    logged: Option<Instant>,
}

impl Guards {
    /// It happened once more. True if it is to be logged: a flood of such events must not become a flood of
    /// log lines.
    #[must_use]
    pub fn count(&self, guarded: Guarded, now: Instant) -> bool {
        let mut counts = self.lock();
        *counts.counts.entry(guarded).or_default() += 1;
        let due = counts.logged.is_none_or(|before| {
            now.saturating_duration_since(before) >= limits::GUARD_LOG_INTERVAL
        });
        if due {
            counts.logged = Some(now);
        }
        due
    }

    /// How often each happened.
    pub fn counts(&self) -> BTreeMap<Guarded, u64> {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // At worst one number is off.
        crate::locks::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_one_in_a_second_is_logged() {
        let now = Instant::now();
        let guards = Guards::default();
        assert!(guards.count(Guarded::PACED, now));
        assert!(!guards.count(Guarded::PACED, now));
        assert!(guards.count(Guarded::PACED, now + limits::GUARD_LOG_INTERVAL));
        assert_eq!(guards.counts(), [(Guarded::PACED, 3)].into());
    }
}
