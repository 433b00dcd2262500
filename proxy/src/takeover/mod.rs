//! A restart that no request notices: the new process takes every listening socket from the running one, which
//! then finishes what it has under way and ends.
//!
//! [`Predecessor::find`] is the side of the new process, [`Incumbent::successor`] that of the running one;
//! what they say is in [`message`]. Who reads the mesh port meanwhile is `weft_transport::endpoint::Reading`.
//! Until the new process has settled, the running one can go back to its work, and does when the new one dies or hangs.
//! Not here: how what is under way ends (`run/running.rs`).

mod channel;
mod message;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use weft_config::client::Registration;
use weft_config::settings::{LocalAddress, ProxySettings};
use weft_transport::endpoint::{Elder, Epoch, InheritError, RelayPair};
use weft_transport::identity::SpiffeId;
use weft_transport::private_socket::{self, PrivateSocket};
use weft_transport::rarely::Rarely;

use crate::limits;
use crate::run::ControlPlane;
use channel::Channel;
pub(crate) use message::Estate;
pub use message::MessageError;
use message::{Message, Offer, Request, other_wildcard};

/// The last good table in the state directory, which `weft_config::client` reads before anything is served.
const TABLE_FILE: &str = "table.json";

/// Why a takeover came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The socket.
    #[error("takeover_socket {path}: {error}")]
    Socket {
        /// Of the settings.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Descriptors go only to the same user.
    #[error(
        "takeover_socket: the other process is of user {theirs} and this one of user {ours}, which is not permitted: run both as one user"
    )]
    User {
        /// Of the other process.
        theirs: u32,
        /// Of this one.
        ours: u32,
    },
    /// The running process does not want it.
    #[error("the running sidecar refused the takeover: {0}")]
    Refused(String),
    /// What was said is not what should be.
    #[error("takeover: {0}")]
    Message(#[from] MessageError),
    /// The sockets do not fit the settings.
    #[error("takeover: {0}")]
    Inherit(#[from] InheritError),
    /// The new process would refuse what the running one serves.
    #[error(
        "takeover: the running sidecar has a table, and there is none in state_dir: is it another directory, or full?"
    )]
    NoTable,
    /// The other process said nothing.
    #[error("takeover: the other process did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A worker of the running process did not come to leave the mesh port.
    #[error("takeover: a worker still read the mesh port after {} s", limits::HAND_OVER_TIMEOUT.as_secs())]
    Busy,
    /// The other process ended.
    #[error("takeover: the other process ended")]
    Ended,
    /// The connection between the two.
    #[error("takeover: {0}")]
    Broken(io::Error),
}

/// The running process, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    offer: Offer,
    estate: Option<Estate>,
}

