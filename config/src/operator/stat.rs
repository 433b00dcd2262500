//! What operators ask about the calls in the mesh, and what they are told. The types travel as JSON; `-o
//! json` prints the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the calls are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grouping {
    /// By the service that is called.
    Services,
    /// By the rule of a route that took them, and where it led.
    Routes,
    /// By who calls and what is called.
    Edges,
    /// By the sidecar that saw them.
    Sidecars,
    /// By the namespace of the service that is called.
    Namespaces,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatRequest {
    /// What the calls are summed up by.
    pub by: Grouping,
    /// Only calls of this caller: a service as `frontend.shop`, or a namespace as `*.shop`.
    #[serde(default)]
    pub from: Option<String>,
    /// Only calls to this service, or to one of this namespace.
    #[serde(default)]
    pub to: Option<String>,
    /// How far back, in milliseconds.
    pub window_ms: u64,
    /// Edges that had no calls, too: what listeners of sidecars name.
    #[serde(default)]
    pub silent: bool,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// How far back this goes, in milliseconds: less than was asked if the config service runs since then
    /// only.
    pub window_ms: u64,
    /// In the order of their names.
    pub rows: Vec<StatRow>,
    /// Sidecars that tell of their calls.
    pub reporting: usize,
    /// Sidecars that are connected and do not, as they are older.
    #[serde(default)]
    pub not_reporting: Vec<String>,
    /// Calls since the config service started that are counted as those of `other`, as there are too many
    /// edges.
    #[serde(default)]
    pub spilled: u64,
    /// Minutes, and then slots of 5 s, that were forgotten before their time for want of room.
    #[serde(default)]
    pub forgotten: u64,
}

/// How the calls on an edge are secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Both sides proved their identities.
    MutualTls,
    /// The caller proved none: a Service takes such callers while it is `Permissive`.
    Plaintext,
    /// The service is outside of the mesh.
    Outside,
    /// No call got as far as a peer.
    Unreached,
    /// There were no calls.
    NoCalls,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MutualTls => "mutual TLS",
            Self::Plaintext => "PLAINTEXT",
            Self::Outside => "outside",
            Self::Unreached => "unreached",
            Self::NoCalls => "no calls",
        })
    }
}

/// The calls that belong together. What the grouping does not tell apart is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatRow {
    /// The caller, as `frontend.shop`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The caller's SPIFFE ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from_identity: String,
    /// The service, as `orders.shop`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The namespace of the service, or of the sidecar.
    pub namespace: String,
    /// The rule, as `HTTPRoute shop/orders 2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The SPIFFE ID of the service's endpoints that were asked, or of the sidecar. Several are joined by `,
    /// `.
    pub identity: String,
    /// Which process of a sidecar.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// `outbound` for what the application of a sidecar called, `inbound` for what called it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub direction: String,
    /// How the calls are secured; only of edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Requests that ended.
    pub requests: u64,
    /// Requests and connections that failed.
    pub failures: u64,
    /// Failures by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// The share of requests and connections that did not fail, from 0 to 1; none without any.
    pub success: Option<f64>,
    /// Requests per second.
    pub rps: f64,
    /// The time that half of the requests stayed below, in milliseconds.
    pub p50_ms: Option<f64>,
    /// As `p50_ms`, of 95 of 100.
    pub p95_ms: Option<f64>,
    /// As `p50_ms`, of 99 of 100.
    pub p99_ms: Option<f64>,
    /// The mesh's part of the time until the head of the answer, in milliseconds: half of the requests stayed
    /// below it.
    pub mesh_p50_ms: Option<f64>,
    /// As `mesh_p50_ms`, of 99 of 100.
    pub mesh_p99_ms: Option<f64>,
    /// The part of the time of all requests together that was the mesh's, from 0 to 1.
    pub mesh_share: Option<f64>,
    /// Attempts after the first.
    pub retries: u64,
    /// Requests that met their deadline.
    pub deadlines: u64,
    /// Bytes of content from callers.
    pub sent: u64,
    /// Bytes of content to callers.
    pub received: u64,
    /// Connections to TCP services that were opened.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
}
