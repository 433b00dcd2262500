//! The live certificate and trust of this process, swapped without closing a connection.
//!
//! Every TLS configuration made from one [`Credentials`] reads it at each handshake. So a renewed SVID or a
//! rotated bundle applies from the next handshake, and running connections go on. Not here: how an SVID is
//! obtained (`weft_ca::agent`) and how a peer's is judged ([`crate::verify`]).

mod bundle;
mod svid;

pub(crate) use bundle::to_pem;
pub use bundle::{BundleError, Fingerprint, FingerprintError, TrustBundle};
pub use svid::{Svid, SvidError};

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::verify::{self, Allowance, Usage};

pub use crate::verify::{FormError, VerifyError};

/// The SVID and trust bundle in force. Clones are cheap and all see the same swap.
#[derive(Clone, Debug)]
pub struct Credentials {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Pair>,
    /// Counts swaps, for tasks that must act on one (connections whose root was removed).
    swaps: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pair {
    svid: Arc<Svid>,
    bundle: Arc<TrustBundle>,
}

/// Why an SVID and a bundle do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The SVID names another trust domain than the bundle.
    #[error("the certificate is of trust domain {svid}, the bundle of {bundle}")]
    TrustDomain {
        /// Trust domain of the SVID.
        svid: String,
        /// Trust domain of the bundle.
        bundle: String,
    },
    /// No root of the bundle leads to the SVID.
    #[error("the certificate does not chain to the trust bundle: {0}")]
    Chain(VerifyError),
    /// A swap may renew an identity, not change it.
    #[error("the new certificate is for {new}, this process is {current}")]
    OtherIdentity {
        /// The identity in force.
        current: String,
        /// The identity offered.
        new: String,
    },
}

impl Credentials {
    /// Puts an SVID and the bundle that it chains to in force. Validity times are not judged: an expired SVID
    /// still authenticates its renewal.
    ///
    /// # Errors
    /// When the two do not fit together.
    pub fn new(svid: Svid, bundle: TrustBundle) -> Result<Self, CredentialsError> {
        let pair = Pair::new(svid, bundle)?;
        Ok(Self {
            shared: Arc::new(Shared {
                current: ArcSwap::from_pointee(pair),
                swaps: watch::Sender::new(0),
            }),
        })
    }

    /// The SVID in force.
    pub fn svid(&self) -> Arc<Svid> {
        Arc::clone(&self.shared.current.load().svid)
    }

    /// The trust bundle in force.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.shared.current.load().bundle)
    }

    /// Swaps in a renewed SVID and a bundle, both at once.
    ///
    /// # Errors
    /// When the two do not fit together or name another identity; the old ones stay in force.
    pub fn replace(&self, svid: Svid, bundle: TrustBundle) -> Result<(), CredentialsError> {
        let current = self.svid();
        if svid.id() != current.id() {
            return Err(CredentialsError::OtherIdentity {
                current: current.id().to_string(),
                new: svid.id().to_string(),
            });
        }
        let pair = Pair::new(svid, bundle)?;
        self.shared.current.store(Arc::new(pair));
        self.shared.swaps.send_modify(|swaps| *swaps += 1);
        Ok(())
    }

    /// Changes whenever [`Self::replace`] puts a certificate or bundle in force; the value counts the swaps.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.swaps.subscribe()
    }

    /// Whether a chain that a peer presented still leads to a root in force, whatever its dates: connections
    /// outlive certificates, but not the removal of a root.
    pub fn still_trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        verify::chain_at_its_own_time(chain, &self.bundle(), Usage::Either).is_ok()
    }
}

impl Pair {
    fn new(svid: Svid, bundle: TrustBundle) -> Result<Self, CredentialsError> {
        if svid.id().trust_domain() != bundle.trust_domain() {
            return Err(CredentialsError::TrustDomain {
                svid: svid.id().trust_domain().to_string(),
                bundle: bundle.trust_domain().to_string(),
            });
        }
        verify::chain_at_its_own_time(svid.chain(), &bundle, Usage::Either)
            .map_err(CredentialsError::Chain)?;
        Ok(Self {
            svid: Arc::new(svid),
            bundle: Arc::new(bundle),
        })
    }
}

/// How far the dates of a peer's certificate may be stretched; see [`crate::limits`].
pub(crate) fn default_allowance() -> Allowance {
    Allowance {
        late: crate::limits::CLOCK_SKEW_MAX,
    }
}
