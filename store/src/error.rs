//! Why an operation of a store failed: the fault, the file, and the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_transport::files::FileError;

use crate::limits::REOPEN_PAUSE;
use crate::{LeaseId, Revision};

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error(
        "{path} is in use by another process, and its admin.sock does not answer: end that process (`fuser {path}` names it)",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// There is no file.
    #[error("{path} does not exist: {remedy}", path = path.display())]
    Missing {
        /// The store.
        path: PathBuf,
        /// How one is made.
        remedy: &'static str,
    },
    /// A file exists where one would be made.
    #[error("{0} exists already: choose an empty or new directory, or move that file away")]
    Exists(PathBuf),
    /// A file that is not such a store, or that was damaged.
    #[error("{path} is damaged ({reason}): {remedy}", path = path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// The fault.
        reason: String,
        /// How a backup is restored.
        remedy: &'static str,
    },
    /// Written by a later version.
    #[error(
        "{path} has schema {found}, and this weft knows {known}: it was written by a newer weft, use that one",
        path = path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// The disk is full, or its owner's quota is.
    #[error(
        "there is no space left for {path}: free some, it is tried again after {pause} s",
        path = .0.display(),
        pause = REOPEN_PAUSE.as_secs()
    )]
    Full(PathBuf),
    /// The file system is read-only.
    #[error(
        "{path} is on a file system that is read-only: mount it for writing, or choose another directory",
        path = .0.display()
    )]
    ReadOnly(PathBuf),
    /// The file may not be used.
    #[error(
        "{path} may not be read and written by this user: start weft as the owner of the directory",
        path = .0.display()
    )]
    NotPermitted(PathBuf),
    /// The disk failed.
    #[error(
        "the disk under {path} failed ({reason}): it is tried again after {pause} s",
        path = path.display(),
        pause = REOPEN_PAUSE.as_secs()
    )]
    Failed {
        /// The store.
        path: PathBuf,
        /// The error of the operating system or the database.
        reason: String,
    },
    /// The disk failed before, and is not tried again yet.
    #[error(
        "the disk under {path} failed a moment ago: it is tried again after {pause} s",
        path = .0.display(),
        pause = REOPEN_PAUSE.as_secs()
    )]
    Paused(PathBuf),
    /// Another file of the store's directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The changes of that revision are not kept any more.
    #[error("the store keeps no state before revision {0}: read it anew")]
    Compacted(Revision),
    /// There is no such revision so far.
    #[error("the store is at revision {0} and has no later one")]
    NotYet(Revision),
    /// The lease has ended.
    #[error("lease {} has ended: ask for another", .0.0)]
    NoLease(LeaseId),
    /// A commit or a lease that no store accepts.
    #[error("the store does not take that: {0}")]
    Invalid(String),
    /// Other writers changed the values that were read, again and again.
    #[error("the store is changed by others all the time: try again later")]
    Contended,
}

impl StoreError {
    /// Classifies the failure of opening, reading or writing `path`.
    pub(crate) fn io(path: &Path, remedy: &'static str, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let path = path.to_owned();
        let kind = error.kind();
        if kind == Kind::NotFound {
            return Self::Missing { path, remedy };
        }
        if matches!(
            kind,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge
        ) {
            return Self::Full(path);
        }
        if kind == Kind::ReadOnlyFilesystem {
            return Self::ReadOnly(path);
        }
        if kind == Kind::PermissionDenied {
            return Self::NotPermitted(path);
        }
        let reason = error.to_string();
        Self::Failed { path, reason }
    }

    /// Whether a file is invalid.
    #[must_use]
    pub fn is_bad_data(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Newer { .. })
            || matches!(self, Self::File(FileError::TooLarge { .. }))
    }

    /// Whether this user lacks a permission.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted(_))
            || matches!(self, Self::File(error) if error.is_not_permitted())
    }

    /// Whether it is about that file.
    #[must_use]
    pub fn is_of_file(&self, file: &Path) -> bool {
        match self {
            Self::InUse(path)
            | Self::Missing { path, .. }
            | Self::Exists(path)
            | Self::Corrupt { path, .. }
            | Self::Newer { path, .. }
            | Self::Full(path)
            | Self::ReadOnly(path)
            | Self::NotPermitted(path)
            | Self::Failed { path, .. }
            | Self::Paused(path)
            | Self::File(FileError::Io { path, .. } | FileError::Exposed { path, .. })
            | Self::File(FileError::TooLarge { path }) => path == file,
            Self::Compacted(_)
            | Self::NotYet(_)
            | Self::NoLease(_)
            | Self::Invalid(_)
            | Self::Contended => false,
        }
    }

    /// A fault in the copy of a file is also in the file.
    pub(crate) fn renamed(mut self, copy: &Path, file: &Path) -> Self {
        if let Self::Corrupt { path, .. } | Self::Newer { path, .. } = &mut self
            && *path == copy
        {
            *path = file.to_owned();
        }
        self
    }

    pub(crate) fn ttl(ttl: Duration) -> Self {
        Self::Invalid(format!(
            "a lease of {ttl:?}: it lives between {:?} and {:?}",
            crate::LEASE_TTL_MIN,
            crate::LEASE_TTL_MAX
        ))
    }
}
