//! The contract of every store, as a list of cases that are run on each of them. A new store is one more test
//! at the end of this file.

use std::time::{Duration, Instant};

use crate::limits::{KEY_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, PAGE_ENTRIES};
use crate::{
    Change, Commit, Condition, HISTORY_REVISIONS, Keys, LeaseId, Memory, Order, Redb, Snapshot,
    Store, StoreError, each, next, transact,
};

type Case = (&'static str, fn(&dyn Store));

const CASES: &[Case] = &[
    ("an_empty_store_is_at_revision_0", |store| {
        let snapshot = store.snapshot().unwrap();
        assert_eq!(
            (snapshot.revision(), snapshot.count(&Keys::all()).unwrap()),
            (0, 0)
        );
        assert_eq!(snapshot.get(b"a").unwrap(), None);
    }),
    ("an_entry_says_when_it_was_made_and_changed", |store| {
        put(store, "a", "1");
        put(store, "b", "1");
        put(store, "a", "2");
        let entry = store.snapshot().unwrap().get(b"a").unwrap().unwrap();
        assert_eq!(
            (entry.created, entry.modified, entry.value),
            (1, 3, b"2".to_vec())
        );
        delete(store, "a");
        put(store, "a", "3");
        let entry = store.snapshot().unwrap().get(b"a").unwrap().unwrap();
        assert_eq!((entry.created, entry.modified), (5, 5));
    }),
    (
        "a_commit_is_one_revision_whatever_it_changes_and_none_if_it_changes_nothing",
        |store| {
            let both = [Change::put(*b"a", *b"1"), Change::put(*b"b", *b"1")];
            assert_eq!(store.commit(&[], &both).unwrap(), Commit::Done(1));
            let gone = [Change::Delete(b"z".to_vec())];
            assert_eq!(store.commit(&[], &gone).unwrap(), Commit::Done(1));
            assert_eq!(store.commit(&[], &[]).unwrap(), Commit::Done(1));
            let swap = [Change::Delete(b"a".to_vec()), Change::put(*b"c", *b"1")];
            assert_eq!(store.commit(&[], &swap).unwrap(), Commit::Done(2));
            assert_eq!(dump(store), "b=1 c=1");
        },
    ),
    (
        "a_commit_whose_condition_does_not_hold_changes_nothing",
        |store| {
            put(store, "a", "1");
            let change = [Change::put(*b"a", *b"2"), Change::put(*b"b", *b"2")];
            let refused = [
                Condition::Absent(b"a".to_vec()),
                Condition::Unchanged(b"a".to_vec(), 2),
                Condition::Unchanged(b"b".to_vec(), 1),
                Condition::Under(b"a".to_vec(), LeaseId(1)),
            ];
            for condition in refused {
                // A condition that holds does not make up for one that does not.
                let conditions = [Condition::Absent(b"z".to_vec()), condition];
                assert_eq!(
                    store.commit(&conditions, &change).unwrap(),
                    Commit::Conflict
                );
            }
            assert_eq!(dump(store), "a=1");
            let held = [
                Condition::Unchanged(b"a".to_vec(), 1),
                Condition::Absent(b"b".to_vec()),
            ];
            assert_eq!(store.commit(&held, &change).unwrap(), Commit::Done(2));
            assert_eq!(store.commit(&held, &change).unwrap(), Commit::Conflict);
        },
    ),
    (
        "of_two_that_swap_from_the_same_revision_one_succeeds",
        |store| {
            put(store, "a", "1");
            let swap = |value: &[u8]| {
                let condition = Condition::Unchanged(b"a".to_vec(), 1);
                store
                    .commit(&[condition], &[Change::put(*b"a", value)])
                    .unwrap()
            };
            assert_eq!(swap(b"mine"), Commit::Done(2));
            assert_eq!(swap(b"theirs"), Commit::Conflict);
            assert_eq!(dump(store), "a=mine");
        },
    ),
    (
        "ranges_are_ordered_by_key_bounded_and_end_with_their_prefix",
        |store| {
            for key in ["b/1", "b/2", "b/20", "b/3", "a", "b", "c", "b0"] {
                put(store, key, "");
            }
            put(store, "b/2", "new");
            let snapshot = store.snapshot().unwrap();
            let keys = |keys: &Keys, order, limit| {
                let found = snapshot.range(keys, order, limit).unwrap().into_iter();
                let names = found.map(|entry| String::from_utf8(entry.key).unwrap());
                names.collect::<Vec<_>>().join(" ")
            };
            let prefix = Keys::prefix(b"b/");
            assert_eq!(keys(&prefix, Order::Ascending, 9), "b/1 b/2 b/20 b/3");
            assert_eq!(keys(&prefix, Order::Descending, 9), "b/3 b/20 b/2 b/1");
            assert_eq!(keys(&prefix, Order::Ascending, 2), "b/1 b/2");
            assert_eq!(keys(&prefix, Order::Descending, 1), "b/3");
            assert_eq!(keys(&prefix, Order::Ascending, 0), "");
            let rest = prefix.clone().starting_at(b"b/2");
            assert_eq!(keys(&rest, Order::Ascending, 9), "b/2 b/20 b/3");
            assert_eq!(
                keys(&Keys::prefix(b"b/").starting_at(b"c"), Order::Ascending, 9),
                ""
            );
            assert_eq!(snapshot.count(&prefix).unwrap(), 4);
            assert_eq!(snapshot.count(&Keys::all()).unwrap(), 8);
        },
    ),
    (
        "a_range_of_several_pages_is_visited_whole_and_in_order",
        |store| {
            let count = u32::try_from(3 * PAGE_ENTRIES + 1).unwrap();
            let changes: Vec<Change> = (0..count)
                .map(|n| Change::put(n.to_be_bytes(), *b"x"))
                .collect();
            // As many at once as etcd takes.
            for some in changes.chunks(128) {
                let _ = store.commit(&[], some).unwrap();
            }
            let mut seen = 0_u32;
            each(store.snapshot().unwrap().as_ref(), Keys::all(), |entry| {
                assert_eq!(entry.key, seen.to_be_bytes());
                seen += 1;
                Ok::<_, StoreError>(())
            })
            .unwrap();
            assert_eq!(seen, count);
        },
    ),
    ("a_snapshot_stays_as_it_was", |store| {
        put(store, "a", "1");
        put(store, "b", "1");
        let before = store.snapshot().unwrap();
        put(store, "a", "2");
        delete(store, "b");
        put(store, "c", "1");
        store.compact(5).unwrap();
        assert_eq!(before.get(b"a").unwrap().unwrap().value, b"1");
        assert_eq!(before.count(&Keys::all()).unwrap(), 2);
        assert_eq!(dump_of(before.as_ref()), "a=1 b=1");
        assert_eq!(dump(store), "a=2 c=1");
    }),
    (
        "earlier_states_can_be_read_until_they_are_compacted",
        |store| {
            put(store, "a", "1");
            put(store, "a", "2");
            delete(store, "a");
            put(store, "a", "4");
            let at = |revision| {
                store
                    .snapshot_at(revision)
                    .map(|state| dump_of(state.as_ref()))
            };
            for (revision, expected) in [(0, ""), (1, "a=1"), (2, "a=2"), (3, ""), (4, "a=4")] {
                assert_eq!(at(revision).unwrap(), expected);
            }
            assert!(matches!(at(5), Err(StoreError::NotYet(4))));
            store.compact(2).unwrap();
            assert!(matches!(at(1), Err(StoreError::Compacted(2))));
            assert_eq!(
                (at(2).unwrap(), at(3).unwrap()),
                ("a=2".into(), String::new())
            );
            store.compact(1).unwrap();
            assert_eq!(
                at(2).unwrap(),
                "a=2",
                "an earlier compaction changes nothing"
            );
            store.compact(4).unwrap();
            assert_eq!(at(4).unwrap(), "a=4");
            assert!(matches!(store.compact(5), Err(StoreError::NotYet(4))));
        },
    ),
    (
        "a_watch_gives_each_revision_whole_in_order_and_once",
        |store| {
            put(store, "a/1", "old");
            let mut watch = store.watch(Keys::prefix(b"a/"), 0).unwrap();
            assert_eq!(watch.try_next().unwrap(), None);
            put(store, "b", "other");
            let swap = [
                Change::put(*b"a/2", *b"new"),
                Change::Delete(b"a/1".to_vec()),
            ];
            let _ = store.commit(&[], &swap).unwrap();
            put(store, "a/3", "last");
            let batch = watch.try_next().unwrap().unwrap();
            let events: Vec<_> = batch
                .events
                .iter()
                .map(|event| {
                    (
                        event.key.as_slice(),
                        event.entry.as_ref().map(|e| e.value.as_slice()),
                    )
                })
                .collect();
            assert_eq!(batch.revision, 3);
            assert_eq!(events, [(&b"a/1"[..], None), (b"a/2", Some(&b"new"[..]))]);
            assert_eq!(watch.try_next().unwrap().unwrap().revision, 4);
            assert_eq!(watch.try_next().unwrap(), None);
        },
    ),
    (
        "a_watch_from_a_revision_begins_with_it_even_if_it_is_to_come",
        |store| {
            for value in ["1", "2", "3"] {
                put(store, "a", value);
            }
            let mut watch = store.watch(Keys::all(), 2).unwrap();
            let batch = watch.try_next().unwrap().unwrap();
            assert_eq!(batch.revision, 2);
            // The state at that time, not the present one.
            assert_eq!(batch.events[0].entry.as_ref().unwrap().value, b"2");
            let mut later = store.watch(Keys::all(), 5).unwrap();
            put(store, "a", "4");
            assert_eq!(later.try_next().unwrap(), None);
            put(store, "a", "5");
            assert_eq!(later.try_next().unwrap().unwrap().revision, 5);
        },
    ),
    (
        "a_watcher_that_is_behind_a_compaction_reads_anew",
        |store| {
            for value in ["1", "2", "3", "4"] {
                put(store, "a", value);
            }
            let mut watch = store.watch(Keys::all(), 2).unwrap();
            store.compact(3).unwrap();
            assert!(matches!(watch.try_next(), Err(StoreError::Compacted(3))));
            assert!(matches!(
                store.watch(Keys::all(), 3),
                Err(StoreError::Compacted(3))
            ));
            let snapshot = store.snapshot().unwrap();
            let mut again = store.watch(Keys::all(), snapshot.revision() + 1).unwrap();
            put(store, "a", "5");
            assert_eq!(again.try_next().unwrap().unwrap().revision, 5);
        },
    ),
    (
        "a_watcher_that_sleeps_too_long_is_told_to_read_anew_and_the_history_is_bounded",
        |store| {
            let mut watch = store.watch(Keys::all(), 0).unwrap();
            let rounds = HISTORY_REVISIONS + 10;
            (0..rounds).for_each(|round| put(store, "a", &round.to_string()));
            let oldest = rounds - HISTORY_REVISIONS;
            assert!(matches!(watch.try_next(), Err(StoreError::Compacted(n)) if n == oldest));
            assert!(matches!(
                store.snapshot_at(oldest - 1),
                Err(StoreError::Compacted(_))
            ));
            assert!(store.snapshot_at(oldest).is_ok());
        },
    ),
    ("a_watcher_that_waits_is_woken", |store| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut watch = store.watch(Keys::all(), 0).unwrap();
            let put_later = async { put(store, "a", "1") };
            let (batch, ()) = tokio::join!(next(watch.as_mut()), put_later);
            assert_eq!(batch.unwrap().revision, 1);
        });
    }),
    ("what_hangs_on_a_lease_goes_with_it", |store| {
        let (now, ttl) = (Instant::now(), Duration::from_secs(10));
        let lease = store.grant(ttl, now).unwrap();
        put_under(store, lease, "a");
        put_under(store, lease, "b");
        put(store, "c", "");
        let mut watch = store.watch(Keys::all(), 0).unwrap();
        store.keep_alive(lease, now + ttl / 2).unwrap();
        store.expire(now + ttl).unwrap();
        assert_eq!(dump(store), "a= b= c=");
        store.expire(now + ttl + ttl / 2).unwrap();
        assert_eq!(dump(store), "c=");
        let batch = watch.try_next().unwrap().unwrap();
        assert_eq!(batch.events.len(), 2, "both go in one revision");
        assert!(matches!(
            store.keep_alive(lease, now),
            Err(StoreError::NoLease(_))
        ));
        assert!(matches!(store.revoke(lease), Err(StoreError::NoLease(_))));
        let change = under(lease, "d");
        assert!(matches!(
            store.commit(&[], &[change]),
            Err(StoreError::NoLease(_))
        ));
        assert_eq!(dump(store), "c=");
    }),
    (
        "a_lease_whose_time_is_over_is_not_kept_alive_even_before_its_keys_go",
        |store| {
            let (now, ttl) = (Instant::now(), Duration::from_secs(10));
            let lease = store.grant(ttl, now).unwrap();
            assert!(matches!(
                store.keep_alive(lease, now + ttl),
                Err(StoreError::NoLease(_))
            ));
        },
    ),
    (
        "a_key_that_moved_to_another_lease_outlives_the_old_one",
        |store| {
            let (now, ttl) = (Instant::now(), Duration::from_secs(10));
            let [old, new] = [0, 1].map(|_| store.grant(ttl, now).unwrap());
            for key in ["moved", "freed"] {
                put_under(store, old, key);
            }
            put_under(store, new, "moved");
            put(store, "freed", "");
            let delete = [Change::Delete(b"moved".to_vec())];
            let still_mine = Condition::Under(b"moved".to_vec(), old);
            assert_eq!(
                store.commit(&[still_mine], &delete).unwrap(),
                Commit::Conflict
            );
            store.revoke(old).unwrap();
            assert_eq!(dump(store), "freed= moved=");
            let mine = Condition::Under(b"moved".to_vec(), new);
            assert!(matches!(
                store.commit(&[mine], &delete).unwrap(),
                Commit::Done(_)
            ));
        },
    ),
    (
        "what_no_store_takes_is_refused_and_changes_nothing",
        |store| {
            let long = vec![b'a'; KEY_BYTES_MAX + 1];
            let twice = [Change::put(*b"a", *b"1"), Change::Delete(b"a".to_vec())];
            for changes in [
                &[Change::put(long, *b"")][..],
                &[Change::put(*b"", *b"")],
                &twice,
            ] {
                assert!(matches!(
                    store.commit(&[], changes),
                    Err(StoreError::Invalid(_))
                ));
            }
            let now = Instant::now();
            for ttl in [LEASE_TTL_MIN / 2, LEASE_TTL_MAX * 2] {
                assert!(matches!(store.grant(ttl, now), Err(StoreError::Invalid(_))));
            }
            assert_eq!(store.snapshot().unwrap().revision(), 0);
        },
    ),
    (
        "a_transaction_that_met_another_runs_again_from_the_newest_state",
        |store| {
            put(store, "count", "5");
            let mut runs = 0;
            let result = transact(store, |transaction| {
                runs += 1;
                let count = transaction.get(b"count")?.unwrap_or_default();
                if runs == 1 {
                    put(store, "count", "7");
                }
                let next: u32 = String::from_utf8(count).unwrap().parse::<u32>().unwrap() + 1;
                transaction.put(*b"count", next.to_string());
                assert_eq!(
                    transaction.get(b"count")?,
                    Some(next.to_string().into_bytes())
                );
                Ok::<_, StoreError>(next)
            });
            assert_eq!((result.unwrap(), runs), (8, 2));
            assert_eq!(dump(store), "count=8");
        },
    ),
    (
        "a_transaction_that_read_that_a_key_is_absent_meets_one_that_made_it",
        |store| {
            let mut runs = 0;
            let made = transact(store, |transaction| {
                runs += 1;
                if transaction.get(b"a")?.is_some() {
                    return Ok::<_, StoreError>(false);
                }
                if runs == 1 {
                    put(store, "a", "theirs");
                }
                transaction.put(*b"a", *b"mine");
                Ok(true)
            });
            assert!(!made.unwrap());
            assert_eq!(dump(store), "a=theirs");
        },
    ),
    ("a_transaction_that_fails_leaves_nothing_behind", |store| {
        let failed = transact(store, |transaction| {
            transaction.put(*b"a", *b"1");
            Err::<(), _>(StoreError::Contended)
        });
        assert!(failed.is_err());
        assert_eq!(store.snapshot().unwrap().revision(), 0);
    }),
    ("a_transaction_that_always_meets_others_gives_up", |store| {
        let mut round = 0;
        let failed = transact(store, |transaction| {
            round += 1;
            transaction.get(b"a")?;
            put(store, "a", &round.to_string());
            transaction.put(*b"a", *b"mine");
            Ok::<_, StoreError>(())
        });
        assert!(matches!(failed, Err(StoreError::Contended)));
    }),
    (
        "a_copy_has_what_the_state_had_and_none_of_what_hangs_on_leases",
        |store| {
            let lease = store.grant(LEASE_TTL_MIN, Instant::now()).unwrap();
            put_under(store, lease, "registration");
            put(store, "a", "1");
            let state = store.snapshot().unwrap();
            put(store, "a", "2");
            let target = Memory::new();
            crate::copy(state.as_ref(), &target).unwrap();
            assert_eq!(dump(&target), "a=1");
        },
    ),
];

