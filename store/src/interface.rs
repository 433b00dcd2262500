//! The operations of a store. The model is etcd's, so that etcd can be one.
//!
//! - A **revision** is the number of a commit that changed something; 0 is the empty store. Every entry has
//!   the revisions at which its key was made and last changed.
//! - A **commit** has conditions and changes. Either all changes happen, or none does and the answer is
//!   [`Commit::Conflict`]. When it returns, it is on disk.
//! - A **snapshot** is the state at one revision, for as long as it is read.
//! - A **watch** gives the changes of each revision from one on, complete and in order. Nothing is queued for
//!   a watcher: it reads the history, which is bounded. A watcher that falls behind gets
//!   [`StoreError::Compacted`], reads the state anew and watches from the revision after that.
//! - A **lease** deletes the keys that were put under it, unless it is kept alive. Time is an argument. A
//!   store that is opened again gives every lease its whole time anew.
//!
//! Calls wait for the disk: do not call them on an async thread. Only [`Watch::changed`] is async.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::StoreError;
use crate::limits::PAGE_ENTRIES;

/// The number of a commit.
pub type Revision = u64;

/// The name of a lease; the store gives each name once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub(crate) u64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that made it; a key that was deleted and put again is a new one.
    pub created: Revision,
    /// The revision that changed it last.
    pub modified: Revision,
    /// The lease under which it was put.
    pub lease: Option<LeaseId>,
}

/// A range of keys: from one on, up to and without another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub(crate) from: Vec<u8>,
    /// None: to the end.
    pub(crate) to: Option<Vec<u8>>,
}

impl Keys {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::prefix(b"")
    }

    /// Keys that begin so.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        // The end of the range of all keys with this prefix: the last byte that can be raised is.
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let to = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self {
            from: prefix.to_vec(),
            to,
        }
    }

    /// The keys of the range that are not before `key`.
    #[must_use]
    pub fn starting_at(mut self, key: &[u8]) -> Self {
        if key > self.from.as_slice() {
            self.from = key.to_vec();
        }
        self
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }
}

/// In which order entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first key first.
    Ascending,
    /// The last key first.
    Descending,
}

/// A condition of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no such key.
    Absent(Vec<u8>),
    /// The key is there, and was last changed by this revision.
    Unchanged(Vec<u8>, Revision),
    /// The key is there, under this lease.
    Under(Vec<u8>, LeaseId),
}

impl Condition {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) | Self::Under(key, _) => key,
        }
    }
}

/// One change of a commit. A commit changes a key at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Put {
        /// Its name; not empty.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// The lease that the key belongs to from now on; none removes it from its present lease.
        lease: Option<LeaseId>,
    },
    /// The key is deleted; deleting a missing key changes nothing.
    Delete(Vec<u8>),
}

impl Change {
    /// Puts a value that stays.
    #[must_use]
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }
    }

    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// The result of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// It is on disk. The revision is a new one unless nothing changed.
    Done(Revision),
    /// A condition does not hold; nothing changed.
    Conflict,
}

/// A change of one key, for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Vec<u8>,
    /// The new value; none if it was deleted.
    pub entry: Option<Entry>,
}

/// The changes of one revision to the watched keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// Its changes, by key.
    pub events: Vec<Event>,
}

/// The state at one revision.
pub trait Snapshot: Send {
    /// Which one.
    fn revision(&self) -> Revision;

    /// One key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError>;

    /// At most `limit` entries. See [`each`] for all of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn range(&self, keys: &Keys, order: Order, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// How many entries there are; reads all of their keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn count(&self, keys: &Keys) -> Result<u64, StoreError>;
}

/// Visits all entries of `keys` in ascending order, some at a time in memory, until `visit` fails.
///
/// # Errors
/// When the store cannot be read, or with the error of `visit`.
pub fn each<E: From<StoreError>>(
    snapshot: &dyn Snapshot,
    keys: Keys,
    mut visit: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = keys;
    loop {
        let page = snapshot.range(&rest, Order::Ascending, PAGE_ENTRIES)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        // The key that comes next after it.
        rest.from = [last.key.as_slice(), &[0]].concat();
        page.into_iter().try_for_each(&mut visit)?;
    }
}

/// Changes of some keys, from a revision on.
pub trait Watch: Send {
    /// The next revision that changed a watched key, if there is one already.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the watcher is too far behind; other errors may be temporary.
    fn try_next(&mut self) -> Result<Option<Batch>, StoreError>;

    /// Ready when there may be new changes. It may be dropped and asked for again.
    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Waits for the next revision of a watch. Reads the store on the thread that waits.
///
/// # Errors
/// As [`Watch::try_next`].
pub async fn next(watch: &mut dyn Watch) -> Result<Batch, StoreError> {
    loop {
        if let Some(batch) = watch.try_next()? {
            return Ok(batch);
        }
        watch.changed().await;
    }
}

/// A store. See the head of this file.
pub trait Store: Debug + Send + Sync {
    /// The newest state.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// The state as it was at `revision`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it is not kept any more, [`StoreError::NotYet`] when it does not exist
    /// yet.
    fn snapshot_at(&self, revision: Revision) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Makes all of `changes` if all of `conditions` hold.
    ///
    /// # Errors
    /// When the disk fails: the changes may then have been made all the same. [`StoreError::Invalid`] and
    /// [`StoreError::NoLease`] change nothing.
    fn commit(&self, conditions: &[Condition], changes: &[Change]) -> Result<Commit, StoreError>;

    /// Forgets the states before `revision`. Every commit does so for revisions older than
    /// [`crate::HISTORY_REVISIONS`].
    ///
    /// # Errors
    /// When the disk fails, or `revision` does not exist yet.
    fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Watches `keys` from `revision` on; 0 for changes after now.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when that revision is not kept any more.
    fn watch(&self, keys: Keys, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Makes a lease that ends `ttl` after `now`. A fraction of a second counts as a whole one.
    ///
    /// # Errors
    /// When `ttl` is out of range, there are too many leases, or the disk fails.
    fn grant(&self, ttl: Duration, now: Instant) -> Result<LeaseId, StoreError>;

    /// Renews a lease for its whole time.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] when it has ended, even if its keys are still there.
    fn keep_alive(&self, lease: LeaseId, now: Instant) -> Result<(), StoreError>;

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] when there is none, or the disk fails.
    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends the leases whose time is over, and deletes their keys. To be called from time to time.
    ///
    /// # Errors
    /// When the disk fails: they end with the next call.
    fn expire(&self, now: Instant) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_the_keys_that_begin_so_and_no_others() {
        for (prefix, inside, outside) in [
            (&b"a/"[..], &b"a/\xff\xff"[..], &b"a0"[..]),
            (b"a\xff", b"a\xff\xff", b"b"),
            (b"a", b"a", b"`"),
        ] {
            assert!(Keys::prefix(prefix).contains(inside), "{prefix:?}");
            assert!(!Keys::prefix(prefix).contains(outside), "{prefix:?}");
        }
        assert!(Keys::prefix(b"\xff").contains(b"\xff\xff"));
        assert!(Keys::all().contains(b"\xff") && Keys::all().contains(b"\0"));
        assert!(!Keys::prefix(b"a/").starting_at(b"a/b").contains(b"a/a"));
    }
}
