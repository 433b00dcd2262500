//! What the CA remembers, in one redb file: tokens, the issuance log, and which key belongs to which identity.
//!
//! Every change is one transaction that is on disk before the answer goes out; a crash leaves the state before or
//! after it. Decisions are not made here (`attest.rs`); `backup.rs` copies the file.

mod view;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weft_transport::identity::{SpiffeId, TrustDomain};

pub(crate) use self::view::View;
use crate::attest::{TokenRecord, unix_seconds};
use crate::csr::KeyHash;
use crate::files::FileError;
use crate::limits::{LOG_ENTRIES_MAX, TOKEN_MEMORY, TOKENS_MAX};
use crate::log::{self, Record};
use crate::reopened::Reopened;
use crate::token::TokenHash;

/// Name of the store in a CA's directory.
pub const STORE_FILE: &str = "ca.redb";

/// Layout of the tables; a store with a higher number was written by a later weft.
const SCHEMA: u64 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const TOKENS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("tokens");
const KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("keys");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

const META_SCHEMA: &str = "schema";
const META_ABOUT: &str = "about";
const META_LOG_HEAD: &str = "log_head";
const META_LOG_BASE: &str = "log_base";

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds it.
    #[error("{0} is in use by another process, and its admin.sock does not answer")]
    InUse(PathBuf),
    /// There is none.
    #[error("{0} does not exist: run `weft ca init` first")]
    Missing(PathBuf),
    /// A file that is no store, or one that was damaged.
    #[error("{path} is damaged ({reason}): restore a backup with `weft ca restore`")]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version.
    #[error("{path} has schema {found}, and this weft knows {SCHEMA}: use the newer weft")]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// More than [`TOKENS_MAX`] tokens.
    #[error("the store holds {TOKENS_MAX} tokens: wait until old ones are forgotten")]
    TokensFull,
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk failed or is full.
    #[error("the store failed: {0}")]
    Failed(#[from] redb::Error),
}

/// What a CA is, as `init` set it and `serve` amends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Addresses that tokens carry, as given to `init`.
    pub(crate) addresses: Vec<String>,
    /// The address that `serve` last listened on.
    pub(crate) listen: Option<String>,
    /// When it was made, in seconds since the Unix epoch.
    pub(crate) created: u64,
}

#[derive(Serialize, Deserialize)]
struct KeyOwner {
    identity: SpiffeId,
    /// When the entry may be forgotten, in seconds since the Unix epoch.
    until: u64,
}

/// The open store. One process at a time holds it.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: Reopened,
}

impl Store {
    /// Makes a new store at `path`, which must not exist.
    pub(crate) fn create(path: &Path, about: &About) -> Result<Self, StoreError> {
        // redb takes the empty file as a new store; made here, it is private from its first byte.
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| FileError::io("create", path, error))?;
        let store = Self::from_opening(path, |path| Database::builder().create(path))?;
        store.write(|transaction| {
            transaction.put_meta(META_SCHEMA, &SCHEMA)?;
            transaction.put_meta(META_ABOUT, about)?;
            transaction.open_tables()
        })?;
        Ok(store)
    }

    /// Opens the store at `path` and checks every page of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::from_opening(path, |path| {
            Database::builder()
                // Without it redb may panic on a damaged page.
                .set_check_integrity_on_open(true)
                .open(path)
        })?;
        let schema: u64 = store.read(|view| view.meta(META_SCHEMA)).map_err(|error| {
            if matches!(error, StoreError::Failed(redb::Error::TableDoesNotExist(_))) {
                return store.corrupt("it is no store of a CA");
            }
            error
        })?;
        if schema > SCHEMA {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found: schema,
            });
        }
        Ok(store)
    }

    /// Runs `change` as one transaction: all of it is on disk when this returns `Ok`, none of it otherwise.
    pub(crate) fn write<R>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.watched(|database| {
            let mut transaction = Transaction {
                store: self,
                inner: database.begin_write().map_err(redb::Error::from)?,
            };
            let result = change(&mut transaction)?;
            transaction.inner.commit().map_err(redb::Error::from)?;
            Ok(result)
        })
    }

    /// Runs `query` on one consistent state.
    pub(crate) fn read<R>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.watched(|database| {
            let inner = database.begin_read().map_err(redb::Error::from)?;
            query(&View { store: self, inner })
        })
    }

    /// Runs `work`, and notes whether the disk failed.
    fn watched<R>(
        &self,
        work: impl FnOnce(&Database) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let database = self.file.get(Instant::now()).map_err(redb::Error::from)?;
        let result = work(&database);
        if let Err(StoreError::Failed(redb::Error::Io(_) | redb::Error::PreviousIo)) = &result {
            self.file.mark_failed(Instant::now());
        }
        result
    }

    fn from_opening(
        path: &Path,
        open: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let of_file = path.to_owned();
        let file = Reopened::new(move || open(&of_file)).map_err(|error| refused(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// What this CA is.
    pub(crate) fn about(&self) -> Result<About, StoreError> {
        self.read(|view| view.meta(META_ABOUT))
    }

    /// Copies the present state into a new store at `path`, while this one is in use.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<Self, StoreError> {
        let copy = Self::create(path, &self.about()?)?;
        self.read(|view| {
            copy.write(|target| {
                for item in view.table(META)?.iter().map_err(redb::Error::from)? {
                    let (key, value) = item.map_err(redb::Error::from)?;
                    target.put(META, key.value(), value.value())?;
                }
                for definition in [TOKENS, KEYS] {
                    for item in view.table(definition)?.iter().map_err(redb::Error::from)? {
                        let (key, value) = item.map_err(redb::Error::from)?;
                        target.put(definition, key.value(), value.value())?;
                    }
                }
                for item in view.table(LOG)?.iter().map_err(redb::Error::from)? {
                    let (key, value) = item.map_err(redb::Error::from)?;
                    target.put(LOG, key.value(), value.value())?;
                }
                Ok(())
            })
        })?;
        Ok(copy)
    }

    fn corrupt(&self, reason: impl ToString) -> StoreError {
        StoreError::Corrupt {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| self.corrupt(error))
    }
}

/// One change of the store.
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    inner: WriteTransaction,
}

