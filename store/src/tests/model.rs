//! Random orders of operations against a naive map: in memory, on a file that is opened again from time to
//! time, and on a disk that fails or loses power at any write. A run is repeated by its seed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::{
    Batch, Change, Commit, Condition, Keys, Layout, LeaseId, Memory, Order, Redb, Revision,
    Snapshot, Store, StoreError, Watch, each,
};

pub(crate) const LAYOUT: Layout = Layout {
    kind: "test",
    what: "a test",
    schema: 2,
    make: "make one",
    restore: "restore one",
    old_meta: b"m/",
    old: &[],
};
pub(crate) static THIS: Layout = LAYOUT;

const STEPS: usize = 120;
const KEYS: u8 = 8;

/// A key, its value, when it was made and changed, and its lease.
type Map = BTreeMap<Vec<u8>, (Vec<u8>, Revision, Revision, Option<LeaseId>)>;

/// The expected contents of a store: every state that existed, and the keys that each revision changed.
#[derive(Clone, Debug)]
struct Model {
    states: Vec<Map>,
    changed: Vec<Vec<Vec<u8>>>,
    leases: BTreeMap<LeaseId, (Duration, Instant)>,
}

impl Model {
    fn new() -> Self {
        Self {
            states: vec![Map::new()],
            changed: vec![Vec::new()],
            leases: BTreeMap::new(),
        }
    }

