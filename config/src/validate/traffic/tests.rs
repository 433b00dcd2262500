//! Each bad traffic policy with the exact line that the operator reads.

use crate::resources::{Resource, SourceFile, parse};
use crate::validate::tests::{check, service};

/// Four services and a route of 43 lines; the policy's spec begins at line 48.
fn mesh() -> String {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
        metadata: {name: split, namespace: shop}\nspec:\n  parentRefs: [{group: '', kind: Service, name: orders}]\n\
        \x20 rules:\n    - backendRefs: [{name: orders, port: 80}]\n---\n";
    service("orders", "http")
        + &service("db", "tcp")
        + &service("quotes", "grpc")
        + &service("spare", "http")
        + route
}

fn policy(name: &str, targets: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  targetRefs: [{targets}]\n{spec}"
    )
}

const ORDERS: &str = "{kind: Service, name: orders}";
const DB: &str = "{kind: Service, name: db}";
const QUOTES: &str = "{kind: Service, name: quotes}";
const SPLIT: &str = "{kind: HTTPRoute, name: split}";
const SHOP: &str = "{kind: Namespace, name: shop}";

/// The findings of a policy, without file and line, besides that a field is not supported yet.
fn findings(targets: &str, spec: &str) -> Vec<String> {
    let found = check(&(mesh() + &policy("p", targets, spec)));
    found
        .iter()
        .filter(|line| !line.ends_with("is not supported yet; no sidecar acts on it; remove it"))
        .map(|line| line.split_once(": ").unwrap().1.to_owned())
        .collect()
}

#[track_caller]
fn is_refused(targets: &str, spec: &str, message: &str) {
    assert_eq!(findings(targets, spec), [message], "{spec}");
}

#[test]
fn a_policy_with_every_field_is_accepted_and_can_be_written_and_read_again() {
    let whole: serde_json::Value =
        serde_json::from_str(crate::resources::WHOLE_TRAFFIC_POLICY).unwrap();
    // JSON is YAML.
    let fields = whole.as_object().unwrap();
    let spec: String = fields
        .iter()
        .map(|(name, value)| format!("  {name}: {value}\n"))
        .collect();
    let parsed = parse(&[SourceFile {
        name: "t.yaml".into(),
        text: policy("p", ORDERS, &spec),
    }]);
    assert!(!parsed.findings.has_errors(), "{:?}", parsed.findings);
    let Resource::TrafficPolicy(object) = &parsed.resources[0] else {
        panic!("{:?}", parsed.resources)
    };
    assert_eq!(object.spec.traffic, serde_json::from_value(whole).unwrap());
    let again = parse(&[SourceFile {
        name: "t.yaml".into(),
        text: parsed.resources[0].to_yaml(),
    }]);
    assert_eq!(again.resources, parsed.resources, "{:?}", again.findings);
    let stored = serde_json::to_string(&parsed.resources[0]).unwrap();
    assert_eq!(
        serde_json::from_str::<Resource>(&stored).unwrap(),
        parsed.resources[0]
    );
    let unknown = stored.replace("\"balance\"", "\"balanse\"");
    assert!(serde_json::from_str::<Resource>(&unknown).is_err());
}

#[test]
fn a_finding_has_its_line() {
    let spec = "  retry:\n    attempts: 11\n";
    assert_eq!(
        check(&(mesh() + &policy("p", ORDERS, spec))),
        ["mesh.yaml:43: spec.retry.attempts: 11 is not within 0 to 10"]
    );
}