impl Transaction<'_> {
    /// The token with this hash.
    pub(crate) fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        self.get(TOKENS, &hash.0)
    }

    /// Remembers a token, or what it bought.
    pub(crate) fn put_token(
        &mut self,
        hash: TokenHash,
        record: &TokenRecord,
    ) -> Result<(), StoreError> {
        let table = self.inner.open_table(TOKENS).map_err(redb::Error::from)?;
        let count = table.len().map_err(redb::Error::from)?;
        let known = table.get(&hash.0).map_err(redb::Error::from)?.is_some();
        drop(table);
        if !known && count >= TOKENS_MAX {
            return Err(StoreError::TokensFull);
        }
        self.put(TOKENS, &hash.0, &encode(record))
    }

    /// Marks every token as one that was restored. Returns how many there are.
    pub(crate) fn mark_tokens_restored(&mut self) -> Result<u64, StoreError> {
        let table = self.inner.open_table(TOKENS).map_err(redb::Error::from)?;
        let mut hashes = Vec::new();
        for item in table.iter().map_err(redb::Error::from)? {
            let (hash, _) = item.map_err(redb::Error::from)?;
            hashes.push(TokenHash(*hash.value()));
        }
        drop(table);
        let mut marked = 0;
        for hash in hashes {
            let Some(record) = self.token(hash)? else {
                continue;
            };
            let restored = TokenRecord {
                restored: true,
                ..record
            };
            self.put(TOKENS, &hash.0, &encode(&restored))?;
            marked += 1;
        }
        Ok(marked)
    }

    /// Whose the public key is.
    pub(crate) fn key_owner(&self, key: KeyHash) -> Result<Option<SpiffeId>, StoreError> {
        Ok(self
            .get::<_, KeyOwner>(KEYS, &key.0)?
            .map(|owner| owner.identity))
    }

    /// Remembers whose the public key is, until `until`.
    pub(crate) fn put_key(
        &mut self,
        key: KeyHash,
        identity: &SpiffeId,
        until: SystemTime,
    ) -> Result<(), StoreError> {
        let owner = KeyOwner {
            identity: identity.clone(),
            until: unix_seconds(until),
        };
        self.put(KEYS, &key.0, &encode(&owner))
    }

    /// Adds an entry to the log; the oldest goes when there are more than [`LOG_ENTRIES_MAX`].
    pub(crate) fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let previous: Option<String> = self.get(META, META_LOG_HEAD)?;
        let mut table = self.inner.open_table(LOG).map_err(redb::Error::from)?;
        let last = table
            .last()
            .map_err(redb::Error::from)?
            .map_or(0, |(key, _)| key.value());
        let number = last + 1;
        let stored = encode(&record.chained(number, previous.unwrap_or_default()));
        table
            .insert(number, stored.as_slice())
            .map_err(redb::Error::from)?;
        let full = table.len().map_err(redb::Error::from)? > LOG_ENTRIES_MAX;
        let gone = if full {
            table.pop_first().map_err(redb::Error::from)?
        } else {
            None
        };
        let base = gone.map(|(_, value)| log::hash(value.value()));
        drop(table);
        if let Some(base) = base {
            self.put_meta(META_LOG_BASE, &base)?;
        }
        self.put_meta(META_LOG_HEAD, &log::hash(&stored))
    }

    /// Remembers the address that `serve` listens on.
    pub(crate) fn put_listen(&mut self, listen: String) -> Result<(), StoreError> {
        let about: Option<About> = self.get(META, META_ABOUT)?;
        let mut about = about.ok_or_else(|| self.store.corrupt("no entry \"about\""))?;
        about.listen = Some(listen);
        self.put_meta(META_ABOUT, &about)
    }

    /// Forgets tokens and keys whose time is long over.
    pub(crate) fn forget(&mut self, now: SystemTime) -> Result<(), StoreError> {
        let now = unix_seconds(now);
        let token_limit = now.saturating_sub(TOKEN_MEMORY.as_secs());
        let mut tokens = self.inner.open_table(TOKENS).map_err(redb::Error::from)?;
        // A record that cannot be read is kept: `inspect` reports it.
        tokens
            .retain(|_, value| {
                serde_json::from_slice(value)
                    .map_or(true, |token: TokenRecord| token.expires >= token_limit)
            })
            .map_err(redb::Error::from)?;
        let mut keys = self.inner.open_table(KEYS).map_err(redb::Error::from)?;
        keys.retain(|_, value| {
            serde_json::from_slice(value).map_or(true, |owner: KeyOwner| owner.until >= now)
        })
        .map_err(redb::Error::from)?;
        Ok(())
    }

    fn open_tables(&mut self) -> Result<(), StoreError> {
        self.inner.open_table(TOKENS).map_err(redb::Error::from)?;
        self.inner.open_table(KEYS).map_err(redb::Error::from)?;
        self.inner.open_table(LOG).map_err(redb::Error::from)?;
        Ok(())
    }

    fn put_meta(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), StoreError> {
        self.put(META, name, &encode(value))
    }

    fn get<'k, K: redb::Key + 'static, T: DeserializeOwned>(
        &self,
        definition: TableDefinition<'_, K, &'static [u8]>,
        key: K::SelfType<'k>,
    ) -> Result<Option<T>, StoreError> {
        let table = self
            .inner
            .open_table(definition)
            .map_err(redb::Error::from)?;
        let value = table.get(key).map_err(redb::Error::from)?;
        value
            .map(|value| self.store.decode(value.value()))
            .transpose()
    }

    fn put<'k, K: redb::Key + 'static>(
        &mut self,
        definition: TableDefinition<'_, K, &'static [u8]>,
        key: K::SelfType<'k>,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let mut table = self
            .inner
            .open_table(definition)
            .map_err(redb::Error::from)?;
        table.insert(key, value).map_err(redb::Error::from)?;
        Ok(())
    }
}