    fn revision(&self) -> Revision {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &Map {
        self.states.last().unwrap()
    }

    fn holds(&self, condition: &Condition) -> bool {
        let present = self.now().get(condition.key());
        match condition {
            Condition::Absent(_) => present.is_none(),
            Condition::Unchanged(_, revision) => present.is_some_and(|one| one.2 == *revision),
            Condition::Under(_, lease) => present.is_some_and(|one| one.3 == Some(*lease)),
        }
    }

    fn commit(&mut self, conditions: &[Condition], changes: &[Change]) -> Commit {
        if !conditions.iter().all(|condition| self.holds(condition)) {
            return Commit::Conflict;
        }
        let (mut next, revision) = (self.now().clone(), self.revision() + 1);
        let mut changed = Vec::new();
        for change in changes {
            let key = change.key().to_vec();
            match change {
                Change::Put { value, lease, .. } => {
                    let created = next.get(&key).map_or(revision, |present| present.1);
                    next.insert(key.clone(), (value.clone(), created, revision, *lease));
                    changed.push(key);
                }
                Change::Delete(_) => {
                    if next.remove(&key).is_some() {
                        changed.push(key);
                    }
                }
            }
        }
        if !changed.is_empty() {
            changed.sort();
            self.states.push(next);
            self.changed.push(changed);
        }
        Commit::Done(self.revision())
    }

    fn end(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let under = self.now().iter().filter(|(_, one)| one.3 == Some(lease));
        let changes: Vec<Change> = under.map(|(key, _)| Change::Delete(key.clone())).collect();
        let _ = self.commit(&[], &changes);
    }

    /// Compares every state from `oldest` on.
    fn compare(&self, store: &dyn Store, oldest: Revision) {
        for revision in oldest..=self.revision() {
            let state = store.snapshot_at(revision).unwrap();
            let expected = &self.states[usize::try_from(revision).unwrap()];
            assert_eq!(&read(state.as_ref()), expected, "at revision {revision}");
        }
        let newest = store.snapshot().unwrap();
        assert_eq!(newest.revision(), self.revision());
        let from = [KEYS / 2];
        let keys = Keys::all().starting_at(&from);
        let found = newest.range(&keys, Order::Descending, 3).unwrap();
        let expected = self.now().range(from.to_vec()..).rev().take(3);
        assert!(
            found
                .iter()
                .map(|entry| &entry.key)
                .eq(expected.map(|(key, _)| key))
        );
    }
}

fn read(snapshot: &dyn Snapshot) -> Map {
    let mut map = Map::new();
    each(snapshot, Keys::all(), |entry| {
        map.insert(
            entry.key,
            (entry.value, entry.created, entry.modified, entry.lease),
        );
        Ok::<_, StoreError>(())
    })
    .unwrap();
    map
}

fn some_commit(random: &mut StdRng, model: &Model) -> (Vec<Condition>, Vec<Change>) {
    let key = |random: &mut StdRng| vec![random.random_range(0..KEYS)];
    let lease = |random: &mut StdRng| {
        let leases = model.leases.len();
        (leases > 0 && random.random_bool(0.3)).then(|| {
            let place = random.random_range(0..leases);
            *model.leases.keys().nth(place).unwrap()
        })
    };
    let mut conditions = Vec::new();
    if random.random_bool(0.5) {
        let key = key(random);
        let known = model.now().get(&key);
        conditions.push(match known {
            Some(one) if random.random_bool(0.8) => Condition::Unchanged(key, one.2),
            Some((.., Some(lease))) => Condition::Under(key, *lease),
            Some(_) | None => Condition::Absent(key),
        });
    }
    let mut changes = BTreeMap::new();
    for _ in 0..random.random_range(0..4) {
        let key = key(random);
        let change = if random.random_bool(0.7) {
            Change::Put {
                key: key.clone(),
                value: vec![random.random(); random.random_range(0..3000)],
                lease: lease(random),
            }
        } else {
            Change::Delete(key.clone())
        };
        changes.insert(key, change);
    }
    // Not in order of keys.
    (conditions, changes.into_values().rev().collect())
}

/// Checks that a watch gives the changes since it was last asked.
fn compare_watch(watch: &mut dyn Watch, model: &Model, seen: &mut Revision) {
    while let Some(Batch { revision, events }) = watch.try_next().unwrap() {
        assert_eq!(revision, *seen + 1);
        *seen = revision;
        let place = usize::try_from(revision).unwrap();
        let keys: Vec<_> = events.iter().map(|event| event.key.clone()).collect();
        assert_eq!(keys, model.changed[place]);
        for event in events {
            let then = model.states[place].get(&event.key).map(|one| one.0.clone());
            assert_eq!(event.entry.map(|entry| entry.value), then);
        }
    }
    assert_eq!(*seen, model.revision());
}

/// `open` makes the store, and opens the one it is given again.
fn run<S: Store>(seed: u64, open: impl Fn(Option<S>) -> S) {
    println!("seed {seed}");
    let mut store = open(None);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut model, mut now) = (Model::new(), Instant::now());
    let (mut oldest, mut seen) = (0, 0);
    let mut watch = store.watch(Keys::all(), 0).unwrap();
    for _ in 0..STEPS {
        match random.random_range(0..12) {
            0 => {
                let ttl = Duration::from_secs(random.random_range(1..20));
                model
                    .leases
                    .insert(store.grant(ttl, now).unwrap(), (ttl, now + ttl));
            }
            1 => {
                now += Duration::from_secs(random.random_range(1..8));
                store.expire(now).unwrap();
                let leases = model.leases.iter();
                let over = leases.filter(|(_, (_, ends))| *ends <= now);
                let over: Vec<LeaseId> = over.map(|(lease, _)| *lease).collect();
                over.into_iter().for_each(|lease| model.end(lease));
            }
            2 => {
                for (lease, (ttl, ends)) in &mut model.leases {
                    if random.random_bool(0.5) {
                        store.keep_alive(*lease, now).unwrap();
                        *ends = now + *ttl;
                    }
                }
            }
            3 => {
                compare_watch(watch.as_mut(), &model, &mut seen);
                oldest = random.random_range(oldest..=model.revision());
                store.compact(oldest).unwrap();
            }
            4 => {
                compare_watch(watch.as_mut(), &model, &mut seen);
                // Leases begin anew in a store that was opened again: none exists then.
                for lease in std::mem::take(&mut model.leases).into_keys() {
                    store.revoke(lease).unwrap();
                    model.end(lease);
                }
                compare_watch(watch.as_mut(), &model, &mut seen);
                drop(watch);
                store = open(Some(store));
                watch = store.watch(Keys::all(), 0).unwrap();
            }
            _ => {
                let (conditions, changes) = some_commit(&mut random, &model);
                let done = store.commit(&conditions, &changes).unwrap();
                assert_eq!(done, model.commit(&conditions, &changes));
            }
        }
        model.compare(&store, oldest);
    }
    compare_watch(watch.as_mut(), &model, &mut seen);
}

#[test]
fn memory_is_what_a_naive_map_is_in_any_order() {
    for seed in 0..40 {
        run(seed, |store| store.unwrap_or_else(Memory::new));
    }
}

#[test]
fn a_file_is_what_a_naive_map_is_in_any_order_however_often_it_is_opened_again() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        run(seed, |store: Option<Redb>| {
            drop(store);
            Redb::open_or_create(&path, &THIS).unwrap()
        });
    }
}

