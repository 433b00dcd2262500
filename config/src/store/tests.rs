//! Tests of `config/src/store.rs`.

use super::*;
use crate::resources::{SourceFile, parse};

fn set(names: &[&str]) -> Set {
    let mut set = Set::default();
    for name in names {
        let text = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{ports: [{{port: 80, protocol: http}}]}}\n"
        );
        let parsed = parse(&[SourceFile {
            name: "t".into(),
            text,
        }]);
        parsed
            .resources
            .into_iter()
            .for_each(|resource| set.insert(resource));
    }
    set
}

#[test]
fn revisions_survive_reopening_and_can_all_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.redb");
    let store = Store::open(&path).unwrap();
    let first = store.write(&set(&["a"]), "anna", "t1", "one").unwrap();
    store.write(&set(&["b", "c"]), "ben", "t2", "two").unwrap();
    assert!(Store::open(&path).unwrap_err().is_in_use());
    drop(store);
    let store = Store::open(&path).unwrap();
    let (revision, current) = store.current().unwrap();
    assert_eq!(
        (revision.number, revision.store.as_str()),
        (2, first.store.as_str())
    );
    assert_eq!(current, set(&["b", "c"]));
    assert_eq!(store.set_at(1).unwrap(), set(&["a"]));
    assert_eq!(store.set_at(0).unwrap(), Set::default());
    assert!(matches!(store.set_at(3), Err(StoreError::NoRevision(3))));
    let infos = store.revisions().unwrap();
    assert_eq!((infos[0].author.as_str(), infos[0].changes), ("ben", 3));
}

#[test]
fn a_restored_store_has_the_history_and_another_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("config.redb")).unwrap();
    let revision = store.write(&set(&["a"]), "anna", "t1", "one").unwrap();
    let backup = store.backup().unwrap();
    let path = dir.path().join("restored.redb");
    let restored = Store::restore(&path, &backup).unwrap();
    assert_eq!(restored.number, 1);
    assert_ne!(restored.store, revision.store);
    assert_eq!(
        Store::open(&path).unwrap().current().unwrap(),
        (restored, set(&["a"]))
    );
    assert!(matches!(
        Store::restore(&path, &backup),
        Err(StoreError::Store(weft_store::StoreError::Exists(_)))
    ));
    let mut flipped = backup;
    flipped[40] ^= 1;
    let error = Store::restore(&dir.path().join("other.redb"), &flipped);
    assert!(matches!(error, Err(StoreError::Backup(_))));
    assert!(!dir.path().join("other.redb").exists());
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.redb");
    std::fs::write(&path, b"not a database, but long enough to look at").unwrap();
    assert!(Store::open(&path).is_err());
    assert!(std::fs::read(&path).unwrap().starts_with(b"not a database"));
}

#[test]
fn a_store_of_schema_1_keeps_its_id_its_resources_and_every_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.redb");
    // The values are those of the present layout; the tables are those of schema 1.
    let store = Store::in_memory().unwrap();
    store.write(&set(&["a"]), "anna", "t1", "one").unwrap();
    store.write(&set(&["b", "c"]), "ben", "t2", "two").unwrap();
    let (now, before) = (store.current().unwrap(), store.revisions().unwrap());
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let current = redb::TableDefinition::<&str, &[u8]>::new("current");
    let revisions = redb::TableDefinition::<u64, &[u8]>::new("revisions");
    {
        let mut meta = write.open_table(meta).unwrap();
        meta.insert("schema", b"1".as_slice()).unwrap();
        meta.insert("store", store.store.as_bytes()).unwrap();
        let mut current = write.open_table(current).unwrap();
        let mut revisions = write.open_table(revisions).unwrap();
        let state = store.inner.snapshot().unwrap();
        each(state.as_ref(), Keys::all(), |entry| {
            if let Some(name) = entry.key.strip_prefix(CURRENT) {
                let name = str::from_utf8(name).unwrap();
                current.insert(name, entry.value.as_slice()).unwrap();
            } else if let Some(number) = keys::revision_number(&entry.key) {
                revisions.insert(number, entry.value.as_slice()).unwrap();
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    }
    write.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.current().unwrap(), now);
        assert_eq!(store.revisions().unwrap(), before);
        assert_eq!(store.set_at(1).unwrap(), set(&["a"]));
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.write(&set(&[]), "anna", "t3", "").unwrap().number, 3);
}

