//! The tables in the file, and how a commit changes them.
//!
//! ```text
//! meta        name -> schema and kind (text); revision, compacted and lease (8 bytes)
//! entries     (key, revision) -> what the key is from that revision on: a Record
//! changes     (revision, number) -> a key that it changed
//! leases      lease -> its life in seconds
//! lease_keys  (lease, key) -> nothing
//! ```

use std::path::Path;

use redb::{
    CommitError, DatabaseError, ReadTransaction, ReadableTable, StorageError, Table,
    TableDefinition, TableError, TransactionError, WriteTransaction,
};

use super::Layout;
use crate::limits::HISTORY_REVISIONS;
use crate::{Change, Condition, Entry, LeaseId, Revision, StoreError, rules};

pub(super) type EntryKey = (&'static [u8], u64);

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const ENTRIES: TableDefinition<'_, EntryKey, &[u8]> = TableDefinition::new("entries");
pub(super) const CHANGES: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("changes");
pub(super) const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("lease_keys");

pub(super) const META_SCHEMA: &str = "schema";
pub(super) const META_KIND: &str = "kind";
const META_REVISION: &str = "revision";
const META_COMPACTED: &str = "compacted";
const META_LEASE: &str = "lease";

/// Why a step failed; [`StepError::tell`] makes it an error with the file's name.
#[derive(Debug)]
pub(super) enum StepError {
    /// redb or the disk.
    Redb(redb::Error),
    /// The file does not hold the data that were written.
    Damaged(String),
    /// An answer to the caller.
    Answer(StoreError),
    /// Written by a later version.
    Newer(u64),
}

impl StepError {
    pub(super) fn damaged(reason: impl ToString) -> Self {
        Self::Damaged(reason.to_string())
    }

    /// Whether redb refuses all work until the file is opened again.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(
            self,
            Self::Redb(redb::Error::Io(_) | redb::Error::PreviousIo)
        )
    }

    pub(super) fn tell(self, path: &Path, layout: &'static Layout) -> StoreError {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};

        use redb::Error as Redb;

        let corrupt = |reason: String| StoreError::Corrupt {
            path: path.to_owned(),
            reason,
            remedy: layout.restore,
        };
        let error = match self {
            Self::Answer(error) => return error,
            Self::Damaged(reason) => return corrupt(reason),
            Self::Newer(found) => {
                return StoreError::Newer {
                    path: path.to_owned(),
                    found,
                    known: layout.schema,
                };
            }
            Self::Redb(error) => error,
        };
        if matches!(
            error,
            Redb::DatabaseAlreadyOpen | Redb::LockProtocolMismatch
        ) {
            return StoreError::InUse(path.to_owned());
        }
        // The second is a snapshot of a file that was opened again meanwhile.
        if matches!(error, Redb::PreviousIo | Redb::DatabaseClosed) {
            return StoreError::Paused(path.to_owned());
        }
        if matches!(error, Redb::Backend(_) | Redb::LockPoisoned(_)) {
            return StoreError::Failed {
                path: path.to_owned(),
                reason: error.to_string(),
            };
        }
        if let Redb::Io(error) = &error
            && !matches!(error.kind(), InvalidData | UnexpectedEof)
        {
            return StoreError::io(path, layout.make, error);
        }
        // The rest are files that redb did not write, or that were changed since.
        corrupt(error.to_string())
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

impl From<StorageError> for StepError {
    fn from(error: StorageError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<TableError> for StepError {
    fn from(error: TableError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<TransactionError> for StepError {
    fn from(error: TransactionError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<CommitError> for StepError {
    fn from(error: CommitError) -> Self {
        Self::Redb(error.into())
    }
}

impl From<DatabaseError> for StepError {
    fn from(error: DatabaseError) -> Self {
        Self::Redb(error.into())
    }
}

/// The result of the work of a transaction.
pub(super) enum Done<R> {
    /// It made changes, which have to be committed.
    Changed(R),
    /// It changed nothing.
    Nothing(R),
}

impl<R> Done<R> {
    pub(super) fn map<S>(self, to: impl FnOnce(R) -> S) -> Done<S> {
        match self {
            Self::Changed(result) => Done::Changed(to(result)),
            Self::Nothing(result) => Done::Nothing(to(result)),
        }
    }
}

/// The state of a key from a revision on: none if it was deleted then. In the file: the revision that made it
/// (0 if it was deleted), its lease or 0, and its value.
pub(super) struct Record<'a> {
    created: Revision,
    lease: u64,
    value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Option<Self>, StepError> {
        let cut = || StepError::damaged("an entry is cut short");
        let (created, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        let (lease, value) = rest.split_first_chunk().ok_or_else(cut)?;
        let (created, lease) = (u64::from_be_bytes(*created), u64::from_be_bytes(*lease));
        let record = Self {
            created,
            lease,
            value,
        };
        Ok((created > 0).then_some(record))
    }

    fn encode(&self) -> Vec<u8> {
        let (created, lease) = (self.created.to_be_bytes(), self.lease.to_be_bytes());
        [&created, &lease, self.value].concat()
    }

    pub(super) fn entry(&self, key: &[u8], modified: Revision) -> Entry {
        Entry {
            key: key.to_vec(),
            value: self.value.to_vec(),
            created: self.created,
            modified,
            lease: (self.lease > 0).then_some(LeaseId(self.lease)),
        }
    }
}

/// The state of a key at a revision.
pub(super) fn entry_at(
    entries: &impl ReadableTable<EntryKey, &'static [u8]>,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Entry>, StepError> {
    let newest = entries.range((key, 0)..=(key, revision))?.next_back();
    let Some((found, value)) = newest.transpose()? else {
        return Ok(None);
    };
    let record = Record::decode(value.value())?;
    Ok(record.map(|record| record.entry(key, found.value().1)))
}

/// The newest revision, and the one before which no state is kept.
pub(super) fn numbers(read: &ReadTransaction) -> Result<(Revision, Revision), StepError> {
    let meta = read.open_table(META)?;
    Ok((
        number(&meta, META_REVISION)?,
        number(&meta, META_COMPACTED)?,
    ))
}

fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<u64, StepError> {
    let Some(value) = meta.get(name)? else {
        return Ok(0);
    };
    let bytes = value.value().try_into();
    let bytes = bytes.map_err(|_| StepError::Damaged(format!("{name} is no number")))?;
    Ok(u64::from_be_bytes(bytes))
}

/// All tables, in a transaction.
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, &'static str, &'static [u8]>,
    entries: Table<'t, EntryKey, &'static [u8]>,
    changes: Table<'t, (u64, u32), &'static [u8]>,
    leases: Table<'t, u64, u64>,
    lease_keys: Table<'t, (u64, &'static [u8]), ()>,
}

impl<'t> Tables<'t> {
    /// Opens them, or makes missing ones.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StepError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            entries: transaction.open_table(ENTRIES)?,
            changes: transaction.open_table(CHANGES)?,
            leases: transaction.open_table(LEASES)?,
            lease_keys: transaction.open_table(LEASE_KEYS)?,
        })
    }

    pub(super) fn revision(&self) -> Result<Revision, StepError> {
        number(&self.meta, META_REVISION)
    }

    pub(super) fn all_hold(&self, conditions: &[Condition]) -> Result<bool, StepError> {
        for condition in conditions {
            let present = entry_at(&self.entries, condition.key(), Revision::MAX)?;
            if !rules::holds(condition, present.as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the changes as the next revision, and compacts one that is too old.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<Done<Revision>, StepError> {
        let newest = self.revision()?;
        let revision = newest + 1;
        let mut sorted: Vec<&Change> = changes.iter().collect();
        sorted.sort_by_key(|change| change.key());
        let mut count = 0_u32;
        for change in sorted {
            if self.apply_one(change, revision)? {
                self.changes.insert((revision, count), change.key())?;
                count += 1;
            }
        }
        if count == 0 {
            return Ok(Done::Nothing(newest));
        }
        self.set_number(META_REVISION, revision)?;
        self.compact(revision.saturating_sub(HISTORY_REVISIONS))?;
        Ok(Done::Changed(revision))
    }

    fn apply_one(&mut self, change: &Change, revision: Revision) -> Result<bool, StepError> {
        let key = change.key();
        let present = entry_at(&self.entries, key, Revision::MAX)?;
        let before = present.as_ref().and_then(|entry| entry.lease);
        let (record, after) = match change {
            Change::Delete(_) if present.is_none() => return Ok(false),
            Change::Delete(_) => {
                let gone = Record {
                    created: 0,
                    lease: 0,
                    value: &[],
                };
                (gone, None)
            }
            Change::Put { value, lease, .. } => {
                if let Some(lease) = lease
                    && self.leases.get(lease.0)?.is_none()
                {
                    return Err(StoreError::NoLease(*lease).into());
                }
                let record = Record {
                    created: present.as_ref().map_or(revision, |entry| entry.created),
                    lease: lease.map_or(0, |lease| lease.0),
                    value,
                };
                (record, *lease)
            }
        };
        let bytes = record.encode();
        self.entries.insert((key, revision), bytes.as_slice())?;
        if before != after {
            if let Some(lease) = before {
                self.lease_keys.remove((lease.0, key))?;
            }
            if let Some(lease) = after {
                self.lease_keys.insert((lease.0, key), ())?;
            }
        }
        Ok(true)
    }

    /// Forgets the states before `target`.
    pub(super) fn compact(&mut self, target: Revision) -> Result<Done<()>, StepError> {
        let before = number(&self.meta, META_COMPACTED)?;
        if target <= before {
            return Ok(Done::Nothing(()));
        }
        let rows = (before + 1, 0)..=(target, u32::MAX);
        let mut gone = Vec::new();
        for row in self.changes.range(rows.clone())? {
            let (place, key) = row?;
            gone.push((place.value(), key.value().to_vec()));
        }
        for ((revision, count), key) in gone {
            self.forget_before(&key, revision)?;
            self.changes.remove((revision, count))?;
        }
        self.set_number(META_COMPACTED, target)?;
        Ok(Done::Changed(()))
    }

    /// Forgets the state of a key before a revision that changed it; if that revision deleted the key, no
    /// state is left.
    fn forget_before(&mut self, key: &[u8], revision: Revision) -> Result<(), StepError> {
        let mut gone = Vec::new();
        for row in self.entries.range((key, 0)..=(key, revision))? {
            let (place, value) = row?;
            let (_, changed) = place.value();
            if changed < revision || Record::decode(value.value())?.is_none() {
                gone.push(changed);
            }
        }
        for changed in gone {
            self.entries.remove((key, changed))?;
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, seconds: u64) -> Result<Done<LeaseId>, StepError> {
        let lease = number(&self.meta, META_LEASE)? + 1;
        self.set_number(META_LEASE, lease)?;
        self.leases.insert(lease, seconds)?;
        Ok(Done::Changed(LeaseId(lease)))
    }

    /// Ends a lease and deletes its keys.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<Done<Revision>, StepError> {
        let LeaseId(number) = lease;
        if self.leases.remove(number)?.is_none() {
            return Err(StoreError::NoLease(lease).into());
        }
        let none: &[u8] = &[];
        let mut changes = Vec::new();
        for row in self.lease_keys.range((number, none)..(number + 1, none))? {
            let (place, ()) = row.map(|(place, _)| (place, ()))?;
            changes.push(Change::Delete(place.value().1.to_vec()));
        }
        let (Done::Changed(revision) | Done::Nothing(revision)) = self.apply(&changes)?;
        Ok(Done::Changed(revision))
    }

    /// Puts the entries that an earlier version kept, as revision 1; there is no history before it.
    pub(super) fn adopt(&mut self, key: &[u8], value: &[u8]) -> Result<(), StepError> {
        let record = Record {
            created: 1,
            lease: 0,
            value,
        };
        self.entries.insert((key, 1), record.encode().as_slice())?;
        Ok(())
    }

    pub(super) fn set_adopted(&mut self) -> Result<(), StepError> {
        self.set_number(META_REVISION, 1)?;
        self.set_number(META_COMPACTED, 1)
    }

    fn set_number(&mut self, name: &'static str, value: u64) -> Result<(), StepError> {
        self.meta.insert(name, value.to_be_bytes().as_slice())?;
        Ok(())
    }
}
