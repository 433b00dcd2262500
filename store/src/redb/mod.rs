//! A store in one file, by redb. One process at a time holds it.
//!
//! `tables.rs` defines the file's tables and how a commit changes them, `snapshot.rs` reads and watches them,
//! `reopened.rs` handles a failure of the disk, `old.rs` migrates files of earlier versions.

mod old;
mod reopened;
mod snapshot;
mod tables;

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::watch;
use weft_transport::files::{self, FileError};

pub use self::old::{Layout, OldKeys, OldTable};
use self::reopened::Reopened;
use self::snapshot::{State, Watcher};
use self::tables::{Done, LEASES, StepError, Tables};
use crate::clock::Clock;
use crate::limits::LEASES_MAX;
use crate::{
    Change, Commit, Condition, Keys, LeaseId, Revision, Snapshot, Store, StoreError, Watch, backup,
    rules,
};

/// A store in a file. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Redb {
    shared: Arc<Shared>,
}

/// The state that the store and its watchers share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    layout: &'static Layout,
    file: Reopened,
    clock: Mutex<Clock>,
    /// The newest revision: wakes watchers.
    newest: watch::Sender<Revision>,
}

impl Redb {
    /// Makes a store at `path`, where no file may be. Only its owner may read it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn create(path: &Path, layout: &'static Layout) -> Result<Self, StoreError> {
        if !make_file(path, layout)? {
            return Err(StoreError::Exists(path.to_owned()));
        }
        Self::open_file(path, layout, true)
    }

    /// Opens the store at `path` and checks every page of it. A store of an earlier version is migrated to
    /// this layout, in one transaction.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, layout: &'static Layout) -> Result<Self, StoreError> {
        Self::open_file(path, layout, false)
    }

    /// Opens the store at `path`, or makes one if there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_or_create(path: &Path, layout: &'static Layout) -> Result<Self, StoreError> {
        make_file(path, layout)?;
        let opened = Self::open_file(path, layout, true)?;
        // An earlier version made it with the mode of the user's umask.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(|error| StoreError::io(path, layout.make, &error))?;
        Ok(opened)
    }

    /// Puts a copy of the store `source` at `path`, after `amend` has run on it. Afterwards it is complete,
    /// or, if anything failed, as it was before. `source` may be of an earlier version and stays as it is.
    ///
    /// # Errors
    /// See [`StoreError`], or with the error of `amend`.
    pub fn install_copy<R, E: From<StoreError>>(
        source: &Path,
        path: &Path,
        layout: &'static Layout,
        amend: impl FnOnce(&Self) -> Result<R, E>,
    ) -> Result<R, E> {
        let make = |staged: &Path| {
            // Its lock is held while it is copied. If it needs a repair, the copy is repaired.
            let _held = match Builder::new().open_read_only(source) {
                Err(DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(StoreError::InUse(source.to_owned()));
                }
                held => held.ok(),
            };
            files::copy(source, staged)?;
            Self::open(staged, layout).map_err(|error| error.renamed(staged, source))
        };
        backup::install_from(path, make, amend)
    }

    fn open_file(
        path: &Path,
        layout: &'static Layout,
        may_be_new: bool,
    ) -> Result<Self, StoreError> {
        let file = path.to_owned();
        // A file that is gone when it is opened again is not made anew.
        let makes = AtomicBool::new(may_be_new);
        let open = move || {
            let mut builder = Builder::new();
            // Without it redb may panic on a damaged page.
            builder.set_check_integrity_on_open(true);
            if makes.swap(false, Ordering::Relaxed) {
                builder.create(&file)
            } else {
                builder.open(&file)
            }
        };
        Self::from_opening(path, layout, may_be_new, open)
    }

    /// `open` opens the file, now and after each failure of its disk.
    pub(crate) fn from_opening(
        path: &Path,
        layout: &'static Layout,
        may_be_new: bool,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let told = |error: StepError| error.tell(path, layout);
        let file = Reopened::new(open).map_err(|error| told(error.into()))?;
        let now = Instant::now();
        let database = file.get(now).map_err(|error| told(error.into()))?;
        old::settle(&database, layout, may_be_new).map_err(told)?;
        let (newest, clock) = recall(&database, now).map_err(told)?;
        drop(database);
        let shared = Shared {
            path: path.to_owned(),
            layout,
            file,
            clock: Mutex::new(clock),
            newest: watch::Sender::new(newest),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    /// Runs `work` on the newest state.
    fn read<R>(
        &self,
        work: impl FnOnce(redb::ReadTransaction) -> Result<R, StepError>,
    ) -> Result<R, StoreError> {
        let result = self
            .file
            .get(Instant::now())
            .map_err(StepError::from)
            .and_then(|database| work(database.begin_read()?));
        result.map_err(|error| self.told(error))
    }

    /// Runs `work` as one transaction. It is on disk when this returns `Ok`, unless `work` changed nothing.
    fn write<R>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Done<R>, StepError>,
    ) -> Result<R, StoreError> {
        let database = self.file.get(Instant::now());
        let database = database.map_err(|error| self.told(error.into()))?;
        if self.file.has_failed() {
            return Err(StoreError::Paused(self.path.clone()));
        }
        let transaction = database.begin_write();
        let transaction = transaction.map_err(|error| self.told(error.into()))?;
        match work(&transaction).map_err(|error| self.told(error))? {
            Done::Nothing(result) => Ok(result),
            Done::Changed(result) => match transaction.commit() {
                Ok(()) => Ok(result),
                Err(error) => {
                    // The contents of the disk are known once the file is opened again.
                    self.file.mark_failed(Instant::now());
                    Err(self.told(error.into()))
                }
            },
        }
    }

    /// The error for callers; a failure of the disk is remembered.
    fn told(&self, error: StepError) -> StoreError {
        if error.is_of_disk() {
            self.file.mark_failed(Instant::now());
        }
        error.tell(&self.path, self.layout)
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        // Every change of it is one insertion, assignment or removal.
        weft_transport::locks::lock(&self.clock)
    }

    fn publish(&self, revision: Revision) {
        self.newest.send_if_modified(|newest| {
            let is_newer = *newest < revision;
            *newest = revision.max(*newest);
            is_newer
        });
    }
}

