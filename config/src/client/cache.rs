//! The last good table on the sidecar's disk: a line with the SHA-256 of the rest, then JSON. Written
//! beside and renamed, so that a crash leaves the old one or the new one.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use weft_transport::files::{self, FileError};
use weft_transport::hex;

use crate::limits;
use crate::table::Table;

/// Why no table on disk can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No table that came from a config service is that long.
    #[error("it has more than {} MiB", limits::TABLE_FILE_BYTES_MAX >> 20)]
    TooLong,
    /// Its contents differ from what was written.
    #[error("its checksum does not match")]
    Checksum,
    /// This version of weft does not understand it.
    #[error("it is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads the table; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Table>, CacheError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    let most = limits::TABLE_FILE_BYTES_MAX;
    file.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        return Err(CacheError::TooLong);
    }
    parse(&text).map(Some)
}

/// Replaces the table. There is one write at a time: a successor may ask for the table during a write, and
/// gets its answer when the table is on disk. The successor may write as well, so each process uses a file
/// name of its own.
pub(super) fn write(path: &Path, table: &Table) -> Result<(), CacheError> {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = weft_transport::locks::lock(&WRITING);
    Ok(files::write_among_others(path, &text(table)?)?)
}

/// What [`text`] wrote.
pub(super) fn parse(text: &[u8]) -> Result<Table, CacheError> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let (sum, json) = text.split_at(end.ok_or(CacheError::Checksum)?);
    let json = &json[1..];
    if checksum(json).as_bytes() != sum {
        return Err(CacheError::Checksum);
    }
    Ok(serde_json::from_slice(json)?)
}

/// What stands in the file.
pub(super) fn text(table: &Table) -> Result<Vec<u8>, CacheError> {
    // Room for the checksum's digits, before the line's end.
    let mut text = vec![b'\n'; 2 * SHA256.output_len + 1];
    let start = text.len();
    table.write_whole(&mut text)?;
    let sum = checksum(&text[start..]);
    text[..sum.len()].copy_from_slice(sum.as_bytes());
    Ok(text)
}

pub(super) fn checksum(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Revision;

    #[test]
    fn what_was_written_is_read_and_what_was_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.json");
        assert!(read(&path).unwrap().is_none());
        let table = Table {
            schema: crate::table::Schema,
            revision: Revision {
                store: "s".into(),
                number: 7,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: std::collections::BTreeMap::new(),
            egress: crate::table::Egress::default(),
            closed_hosts: std::collections::BTreeSet::new(),
            forbidden: std::collections::BTreeMap::new(),
            session_keys: std::collections::BTreeMap::new(),
        };
        write(&path, &table).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&table));
        assert_eq!(crate::client::saved_table(dir.path()), Some(table));
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("\"number\":7", "\"number\":8");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(read(&path), Err(CacheError::Checksum)));
    }

    #[test]
    fn a_file_that_has_grown_without_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.json");
        // Sparse: it takes no room on the disk.
        let file = File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(matches!(read(&path), Err(CacheError::TooLong)));
    }
}
