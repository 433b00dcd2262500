//! `traces` of `proxy.yaml`: where spans are sent, and of how many requests. `standard_environment.rs` reads
//! the variables that OpenTelemetry names; what a span says is the proxy's to decide.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::{Scheme, Uri};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::limits;
use super::proxy::duration;
use super::values::{DurationText, HostPort, is_host_name};

/// `traces`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTraces {
    /// The URL of a collector that takes OTLP, or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// See [`Traces::ratio`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// See [`Traces::protocol`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// See [`Traces::headers`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// See [`Traces::timeout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// See [`Traces::certificate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// See [`Traces::resource`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<BTreeMap<String, String>>,
}

/// How spans are sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
}

/// Where spans are sent, and of how many requests.
#[derive(Clone)]
pub struct Traces {
    /// Whether the collector is asked over TLS.
    pub is_secure: bool,
    /// The collector.
    pub collector: HostPort,
    /// The path of OTLP/HTTP.
    pub path: String,
    /// How they are sent.
    pub protocol: OtlpProtocol,
    /// The share of the traces that begin here which is recorded. Others follow their caller's decision.
    pub ratio: f64,
    /// Fields that each export has, such as a token of the collector.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one export.
    pub timeout: Duration,
    /// File with the root certificates of the collector; those of the system if there is none.
    pub certificate: Option<PathBuf>,
    /// Attributes of the resource, beside and before those that the identity gives.
    pub resource: BTreeMap<String, String>,
}

/// Headers may be secrets.
impl fmt::Debug for RawTraces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTraces")
            .field("otlp", &self.otlp)
            .finish_non_exhaustive()
    }
}

/// Headers may be secrets.
impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Traces");
        shown
            .field("collector", &self.collector)
            .field("protocol", &self.protocol);
        shown.field("ratio", &self.ratio).finish_non_exhaustive()
    }
}

/// None where no collector is named.
pub(super) fn parse(raw: RawTraces) -> Result<Option<Traces>, Problem> {
    let ratio = raw.ratio.unwrap_or(limits::TRACES_RATIO);
    if !(0.0..=1.0).contains(&ratio) {
        let message =
            format!("{ratio} is out of range: write 0 to 1, as 0.01 for one of a hundred");
        return Err(Problem::new("traces.ratio", message));
    }
    let timeout = duration(
        "traces.timeout",
        raw.timeout,
        limits::TRACES_TIMEOUT,
        &limits::TRACES_TIMEOUT_RANGE,
    )?;
    let headers = headers(raw.headers.unwrap_or_default())?;
    let resource = resource(raw.resource.unwrap_or_default())?;
    let Some(otlp) = raw.otlp.filter(|text| text != "off") else {
        return Ok(None);
    };
    let (is_secure, collector, path) =
        collector(&otlp).ok_or_else(|| Problem::new("traces.otlp", refusal(&otlp)))?;
    if raw.certificate.is_some() && !is_secure {
        let message = "is for https: write traces.otlp: https://HOST:PORT, or leave it out";
        return Err(Problem::new("traces.certificate", message));
    }
    let is_http = path.len() > 1 || collector.port == limits::OTLP_HTTP_PORT;
    let usual = if is_http {
        OtlpProtocol::Http
    } else {
        OtlpProtocol::Grpc
    };
    Ok(Some(Traces {
        is_secure,
        collector,
        path: if path.len() > 1 {
            path
        } else {
            PATH.to_owned()
        },
        protocol: raw.protocol.unwrap_or(usual),
        ratio,
        headers,
        timeout,
        certificate: raw.certificate,
        resource,
    }))
}

/// The path of OTLP/HTTP for spans.
pub(super) const PATH: &str = "/v1/traces";

fn refusal(text: &str) -> String {
    // A URL may hold a password.
    let shown = text.rsplit('@').next().unwrap_or_default();
    format!(
        "`{shown}` is no collector: write http://HOST:PORT or https://HOST:PORT without a user or a query, as http://127.0.0.1:4317 (gRPC) or http://127.0.0.1:4318 (HTTP), or off"
    )
}

/// Whether it is asked over TLS, where it is, and the path. Only https has a usual port.
fn collector(text: &str) -> Option<(bool, HostPort, String)> {
    let uri: Uri = text.parse().ok()?;
    let is_secure = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTP => false,
        scheme if *scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let port = authority
        .port_u16()
        .or(is_secure.then_some(443))
        .filter(|port| *port != 0)?;
    if authority.as_str().contains('@') || uri.query().is_some() {
        return None;
    }
    let written = authority.host();
    let host = match written
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None if is_host_name(written) => written.to_owned(),
        None => return None,
    };
    Some((is_secure, HostPort { host, port }, uri.path().to_owned()))
}

