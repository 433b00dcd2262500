//! A worker's part of the mesh port: bound before the worker runs, started inside its runtime.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

#[cfg(any(test, feature = "testing"))]
use super::memory;
use super::{Dialler, Listener};
use crate::endpoint::{MeshTls, Reading, StartError, WorkerSocket};
use crate::lag::Lag;

/// See the module's documentation.
#[cfg_attr(
    any(test, feature = "testing"),
    expect(clippy::large_enum_variant, reason = "the small one is that of tests")
)]
pub enum Port {
    /// A UDP socket.
    Http3(WorkerSocket),
    /// In memory, for tests.
    #[cfg(any(test, feature = "testing"))]
    Memory(memory::Port),
}

impl Port {
    /// Where peers reach it.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Http3(socket) => socket.local_address(),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(port) => Ok(port.address()),
        }
    }

    /// A duplicate of the socket, for a successor; none if there is no socket.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn share(&self) -> io::Result<Option<UdpSocket>> {
        match self {
            Self::Http3(socket) => socket.share().map(Some),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => Ok(None),
        }
    }

    /// The control of its reading; none if no other process can take it over.
    pub fn reading(&self) -> Option<Arc<Reading>> {
        match self {
            Self::Http3(socket) => Some(socket.reading()),
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(_) => None,
        }
    }

    /// Starts both sides. Call it inside the worker's runtime.
    ///
    /// # Errors
    /// When the configuration or a socket is refused.
    pub fn start(self, tls: &MeshTls, lag: &Lag) -> Result<(Listener, Dialler), StartError> {
        match self {
            Self::Http3(socket) => {
                let (listener, dialler) = socket.start(tls, lag)?;
                Ok((listener.into(), dialler.into()))
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Memory(port) => Ok(port.start()),
        }
    }
}

impl From<WorkerSocket> for Port {
    fn from(socket: WorkerSocket) -> Self {
        Self::Http3(socket)
    }
}
