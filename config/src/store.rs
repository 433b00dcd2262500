//! The store: every revision of the resources, in `config.redb`. Registrations are not here: they are
//! leases in memory, and workloads bring them again after a restart.
//!
//! A revision keeps, for each resource that it changed, the text before and after. So any earlier state
//! is reached by walking back from the current one, and the store grows with changes, not with the mesh.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use weft_ca::reopened::Reopened;

use crate::diff;
use crate::resources::{Resource, Set};
use crate::table::Revision;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Key text to resource, as sealed JSON.
const CURRENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("current");
/// Revision number to [`Record`], as sealed JSON.
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");

/// Changes with the layout of the tables above.
const SCHEMA: &[u8] = b"1";

/// The revisions of one mesh. One process owns it; redb locks the file.
#[derive(Debug)]
pub struct Store {
    file: Reopened,
    store: String,
    /// The number of the last revision that was written whole. After a failed write the file may hold one more.
    number: AtomicU64,
}

/// What is known of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionInfo {
    /// Its number.
    pub number: u64,
    /// The operator who made it.
    pub author: String,
    /// When, in RFC 3339.
    pub time: String,
    /// Why, in the operator's words.
    pub message: String,
    /// How many resources it changed.
    pub changes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    info: RevisionInfo,
    edits: Vec<Edit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    before: Option<Resource>,
    after: Option<Resource>,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "{path} is open in another process, whose admin.sock does not answer: end it (`fuser {path}` names it)",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The disk or file failed.
    #[error("the store cannot be used: {0}")]
    Database(String),
    /// Something in it is not what was written.
    #[error("the store is damaged: {0}; restore a backup into an empty directory")]
    Damaged(String),
    /// It was written by a later weft.
    #[error("the store has schema {0}, which this version of weft does not know")]
    Schema(String),
    /// A write failed a moment ago.
    #[error("the store's disk failed a moment ago: it is tried again after a few seconds")]
    Failed,
    /// A write that was said to have failed is there.
    #[error(
        "revision {0}, which was said to have failed, is in the store: restart the config service, which puts it in force"
    )]
    Unexpected(u64),
    /// There is no such revision.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// Restoring would overwrite a store.
    #[error("{0} exists already; a backup is restored into an empty directory")]
    Exists(String),
    /// The backup is not one, or is damaged.
    #[error("not a backup of a config service: {0}")]
    Backup(String),
}

