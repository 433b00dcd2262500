//! The schema of a file: new files get the present one, files of an earlier version are migrated to it in one
//! transaction, files of a later one are refused.
//!
//! Schema 1 had a table for each kind of record, with keys of its own type. From schema 2 on there is one
//! table of entries, whose keys begin with the name of the former table. Values are taken over unchanged.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::tables::{META, META_KIND, META_SCHEMA, StepError, Tables};

/// The name of a kind of store, its schema, and the messages for an unusable file.
#[derive(Debug)]
pub struct Layout {
    /// Written into the file, so that one kind is not taken for another.
    pub kind: &'static str,
    /// The owner in messages, with its article.
    pub what: &'static str,
    /// The layout of tables, keys and values.
    pub schema: u64,
    /// The remedy when there is no store.
    pub make: &'static str,
    /// The remedy when the store is damaged.
    pub restore: &'static str,
    /// The new prefix of names in the table `meta` of schema 1.
    pub old_meta: &'static [u8],
    /// The other tables of schema 1; a file without one of them is of another kind.
    pub old: &'static [OldTable],
}

/// A table of schema 1.
#[derive(Debug)]
pub struct OldTable {
    /// Its name.
    pub name: &'static str,
    /// The type of its keys.
    pub keys: OldKeys,
    /// The new prefix of its keys.
    pub prefix: &'static [u8],
}

/// How the keys of a table of schema 1 become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKeys {
    /// Text, as it is.
    Text,
    /// A number, as eight bytes in big-endian order, which sort as numbers do.
    Number,
    /// A hash of 32 bytes, as it is.
    Hash,
}

/// Makes a new file a store of this layout, and migrates an older one to it.
pub(super) fn settle(
    database: &Database,
    layout: &Layout,
    may_be_new: bool,
) -> Result<(), StepError> {
    let foreign = || StepError::Damaged(format!("it is no store of {}", layout.what));
    let read = database.begin_read()?;
    let names: Vec<String> = read
        .list_tables()?
        .map(|table| table.name().to_owned())
        .collect();
    if names.is_empty() && may_be_new {
        drop(read);
        return change(database, layout, |_| Ok(()));
    }
    if !names.iter().any(|name| name == META.name()) {
        return Err(foreign());
    }
    let meta = read.open_table(META)?;
    let text = |name| {
        let value = meta.get(name)?;
        let text = value.map(|value| String::from_utf8_lossy(value.value()).into_owned());
        Ok::<_, StepError>(text)
    };
    let schema = text(META_SCHEMA)?.ok_or_else(foreign)?;
    let schema: u64 = schema
        .parse()
        .map_err(|_| StepError::Damaged(format!("its schema is {schema:?}")))?;
    if schema > layout.schema {
        return Err(StepError::Newer(schema));
    }
    if schema == 1 && layout.schema > 1 {
        let is_ours = |table: &OldTable| names.iter().any(|name| name == table.name);
        if !layout.old.iter().all(is_ours) {
            return Err(foreign());
        }
        drop((meta, read));
        tracing::info!(
            what = layout.what,
            "bringing the store to the layout of this version"
        );
        return change(database, layout, |transaction| {
            take_over(transaction, layout)
        });
    }
    if text(META_KIND)?.as_deref() != Some(layout.kind) {
        return Err(foreign());
    }
    Ok(())
}

fn change(
    database: &Database,
    layout: &Layout,
    work: impl FnOnce(&redb::WriteTransaction) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let transaction = database.begin_write()?;
    work(&transaction)?;
    let mut tables = Tables::open(&transaction)?;
    tables
        .meta
        .insert(META_SCHEMA, layout.schema.to_string().as_bytes())?;
    tables.meta.insert(META_KIND, layout.kind.as_bytes())?;
    drop(tables);
    transaction.commit()?;
    Ok(())
}

fn take_over(transaction: &redb::WriteTransaction, layout: &Layout) -> Result<(), StepError> {
    move_meta(transaction, layout.old_meta)?;
    for old in layout.old {
        match old.keys {
            OldKeys::Text => move_table::<&str>(transaction, old, |key| key.as_bytes().to_vec())?,
            OldKeys::Number => move_table::<u64>(transaction, old, |key| key.to_be_bytes().into())?,
            OldKeys::Hash => move_table::<&[u8; 32]>(transaction, old, |key| key.to_vec())?,
        }
    }
    Tables::open(transaction)?.set_adopted()
}

/// The table of names stays, for the schema and the store's own numbers.
fn move_meta(transaction: &redb::WriteTransaction, prefix: &[u8]) -> Result<(), StepError> {
    let mut tables = Tables::open(transaction)?;
    let mut moved = Vec::new();
    for row in tables.meta.iter()? {
        let (name, value) = row?;
        if name.value() != META_SCHEMA {
            moved.push((name.value().to_owned(), value.value().to_vec()));
        }
    }
    for (name, value) in moved {
        tables.meta.remove(name.as_str())?;
        tables.adopt(&[prefix, name.as_bytes()].concat(), &value)?;
    }
    Ok(())
}

