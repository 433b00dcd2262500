//! One process may use a state directory: two that renew one identity would invalidate each other's renewals.
//! A process claims its directory by a lock that the kernel releases however the process ends.
//!
//! A process that only reads the directory needs no claim. Not here: when a claim passes from one process to
//! the next (the `weft` command).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use weft_transport::files::{self, FileError};

/// The file that is locked. It holds the id of the process, for messages, and is never removed.
const LOCK: &str = "lock";

/// The right to write to a state directory; given up when dropped.
#[derive(Debug)]
pub struct Claim {
    _locked: File,
}

impl Claim {
    /// Claims a state directory, which is made (0700) if needed. `None` if another process has it.
    ///
    /// # Errors
    /// When the directory or the file cannot be made.
    pub fn take(state_dir: &Path) -> Result<Option<Self>, FileError> {
        files::make_directory(state_dir)?;
        let path = state_dir.join(LOCK);
        let failed = |error| FileError::io("lock", &path, error);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .or_else(|error| match takes_nothing(&error) {
                true => File::open(&path).or_else(|_| File::open(state_dir)),
                false => Err(error),
            })
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // If the holder's name cannot be written, that is no failure: the lock is what counts.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Some(Self { _locked: file }))
    }

    /// The process that claimed a state directory last.
    #[must_use]
    pub fn holder(state_dir: &Path) -> Option<u32> {
        let text = files::read_if_there(&state_dir.join(LOCK)).ok()??;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }
}

/// Whether the file system is read-only or full. A lock needs no write: the lock is on the file that an
/// earlier process made, or else on the directory itself, in which then no process can make the file.
fn takes_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        ReadOnlyFilesystem | StorageFull | QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_until_that_one_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = Claim::take(&path).unwrap().unwrap();
        assert!(Claim::take(&path).unwrap().is_none());
        assert_eq!(Claim::holder(&path), Some(std::process::id()));
        drop(first);
        assert!(Claim::take(&path).unwrap().is_some());
    }
}
