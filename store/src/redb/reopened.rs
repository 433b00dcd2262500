//! A redb file that is opened again after its disk failed. redb refuses all work after a disk error, so a
//! disk that was full for a moment would stop a service until an operator restarts it.
//!
//! The reopened file holds the state of the last complete transaction: redb repairs it. The caller must then
//! check whether a transaction that was reported as failed is in it; only the caller can know.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use redb::{Database, DatabaseError, StorageError};

use crate::limits::REOPEN_PAUSE;

type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The file. One process at a time holds it.
pub(super) struct Reopened {
    open: Open,
    state: Mutex<State>,
}

struct State {
    /// None after a failed attempt to open it again.
    database: Option<Arc<Database>>,
    /// When the disk failed, or when the file last could not be opened.
    failed: Option<Instant>,
}

impl Reopened {
    /// Opens the file by `open`, now and after each failure.
    pub(super) fn new(
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, DatabaseError> {
        let database = open()?;
        Ok(Self {
            open: Box::new(open),
            state: Mutex::new(State {
                database: Some(Arc::new(database)),
                failed: None,
            }),
        })
    }

    /// The database; opened again if its disk failed more than [`REOPEN_PAUSE`] before `now`. Keep it for one
    /// transaction only, because the file must not be opened twice.
    pub(super) fn get(&self, now: Instant) -> Result<Arc<Database>, DatabaseError> {
        let mut state = self.lock();
        if let Some(failed) = state.failed
            && now.saturating_duration_since(failed) >= REOPEN_PAUSE
        {
            // Its lock on the file must go first.
            state.database = None;
            state.failed = Some(now);
            let database = (self.open)().map_err(|error| {
                if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                    // By a call of this process that has not finished yet.
                    return DatabaseError::Storage(StorageError::PreviousIo);
                }
                error
            })?;
            tracing::info!("the store was opened again after its disk had failed");
            state.database = Some(Arc::new(database));
            state.failed = None;
        }
        let previous = DatabaseError::Storage(StorageError::PreviousIo);
        state.database.clone().ok_or(previous)
    }

    /// The disk failed: the open database is of no further use.
    pub(super) fn mark_failed(&self, now: Instant) {
        self.lock().failed.get_or_insert(now);
    }

    /// Whether the disk failed, and the file was not opened again since.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The file can be opened again from any state between two assignments.
        weft_transport::locks::lock(&self.state)
    }
}

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_disk_is_tried_again_after_a_pause_and_no_sooner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let opened = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&opened);
        let file = Reopened::new(move || {
            *counted.lock().unwrap() += 1;
            Database::create(&path)
        })
        .unwrap();
        let now = Instant::now();
        file.get(now + REOPEN_PAUSE * 9).unwrap();
        assert_eq!(*opened.lock().unwrap(), 1);
        file.mark_failed(now);
        file.get(now + REOPEN_PAUSE / 2).unwrap();
        assert!(file.has_failed());
        // The lock of the file that failed is gone by the time it is opened again.
        file.get(now + REOPEN_PAUSE).unwrap();
        assert!(!file.has_failed());
        assert_eq!(*opened.lock().unwrap(), 2);
    }
}
