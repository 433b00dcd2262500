//! A takeover as the running process sees it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weft_config::settings::{LocalAddress, ProxySettings};
use weft_transport::endpoint::{EarlierProcess, Epoch, RelayPair};
use weft_transport::identity::SpiffeId;
use weft_transport::limited_log::LimitedLog;
use weft_transport::private_socket::PrivateSocket;

use super::channel::Channel;
use super::message::{Message, MessageError, Offer, Request};
use super::{TakeoverError, check_user, request};
use crate::limits;
use crate::run::ControlPlane;

/// The sockets that the running process can hand over.
pub(crate) struct Incumbent {
    pub(crate) socket: PrivateSocket,
    pub(crate) expects: Expected,
    pub(crate) kept: KeptSockets,
    pub(crate) epoch: Epoch,
}

/// Every listening socket once more.
pub(crate) struct KeptSockets {
    /// Of the mesh side, in the order of the workers; none if the process serves nothing.
    pub(crate) mesh: Option<Vec<UdpSocket>>,
    /// By the address in the settings.
    pub(crate) listeners: Vec<(LocalAddress, Vec<OwnedFd>)>,
    /// Of the admin endpoint, with its address in the settings: the socket for this host, and the one for
    /// other hosts if there is one.
    pub(crate) admin: Vec<(SocketAddr, OwnedFd)>,
}

/// The values that a running process compares a request with.
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
    relays: Vec<OwnedFd>,
}

/// It waits for the mesh port, which this process is leaving.
pub(crate) struct Waiting(Channel);

/// It reads the mesh port, and has yet to say that it serves.
pub(crate) struct Reader(Channel);

/// It serves. From here on this process may give everything up, and does nothing else.
pub(crate) struct Settled(Channel);

/// The takeover failed: this process goes on, once the other one has been told.
pub(crate) struct Undone {
    channel: Channel,
    error: TakeoverError,
}

impl Successor {
    /// The receiving ends of the relays, by worker, and itself in the state that waits.
    pub(crate) fn waits(self) -> (Vec<OwnedFd>, Waiting) {
        (self.relays, Waiting(self.channel))
    }
}

impl Waiting {
    /// Tells it that the mesh port is its own, and waits until it takes it.
    pub(crate) async fn take(self) -> Result<Reader, Undone> {
        let Self(mut channel) = self;
        let taken = async {
            channel.send(&Message::Yours).await?;
            if channel.takes() {
                hear(&mut channel, Message::Taken, limits::SUCCESSOR_TAKES_WITHIN).await?;
            }
            Ok(())
        };
        match taken.await {
            Ok(()) => Ok(Reader(channel)),
            Err(error) => Err(Undone { channel, error }),
        }
    }

    /// This process does not leave the port.
    pub(crate) fn undone(self, error: TakeoverError) -> Undone {
        let Self(channel) = self;
        Undone { channel, error }
    }
}

impl Reader {
    /// Waits until it serves.
    pub(crate) async fn settled(self) -> Result<Settled, Undone> {
        let Self(mut channel) = self;
        let settled = if channel.takes() {
            hear(
                &mut channel,
                Message::Settled,
                limits::SUCCESSOR_SETTLES_WITHIN,
            )
            .await
        } else {
            // A process of an earlier revision goes on whether or not its messages are read: only its end
            // gives the port back.
            match timeout(limits::TAKEOVER_TIMEOUT, channel.receive()).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Ok(()),
            }
        };
        match settled {
            Ok(()) => Ok(Settled(channel)),
            Err(error) => Err(Undone { channel, error }),
        }
    }
}

impl Settled {
    /// Whether it knows of the processes before this one, and reaches them directly.
    pub(crate) fn knows_elders(&self) -> bool {
        self.0.takes()
    }
}

impl Undone {
    /// Tells it that this process goes on, and why. Later messages from it are ignored.
    pub(crate) async fn refuse(self) -> TakeoverError {
        let Self { mut channel, error } = self;
        // If the other process is gone, there is none to tell.
        let _ = channel.stop_hearing();
        let refusal = Message::Refusal(format!("it goes on itself: {error}"));
        let _ = channel.send(&refusal).await;
        error
    }
}

async fn hear(
    channel: &mut Channel,
    expected: Message,
    within: Duration,
) -> Result<(), TakeoverError> {
    let heard = match timeout(within, channel.receive()).await {
        Ok(heard) => heard?,
        Err(_) => {
            // It may have said so at this moment. If not, it no longer can.
            channel.stop_hearing().map_err(TakeoverError::Broken)?;
            let heard = channel.receive().await;
            heard.map_err(|_| TakeoverError::Timeout(within))?
        }
    };
    if heard == expected {
        Ok(())
    } else {
        Err(MessageError::Unexpected.into())
    }
}

impl Incumbent {
    /// Waits for a successor that is ready. One that fails earlier leaves only a line in the log. `elders`
    /// are the processes before this one.
    pub(crate) async fn successor(
        &self,
        elders: impl Fn() -> io::Result<Vec<EarlierProcess>>,
        control: &Arc<dyn ControlPlane>,
    ) -> Successor {
        let failures = LimitedLog::by_a_state();
        loop {
            let offered = match self.socket.accept().await {
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
        elders: impl Fn() -> io::Result<Vec<EarlierProcess>>,
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
            // A process that does not know elders sends all of their datagrams here.
            let all = elders.drain(..).flat_map(|elder| elder.epochs);
            epochs.extend(all.map(|epoch| epoch.0));
        }
        let epochs_of = |elder: &EarlierProcess| elder.epochs.iter().map(|epoch| epoch.0).collect();
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
