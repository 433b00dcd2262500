//! A takeover as the new process sees it.

use std::io;

use tokio::net::UnixStream;
use tokio::time::timeout;
use weft_config::client::Registration;
use weft_config::settings::ProxySettings;
use weft_transport::endpoint::Epoch;
use weft_transport::identity::SpiffeId;
use weft_transport::private_socket;

use super::channel::Channel;
use super::message::{Message, MessageError, Offer, OfferedSockets, Request, other_wildcard};
use super::{TakeoverError, check_user, request, socket_error};
use crate::limits;

/// The last good table in the state directory, which `weft_config::client` reads before anything is served.
const TABLE_FILE: &str = "table.json";

/// The running process, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    offer: Offer,
    offered: OfferedSockets,
}

/// Whether there is a predecessor that has to be asked before this process reads and accepts.
#[derive(Debug)]
pub(crate) enum Before {
    /// There is none.
    None,
    /// The predecessor goes on until it is told to hand over.
    Waits(Unconfirmed),
}

/// The running process, whose sockets are here as well. Dropping this leaves it as it was.
#[derive(Debug)]
pub(crate) struct Unconfirmed(Channel);

/// The right to read the mesh port and to accept: no other process does so. Only [`Before::confirm`] makes
/// one.
#[derive(Debug)]
pub(crate) struct MeshPortRight(Option<Channel>);

/// The predecessor, which only finishes its work.
#[derive(Debug)]
pub(crate) struct Released(Channel);

impl Predecessor {
    /// Asks the process at the socket of the settings for its sockets; `None` if there is no socket in the
    /// settings or no process answers there. The running process goes on until [`crate::start`] tells it to
    /// stop.
    ///
    /// # Errors
    /// When there is one, and it cannot be taken over.
    pub async fn find(
        settings: &ProxySettings,
        identity: &SpiffeId,
    ) -> Result<Option<Self>, TakeoverError> {
        let Some(path) = &settings.takeover_socket else {
            return Ok(None);
        };
        let stream = match private_socket::connect(path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                tracing::info!(socket = %path.display(), "no sidecar to take over from: starting anew");
                return Ok(None);
            }
            Err(error) => return Err(socket_error(path, error)),
        };
        let request = request(settings, identity);
        let found = match Self::ask(stream, request.clone()).await {
            // Earlier versions compare literally, and some bound the other wildcard.
            Err(refused @ TakeoverError::Refused(_))
                if let Some(mesh) = request.mesh.and_then(other_wildcard) =>
            {
                let other = Request {
                    mesh: Some(mesh),
                    ..request
                };
                let again = private_socket::connect(path).await;
                let again = again.map_err(|error| socket_error(path, error))?;
                Self::ask(again, other).await.map_err(|_| refused)
            }
            asked => asked,
        }?;
        if found.offer.has_table && !settings.state_dir.join(TABLE_FILE).exists() {
            return Err(TakeoverError::NoTable);
        }
        Ok(Some(found))
    }

    async fn ask(stream: UnixStream, request: Request) -> Result<Self, TakeoverError> {
        let asked = timeout(
            limits::TAKEOVER_TIMEOUT,
            Self::offered(Channel::new(stream), request),
        );
        asked
            .await
            .unwrap_or(Err(TakeoverError::Timeout(limits::TAKEOVER_TIMEOUT)))
    }

    async fn offered(mut channel: Channel, request: Request) -> Result<Self, TakeoverError> {
        check_user(&channel)?;
        channel.send(&Message::Request(request)).await?;
        let offer = match channel.receive().await? {
            Message::Offer(offer) => offer,
            Message::Refusal(reason) => return Err(TakeoverError::Refused(reason)),
            Message::Request(_)
            | Message::Ready
            | Message::Yours
            | Message::Taken
            | Message::Settled => {
                return Err(MessageError::Unexpected.into());
            }
        };
        let count = offer.descriptors().min(limits::TAKEOVER_DESCRIPTORS_MAX);
        let descriptors = channel.receive_descriptors(count).await;
        let offered = offer.assign(descriptors.map_err(TakeoverError::Broken)?)?;
        Ok(Self {
            channel,
            offer,
            offered,
        })
    }

    /// The state with which the new process goes on at the config service.
    pub fn registration(&self) -> Registration {
        self.offer.registration.clone()
    }

    /// Its epoch, and those of the processes before it that still drain.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        let all = self.offer.elders.iter().flatten();
        let all = self.offer.epochs.iter().chain(all);
        all.copied().map(Epoch).collect()
    }

    /// Its sockets, and itself in the state that is still to be asked.
    pub(crate) fn inherit(self) -> (OfferedSockets, Before) {
        (self.offered, Before::Waits(Unconfirmed(self.channel)))
    }
}

impl Before {
    /// Tells the predecessor to hand over. When this returns without an error, the predecessor does not read
    /// the mesh port: it confirmed that, or it ended in between. A predecessor that breaks off in another way
    /// may still read, so that is an error.
    pub(crate) async fn confirm(self) -> Result<MeshPortRight, TakeoverError> {
        match self {
            Self::None => Ok(MeshPortRight(None)),
            Self::Waits(Unconfirmed(mut channel)) => {
                let confirmed = timeout(limits::TAKEOVER_TIMEOUT, confirmed(&mut channel));
                match confirmed.await {
                    Ok(outcome) => unless_ended(outcome)?,
                    Err(_) => return Err(TakeoverError::Timeout(limits::TAKEOVER_TIMEOUT)),
                }
                Ok(MeshPortRight(Some(channel)))
            }
        }
    }
}

impl MeshPortRight {
    /// Whether another process had it before.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the predecessor end, if there is one, once this process serves and the service manager knows it.
    /// If that comes too late, the predecessor has gone back to its work, and this process must end.
    pub(crate) async fn release(self) -> Result<Option<Released>, TakeoverError> {
        let Some(mut channel) = self.0 else {
            return Ok(None);
        };
        unless_ended(say(&mut channel, &Message::Settled).await)?;
        Ok(Some(Released(channel)))
    }
}

impl Released {
    /// Waits until it has ended.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}

async fn confirmed(channel: &mut Channel) -> Result<(), TakeoverError> {
    say(channel, &Message::Ready).await?;
    match channel.receive().await? {
        Message::Yours => {}
        Message::Refusal(reason) => return Err(TakeoverError::Refused(reason)),
        Message::Request(_)
        | Message::Offer(_)
        | Message::Ready
        | Message::Taken
        | Message::Settled => return Err(MessageError::Unexpected.into()),
    }
    if channel.takes() {
        say(channel, &Message::Taken).await?;
    }
    Ok(())
}

/// Sends a message. If the other process no longer reads, returns why.
async fn say(channel: &mut Channel, message: &Message) -> Result<(), TakeoverError> {
    match channel.send(message).await {
        Err(TakeoverError::Broken(_)) => match channel.receive().await {
            Ok(Message::Refusal(reason)) => Err(TakeoverError::Refused(reason)),
            Ok(_) | Err(_) => Err(TakeoverError::Ended),
        },
        outcome => outcome,
    }
}

/// The sockets of a process that has ended are free.
fn unless_ended(outcome: Result<(), TakeoverError>) -> Result<(), TakeoverError> {
    match outcome {
        Err(TakeoverError::Ended) => {
            tracing::warn!("the running sidecar ended during the takeover: its sockets are here");
            Ok(())
        }
        outcome => outcome,
    }
}
