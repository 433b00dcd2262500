//! Questions to the store: what it holds at one moment.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::de::DeserializeOwned;

use super::{KEYS, LOG, META, META_LOG_BASE, META_LOG_HEAD, Store, StoreError, TOKENS};
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
    pub(super) inner: ReadTransaction,
}

impl View<'_> {
    pub(super) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<'_, K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, StoreError> {
        Ok(self
            .inner
            .open_table(definition)
            .map_err(redb::Error::from)?)
    }

    pub(super) fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, StoreError> {
        let table = self.table(META)?;
        let value = table.get(name).map_err(redb::Error::from)?;
        let value = value.ok_or_else(|| self.store.corrupt(format!("no entry {name:?}")))?;
        self.store.decode(value.value())
    }

    pub(crate) fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts {
            tokens: self.table(TOKENS)?.len().map_err(redb::Error::from)?,
            keys: self.table(KEYS)?.len().map_err(redb::Error::from)?,
            log: self.table(LOG)?.len().map_err(redb::Error::from)?,
        })
    }

    /// The token with this hash.
    pub(crate) fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let table = self.table(TOKENS)?;
        let value = table.get(&hash.0).map_err(redb::Error::from)?;
        value
            .map(|value| self.store.decode(value.value()))
            .transpose()
    }

    /// Calls `visit` for every token.
    pub(crate) fn tokens(&self, mut visit: impl FnMut(TokenRecord)) -> Result<(), StoreError> {
        for item in self.table(TOKENS)?.iter().map_err(redb::Error::from)? {
            let (_, value) = item.map_err(redb::Error::from)?;
            visit(self.store.decode(value.value())?);
        }
        Ok(())
    }

    /// The last entries of the log, newest first.
    pub(crate) fn log_tail(&self, count: usize) -> Result<Vec<LogEntry>, StoreError> {
        let table = self.table(LOG)?;
        let entries = table.iter().map_err(redb::Error::from)?.rev().take(count);
        entries
            .map(|item| {
                let (_, value) = item.map_err(redb::Error::from)?;
                self.store.decode(value.value())
            })
            .collect()
    }

    /// Checks the chain of hashes; returns the number of the first entry that does not fit.
    pub(crate) fn first_broken_log_entry(&self) -> Result<Option<u64>, StoreError> {
        let mut expected: String = self.meta(META_LOG_BASE).or_else(absent)?;
        let head: String = self.meta(META_LOG_HEAD).or_else(absent)?;
        let mut last = None;
        for item in self.table(LOG)?.iter().map_err(redb::Error::from)? {
            let (key, value) = item.map_err(redb::Error::from)?;
            let number = key.value();
            let gap = last.is_some_and(|last| last + 1 != number);
            let entry: Option<LogEntry> = serde_json::from_slice(value.value()).ok();
            if gap || entry.is_none_or(|e| e.previous != expected || e.number != number) {
                return Ok(Some(number));
            }
            expected = log::hash(value.value());
            last = Some(number);
        }
        Ok((expected != head).then_some(last.map_or(1, |last| last + 1)))
    }
}

fn absent(error: StoreError) -> Result<String, StoreError> {
    if matches!(error, StoreError::Corrupt { .. }) {
        return Ok(String::new());
    }
    Err(error)
}
