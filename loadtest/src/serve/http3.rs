//! HTTP/3, over weft-transport's server for tools outside of the mesh.
//!
//! Not here: how a request is treated (`behaviour.rs`).

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_transport::external::{QuicIncoming, QuicServer};
use weft_transport::http3::ServerRequest;

use super::ThreadContext;
use crate::limits;

/// Accepts connections and answers on each.
pub(super) async fn serve(server: QuicServer, context: ThreadContext) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let body = Bytes::from(vec![b'x'; context.behaviour.body]);
    loop {
        tokio::select! {
            incoming = server.accept() => match incoming {
                Some(incoming) => {
                    connections.spawn(connection(incoming, context.clone(), body.clone()));
                }
                None => return Err(io::Error::other("the QUIC endpoint was closed")),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its errors are the peer's affair.
async fn connection(incoming: QuicIncoming, context: ThreadContext, body: Bytes) {
    let handshake = timeout(limits::CONNECT_TIMEOUT, incoming.handshake());
    let Ok(Ok(mut connection)) = handshake.await else {
        return;
    };
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Ok(Some(request)) => {
                    requests.spawn(answer(request, context.clone(), body.clone()));
                }
                Ok(None) | Err(_) => return,
            },
            Some(_) = requests.join_next() => {}
        }
    }
}

/// One request: read completely, then answered at its time. No answer if the peer breaks it off.
async fn answer(request: ServerRequest, context: ThreadContext, body: Bytes) -> Option<()> {
    let (came, fate) = context.receive();
    let mut upload = request.recv;
    let mut chunks = Vec::new();
    while poll_fn(|cx| upload.poll_chunks(cx, &mut chunks))
        .await
        .ok()?
        > 0
    {
        chunks.clear();
    }
    context.wait(came + fate.first_byte).await;
    let body = if fate.fails { Bytes::new() } else { body };
    let mut response = Response::new(());
    if fate.fails {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let length = HeaderValue::from(body.len());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    let (head, ()) = response.into_parts();
    // Content that goes with the head is in the same packets; a large body is not copied for that.
    let at_once = fate.complete <= fate.first_byte;
    let first = if at_once {
        body.slice(..body.len().min(limits::FIRST_WRITE))
    } else {
        Bytes::new()
    };
    let rest = body.slice(first.len()..);
    let mut send = request
        .respond
        .head_with(&head, first, rest.is_empty())
        .await
        .ok()?;
    if rest.is_empty() {
        return Some(());
    }
    if !at_once {
        context.wait(came + fate.complete).await;
    }
    send.send_data(rest).await.ok()?;
    send.finish().await.ok()
}
