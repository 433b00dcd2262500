//! Connections of local commands to a control-plane process, for the CA and the config service: a bounded
//! number, each for a bounded time. The socket is `weft_transport::private_socket`; the process decides what
//! it serves on it.

use std::io;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use tokio::net::UnixStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_transport::limited_log::LimitedLog;
use weft_transport::private_socket::PrivateSocket;
use weft_transport::shares::{Bounds, Places};

use crate::connection::ServerStream;
use crate::limits::ACCEPT_PAUSE;

/// A connection of a local command; it ends when its time is over or newer ones need its place.
pub type LocalConnection = ServerStream<UnixStream, ()>;

/// The connections that come in: at most `places` at once, each for at most `life`. A new one is always
/// accepted, and the oldest is closed for it. No task runs behind it: it accepts while its server polls it,
/// and dropping it closes its socket. All connections end with `end`, which the server cancels when it has
/// stopped, because a graceful shutdown waits for connections that have sent no byte of HTTP/2 as long as
/// they are open.
pub fn incoming(
    socket: PrivateSocket,
    places: usize,
    life: Duration,
    end: CancellationToken,
) -> impl Stream<Item = io::Result<LocalConnection>> + Send + 'static {
    let bounds = Bounds {
        places,
        each: places,
    };
    unfold(
        (socket, Places::new(bounds), end, LimitedLog::by_a_state()),
        move |(socket, places, end, failures)| async move {
            let stream = accept(&socket, &failures).await;
            let place = places.enter(());
            let ended = end.clone().cancelled_owned();
            let connection = ServerStream::new(stream, (), async move {
                tokio::select! {
                    () = place.taken_back() => {}
                    () = sleep(life) => {}
                    () = ended => {}
                }
            });
            Some((Ok(connection), (socket, places, end, failures)))
        },
    )
}

async fn accept(socket: &PrivateSocket, failures: &LimitedLog) -> UnixStream {
    loop {
        match socket.accept().await {
            Ok(stream) => return stream,
            Err(error) => {
                failures.log(|left_out| {
                    tracing::warn!(%error, left_out, "cannot accept a local connection");
                });
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use futures_util::StreamExt as _;
    use tokio::io::AsyncReadExt;
    use weft_transport::private_socket::connect;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn socket() -> (tempfile::TempDir, PathBuf, PrivateSocket) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let socket = PrivateSocket::bind(&path).unwrap();
        (directory, path, socket)
    }

    #[tokio::test]
    async fn the_newest_connection_is_served_and_the_oldest_ends_for_it() {
        let (_directory, path, socket) = socket();
        let mut incoming = Box::pin(incoming(socket, 1, HOUR, CancellationToken::new()));
        let _first = connect(&path).await.unwrap();
        let mut first = incoming.next().await.unwrap().unwrap();
        let _second = connect(&path).await.unwrap();
        let _served = incoming.next().await.unwrap().unwrap();
        assert!(first.read_u8().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_time() {
        let (_directory, path, socket) = socket();
        let mut incoming = Box::pin(incoming(socket, 1, HOUR, CancellationToken::new()));
        let _idle = connect(&path).await.unwrap();
        let mut idle = incoming.next().await.unwrap().unwrap();
        let begun = tokio::time::Instant::now();
        assert!(idle.read_u8().await.is_err());
        assert!(begun.elapsed() >= HOUR);
    }

    #[tokio::test]
    async fn connections_end_with_their_server() {
        let (_directory, path, socket) = socket();
        let end = CancellationToken::new();
        let mut incoming = Box::pin(incoming(socket, 2, HOUR, end.clone()));
        let _idle = connect(&path).await.unwrap();
        let mut idle = incoming.next().await.unwrap().unwrap();
        drop(end.drop_guard());
        assert!(idle.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_stops_asking_closes_its_socket() {
        let (_directory, path, socket) = socket();
        drop(incoming(socket, 1, HOUR, CancellationToken::new()));
        let refused = connect(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
