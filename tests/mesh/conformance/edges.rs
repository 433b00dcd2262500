//! What the text of the API says where the public suite does not look: repeated names, durations, backends
//! without endpoints, filters of nowhere, mirrors that misbehave, answers that take too long.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::fixture::{Fixture, expect, expect_shares, expect_soon, route, route_for};
use super::report::judging;
use crate::harness::{Origin, Sidecar, connect, eventually, pause};

const TO_V1: &str = "backendRefs: [ { name: v1, port: 80 } ]";

/// A Service of namespace `shop` with port 80.
fn service(name: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
         spec: {{ ports: [ {{ port: 80, protocol: http }} ] }}\n"
    )
}

fn serve(fixture: &Fixture, name: &str, application: &Origin) -> Sidecar {
    let plan = fixture.mesh.sidecar(name);
    plan.serves(&format!("{name}:80"), application.address)
        .start()
}

#[track_caller]
fn refused(fixture: &Fixture, case: &str, resources: &str, field: &str) {
    let output = fixture.try_apply(resources);
    assert_eq!(output.code, 65, "{case}: {output:?}");
    let names_it = |line: &str| line.contains("case.yaml:") && line.contains(field);
    assert!(output.stderr.lines().any(names_it), "{case}: {output:?}");
}

#[test]
fn x10_x11_x35_x40_x45_x55_repeated_names_and_durations_mean_what_the_specification_says() {
    let fixture = Fixture::start();
    let _judging = judging();
    let rule = |more: &str| route("r", &format!("- {{ {more}, {TO_V1} }}\n"));
    // X10: of two conditions on one header the first one counts.
    fixture.apply(&rule(
        "matches: [ { headers: [ { name: Foo, value: \"1\" }, { name: foo, value: \"2\" } ] } ]",
    ));
    expect(
        &fixture,
        "X10",
        &[("GET / {foo: 1}", "v1"), ("GET / {foo: 2}", "404")],
    );
    let hosts =
        rule("name: a").replace("  rules:", "  hostnames: [ \"orders.example\" ]\n  rules:");
    refused(&fixture, "X40", &hosts, "spec.hostnames");
    let twice = route(
        "r",
        &format!("- {{ name: a, {TO_V1} }}\n- {{ name: a, {TO_V1} }}\n"),
    );
    refused(&fixture, "X45", &twice, "spec.rules");
    for text in [
        "\"\"",
        "\"0\"",
        "\"1\"",
        "1m1",
        "1d",
        "1.5h",
        "-15m",
        "999999h",
        "1h30m10s20ms50h",
        "1us",
    ] {
        let rule = rule(&format!("timeouts: {{ request: {text} }}"));
        refused(&fixture, "X55", &rule, "spec.rules[0].timeouts.request");
    }
    for (text, canonical) in [
        ("0h", "0s"),
        ("0s", "0s"),
        ("0h0m0s", "0s"),
        ("150m", "2h30m"),
        ("7230s", "2h30s"),
        ("10s30m1h", "1h30m10s"),
        ("100ms200ms300ms", "600ms"),
        ("01h", "1h"),
        ("00060m", "1h"),
        ("1h500ms", "1h500ms"),
    ] {
        fixture.apply(&rule(&format!("timeouts: {{ request: {text} }}")));
        // What a user wrote is not rewritten; what weft says of it has the canonical form.
        let weft = |arguments: &[&str]| {
            let told = fixture.mesh.weft(arguments).ok();
            serde_json::from_str::<serde_json::Value>(&told).unwrap()
        };
        let shown = weft(&["get", "httproute", "r", "-n", "shop", "-o", "json"]);
        let shown = &shown[0]["spec"]["rules"][0]["timeouts"]["request"];
        assert_eq!(shown, text, "X55");
        let effective = weft(&[
            "get",
            "--effective",
            "httproute/r",
            "-n",
            "shop",
            "-o",
            "json",
        ]);
        let fields = effective[0]["fields"].as_array().unwrap().iter();
        let mut request = fields.filter(|one| one["field"] == "timeouts.request");
        assert_eq!(request.next().unwrap()["value"], canonical, "X55 {text}");
    }
    // X11: of a parameter that a request repeats, the first one counts. X35: no rule takes the others.
    fixture.apply(&rule(
        "matches: [ { queryParams: [ { name: a, value: \"1\" } ] } ]",
    ));
    expect(
        &fixture,
        "X11, X35",
        &[
            ("GET /?a=1&a=2", "v1"),
            ("GET /?a=2&a=1", "404"),
            ("GET /", "404"),
        ],
    );
}

