//! The Unix socket at which a running sidecar waits for its successor.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::{TakeoverError, socket_error};

/// The socket and its path.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    beside: PathBuf,
}

impl Door {
    /// Makes it, under another name. All that can fail for reasons of the settings does here.
    pub(crate) fn make(path: &Path) -> Result<Self, TakeoverError> {
        let failed = |error| socket_error(path, error);
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&beside).map_err(failed)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
            .map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            beside,
        })
    }

    /// Puts it in place of what is at its path: a leftover, or the socket of the process before.
    pub(crate) fn open(&self) -> Result<(), TakeoverError> {
        std::fs::rename(&self.beside, &self.path).map_err(|error| socket_error(&self.path, error))
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Closes it for good. Without this its path stays, for the successor's own.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_come_and_a_later_door_takes_the_place_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("takeover.sock");
        std::fs::write(folder.path().join("takeover.sock.new"), "left over").unwrap();
        let made = || Door::make(&path).unwrap();
        let first = made();
        assert!(!path.exists());
        first.open().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = made();
        second.open().unwrap();
        drop(first);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), second.accept());
        connected.unwrap();
        accepted.unwrap();
        second.remove();
        assert!(!path.exists());
    }
}