fn headers(written: BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    const FIELD: &str = "traces.headers";
    if written.len() > limits::TRACES_HEADERS_MAX {
        let message = format!("has more than {} entries", limits::TRACES_HEADERS_MAX);
        return Err(Problem::new(FIELD, message));
    }
    let read = |(name, value): (String, String)| {
        let refuse = || {
            Problem::new(
                format!("{FIELD}.{name}"),
                "is no field of HTTP that may be set",
            )
        };
        let bounded = Some(&value).filter(|value| value.len() <= limits::TRACES_TEXT_MAX);
        let mut field = HeaderValue::from_str(bounded.ok_or_else(refuse)?).map_err(|_| refuse())?;
        field.set_sensitive(true);
        let key = HeaderName::try_from(&name).map_err(|_| refuse())?;
        let of_message = [
            "host",
            "content-type",
            "content-length",
            "te",
            "connection",
            "transfer-encoding",
        ];
        match of_message.contains(&key.as_str()) || key.as_str().starts_with("grpc-") {
            true => Err(refuse()),
            false => Ok((key, field)),
        }
    };
    written.into_iter().map(read).collect()
}

fn resource(written: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    const FIELD: &str = "traces.resource";
    if written.len() > limits::TRACES_RESOURCE_MAX {
        let message = format!("has more than {} entries", limits::TRACES_RESOURCE_MAX);
        return Err(Problem::new(FIELD, message));
    }
    for (name, value) in &written {
        if name.is_empty() || name.len().max(value.len()) > limits::TRACES_TEXT_MAX {
            let message = format!(
                "names and values have 1 to {} bytes",
                limits::TRACES_TEXT_MAX
            );
            return Err(Problem::new(FIELD, message));
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Option<Traces>, String> {
        let raw: RawTraces = serde_saphyr::from_str(text).unwrap();
        parse(raw).map_err(|problem| format!("{}: {}", problem.field, problem.message))
    }

    #[test]
    fn the_port_and_the_path_tell_the_protocol_unless_it_is_said() {
        for (text, protocol, path) in [
            (
                "otlp: 'http://127.0.0.1:4317'",
                OtlpProtocol::Grpc,
                "/v1/traces",
            ),
            (
                "otlp: 'http://127.0.0.1:4318'",
                OtlpProtocol::Http,
                "/v1/traces",
            ),
            (
                "otlp: 'http://[::1]:4318/'",
                OtlpProtocol::Http,
                "/v1/traces",
            ),
            (
                "otlp: 'https://collector/in/traces'",
                OtlpProtocol::Http,
                "/in/traces",
            ),
            (
                "otlp: 'https://collector'",
                OtlpProtocol::Grpc,
                "/v1/traces",
            ),
            (
                "{otlp: 'http://a:4317', protocol: http}",
                OtlpProtocol::Http,
                "/v1/traces",
            ),
        ] {
            let traces = load(text).unwrap().unwrap();
            assert_eq!(
                (traces.protocol, traces.path.as_str()),
                (protocol, path),
                "{text}"
            );
            assert_eq!(traces.is_secure, text.contains("https"), "{text}");
            assert_eq!(traces.ratio, limits::TRACES_RATIO);
        }
        let traces = load("otlp: 'http://[::1]:4318'").unwrap().unwrap();
        assert_eq!(traces.collector.to_string(), "[::1]:4318");
    }

    #[test]
    fn nothing_is_sent_unless_a_collector_is_named() {
        assert!(load("{}").unwrap().is_none());
        assert!(load("{otlp: 'off', ratio: 1}").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key_and_no_secret_is_shown() {
        for (text, key) in [
            ("otlp: '127.0.0.1:4317'", "traces.otlp"),
            ("otlp: 'http://collector'", "traces.otlp"),
            ("otlp: 'ftp://collector:1'", "traces.otlp"),
            ("otlp: 'http://me:secret@collector:1'", "traces.otlp"),
            ("otlp: 'http://collector:1/?a=secret'", "traces.otlp"),
            ("ratio: 1.5", "traces.ratio"),
            ("ratio: .nan", "traces.ratio"),
            ("timeout: 1ms", "traces.timeout"),
            (
                "{otlp: 'http://a:1', certificate: ca.pem}",
                "traces.certificate",
            ),
            ("headers: {content-type: a}", "traces.headers"),
            ("headers: {a: \"b\\nsecret\"}", "traces.headers"),
        ] {
            let refusal = load(text).unwrap_err();
            assert!(refusal.starts_with(key), "{text}: {refusal}");
            assert!(!refusal.contains("me:secret"), "{refusal}");
        }
        let text = "{otlp: 'http://a:1', headers: {authorization: secret}}";
        let traces = load(text).unwrap().unwrap();
        let raw: RawTraces = serde_saphyr::from_str(text).unwrap();
        assert!(!format!("{traces:?} {raw:?}").contains("secret"));
    }
}
