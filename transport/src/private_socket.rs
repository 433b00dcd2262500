//! A Unix socket that only this process's user and root may connect to, from the moment at which it exists.
//! It replaces an earlier socket in a single step, and never replaces another kind of file. The local
//! commands of the CA and the config service, changes of a sidecar and its takeover come through such
//! sockets.
//!
//! The mode can be changed afterwards: a server that must know its caller asks the connection (`peer_cred`).
//! The server also bounds the number of connections.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use crate::limits;

/// Bytes of a socket's path: `sun_path` holds 108 with its NUL (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// Its owner connects, which needs the right to write; other users have no right.
const MODE: u32 = 0o600;

/// The socket, its path, and the name under which it was made.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    place: SocketPlace,
    beside: SocketPlace,
}

/// The path of a socket, as long as that socket is there.
#[derive(Clone, Debug)]
pub struct SocketPlace {
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

/// Puts a socket in its place, even after the socket itself was moved elsewhere.
#[derive(Clone, Debug)]
pub struct Opening {
    place: SocketPlace,
    beside: SocketPlace,
}

impl PrivateSocket {
    /// Makes it, and puts it in its place.
    ///
    /// # Errors
    /// As [`Self::make`] and [`Self::open`].
    pub fn bind(path: &Path) -> io::Result<Self> {
        let made = Self::make(path)?;
        made.open()?;
        Ok(made)
    }

    /// Makes it, under another name. All failures that the settings can cause happen here.
    ///
    /// # Errors
    /// When another kind of file is there, or with the error of the kernel.
    pub fn make(path: &Path) -> io::Result<Self> {
        socket_at(path)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        if socket_at(&beside)?.is_some() {
            // Left by a process that was killed here.
            std::fs::remove_file(&beside)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // The file takes its mode from the socket. So it never has a wider mode, and no path is followed to
        // change it.
        File::from(OwnedFd::from(socket.try_clone()?))
            .set_permissions(Permissions::from_mode(MODE))?;
        let short = Short::of(&beside)?;
        socket.bind(&SockAddr::unix(&short.path)?)?;
        let made = std::fs::symlink_metadata(&beside)?;
        let beside = SocketPlace {
            path: beside,
            file: number(&made),
        };
        let mode = made.mode() & 0o777;
        if mode != MODE {
            beside.clear();
            return Err(io::Error::other(format!(
                "the socket got mode {mode:03o} rather than {MODE:03o}: choose another directory, or a umask that leaves the owner its rights"
            )));
        }
        socket.listen(limits::PRIVATE_BACKLOG)?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            place: SocketPlace {
                path: path.to_owned(),
                file: beside.file,
            },
            beside,
        })
    }

    /// See [`Opening::open`].
    ///
    /// # Errors
    /// As that.
    pub fn open(&self) -> io::Result<()> {
        self.opening().open()
    }

    /// A handle that puts it in its place later.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening {
            place: self.place.clone(),
            beside: self.beside.clone(),
        }
    }

    /// Its path, to be removed at the end. Without that the path stays, for a successor's own.
    #[must_use]
    pub fn place(&self) -> SocketPlace {
        self.place.clone()
    }

    /// The next connection.
    ///
    /// # Errors
    /// The error of the kernel.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Opening {
    /// Replaces what is at its path with the socket: a leftover, or the socket of the predecessor.
    ///
    /// # Errors
    /// When another kind of file has appeared there, when another process has made its own socket in the
    /// meantime, or with the error of the kernel.
    pub fn open(&self) -> io::Result<()> {
        socket_at(&self.place.path)?;
        if !self.beside.is_there() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process has made its socket there in the meantime: give each its own path",
            ));
        }
        std::fs::rename(&self.beside.path, &self.place.path)
    }
}

impl Drop for PrivateSocket {
    /// A socket that was not opened leaves no file behind.
    fn drop(&mut self) {
        self.beside.clear();
    }
}

impl SocketPlace {
    /// Removes the path, unless another socket has taken its place.
    pub fn clear(&self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn is_there(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| number(&found) == self.file)
    }
}

/// The socket that is at a path, if one is.
///
/// # Errors
/// When another kind of file is there, a symbolic link included, or with the error of the kernel.
pub fn socket_at(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(Some(found)),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} exists and is not a socket: remove it, or choose another path",
                path.display()
            ),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Connects to such a socket, however long its path is.
