//! The store: every revision of the resources, in `config.redb`, as typed values in a `weft_store`.
//! `store/keys.rs` has the keys and encodings. Registrations are not here: they are leases in memory, and
//! workloads send them again after a restart.
//!
//! A revision keeps, for each resource that it changed, the text before and after. So any earlier state is
//! reached by walking back from the current one, and the store grows with the number of changes, not with the
//! mesh.

mod keys;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use weft_store::{
    Change, Commit, Condition, Keys, Order, Redb, Snapshot, Transaction, each, transact,
};
use weft_transport::locks::lock;

use self::keys::{CURRENT, ID, LAYOUT, REVISIONS, SESSION_SECRETS};
use crate::compile::{SessionSecret, SessionSecrets};
use crate::diff;
use crate::resources::{Resource, Set};
use crate::table::Revision;

/// The revisions of one mesh.
#[derive(Debug)]
pub struct Store {
    inner: Arc<dyn weft_store::Store>,
    /// The names that messages use.
    path: PathBuf,
    store: String,
    /// From which the keys of sessions are made.
    session_secrets: Mutex<SessionSecrets>,
    /// The number of the last revision that was written completely. After a failed write the store may hold
    /// one more.
    number: AtomicU64,
}

/// The known facts about a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionInfo {
    /// Its number.
    pub number: u64,
    /// The operator who made it.
    pub author: String,
    /// When, in RFC 3339.
    pub time: String,
    /// Why, in the operator's words.
    pub message: String,
    /// How many resources it changed.
    pub changes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    info: RevisionInfo,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    before: Option<Resource>,
    after: Option<Resource>,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] weft_store::StoreError),
    /// A write that was reported as failed is in the store.
    #[error(
        "revision {0}, which was said to have failed, is in the store: restart the config service, which puts it in force"
    )]
    Unexpected(u64),
    /// There is no such revision.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// The backup is invalid or damaged.
    #[error("not a backup of a config service: {0}")]
    Backup(String),
}

impl StoreError {
    /// Whether another process holds the store.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(weft_store::StoreError::InUse(_)))
    }

    /// Whether a file or a document is invalid.
    #[must_use]
    pub fn is_bad_data(&self) -> bool {
        match self {
            Self::Backup(_) => true,
            Self::Store(error) => error.is_bad_data(),
            Self::Unexpected(_) | Self::NoRevision(_) => false,
        }
    }

    /// Whether this user lacks a permission.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_not_permitted())
    }
}

/// The contents of the store at one moment.
struct View<'a> {
    path: &'a Path,
    snapshot: Box<dyn Snapshot>,
}