#[test]
fn whatever_write_of_the_disk_fails_a_commit_is_there_whole_or_not_at_all() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::default();
        let mut store = disk.open(&mut random);
        let mut model = Model::new();
        for _ in 0..12 {
            let fails = random.random_bool(0.4);
            if fails && random.random_bool(0.5) {
                disk.fail_after(random.random_range(0..25));
            } else if fails {
                disk.fail_at_sync();
            }
            let (conditions, changes) = some_commit(&mut random, &model);
            let done = store.commit(&conditions, &changes);
            let mut after = model.clone();
            let expected = after.commit(&conditions, &changes);
            match done {
                Ok(done) => {
                    assert_eq!(done, expected);
                    model = after;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Full(_)), "{error}");
                    let again = store.commit(&[], &[Change::put(*b"a", *b"")]);
                    assert!(matches!(again, Err(StoreError::Paused(_))));
                    drop(store);
                    store = disk.open(&mut random);
                    // The caller cannot know which; no state in between is possible.
                    if after.revision() == model.revision() {
                        continue;
                    }
                    if store.snapshot().unwrap().revision() == after.revision() {
                        kept += 1;
                        model = after;
                    } else {
                        lost += 1;
                    }
                }
            }
            if !fails && random.random_bool(0.3) {
                disk.fail_after(0);
                drop(store);
                store = disk.open(&mut random);
            }
            disk.fail_after(u32::MAX);
            model.compare(&store, 0);
        }
    }
    println!("{lost} were lost, {kept} were kept");
    assert!(lost > 0 && kept > 0);
}

/// A disk that fails from a write on. When it is opened again, some of the bytes written since the last sync
/// are there and some are not, as after a power failure.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    synced: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    writes_left: u32,
    sync_fails: bool,
    /// Which opening may use it.
    opening: u32,
}

impl Default for Platter {
    fn default() -> Self {
        Self {
            synced: Vec::new(),
            seen: Vec::new(),
            unsynced: Vec::new(),
            writes_left: u32::MAX,
            sync_fails: false,
            opening: 0,
        }
    }
}

impl Disk {
    fn fail_after(&self, writes: u32) {
        self.0.lock().unwrap().writes_left = writes;
    }

    fn fail_at_sync(&self) {
        self.0.lock().unwrap().sync_fails = true;
    }

    fn open(&self, random: &mut StdRng) -> Redb {
        {
            let mut platter = self.0.lock().unwrap();
            platter.opening += 1;
            platter.writes_left = u32::MAX;
            platter.sync_fails = false;
            let arrived = [0.0, 0.5, 1.0][random.random_range(0..3)];
            for (offset, bytes) in std::mem::take(&mut platter.unsynced) {
                if random.random_bool(arrived) {
                    platter.synced[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
            platter.seen = platter.synced.clone();
        }
        let disk = self.clone();
        let open = move || -> Result<Database, DatabaseError> {
            let opening = disk.0.lock().unwrap().opening;
            let handle = Handle(disk.clone(), opening);
            let mut builder = Builder::new();
            builder.set_check_integrity_on_open(true);
            builder.create_with_backend(handle)
        };
        Redb::from_opening("disk".as_ref(), &THIS, true, open).unwrap()
    }
}

#[derive(Debug)]
struct Handle(Disk, u32);

impl Handle {
    fn on<R>(&self, is_write: bool, work: impl FnOnce(&mut Platter) -> Option<R>) -> io::Result<R> {
        let mut platter = self.0.0.lock().unwrap();
        if platter.opening != self.1 {
            return Err(io::Error::other("it was unplugged"));
        }
        if is_write {
            if platter.writes_left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            platter.writes_left -= 1;
        }
        work(&mut platter).ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.on(false, |platter| Some(platter.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.on(false, |platter| {
            let offset = usize::try_from(offset).ok()?;
            out.copy_from_slice(platter.seen.get(offset..offset + out.len())?);
            Some(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.on(true, |platter| {
            let length = usize::try_from(length).ok()?;
            platter.seen.resize(length, 0);
            platter.synced.resize(length, 0);
            platter
                .unsynced
                .retain(|(offset, bytes)| offset + bytes.len() <= length);
            Some(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.on(true, |platter| {
            if platter.sync_fails {
                platter.writes_left = 0;
                return None;
            }
            platter.synced.clone_from(&platter.seen);
            platter.unsynced.clear();
            Some(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.on(true, |platter| {
            let offset = usize::try_from(offset).ok()?;
            platter
                .seen
                .get_mut(offset..offset + bytes.len())?
                .copy_from_slice(bytes);
            platter.unsynced.push((offset, bytes.to_vec()));
            Some(())
        })
    }
}
