//! rustls configurations that follow a [`Credentials`], for QUIC and for TCP.
//!
//! Each configuration lives long; certificates and trust are looked up at every handshake. Not here: the
//! judgement itself (see [`crate::verify`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::credentials::{Credentials, Fingerprint, TrustBundle, default_allowance};
use crate::identity::{PeerId, SpiffeId};
use crate::tuning::PostQuantum;
use crate::verify::{self, Allowance, Leaf, Usage, VerifyError};

/// The name in the TLS calls that need one. It is never sent: identities are SPIFFE IDs, and a name in clear
/// text would tell an eavesdropper about the mesh.
pub(crate) const SERVER_NAME: &str = "weft.invalid";

/// Which peers a side accepts.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// Any identity of the mesh; the caller compares the proven one itself.
    Mesh(Credentials),
    /// Exactly this identity of the mesh.
    Identity(Credentials, SpiffeId),
    /// Exactly this identity, by roots that do not change.
    Fixed(TrustBundle, SpiffeId),
    /// Exactly this server, under a root that is known by its fingerprint only.
    Pinned(Fingerprint, SpiffeId),
}

/// Configuration of a dialling side; `own` is presented when the server asks.
pub(crate) fn client_config(
    own: Option<&Credentials>,
    expected: Expected,
    alpn: &[u8],
    post_quantum: PostQuantum,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(expected));
    let mut config = match own {
        Some(credentials) => {
            builder.with_client_cert_resolver(Arc::new(Resolver(credentials.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    // A resumed session does not run the verifier, so it could outlive trust.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Configuration of a listening side. `optional_with_grace`: clients may come without a
/// certificate, or with one that expired less than this ago.
pub(crate) fn server_config(
    credentials: &Credentials,
    optional_with_grace: Option<Duration>,
    alpn: &[u8],
    post_quantum: PostQuantum,
) -> Result<ServerConfig, Error> {
    let verifier = ClientVerifier {
        expected: Expected::Mesh(credentials.clone()),
        mandatory: optional_with_grace.is_none(),
        allowance: match optional_with_grace {
            Some(late) => Allowance { late },
            None => default_allowance(),
        },
    };
    let mut config = ServerConfig::builder_with_provider(provider(post_quantum))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Resolver(credentials.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Judges servers.
pub(crate) fn server_verifier(expected: Expected) -> Arc<dyn ServerCertVerifier> {
    Arc::new(ServerVerifier { expected })
}

/// Judges clients, each of which must show a certificate.
pub(crate) fn client_verifier(expected: Expected) -> Arc<dyn ClientCertVerifier> {
    Arc::new(ClientVerifier {
        expected,
        mandatory: true,
        allowance: default_allowance(),
    })
}

/// The proof that a finished handshake gives. `chain` is the chain that the peer presented and the
/// configuration's verifier accepted.
pub(crate) fn proven_peer(chain: &[CertificateDer<'_>]) -> Option<PeerId> {
    let leaf = Leaf::parse(chain.first()?).ok()?;
    Some(PeerId::proven(leaf.id, leaf.not_after))
}

fn provider(post_quantum: PostQuantum) -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};

    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = match post_quantum {
        PostQuantum::Prefer => vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        PostQuantum::Require => vec![X25519MLKEM768],
        PostQuantum::Off => vec![X25519, SECP256R1, SECP384R1],
    };
    Arc::new(provider)
}

/// Presents the SVID in force, on both sides.
#[derive(Debug)]
struct Resolver(Credentials);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.svid().certified_key())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.svid().certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Expected {
    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        allowance: Allowance,
        usage: Usage,
    ) -> Result<(), VerifyError> {
        let under = |bundle: &TrustBundle| verify::chain(chain, bundle, now, allowance, usage);
        let (leaf, wanted) = match self {
            Self::Mesh(credentials) => (under(&credentials.bundle())?, None),
            Self::Identity(credentials, id) => (under(&credentials.bundle())?, Some(id)),
            Self::Fixed(bundle, id) => (under(bundle)?, Some(id)),
            Self::Pinned(anchor, id) => (verify::pinned_chain(chain, *anchor, now)?, Some(id)),
        };
        match wanted {
            Some(id) if *id != leaf.id => Err(VerifyError::OtherIdentity(leaf.id)),
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct ServerVerifier {
    expected: Expected,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = whole_chain(end_entity, intermediates);
        self.expected
            .judge(&chain, now, default_allowance(), Usage::Server)
            .map(|()| ServerCertVerified::assertion())
            .map_err(refused)
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

struct ClientVerifier {
    expected: Expected,
    mandatory: bool,
    allowance: Allowance,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Roots are not announced: a client has one SVID, and strangers learn nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = whole_chain(end_entity, intermediates);
        self.expected
            .judge(&chain, now, self.allowance, Usage::Client)
            .map(|()| ClientCertVerified::assertion())
            .map_err(refused)
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

fn whole_chain<'a>(
    end_entity: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(end_entity)
        .chain(intermediates)
        .cloned()
        .collect()
}

/// Checks that the peer's key signed the handshake, as every verifier does.
pub(crate) fn signature_of_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, &algorithms)
}

/// The schemes that [`signature_of_tls13`] understands.
pub(crate) fn supported_schemes() -> Vec<SignatureScheme> {
    aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .supported_schemes()
}

/// The TLS alert tells the peer little; the local log has the reason.
fn refused(error: VerifyError) -> Error {
    let error = match error {
        VerifyError::Expired => CertificateError::Expired,
        VerifyError::NotYetValid => CertificateError::NotValidYet,
        VerifyError::Empty
        | VerifyError::Long
        | VerifyError::Form(_)
        | VerifyError::TrustDomain(_)
        | VerifyError::Path(_)
        | VerifyError::OtherIdentity(_)
        | VerifyError::AnchorMissing => {
            CertificateError::Other(OtherError(Arc::new(Reason(error))))
        }
    };
    Error::InvalidCertificate(error)
}

/// The identity that a peer proved, if that was the reason to refuse it.
pub(crate) fn other_identity(error: &Error) -> Option<&SpiffeId> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = error else {
        return None;
    };
    match &reason.downcast_ref::<Reason>()?.0 {
        VerifyError::OtherIdentity(identity) => Some(identity),
        VerifyError::Empty
        | VerifyError::Long
        | VerifyError::Form(_)
        | VerifyError::TrustDomain(_)
        | VerifyError::Expired
        | VerifyError::NotYetValid
        | VerifyError::Path(_)
        | VerifyError::AnchorMissing => None,
    }
}

/// Whether a peer was refused because no root of this mesh vouches for it.
pub(crate) fn is_of_another_mesh(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = error else {
        return false;
    };
    let reason = reason.downcast_ref::<Reason>();
    reason.is_some_and(|reason| reason.0.is_of_another_mesh())
}

/// A refusal that shows its message even where the TLS library prints it for debugging: in the middle of a
/// message of its own, which users read.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Reason(VerifyError);

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_tomorrow_is_not_called_expired() {
        let said = |error| refused(error).to_string();
        assert!(said(VerifyError::Expired).ends_with("Expired"));
        assert!(said(VerifyError::NotYetValid).ends_with("NotValidYet"));
    }
}