impl Store {
    /// Opens the store in a file, or creates it.
    ///
    /// # Errors
    /// When it is in use, damaged, or of a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::over(Arc::new(Redb::open_or_create(path, &LAYOUT)?), path)
    }

    /// A store that ends with the process.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Result<Self, StoreError> {
        Self::over(Arc::new(weft_store::Memory::new()), Path::new("memory"))
    }

    fn over(inner: Arc<dyn weft_store::Store>, path: &Path) -> Result<Self, StoreError> {
        let known = inner.snapshot()?.get(ID)?;
        let store = match known {
            Some(known) => {
                String::from_utf8(known.value).map_err(|_| damaged(path, "its id is no text"))?
            }
            None => give_id(inner.as_ref())?,
        };
        let session_secrets = session_secrets(inner.as_ref(), path)?;
        let opened = Self {
            inner,
            path: path.to_owned(),
            store,
            session_secrets: Mutex::new(session_secrets),
            number: AtomicU64::new(0),
        };
        // Everything is read once, so that damage is found before any answer is served.
        let (revision, _) = opened.current()?;
        opened.number.store(revision.number, Ordering::Release);
        opened.revisions()?;
        Ok(opened)
    }

    /// The current revision and its resources.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn current(&self) -> Result<(Revision, Set), StoreError> {
        let view = self.view()?;
        let revision = self.revision(view.number()?);
        Ok((revision, view.set()?))
    }

    /// Writes the next revision: either the whole set becomes `next`, or nothing changes.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn write(
        &self,
        next: &Set,
        author: &str,
        time: &str,
        message: &str,
    ) -> Result<Revision, StoreError> {
        let view = self.view()?;
        let (present, before) = (view.number()?, view.set()?);
        if present != self.number.load(Ordering::Acquire) {
            return Err(StoreError::Unexpected(present));
        }
        let edits: Vec<Edit> = diff::changed_keys(&before, next)
            .into_iter()
            .map(|key| Edit {
                before: before.resources.get(key).cloned(),
                after: next.resources.get(key).cloned(),
            })
            .collect();
        let number = present + 1;
        let info = RevisionInfo {
            number,
            author: author.to_owned(),
            time: time.to_owned(),
            message: message.to_owned(),
            changes: edits.len(),
        };
        let mut changes = Vec::with_capacity(edits.len() + 1);
        for edit in &edits {
            match (&edit.before, &edit.after) {
                (_, Some(after)) => changes.push(keys::put(keys::resource(after), after)?),
                (Some(before), None) => changes.push(Change::Delete(keys::resource(before))),
                (None, None) => {}
            }
        }
        changes.push(keys::put(keys::revision(number), &Record { info, edits })?);
        // A writer of another process would have made that key.
        let first = Condition::Absent(keys::revision(number));
        match self.inner.commit(&[first], &changes)? {
            Commit::Done(_) => {}
            Commit::Conflict => return Err(StoreError::Unexpected(number)),
        }
        self.number.store(number, Ordering::Release);
        Ok(self.revision(number))
    }

    /// The resources as they were at a revision; 0 is the empty store.
    ///
    /// # Errors
    /// When there is no such revision, or the store is damaged.
    pub fn set_at(&self, number: u64) -> Result<Set, StoreError> {
        let view = self.view()?;
        let mut set = view.set()?;
        if number > view.number()? {
            return Err(StoreError::NoRevision(number));
        }
        for record in view.records(number + 1)?.into_iter().rev() {
            for edit in record.edits {
                match (edit.before, edit.after) {
                    (Some(before), _) => set.insert(before),
                    (None, Some(after)) => {
                        set.resources.remove(&after.key());
                    }
                    (None, None) => {}
                }
            }
        }
        Ok(set)
    }

    /// All revisions, newest first.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn revisions(&self) -> Result<Vec<RevisionInfo>, StoreError> {
        let records = self.view()?.records(1)?.into_iter().rev();
        Ok(records.map(|record| record.info).collect())
    }

    /// The secrets from which the keys of sessions are made.
    pub(crate) fn session_secrets(&self) -> SessionSecrets {
        lock(&self.session_secrets).clone()
    }

    /// Makes the next secret of sessions the one that seals, and keeps the one that did. With `forget` all
    /// are new, and every session ends.
    ///
    /// # Errors
    /// When the disk failed; the secrets are as before then.
    pub(crate) fn rotate_session_secrets(
        &self,
        forget: bool,
    ) -> Result<SessionSecrets, StoreError> {
        let rotated = transact(self.inner.as_ref(), |transaction| {
            let next = match forget {
                true => SessionSecrets::default().completed([fresh_secret(), fresh_secret()]),
                false => known_secrets(transaction, &self.path)?.rotated(fresh_secret()),
            };
            put_secrets(transaction, &next)?;
            Ok::<_, StoreError>(next)
        })?;
        lock(&self.session_secrets).clone_from(&rotated);
        Ok(rotated)
    }

    fn view(&self) -> Result<View<'_>, StoreError> {
        Ok(View {
            path: &self.path,
            snapshot: self.inner.snapshot()?,
        })
    }

    fn revision(&self, number: u64) -> Revision {
        Revision {
            store: self.store.clone(),
            number,
        }
    }

    /// Everything, as one sealed text.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn backup(&self) -> Result<Vec<u8>, StoreError> {
        let view = self.view()?;
        Ok(keys::seal(&Backup {
            schema: 1,
            current: view.set()?.resources.into_values().collect(),
            revisions: view.records(1)?,
            session_secrets: self.session_secrets(),
        })?)
    }

    /// Creates a store from a backup. It gets a new id: sidecars must see that its history differs from the
    /// one that they followed.
    ///
    /// # Errors
    /// When there is a store already, or the backup is invalid.
    pub fn restore(path: &Path, backup: &[u8]) -> Result<Revision, StoreError> {
        let backup: Backup =
            keys::unseal(backup).map_err(|error| StoreError::Backup(error.to_string()))?;
        if path.exists() {
            return Err(weft_store::StoreError::Exists(path.to_owned()).into());
        }
        weft_store::install(path, &LAYOUT, |staged| {
            let current = backup.current.iter();
            let current = current.map(|one| keys::put(keys::resource(one), one));
            let records = backup.revisions.iter();
            let records = records.map(|one| keys::put(keys::revision(one.info.number), one));
            // A backup of a version before sessions has none, and the store then makes its own.
            let secrets = &backup.session_secrets;
            let secrets =
                (!secrets.is_empty()).then(|| keys::put(SESSION_SECRETS.to_vec(), secrets));
            weft_store::fill(staged, current.chain(records).chain(secrets))?;
            // Reads all of it, and gives it its id.
            let restored = Self::over(Arc::new(staged.clone()), path)?;
            Ok(restored.revision(restored.number.load(Ordering::Acquire)))
        })
    }
}

