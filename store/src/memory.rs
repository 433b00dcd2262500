//! A store in memory, which ends with the process: for tests, and for a mesh on one machine whose state need
//! not last.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::limits::{HISTORY_REVISIONS, LEASES_MAX};
use crate::{
    Batch, Change, Commit, Condition, Entry, Event, Keys, LeaseId, Order, Revision, Snapshot,
    Store, StoreError, Watch, rules,
};

/// The state of a key from a revision on; none if it was deleted then.
type History = BTreeMap<Revision, Option<Entry>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    newest: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    /// Shared with snapshots, and copied when it changes under one.
    keys: Arc<BTreeMap<Vec<u8>, History>>,
    /// The changes of each revision, in order of keys.
    changes: BTreeMap<Revision, Vec<Vec<u8>>>,
    leases: u64,
    clock: Clock,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn publish(&self, state: &State) {
        let newest = state.revision;
        self.shared
            .newest
            .send_if_modified(|seen| std::mem::replace(seen, newest) != newest);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between is a fault of this file, and the tests of a store run the same cases as those on
        // disk.
        weft_transport::locks::lock(&self.state)
    }
}

impl State {
    fn present(&self, key: &[u8]) -> Option<&Entry> {
        let (_, newest) = self.keys.get(key)?.last_key_value()?;
        newest.as_ref()
    }

    fn view(&self, revision: Revision) -> View {
        View {
            keys: Arc::clone(&self.keys),
            revision,
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let revision = self.revision + 1;
        let mut sorted: Vec<&Change> = changes.iter().collect();
        sorted.sort_by_key(|change| change.key());
        for change in &sorted {
            if let Change::Put {
                lease: Some(lease), ..
            } = change
                && !self.clock.has(*lease)
            {
                return Err(StoreError::NoLease(*lease));
            }
        }
        let mut changed = Vec::new();
        for change in sorted {
            let present = self.present(change.key());
            let created = present.map_or(revision, |entry| entry.created);
            let entry = match change {
                Change::Delete(_) if present.is_none() => continue,
                Change::Delete(_) => None,
                Change::Put { key, value, lease } => Some(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created,
                    modified: revision,
                    lease: *lease,
                }),
            };
            let key = change.key().to_vec();
            let history = Arc::make_mut(&mut self.keys).entry(key.clone());
            history.or_default().insert(revision, entry);
            changed.push(key);
        }
        if !changed.is_empty() {
            self.revision = revision;
            self.changes.insert(revision, changed);
            self.compact(revision.saturating_sub(HISTORY_REVISIONS));
        }
        Ok(())
    }

    fn compact(&mut self, target: Revision) {
        if target <= self.compacted {
            return;
        }
        let kept = self.changes.split_off(&(target + 1));
        let gone = std::mem::replace(&mut self.changes, kept);
        let keys = Arc::make_mut(&mut self.keys);
        for key in gone.into_values().flatten() {
            let Some(history) = keys.get_mut(&key) else {
                continue;
            };
            let before = history.range(..=target).next_back();
            let base = before.map(|(revision, entry)| (*revision, entry.is_some()));
            if let Some((base, is_there)) = base {
                history.retain(|revision, _| *revision > base || (is_there && *revision == base));
            }
            if history.is_empty() {
                keys.remove(&key);
            }
        }
        self.compacted = target;
    }

    fn end(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let keys = self.keys.keys();
        let under = keys.filter(|key| {
            self.present(key)
                .is_some_and(|entry| entry.lease == Some(lease))
        });
        let changes: Vec<Change> = under.map(|key| Change::Delete(key.clone())).collect();
        self.clock.forget(lease);
        self.apply(&changes)
    }
}