#[test]
fn values_out_of_range_or_without_unit_are_refused() {
    for (spec, message) in [
        (
            "  timeouts: {request: 10}\n",
            "spec.timeouts.request: \"10\" has no unit; write 10s for seconds, or one of \
             ms, m, h, d",
        ),
        (
            "  timeouts: {request: 25h}\n",
            "spec.timeouts.request: 25h is not within 1ms to 24h, or 0s for none",
        ),
        (
            "  timeouts: {streamIdle: 0s}\n",
            "spec.timeouts.streamIdle: 0s is not within 1ms to 24h",
        ),
        (
            "  timeouts: {request: 1s, backendRequest: 2s}\n",
            "spec.timeouts.backendRequest: is longer than request, so it never ends an attempt; make it \
             shorter, or leave it out",
        ),
        (
            "  retry: {codes: [200]}\n",
            "spec.retry.codes[0]: 200 is not within 400 to 599",
        ),
        (
            "  retry: {grpcCodes: [unavailable]}\n",
            "spec.retry.grpcCodes[0]: \"unavailable\" is not known here; did you mean UNAVAILABLE?",
        ),
        (
            "  retry: {backoff: {base: 1s, max: 500ms}}\n",
            "spec.retry.backoff.max: is less than base; write 1s or more",
        ),
        (
            "  retry: {backoff: {max: 2m}}\n",
            "spec.retry.backoff.max: 2m is not within 1ms to 1m",
        ),
        (
            "  retry: {backoff: {max: 5}}\n",
            "spec.retry.backoff.max: \"5\" has no unit; write 5s for seconds, or one of \
             ms, m, h, d",
        ),
        (
            "  retry: {bodyReplay: 65536}\n",
            "spec.retry.bodyReplay: \"65536\" has no unit; write 65536B for bytes, or one of \
             KiB, MiB, GiB",
        ),
        (
            "  retry: {bodyReplay: 2MiB}\n",
            "spec.retry.bodyReplay: 2MiB is not within 0B to 1MiB",
        ),
        (
            "  retry: {nonIdempotent: 'yes'}\n",
            "spec.retry.nonIdempotent: expected true or false, found a text",
        ),
        (
            "  retryBudget: {percent: 120}\n",
            "spec.retryBudget.percent: 120 is not valid: a percentage is a number from 0 to 100 with at \
             most two decimals",
        ),
        (
            "  retryBudget: {percent: 20%}\n",
            "spec.retryBudget.percent: expected a number, found a text; write the number without a sign, \
             as 20 or 0.5",
        ),
        (
            "  hedge: {after: p30}\n",
            "spec.hedge.after: \"p30\" is not valid: a percentile is within p50 to p99.9; write a delay \
             as 50ms or a percentile as p95",
        ),
        (
            "  balance: {algorithm: Maglev}\n",
            "spec.balance.algorithm: needs a key to hash; add key: { header: NAME }, key: { cookie: NAME } \
             or key: source",
        ),
        (
            "  balance: {algorithm: RoundRobin, key: source}\n",
            "spec.balance.key: this algorithm hashes nothing; remove the key, or use RingHash or Maglev",
        ),
        (
            "  balance: {key: source}\n",
            "spec.balance.key: a key without an algorithm; add algorithm: RingHash or Maglev",
        ),
        (
            "  balance: {algorithm: RingHash, key: {header: weft-service}}\n",
            "spec.balance.key.header: headers that begin with weft- are the mesh's own",
        ),
        (
            "  balance: {algorithm: RingHash, key: {header: a, cookie: b}}\n",
            "spec.balance.key: write either header or cookie",
        ),
        (
            "  breaker: {ejection: {base: 1m, max: 30s}}\n",
            "spec.breaker.ejection.max: is less than base; write 1m or more",
        ),
        (
            "  breaker: {mode: enforce}\n",
            "spec.breaker.mode: \"enforce\" is not known here; did you mean Enforce?",
        ),
        (
            "  concurrency: {max: 0}\n",
            "spec.concurrency.max: 0 is not within 1 to 1000000",
        ),
        (
            "  concurrency: {priority: {header: x-priority, high: [a], low: [a]}}\n",
            "spec.concurrency.priority: \"a\" is both high and low",
        ),
        (
            "  rateLimits: [{requests: 10, per: 1ms}]\n",
            "spec.rateLimits[0].per: 1ms is not within 100ms to 24h",
        ),
        (
            "  fault: {abort: {percent: 1}}\n",
            "spec.fault.abort: write either status or grpcStatus; as in status: 503 or grpcStatus: \
             UNAVAILABLE",
        ),
        (
            "  overrides: {callers: ['*']}\n",
            "spec.overrides.callers[0]: \"*\" is not valid: write \
             spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT; the last segments may be one *",
        ),
        (
            "  overrides: {callers: ['spiffe://other.test/ns/a/*']}\n",
            "spec.overrides.callers[0]: spiffe://other.test/ns/a/* is outside the trust domain of this \
             mesh; the mesh is demo.test",
        ),
        (
            "  retrys: {attempts: 3}\n",
            "spec.retrys: unknown field; did you mean retry?",
        ),
    ] {
        is_refused(ORDERS, spec, message);
    }
}

#[test]
fn targets_must_exist_and_be_the_policys_own() {
    let spec = "  retry: {attempts: 1}\n";
    for (targets, message) in [
        (
            "{kind: Service, name: order}",
            "spec.targetRefs[0].name: there is no Service order in namespace shop; did you mean orders?",
        ),
        (
            "{kind: HTTPRoute, name: splt}",
            "spec.targetRefs[0].name: there is no HTTPRoute splt in namespace shop; did you mean split?",
        ),
        (
            "{kind: Namespace, name: other}",
            "spec.targetRefs[0].name: the policy is in namespace shop; put it into other, or name its own",
        ),
        (
            "{kind: Service, name: orders}, {kind: Service, name: orders}",
            "spec.targetRefs[1].name: Service orders is listed twice; remove one",
        ),
        (
            "{kind: Gateway, name: orders}",
            "spec.targetRefs[0].kind: \"Gateway\" is not known here; use Service or ExternalService or HTTPRoute or GRPCRoute or Namespace",
        ),
        (
            "{kind: Service, name: orders, sectionName: http}",
            "spec.targetRefs[0].sectionName: is not supported yet; a policy covers all ports of a Service \
             and all rules of a route",
        ),
    ] {
        is_refused(targets, spec, message);
    }
    is_refused(
        ORDERS,
        "",
        "spec: says nothing about its targets; add timeouts, retry, balance or another field",
    );
    assert!(findings(SHOP, spec).is_empty());
}

