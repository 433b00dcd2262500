//! Clients and servers for tools outside of the mesh: a load generator and its target, a check of any server.
//!
//! Servers here are those of the web: a root vouches for the server's name, or the caller accepts any server,
//! or asks for one identity. None of these is a mesh connection: that takes a [`crate::identity::PeerId`],
//! which these connections do not have ([`crate::http3::UnprovenConnection`],
//! [`crate::http3::UnprovenServerConnection`]), and neither the pool nor a sidecar's listener sees them.
//!
//! This file has what both sides share and the client's TLS; `tcp.rs` and `quic.rs` connect, `server.rs`
//! accepts.

mod quic;
mod server;
mod tcp;

pub use quic::{ConnectError, QuicClient};
pub use server::{QuicIncoming, QuicServer, ServerTls, TlsServer};
pub use tcp::{TlsClient, TlsClientStream};

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::credentials::{TrustBundle, to_pem};
use crate::identity::SpiffeId;
use crate::limits;
use crate::tls::{Expected, server_verifier, signature_of_tls13, supported_schemes};

/// Which peers an external client or server trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Peers whose certificate leads to one of these roots; a server's must also be for its name.
    Roots(Roots),
    /// The one that proves this identity with an X.509-SVID under these roots. Names of hosts play no part.
    Identity(TrustBundle, SpiffeId),
    /// Every peer: any server is accepted, and clients are not asked for a certificate. For tests and
    /// measurements only.
    AnyPeer,
}

/// Root certificates.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

/// The certificate that a side presents.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Whether a second connection may resume the session of the first (RFC 8446 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Every handshake is a full one.
    Full,
    /// Sessions are resumed where the server allows it.
    Resume,
}

/// The configuration of an external client's handshakes.
#[derive(Clone)]
pub struct ExternalTls {
    trust: Trust,
    identity: Option<Arc<Identity>>,
    sessions: Sessions,
}

/// Why a client or a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// A file has no certificate, or none that can be read.
    #[error("no certificate in it: {0}")]
    Certificates(String),
    /// A file has no private key.
    #[error("no private key in it: {0}")]
    Key(String),
    /// The TLS library refused.
    #[error("TLS configuration: {0}")]
    Configuration(String),
    /// The text is neither a name nor an address.
    #[error("{0:?} is no name of a server")]
    Name(String),
}

impl Roots {
    /// Reads root certificates from PEM. Unreadable ones are skipped, as long as one can be read: the stores
    /// of operating systems hold a few odd ones.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ExternalError> {
        let mut store = RootCertStore::empty();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).flatten().collect();
        let (added, _) = store.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(ExternalError::Certificates("no root".to_owned()));
        }
        Ok(Self(Arc::new(store)))
    }
}

impl Identity {
    /// Reads a certificate chain, the leaf first, and its key, both PEM.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ExternalError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| ExternalError::Certificates(error.to_string()))?;
        if chain.is_empty() {
            return Err(ExternalError::Certificates("no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| ExternalError::Key(error.to_string()))?;
        Ok(Self { chain, key })
    }

    /// A new key, with a self-signed certificate for these names and addresses.
    ///
    /// # Errors
    /// When one of them is not a name.
    pub fn self_made(names: Vec<String>) -> Result<Self, ExternalError> {
        let refused = |error: rcgen::Error| ExternalError::Configuration(error.to_string());
        let params = rcgen::CertificateParams::new(names).map_err(refused)?;
        let key = rcgen::KeyPair::generate().map_err(refused)?;
        let certificate = params.self_signed(&key).map_err(refused)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// The certificates as PEM, the leaf first.
    pub fn chain_pem(&self) -> String {
        to_pem(&self.chain)
    }
}

impl ExternalTls {
    /// A client that trusts `trust` and presents `identity` to servers that ask.
    pub fn new(trust: Trust, identity: Option<Identity>, sessions: Sessions) -> Self {
        Self {
            trust,
            identity: identity.map(Arc::new),
            sessions,
        }
    }

    fn config(&self, alpn: &[u8]) -> Result<ClientConfig, ExternalError> {
        let refused = |error: Error| ExternalError::Configuration(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?;
        let builder = match &self.trust {
            Trust::Roots(roots) => builder.with_root_certificates(Arc::clone(&roots.0)),
            Trust::Identity(bundle, id) => {
                let expected = Expected::Fixed(bundle.clone(), id.clone());
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(server_verifier(expected))
            }
            Trust::AnyPeer => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate)),
        };
        let mut config = match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(refused)?,
            None => builder.with_no_client_auth(),
        };
        // Without a protocol there is nothing to agree on.
        config.alpn_protocols = (!alpn.is_empty())
            .then(|| alpn.to_vec())
            .into_iter()
            .collect();
        config.resumption = match self.sessions {
            Sessions::Full => Resumption::disabled(),
            Sessions::Resume => Resumption::store(Arc::new(ClientSessionMemoryCache::new(
                limits::EXTERNAL_SESSIONS,
            ))),
        };
        Ok(config)
    }
}

/// A name in the form that TLS needs; an address is a name, too.
fn server_name(host: &str) -> Result<ServerName<'static>, ExternalError> {
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| ExternalError::Name(host.to_owned()))
}

/// Accepts every certificate, but still checks that the server has its key: the server has to sign.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature_of_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        supported_schemes()
    }
}

#[cfg(test)]
mod tests;
