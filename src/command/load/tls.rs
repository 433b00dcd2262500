//! The certificates that `weft load` and `weft load serve` trust and present in handshakes, from the files
//! that their flags name.

use std::path::Path;

use weft_transport::credentials::TrustBundle;
use weft_transport::external::{ExternalError, ExternalTls, Identity, Roots, Sessions, Trust};
use weft_transport::identity::SpiffeId;

use crate::failure::{Code, Failure};

/// Where systems keep the roots that they trust: Debian and Alpine, Fedora and RHEL, SUSE, others.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The flags.
pub struct TlsFiles<'a> {
    pub ca: Option<&'a Path>,
    /// Whether every server is trusted, or no client is asked for a certificate.
    pub insecure: bool,
    /// The only identity that is trusted, instead of the name of a host.
    pub server_id: Option<&'a SpiffeId>,
    /// Certificate and key.
    pub identity: Option<(&'a Path, &'a Path)>,
    pub resume: bool,
}

impl TlsFiles<'_> {
    /// Reads the files.
    pub fn read(&self) -> Result<ExternalTls, Failure> {
        let trust = match self.ca {
            Some(path) => trust(path, self.server_id)?,
            None if self.insecure => Trust::AnyPeer,
            None => Trust::Roots(roots(system_roots()?)?),
        };
        let identity = match self.identity {
            Some((cert, key)) => Some(identity(cert, key)?),
            None => None,
        };
        let sessions = if self.resume {
            Sessions::Resume
        } else {
            Sessions::Full
        };
        Ok(ExternalTls::new(trust, identity, sessions))
    }
}

/// Reads a certificate chain and its key.
pub fn identity(cert: &Path, key: &Path) -> Result<Identity, Failure> {
    let identity = Identity::from_pem(&read(cert)?, &read(key)?);
    let path = |error: &ExternalError| match error {
        ExternalError::Key(_) => key,
        ExternalError::Certificates(_)
        | ExternalError::Configuration(_)
        | ExternalError::Name(_) => cert,
    };
    identity.map_err(|error| bad_file(path(&error), &error))
}

/// The peers that the roots in a file certify: all that they have signed, or one identity of a mesh.
pub fn trust(ca: &Path, id: Option<&SpiffeId>) -> Result<Trust, Failure> {
    let Some(id) = id else {
        return Ok(Trust::Roots(roots(ca)?));
    };
    let bundle = TrustBundle::from_pem(id.trust_domain().clone(), &read(ca)?);
    let bundle = bundle.map_err(|error| bad_file(ca, &error))?;
    Ok(Trust::Identity(bundle, id.clone()))
}

fn roots(path: &Path) -> Result<Roots, Failure> {
    Roots::from_pem(&read(path)?).map_err(|error| bad_file(path, &error))
}

fn system_roots() -> Result<&'static Path, Failure> {
    let mut places = SYSTEM_ROOTS.iter().map(Path::new);
    places.find(|path| path.exists()).ok_or_else(|| {
        Failure::new(
            Code::Failed,
            "this system has no root certificates: give some with --ca FILE, or --insecure",
        )
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::io(path, &error))
}

fn bad_file(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::BadData, format!("{}: {error}", path.display()))
}