impl View<'_> {
    /// The number of the newest revision; 0 if there is none.
    fn number(&self) -> Result<u64, StoreError> {
        let newest = self
            .snapshot
            .range(&Keys::prefix(REVISIONS), Order::Descending, 1)?;
        newest
            .first()
            .map_or(Ok(0), |entry| self.number_of(&entry.key))
    }

    fn set(&self) -> Result<Set, StoreError> {
        let mut set = Set::default();
        each(self.snapshot.as_ref(), Keys::prefix(CURRENT), |entry| {
            let resource: Resource = self.unseal(&entry.value)?;
            if keys::resource(&resource) != entry.key {
                let name = entry.key.escape_ascii();
                return Err(damaged(self.path, format!("{name} is not under its name")));
            }
            set.insert(resource);
            Ok(())
        })?;
        Ok(set)
    }

    fn records(&self, from: u64) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let wanted = Keys::prefix(REVISIONS).starting_at(&keys::revision(from));
        each(self.snapshot.as_ref(), wanted, |entry| {
            let number = self.number_of(&entry.key)?;
            let record: Record = self.unseal(&entry.value)?;
            if record.info.number != number {
                return Err(damaged(
                    self.path,
                    format!("revision {number} is not its own"),
                ));
            }
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    }

    fn number_of(&self, key: &[u8]) -> Result<u64, StoreError> {
        keys::revision_number(key).ok_or_else(|| damaged(self.path, "a revision has no number"))
    }

    fn unseal<T: for<'de> Deserialize<'de>>(&self, sealed: &[u8]) -> Result<T, StoreError> {
        keys::unseal(sealed).map_err(|reason| damaged(self.path, reason))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    schema: u32,
    current: Vec<Resource>,
    revisions: Vec<Record>,
    #[serde(default, skip_serializing_if = "SessionSecrets::is_empty")]
    session_secrets: SessionSecrets,
}

/// Gives a new store its id, unless another process was faster.
fn give_id(store: &dyn weft_store::Store) -> Result<String, StoreError> {
    let random = format!("{:032x}", rand::random::<u128>());
    transact(store, |transaction| match transaction.get(ID)? {
        Some(known) => Ok(String::from_utf8_lossy(&known).into_owned()),
        None => {
            transaction.put(ID, random.as_bytes());
            Ok(random.clone())
        }
    })
}

/// The secrets of the mesh, which are made here once. They stay when the resources change, and are part of a
/// backup: sessions outlive both.
fn session_secrets(
    store: &dyn weft_store::Store,
    path: &Path,
) -> Result<SessionSecrets, StoreError> {
    transact(store, |transaction| {
        let known = known_secrets(transaction, path)?;
        let whole = known.clone().completed([fresh_secret(), fresh_secret()]);
        if whole != known {
            put_secrets(transaction, &whole)?;
        }
        Ok(whole)
    })
}

fn known_secrets(transaction: &mut Transaction, path: &Path) -> Result<SessionSecrets, StoreError> {
    match transaction.get(SESSION_SECRETS)? {
        Some(sealed) => keys::unseal(&sealed).map_err(|reason| damaged(path, reason)),
        None => Ok(SessionSecrets::default()),
    }
}

fn put_secrets(transaction: &mut Transaction, secrets: &SessionSecrets) -> Result<(), StoreError> {
    transaction.put(SESSION_SECRETS, keys::seal(secrets)?);
    Ok(())
}

fn fresh_secret() -> SessionSecret {
    SessionSecret::new(rand::random())
}

fn damaged(path: &Path, reason: impl ToString) -> StoreError {
    weft_store::StoreError::Corrupt {
        path: path.to_owned(),
        reason: reason.to_string(),
        remedy: LAYOUT.restore,
    }
    .into()
}

#[cfg(test)]
mod tests;