#[test]
fn a_field_stands_where_it_means_something() {
    for (targets, spec, message) in [
        (
            SPLIT,
            "  breaker: {consecutiveFailures: 3}\n",
            "spec.breaker.consecutiveFailures: concerns the endpoints of a Service, not the requests of a \
             route; move it to a policy for the Service",
        ),
        (
            SPLIT,
            "  rateLimits: [{requests: 10, per: 1s, by: Caller}]\n",
            "spec.rateLimits[0].by: is enforced by the sidecars that serve, which know no routes; write \
             by: Route, or move it to a policy for the Service",
        ),
        (
            ORDERS,
            "  rateLimits: [{requests: 10, per: 1s, by: Route}]\n",
            "spec.rateLimits[0].by: there is no route here; write by: Service or by: Caller, or target a \
             route",
        ),
        (
            DB,
            "  timeouts: {request: 1s}\n",
            "spec.timeouts.request: needs requests, but Service db has tcp ports only; remove it",
        ),
        (
            DB,
            "  balance: {algorithm: RingHash, key: {header: x-user}}\n",
            "spec.balance.key: needs requests, but Service db has tcp ports only; write key: source",
        ),
        (
            SHOP,
            "  failover: {name: spare}\n",
            "spec.failover: one Service cannot take over for all; move it to a policy for the Service",
        ),
    ] {
        is_refused(targets, spec, message);
    }
    assert!(
        findings(
            DB,
            "  breaker: {consecutiveFailures: 3}\n  retry: {attempts: 1}\n"
        )
        .is_empty()
    );
    assert!(findings(SPLIT, "  rateLimits: [{requests: 10, per: 1s}]\n").is_empty());
}

#[test]
fn what_may_execute_a_request_twice_is_a_warning() {
    is_refused(
        ORDERS,
        "  retry: {nonIdempotent: true}\n",
        "warning: spec.retry.nonIdempotent: a request such as a POST may then be executed twice; make sure \
         that the application recognises it, or use an Idempotency-Key",
    );
    is_refused(
        ORDERS,
        "  hedge: {after: p95, nonIdempotent: true}\n",
        "warning: spec.hedge.nonIdempotent: a request such as a POST is then executed twice as a rule; make \
         sure that every method of the service only reads",
    );
    is_refused(
        QUOTES,
        "  hedge: {after: p95}\n",
        "warning: spec.hedge.after: quotes is grpc, whose calls are all POST; nothing is hedged without \
         hedge.nonIdempotent: true",
    );
}

#[test]
fn two_policies_do_not_say_the_same_of_one_target() {
    let both = |first: &str, second: &str| {
        check(
            &(mesh()
                + &policy("a", ORDERS, first)
                + "---\n"
                + &policy("b", &format!("{ORDERS}, {QUOTES}"), second)),
        )
    };
    assert_eq!(
        both("  retry: {attempts: 1}\n", "  retry: {attempts: 3}\n"),
        [
            "mesh.yaml:49: spec.retry.attempts: TrafficPolicy/shop/a says it for Service orders already; \
          remove one"
        ]
    );
    let apart = both("  retry: {attempts: 1}\n", "  retry: {codes: [503]}\n");
    assert!(apart.is_empty(), "{apart:?}");
}

#[test]
fn a_failover_leads_to_a_service_that_speaks_the_same() {
    for (spec, message) in [
        (
            "  failover: {name: spar}\n",
            "spec.failover.name: there is no Service spar in namespace shop; did you mean spare?",
        ),
        (
            "  failover: {name: orders}\n",
            "spec.failover.name: a Service does not take over for itself; name another one",
        ),
        (
            "  failover: {name: spare, port: 81}\n",
            "spec.failover: Service spare.shop has no port 81; a Service that takes over speaks the same on \
             each port",
        ),
        (
            "  failover: {name: db}\n",
            "spec.failover: port 80 of Service db.shop is tcp, port 80 of orders.shop is http; a Service \
             that takes over speaks the same on each port",
        ),
    ] {
        is_refused(ORDERS, spec, message);
    }
    let cycle = mesh()
        + &policy("a", ORDERS, "  failover: {name: spare}\n")
        + "---\n"
        + &policy(
            "b",
            "{kind: Service, name: spare}",
            "  failover: {name: orders}\n",
        );
    assert_eq!(
        check(&cycle),
        [
            "mesh.yaml:42: spec.failover: the failover leads back to where it began: orders.shop -> \
          spare.shop -> orders.shop; end the chain at one of them"
        ]
    );
}

#[test]
fn the_mesh_takes_defaults_but_no_failover() {
    let mesh = |traffic: &str| {
        check(&format!(
            "apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\nspec:\n  \
             traffic: {traffic}\n"
        ))
    };
    assert!(mesh("{timeouts: {request: 30s}, breaker: {mode: Observe}}").is_empty());
    assert_eq!(
        mesh("{failover: {name: spare}}"),
        [
            "mesh.yaml:5: spec.traffic.failover: one Service cannot take over for all; move it to a policy \
          for the Service"
        ]
    );
    assert_eq!(
        mesh("{retri: {attempts: 1}}"),
        ["mesh.yaml:5: spec.traffic.retri: unknown field; did you mean retry?"]
    );
}
