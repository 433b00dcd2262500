//! The identity of one process on disk, in a form that survives a restart or a crash at any moment.
//!
//! ```text
//! ca.json        addresses of the CA
//! bundle.crt     trust anchors
//! identity.crt   the SVID, leaf first
//! identity.key   its key
//! identity.key.next   the key of the request under way
//! ```
//! A key is on disk before the request for its certificate is sent, and the certificate replaces the old one
//! before the key does. So after a crash at any moment, [`StateDirectory::load`] finds a key and a
//! certificate that match, or the key with which the same request can be repeated.
//!
//! A disk that cannot be written stops no renewal: the key is kept in memory, and [`StateDirectory::save`]
//! may be called again until it succeeds. A crash before that returns to the identity on disk, which can be
//! renewed as well.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use weft_transport::credentials::{BundleError, Svid, SvidError, TrustBundle};
use weft_transport::files::{self, FileError};
use weft_transport::identity::TrustDomain;
use zeroize::Zeroizing;

use super::AgentError;
use crate::issuer::PrivateKeyPem;

const KEY: &str = "identity.key";
const KEY_NEXT: &str = "identity.key.next";
const CERTIFICATE: &str = "identity.crt";
const BUNDLE: &str = "bundle.crt";
const CA: &str = "ca.json";

/// The addresses of the CA of this identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaAddresses {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) addresses: Vec<String>,
}

/// The addresses of the CA in a state directory that another process may be using: it is only read.
pub(crate) fn saved_ca(state_dir: &Path) -> Option<CaAddresses> {
    let text = files::read_if_there(&state_dir.join(CA)).ok()??;
    serde_json::from_slice(&text).ok()
}

/// A complete identity from disk. Its age is not judged.
pub(crate) struct Stored {
    pub(crate) svid: Svid,
    pub(crate) bundle: TrustBundle,
    pub(crate) ca: CaAddresses,
}

/// A key that waits for its certificate, and the request for it.
pub(crate) struct Pending {
    /// PEM.
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) csr: Vec<u8>,
    /// Why the key is not on disk.
    pub(crate) unsaved: Option<FileError>,
}

/// A certificate as the CA sent it, with its key.
pub(crate) struct Bought {
    /// PEM, leaf first.
    pub(crate) chain: String,
    /// PEM.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// PEM.
    pub(crate) bundle: String,
}

impl Bought {
    pub(crate) fn svid(&self) -> Result<Svid, SvidError> {
        Svid::from_pem(self.chain.as_bytes(), &self.key)
    }

    pub(crate) fn bundle(&self, trust_domain: &TrustDomain) -> Result<TrustBundle, BundleError> {
        TrustBundle::from_pem(trust_domain.clone(), self.bundle.as_bytes())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// Makes the directory (0700) if needed.
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        files::make_directory(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// A directory that is only read.
    pub(crate) fn look(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The identity on disk, if there is one.
    pub(crate) fn load(&self) -> Result<Option<Stored>, AgentError> {
        let Some(chain) = files::read_if_there(&self.file(CERTIFICATE))? else {
            return Ok(None);
        };
        let svid = self.pair(&chain)?;
        let ca = self.read(CA)?;
        let ca: CaAddresses =
            serde_json::from_slice(&ca).map_err(|error| self.damaged(CA, error))?;
        let bundle = self.read(BUNDLE)?;
        let bundle = TrustBundle::from_pem(ca.trust_domain.clone(), &bundle)
            .map_err(|error| self.damaged(BUNDLE, error))?;
        Ok(Some(Stored { svid, bundle, ca }))
    }

    /// The certificate with its key; finishes a change that a crash cut short.
    fn pair(&self, chain: &[u8]) -> Result<Svid, AgentError> {
        let path = self.file(KEY);
        let present = files::read_if_there(&path)?.map(Zeroizing::new);
        let (name, reason) = match &present {
            Some(key) => match Svid::from_pem(chain, key) {
                Ok(svid) => {
                    files::check_unexposed(&path)?;
                    return Ok(svid);
                }
                Err(error) if error.is_of_key() => (KEY, error.to_string()),
                Err(error) => (CERTIFICATE, error.to_string()),
            },
            None => (KEY, "it is missing".to_owned()),
        };
        let next = files::read_if_there(&self.file(KEY_NEXT))?.map(Zeroizing::new);
        let Some(svid) = next.and_then(|key| Svid::from_pem(chain, &key).ok()) else {
            return Err(self.damaged(name, reason));
        };
        if let Err(error) = files::rename(&self.file(KEY_NEXT), &path) {
            // The next start finds the pair in the same way.
            tracing::warn!(%error, "a renewal that was cut short is not finished on disk");
        }
        Ok(svid)
    }

    /// The key for the next request: the one that a crash or a failure left, else a new one. It is on disk
    /// when this returns, unless `unsaved` says why not.
    pub(crate) fn pending(&self) -> Result<Pending, AgentError> {
        let path = self.file(KEY_NEXT);
        if let Ok(Some(pem)) = files::read_if_there(&path).map(|pem| pem.map(Zeroizing::new)) {
            let key = std::str::from_utf8(&pem)
                .ok()
                .and_then(|pem| KeyPair::from_pem(pem).ok());
            if let Some(key) = key {
                return Ok(Pending {
                    csr: csr(&key)?,
                    key: pem,
                    unsaved: None,
                });
            }
        }
        let (key, pem) = PrivateKeyPem::generate()?;
        Ok(Pending {
            csr: csr(&key)?,
            unsaved: files::write(&path, pem.as_bytes()).err(),
            key: Zeroizing::new(pem.as_bytes().to_vec()),
        })
    }

    /// Gives up the pending key: the CA will never certify it.
    pub(crate) fn discard_pending(&self) -> Result<(), FileError> {
        files::remove(&self.file(KEY_NEXT))
    }

    /// Makes the new certificate the identity on disk. After a failure it can be called again.
    pub(crate) fn save(&self, bought: &Bought, ca: &CaAddresses) -> Result<(), AgentError> {
        let next = self.file(KEY_NEXT);
        let written = files::read_if_there(&next)?.map(Zeroizing::new);
        if written.as_deref() != Some(&*bought.key) {
            files::write(&next, &bought.key)?;
        }
        self.write_ca(ca)?;
        files::write(&self.file(BUNDLE), bought.bundle.as_bytes())?;
        files::write(&self.file(CERTIFICATE), bought.chain.as_bytes())?;
        files::rename(&next, &self.file(KEY))?;
        Ok(())
    }

    /// Remembers where the CA is.
    pub(crate) fn write_ca(&self, ca: &CaAddresses) -> Result<(), AgentError> {
        let text = serde_json::to_vec(ca).map_err(|error| self.damaged(CA, error))?;
        Ok(files::write(&self.file(CA), &text)?)
    }

    /// Reads the file that was written before the certificate: if the certificate is there, this file must
    /// be, too.
    fn read(&self, name: &str) -> Result<Vec<u8>, AgentError> {
        files::read_if_there(&self.file(name))?.ok_or_else(|| self.damaged(name, "it is missing"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn damaged(&self, name: &str, reason: impl ToString) -> AgentError {
        AgentError::Damaged {
            path: self.file(name),
            reason: reason.to_string(),
        }
    }
}

/// An empty request: the CA takes only the key.
fn csr(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}
