//! TLS towards a service outside of the mesh: its files are read when a connection is made, and again when
//! they may have changed. Not here: the handshake (`weft_transport::external`).

use std::io;
use std::sync::Mutex;
use std::time::Instant;

use weft_config::table::ExternalTls;
use weft_transport::external::{self, Identity, Roots, Sessions, TlsClient, Trust};
use weft_transport::locks::lock;

use crate::limits;

/// Where systems keep the roots that they trust: Debian and Alpine, Fedora, SUSE, and others.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// See the module's documentation.
pub(crate) struct Tls {
    says: ExternalTls,
    /// By protocol; there are three.
    made: Mutex<Vec<Made>>,
}

struct Made {
    alpn: &'static [u8],
    client: TlsClient,
    at: Instant,
}

impl Tls {
    pub(crate) fn new(says: ExternalTls) -> Self {
        Self {
            says,
            made: Mutex::default(),
        }
    }

    /// What the table says.
    pub(super) fn says(&self) -> &ExternalTls {
        &self.says
    }

    /// The client for one protocol. Files that cannot be read do not end what was made of them before.
    ///
    /// # Errors
    /// `InvalidInput`, with the file and what is wrong.
    pub(crate) async fn client(&self, alpn: &'static [u8]) -> io::Result<TlsClient> {
        let now = Instant::now();
        let known = lock(&self.made)
            .iter()
            .find(|one| one.alpn == alpn)
            .map(|one| (one.client.clone(), one.at));
        if let Some((client, at)) = &known
            && now.saturating_duration_since(*at) < limits::OUTSIDE_TLS_FILES_LIFE
        {
            return Ok(client.clone());
        }
        let made = self.make(alpn).await;
        let client = match (made, known) {
            (Ok(client), _) => client,
            (Err(error), Some((client, _))) => {
                tracing::warn!(%error, "the files of TLS cannot be read anew: the old ones hold");
                client
            }
            (Err(error), None) => return Err(error),
        };
        let mut all = lock(&self.made);
        all.retain(|one| one.alpn != alpn);
        all.push(Made {
            alpn,
            client: client.clone(),
            at: now,
        });
        Ok(client)
    }

    async fn make(&self, alpn: &'static [u8]) -> io::Result<TlsClient> {
        let (roots, file) = match &self.says.roots {
            Some(file) => (read(file).await?, file.as_str()),
            None => system_roots().await?,
        };
        let roots = Roots::from_pem(&roots).map_err(|error| unusable(file, &error))?;
        let identity = match &self.says.certificate {
            Some(files) => {
                let (chain, key) = (read(&files.chain).await?, read(&files.key).await?);
                let identity = Identity::from_pem(&chain, &key);
                Some(identity.map_err(|error| unusable(&files.chain, &error))?)
            }
            None => None,
        };
        let tls = external::ExternalTls::new(Trust::Roots(roots), identity, Sessions::Resume);
        let name = &self.says.server_name;
        TlsClient::new(&tls, name, alpn).map_err(|error| unusable(name, &error))
    }
}

async fn system_roots() -> io::Result<(Vec<u8>, &'static str)> {
    for file in SYSTEM_ROOTS {
        if let Ok(roots) = read(file).await {
            return Ok((roots, file));
        }
    }
    let text = "this host has no roots of its system; install them, or name a caFile";
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

async fn read(file: &str) -> io::Result<Vec<u8>> {
    let length = tokio::fs::metadata(file).await;
    let length = length.map_err(|error| unusable(file, &error))?.len();
    if length > limits::OUTSIDE_TLS_FILE_BYTES_MAX {
        let most = limits::OUTSIDE_TLS_FILE_BYTES_MAX;
        return Err(unusable(file, &format!("larger than {most} bytes")));
    }
    let read = tokio::fs::read(file).await;
    read.map_err(|error| unusable(file, &error))
}

fn unusable(what: &str, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {why}"))
}
