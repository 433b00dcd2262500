//! One TCP connection of the application to a TCP service, carried by CONNECT, in order: plan, attempts,
//! relay. Filters apply to requests only.
//!
//! No byte of the client is read before the far side has accepted the tunnel. So a refused connection loses
//! no bytes, and the sidecar can reset it as a closed port would. Where routes go by the host that clients of
//! TLS ask for, their first bytes are read to find it ([`super::hello`]), and are sent on before all others.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::TryFutureExt as _;
use weft_transport::wire::{RecvHalf, SendHalf};

use super::answer_stream::AnswerStream;
use super::attempt::{Answered, Upward};
use super::hello::{self, Hello};
use super::outside::Permission;
use super::{Listener, plan, route, source_of};
use crate::failure::{Failure, Reason};
use crate::metrics::Direction;
use crate::outside::Link;
use crate::relay::{self, Carried, splice, tunnel};
use crate::stream::ApplicationStream;
use crate::worker::Worker;

/// What a tunnel leads to. Boxed, because the tunnel's future holds the halves once more.
enum Far {
    Peer(Box<SendHalf>, Box<RecvHalf>),
    Outside(Link),
}

/// Carries one connection to its end.
pub(super) async fn serve(listener: &Listener, application: ApplicationStream) {
    let worker = &listener.worker;
    let mut directory = worker.directory();
    let mut hello = None;
    if route::asks_for_hosts(&directory, &listener.destination) {
        drop(directory);
        hello = Box::pin(hello_of(worker, &application)).await;
        if hello.is_none() {
            return;
        }
        directory = worker.directory();
    }
    let started = Instant::now();
    let source = source_of(listener, &application);
    let wanted = hello.as_deref().map(|hello| &hello.wanted);
    let (mut record, planned) = plan::tunnel(listener, &directory, wanted, source, started);
    // Not kept while the connection lives.
    drop(directory);
    let mut permission = None;
    let connected = match planned {
        Ok(mut exchange) => {
            let answered = exchange.answer(&mut record, started).await;
            let leaves = exchange.route.cluster.outside.is_some();
            permission = leaves.then(|| Arc::new(Permission::new(worker, &exchange.route, None)));
            answered
        }
        Err(failure) => Err(failure),
    };
    let opened = connected.and_then(|answered| {
        let Answered {
            body,
            upward,
            flight,
            ..
        } = answered;
        let opened = match (upward, body) {
            (Upward::Open(send), AnswerStream::Peer(receive)) => Far::Peer(send, Box::new(receive)),
            (Upward::Outside(link), _) => Far::Outside(*link),
            (_, _) => {
                let closed = "a tunnel was accepted whose way up is closed";
                return Err(Failure::new(Reason::Internal, closed));
            }
        };
        Ok((opened, flight))
    });
    let (far, flight) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            application.reset_on_close();
            record.status = failure.reason.status().as_u16();
            return record.end(Err(failure));
        }
    };
    record.status = 200;
    record.flight = Some(flight);
    let carried = Carried::new(Direction::Outbound, record.open_tunnel());
    let idle = worker.shared.timeouts.tunnel_idle;
    let outcome = match far {
        Far::Peer(send, receive) => {
            let sent = match hello {
                None => Ok(*send),
                Some(hello) => Box::pin(send_first(worker, *send, *hello, &carried)).await,
            };
            match sent {
                Ok(send) => {
                    let tunnel = tunnel(&application, send, *receive, idle, &carried);
                    let tunnel = tunnel.map_err(|error| error.failure());
                    worker.until_cut(pin!(tunnel)).await
                }
                Err(failure) => {
                    application.reset_on_close();
                    Err(failure)
                }
            }
        }
        // Boxed, because most tunnels stay in the mesh.
        Far::Outside(link) => {
            let first = hello.map(|hello| hello.bytes).unwrap_or_default();
            let tunnel = splice(&application, first, link, idle, &carried);
            let tunnel = tunnel.map_err(|error| error.failure());
            let permitted = async {
                match &permission {
                    Some(permission) => permission.while_permitted(tunnel).await,
                    None => tunnel.await,
                }
            };
            worker.until_cut(Box::pin(permitted).as_mut()).await
        }
    };
    if worker.cut.is_cancelled() {
        application.reset_on_close();
    }
    record.sent = carried.sent();
    record.received = carried.received();
    record.end(outcome);
}

/// The first bytes of a client whose host decides; none if it has ended, or nothing was asked on it when the
/// sidecar rests.
async fn hello_of(worker: &Worker, application: &ApplicationStream) -> Option<Box<Hello>> {
    tokio::select! {
        biased;
        hello = hello::read(application) => hello.map(Box::new),
        () = worker.rest.cancelled() => None,
    }
}

/// Sends the bytes by which the host was found, and gives the way up back.
async fn send_first(
    worker: &Worker,
    mut send: SendHalf,
    hello: Hello,
    carried: &Carried,
) -> Result<SendHalf, Failure> {
    {
        let sending = relay::send_first(&mut send, hello.bytes.freeze(), carried);
        let sending = sending.map_err(|error| error.failure());
        worker.until_cut(pin!(sending)).await?;
    }
    Ok(send)
}
