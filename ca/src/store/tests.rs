//! The store of the CA over a file: its contents after it is opened again, and after a failed change.

//! The typed values of a CA in a store: on disk, in memory, and as an earlier version left them.

use std::time::UNIX_EPOCH;

use redb::TableDefinition;

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
    let write = |t: &mut Transaction<'_>| {
        t.inner.put(keys::log(2), forged.clone());
        Ok(())
    };
    store.write(write).unwrap();
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
            t.inner.delete(keys::log(2));
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
            t.put_key(key, &token().identity, ends);
            Ok(())
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
    store.copy_to(&path).unwrap();
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

/// A store as the versions of schema 1 wrote it.
fn write_schema_1(path: &Path) {
    let database = redb::Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    let entries = ["a", "b"].map(record);
    let mut head = String::new();
    let mut log = write
        .open_table(TableDefinition::<u64, &[u8]>::new("log"))
        .unwrap();
    for (number, entry) in (1..).zip(entries) {
        let stored = encode(&entry.chained(number, head));
        log.insert(number, stored.as_slice()).unwrap();
        head = log::hash(&stored);
    }
    drop(log);
    let meta = TableDefinition::<&str, &[u8]>::new("meta");
    let mut meta = write.open_table(meta).unwrap();
    for (name, value) in [
        ("schema", encode(&1)),
        ("about", encode(&about())),
        ("log_head", encode(&head)),
    ] {
        meta.insert(name, value.as_slice()).unwrap();
    }
    drop(meta);
    let owner = encode(&KeyOwner {
        identity: token().identity,
        until: token().expires,
    });
    for (name, value) in [("tokens", encode(&token())), ("keys", owner)] {
        let table = TableDefinition::<&[u8; 32], &[u8]>::new(name);
        let mut table = write.open_table(table).unwrap();
        table.insert(&[1; 32], value.as_slice()).unwrap();
    }
    write.commit().unwrap();
}

#[test]
fn a_store_of_schema_1_loses_no_token_no_key_and_no_entry_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(STORE_FILE);
    write_schema_1(&path);
    for round in 0..2 {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.about().unwrap(), about());
        let seen = store.read(|view| {
            assert_eq!(view.token(TokenHash([1; 32]))?, Some(token()));
            assert_eq!(view.log_tail(9)?.len() as u64, 2 + round);
            view.first_broken_log_entry()
        });
        assert_eq!(seen.unwrap(), None);
        let owner = store.write(|t| t.key_owner(KeyHash([1; 32]))).unwrap();
        assert_eq!(owner, Some(token().identity));
        // The chain goes on from where it was.
        store.write(|t| t.append(record("c"))).unwrap();
        let newest = store.read(|view| view.log_tail(1)).unwrap();
        assert_eq!(newest[0].number, 3 + round);
        assert_eq!(
            store.read(|view| view.first_broken_log_entry()).unwrap(),
            None
        );
    }
}

#[test]
fn several_entries_of_one_change_are_a_chain_and_tokens_of_one_change_are_counted_once() {
    let store = Store::in_memory(&about()).unwrap();
    store
        .write(|t| {
            for number in 0..3 {
                t.append(record("x"))?;
                t.put_token(TokenHash([number; 32]), &token())?;
            }
            assert_eq!(t.tokens, Some(3));
            Ok(())
        })
        .unwrap();
    let counts = store.read(|view| view.counts()).unwrap();
    assert_eq!((counts.log, counts.tokens), (3, 3));
    assert_eq!(
        store.read(|view| view.first_broken_log_entry()).unwrap(),
        None
    );
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