impl Store {
    /// Opens the store in a file, or creates it.
    ///
    /// # Errors
    /// When it is in use, damaged, or of a later version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let of_file = path.to_owned();
        let file = Reopened::new(move || Database::create(&of_file)).map_err(|error| {
            if matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) {
                return StoreError::InUse(path.to_owned());
            }
            StoreError::Database(format!("{}: {error}", path.display()))
        })?;
        restrict(path).map_err(|error| StoreError::Database(error.to_string()))?;
        let store = prepare(&*file.get(Instant::now()).map_err(database)?, None)?;
        let opened = Self {
            file,
            store,
            number: AtomicU64::new(0),
        };
        // Everything is read once, so that damage is found before anything is served.
        let (revision, _) = opened.current()?;
        opened.number.store(revision.number, Ordering::Release);
        opened.revisions()?;
        Ok(opened)
    }

    /// The current revision and its resources.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn current(&self) -> Result<(Revision, Set), StoreError> {
        let file = self.file.get(Instant::now()).map_err(database)?;
        let read = file.begin_read().map_err(database)?;
        let table = read.open_table(CURRENT).map_err(database)?;
        let mut set = Set::default();
        for entry in table.iter().map_err(database)? {
            let (key, value) = entry.map_err(database)?;
            let resource: Resource = unseal(value.value())?;
            if resource.key().to_string() != key.value() {
                return Err(StoreError::Damaged(format!(
                    "{} is not under its name",
                    key.value()
                )));
            }
            set.insert(resource);
        }
        let revisions = read.open_table(REVISIONS).map_err(database)?;
        let number = revisions
            .last()
            .map_err(database)?
            .map_or(0, |(number, _)| number.value());
        Ok((
            Revision {
                store: self.store.clone(),
                number,
            },
            set,
        ))
    }

    /// Writes the next revision: the whole set becomes `next`, or nothing changes.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn write(
        &self,
        next: &Set,
        author: &str,
        time: &str,
        message: &str,
    ) -> Result<Revision, StoreError> {
        let present = self.current();
        if self.file.has_failed() {
            return Err(StoreError::Failed);
        }
        let (current, before) = present?;
        if current.number != self.number.load(Ordering::Acquire) {
            return Err(StoreError::Unexpected(current.number));
        }
        let edits: Vec<Edit> = diff::changed_keys(&before, next)
            .into_iter()
            .map(|key| Edit {
                before: before.resources.get(key).cloned(),
                after: next.resources.get(key).cloned(),
            })
            .collect();
        let number = current.number + 1;
        let info = RevisionInfo {
            number,
            author: author.to_owned(),
            time: time.to_owned(),
            message: message.to_owned(),
            changes: edits.len(),
        };
        let written = self.commit(&Record { info, edits });
        match &written {
            Ok(()) => self.number.store(number, Ordering::Release),
            // What the disk holds is known once the file is opened again.
            Err(_) => self.file.mark_failed(Instant::now()),
        }
        written.map(|()| Revision {
            store: self.store.clone(),
            number,
        })
    }

    fn commit(&self, record: &Record) -> Result<(), StoreError> {
        let file = self.file.get(Instant::now()).map_err(database)?;
        let write = file.begin_write().map_err(database)?;
        {
            let mut current = write.open_table(CURRENT).map_err(database)?;
            for edit in &record.edits {
                match (&edit.before, &edit.after) {
                    (_, Some(after)) => {
                        let (key, value) = (after.key().to_string(), seal(after)?);
                        current
                            .insert(key.as_str(), value.as_slice())
                            .map_err(database)?;
                    }
                    (Some(before), None) => {
                        current
                            .remove(before.key().to_string().as_str())
                            .map_err(database)?;
                    }
                    (None, None) => {}
                }
            }
            let mut revisions = write.open_table(REVISIONS).map_err(database)?;
            let value = seal(record)?;
            revisions
                .insert(record.info.number, value.as_slice())
                .map_err(database)?;
        }
        write.commit().map_err(database)
    }

    /// The resources as they were at a revision; 0 is the empty store.
    ///
    /// # Errors
    /// When there is no such revision, or the store is damaged.
    pub fn set_at(&self, number: u64) -> Result<Set, StoreError> {
        let (current, mut set) = self.current()?;
        if number > current.number {
            return Err(StoreError::NoRevision(number));
        }
        for record in self.records(number + 1)?.into_iter().rev() {
            for edit in record.edits {
                match (edit.before, edit.after) {
                    (Some(before), _) => set.insert(before),
                    (None, Some(after)) => {
                        set.resources.remove(&after.key());
                    }
                    (None, None) => {}
                }
            }
        }
        Ok(set)
    }

    /// All revisions, newest first.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn revisions(&self) -> Result<Vec<RevisionInfo>, StoreError> {
        Ok(self
            .records(1)?
            .into_iter()
            .rev()
            .map(|record| record.info)
            .collect())
    }

    fn records(&self, from: u64) -> Result<Vec<Record>, StoreError> {
        let file = self.file.get(Instant::now()).map_err(database)?;
        let read = file.begin_read().map_err(database)?;
        let table = read.open_table(REVISIONS).map_err(database)?;
        let mut records = Vec::new();
        for entry in table.range(from..).map_err(database)? {
            let (number, value) = entry.map_err(database)?;
            let record: Record = unseal(value.value())?;
            if record.info.number != number.value() {
                return Err(StoreError::Damaged(format!(
                    "revision {} is not its own",
                    number.value()
                )));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Everything, as one sealed text.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn backup(&self) -> Result<Vec<u8>, StoreError> {
        let (_, set) = self.current()?;
        seal(&Backup {
            schema: 1,
            current: set.resources.into_values().collect(),
            revisions: self.records(1)?,
        })
    }

    /// Creates a store from a backup. It gets a new id: sidecars must see that its history is another
    /// one than that which they followed.
    ///
    /// # Errors
    /// When there is a store already, or the backup is none.
    pub fn restore(path: &Path, backup: &[u8]) -> Result<Revision, StoreError> {
        let backup: Backup =
            unseal(backup).map_err(|error| StoreError::Backup(error.to_string()))?;
        if path.exists() {
            return Err(StoreError::Exists(path.display().to_string()));
        }
        let partial = path.with_extension("partial");
        // A leftover of a restore that did not finish; nothing else has this name.
        let _ = std::fs::remove_file(&partial);
        let number = backup
            .revisions
            .last()
            .map_or(0, |record| record.info.number);
        let store = {
            let database = Database::create(&partial).map_err(self::database)?;
            restrict(&partial).map_err(|error| StoreError::Database(error.to_string()))?;
            prepare(&database, Some(&backup))?
        };
        std::fs::rename(&partial, path).map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(Revision { store, number })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    schema: u32,
    current: Vec<Resource>,
    revisions: Vec<Record>,
}

/// Creates the tables in a new file, checks the schema of an old one, and returns the store's id.
fn prepare(database: &Database, content: Option<&Backup>) -> Result<String, StoreError> {
    let write = database.begin_write().map_err(self::database)?;
    let store = {
        let mut meta = write.open_table(META).map_err(self::database)?;
        let schema = meta
            .get("schema")
            .map_err(self::database)?
            .map(|found| found.value().to_vec());
        if let Some(schema) = schema.filter(|schema| schema != SCHEMA) {
            return Err(StoreError::Schema(
                String::from_utf8_lossy(&schema).into_owned(),
            ));
        }
        meta.insert("schema", SCHEMA).map_err(self::database)?;
        let known = meta
            .get("store")
            .map_err(self::database)?
            .map(|found| found.value().to_vec());
        let store = match known {
            Some(known) => String::from_utf8(known)
                .map_err(|_| StoreError::Damaged("its id is no text".to_owned()))?,
            None => format!("{:032x}", rand::random::<u128>()),
        };
        meta.insert("store", store.as_bytes())
            .map_err(self::database)?;
        let mut current = write.open_table(CURRENT).map_err(self::database)?;
        let mut revisions = write.open_table(REVISIONS).map_err(self::database)?;
        for resource in content.iter().flat_map(|content| &content.current) {
            let (key, value) = (resource.key().to_string(), seal(resource)?);
            current
                .insert(key.as_str(), value.as_slice())
                .map_err(self::database)?;
        }
        for record in content.iter().flat_map(|content| &content.revisions) {
            let value = seal(record)?;
            revisions
                .insert(record.info.number, value.as_slice())
                .map_err(self::database)?;
        }
        store
    };
    write.commit().map_err(self::database)?;
    Ok(store)
}

/// SHA-256 of the JSON, then the JSON: a flipped bit is found, not served.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(value).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let mut sealed = digest(&SHA256, &json).as_ref().to_vec();
    sealed.extend(json);
    Ok(sealed)
}

pub(crate) fn unseal<T: for<'de> Deserialize<'de>>(sealed: &[u8]) -> Result<T, StoreError> {
    let (sum, json) = sealed
        .split_at_checked(SHA256.output_len)
        .ok_or_else(|| StoreError::Damaged("a record is cut short".to_owned()))?;
    if digest(&SHA256, json).as_ref() != sum {
        return Err(StoreError::Damaged("a checksum does not match".to_owned()));
    }
    serde_json::from_slice(json).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn database(error: impl std::fmt::Display) -> StoreError {
    StoreError::Database(error.to_string())
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(Store::open(&path), Err(StoreError::InUse(_))));
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
            Err(StoreError::Exists(_))
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
    fn a_flipped_bit_in_a_record_is_found() {
        let mut sealed = seal(&set(&["a"]).resources.into_values().collect::<Vec<_>>()).unwrap();
        assert!(unseal::<Vec<Resource>>(&sealed).is_ok());
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert!(matches!(
            unseal::<Vec<Resource>>(&sealed),
            Err(StoreError::Damaged(_))
        ));
        assert!(matches!(
            unseal::<Vec<Resource>>(b"short"),
            Err(StoreError::Damaged(_))
        ));
    }
}
