//! TCP and UDP without a protocol above: bytes are echoed, dropped or generated, after the delay of the
//! behaviour.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::ThreadContext;
use crate::limits;

/// The use of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Every byte comes back.
    Echo,
    /// Bytes are dropped; when the client has ended its side, the connection is closed.
    Sink,
    /// A body is sent, then the connection is closed.
    Source,
}

/// Accepts connections and serves each as `role` says.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    role: Role,
    context: ThreadContext,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, role, context.clone()));
                }
                Err(error) => super::http::accept_failed(&context, &error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its errors are the peer's affair.
async fn serve_one(stream: TcpStream, role: Role, context: ThreadContext) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match role {
        Role::Echo => echo(stream, context).await,
        Role::Sink => sink(stream, context).await,
        Role::Source => source(stream, context).await,
    }
}

async fn echo(mut stream: TcpStream, context: ThreadContext) -> io::Result<()> {
    let mut buffer = vec![0; limits::SERVE_BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let (came, fate) = context.receive();
        if fate.fails {
            // This protocol has no way to report an error: the connection ends.
            return Ok(());
        }
        context.wait(came + fate.complete).await;
        let bytes = buffer.get(..read).unwrap_or_default();
        stream.write_all(bytes).await?;
    }
}

async fn sink(mut stream: TcpStream, context: ThreadContext) -> io::Result<()> {
    let (_, fate) = context.receive();
    if fate.fails {
        return reset(&stream);
    }
    let mut buffer = vec![0; limits::SERVE_BULK_BUFFER];
    while stream.read(&mut buffer).await? > 0 {}
    // The delay is that of the answer, which begins when all bytes have come.
    context.wait(context.clock.now() + fate.complete).await;
    Ok(())
}

async fn source(mut stream: TcpStream, context: ThreadContext) -> io::Result<()> {
    let (came, fate) = context.receive();
    if fate.fails {
        return reset(&stream);
    }
    context.wait(came + fate.complete).await;
    let piece = vec![b'x'; limits::SERVE_BULK_BUFFER.min(context.behaviour.body)];
    let mut left = context.behaviour.body;
    while left > 0 {
        let next = piece.get(..left.min(piece.len())).unwrap_or_default();
        stream.write_all(next).await?;
        left -= next.len();
    }
    stream.shutdown().await?;
    // The client's bytes are read to their end: closing a socket with unread bytes resets it, and bytes in
    // flight are lost.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Ends a connection that should fail: a clean end would be an empty transfer, which is a success.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Sends every datagram back.
pub(super) async fn serve_udp(socket: UdpSocket, context: ThreadContext) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; limits::DATAGRAM_MAX];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error here is a refusal of an earlier answer (ICMP).
                let Ok((length, peer)) = received else { continue };
                let (came, fate) = context.receive();
                if fate.fails || answers.len() >= limits::SERVE_DATAGRAMS_MAX {
                    continue;
                }
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                let (socket, context) = (Arc::clone(&socket), context.clone());
                answers.spawn(async move {
                    context.wait(came + fate.complete).await;
                    // Datagrams may be lost, also here.
                    let _ = socket.send_to(&datagram, peer).await;
                });
            }
            Some(_) = answers.join_next() => {}
        }
    }
}
