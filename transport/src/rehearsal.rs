//! A handshake of a process with itself, in memory, before the first real one.
//!
//! The first random bytes that a process draws from its TLS library make the library gather entropy. That
//! takes 30 ms on an idle machine and far longer on a busy one, while every thread that needs random bytes
//! waits. Each thread also has some first-time work of its own. The rehearsal also loads the code of a
//! handshake from disk into memory. Not here: how a handshake decides ([`crate::tls`]).

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;

use crate::limits;
use crate::tls::SERVER_NAME;

/// Both sides of a process's own handshakes.
#[derive(Clone)]
pub(crate) struct Rehearsal {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Rehearsal {
    /// Performs a handshake on this thread. Returns whether both sides finished. With an expired certificate
    /// they do not, but the preparation is done all the same.
    pub(crate) fn run(&self) -> bool {
        let shaken = self.shake();
        if let Err(error) = &shaken {
            tracing::debug!(%error, "a handshake of this process with itself");
        }
        shaken.unwrap_or(false)
    }

    fn shake(&self) -> Result<bool, rustls::Error> {
        let name = ServerName::try_from(SERVER_NAME)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let client = ClientConnection::new(Arc::clone(&self.client), name)?;
        let mut client = Connection::from(client);
        let mut server = Connection::from(ServerConnection::new(Arc::clone(&self.server))?);
        for _ in 0..limits::REHEARSAL_FLIGHTS_MAX {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
            if !client.is_handshaking() && !server.is_handshaking() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Passes the output of one side to the other.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let in_memory = |error: std::io::Error| rustls::Error::General(error.to_string());
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).map_err(in_memory)?;
    }
    let mut rest = &*flight;
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(in_memory)?;
        to.process_new_packets()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::quic::MeshTls;
    use crate::testing::{Authority, ORDERS};
    use crate::tuning::TransportSettings;

    #[test]
    fn a_process_can_shake_hands_with_itself() {
        let tuning = TransportSettings::default().validate().unwrap();
        let credentials = Authority::shared().credentials(ORDERS);
        let tls = MeshTls::new(&credentials, &tuning).unwrap();
        assert!(tls.rehearsal.run());
    }
}