fn move_table<K: redb::Key + 'static>(
    transaction: &redb::WriteTransaction,
    old: &OldTable,
    bytes: impl Fn(K::SelfType<'_>) -> Vec<u8>,
) -> Result<(), StepError> {
    let definition = TableDefinition::<K, &[u8]>::new(old.name);
    let table = transaction.open_table(definition)?;
    let mut tables = Tables::open(transaction)?;
    for row in table.iter()? {
        let (key, value) = row?;
        tables.adopt(&[old.prefix, &bytes(key.value())].concat(), value.value())?;
    }
    drop((table, tables));
    transaction.delete_table(definition)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::model::LAYOUT;
    use crate::{Keys, Redb, Snapshot, Store, StoreError, each};

    const OLD: Layout = Layout {
        old: &[
            OldTable {
                name: "words",
                keys: OldKeys::Text,
                prefix: b"w/",
            },
            OldTable {
                name: "numbers",
                keys: OldKeys::Number,
                prefix: b"n/",
            },
            OldTable {
                name: "hashes",
                keys: OldKeys::Hash,
                prefix: b"h/",
            },
        ],
        ..LAYOUT
    };
    static THIS: Layout = OLD;

    fn make(path: &std::path::Path, schema: &[u8]) {
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        let words = TableDefinition::<&str, &[u8]>::new("words");
        let numbers = TableDefinition::<u64, &[u8]>::new("numbers");
        let hashes = TableDefinition::<&[u8; 32], &[u8]>::new("hashes");
        let mut meta = write.open_table(META).unwrap();
        meta.insert("schema", schema).unwrap();
        meta.insert("about", b"me".as_slice()).unwrap();
        drop(meta);
        let value = b"v".as_slice();
        write
            .open_table(words)
            .unwrap()
            .insert("one", value)
            .unwrap();
        write
            .open_table(hashes)
            .unwrap()
            .insert(&[7; 32], value)
            .unwrap();
        let mut table = write.open_table(numbers).unwrap();
        for number in [2_u64, 10, 300] {
            table.insert(number, number.to_string().as_bytes()).unwrap();
        }
        drop(table);
        write.commit().unwrap();
    }

    fn content(snapshot: &dyn Snapshot) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        each(snapshot, Keys::all(), |entry| {
            assert_eq!((entry.created, entry.modified), (1, 1));
            found.push((entry.key, entry.value));
            Ok::<_, StoreError>(())
        })
        .unwrap();
        found
    }

    #[test]
    fn a_file_of_schema_1_keeps_every_value_and_the_order_of_its_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        make(&path, b"1");
        let before = std::fs::read(&path).unwrap();
        let copy = directory.path().join("copy");
        Redb::install_copy(&path, &copy, &THIS, |_| Ok::<_, StoreError>(())).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            before,
            "the source stays as it is"
        );
        drop(Redb::open(&path, &THIS).unwrap());
        for path in [path, copy] {
            let store = Redb::open(&path, &THIS).unwrap();
            let number = |number: u64, value: &str| {
                (
                    [b"n/", number.to_be_bytes().as_slice()].concat(),
                    value.into(),
                )
            };
            let expected = [
                ([b"h/", [7; 32].as_slice()].concat(), b"v".to_vec()),
                (b"m/about".to_vec(), b"me".to_vec()),
                number(2, "2"),
                number(10, "10"),
                number(300, "300"),
                (b"w/one".to_vec(), b"v".to_vec()),
            ];
            assert_eq!(content(store.snapshot().unwrap().as_ref()), expected);
            assert!(matches!(
                store.watch(Keys::all(), 1),
                Err(StoreError::Compacted(1))
            ));
            let next = store.commit(&[], &[crate::Change::put(*b"m/about", *b"you")]);
            assert_eq!(next.unwrap(), crate::Commit::Done(2));
        }
    }

    #[test]
    fn a_file_of_schema_1_of_another_kind_or_of_a_schema_that_is_no_number_is_left_alone() {
        static OTHER: Layout = Layout {
            old: &[OldTable {
                name: "others",
                keys: OldKeys::Text,
                prefix: b"o/",
            }],
            ..LAYOUT
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        make(&path, b"1");
        let error = Redb::open(&path, &OTHER).unwrap_err().to_string();
        assert!(error.contains("it is no store of a test"), "{error}");
        assert!(Redb::open(&path, &THIS).is_ok());
        let odd = directory.path().join("odd");
        make(&odd, b"one");
        let error = Redb::open(&odd, &THIS).unwrap_err().to_string();
        assert!(error.contains("its schema is \"one\""), "{error}");
    }
}
