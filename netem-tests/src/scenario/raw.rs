//! A scenario as it is written: the keys and their types. Pure. `check.rs` checks what they mean together;
//! after it no value that a run needs is optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_config::settings::DurationText;
use weft_transport::tuning::TransportSettings;

use super::clock::ClockStep;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    /// Its purpose, in a sentence.
    pub(super) description: String,
    /// For a scenario that weft is known to fail: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expect: Option<RawExpect>,
    /// Fixes the fate of packet n on each link and direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// How long the loads run.
    pub(super) duration: DurationText,
    /// Hosts and what is between them.
    pub(super) topology: RawTopology,
    /// The host of the CA and the config service.
    pub(super) control: String,
    /// The congestion control of TCP on all hosts, as the kernel calls it. Default: the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcp_congestion: Option<String>,
    /// The services.
    #[serde(default)]
    pub(super) services: BTreeMap<String, RawService>,
    /// The callers.
    #[serde(default)]
    pub(super) callers: BTreeMap<String, RawCaller>,
    /// Threads of each sidecar's data path. Default 1: a lab has many sidecars and few cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<u16>,
    /// The `transport` block of every sidecar.
    #[serde(default)]
    pub(super) transport: TransportSettings,
    /// Resources beyond the Services: policies, routes; YAML documents as a text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) resources: String,
    /// Pairs of other proxies, which carry loads instead of weft.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pairs: BTreeMap<String, RawPair>,
    /// The requests of the callers' applications.
    #[serde(default)]
    pub(super) loads: BTreeMap<String, RawLoad>,
    /// The events.
    #[serde(default)]
    pub(super) timeline: Vec<RawEvent>,
    /// The conditions at the end.
    #[serde(default)]
    pub(super) assert: Vec<String>,
}

/// `expect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpect {
    /// The reason for which the scenario fails today.
    pub(super) failing: String,
}

/// `topology`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopology {
    /// Names of hosts; each has one link.
    pub(super) hosts: Vec<String>,
    /// Names of routers, which join links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) routers: Vec<String>,
    /// What is between two of them.
    pub(super) links: BTreeMap<String, RawLink>,
}

/// One of `links`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    /// The two ends: hosts or routers.
    pub(super) between: Vec<String>,
    /// Bytes of the longest packet; a router answers longer ones with ICMP. Default 1500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtu: Option<u16>,
    /// A network that many know; `set` and `from` go on top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<String>,
    /// What it does to packets of both directions.
    #[serde(default, skip_serializing_if = "RawSettings::is_empty")]
    pub(super) set: RawSettings,
    /// What it does to packets from one of its ends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) from: BTreeMap<String, RawSettings>,
    /// The end that is inside of a NAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nat: Option<String>,
}

/// Settings of a link, as `weft lab set` knows them.
pub(super) type RawSettings = BTreeMap<String, ScalarText>;

/// A text, a number or a truth value, as text: `loss: 5%` as well as `queue: 100`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct ScalarText(pub(super) String);

impl<'de> Deserialize<'de> for ScalarText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;
        impl serde::de::Visitor<'_> for AnyScalar {
            type Value = ScalarText;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E>(self, text: &str) -> Result<ScalarText, E> {
                Ok(ScalarText(text.to_owned()))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<ScalarText, E> {
                Ok(ScalarText(if truth { "on" } else { "off" }.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<ScalarText, E> {
                Ok(ScalarText(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<ScalarText, E> {
                Ok(ScalarText(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<ScalarText, E> {
                Ok(ScalarText(number.to_string()))
            }
        }
        deserializer.deserialize_any(AnyScalar)
    }
}

/// One of `services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    /// Where its one endpoint is; instead of `endpoints`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    /// Instead of a place: the service whose sidecars its applications use, too, so that both share the
    /// connections of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) beside: Option<String>,
    /// `http`, `grpc` or `tcp`. Default `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    /// Further flags of `weft load serve`, which is the application unless `command` is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) serve: Vec<String>,
    /// A program of yours as the application; it listens on 127.0.0.1 at the port in `$PORT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
    /// Several endpoints, each with its own sidecar.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) endpoints: Vec<RawEndpoint>,
}

/// One of a service's `endpoints`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    /// Where it is.
    pub(super) host: String,
    /// Further flags of `weft load serve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) serve: Vec<String>,
    /// A program of yours instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
}

/// The protocol of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2.
    #[default]
    Http,
    /// HTTP/2 with trailers.
    Grpc,
    /// Bytes.
    Tcp,
}

/// One of `callers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCaller {
    /// Where it is.
    pub(super) host: String,
    /// Names of services.
    pub(super) calls: Vec<String>,
}

/// One of `pairs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPair {
    /// `envoy`, or the path of a program that runs the two sides.
    pub(super) plugin: String,
    /// Its further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
}

/// One of `loads`: a run of `weft load`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLoad {
    /// The caller at whose side it runs.
    pub(super) from: String,
    /// The service that it calls.
    pub(super) to: String,
    /// The pair of other proxies that carries it, instead of weft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over: Option<String>,
    /// When it begins, after the others. Default at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<DurationText>,
    /// How long it runs. Default to the end of `duration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lasts: Option<DurationText>,
    /// Requests per second, whether or not earlier ones were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<f64>,
    /// Instead of a rate: this many connections, each of which sends its next request after the answer to the
    /// last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<u32>,
    /// Path and query. Default `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// A request without an answer after this long has failed. Default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<DurationText>,
    /// Further flags of `weft load`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
}

/// One of `timeline`: `at`, one event, and for a link or a clock its details.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEvent {
    /// After the loads began.
    pub(super) at: Option<DurationText>,
    /// A link; with `set` or `blackout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    /// The end at which the affected packets enter; without it, both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// Changes of the link; settings that are not named stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) set: Option<RawSettings>,
    /// No packet passes for this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blackout: Option<DurationText>,
    /// The NAT of this link forgets its mappings and gives new ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rebind: Option<String>,
    /// The host leaves its address and gets another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readdress: Option<String>,
    /// SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kill: Option<String>,
    /// SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) terminate: Option<String>,
    /// SIGSTOP: it stays, but does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pause: Option<String>,
    /// SIGCONT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resume: Option<String>,
    /// Starts it again after it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<String>,
    /// Its state directory has no space left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fill_disk: Option<String>,
    /// It has space again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) free_disk: Option<String>,
    /// Its wall clock jumps; with `by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step_clock: Option<String>,
    /// How far the clock jumps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<ClockStep>,
}