impl Store for Redb {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self
            .shared
            .read(|read| State::newest(&self.shared, &read))?;
        Ok(Box::new(state))
    }

    fn snapshot_at(&self, revision: Revision) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self
            .shared
            .read(|read| State::at(&self.shared, &read, revision))?;
        Ok(Box::new(state))
    }

    fn commit(&self, conditions: &[Condition], changes: &[Change]) -> Result<Commit, StoreError> {
        rules::check(conditions, changes)?;
        let commit = self.shared.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            if !tables.all_hold(conditions)? {
                return Ok(Done::Nothing(Commit::Conflict));
            }
            Ok(tables.apply(changes)?.map(Commit::Done))
        })?;
        if let Commit::Done(revision) = commit {
            self.shared.publish(revision);
        }
        Ok(commit)
    }

    fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            let newest = tables.revision()?;
            if revision > newest {
                return Err(StoreError::NotYet(newest).into());
            }
            tables.compact(revision)
        })
    }

    fn watch(&self, keys: Keys, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let watcher = Watcher::new(&self.shared, keys, from)?;
        Ok(Box::new(watcher))
    }

    fn grant(&self, ttl: Duration, now: Instant) -> Result<LeaseId, StoreError> {
        let seconds = rules::seconds(ttl)?;
        // Held until the lease is in it, so that no more than the limit are made at once.
        let mut clock = self.shared.clock();
        if clock.len() >= LEASES_MAX {
            return Err(StoreError::Invalid(format!(
                "more than {LEASES_MAX} leases"
            )));
        }
        let lease = self
            .shared
            .write(|transaction| Tables::open(transaction)?.grant(seconds))?;
        clock.start(lease, Duration::from_secs(seconds), now);
        Ok(lease)
    }

    fn keep_alive(&self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        if self.shared.clock().keep_alive(lease, now) {
            return Ok(());
        }
        Err(StoreError::NoLease(lease))
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revision = self
            .shared
            .write(|transaction| Tables::open(transaction)?.revoke(lease))?;
        self.shared.clock().forget(lease);
        self.shared.publish(revision);
        Ok(())
    }

    fn expire(&self, now: Instant) -> Result<(), StoreError> {
        let ended = self.shared.clock().ended(now);
        for lease in ended {
            match self.revoke(lease) {
                // A commit that was reported as failed may have ended it.
                Err(StoreError::NoLease(_)) => self.shared.clock().forget(lease),
                other => other?,
            }
        }
        Ok(())
    }
}

