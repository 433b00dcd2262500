//! A transaction over any store: reads and writes of one piece of work become one commit, which succeeds only
//! if no value that was read has changed since. If one has, the work is repeated from the newest state.
//!
//! The transaction protects the values read key by key, and every entry that a range gave. It does not
//! protect against keys that other transactions add to a range in the meantime. Work that depends on the
//! absence of such keys must also read a key that those other transactions change.

use std::collections::BTreeMap;

use crate::limits::ATTEMPTS_MAX;
use crate::{Change, Commit, Condition, Entry, Keys, LeaseId, Order, Snapshot, Store, StoreError};

/// One attempt of a transaction.
pub struct Transaction {
    snapshot: Box<dyn Snapshot>,
    /// The values that were read, and the revision that changed each last; none if the key was missing.
    read: BTreeMap<Vec<u8>, Option<u64>>,
    written: BTreeMap<Vec<u8>, Option<Written>>,
}

struct Written {
    value: Vec<u8>,
    lease: Option<LeaseId>,
}

/// Runs `work` until its commit has no conflict, and returns the result of `work`. It may run several times,
/// so its side effects must be harmless to repeat. If it fails, nothing is written.
///
/// # Errors
/// The error of `work`, or when the store cannot be read or written.
pub fn transact<R, E: From<StoreError>>(
    store: &dyn Store,
    mut work: impl FnMut(&mut Transaction) -> Result<R, E>,
) -> Result<R, E> {
    for _ in 0..ATTEMPTS_MAX {
        let mut transaction = Transaction {
            snapshot: store.snapshot()?,
            read: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        let result = work(&mut transaction)?;
        match transaction.commit(store)? {
            Commit::Done(_) => return Ok(result),
            Commit::Conflict => {}
        }
    }
    Err(StoreError::Contended.into())
}

impl Transaction {
    /// The value of a key, as this transaction left it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(written) = self.written.get(key) {
            return Ok(written.as_ref().map(|written| written.value.clone()));
        }
        let entry = self.snapshot.get(key)?;
        let modified = entry.as_ref().map(|entry| entry.modified);
        self.read.insert(key.to_vec(), modified);
        Ok(entry.map(|entry| entry.value))
    }

    /// Entries of the state at the beginning, without the transaction's own writes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn range(
        &mut self,
        keys: &Keys,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let found = self.snapshot.range(keys, order, limit)?;
        for entry in &found {
            self.read.insert(entry.key.clone(), Some(entry.modified));
        }
        Ok(found)
    }

    /// The state at the beginning. Reads from it are not protected.
    #[must_use]
    pub fn snapshot(&self) -> &dyn Snapshot {
        self.snapshot.as_ref()
    }

    /// Changes a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (value, lease) = (value.into(), None);
        self.written
            .insert(key.into(), Some(Written { value, lease }));
    }

    /// Changes a key and puts it under a lease.
    pub fn put_under(
        &mut self,
        lease: LeaseId,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) {
        let (value, lease) = (value.into(), Some(lease));
        self.written
            .insert(key.into(), Some(Written { value, lease }));
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.written.insert(key.into(), None);
    }

    fn commit(self, store: &dyn Store) -> Result<Commit, StoreError> {
        let conditions: Vec<Condition> = self
            .read
            .into_iter()
            .map(|(key, modified)| match modified {
                Some(revision) => Condition::Unchanged(key, revision),
                None => Condition::Absent(key),
            })
            .collect();
        let changes: Vec<Change> = self
            .written
            .into_iter()
            .map(|(key, written)| match written {
                Some(Written { value, lease }) => Change::Put { key, value, lease },
                None => Change::Delete(key),
            })
            .collect();
        if changes.is_empty() {
            // All values that were read belong to one revision, so others cannot have changed them.
            return Ok(Commit::Done(self.snapshot.revision()));
        }
        store.commit(&conditions, &changes)
    }
}