#[test]
fn x15_x24_x41_what_cannot_be_done_is_answered_as_an_error_and_never_left_out() {
    let fixture = Fixture::start();
    let _judging = judging();
    // X15: no workload has ever registered for `idle`.
    let split = "- { backendRefs: [ { name: v1, port: 80, weight: 1 }, { name: idle, port: 80, weight: 1 } ] }\n";
    fixture.apply(&(service("idle") + &route("r", split)));
    expect_shares(&fixture, "X15", &[("503", 0.5), ("v1", 0.5)]);
    // X24: the rule beside it is unharmed.
    let extension = "filters: [ { type: ExtensionRef, extensionRef: { group: example.com, kind: Unknown, name: x } } ]";
    let at = |path: &str| {
        format!("matches: [ {{ path: {{ type: PathPrefix, value: {path} }} }} ], {TO_V1}")
    };
    let rules = format!(
        "- {{ {extension}, {} }}\n- {{ {} }}\n",
        at("/x"),
        at("/other")
    );
    fixture.apply(&route("r", &rules));
    expect(&fixture, "X24", &[("GET /x", "500"), ("GET /other", "v1")]);
    // X41: of a GRPCRoute and an HTTPRoute on one port the GRPCRoute acts.
    let parent = "{ group: \"\", kind: Service, name: echo, port: 80 }";
    let grpc = route_for("g", "shop", parent, &format!("- {{ {TO_V1} }}\n"))
        .replace("kind: HTTPRoute", "kind: GRPCRoute");
    fixture.apply(&(route("r", &format!("- {{ {TO_V1} }}\n")) + &grpc));
    let of_http = fixture.conditions("httproute", "r", "shop");
    assert_eq!(of_http["Accepted"], "False Conflicted", "X41: {of_http:?}");
    let of_grpc = fixture.conditions("grpcroute", "g", "shop");
    assert_eq!(of_grpc["Accepted"], "True Accepted", "X41: {of_grpc:?}");
}

#[test]
fn x26_a_mirror_that_is_slow_fails_or_breaks_off_changes_no_answer() {
    let fixture = Fixture::start();
    let slow = Origin::http(fixture.mesh.address(), |_, out| {
        pause(Duration::from_secs(10));
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(true)
    });
    let failing = Origin::http(fixture.mesh.address(), |_, out| {
        out.write_all(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")?;
        Ok(true)
    });
    let resets = Origin::http(fixture.mesh.address(), |_, _| Ok(false));
    let mirrors = [("slow", &slow), ("failing", &failing), ("resets", &resets)];
    let services = mirrors.map(|(name, _)| service(name)).concat();
    let filters = mirrors.map(|(name, _)| {
        format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {name}, port: 80 }} }} }}")
    });
    fixture.apply(
        &(services
            + &route(
                "r",
                &format!("- {{ filters: [ {} ], {TO_V1} }}\n", filters.join(", ")),
            )),
    );
    let _serving = mirrors.map(|(name, application)| serve(&fixture, name, application));
    let copied = || {
        let answer = fixture.ask("GET /x {X-Answer-With: X-Told: yes}");
        let copies = mirrors.iter();
        assert_eq!(answer.outcome(), "v1", "{answer:?}");
        copies.filter(|(_, one)| !one.requests().is_empty()).count() == mirrors.len()
    };
    eventually("each mirror gets copies", copied);
    let _judging = judging();
    for _ in 0..10 {
        let began = Instant::now();
        let answer = fixture.ask("GET /x {X-Answer-With: X-Told: yes}");
        assert_eq!(answer.outcome(), "v1", "X26: {answer:?}");
        assert_eq!(answer.header("x-told").as_deref(), Some("yes"));
        // The slow one takes ten seconds for each.
        assert!(began.elapsed() < Duration::from_secs(5), "X26: {began:?}");
    }
}

