//! What backups and restores are made of: a copy of one state into another store, and a store that appears at its
//! place whole or not at all. Which documents and directories they become is the business of the CA and of the
//! config service.

use std::path::{Path, PathBuf};

use weft_transport::files;

use crate::limits::{COMMIT_CHANGES_MAX, COPY_BYTES};
use crate::{Change, Keys, Layout, Redb, Snapshot, Store, StoreError, each};

/// Puts every entry of a state into `target`, some at a time. Leases stay behind: what hangs on one belongs to a
/// process that runs now.
///
/// # Errors
/// When one of them fails.
pub fn copy(source: &dyn Snapshot, target: &dyn Store) -> Result<(), StoreError> {
    let mut batch = Batch::new(target);
    each(source, Keys::all(), |entry| match entry.lease {
        Some(_) => Ok(()),
        None => batch.add(Change::put(entry.key, entry.value)),
    })?;
    batch.finish()
}

/// Makes changes in several commits, for a store that is not in its place yet.
///
/// # Errors
/// When the store or a change fails.
pub fn fill(
    target: &dyn Store,
    changes: impl IntoIterator<Item = Result<Change, StoreError>>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new(target);
    for change in changes {
        batch.add(change?)?;
    }
    batch.finish()
}

/// Changes on their way to a store: some bytes in memory, then a commit.
struct Batch<'a> {
    target: &'a dyn Store,
    changes: Vec<Change>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(target: &'a dyn Store) -> Self {
        Self {
            target,
            changes: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, change: Change) -> Result<(), StoreError> {
        self.bytes += match &change {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete(key) => key.len(),
        };
        self.changes.push(change);
        if self.bytes < COPY_BYTES && self.changes.len() < COMMIT_CHANGES_MAX {
            return Ok(());
        }
        self.bytes = 0;
        // Without conditions there is no conflict.
        let _ = self
            .target
            .commit(&[], &std::mem::take(&mut self.changes))?;
        Ok(())
    }

    fn finish(self) -> Result<(), StoreError> {
        let _ = self.target.commit(&[], &self.changes)?;
        Ok(())
    }
}

/// Makes a store at `path` by `fill`: it is there whole, or, if anything fails, as it was before. What is there
/// already is replaced.
///
/// # Errors
/// When the files cannot be written, or as `fill` says.
pub fn install<R, E: From<StoreError>>(
    path: &Path,
    layout: &'static Layout,
    fill: impl FnOnce(&Redb) -> Result<R, E>,
) -> Result<R, E> {
    install_from(path, |staged| Redb::create(staged, layout), fill)
}

/// The same, from a copy of the file `source`, which may be of an earlier version and stays as it is.
pub(crate) fn install_from<R, E: From<StoreError>>(
    path: &Path,
    make: impl FnOnce(&Path) -> Result<Redb, StoreError>,
    fill: impl FnOnce(&Redb) -> Result<R, E>,
) -> Result<R, E> {
    let staged = staged(path);
    // A leftover of a restore that did not finish; nothing else has this name.
    files::remove(&staged).map_err(StoreError::from)?;
    let filled = make(&staged).map_err(E::from).and_then(|store| {
        let filled = fill(&store)?;
        // The file is closed before it is put in its place.
        drop(store);
        files::rename(&staged, path).map_err(StoreError::from)?;
        Ok(filled)
    });
    if filled.is_err() {
        // A part of a store would hold the space that the next attempt needs. The error that counts is the first.
        let _ = files::remove(&staged);
    }
    filled
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
