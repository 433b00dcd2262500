//! Checks that every store makes on a commit, however it keeps its entries. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_CHANGES_MAX, KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN,
    VALUE_BYTES_MAX,
};
use crate::{Change, Condition, Entry, StoreError};

/// Refuses a commit that no store accepts.
pub(crate) fn check(conditions: &[Condition], changes: &[Change]) -> Result<(), StoreError> {
    let invalid = |reason: String| Err(StoreError::Invalid(reason));
    if changes.len() > COMMIT_CHANGES_MAX || conditions.len() > COMMIT_CHANGES_MAX {
        return invalid(format!(
            "{} changes and {} conditions in one commit, of at most {COMMIT_CHANGES_MAX}",
            changes.len(),
            conditions.len()
        ));
    }
    let mut seen = BTreeSet::new();
    let mut bytes = 0_usize;
    for change in changes {
        let key = change.key();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return invalid(format!(
                "a key of {} bytes, of 1 to {KEY_BYTES_MAX}",
                key.len()
            ));
        }
        if !seen.insert(key) {
            return invalid(format!(
                "two changes of {} in one commit",
                key.escape_ascii()
            ));
        }
        let value = match change {
            Change::Put { value, .. } => value.len(),
            Change::Delete(_) => 0,
        };
        bytes = bytes.saturating_add(key.len()).saturating_add(value);
        if value > VALUE_BYTES_MAX || bytes > COMMIT_BYTES_MAX {
            return invalid(format!(
                "a value of {value} bytes in a commit of {bytes}: at most {VALUE_BYTES_MAX} and {COMMIT_BYTES_MAX}"
            ));
        }
    }
    Ok(())
}

/// Whether a condition holds for the present state of its key.
pub(crate) fn holds(condition: &Condition, present: Option<&Entry>) -> bool {
    match condition {
        Condition::Absent(_) => present.is_none(),
        Condition::Unchanged(_, revision) => {
            present.is_some_and(|entry| entry.modified == *revision)
        }
        Condition::Under(_, lease) => present.is_some_and(|entry| entry.lease == Some(*lease)),
    }
}

/// A lease's life in whole seconds, as it is stored.
pub(crate) fn seconds(ttl: Duration) -> Result<u64, StoreError> {
    if ttl < LEASE_TTL_MIN || ttl > LEASE_TTL_MAX {
        return Err(StoreError::ttl(ttl));
    }
    Ok(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
}
