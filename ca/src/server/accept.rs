//! From a TCP connection to a proven caller: bounded, and no handshake holds up another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_transport::tcp::{TlsAcceptor, TlsError, TlsStream};

use crate::authority::Authority;
use crate::limits::CONNECTIONS_MAX;
use crate::service::{Caller, Connection};

/// Accepts connections and hands on those whose handshake succeeds.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
    authority: Arc<Authority>,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, source) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = handshakes.join_next() => continue,
            result = listener.accept() => match result {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: an instant retry would only burn the CPU.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            authority.metrics().count_connection_refused();
            continue;
        };
        let (acceptor, accepted, authority) =
            (acceptor.clone(), accepted.clone(), authority.clone());
        handshakes.spawn(async move {
            match handshake(&acceptor, stream).await {
                Ok(stream) => {
                    let caller = Caller {
                        peer: stream.peer().cloned(),
                        source: source.ip(),
                    };
                    // The receiver is gone only when the server stops.
                    let _ = accepted
                        .send(Ok(Connection {
                            stream,
                            caller,
                            _place: place,
                        }))
                        .await;
                }
                Err(error) => {
                    authority.metrics().count_handshake_failed();
                    tracing::debug!(%source, %error, "handshake failed");
                }
            }
        });
    }
}

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<TlsStream, TlsError> {
    // Answers are one small write each; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    acceptor.accept(stream).await
}
