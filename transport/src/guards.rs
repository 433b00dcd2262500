//! What peers did beyond a limit of HTTP/3, counted, so that no connection is closed or held back unseen. Pure but for
//! one lock. Not here: the limits ([`crate::http3`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::error::ConnectionError;
use crate::limits;

/// What was done about it.
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

/// One thing that peers did, and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guarded {
    /// In few words.
    pub reason: &'static str,
    /// What was done.
    pub action: Action,
}

impl Guarded {
    /// The peer took back too many requests soon after their opening.
    pub const PACED: Self = Self {
        reason: "rapid resets",
        action: Action::Paced,
    };

    /// Why a connection ended, if this side closed it for what the peer did.
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

/// Counts of one worker. Reasons are words of this crate, so there are few.
#[derive(Debug, Default)]
pub struct Guards(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<Guarded, u64>,
    logged: Option<Instant>,
}

impl Guards {
    /// It happened once more. True if it is to be logged: a flood of what is guarded against must not become one of
    /// lines.
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
