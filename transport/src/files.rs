//! Files that hold keys and state: written whole or not at all, readable by their owner only. Every process
//! of weft writes its files with these functions.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::limits::FILE_BYTES_MAX;

/// Mode of every file written here: keys, certificates and stores alike belong to one process.
const PRIVATE_FILE: u32 = 0o600;
/// Mode of every directory made here.
const PRIVATE_DIRECTORY: u32 = 0o700;
/// Bits that let others than the owner read or write.
const OTHERS: u32 = 0o077;

/// Every user of the host.
const WORLD: u32 = 0o007;

/// A file operation that failed, with the path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key file that others than its owner may read.
    #[error(
        "{path} may be read by others (mode {mode:04o}): if no other user has read it, run `chmod 600 {path}`; else replace the key"
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than a file of a state directory can be.
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    /// The error of the operating system.
    #[must_use]
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the file is missing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the process lacks a permission.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Makes `path` and its parents, private to the owner; an existing directory keeps its mode.
///
/// # Errors
/// When the operating system refuses.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(path)
        .map_err(|error| FileError::io("create directory", path, error))
}

/// Replaces `path` by `content`: after a crash there is the old file or the new one, never a part of it. One
/// process writes it at a time.
///
/// # Errors
/// When the operating system refuses; the old file is then still there.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write_beside(path, &suffixed(path, ".new"), content)
}

/// The same for a file that several processes may write at the same time, each through a temporary file of
/// its own. A process that is killed leaves its temporary file behind.
///
/// # Errors
/// When the operating system refuses; the old file is then still there.
pub fn write_among_others(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let own = suffixed(path, &format!(".{}.new", std::process::id()));
    write_beside(path, &own, content)
}

/// Copies a file of any size into a new one, which only its owner may read, and syncs it to disk.
///
/// # Errors
/// When there is a file at `to`, or the operating system refuses.
pub fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    let mut source = File::open(from).map_err(|error| FileError::io("read", from, error))?;
    let failed = |error| FileError::io("write", to, error);
    let mut copy = create(to).map_err(failed)?;
    io::copy(&mut source, &mut copy)
        .and_then(|_| copy.sync_all())
        .map_err(failed)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)
}

fn write_beside(path: &Path, temporary: &Path, content: &[u8]) -> Result<(), FileError> {
    // Left by a crash; it may have another mode.
    remove(temporary)?;
    let failed = |error| FileError::io("write", path, error);
    let mut file = create(temporary).map_err(failed)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // An incomplete file would take the space that the next attempt needs. The first error is the one
        // that is reported.
        let _ = fs::remove_file(temporary);
        return Err(failed(error));
    }
    rename(temporary, path)
}

/// Renames `from` to `to` and syncs the directory.
///
/// # Errors
/// When the operating system refuses.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|error| FileError::io("write", to, error))?;
    sync_directory(to)
}

/// Removes a file if it is there.
///
/// # Errors
/// When the operating system refuses.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::io("remove", path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads a file of bounded size.
///
/// # Errors
/// When it is too large, or the operating system refuses.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error| FileError::io("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(content)
}

/// Reads a file if it is there.
///
/// # Errors
/// When it is too large, or the operating system refuses.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a key file that others than the owner may read or write.
///
/// # Errors
/// [`FileError::Exposed`], or when its mode cannot be read.
pub fn check_private(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(|error| FileError::io("read", path, error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Refuses a key file that every user of the host may read or write, and logs if its group may. The
/// orchestrator may set the modes of a volume: it gives a group to all files in it and starts the process in
/// that group.
///
/// # Errors
/// [`FileError::Exposed`], or when its mode cannot be read.
pub fn check_unexposed(path: &Path) -> Result<(), FileError> {
    match check_private(path) {
        Err(FileError::Exposed { path, mode }) if mode & WORLD == 0 => {
            tracing::warn!(path = %path.display(), mode = %format!("{mode:04o}"), "the group of a key file may read it");
            Ok(())
        }
        checked => checked,
    }
}

/// Whether `path` is a directory with nothing in it, or does not exist.
///
/// # Errors
/// When it cannot be read.
pub fn is_vacant(path: &Path) -> Result<bool, FileError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(FileError::io("read", path, error)),
    }
}

/// The path with something added to its name.
#[must_use]
pub fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync_directory(child: &Path) -> Result<(), FileError> {
    let directory = match child.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| FileError::io("write", directory, error))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_file_is_private_whole_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(suffixed(&path, ".new"), "left over").unwrap();
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        write_among_others(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        check_private(&path).unwrap();
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"key").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let message = check_private(&path).unwrap_err().to_string();
            assert!(message.contains("chmod 600"), "{message}");
        }
    }

    #[test]
    fn a_key_on_a_volume_may_be_its_groups_and_not_everybodys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"key").unwrap();
        for (mode, refused) in [
            (0o600, false),
            (0o640, false),
            (0o660, false),
            (0o604, true),
            (0o644, true),
            (0o602, true),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_unexposed(&path).is_err(), refused, "{mode:o}");
        }
    }

    #[test]
    fn an_oversize_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        File::create(&path)
            .unwrap()
            .set_len(FILE_BYTES_MAX + 1)
            .unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLarge { .. })));
    }
}
