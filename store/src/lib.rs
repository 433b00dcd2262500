//! Keys and values with revisions: the CA and the config service keep their state in such stores.
//!
//! [`Store`] is the interface, in the model of etcd: every commit is one revision, compares before it
//! changes, and can be watched; keys may belong to leases. [`Redb`] keeps a store in one file, [`Memory`] in
//! memory. Both pass the one list of cases in `tests/contract.rs`. [`transact`] turns reads and writes into a
//! commit that fails if a value that was read has changed; [`copy`], [`fill`] and [`install`] are the parts
//! of backups and restores.
//!
//! Bytes only: `weft_ca` (`store/keys.rs`) and `weft_config` (`store/keys.rs`) decide keys and encodings.
//! Read `interface.rs` first.

mod backup;
mod clock;
mod error;
mod interface;
mod limits;
mod memory;
mod redb;
mod rules;
mod transaction;

#[cfg(test)]
mod tests;

pub use backup::{copy, fill, install};
pub use error::StoreError;
pub use interface::{
    Batch, Change, Commit, Condition, Entry, Event, Keys, LeaseId, Order, Revision, Snapshot,
    Store, Watch, each, next,
};
pub use limits::{
    HISTORY_REVISIONS, KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX, REOPEN_PAUSE,
};
pub use memory::Memory;
pub use redb::{Layout, OldKeys, OldTable, Redb};
pub use transaction::{Transaction, transact};
