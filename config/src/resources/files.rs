//! Finds and reads resource files. The only IO of this module.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits;

/// A file's text with the name that messages give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As the operator wrote it.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// Why files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// It is no text.
    #[error("{}: not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// A directory without a YAML file is a wrong path.
    #[error("{}: no .yaml or .yml file in this directory", .0.display())]
    Empty(PathBuf),
    /// More than one change may have.
    #[error("more than {} MiB or {} files", limits::RESOURCE_BYTES_MAX >> 20, limits::RESOURCE_FILES_MAX)]
    TooLarge,
}

/// Reads files, the `.yaml` and `.yml` files of directories (not of their subdirectories) in the order
/// of their names, and standard input for `-`.
///
/// # Errors
/// When one cannot be read, or all together are too large.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<SourceFile>, FilesError> {
    let mut files = Vec::new();
    let mut room = limits::RESOURCE_BYTES_MAX;
    for path in paths {
        if path.as_os_str() == "-" {
            let text = read(path, std::io::stdin().lock(), &mut room)?;
            files.push(SourceFile {
                name: "stdin".to_owned(),
                text,
            });
        } else if path.is_dir() {
            for path in yaml_files(path)? {
                files.push(read_file(&path, &mut room)?);
            }
        } else {
            files.push(read_file(path, &mut room)?);
        }
        if files.len() > limits::RESOURCE_FILES_MAX {
            return Err(FilesError::TooLarge);
        }
    }
    Ok(files)
}

fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let failed = |source| FilesError::Io {
        path: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if is_yaml && path.is_file() {
            found.push(path);
        }
        if found.len() > limits::RESOURCE_FILES_MAX {
            return Err(FilesError::TooLarge);
        }
    }
    if found.is_empty() {
        return Err(FilesError::Empty(directory.to_owned()));
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Path, room: &mut usize) -> Result<SourceFile, FilesError> {
    let failed = |source| FilesError::Io {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    Ok(SourceFile {
        name: path.display().to_string(),
        text: read(path, file, room)?,
    })
}

fn read(path: &Path, from: impl Read, room: &mut usize) -> Result<String, FilesError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(*room).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most)
        .read_to_end(&mut bytes)
        .map_err(|source| FilesError::Io {
            path: path.to_owned(),
            source,
        })?;
    *room = room.checked_sub(bytes.len()).ok_or(FilesError::TooLarge)?;
    String::from_utf8(bytes).map_err(|_| FilesError::NotText(path.to_owned()))
}
