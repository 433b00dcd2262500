//! The pages about settings and policies match the code: every key, its default, and examples that load.
//! `resources.rs` is about the reference pages of resources.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test where they unwrap"
)]

mod fields;
mod resources;

use std::time::Duration;

use serde_json::Value;
use weft_config::compile::effective;
use weft_config::resources::{FIELDS, Set, SourceFile, parse};
use weft_config::settings::{DurationText, Sources, limits, load_ca, load_config, load_proxy, raw};
use weft_transport::tuning::TransportSettings;

const SETTINGS: &str = include_str!("../../../docs/settings.md");
const TUNE: &str = include_str!("../../../docs/tune.md");
const TRAFFIC: &str = include_str!("../../../docs/traffic.md");

/// The YAML example of the section under this heading.
fn example(page: &str, heading: &str) -> String {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let block = section.split("```yaml\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn written(directory: &tempfile::TempDir, text: &str) -> Option<std::path::PathBuf> {
    let path = directory.path().join("settings.yaml");
    std::fs::write(&path, text).unwrap();
    Some(path)
}

/// The default that a page gives for a key in backquotes.
fn default_of<'a>(page: &'a str, key: &str) -> &'a str {
    let row = format!("| `{key}` | ");
    let at = page
        .find(&row)
        .unwrap_or_else(|| panic!("no row for {key}"));
    page[at + row.len()..].split(" |").next().unwrap()
}

#[test]
fn every_transport_setting_is_described_with_its_default() {
    let settings = serde_json::to_value(TransportSettings::default()).unwrap();
    for (key, value) in settings.as_object().unwrap() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(default_of(TUNE, key), value, "{key}");
    }
}

#[test]
fn every_field_of_a_traffic_policy_is_described_with_its_default() {
    let mesh = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: a, namespace: b}\n\
                spec: {ports: [{port: 80, protocol: http}]}\n";
    let places = effective(&valid(mesh), &"Service/b/a".parse().unwrap()).unwrap();
    assert_eq!(places[0].fields.len(), FIELDS.len());
    for field in &places[0].fields {
        let value = shown(&field.value);
        assert_eq!(default_of(TRAFFIC, field.field), value, "{}", field.field);
    }
}

#[test]
fn the_examples_of_traffic_policies_are_valid() {
    let orders = "---\napiVersion: weft.dev/v1alpha1\nkind: Service\n\
                  metadata: {name: orders, namespace: shop}\nspec: {ports: [{port: 80, protocol: http}]}\n";
    let examples: Vec<&str> = TRAFFIC
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|text| text.starts_with("apiVersion"))
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        valid(&format!("{example}{orders}"));
    }
}

/// A value as pages write it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The resources of a text that has neither errors nor warnings.
fn valid(text: &str) -> Set {
    let mut set = Set::default();
    valid_in(&mut set, text);
    set
}

/// Adds the resources of a text, as `weft apply` would: there must be neither errors nor warnings.
fn valid_in(set: &mut Set, text: &str) {
    let parsed = parse(&[SourceFile {
        name: "example.yaml".into(),
        text: text.into(),
    }]);
    for resource in parsed.resources.clone() {
        set.insert(resource);
    }
    let mut findings = weft_config::validate::validate(set, None, &parsed);
    findings.extend(parsed.findings);
    assert!(findings.listed.is_empty(), "{:?}", findings.listed);
}

#[test]
fn every_example_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, &example(SETTINGS, "proxy.yaml"));
    let source = Sources {
        file,
        environment: vec![],
        flags: raw::RawProxy::default(),
    };
    assert_eq!(load_proxy(source).unwrap().warnings, Vec::<String>::new());
    let file = written(&directory, &example(SETTINGS, "ca.yaml"));
    load_ca(Sources {
        file,
        environment: vec![],
        flags: raw::RawCa::default(),
    })
    .unwrap();
    let file = written(&directory, &example(SETTINGS, "config.yaml"));
    let flags = raw::RawConfigService::default();
    load_config(Sources {
        file,
        environment: vec![],
        flags,
    })
    .unwrap();
}

#[test]
fn every_key_of_a_whole_file_has_a_row() {
    let whole = serde_saphyr::from_str::<raw::RawProxy>(&example(SETTINGS, "proxy.yaml")).unwrap();
    let whole = serde_json::to_value(whole).unwrap();
    let mut keys = Vec::new();
    keys_of("", &whole, &mut keys);
    for key in keys.iter().filter(|key| !key.starts_with("transport.")) {
        default_of(SETTINGS, key);
    }
}

fn keys_of(prefix: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                keys_of(&format!("{prefix}.{key}"), value, keys);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            for item in items {
                keys_of(&format!("{prefix}[]"), item, keys);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            keys.push(prefix.trim_start_matches('.').to_owned())
        }
    }
}

#[test]
fn defaults_are_those_of_the_code() {
    let text = |duration: Duration| DurationText(duration).to_string();
    let expected = [
        (
            "timeouts.application_connect",
            text(limits::APPLICATION_CONNECT),
        ),
        ("timeouts.application_idle", text(limits::APPLICATION_IDLE)),
        ("timeouts.request_headers", text(limits::REQUEST_HEADERS)),
        ("timeouts.stream_idle", text(limits::STREAM_IDLE)),
        ("timeouts.tunnel_idle", text(limits::TUNNEL_IDLE)),
        ("traces.ratio", limits::TRACES_RATIO.to_string()),
        ("traces.timeout", text(limits::TRACES_TIMEOUT)),
        ("drain.accept", text(limits::DRAIN_ACCEPT)),
        ("drain.deadline", text(limits::DRAIN_DEADLINE)),
        ("concurrency.in_flight_max", limits::IN_FLIGHT.to_string()),
        ("svid_ttl", text(limits::SVID_TTL)),
        ("renewal_grace", text(limits::RENEWAL_GRACE)),
        ("inbound.listen", format!("[::]:{}", limits::MESH_PORT)),
        ("admin.listen", format!("127.0.0.1:{}", limits::ADMIN_PORT)),
    ];
    for (key, value) in expected {
        assert_eq!(default_of(SETTINGS, key), value, "{key}");
    }
    for port in [limits::CA_PORT, limits::CONFIG_PORT] {
        assert!(
            SETTINGS.contains(&format!("| `listen` | [::]:{port} |")),
            "{port}"
        );
    }
}