#[test]
fn memory_keeps_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        case(&Memory::new());
    }
}

#[test]
fn redb_keeps_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        case(&Redb::create(&path, &crate::tests::model::THIS).unwrap());
    }
}

fn put(store: &dyn Store, key: &str, value: &str) {
    let change = Change::put(key.as_bytes(), value.as_bytes());
    assert!(matches!(store.commit(&[], &[change]), Ok(Commit::Done(_))));
}

fn under(lease: LeaseId, key: &str) -> Change {
    Change::Put {
        key: key.into(),
        value: Vec::new(),
        lease: Some(lease),
    }
}

fn put_under(store: &dyn Store, lease: LeaseId, key: &str) {
    let put = store.commit(&[], &[under(lease, key)]);
    assert!(matches!(put, Ok(Commit::Done(_))));
}

fn delete(store: &dyn Store, key: &str) {
    let change = Change::Delete(key.as_bytes().to_vec());
    assert!(matches!(store.commit(&[], &[change]), Ok(Commit::Done(_))));
}

fn dump(store: &dyn Store) -> String {
    dump_of(store.snapshot().unwrap().as_ref())
}

fn dump_of(snapshot: &dyn Snapshot) -> String {
    let mut found = Vec::new();
    each(snapshot, Keys::all(), |entry| {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        found.push(format!("{}={}", text(entry.key), text(entry.value)));
        Ok::<_, StoreError>(())
    })
    .unwrap();
    found.join(" ")
}
