//! Tests of `config/src/settings/proxy.rs`.

use super::*;

/// The file of the user's guide, with every key that it shows.
const WHOLE: &str = r#"
join: { token_file: token }
config: { addresses: ["10.9.0.9:6201"] }
state_dir: state
workers: 2
inbound:
  listen: "10.9.0.3:6143"
  services:
    - { service: orders, port: 80, application: "127.0.0.1:8080" }
outbound:
  listeners:
    - { listen: "127.0.0.1:5001", service: orders.shop, port: 80 }
    - { listen: "unix:/run/app.sock", route_by: host }
admin: { listen: "127.0.0.1:6191" }
access_log: failures
"#;

fn load(text: &str) -> Result<ProxySettings, String> {
    let raw: RawProxy = serde_saphyr::from_str(text).unwrap();
    parse(raw, NonZeroUsize::new(8).unwrap())
        .map_err(|problem| format!("{}: {}", problem.field, problem.message))
}

#[test]
fn a_value_out_of_range_is_the_fault_of_the_layer_that_set_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.yaml");
    std::fs::write(&file, WHOLE.replace("workers: 2", "workers: 0")).unwrap();
    let refusal = |environment: &[(&str, &str)], workers| {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        let sources = Sources {
            file: Some(file.clone()),
            environment: environment.iter().map(owned).collect(),
            flags: RawProxy {
                workers,
                ..RawProxy::default()
            },
        };
        load_proxy(sources).unwrap_err().to_string()
    };
    let range = "is out of range: write 1 to 256";
    assert!(refusal(&[], None).ends_with(&format!("proxy.yaml: workers: 0 {range}")));
    assert_eq!(
        refusal(&[("WEFT_WORKERS", "300")], None),
        format!("environment variable WEFT_WORKERS: 300 {range}")
    );
    assert_eq!(
        refusal(&[("WEFT_WORKERS", "3")], Some(400)),
        format!("the command line: workers: 400 {range}")
    );
    assert_eq!(
        refusal(
            &[
                ("WEFT_WORKERS", "3"),
                ("WEFT_OUTBOUND", r#"{listeners=[{listen="127.0.0.1:1"}]}"#)
            ],
            None
        ),
        "environment variable WEFT_OUTBOUND: outbound.listeners[0].service: is missing: write \
         service and port, or route_by: host"
    );
}

#[test]
fn the_whole_file_becomes_complete_settings() {
    let settings = load(WHOLE).unwrap();
    assert_eq!(settings.workers.get(), 2);
    assert_eq!(settings.outbound[1].target, OutboundTarget::ByHost);
    assert_eq!(settings.timeouts.tunnel_idle, limits::TUNNEL_IDLE);
    assert_eq!(
        settings.inbound.unwrap().services[0]
            .service
            .in_namespace("shop")
            .unwrap()
            .to_string(),
        "orders.shop"
    );
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = load(
        "state_dir: s\noutbound: { listeners: [ { listen: \"127.0.0.1:1\", route_by: host } ] }",
    )
    .unwrap();
    assert_eq!(settings.workers.get(), limits::WORKERS_DEFAULT_MAX);
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:6191");
    assert_eq!(settings.access_log, AccessLog::Failures);
    assert_eq!(settings.drain.deadline, limits::DRAIN_DEADLINE);
    assert_eq!(settings.concurrency.in_flight_max, 1024);
    assert!(settings.inbound.is_none());
}

#[test]
fn what_makes_no_sense_together_is_refused_with_its_field() {
    let listener = "state_dir: s\noutbound: { listeners: [ { listen: \"127.0.0.1:1\"";
    let cases = [
        ("workers: 1".to_owned(), "state_dir: is missing"),
        (
            "state_dir: s".to_owned(),
            "inbound, outbound: the sidecar would do nothing",
        ),
        (
            format!("{listener}, service: a }} ] }}"),
            "outbound.listeners[0].port: is missing",
        ),
        (
            format!("{listener} }} ] }}"),
            "outbound.listeners[0].service: is missing",
        ),
        (
            format!("{listener}, route_by: host, port: 1 }} ] }}"),
            "outbound.listeners[0].route_by: excludes",
        ),
        (
            format!("{listener}, route_by: original_destination }} ] }}"),
            "outbound.listeners[0].route_by: original_destination is not supported yet",
        ),
        (
            format!(
                "{listener}, route_by: host }}, {{ listen: \"127.0.0.1:1\", route_by: host }} ] }}"
            ),
            "outbound.listeners[1].listen: 127.0.0.1:1 is used by two listeners",
        ),
        (
            WHOLE.replace(
                "application: \"127.0.0.1:8080\"",
                "application: \"127.0.0.1:8080\", plaintext_listen: \"127.0.0.1:5001\"",
            ),
            "inbound.services[0].plaintext_listen: 127.0.0.1:5001 is used by another listener: give each its own",
        ),
        (
            WHOLE.replace(
                "application: \"127.0.0.1:8080\"",
                "application: none, health: { kind: tcp }",
            ),
            "inbound.services[0].health: application: none leaves nothing for it",
        ),
        (
            WHOLE.replace(
                "application: \"127.0.0.1:8080\"",
                "application: none, plaintext_listen: \"127.0.0.1:5002\"",
            ),
            "inbound.services[0].plaintext_listen: application: none leaves nothing for it",
        ),
        (
            format!("{WHOLE}\ntimeouts: {{ stream_idle: 1ms }}"),
            "timeouts.stream_idle: 1ms is out of range: write 10ms to 168h",
        ),
        (
            format!("{WHOLE}\ndrain: {{ accept: 30s }}"),
            "drain.accept: is longer",
        ),
        (
            format!("{WHOLE}\ntransport: {{ congestion: bbr, keep_alive: 1ms }}"),
            "transport.keep_alive: 1ms is out of range: write 100ms to",
        ),
        (
            WHOLE.replace("workers: 2", "workers: 0"),
            "workers: 0 is out of range: write 1 to 256",
        ),
    ];
    for (text, expected) in cases {
        let refusal = load(&text).unwrap_err();
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}
