//! The local socket of a control-plane process: private from its first moment, with bounded connections. What is
//! served on it is the process's own matter.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_transport::shares::{Bounds, Places};

use crate::connection::{ACCEPT_PAUSE, Held};

/// A connection of a local command; it ends when its time is over or newer ones need its place.
pub type LocalConnection = Held<UnixStream, ()>;

/// Where a socket is made before it gets its name. Together no longer than `admin.sock`: a socket's path has at
/// most 107 bytes.
const WORKSHOP: &str = "sock.new";
const UNNAMED: &str = "s";

/// Listens at `path`, in place of a socket that may be there. No other user can connect at any moment, whatever the
/// umask and the mode of the directory: the socket is made in a directory that only its owner may enter.
///
/// # Errors
/// When the operating system refuses.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let workshop = path.with_file_name(WORKSHOP);
    let unnamed = workshop.join(UNNAMED);
    // Left by a process that was killed here.
    remove(fs::remove_file(&unnamed))?;
    remove(fs::remove_dir(&workshop))?;
    DirBuilder::new().mode(0o700).create(&workshop)?;
    let listener = UnixListener::bind(&unnamed)?;
    fs::set_permissions(&unnamed, Permissions::from_mode(0o600))?;
    fs::rename(&unnamed, path)?;
    fs::remove_dir(&workshop)?;
    Ok(listener)
}

fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Accepts connections until `shutdown`: at most `places` at once, each for at most `life`. A new one is always
/// accepted; the oldest goes for it.
pub async fn accept(
    listener: UnixListener,
    places: usize,
    life: Duration,
    accepted: mpsc::Sender<io::Result<LocalConnection>>,
    shutdown: CancellationToken,
) {
    let bounds = Bounds {
        places,
        each: places,
    };
    let places = Places::new(bounds);
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            result = listener.accept() => match result {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a local connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = Held::new(stream, (), places.enter(()), life, |_| ());
        // The receiver is gone only when the server stops.
        if accepted.send(Ok(connection)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_socket_replaces_what_is_there_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(bind(&path).unwrap());
        fs::create_dir(directory.path().join(WORKSHOP)).unwrap();
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_connection_is_served_and_the_oldest_ends_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = bind(&path).unwrap();
        let (accepted, mut connections) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let accepting = accept(
            listener,
            1,
            Duration::from_secs(60),
            accepted,
            shutdown.clone(),
        );
        let test = async {
            let _first = UnixStream::connect(&path).await.unwrap();
            let mut first = connections.recv().await.unwrap().unwrap();
            let _second = UnixStream::connect(&path).await.unwrap();
            let _served = connections.recv().await.unwrap().unwrap();
            assert!(first.read_u8().await.is_err());
            shutdown.cancel();
        };
        tokio::join!(accepting, test);
    }
}
