//! Certificates for this crate's tests, made by rcgen. Every field that an attacker may choose can be set, so
//! that a test names only the one that is wrong.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use crate::credentials::{Credentials, Svid, TrustBundle};
use crate::endpoint::{Dialler, Listener, MeshTls, WorkerSocket};
use crate::lag::Lag;

pub(crate) const DOMAIN: &str = "demo.test";
pub(crate) const ORDERS: &str = "spiffe://demo.test/ns/shop/sa/orders";
pub(crate) const FRONTEND: &str = "spiffe://demo.test/ns/shop/sa/frontend";

/// A certificate authority of one certificate.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
    root_pem: String,
}

/// A leaf with its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

/// Starts a worker that is never behind.
pub(crate) fn start(socket: WorkerSocket, credentials: &Credentials) -> (Listener, Dialler) {
    let tls = MeshTls::new(credentials, &socket.settings.tuning).unwrap();
    socket.start(&tls, &Lag::default()).unwrap()
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            root: certificate.der().clone(),
            root_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The same authority for every part of one test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(DOMAIN.parse().unwrap(), self.root_pem.as_bytes()).unwrap()
    }

    pub(crate) fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// An SVID that is valid for an hour around now.
    pub(crate) fn svid(&self, id: &str) -> Svid {
        self.svid_with(leaf(&[id]))
    }

    pub(crate) fn svid_with(&self, params: CertificateParams) -> Svid {
        let issued = self.issue(params);
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    pub(crate) fn credentials(&self, id: &str) -> Credentials {
        Credentials::new(self.svid(id), self.bundle()).unwrap()
    }
}

/// A good leaf with these URI names, valid from an hour ago for two hours.
pub(crate) fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let hour = Duration::from_hours(1);
    params.not_before = (SystemTime::now() - hour).into();
    params.not_after = (SystemTime::now() + hour).into();
    params
}
