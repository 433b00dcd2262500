//! Handles a shortage of file descriptors: connections of the application then wait in the kernel, and the
//! admin endpoint has one descriptor in reserve.
//!
//! The kernel gives out the lowest free number, so the number of a new descriptor tells how many are in use.
//! The exception is a limit that was lowered below the number already in use: then a freed descriptor does
//! not mean that there is room.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::limits;

/// One descriptor that is kept from all other uses.
#[derive(Debug)]
pub(crate) struct Reserve(Option<File>);

impl Reserve {
    /// Reserves a descriptor, if one is free.
    pub(crate) fn new() -> Self {
        Self(nothing().ok())
    }

    /// Closes the reserved descriptor if the error says that none is left. Returns whether that freed one.
    pub(crate) fn help(&mut self, error: &io::Error) -> bool {
        are_exhausted(error) && self.0.take().is_some()
    }

    /// Reserves one again, if it was given up and one is free.
    pub(crate) fn restore(&mut self) {
        if self.0.is_none() {
            self.0 = nothing().ok();
        }
    }
}

/// Whether the error says that no descriptor is left.
pub(crate) fn are_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|one| exhausted.contains(&one))
}

/// Waits until there are more descriptors than essential uses need.
pub(crate) async fn plenty() {
    while in_use().is_none_or(is_of_the_last) {
        tokio::time::sleep(limits::ACCEPT_ERROR_PAUSE).await;
    }
}

/// Whether this new descriptor is one of those reserved for essential uses.
pub(crate) fn is_one_of_the_last(newest: &impl AsRawFd) -> bool {
    is_of_the_last(number(newest))
}

fn is_of_the_last(number: u64) -> bool {
    getrlimit(Resource::Nofile)
        .current
        .is_some_and(|most| number >= most.saturating_sub(kept(most)))
}

/// How many are in use, if the system tells. Where the kernel tells (Linux 6.2), no descriptor is opened to
/// find out, because the one that is free for a moment may be the only one for the admin endpoint.
fn in_use() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    if told > 0 {
        return Some(told);
    }
    nothing().ok().map(|probe| number(&probe))
}

fn number(descriptor: &impl AsRawFd) -> u64 {
    u64::try_from(descriptor.as_raw_fd()).unwrap_or(0)
}

/// How many of `limit` descriptors are reserved.
fn kept(most: u64) -> u64 {
    limits::DESCRIPTORS_KEPT.min(most / 8)
}

fn nothing() -> io::Result<File> {
    File::open("/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_helps_once_and_only_where_descriptors_are_missing() {
        let mut reserve = Reserve::new();
        assert!(!reserve.help(&io::ErrorKind::ConnectionAborted.into()));
        let exhausted = io::Error::from(Errno::MFILE);
        assert!(reserve.help(&exhausted) && !reserve.help(&exhausted));
        reserve.restore();
        assert!(reserve.help(&exhausted));
    }

    #[test]
    fn few_are_kept_of_few() {
        assert_eq!(kept(1024), limits::DESCRIPTORS_KEPT);
        assert_eq!([kept(80), kept(7)], [10, 0]);
    }
}