#[test]
fn x30_x33_x34_a_time_limit_covers_the_whole_answer_and_every_attempt() {
    let fixture = Fixture::start();
    let drips = Origin::http(fixture.mesh.address(), |request, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf,")?;
        out.flush()?;
        if request.path() != "/ready" {
            pause(Duration::from_secs(5));
        }
        out.write_all(b"rest.")?;
        Ok(true)
    });
    let at = |path: &str, more: &str, to: &str| {
        format!(
            "- {{ matches: [ {{ path: {{ type: PathPrefix, value: {path} }} }} ], {more}, \
             backendRefs: [ {{ name: {to}, port: 80 }} ] }}\n"
        )
    };
    let rules = [
        at("/whole", "timeouts: { request: 1s }", "drips"),
        at("/some", "retry: { codes: [500] }", "v3"),
        at(
            "/open",
            "retry: { codes: [500], attempts: 2 }, timeouts: { request: 300ms }",
            "v3",
        ),
        at("/ready", "name: ready", "drips"),
    ];
    fixture.apply(&(service("drips") + &route("r", &rules.concat())));
    let _serving = serve(&fixture, "drips", &drips);
    expect_soon(&fixture, "it is there", "GET /ready", "200");
    let _judging = judging();
    // X30: the body breaks off when the time is over.
    let began = Instant::now();
    let mut stream = connect(fixture.address(super::fixture::From::Shop, "echo:80")).unwrap();
    stream
        .write_all(b"GET /whole HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut got = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut got);
    let (text, took) = (String::from_utf8_lossy(&got), began.elapsed());
    assert!(text.starts_with("HTTP/1.1 200"), "X30: {text}");
    assert!(text.ends_with("half,"), "X30: {text}");
    let bounds = Duration::from_millis(900)..Duration::from_secs(4);
    assert!(bounds.contains(&took), "X30: {took:?}");
    // X33: without a number of attempts there are some.
    let answer = fixture.ask("GET /some?uuid=x33&succeedAfter=1&responseCode=500");
    assert_eq!(answer.outcome(), "v3", "X33: {answer:?}");
    // X34: an attempt that is open when the time is over is cancelled.
    let began = Instant::now();
    let answer = fixture.ask("GET /open?delay=3000");
    assert_eq!(answer.outcome(), "504", "X34: {answer:?}");
    let bounds = Duration::from_millis(280)..Duration::from_millis(2500);
    assert!(
        bounds.contains(&began.elapsed()),
        "X34: {:?}",
        began.elapsed()
    );
}

#[test]
fn g14_g15_where_the_mesh_asks_for_grants_only_one_that_fits_leads_to_another_namespace() {
    let fixture = Fixture::start();
    let _judging = judging();
    let across = route(
        "r",
        "- { backendRefs: [ { name: w, namespace: web, port: 8080 } ] }\n",
    );
    fixture.apply(&across);
    expect_soon(&fixture, "G14", "GET /", "w");
    fixture.mesh.apply(
        "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: mesh }\n\
         spec: { requireReferenceGrants: true }\n",
    );
    let grant = |namespace: &str, from: &str, to: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
             metadata: {{ name: g, namespace: {namespace} }}\nspec: {{ from: [ {{ {from} }} ], to: [ {{ {to} }} ] }}\n"
        )
    };
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";
    let to = "group: \"\", kind: Service, name: w";
    let other = |of: &str, what: &str, by: &str| of.replace(what, by);
    let wrong = [
        grant("shop", from, to),
        grant(
            "web",
            &other(from, "gateway.networking.k8s.io", "other.example"),
            to,
        ),
        grant("web", &other(from, "HTTPRoute", "Gateway"), to),
        grant(
            "web",
            &other(from, "namespace: shop", "namespace: cons"),
            to,
        ),
        grant("web", from, &other(to, "\"\"", "other.example")),
        grant("web", from, &other(to, "Service", "Secret")),
        grant("web", from, &other(to, "name: w", "name: v")),
    ];
    for grant in &wrong {
        fixture.apply(&(across.clone() + grant));
        expect(&fixture, "G15", &[("GET /", "500")]);
        let found = fixture.conditions("httproute", "r", "shop");
        assert_eq!(found["Accepted"], "True Accepted", "G15: {grant}");
        assert_eq!(
            found["ResolvedRefs"], "False RefNotPermitted",
            "G15: {grant}"
        );
    }
    fixture.apply(&(across.clone() + &grant("web", from, to)));
    expect_soon(&fixture, "G14", "GET /", "w");
    let found = fixture.conditions("httproute", "r", "shop");
    assert_eq!(found["ResolvedRefs"], "True ResolvedRefs", "G14: {found:?}");
    // A grant that is taken back ends what it allowed.
    fixture.apply(&across);
    expect(&fixture, "G14", &[("GET /", "500")]);
}
