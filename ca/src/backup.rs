//! Backup and restore of a CA: keys, certificates and a consistent copy of the store, in one directory.
//!
//! A backup holds the root and issuing keys: keep it as safe as the CA itself. It lacks all later events: a
//! token that it lists as unused may have been exchanged since. So its tokens are void once it is restored;
//! identities renew as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use weft_store::Redb;
use weft_transport::files::{self, FileError};
use weft_transport::private_socket::is_answered;

use crate::attest::unix_seconds;
use crate::directory::{self, ADMIN_SOCKET, FILES, ISSUING_KEY, OpenError, ROOT_KEY};
use crate::log::{Event, Record};
use crate::store::{LAYOUT, STORE_FILE, Store, StoreError};

/// Why a backup or a restore did not happen. Nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target holds something.
    #[error("{0} is not empty: choose an empty or new directory")]
    NotEmpty(PathBuf),
    /// A CA runs on the target.
    #[error("a CA is running on {0}: stop it first")]
    Running(PathBuf),
    /// The backup lacks a file, or one is unusable.
    #[error("the backup {path} is not usable: {reason}")]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The issuance log of the backup was changed.
    #[error(
        "the issuance log of {path} was altered at entry {entry}: use --force to restore it all the same"
    )]
    LogBroken {
        /// The backup.
        path: PathBuf,
        /// The first entry that does not fit.
        entry: u64,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA's directory is not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<weft_store::StoreError> for BackupError {
    fn from(error: weft_store::StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// Copies a CA into `target`, which must be empty or new. The store may be in use by this process.
pub(crate) fn backup(store: &Store, directory: &Path, target: &Path) -> Result<(), BackupError> {
    make_target(target)?;
    for name in FILES {
        match files::read(&directory.join(name)) {
            Ok(content) => {
                let content = zeroize::Zeroizing::new(content);
                files::write(&target.join(name), &content)?;
            }
            // The root key may be kept elsewhere.
            Err(error) if name == ROOT_KEY && error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    store.copy_to(&target.join(STORE_FILE))?;
    Ok(())
}

/// Makes the directory of a backup, which must be empty or new.
pub(crate) fn make_target(target: &Path) -> Result<(), BackupError> {
    if !files::is_vacant(target)? {
        return Err(BackupError::NotEmpty(target.to_owned()));
    }
    Ok(files::make_directory(target)?)
}

/// Copies the files of a backup.
pub(crate) fn copy(backup: &Path, target: &Path) -> Result<(), BackupError> {
    for name in FILES.into_iter().chain([STORE_FILE]) {
        match files::copy(&backup.join(name), &target.join(name)) {
            // The root key may be kept elsewhere.
            Err(error) if name == ROOT_KEY && error.is_not_found() => {}
            copied => copied?,
        }
    }
    Ok(())
}

/// Restores the backup `source` as the CA of `directory`, which must be empty or new unless `force` is set.
/// The backup is checked as a whole first: that it opens, that its keys and certificates match, that its log
/// is unaltered. The join tokens of the backup are void from then on.
///
/// # Errors
/// See [`BackupError`].
pub fn restore(
    directory: &Path,
    source: &Path,
    force: bool,
    now: SystemTime,
) -> Result<(), BackupError> {
    if is_answered(&directory.join(ADMIN_SOCKET)) {
        return Err(BackupError::Running(directory.to_owned()));
    }
    if !force && !files::is_vacant(directory)? {
        return Err(BackupError::NotEmpty(directory.to_owned()));
    }
    let is_new = !directory.exists();
    files::make_directory(directory)?;
    let restored = put_in_place(directory, source, force, now);
    if restored.is_err() && is_new {
        // It is empty unless the disk failed half-way, and then it is left as it is.
        let _ = std::fs::remove_dir(directory);
    }
    restored
}

fn put_in_place(
    directory: &Path,
    source: &Path,
    force: bool,
    now: SystemTime,
) -> Result<(), BackupError> {
    let (from, to) = (source.join(STORE_FILE), directory.join(STORE_FILE));
    // The store takes its place last: a directory without it holds no CA.
    let restored = Redb::install_copy(&from, &to, &LAYOUT, |copy| {
        let store = Store::over(Arc::new(copy.clone()), &from);
        check(&store, source, force)?;
        for name in FILES {
            let Some(content) = files::read_if_there(&source.join(name))? else {
                continue;
            };
            files::write(&directory.join(name), &zeroize::Zeroizing::new(content))?;
        }
        while store.write(|transaction| transaction.mark_tokens_restored())? {}
        let tokens = store.read(|view| view.counts())?.tokens;
        store.write(|transaction| {
            transaction.append(Record {
                time: unix_seconds(now),
                event: Event::Restored { tokens },
                by: "admin",
                identity: None,
                peer: None,
                key: None,
            })
        })?;
        Ok(())
    });
    restored.map_err(|error| {
        // The backup's own store, before anything was taken from it.
        if let BackupError::Store(StoreError::Store(reason)) = &error
            && reason.is_of_file(&from)
        {
            return BackupError::Damaged {
                path: source.to_owned(),
                reason: reason.to_string(),
            };
        }
        error
    })
}

fn check(store: &Store, source: &Path, force: bool) -> Result<(), BackupError> {
    let damaged = |reason: String| BackupError::Damaged {
        path: source.to_owned(),
        reason,
    };
    let about = store.about().map_err(|error| damaged(error.to_string()))?;
    if !source.join(ISSUING_KEY).exists() {
        return Err(damaged(format!("{ISSUING_KEY} is missing")));
    }
    // An old backup may have expired; `weft ca renew` makes a new issuing certificate.
    directory::load_issuer(source, about.trust_domain)
        .map_err(|error| damaged(error.to_string()))?;
    match store.read(|view| view.first_broken_log_entry())? {
        Some(entry) if !force => Err(BackupError::LogBroken {
            path: source.to_owned(),
            entry,
        }),
        Some(_) | None => Ok(()),
    }
}
