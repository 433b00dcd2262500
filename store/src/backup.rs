//! The parts of backups and restores: a copy of one state into another store, and a store that appears at its
//! place completely or not at all. The CA and the config service decide the documents and directories.

use std::path::{Path, PathBuf};

use weft_transport::files;

use crate::limits::{COMMIT_CHANGES_MAX, COPY_BYTES};
use crate::{Change, Keys, Layout, Redb, Snapshot, Store, StoreError, each};

/// Puts every entry of a state into `target`, some at a time. Leases are not copied: a key under a lease
/// belongs to a running process.
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

/// Changes on their way to a store: collected in memory up to a number of bytes, then committed.
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

/// Makes a store at `path` by `fill`. Afterwards it is complete, or, if anything failed, as it was before. An
/// existing store is replaced.
///
/// # Errors
/// When the files cannot be written, or with the error of `fill`.
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
    // Left by a restore that did not finish; no other file has this name.
    files::remove(&staged).map_err(StoreError::from)?;
    let filled = make(&staged).map_err(E::from).and_then(|store| {
        let filled = fill(&store)?;
        // The file is closed before it is put in its place.
        drop(store);
        files::rename(&staged, path).map_err(StoreError::from)?;
        Ok(filled)
    });
    if filled.is_err() {
        // An incomplete store would take the space that the next attempt needs. The first error is the one
        // that is reported.
        let _ = files::remove(&staged);
    }
    filled
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
