//! The CA's persistent state: tokens, the issuance log, and which key belongs to which identity, as typed
//! values in a `weft_store`. `store/keys.rs` has the keys and encodings, `store/view.rs` reads them.
//!
//! Every change is one commit that is on disk before the answer is sent; a crash leaves the state before or
//! after it. `attest.rs` decides; `backup.rs` copies the store.

mod keys;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weft_store::{Keys, Order, Redb, transact};
use weft_transport::identity::{SpiffeId, TrustDomain};

pub(crate) use self::keys::LAYOUT;
use self::keys::{ABOUT, KEYS, LOG, LOG_BASE, LOG_HEAD, TOKENS, encode};
pub(crate) use self::view::View;
use crate::attest::{TokenRecord, unix_seconds};
use crate::csr::KeyHash;
use crate::limits::{CHANGED_AT_ONCE, LOG_ENTRIES_MAX, TOKEN_MEMORY, TOKENS_MAX};
use crate::log::{self, Record};
use crate::token::TokenHash;

/// Name of the store in a CA's directory.
pub const STORE_FILE: &str = "ca.redb";

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] weft_store::StoreError),
    /// More than [`TOKENS_MAX`] tokens.
    #[error("the store holds {TOKENS_MAX} tokens: wait until old ones are forgotten")]
    TokensFull,
}

impl StoreError {
    /// Whether another process holds the store.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(weft_store::StoreError::InUse(_)))
    }
}

/// The facts about a CA, as `init` set them and `serve` amends them.
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

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<dyn weft_store::Store>,
    path: PathBuf,
    /// Changes of this process wait for each other: all of them write the log, and would conflict there.
    writing: Mutex<()>,
}

impl Store {
    /// Makes a new store at `path`, which must not exist.
    pub(crate) fn create(path: &Path, about: &About) -> Result<Self, StoreError> {
        Self::begin(Arc::new(Redb::create(path, &LAYOUT)?), path, about)
    }

    /// A store that ends with the process.
    #[cfg(test)]
    pub(crate) fn in_memory(about: &About) -> Result<Self, StoreError> {
        let memory = Arc::new(weft_store::Memory::new());
        Self::begin(memory, Path::new("memory"), about)
    }

    /// Opens the store at `path` and checks every page of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::over(Arc::new(Redb::open(path, &LAYOUT)?), path);
        store.about()?;
        Ok(store)
    }

    fn begin(
        inner: Arc<dyn weft_store::Store>,
        path: &Path,
        about: &About,
    ) -> Result<Self, StoreError> {
        let store = Self::over(inner, path);
        store.write(|transaction| {
            transaction.put(ABOUT, about);
            Ok(())
        })?;
        Ok(store)
    }

    /// The CA's values in a store. Messages use `path` as its name.
    pub(crate) fn over(inner: Arc<dyn weft_store::Store>, path: &Path) -> Self {
        Self {
            inner,
            path: path.to_owned(),
            writing: Mutex::default(),
        }
    }

    /// Runs `change` as one transaction: all of it is on disk when this returns `Ok`, none of it otherwise.
    /// It runs again if another process changed a value that it read.
    pub(crate) fn write<R>(
        &self,
        mut change: impl FnMut(&mut Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        // No state under the lock can be left half-changed by a panic.
        let _turn = weft_transport::locks::lock(&self.writing);
        transact(self.inner.as_ref(), |inner| {
            change(&mut Transaction {
                store: self,
                inner,
                log: None,
                tokens: None,
            })
        })
    }

    /// Runs `query` on one consistent state.
    pub(crate) fn read<R>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let snapshot = self.inner.snapshot()?;
        query(&View {
            store: self,
            snapshot,
        })
    }

    /// The facts about this CA.
    pub(crate) fn about(&self) -> Result<About, StoreError> {
        self.read(|view| view.about())
    }

    /// Copies the present state into a new store at `path`, while this one is in use.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let state = self.inner.snapshot()?;
        weft_store::install(path, &LAYOUT, |copy| weft_store::copy(state.as_ref(), copy))?;
        Ok(())
    }

    fn corrupt(&self, reason: impl ToString) -> StoreError {
        weft_store::StoreError::Corrupt {
            path: self.path.clone(),
            reason: reason.to_string(),
            remedy: LAYOUT.restore,
        }
        .into()
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        keys::decode(bytes).map_err(|error| self.corrupt(error))
    }
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// One change of the store.
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    inner: &'a mut weft_store::Transaction,
    /// The numbers of the first and the last entry of the log, once it was looked at; none if there is none.
    log: Option<Option<(u64, u64)>>,
    /// How many tokens there are, once they were counted.
    tokens: Option<u64>,
}

