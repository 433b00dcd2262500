//! Requests that failed or were slow, as the sidecars on their way saw them. Each is a line of the access
//! log, of which a sidecar of another build may write more or less: what is missing is empty.

use serde::{Deserialize, Serialize};

/// What sidecars know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentCalls {
    /// One for each sidecar that saw the request.
    pub calls: Vec<SidecarCall>,
    /// Sidecars that were asked.
    pub asked: usize,
    /// Those of them that did not answer in time.
    #[serde(default)]
    pub silent: Vec<String>,
}

/// A request, as one sidecar saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SidecarCall {
    /// The SPIFFE ID of the sidecar.
    pub sidecar: String,
    /// What it saw.
    pub call: CallSeen,
}

/// The fields of the access log; docs/operate.md has their meanings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "as docs/operate.md documents them")]
pub struct CallSeen {
    pub time: String,
    pub direction: String,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    pub duration_ms: f64,
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_principal: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_retried: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<AttemptSeen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_ms: Option<f64>,
}

/// One attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "as docs/operate.md documents them")]
pub struct AttemptSeen {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    pub at_ms: f64,
    pub pick_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dial_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