impl Predecessor {
    /// Asks the process at the socket of the settings for what it has; `None` if there is no socket in the
    /// settings or no process answers there. The running process goes on until [`crate::start`] says otherwise.
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
            // Versions before this one compare literally, and some bound the other wildcard.
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
        let estate = offer.assign(descriptors.map_err(TakeoverError::Broken)?)?;
        Ok(Self {
            channel,
            offer,
            estate: Some(estate),
        })
    }

    /// What the new process goes on with at the config service.
    pub fn registration(&self) -> Registration {
        self.offer.registration.clone()
    }

    /// Its epoch, and those of the processes before it that still drain.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        let all = self.offer.elders.iter().flatten();
        let all = self.offer.epochs.iter().chain(all);
        all.copied().map(Epoch).collect()
    }

    /// Its sockets, once.
    pub(crate) fn take_estate(&mut self) -> Option<Estate> {
        self.estate.take()
    }

    /// Tells it to hand over. When this returns without an error it does not read the mesh port: because it said
    /// so, or because it ended in between. One that breaks off otherwise may still read, so that is an error.
    pub(crate) async fn confirm(&mut self) -> Result<(), TakeoverError> {
        let confirmed = async {
            self.say(&Message::Ready).await?;
            match self.channel.receive().await? {
                Message::Yours => {}
                Message::Refusal(reason) => return Err(TakeoverError::Refused(reason)),
                Message::Request(_)
                | Message::Offer(_)
                | Message::Ready
                | Message::Taken
                | Message::Settled => return Err(MessageError::Unexpected.into()),
            }
            if self.channel.takes() {
                self.say(&Message::Taken).await?;
            }
            Ok(())
        };
        match timeout(limits::TAKEOVER_TIMEOUT, confirmed).await {
            Ok(outcome) => unless_ended(outcome),
            Err(_) => Err(TakeoverError::Timeout(limits::TAKEOVER_TIMEOUT)),
        }
    }

    /// Lets it end, once this process serves and the service manager knows it. If that comes too late, the running
    /// process has gone back to its work, and this one must end.
    pub(crate) async fn release(&mut self) -> Result<(), TakeoverError> {
        unless_ended(self.say(&Message::Settled).await)
    }

    /// Says something. If it is not heard any more: why.
    async fn say(&mut self, message: &Message) -> Result<(), TakeoverError> {
        match self.channel.send(message).await {
            Err(TakeoverError::Broken(_)) => match self.channel.receive().await {
                Ok(Message::Refusal(reason)) => Err(TakeoverError::Refused(reason)),
                Ok(_) | Err(_) => Err(TakeoverError::Ended),
            },
            outcome => outcome,
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(&self) {
        self.channel.closed().await;
    }
}

/// What belongs to a process that has ended is free.
fn unless_ended(outcome: Result<(), TakeoverError>) -> Result<(), TakeoverError> {
    match outcome {
        Err(TakeoverError::Ended) => {
            tracing::warn!("the running sidecar ended during the takeover: its sockets are here");
            Ok(())
        }
        outcome => outcome,
    }
}

/// What the running process can hand over.
pub(crate) struct Incumbent {
    pub(crate) door: PrivateSocket,
    pub(crate) expects: Expected,
    pub(crate) kept: Kept,
    pub(crate) epoch: Epoch,
}

/// Every listening socket once more.
pub(crate) struct Kept {
    /// Of the mesh side, in the order of the workers; none if it serves nothing.
    pub(crate) mesh: Option<Vec<UdpSocket>>,
    /// By the address in the settings.
    pub(crate) listeners: Vec<(LocalAddress, Vec<OwnedFd>)>,
    /// Of the admin endpoint, with its address in the settings: the one for this host, and the one for others
    /// if there is one.
    pub(crate) admin: Vec<(SocketAddr, OwnedFd)>,
}

/// What a running process compares a request with.
pub(crate) struct Expected(Request);

impl Expected {
    pub(crate) fn new(settings: &ProxySettings, identity: &SpiffeId) -> Self {
        Self(request(settings, identity))
    }
}

/// A new process that is ready to read and to accept.
pub(crate) struct Successor {
    channel: Channel,
    /// For each worker the receiving end of its relay.
    pub(crate) relays: Vec<OwnedFd>,
}

impl Successor {
    /// Tells it that the mesh port is its own, and waits until it takes it. From an error on this process may read
    /// again.
    pub(crate) async fn take(&mut self) -> Result<(), TakeoverError> {
        self.channel.send(&Message::Yours).await?;
        if self.channel.takes() {
            self.hear(Message::Taken, limits::SUCCESSOR_TAKES_WITHIN)
                .await
        } else {
            Ok(())
        }
    }

    /// Waits until it serves, and this process may give everything up. From an error on this process may go on.
    pub(crate) async fn settled(&mut self) -> Result<(), TakeoverError> {
        if self.channel.takes() {
            let within = limits::SUCCESSOR_SETTLES_WITHIN;
            return self.hear(Message::Settled, within).await;
        }
        // One of an earlier revision goes on whether it is heard or not: only its end gives the port back.
        match timeout(limits::TAKEOVER_TIMEOUT, self.channel.receive()).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    async fn hear(&mut self, expected: Message, within: Duration) -> Result<(), TakeoverError> {
        let heard = match timeout(within, self.channel.receive()).await {
            Ok(heard) => heard?,
            Err(_) => {
                // It may have said so at this moment. If not, it cannot any more.
                let stopped = self.channel.stop_hearing();
                stopped.map_err(TakeoverError::Broken)?;
                let heard = self.channel.receive().await;
                heard.map_err(|_| TakeoverError::Timeout(within))?
            }
        };
        if heard == expected {
            Ok(())
        } else {
            Err(MessageError::Unexpected.into())
        }
    }

    /// Tells it that this process goes on. Nothing that it says is heard from here on.
    pub(crate) async fn refuse(mut self, why: &TakeoverError) {
        // If it is gone, there is none to tell.
        let _ = self.channel.stop_hearing();
        let refusal = Message::Refusal(format!("it goes on itself: {why}"));
        let _ = self.channel.send(&refusal).await;
    }

    /// Whether it knows of the processes before this one, and reaches them without it.
    pub(crate) fn knows_elders(&self) -> bool {
        self.channel.takes()
    }
}

impl Incumbent {
    /// Waits for a process that takes over and is ready to. One that fails before leaves no trace but a line
    /// in the log. `elders` are the processes before this one.
    pub(crate) async fn successor(
        &self,
        elders: impl Fn() -> io::Result<Vec<Elder>>,
        control: &Arc<dyn ControlPlane>,
    ) -> Successor {
        let failures = Rarely::by_a_state();
        loop {
            let offered = match self.door.accept().await {
                Ok(stream) => {
                    let offered = self.offer(Channel::new(stream), &elders, control);
                    timeout(limits::TAKEOVER_TIMEOUT, offered)
                        .await
                        .unwrap_or(Err(TakeoverError::Timeout(limits::TAKEOVER_TIMEOUT)))
                }
                Err(error) => {
                    tokio::time::sleep(limits::ACCEPT_ERROR_PAUSE).await;
                    Err(TakeoverError::Broken(error))
                }
            };
            match offered {
                Ok(successor) => return successor,
                Err(error) => {
                    failures.log(|left_out| {
                        tracing::warn!(%error, left_out, "not taken over: this process goes on");
                    });
                }
            }
        }
    }

    async fn offer(
        &self,
        mut channel: Channel,
        elders: impl Fn() -> io::Result<Vec<Elder>>,
        control: &Arc<dyn ControlPlane>,
    ) -> Result<Successor, TakeoverError> {
        let request = match check_user(&channel) {
            Ok(()) => channel.receive().await?,
            Err(error) => return refuse(channel, error.to_string()).await,
        };
        let Message::Request(request) = request else {
            return Err(MessageError::Unexpected.into());
        };
        if let Err(reason) = request.fits(&self.expects.0) {
            return refuse(channel, reason).await;
        }
        let Some(&(admin, _)) = self.kept.admin.first() else {
            return Err(MessageError::Unexpected.into());
        };
        let mut elders = elders().map_err(TakeoverError::Broken)?;
        let mut epochs = vec![self.epoch.0];
        if self.kept.mesh.is_none() {
            elders.clear();
        }
        if !channel.takes() {
            // One that does not know elders sends all that is theirs here.
            let all = elders.drain(..).flat_map(|elder| elder.epochs);
            epochs.extend(all.map(|epoch| epoch.0));
        }
        let epochs_of = |elder: &Elder| elder.epochs.iter().map(|epoch| epoch.0).collect();
        let offer = Offer {
            epochs,
            elders: elders.iter().map(epochs_of).collect(),
            workers: request.workers,
            mesh: request.mesh,
            listeners: self
                .kept
                .listeners
                .iter()
                .map(|(at, _)| at.clone())
                .collect(),
            admin,
            observe: self.kept.admin.get(1).map(|(at, _)| *at),
            registration: control.registration().await,
            has_table: control.tables().borrow().is_some(),
        };
        if offer.descriptors() > limits::TAKEOVER_DESCRIPTORS_MAX {
            let reason = format!(
                "it has {} sockets, and at most {} can be handed over",
                offer.descriptors(),
                limits::TAKEOVER_DESCRIPTORS_MAX
            );
            return refuse(channel, reason).await;
        }
        let (mut sending, mut relays) = (Vec::new(), Vec::new());
        for _ in self.kept.mesh.iter().flatten() {
            let pair = RelayPair::new().map_err(TakeoverError::Broken)?;
            sending.push(pair.sending);
            relays.push(pair.receiving);
        }
        let mut descriptors = Vec::new();
        descriptors.extend(self.kept.mesh.iter().flatten().map(AsFd::as_fd));
        descriptors.extend(sending.iter().map(AsFd::as_fd));
        let of_elders = elders.iter().flat_map(|elder| &elder.relays);
        descriptors.extend(of_elders.map(AsFd::as_fd));
        let listeners = self.kept.listeners.iter().flat_map(|(_, sockets)| sockets);
        descriptors.extend(listeners.map(AsFd::as_fd));
        descriptors.extend(self.kept.admin.iter().map(|(_, socket)| socket.as_fd()));
        channel.send(&Message::Offer(offer)).await?;
        let sent = channel.send_descriptors(&descriptors).await;
        sent.map_err(TakeoverError::Broken)?;
        if channel.receive().await? == Message::Ready {
            Ok(Successor { channel, relays })
        } else {
            Err(MessageError::Unexpected.into())
        }
    }
}

async fn refuse(mut channel: Channel, reason: String) -> Result<Successor, TakeoverError> {
    channel.send(&Message::Refusal(reason.clone())).await?;
    Err(TakeoverError::Refused(reason))
}

fn request(settings: &ProxySettings, identity: &SpiffeId) -> Request {
    Request {
        identity: identity.to_string(),
        workers: settings.workers.get(),
        mesh: settings.inbound.as_ref().map(|inbound| inbound.listen),
    }
}

/// The socket's mode keeps others out; this holds where that was changed.
fn check_user(channel: &Channel) -> Result<(), TakeoverError> {
    let theirs = channel.user().map_err(TakeoverError::Broken)?;
    let ours = rustix::process::geteuid().as_raw();
    if theirs == ours {
        Ok(())
    } else {
        Err(TakeoverError::User { theirs, ours })
    }
}

pub(crate) fn socket_error(path: &Path, error: io::Error) -> TakeoverError {
    TakeoverError::Socket {
        path: path.to_owned(),
        error,
    }
}