impl Transaction<'_> {
    /// The token with this hash.
    pub(crate) fn token(&mut self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        self.get(&keys::token(hash))
    }

    /// Stores a token, or the certificate that it was exchanged for.
    pub(crate) fn put_token(
        &mut self,
        hash: TokenHash,
        record: &TokenRecord,
    ) -> Result<(), StoreError> {
        let key = keys::token(hash);
        if self.inner.get(&key)?.is_none() {
            let count = match self.tokens {
                Some(count) => count,
                None => self.inner.snapshot().count(&Keys::prefix(TOKENS))?,
            };
            if count >= TOKENS_MAX {
                return Err(StoreError::TokensFull);
            }
            self.tokens = Some(count + 1);
        }
        self.put(&key, record);
        Ok(())
    }

    /// Marks some tokens as ones that were restored. Returns whether there were any that were not.
    pub(crate) fn mark_tokens_restored(&mut self) -> Result<bool, StoreError> {
        let not_yet = |token: &TokenRecord| !token.restored;
        let tokens = self.some(TOKENS, not_yet)?;
        let any = !tokens.is_empty();
        for (key, value) in tokens {
            let record: TokenRecord = self.store.decode(&value)?;
            let restored = TokenRecord {
                restored: true,
                ..record
            };
            self.put(&key, &restored);
        }
        Ok(any)
    }

    /// The identity that the public key belongs to.
    pub(crate) fn key_owner(&mut self, key: KeyHash) -> Result<Option<SpiffeId>, StoreError> {
        let owner: Option<KeyOwner> = self.get(&keys::key(key))?;
        Ok(owner.map(|owner| owner.identity))
    }

    /// Stores the identity of the public key, until `until`.
    pub(crate) fn put_key(&mut self, key: KeyHash, identity: &SpiffeId, until: SystemTime) {
        let owner = KeyOwner {
            identity: identity.clone(),
            until: unix_seconds(until),
        };
        self.put(&keys::key(key), &owner);
    }

    /// Adds an entry to the log; the oldest goes when there are more than [`LOG_ENTRIES_MAX`].
    pub(crate) fn append(&mut self, record: Record) -> Result<(), StoreError> {
        // Reading the head makes two processes conflict that append at the same time.
        let previous: Option<String> = self.get(LOG_HEAD)?;
        let (mut first, last) = self.log_ends()?.unwrap_or((1, 0));
        let number = last + 1;
        let stored = encode(&record.chained(number, previous.unwrap_or_default()));
        self.put(LOG_HEAD, &log::hash(&stored));
        self.inner.put(keys::log(number), stored);
        if number - first >= LOG_ENTRIES_MAX {
            let from = Keys::prefix(LOG).starting_at(&keys::log(first));
            for oldest in self.inner.range(&from, Order::Ascending, 1)? {
                self.put(LOG_BASE, &log::hash(&oldest.value));
                self.inner.delete(oldest.key);
            }
            first += 1;
        }
        self.log = Some(Some((first, number)));
        Ok(())
    }

    fn log_ends(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        if let Some(known) = self.log {
            return Ok(known);
        }
        let mut end = |order| -> Result<Option<u64>, StoreError> {
            let found = self.inner.range(&Keys::prefix(LOG), order, 1)?;
            let number = found.first().map(|entry| keys::log_number(&entry.key));
            let no_number = || self.store.corrupt("an entry of the log has no number");
            number
                .map(|number| number.ok_or_else(no_number))
                .transpose()
        };
        Ok(end(Order::Ascending)?.zip(end(Order::Descending)?))
    }

    /// Stores the address that `serve` listens on.
    pub(crate) fn put_listen(&mut self, listen: String) -> Result<(), StoreError> {
        let about: Option<About> = self.get(ABOUT)?;
        let mut about = about.ok_or_else(|| self.store.corrupt("no entry \"about\""))?;
        about.listen = Some(listen);
        self.put(ABOUT, &about);
        Ok(())
    }

    /// Forgets tokens and keys that expired long ago, some at a time.
    pub(crate) fn forget(&mut self, now: SystemTime) -> Result<(), StoreError> {
        let now = unix_seconds(now);
        let token_limit = now.saturating_sub(TOKEN_MEMORY.as_secs());
        let tokens = self.some(TOKENS, |token: &TokenRecord| token.expires < token_limit)?;
        let owners = self.some(KEYS, |owner: &KeyOwner| owner.until < now)?;
        for (key, value) in tokens.into_iter().chain(owners) {
            // Read again, so that a record that changes in between is not lost.
            if self.inner.get(&key)? == Some(value) {
                self.inner.delete(key);
            }
        }
        Ok(())
    }

    /// Keys and values of at most [`CHANGED_AT_ONCE`] wanted records in the state at the beginning.
    /// Unreadable records are skipped: `inspect` reports them.
    fn some<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Vec<Pair>, StoreError> {
        let mut found = Vec::new();
        weft_store::each(self.inner.snapshot(), Keys::prefix(prefix), |entry| {
            let is_wanted = keys::decode(&entry.value).is_ok_and(|record| wanted(&record));
            if is_wanted && found.len() < CHANGED_AT_ONCE {
                found.push((entry.key, entry.value));
            }
            Ok::<_, weft_store::StoreError>(())
        })?;
        Ok(found)
    }

    fn get<T: DeserializeOwned>(&mut self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let value = self.inner.get(key)?;
        value.map(|value| self.store.decode(&value)).transpose()
    }

    fn put(&mut self, key: &[u8], value: &impl Serialize) {
        self.inner.put(key, encode(value));
    }
}

/// A key is remembered until no certificate for it can be renewed any more.
pub(crate) fn key_memory(not_after: SystemTime, grace: Duration) -> SystemTime {
    not_after + grace
}

#[cfg(test)]
mod tests;
