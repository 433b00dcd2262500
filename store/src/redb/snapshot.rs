//! How the file is read and watched.

use std::ops::{Bound, ControlFlow};
use std::pin::Pin;
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction};
use tokio::sync::watch;

use super::Shared;
use super::tables::{CHANGES, ENTRIES, EntryKey, Record, StepError, entry_at, numbers};
use crate::{Batch, Entry, Event, Keys, Order, Revision, Snapshot, StoreError, Watch};

/// The state at a revision. Its data stay in the file until it is dropped.
pub(super) struct State {
    shared: Arc<Shared>,
    entries: ReadOnlyTable<EntryKey, &'static [u8]>,
    revision: Revision,
}

impl State {
    pub(super) fn newest(shared: &Arc<Shared>, read: &ReadTransaction) -> Result<Self, StepError> {
        let (newest, _) = numbers(read)?;
        Self::at(shared, read, newest)
    }

    pub(super) fn at(
        shared: &Arc<Shared>,
        read: &ReadTransaction,
        revision: Revision,
    ) -> Result<Self, StepError> {
        let (newest, compacted) = numbers(read)?;
        if revision > newest {
            return Err(StoreError::NotYet(newest).into());
        }
        if revision < compacted {
            return Err(StoreError::Compacted(compacted).into());
        }
        Ok(Self {
            shared: Arc::clone(shared),
            entries: read.open_table(ENTRIES)?,
            revision,
        })
    }

    /// Visits the value of each of `keys`, until told to stop.
    fn walk(
        &self,
        keys: &Keys,
        order: Order,
        mut visit: impl FnMut(&[u8], Revision, &Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), StepError> {
        let from = Bound::Included((keys.from.as_slice(), 0));
        let to = match &keys.to {
            Some(to) => Bound::Excluded((to.as_slice(), 0)),
            None => Bound::Unbounded,
        };
        if keys.to.as_ref().is_some_and(|to| *to <= keys.from) {
            return Ok(());
        }
        let mut rows = self.entries.range::<(&[u8], u64)>((from, to))?;
        // The newest record so far of the present key; in descending order, the first one decides.
        let mut decided: Option<Vec<u8>> = None;
        let mut candidate = None;
        let mut tell = |place: redb::AccessGuard<'_, EntryKey>,
                        value: redb::AccessGuard<'_, &'static [u8]>|
         -> Result<ControlFlow<()>, StepError> {
            let (key, changed) = place.value();
            Ok(match Record::decode(value.value())? {
                Some(record) => visit(key, changed, &record),
                None => ControlFlow::Continue(()),
            })
        };
        loop {
            let row = match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(row) = row else {
                break;
            };
            let (place, value) = row?;
            let (key, changed) = place.value();
            if changed > self.revision {
                continue;
            }
            match order {
                Order::Descending => {
                    if decided.as_deref() == Some(key) {
                        continue;
                    }
                    decided = Some(key.to_vec());
                    if tell(place, value)?.is_break() {
                        return Ok(());
                    }
                }
                Order::Ascending => {
                    let is_next = decided.as_deref() != Some(key);
                    if is_next {
                        decided = Some(key.to_vec());
                    }
                    let before = candidate.replace((place, value));
                    if let Some((place, value)) = before.filter(|_| is_next)
                        && tell(place, value)?.is_break()
                    {
                        return Ok(());
                    }
                }
            }
        }
        if let Some((place, value)) = candidate {
            let _ = tell(place, value)?;
        }
        Ok(())
    }
}

impl Snapshot for State {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        entry_at(&self.entries, key, self.revision).map_err(|error| self.shared.told(error))
    }

    fn range(&self, keys: &Keys, order: Order, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.walk(keys, order, |key, changed, record| {
            found.push(record.entry(key, changed));
            if found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .map_err(|error| self.shared.told(error))?;
        Ok(found)
    }

    fn count(&self, keys: &Keys) -> Result<u64, StoreError> {
        let mut count = 0;
        self.walk(keys, Order::Ascending, |_, _, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .map_err(|error| self.shared.told(error))?;
        Ok(count)
    }
}

/// Reads the changes that the file keeps; no change is queued for it.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    keys: Keys,
    next: Revision,
    newest: watch::Receiver<Revision>,
}

impl Watcher {
    pub(super) fn new(
        shared: &Arc<Shared>,
        keys: Keys,
        from: Revision,
    ) -> Result<Self, StoreError> {
        let receiver = shared.newest.subscribe();
        let (newest, compacted) = shared.read(|read| numbers(&read))?;
        let next = if from == 0 { newest + 1 } else { from };
        if next <= compacted {
            return Err(StoreError::Compacted(compacted));
        }
        Ok(Self {
            shared: Arc::clone(shared),
            keys,
            next,
            newest: receiver,
        })
    }

    fn read(&self) -> Result<(Option<Batch>, Revision), StoreError> {
        self.shared.read(|read| {
            let (newest, compacted) = numbers(&read)?;
            if self.next <= compacted {
                return Err(StoreError::Compacted(compacted).into());
            }
            let entries = read.open_table(ENTRIES)?;
            let mut found: Option<Batch> = None;
            for row in read.open_table(CHANGES)?.range((self.next, 0)..)? {
                let (place, key) = row?;
                let (revision, _) = place.value();
                if found
                    .as_ref()
                    .is_some_and(|batch| batch.revision != revision)
                {
                    break;
                }
                let key = key.value();
                if !self.keys.contains(key) {
                    continue;
                }
                let value = entries.get((key, revision))?;
                let value = value.ok_or_else(|| StepError::damaged("a change has no entry"))?;
                let record = Record::decode(value.value())?;
                let event = Event {
                    key: key.to_vec(),
                    entry: record.map(|record| record.entry(key, revision)),
                };
                let batch = found.get_or_insert_with(|| Batch {
                    revision,
                    events: Vec::new(),
                });
                batch.events.push(event);
            }
            Ok((found, newest))
        })
    }
}

impl Watch for Watcher {
    fn try_next(&mut self) -> Result<Option<Batch>, StoreError> {
        self.newest.borrow_and_update();
        let (found, newest) = self.read()?;
        let seen = found.as_ref().map_or(newest, |batch| batch.revision);
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