///
/// # Errors
/// The error of the kernel.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let short = Short::of(path)?;
    UnixStream::connect(&short.path).await
}

/// Whether a process listens there.
#[must_use]
pub fn is_answered(path: &Path) -> bool {
    match try_connect(path) {
        Ok(()) => true,
        // It listens, and does not keep up: its queue is full.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn try_connect(path: &Path) -> io::Result<()> {
    let short = Short::of(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(&short.path)?)
}

/// A path that fits into a socket's address. A path that is too long is named through its directory's
/// descriptor, which stays open as long as this is kept.
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
        let is_here = parent.as_os_str().is_empty();
        let directory = File::open(if is_here { Path::new(".") } else { parent })?;
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

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_socket_is_private_before_it_has_its_name_and_before_it_listens() {
        let folder = folder();
        // The folder has the widest mode that its owner may give it.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let path = folder.path().join("admin.sock");
        let socket = PrivateSocket::make(&path).unwrap();
        assert_eq!(mode(&folder.path().join("admin.sock.new")), 0o600);
        assert_eq!(names(&folder), ["admin.sock.new"]);
        socket.open().unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(&folder), ["admin.sock"]);
    }

    #[tokio::test]
    async fn a_later_socket_takes_the_place_of_an_earlier_one_which_does_not_clear_it() {
        let folder = folder();
        let path = folder.path().join("takeover.sock");
        let left_over = folder.path().join("takeover.sock.new");
        drop(std::os::unix::net::UnixListener::bind(left_over).unwrap());
        let first = PrivateSocket::bind(&path).unwrap();
        let second = PrivateSocket::bind(&path).unwrap();
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
    async fn a_socket_that_was_not_opened_leaves_nothing_behind() {
        let folder = folder();
        let path = folder.path().join("admin.sock");
        drop(PrivateSocket::make(&path).unwrap());
        assert!(names(&folder).is_empty());
    }

    #[tokio::test]
    async fn of_two_that_are_made_at_once_the_first_one_is_not_opened_as_the_second() {
        let folder = folder();
        let path = folder.path().join("takeover.sock");
        let first = PrivateSocket::make(&path).unwrap();
        let second = PrivateSocket::make(&path).unwrap();
        let refused = first.open().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        second.open().unwrap();
        assert!(is_answered(&path));
    }

    #[tokio::test]
    async fn a_path_of_any_length_is_listened_and_connected_at() {
        let folder = folder();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("admin.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(is_answered(&path));
        socket.accept().await.unwrap();
        let (connected, accepted) = tokio::join!(connect(&path), socket.accept());
        connected.unwrap();
        accepted.unwrap();
        let long = folder.path().join("n".repeat(120));
        let refused = PrivateSocket::make(&long).unwrap_err().to_string();
        assert!(refused.contains("too long"), "{refused}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_neither_replaced_nor_removed() {
        let folder = folder();
        let path = folder.path().join("notes");
        for there in ["notes", "notes.new"] {
            let there = folder.path().join(there);
            std::fs::write(&there, "mine").unwrap();
            let refused = PrivateSocket::bind(&path).unwrap_err().to_string();
            assert!(refused.contains("is not a socket"), "{refused}");
            assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
            std::fs::remove_file(&there).unwrap();
        }
        let made = PrivateSocket::make(&path).unwrap();
        std::fs::write(&path, "came in between").unwrap();
        assert!(made.open().is_err());
        assert!(path.metadata().unwrap().is_file());
    }

    #[tokio::test]
    async fn a_symbolic_link_is_not_followed_and_its_target_stays_as_it_is() {
        let folder = folder();
        let target = folder.path().join("target");
        std::fs::write(&target, "mine").unwrap();
        std::fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        for link in ["admin.sock", "admin.sock.new"] {
            let link = folder.path().join(link);
            std::os::unix::fs::symlink(&target, &link).unwrap();
            assert!(PrivateSocket::bind(&folder.path().join("admin.sock")).is_err());
            std::fs::remove_file(&link).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(mode(&target), 0o644);
    }

    #[tokio::test]
    async fn a_server_that_is_behind_answers_and_one_that_is_gone_does_not() {
        let folder = folder();
        let path = folder.path().join("admin.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        let mut waiting = 0;
        while try_connect(&path).is_ok() {
            waiting += 1;
            assert!(waiting <= 10 * limits::PRIVATE_BACKLOG);
        }
        assert!(is_answered(&path));
        drop(socket);
        assert!(!is_answered(&path));
    }
}
