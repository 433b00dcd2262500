//! The variables by which OpenTelemetry configures programs (`OTEL_*`), as a layer of settings above the
//! file. Pure: the environment is an argument. A value that makes no sense is a warning and not an error, as
//! the specification of OpenTelemetry wants it: such variables are often those of the application.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::raw::RawProxy;
use super::traces::{OtlpProtocol, PATH, RawTraces};
use super::values::DurationText;

/// What the variables say: each variable with its layer, and warnings.
#[derive(Debug, Default)]
pub struct Standard<L> {
    /// In the order in which they are merged.
    pub(super) layers: Vec<(String, L)>,
    /// Each worth one line in the log.
    pub(super) warnings: Vec<String>,
}

/// Reads the variables that concern traces.
pub(super) fn read(environment: &[(String, String)]) -> Standard<RawProxy> {
    let mut read = Standard::default();
    let find = |name: &str| {
        let mut found = environment
            .iter()
            .filter(|(one, text)| one == name && !text.is_empty());
        found.next().map(|(_, text)| text.as_str())
    };
    let of_traces = |option: &str| {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"]
            .map(|prefix| format!("{prefix}{option}"));
        names.into_iter().find_map(|name| {
            let text = find(&name)?;
            Some((name, text))
        })
    };
    if let Some((name, text)) = of_traces("ENDPOINT") {
        let url = match name.contains("TRACES") {
            true => text.to_owned(),
            false => of_all_signals(text),
        };
        read.set(name, |traces| traces.otlp = Some(url));
    }
    if let Some((name, text)) = of_traces("PROTOCOL") {
        match text {
            "grpc" => read.set(name, |traces| traces.protocol = Some(OtlpProtocol::Grpc)),
            "http/protobuf" => read.set(name, |traces| traces.protocol = Some(OtlpProtocol::Http)),
            _ => read.warn(&name, text, "grpc and http/protobuf are known"),
        }
    }
    if let Some((name, text)) = of_traces("TIMEOUT") {
        match text.parse() {
            Ok(milliseconds) => {
                let timeout = DurationText(Duration::from_millis(milliseconds));
                read.set(name, |traces| traces.timeout = Some(timeout));
            }
            Err(_) => read.warn(&name, text, "it is a number of milliseconds"),
        }
    }
    if let Some((name, text)) = of_traces("HEADERS") {
        match pairs(text) {
            Some(headers) => read.set(name, |traces| traces.headers = Some(headers)),
            // The text may be a secret.
            None => read.warn(&name, "its value", "it is a list of NAME=VALUE"),
        }
    }
    if let Some((name, text)) = of_traces("CERTIFICATE") {
        read.set(name, |traces| traces.certificate = Some(text.into()));
    }
    resource(&mut read, &find);
    sampler(&mut read, &find);
    let is_off = find("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if is_off {
        let name = "OTEL_SDK_DISABLED".to_owned();
        read.set(name, |traces| traces.otlp = Some("off".to_owned()));
    }
    match find("OTEL_TRACES_EXPORTER") {
        None | Some("otlp") => {}
        Some("none") => {
            let name = "OTEL_TRACES_EXPORTER".to_owned();
            read.set(name, |traces| traces.otlp = Some("off".to_owned()));
        }
        Some(other) => read.warn("OTEL_TRACES_EXPORTER", other, "otlp and none are known"),
    }
    read
}

/// The endpoint of all signals is a base, to which OTLP/HTTP adds a path for each.
fn of_all_signals(text: &str) -> String {
    let base = text.trim_end_matches('/');
    let has_path = base
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('/'));
    match has_path {
        true => format!("{base}{PATH}"),
        false => base.to_owned(),
    }
}

fn resource<'e>(read: &mut Standard<RawProxy>, find: &impl Fn(&str) -> Option<&'e str>) {
    let mut attributes = BTreeMap::new();
    let mut named = None;
    if let Some(text) = find("OTEL_RESOURCE_ATTRIBUTES") {
        match pairs(text) {
            Some(pairs) => {
                attributes = pairs;
                named = Some("OTEL_RESOURCE_ATTRIBUTES");
            }
            None => read.warn(
                "OTEL_RESOURCE_ATTRIBUTES",
                text,
                "it is a list of NAME=VALUE",
            ),
        }
    }
    if let Some(text) = find("OTEL_SERVICE_NAME") {
        attributes.insert("service.name".to_owned(), text.to_owned());
        named = Some("OTEL_SERVICE_NAME");
    }
    if let Some(name) = named {
        read.set(name.to_owned(), |traces| traces.resource = Some(attributes));
    }
}