/// A key is remembered until no certificate for it can be renewed any more.
pub(crate) fn key_memory(not_after: SystemTime, grace: Duration) -> SystemTime {
    not_after + grace
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs with string keys serialise")
}

fn refused(path: &Path, error: DatabaseError) -> StoreError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};

    let path = path.to_owned();
    if let DatabaseError::Storage(redb::StorageError::Io(error)) = error {
        return if error.kind() == NotFound {
            StoreError::Missing(path)
        } else if matches!(error.kind(), InvalidData | UnexpectedEof) {
            StoreError::Corrupt {
                path,
                reason: error.to_string(),
            }
        } else {
            FileError::io("open", &path, error).into()
        };
    }
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        return StoreError::InUse(path);
    }
    StoreError::Corrupt {
        path,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::log::Event;

    #[test]
    fn what_was_written_is_there_after_the_store_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STORE_FILE);
        let store = Store::create(&path, &about()).unwrap();
        store
            .write(|t| t.put_token(TokenHash([1; 32]), &token()))
            .unwrap();
        store.write(|t| t.append(record("a"))).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.about().unwrap(), about());
        assert_eq!(
            store.write(|t| t.token(TokenHash([1; 32]))).unwrap(),
            Some(token())
        );
        assert_eq!(store.read(|view| view.log_tail(10)).unwrap().len(), 1);
    }

    #[test]
    fn a_failed_change_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join(STORE_FILE), &about()).unwrap();
        let failed = store.write(|t| {
            t.put_token(TokenHash([1; 32]), &token())?;
            Err::<(), _>(StoreError::TokensFull)
        });
        assert!(failed.is_err());
        assert_eq!(store.write(|t| t.token(TokenHash([1; 32]))).unwrap(), None);
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STORE_FILE);
        let _held = Store::create(&path, &about()).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
    }

    #[test]
    fn missing_foreign_and_damaged_files_are_refused_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STORE_FILE);
        assert!(matches!(Store::open(&path), Err(StoreError::Missing(_))));
        std::fs::write(&path, "not a store").unwrap();
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Corrupt { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        let store = Store::create(&path, &about()).unwrap();
        for _ in 0..50 {
            store.write(|t| t.append(record("x"))).unwrap();
        }
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        for byte in bytes.iter_mut().skip(4096) {
            *byte ^= 0x5a;
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(
            Store::open(&path),
            Err(StoreError::Corrupt { .. })
        ));
    }

    #[test]
    fn a_store_of_a_later_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STORE_FILE);
        let store = Store::create(&path, &about()).unwrap();
        store
            .write(|t| t.put_meta(META_SCHEMA, &(SCHEMA + 1)))
            .unwrap();
        drop(store);
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { .. })));
    }

    #[test]
    fn a_changed_or_removed_log_entry_breaks_the_chain() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join(STORE_FILE), &about()).unwrap();
        assert_eq!(
            store.read(|view| view.first_broken_log_entry()).unwrap(),
            None
        );
        for name in ["a", "b", "c"] {
            store.write(|t| t.append(record(name))).unwrap();
        }
        assert_eq!(
            store.read(|view| view.first_broken_log_entry()).unwrap(),
            None
        );
        let forged = encode(&record("z").chained(2, String::new()));
        store.write(|t| t.put(LOG, 2, &forged)).unwrap();
        assert_eq!(
            store.read(|view| view.first_broken_log_entry()).unwrap(),
            Some(2)
        );
    }

    #[test]
    fn removing_the_newest_log_entry_shows() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join(STORE_FILE), &about()).unwrap();
        for name in ["a", "b"] {
            store.write(|t| t.append(record(name))).unwrap();
        }
        store
            .write(|t| {
                let mut table = t.inner.open_table(LOG).map_err(redb::Error::from)?;
                table.remove(2).map_err(redb::Error::from)?;
                Ok(())
            })
            .unwrap();
        assert_eq!(
            store.read(|view| view.first_broken_log_entry()).unwrap(),
            Some(2)
        );
    }

    #[test]
    fn old_tokens_and_keys_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join(STORE_FILE), &about()).unwrap();
        let ends = UNIX_EPOCH + Duration::from_secs(token().expires);
        let key = KeyHash([2; 32]);
        store
            .write(|t| {
                t.put_token(TokenHash([1; 32]), &token())?;
                t.put_key(key, &token().identity, ends)
            })
            .unwrap();
        store.write(|t| t.forget(ends)).unwrap();
        assert!(store.write(|t| t.key_owner(key)).unwrap().is_some());
        store
            .write(|t| t.forget(ends + TOKEN_MEMORY + Duration::from_secs(1)))
            .unwrap();
        assert!(store.write(|t| t.key_owner(key)).unwrap().is_none());
        assert!(
            store
                .write(|t| t.token(TokenHash([1; 32])))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_copy_of_a_store_in_use_holds_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join(STORE_FILE), &about()).unwrap();
        store
            .write(|t| t.put_token(TokenHash([1; 32]), &token()))
            .unwrap();
        store.write(|t| t.append(record("a"))).unwrap();
        let path = directory.path().join("copy");
        drop(store.copy_to(&path).unwrap());
        let copy = Store::open(&path).unwrap();
        assert_eq!(
            copy.write(|t| t.token(TokenHash([1; 32]))).unwrap(),
            Some(token())
        );
        assert_eq!(
            copy.read(|view| view.first_broken_log_entry()).unwrap(),
            None
        );
        assert_eq!(copy.read(|view| view.log_tail(10)).unwrap().len(), 1);
    }

    fn about() -> About {
        About {
            trust_domain: "demo.test".parse().unwrap(),
            addresses: vec!["10.9.0.9:6200".to_owned()],
            listen: None,
            created: 1_800_000_000,
        }
    }

    fn token() -> TokenRecord {
        TokenRecord {
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            created: 1_800_000_000,
            expires: 1_800_003_600,
            spent: None,
            restored: false,
        }
    }

    fn record(name: &str) -> Record {
        Record {
            time: 1_800_000_000,
            event: Event::Refused {
                reason: name.to_owned(),
            },
            by: "none",
            identity: None,
            peer: None,
            key: None,
        }
    }
}
