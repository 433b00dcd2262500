//! Bounds of a store, each with its unit and reason.

use std::time::Duration;

/// Longest key in bytes. The longest in use names a resource: a kind, a namespace and a name of 253
/// characters.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value in bytes: a revision of the config service holds what it changed twice, before and after,
/// and may change every resource of a mesh.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 30;
/// Changes of one commit: all resources of a mesh (65 536), or all tokens of a CA (100 000), with room.
pub(crate) const COMMIT_CHANGES_MAX: usize = 262_144;
/// Keys and values of one commit together, in bytes: one largest value and the rest of its commit.
pub(crate) const COMMIT_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// Revisions whose changes can still be read and watched; older ones are compacted, one with each commit. A
/// watcher that is further behind reads the state anew. The file holds at most this many replaced values of a
/// key.
pub const HISTORY_REVISIONS: u64 = 256;
/// Entries that are read from a range at once if all of them are visited.
pub(crate) const PAGE_ENTRIES: usize = 256;
/// Bytes of the values of one commit when a store is copied: copying a large store needs little memory.
pub(crate) const COPY_BYTES: usize = 16 << 20;

/// Leases at once; some 100 B each in memory.
pub const LEASES_MAX: usize = 65_536;
/// Shortest life of a lease: with less, one slow disk would end the leases of healthy processes.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest life of a lease: a key that should stay longer needs none.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often a transaction is tried while others change values that it read: many times as often as writers
/// meet.
pub(crate) const ATTEMPTS_MAX: usize = 64;
/// How long after a disk error a file is opened again at the earliest: opening reads all of it.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(5);