/// A sidecar always follows the decision of its caller, so that traces are whole.
fn sampler<'e>(read: &mut Standard<RawProxy>, find: &impl Fn(&str) -> Option<&'e str>) {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let Some(text) = find(NAME) else { return };
    let (base, is_parent_based) = match text.strip_prefix("parentbased_") {
        Some(base) => (base, true),
        None => (text, false),
    };
    let ratio = match base {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => {
            const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
            let written = find(ARGUMENT);
            let ratio = written.map_or(Some(1.0), |text| text.parse().ok());
            let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
            if ratio.is_none() {
                read.warn(
                    ARGUMENT,
                    written.unwrap_or_default(),
                    "it is a number from 0 to 1",
                );
            }
            ratio
        }
        _ => {
            let known =
                "always_on, always_off and traceidratio are known, with parentbased_ before them";
            return read.warn(NAME, text, known);
        }
    };
    if !is_parent_based {
        let kept = "a sidecar follows its caller's decision, as parentbased_ has it";
        read.warn(NAME, text, kept);
    }
    if let Some(ratio) = ratio {
        read.set(NAME.to_owned(), |traces| traces.ratio = Some(ratio));
    }
}

/// `name=value,name=value`, with values in percent-encoding. None where it is something else.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let entries = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    let read = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
    };
    entries.map(read).collect()
}

impl Standard<RawProxy> {
    fn set(&mut self, name: String, change: impl FnOnce(&mut RawTraces)) {
        let mut traces = RawTraces::default();
        change(&mut traces);
        let layer = RawProxy {
            traces: Some(traces),
            ..RawProxy::default()
        };
        self.layers.push((name, layer));
    }

    fn warn(&mut self, name: &str, text: &str, known: &str) {
        self.warnings
            .push(format!("environment variable {name}: {text}: {known}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::Sources;
    use super::super::proxy::load_proxy;
    use super::super::traces::Traces;
    use super::*;

    const NEEDED: &str =
        "{state_dir: s, outbound: {listeners: [{listen: '127.0.0.1:1', route_by: host}]}";

    fn load(file: &str, variables: &[(&str, &str)]) -> (Option<Traces>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.yaml");
        std::fs::write(&path, format!("{NEEDED}{file}}}")).unwrap();
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        let loaded = load_proxy(Sources {
            file: Some(path),
            environment: variables.iter().map(owned).collect(),
            flags: RawProxy::default(),
        });
        let loaded = loaded.unwrap();
        (loaded.settings.traces, loaded.warnings)
    }

    #[test]
    fn the_standard_variables_stand_between_the_file_and_those_of_weft() {
        let file = ", traces: {otlp: 'http://file:4317', ratio: 0.5}";
        let standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318");
        let (traces, warnings) = load(file, &[standard]);
        let traces = traces.unwrap();
        assert_eq!(
            (traces.collector.to_string().as_str(), traces.ratio),
            ("standard:4318", 0.5)
        );
        assert_eq!(warnings, Vec::<String>::new());
        let own = ("WEFT_TRACES__OTLP", "http://own:4317");
        assert_eq!(
            load(file, &[own, standard]).0.unwrap().collector.host,
            "own"
        );
        assert!(
            load(file, &[standard, ("OTEL_SDK_DISABLED", "true")])
                .0
                .is_none()
        );
        assert!(
            load(file, &[standard, ("OTEL_TRACES_EXPORTER", "none")])
                .0
                .is_none()
        );
        assert!(load("", &[]).0.is_none());
    }

    #[test]
    fn a_variable_of_traces_wins_over_that_of_all_signals_whose_endpoint_is_a_base() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all/otlp/");
        assert_eq!(load("", &[all]).0.unwrap().path, "/otlp/v1/traces");
        let of_traces = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://traces/as/written",
        );
        let traces = load("", &[all, of_traces]).0.unwrap();
        assert_eq!(
            (traces.path.as_str(), traces.collector.host.as_str()),
            ("/as/written", "traces")
        );
    }

    #[test]
    fn each_option_has_its_variable() {
        let (traces, warnings) = load(
            "",
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, tenant=one"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/c.pem"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_SERVICE_NAME", "till"),
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "service.name=other,service.version=7",
                ),
            ],
        );
        let traces = traces.unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(traces.protocol, OtlpProtocol::Http);
        let headers: Vec<_> = traces
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(headers, [("api-key", &b"a b"[..]), ("tenant", b"one")]);
        assert_eq!(traces.timeout, Duration::from_millis(2500));
        assert_eq!(traces.certificate, Some("/c.pem".into()));
        assert_eq!(traces.ratio, 0.25);
        assert_eq!(traces.resource["service.name"], "till");
        assert_eq!(traces.resource["service.version"], "7");
    }

    #[test]
    fn what_makes_no_sense_is_a_warning_that_shows_no_secret() {
        let (traces, warnings) = load(
            "",
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
                ("OTEL_TRACES_SAMPLER", "always_on"),
            ],
        );
        assert_eq!(traces.unwrap().ratio, 1.0);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(!warnings.concat().contains("secret"), "{warnings:?}");
    }
}