impl Store for Memory {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self.lock();
        Ok(Box::new(state.view(state.revision)))
    }

    fn snapshot_at(&self, revision: Revision) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self.lock();
        if revision > state.revision {
            return Err(StoreError::NotYet(state.revision));
        }
        if revision < state.compacted {
            return Err(StoreError::Compacted(state.compacted));
        }
        Ok(Box::new(state.view(revision)))
    }

    fn commit(&self, conditions: &[Condition], changes: &[Change]) -> Result<Commit, StoreError> {
        rules::check(conditions, changes)?;
        let mut state = self.lock();
        let all_hold = conditions
            .iter()
            .all(|condition| rules::holds(condition, state.present(condition.key())));
        if !all_hold {
            return Ok(Commit::Conflict);
        }
        state.apply(changes)?;
        self.publish(&state);
        Ok(Commit::Done(state.revision))
    }

    fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut state = self.lock();
        if revision > state.revision {
            return Err(StoreError::NotYet(state.revision));
        }
        state.compact(revision);
        Ok(())
    }

    fn watch(&self, keys: Keys, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let newest = self.shared.newest.subscribe();
        let state = self.lock();
        let next = if from == 0 { state.revision + 1 } else { from };
        if next <= state.compacted {
            return Err(StoreError::Compacted(state.compacted));
        }
        Ok(Box::new(Watcher {
            shared: Arc::clone(&self.shared),
            keys,
            next,
            newest,
        }))
    }

    fn grant(&self, ttl: Duration, now: Instant) -> Result<LeaseId, StoreError> {
        let seconds = rules::seconds(ttl)?;
        let mut state = self.lock();
        if state.clock.len() >= LEASES_MAX {
            return Err(StoreError::Invalid(format!(
                "more than {LEASES_MAX} leases"
            )));
        }
        state.leases += 1;
        let lease = LeaseId(state.leases);
        state.clock.start(lease, Duration::from_secs(seconds), now);
        Ok(lease)
    }

    fn keep_alive(&self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        if self.lock().clock.keep_alive(lease, now) {
            return Ok(());
        }
        Err(StoreError::NoLease(lease))
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !state.clock.has(lease) {
            return Err(StoreError::NoLease(lease));
        }
        state.end(lease)?;
        self.publish(&state);
        Ok(())
    }

    fn expire(&self, now: Instant) -> Result<(), StoreError> {
        let mut state = self.lock();
        for lease in state.clock.ended(now) {
            state.end(lease)?;
        }
        self.publish(&state);
        Ok(())
    }
}

struct View {
    keys: Arc<BTreeMap<Vec<u8>, History>>,
    revision: Revision,
}

impl View {
    fn at(&self, history: &History) -> Option<Entry> {
        let (_, newest) = history.range(..=self.revision).next_back()?;
        newest.clone()
    }

    fn entries(&self, keys: &Keys) -> impl DoubleEndedIterator<Item = Entry> {
        let (from, to) = (keys.from.clone(), keys.to.clone());
        self.keys
            .range(from..)
            .take_while(move |(key, _)| to.as_ref().is_none_or(|to| *key < to))
            .filter_map(|(_, history)| self.at(history))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

impl Snapshot for View {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(self.keys.get(key).and_then(|history| self.at(history)))
    }

    fn range(&self, keys: &Keys, order: Order, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.entries(keys);
        Ok(match order {
            Order::Ascending => entries.take(limit).collect(),
            Order::Descending => entries.rev().take(limit).collect(),
        })
    }

    fn count(&self, keys: &Keys) -> Result<u64, StoreError> {
        Ok(self.entries(keys).count() as u64)
    }
}

struct Watcher {
    shared: Arc<Shared>,
    keys: Keys,
    next: Revision,
    newest: watch::Receiver<Revision>,
}

impl Watch for Watcher {
    fn try_next(&mut self) -> Result<Option<Batch>, StoreError> {
        self.newest.borrow_and_update();
        let state = self.shared.lock();
        if self.next <= state.compacted {
            return Err(StoreError::Compacted(state.compacted));
        }
        let found = state
            .changes
            .range(self.next..)
            .find_map(|(revision, changed)| {
                let of_these = changed.iter().filter(|key| self.keys.contains(key));
                let events: Vec<Event> = of_these
                    .map(|key| Event {
                        key: key.clone(),
                        entry: state
                            .keys
                            .get(key)
                            .and_then(|history| history.get(revision)?.clone()),
                    })
                    .collect();
                let revision = *revision;
                (!events.is_empty()).then_some(Batch { revision, events })
            });
        let seen = found
            .as_ref()
            .map_or(state.revision, |batch| batch.revision);
        self.next = self.next.max(seen + 1);
        Ok(found)
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // This watcher holds the sender.
            let _ = self.newest.changed().await;
        })
    }
}
