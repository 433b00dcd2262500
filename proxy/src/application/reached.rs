//! Whom the client of this folder reaches, and how it connects.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use weft_config::settings::LocalAddress;

use crate::failure::{Failure, Reason};
use crate::outside::{Link, Speaks, Way};
use crate::stream::ApplicationStream;

/// See the module's documentation.
pub(crate) enum Reached {
    /// The application beside this sidecar.
    Here(LocalAddress),
    /// A service outside of the mesh, at one of its addresses.
    Outside(Arc<Way>),
}

impl Reached {
    /// Where the application listens.
    pub(super) fn address(&self) -> Option<&LocalAddress> {
        match self {
            Self::Here(address) => Some(address),
            Self::Outside(_) => None,
        }
    }

    /// A raw connection to the application.
    pub(super) async fn connect(&self, time: Duration) -> Result<ApplicationStream, Failure> {
        let connected = match self {
            Self::Here(address) => ApplicationStream::connect(address, time).await,
            Self::Outside(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        connected.map_err(|error| self.failure(&error))
    }

    /// A connection that speaks this. The time is for the application; [`Way`] has its own.
    pub(super) async fn link(&self, speaks: Speaks, time: Duration) -> Result<Link, Failure> {
        let linked = match self {
            Self::Here(address) => ApplicationStream::connect(address, time)
                .await
                .map(Link::Left),
            // Boxed, because a handshake of TLS is large and rare.
            Self::Outside(way) => Box::pin(way.connect(speaks)).await,
        };
        linked.map_err(|error| self.failure(&error))
    }

    /// Why there is no connection.
    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        let reason = match (error.kind(), self) {
            (io::ErrorKind::TimedOut, _) => Reason::ConnectionTimeout,
            // Its certificate, or the files that should prove it.
            (io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput, Self::Outside(_)) => {
                Reason::Identity
            }
            (io::ErrorKind::PermissionDenied, Self::Outside(_)) => Reason::Denied,
            (_, _) => Reason::ConnectionRefused,
        };
        Failure::new(reason, format!("{self} does not accept: {error}"))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(address) => write!(f, "the application at {address}"),
            Self::Outside(way) => way.fmt(f),
        }
    }
}