/// Makes an empty file, private from its first byte, which redb takes as a new store. False if there is one.
fn make_file(path: &Path, layout: &Layout) -> Result<bool, StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(FileError::io("create", path, error).into())
        }
        Err(error) => Err(StoreError::io(path, layout.make, &error)),
    }
}

/// The newest revision, and all leases with their whole time before them.
fn recall(database: &Database, now: Instant) -> Result<(Revision, Clock), StepError> {
    let read = database.begin_read()?;
    let mut clock = Clock::default();
    for lease in read.open_table(LEASES)?.iter()? {
        let (lease, seconds) = lease?;
        let ttl = Duration::from_secs(seconds.value());
        clock.start(LeaseId(lease.value()), ttl, now);
    }
    Ok((tables::numbers(&read)?.0, clock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::model::LAYOUT;

    #[test]
    fn what_was_written_is_there_after_the_file_is_opened_again_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = Redb::create(&path, &LAYOUT).unwrap();
        let put = [Change::put(*b"a", *b"1")];
        assert_eq!(store.commit(&[], &put).unwrap(), Commit::Done(1));
        drop(store);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = Redb::open(&path, &LAYOUT).unwrap();
        let entry = store.snapshot().unwrap().get(b"a").unwrap().unwrap();
        assert_eq!((entry.value.as_slice(), entry.modified), (&b"1"[..], 1));
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let _held = Redb::create(&path, &LAYOUT).unwrap();
        let second = Redb::open(&path, &LAYOUT);
        assert!(matches!(second, Err(StoreError::InUse(_))));
        let copied = Redb::install_copy(&path, &directory.path().join("b"), &LAYOUT, |_| {
            Ok::<_, StoreError>(())
        });
        assert!(matches!(copied, Err(StoreError::InUse(_))));
    }

    #[test]
    fn missing_foreign_damaged_and_newer_files_are_refused_by_name_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let refused = || {
            let error = Redb::open(&path, &LAYOUT).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            text
        };
        assert!(refused().contains("does not exist: make one"));
        std::fs::write(&path, "not a store").unwrap();
        assert!(refused().contains("restore one"));
        std::fs::remove_file(&path).unwrap();
        drop(Database::create(&path).unwrap());
        assert!(refused().contains("it is no store of a test"));
        std::fs::remove_file(&path).unwrap();
        let store = Redb::create(&path, &LAYOUT).unwrap();
        for round in 0..50_u8 {
            let _ = store.commit(&[], &[Change::put([round], [round; 100])]);
        }
        drop(store);
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        bytes.iter_mut().skip(4096).for_each(|byte| *byte = !*byte);
        std::fs::write(&path, bytes).unwrap();
        assert!(refused().contains("is damaged"));
        std::fs::write(&path, good).unwrap();
        static OLDER: Layout = Layout {
            schema: 1,
            ..LAYOUT
        };
        let newer = Redb::open(&path, &OLDER).unwrap_err().to_string();
        assert!(
            newer.contains("has schema 2, and this weft knows 1"),
            "{newer}"
        );
        static OTHER: Layout = Layout {
            kind: "other",
            what: "another kind",
            ..LAYOUT
        };
        let other = Redb::open(&path, &OTHER).unwrap_err().to_string();
        assert!(other.contains("it is no store of another kind"), "{other}");
    }

    #[test]
    fn a_lease_has_its_whole_time_anew_when_the_file_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (before, ttl) = (Instant::now(), Duration::from_secs(60));
        let store = Redb::create(&path, &LAYOUT).unwrap();
        let lease = store.grant(ttl, before).unwrap();
        let put = Change::Put {
            key: b"a".to_vec(),
            value: Vec::new(),
            lease: Some(lease),
        };
        let _ = store.commit(&[], &[put]).unwrap();
        drop(store);
        let store = Redb::open(&path, &LAYOUT).unwrap();
        store.expire(before + ttl / 2).unwrap();
        assert!(store.snapshot().unwrap().get(b"a").unwrap().is_some());
        store.expire(Instant::now() + ttl).unwrap();
        assert!(store.snapshot().unwrap().get(b"a").unwrap().is_none());
        assert_ne!(
            store.grant(ttl, before).unwrap(),
            lease,
            "a name is given once"
        );
    }
}
