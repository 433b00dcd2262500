//! Labs that outlive the command that made them: one directory each, locked for as long as the lab lives.
//!
//! A lab's own process holds the lock (as its standard input, handed down by `weft lab up`). So a directory
//! whose lock is free belongs to a lab that has ended, in whatever way; the kernel has removed everything
//! else of it by then.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{NodeName, TopologyError};

/// The directory of a lab.
#[derive(Clone, Debug)]
pub struct Directory {
    name: String,
    path: PathBuf,
}

/// The facts that a lab's process records for other commands.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Card {
    /// Its id in the outer PID namespace.
    pub(super) process: u32,
    /// The descriptors of its hosts' network namespaces.
    pub(super) namespaces: BTreeMap<String, i32>,
}

/// Why a lab is not found or not made.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A name that cannot be one.
    #[error("`{0}` is no name of a lab: write 1 to 15 of a-z, 0-9 and -, beginning with a letter")]
    Name(String),
    /// A lab of this name is up already.
    #[error("lab `{0}` is up: end it with `weft lab down {0}`, or give the new one a `--name`")]
    Exists(String),
    /// There is none.
    #[error("no lab is up: make one with `weft lab up FILE`")]
    NoLab,
    /// There is no lab of this name.
    #[error("there is no lab `{name}`; up: {up}")]
    NoSuchLab {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        up: String,
    },
    /// Which one?
    #[error("several labs are up ({up}): say which with `--lab NAME`")]
    Several {
        /// The names that exist.
        up: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the labs of this user are.
#[derive(Clone, Debug)]
pub struct Base(PathBuf);

impl Base {
    /// /run/weft/lab for root; else below `runtime_directory` (XDG_RUNTIME_DIR), or a directory of
    /// this user in the place for temporary files.
    pub fn of_user(runtime_directory: Option<PathBuf>) -> Self {
        let user = nix::unistd::geteuid();
        Self(match runtime_directory {
            _ if user.is_root() => PathBuf::from("/run/weft/lab"),
            Some(directory) => directory.join("weft/lab"),
            None => std::env::temp_dir().join(format!("weft-lab-{user}")),
        })
    }

    /// At any other place.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the directory of a new lab, and the lock that its process must hold.
    pub fn create(&self, name: &str) -> Result<(Directory, File), StateError> {
        let valid = NodeName::new(name);
        valid.map_err(|_: TopologyError| StateError::Name(name.to_owned()))?;
        self.sweep()?;
        let directory = self.directory(name);
        let mut builder = DirBuilder::new();
        // Other users must not steer the lab, nor read the output of its programs.
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&self.0)
            .map_err(|source| io_error(&self.0, source))?;
        match builder.recursive(false).create(&directory.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists(name.to_owned()));
            }
            created => created.map_err(|source| io_error(&directory.path, source))?,
        }
        let lock = directory.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| io_error(&lock, source))?;
        Ok((directory, file))
    }

    /// The lab of this name; without a name the only one.
    pub fn find(&self, name: Option<&str>) -> Result<Directory, StateError> {
        let up = self.up()?;
        let shown = || {
            let names: Vec<&str> = up.iter().map(|directory| directory.name.as_str()).collect();
            names.join(", ")
        };
        match (name, &up[..]) {
            (_, []) => Err(StateError::NoLab),
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err(StateError::Several { up: shown() }),
            (Some(name), _) => match up.iter().find(|directory| directory.name == name) {
                Some(found) => Ok(found.clone()),
                None => Err(StateError::NoSuchLab {
                    name: name.to_owned(),
                    up: shown(),
                }),
            },
        }
    }

    /// The labs that are up, by name.
    pub fn up(&self) -> Result<Vec<Directory>, StateError> {
        let mut up = self.all()?;
        up.retain(Directory::is_up);
        Ok(up)
    }

    /// Removes what ended labs left behind; returns their names.
    pub fn sweep(&self) -> Result<Vec<String>, StateError> {
        let mut swept = Vec::new();
        for directory in self.all()? {
            if !directory.is_up() {
                directory.remove()?;
                swept.push(directory.name);
            }
        }
        Ok(swept)
    }

    fn all(&self) -> Result<Vec<Directory>, StateError> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| io_error(&self.0, source))?,
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| NodeName::new(name).is_ok())
            .collect();
        names.sort();
        Ok(names.iter().map(|name| self.directory(name)).collect())
    }

    fn directory(&self, name: &str) -> Directory {
        Directory {
            name: name.to_owned(),
            path: self.0.join(name),
        }
    }
}

impl Directory {
    /// A directory that [`Base::create`] made.
    pub fn of(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            path,
        }
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory, which has the output of its programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of its socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Whether the lab's process lives.
    pub fn is_up(&self) -> bool {
        let Ok(lock) = File::open(self.lock_file()) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Removes what is left of a lab that has ended.
    pub fn remove(&self) -> Result<(), StateError> {
        match std::fs::remove_dir_all(&self.path) {
            // Another command was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| io_error(&self.path, source)),
        }
    }

    pub(super) fn write_card(&self, card: &Card) -> Result<(), StateError> {
        let path = self.card();
        let text = serde_json::to_string_pretty(card).map_err(io::Error::from);
        text.and_then(|text| std::fs::write(&path, text))
            .map_err(|source| io_error(&path, source))
    }

    pub(super) fn read_card(&self) -> Result<Card, StateError> {
        let path = self.card();
        std::fs::read(&path)
            .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from))
            .map_err(|source| io_error(&path, source))
    }

    fn card(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }
}

fn io_error(path: &Path, source: io::Error) -> StateError {
    StateError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_up_while_its_lock_is_held_and_swept_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::at(folder.path().join("labs"));
        assert!(matches!(base.find(None), Err(StateError::NoLab)));
        let (directory, lock) = base.create("one").unwrap();
        assert!(directory.is_up());
        assert!(matches!(base.create("one"), Err(StateError::Exists(_))));
        assert_eq!(base.find(None).unwrap().name(), "one");
        drop(lock);
        assert!(!directory.is_up());
        assert_eq!(base.sweep().unwrap(), ["one"]);
        assert!(!directory.path().exists());
    }

    #[test]
    fn of_several_labs_one_must_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::at(folder.path().to_owned());
        let _first = base.create("one").unwrap();
        let _second = base.create("two").unwrap();
        let error = base.find(None).unwrap_err().to_string();
        assert!(error.contains("one, two"), "{error}");
        assert_eq!(base.find(Some("two")).unwrap().name(), "two");
        let error = base.find(Some("three")).unwrap_err().to_string();
        assert_eq!(error, "there is no lab `three`; up: one, two");
    }

    #[test]
    fn a_lab_s_name_cannot_lead_out_of_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::at(folder.path().to_owned());
        for name in ["", "..", "a/b", "/etc"] {
            assert!(
                matches!(base.create(name), Err(StateError::Name(_))),
                "{name}"
            );
        }
    }
}
