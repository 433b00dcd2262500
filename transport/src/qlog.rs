//! Records connections packet by packet, as files of qlog (JSON text sequences, RFC 7464), for people who
//! look for a fault. The files hold no keys and no contents, only sizes, numbers, losses and windows.
//!
//! Not for production at full load: each packet costs a line. Off unless `transport.qlog_dir` is set.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use quinn::{QlogConfig, QlogStream};

use crate::limits::{QLOG_BYTES_MAX, QLOG_FILES_MAX};

/// A new file in `directory` for the connections of one endpoint, `SIDE-N.sqlog`. `group_id` tells
/// connections apart. If there are too many files already, it returns none and logs that: old files must not
/// keep a process from starting. The last lines are written when the endpoint ends; a process that is killed
/// loses some kilobytes.
pub(crate) fn stream(directory: &Path, side: &str) -> io::Result<Option<QlogStream>> {
    let Some(file) = free_file(directory, side)? else {
        tracing::warn!(directory = %directory.display(), most = QLOG_FILES_MAX,
            "no qlog: the directory is full of such files");
        return Ok(None);
    };
    let mut config = QlogConfig::default();
    config
        .title(Some(format!("weft {side}")))
        .writer(Box::new(Bounded {
            file: BufWriter::new(file),
            left: QLOG_BYTES_MAX,
        }));
    let stream = config.into_stream();
    stream
        .map(Some)
        .ok_or_else(|| io::Error::other("the first line could not be written"))
}

/// Several workers and several runs share the directory.
fn free_file(directory: &Path, side: &str) -> io::Result<Option<File>> {
    for number in 1..=QLOG_FILES_MAX {
        let path = directory.join(format!("{side}-{number}.sqlog"));
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(Some),
        }
    }
    Ok(None)
}

/// Takes this many bytes and drops the rest: a file ends in the middle of a record at worst, which readers of
/// JSON text sequences skip.
struct Bounded<W: Write> {
    file: BufWriter<W>,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if length > self.left {
            self.left = 0;
            return Ok(bytes.len());
        }
        self.left -= length;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_no_more_than_its_bound() {
        let mut file = Vec::new();
        let mut bounded = Bounded {
            file: BufWriter::new(&mut file),
            left: 5,
        };
        for piece in [&b"abc"[..], b"defg", b"h"] {
            bounded.write_all(piece).unwrap();
        }
        drop(bounded);
        assert_eq!(file, b"abc");
    }

    #[test]
    fn a_full_directory_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        for number in 1..=QLOG_FILES_MAX {
            let name = format!("listening-{number}.sqlog");
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(stream(directory.path(), "listening").unwrap().is_none());
    }

    #[test]
    fn each_endpoint_gets_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            drop(stream(directory.path(), "dialling").unwrap().unwrap());
        }
        for name in ["dialling-1.sqlog", "dialling-2.sqlog"] {
            let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
            assert!(text.contains("weft dialling"), "{text}");
        }
    }
}
