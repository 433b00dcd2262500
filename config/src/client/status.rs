//! The parameters of a subscription, and the status that it shows. Data only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_transport::credentials::Credentials;

use crate::table::{Details, Locality, Revision, ServiceName, Withheld};

/// The parameters of a subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionSettings {
    /// `HOST:PORT` of the config services, tried one after the other.
    pub addresses: Vec<String>,
    /// The identity of this sidecar.
    pub credentials: Credentials,
    /// Where the last good table is kept.
    pub state_dir: PathBuf,
    /// Our version of weft.
    pub version: String,
    /// Services that outbound listeners name.
    pub listens_for: Vec<ServiceName>,
    /// The address at which other sidecars reach this one; needed to serve anything. A change is registered
    /// at once.
    pub advertise: watch::Receiver<Option<SocketAddr>>,
    /// Where this sidecar runs, if the settings say so.
    pub locality: Option<Locality>,
    /// The services of this sidecar, with what it says of itself there. Each is registered while its
    /// application is healthy.
    pub inbound: BTreeMap<(ServiceName, u16), Details>,
    /// The registration of the predecessor, if there is one.
    pub takes_over: Option<Registration>,
}

/// A registration that passes from one process to its successor, so that callers see no change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The name that the first of the processes gave itself.
    pub instance: String,
    /// The services whose application is healthy.
    pub healthy: Vec<(ServiceName, u16)>,
}

/// Whether the application behind a service is able to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Good,
    /// It is not; why, in words for operators, or nothing.
    Bad(String),
}

impl From<bool> for Health {
    fn from(healthy: bool) -> Self {
        match healthy {
            true => Self::Good,
            false => Self::Bad(String::new()),
        }
    }
}

/// How the subscription is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SubscriptionStatus {
    /// Whether the stream is open.
    pub connected: bool,
    /// Why the last attempt or stream ended.
    pub last_error: Option<String>,
    /// The last revision that the config service offered.
    pub offered: Option<Revision>,
    /// The revision that the sidecar acknowledged last.
    pub acknowledged: Option<Revision>,
    /// Why the sidecar refused the offered one.
    pub refusal: Option<String>,
    /// Tables that were refused before the sidecar saw them: not decodable, of another mesh, or older.
    pub refused_unseen: u64,
    /// The parts of the offered table that this sidecar does not support, and what holds here instead.
    pub withheld: Vec<Withheld>,
    /// Why the table in force is not on disk.
    pub unsaved: Option<String>,
    /// The table came from disk, and the config service has not answered since.
    pub from_disk: bool,
    /// The config service's store was restored or replaced since the table on disk.
    pub store_changed: bool,
    /// When the config service last sent anything, including keep-alives, in RFC 3339.
    pub last_heard: Option<String>,
    /// Registrations that do not hold, as `orders.shop:80`, with the reason.
    pub registration_problems: BTreeMap<String, String>,
}
