//! Queries to the store: its contents at one moment.

use serde::de::DeserializeOwned;
use weft_store::{Keys, Order, Snapshot, each};

use super::keys::{self, ABOUT, KEYS, LOG, LOG_BASE, LOG_HEAD, TOKENS};
use super::{About, Store, StoreError};
use crate::attest::TokenRecord;
use crate::log::{self, LogEntry};
use crate::token::TokenHash;

/// How many entries the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) tokens: u64,
    pub(crate) keys: u64,
    pub(crate) log: u64,
}

/// A consistent state to read from.
pub(crate) struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) snapshot: Box<dyn Snapshot>,
}

impl View<'_> {
    /// The facts about this CA.
    pub(super) fn about(&self) -> Result<About, StoreError> {
        self.get(ABOUT)?
            .ok_or_else(|| self.store.corrupt("no entry \"about\""))
    }

    pub(crate) fn counts(&self) -> Result<Counts, StoreError> {
        let count = |prefix| self.snapshot.count(&Keys::prefix(prefix));
        Ok(Counts {
            tokens: count(TOKENS)?,
            keys: count(KEYS)?,
            log: count(LOG)?,
        })
    }

    /// The token with this hash.
    pub(crate) fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        self.get(&keys::token(hash))
    }

    /// Calls `visit` for every token.
    pub(crate) fn tokens(&self, mut visit: impl FnMut(TokenRecord)) -> Result<(), StoreError> {
        each(self.snapshot.as_ref(), Keys::prefix(TOKENS), |entry| {
            visit(self.store.decode(&entry.value)?);
            Ok(())
        })
    }

    /// The last entries of the log, newest first.
    pub(crate) fn log_tail(&self, count: usize) -> Result<Vec<LogEntry>, StoreError> {
        let keys = Keys::prefix(LOG);
        let entries = self.snapshot.range(&keys, Order::Descending, count)?;
        let decoded = entries.iter().map(|entry| self.store.decode(&entry.value));
        decoded.collect()
    }

    /// Checks the chain of hashes; returns the number of the first entry that does not fit.
    pub(crate) fn first_broken_log_entry(&self) -> Result<Option<u64>, StoreError> {
        let mut expected: String = self.get(LOG_BASE)?.unwrap_or_default();
        let head: String = self.get(LOG_HEAD)?.unwrap_or_default();
        let mut last = None;
        let checked = each(self.snapshot.as_ref(), Keys::prefix(LOG), |entry| {
            let number = keys::log_number(&entry.key).unwrap_or_default();
            let gap = last.is_some_and(|last| last + 1 != number);
            let decoded: Option<LogEntry> = keys::decode(&entry.value).ok();
            if gap || decoded.is_none_or(|e| e.previous != expected || e.number != number) {
                return Err(Stop::Broken(number));
            }
            expected = log::hash(&entry.value);
            last = Some(number);
            Ok(())
        });
        match checked {
            Ok(()) => Ok((expected != head).then_some(last.map_or(1, |last| last + 1))),
            Err(Stop::Broken(number)) => Ok(Some(number)),
            Err(Stop::Failed(error)) => Err(error.into()),
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let entry = self.snapshot.get(key)?;
        entry
            .map(|entry| self.store.decode(&entry.value))
            .transpose()
    }
}

/// Why the log is read no further.
enum Stop {
    Broken(u64),
    Failed(weft_store::StoreError),
}

impl From<weft_store::StoreError> for Stop {
    fn from(error: weft_store::StoreError) -> Self {
        Self::Failed(error)
    }
}
