//! A Unix socket that only this process's user and root may connect to, from the moment at which it is there;
//! it takes the place of an earlier one in a single step. The doors of a takeover and of changes are such.
//!
//! Who connects is for the user of this file to ask (`peer_cred`): the mode can be changed afterwards.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::limits;

/// Bytes of a socket's path: `sun_path` holds 108 with its NUL (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// The socket, its path, and the name under which it was made.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    listener: UnixListener,
    place: SocketPlace,
    beside: PathBuf,
}

/// The path of a socket, as long as that one is there.
#[derive(Clone, Debug)]
pub(crate) struct SocketPlace {
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl PrivateSocket {
    /// Makes it, under another name. All that can fail for reasons of the settings does here.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file of that name, which is no socket",
                ));
            }
            Ok(_) | Err(_) => {}
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let short = Short::of(&beside)?;
        socket.bind(&SockAddr::unix(&short.path)?)?;
        // Until it listens nobody can connect, so there is no moment with a wider mode.
        std::fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        let made = std::fs::symlink_metadata(&beside)?;
        socket.listen(limits::ADMIN_BACKLOG)?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            place: SocketPlace {
                path: path.to_owned(),
                file: (made.dev(), made.ino()),
            },
            beside,
        })
    }

    /// Puts it in place of what is at its path: a leftover, or the socket of the process before.
    pub(crate) fn open(&self) -> io::Result<()> {
        std::fs::rename(&self.beside, &self.place.path)
    }

    /// Its path, to be cleared at the end. Without that the path stays, for a successor's own.
    pub(crate) fn place(&self) -> SocketPlace {
        self.place.clone()
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl SocketPlace {
    /// Removes the path, unless another socket has taken its place.
    pub(crate) fn clear(&self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects to such a socket, however long its path is.
///
/// # Errors
/// As the kernel says.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = Short::of(path)?;
    UnixStream::connect(&short.path).await
}

/// Whether a process listens there.
pub(crate) fn is_answered(path: &Path) -> bool {
    let short = Short::of(path);
    short.is_ok_and(|short| std::os::unix::net::UnixStream::connect(&short.path).is_ok())
}

/// A path that fits into a socket's address. One that is too long is named by its directory's descriptor,
/// which is open as long as this is kept.
struct Short {
    path: PathBuf,
    _directory: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
            return Ok(Self {
                path: path.to_owned(),
                _directory: None,
            });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = File::open(parent)?;
        let short = Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name);
        if short.as_os_str().as_bytes().len() > PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of the socket is too long: write a shorter one",
            ));
        }
        Ok(Self {
            path: short,
            _directory: Some(directory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn only_the_owner_may_come_and_a_later_socket_takes_the_place_of_an_earlier_one() {
        let folder = folder();
        let path = folder.path().join("takeover.sock");
        std::fs::write(folder.path().join("takeover.sock.new"), "left over").unwrap();
        let made = || PrivateSocket::make(&path).unwrap();
        let first = made();
        assert!(!path.exists());
        first.open().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = made();
        second.open().unwrap();
        let place = first.place();
        drop(first);
        place.clear();
        let (connected, accepted) = tokio::join!(connect(&path), second.accept());
        connected.unwrap();
        accepted.unwrap();
        second.place().clear();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_of_any_length_is_listened_and_connected_at() {
        let folder = folder();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("admin.sock");
        let socket = PrivateSocket::make(&path).unwrap();
        socket.open().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(connect(&path), socket.accept());
        connected.unwrap();
        accepted.unwrap();
        let long = folder.path().join("n".repeat(120));
        let refused = PrivateSocket::make(&long).unwrap_err().to_string();
        assert!(refused.contains("too long"), "{refused}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_replaced() {
        let folder = folder();
        let path = folder.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        assert!(PrivateSocket::make(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
