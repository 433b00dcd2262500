//! TCP and UDP: what comes goes back, after the delay that its behaviour says.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::Desk;
use crate::limits;

/// Accepts connections and echoes on each.
pub(super) async fn serve_tcp(listener: TcpListener, desk: Desk) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(echo(stream, desk.clone()));
                }
                Err(error) => super::http::accept_failed(&desk, &error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its errors are the peer's affair.
async fn echo(mut stream: TcpStream, desk: Desk) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; limits::SERVE_BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let (came, fate) = desk.receive();
        if fate.fails {
            // An error without a word for it: the connection ends.
            return Ok(());
        }
        desk.wait(came + fate.complete).await;
        let bytes = buffer.get(..read).unwrap_or_default();
        stream.write_all(bytes).await?;
    }
}

/// Sends every datagram back.
pub(super) async fn serve_udp(socket: UdpSocket, desk: Desk) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; limits::DATAGRAM_MAX];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error here is a refusal of an earlier answer (ICMP).
                let Ok((length, peer)) = received else { continue };
                let (came, fate) = desk.receive();
                if fate.fails || answers.len() >= limits::SERVE_DATAGRAMS_MAX {
                    continue;
                }
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                let (socket, desk) = (Arc::clone(&socket), desk.clone());
                answers.spawn(async move {
                    desk.wait(came + fate.complete).await;
                    // Datagrams may be lost, also here.
                    let _ = socket.send_to(&datagram, peer).await;
                });
            }
            Some(_) = answers.join_next() => {}
        }
    }
}