#[test]
fn a_store_in_memory_has_the_same_revisions() {
    let store = Store::in_memory().unwrap();
    store.write(&set(&["a"]), "anna", "t1", "one").unwrap();
    store.write(&set(&["b"]), "ben", "t2", "two").unwrap();
    assert_eq!(store.current().unwrap().1, set(&["b"]));
    assert_eq!(store.set_at(1).unwrap(), set(&["a"]));
    assert_eq!(store.revisions().unwrap().len(), 2);
}

#[test]
fn a_revision_that_was_said_to_have_failed_and_is_there_is_not_written_over() {
    let memory: Arc<dyn weft_store::Store> = Arc::new(weft_store::Memory::new());
    let store = Store::over(Arc::clone(&memory), Path::new("memory")).unwrap();
    let other = Store::over(memory, Path::new("memory")).unwrap();
    other.write(&set(&["theirs"]), "anna", "t1", "").unwrap();
    let refused = store.write(&set(&["mine"]), "ben", "t2", "");
    assert!(matches!(refused, Err(StoreError::Unexpected(1))));
    assert_eq!(store.current().unwrap().1, set(&["theirs"]));
}

#[test]
fn a_flipped_bit_in_the_store_is_found_when_it_is_opened() {
    let memory: Arc<dyn weft_store::Store> = Arc::new(weft_store::Memory::new());
    let open = || Store::over(Arc::clone(&memory), Path::new("memory"));
    let store = open().unwrap();
    store.write(&set(&["a"]), "anna", "t1", "").unwrap();
    let mut entry = memory
        .snapshot()
        .unwrap()
        .get(&keys::revision(1))
        .unwrap()
        .unwrap();
    *entry.value.last_mut().unwrap() ^= 1;
    let _ = memory
        .commit(&[], &[Change::put(entry.key, entry.value)])
        .unwrap();
    let error = open().unwrap_err();
    assert!(
        error.is_bad_data() && error.to_string().contains("weft config restore"),
        "{error}"
    );
}

#[test]
fn the_secrets_of_sessions_are_made_once_and_survive_reopening_and_restoring() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.redb");
    let store = Store::open(&path).unwrap();
    let made = store.session_secrets();
    assert!(!made.is_empty());
    let backup = store.backup().unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.session_secrets(), made);
    let restored = dir.path().join("restored.redb");
    Store::restore(&restored, &backup).unwrap();
    let restored = Store::open(&restored).unwrap();
    assert_eq!(restored.session_secrets(), made);
    // Another mesh has others, and a backup from before there were any gets new ones.
    let other = Store::in_memory().unwrap();
    assert_ne!(other.session_secrets(), made);
    let without = keys::seal(&serde_json::json!({ "schema": 1, "current": [], "revisions": [] }));
    let old = dir.path().join("old.redb");
    Store::restore(&old, &without.unwrap()).unwrap();
    let old = Store::open(&old).unwrap();
    assert!(!old.session_secrets().is_empty() && old.session_secrets() != made);
    assert!(!format!("{store:?}").contains(&text_of(&backup)));
}

/// The first characters of bytes, of which any may begin with what is no text.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(64).collect()
}

#[test]
fn a_rotation_of_the_secrets_lasts_and_what_was_made_before_sessions_had_a_next_secret_goes_on() {
    let memory: Arc<dyn weft_store::Store> = Arc::new(weft_store::Memory::new());
    let open = || Store::over(Arc::clone(&memory), Path::new("memory")).unwrap();
    let alone = crate::compile::SessionSecrets::new(vec![fresh_secret()]);
    let old = keys::put(SESSION_SECRETS.to_vec(), &alone).unwrap();
    let _ = memory.commit(&[], &[old]).unwrap();
    let store = open();
    let before = store.session_secrets();
    assert_eq!(
        before.clone().completed([fresh_secret(), fresh_secret()]),
        before
    );
    let text = |secrets: &SessionSecrets| serde_json::to_value(secrets).unwrap();
    assert_eq!(text(&before)[0], text(&alone)[0]);
    let rotated = store.rotate_session_secrets(false).unwrap();
    assert_eq!(text(&rotated)[0], text(&before)[1]);
    assert_eq!(text(&rotated)[2], text(&before)[0]);
    assert_eq!(store.session_secrets(), rotated);
    assert_eq!(open().session_secrets(), rotated);
    // A backup has them; all new ones share none with these.
    assert!(
        String::from_utf8_lossy(&store.backup().unwrap())
            .contains(text(&rotated)[2].as_str().unwrap())
    );
    let new = store.rotate_session_secrets(true).unwrap();
    let known = text(&rotated);
    let known = known.as_array().unwrap();
    assert!(
        text(&new)
            .as_array()
            .unwrap()
            .iter()
            .all(|one| !known.contains(one))
    );
}
