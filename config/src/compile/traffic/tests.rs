//! Which policy applies where, seen through tables and through the output of `--effective`.

use std::time::Duration;

use crate::compile::effective::{Effective, effective};
use crate::compile::tests::set;
use crate::compile::{Endpoints, Plan, Sidecar};
use crate::resources::{FIELDS, Key, Set};
use crate::table::{
    Algorithm, Features, HashKey, Mode, RateLimit, Revision, ServiceName, Table, Traffic,
};

/// Two services and a route with two rules, of which the second has timeouts of its own.
const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { ports: [ { port: 80, protocol: http }, { port: 81, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: spare, namespace: other }
spec: { ports: [ { port: 80, protocol: http }, { port: 81, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: db, namespace: shop }
spec: { ports: [ { port: 5432, protocol: tcp } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: split, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: orders, port: 80 } ]
  rules:
    - matches: [ { path: { value: /a } } ]
      backendRefs: [ { name: orders, port: 80 } ]
    - name: slow
      matches: [ { path: { value: /b } } ]
      timeouts: { request: 9s }
      backendRefs: [ { name: orders, port: 80 } ]
"#;

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n{spec}"
    )
}

fn mesh_config(traffic: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\n\
         spec: {{traffic: {traffic}}}\n"
    )
}

const ORDERS: &str = "{kind: Service, name: orders}";
const SHOP: &str = "{kind: Namespace, name: shop}";
const SPLIT: &str = "{kind: HTTPRoute, name: split}";

/// The table of a sidecar that calls everything and serves orders.
fn table(set: &Set) -> Table {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let sidecar = Sidecar {
        identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
        listens_for: [].into(),
        serves: [service("orders.shop")].into(),
        features: Features::all(),
    };
    Plan::new(revision, "demo.test".parse().unwrap(), set).table(&sidecar, &Endpoints::new())
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn traffic<'t>(table: &'t Table, name: &str, port: u16) -> &'t Traffic {
    &table.services[&service(name)].ports[&port].traffic
}

fn why(set: &Set, key: &str, field: &str) -> Vec<String> {
    let key: Key = key.parse().unwrap();
    let places = effective(set, &key).unwrap();
    let says = |one: &Effective| format!("{} from {}", one.value, one.from);
    places
        .iter()
        .filter_map(|place| Some(says(place.fields.iter().find(|one| one.field == field)?)))
        .collect()
}

#[test]
fn without_a_policy_the_defaults_hold_and_the_table_does_not_grow() {
    let table = table(&set(MESH));
    let mut orders = Traffic::default();
    orders.concurrency.adaptive = Mode::Enforce;
    assert_eq!(*traffic(&table, "orders.shop", 80), orders);
    let written = serde_json::to_string(&table.services[&service("db.shop")]).unwrap();
    assert!(!written.contains("traffic"), "{written}");
}

#[test]
fn a_mesh_config_that_does_not_name_the_adaptive_limit_keeps_it_observing() {
    let adaptive = |config: &str| {
        let table = table(&set(&(MESH.to_owned() + &mesh_config(config))));
        traffic(&table, "orders.shop", 80).concurrency.adaptive
    };
    assert_eq!(adaptive("{}"), Mode::Observe);
    assert_eq!(
        adaptive("{concurrency: {adaptive: Enforce}}"),
        Mode::Enforce
    );
}

#[test]
fn each_field_comes_from_the_most_specific_policy_that_has_it() {
    let set = set(&(MESH.to_owned()
        + &mesh_config(
            "{timeouts: {request: 30s}, retry: {attempts: 5, codes: [503]}, priority: Low}",
        )
        + &policy(
            "all",
            SHOP,
            "  retry: {attempts: 4, backoff: {base: 100ms}}\n",
        )
        + &policy(
            "orders",
            ORDERS,
            "  retry: {attempts: 3}\n  timeouts: {request: 2s}\n",
        )
        + &policy("split", SPLIT, "  retry: {attempts: 0}\n")));
    let table = table(&set);
    let port = &table.services[&service("orders.shop")].ports[&80];
    let request = &port.traffic.request;
    assert_eq!(request.retry.attempts, 3);
    assert_eq!(request.retry.backoff.base, Duration::from_millis(100));
    assert_eq!(request.retry.codes, [503]);
    assert_eq!(request.timeouts.request, Some(Duration::from_secs(2)));
    let of = |route: &str| {
        let mut rules = port.routes.iter();
        &rules.find(|rule| rule.route == route).unwrap().traffic
    };
    let (first, slow) = (
        of("HTTPRoute/shop/split/0"),
        of("HTTPRoute/shop/split/slow"),
    );
    assert_eq!((first.retry.attempts, slow.retry.attempts), (0, 0));
    assert_eq!(first.timeouts.request, Some(Duration::from_secs(2)));
    assert_eq!(slow.timeouts.request, Some(Duration::from_secs(9)));
    assert_eq!(first.retry.codes, [503]);

    let db = &traffic(&table, "db.shop", 5432).request;
    assert_eq!(
        (db.retry.attempts, db.timeouts.request),
        (4, Some(Duration::from_secs(30)))
    );
    let spare = &traffic(&table, "spare.other", 80).request;
    assert_eq!(spare.retry.attempts, 5);

    let orders = "Service/shop/orders";
    assert_eq!(
        why(&set, orders, "retry.attempts"),
        [
            "3 from service: TrafficPolicy/shop/orders",
            "0 from route: TrafficPolicy/shop/split",
            "0 from route: TrafficPolicy/shop/split"
        ]
    );
    let base = why(&set, orders, "retry.backoff.base");
    assert_eq!(base, ["\"100ms\" from namespace: TrafficPolicy/shop/all"]);
    assert_eq!(
        why(&set, orders, "retry.backoff.max"),
        ["\"250ms\" from default"]
    );
    assert_eq!(
        why(&set, orders, "priority"),
        ["\"Low\" from mesh: MeshConfig/mesh"]
    );
    assert_eq!(
        why(&set, "HTTPRoute/shop/split", "timeouts.request"),
        [
            "\"2s\" from service: TrafficPolicy/shop/orders",
            "\"9s\" from rule: HTTPRoute/shop/split"
        ]
    );
}

#[test]
fn zero_and_empty_lift_what_a_wider_policy_says() {
    let set = set(&(MESH.to_owned()
        + &mesh_config(
            "{timeouts: {request: 30s}, hedge: {after: p95}, \
             rateLimits: [{requests: 1, per: 1s}], \
             fault: {delay: {percent: 1, duration: 1s}}, \
             overrides: {callers: ['spiffe://demo.test/ns/a/*']}}",
        )
        + &policy(
            "orders",
            ORDERS,
            "  timeouts: {request: 0s}\n  hedge: {attempts: 0}\n  rateLimits: []\n  \
             fault: {delay: {percent: 0, duration: 1s}}\n  overrides: {callers: []}\n",
        )));
    let table = table(&set);
    assert_eq!(*traffic(&table, "orders.shop", 80), Traffic::default());
    let db = traffic(&table, "db.shop", 5432);
    assert!(db.request.timeouts.request.is_some() && db.request.hedge.is_some());
    assert_eq!(db.request.overrides.callers.len(), 1);
}

#[test]
fn rate_limits_stand_where_they_are_enforced() {
    let set = set(&(MESH.to_owned()
        + &policy(
            "orders",
            ORDERS,
            "  rateLimits: [{requests: 100, per: 1s, burst: 5, mode: Observe}, \
             {requests: 10, per: 1m, by: Caller}]\n",
        )
        + &policy("split", SPLIT, "  rateLimits: [{requests: 7, per: 1s}]\n")));
    let table = table(&set);
    let limit = |requests, seconds, burst, mode| RateLimit {
        requests,
        per: Duration::from_secs(seconds),
        burst,
        mode,
    };
    let port = &table.services[&service("orders.shop")].ports[&80];
    assert_eq!(port.traffic.rate_limits, [limit(100, 1, 5, Mode::Observe)]);
    assert_eq!(
        port.traffic.caller_rate_limits,
        [limit(10, 60, 10, Mode::Enforce)]
    );
    assert!(port.traffic.request.rate_limits.is_empty());
    for rule in &port.routes {
        assert_eq!(rule.traffic.rate_limits, [limit(7, 1, 7, Mode::Enforce)]);
    }
}

#[test]
fn a_caller_learns_no_limits_that_others_enforce() {
    let set = set(&(MESH.to_owned()
        + &mesh_config("{concurrency: {max: 7}, rateLimits: [{requests: 1, per: 1s}]}")));
    let table = table(&set);
    let served = traffic(&table, "orders.shop", 80);
    assert_eq!(
        (served.concurrency.max, served.rate_limits.len()),
        (Some(7), 1)
    );
    assert_eq!(*traffic(&table, "spare.other", 80), Traffic::default());
}

#[test]
fn a_hash_key_comes_with_its_algorithm() {
    let set = set(&(MESH.to_owned()
        + &mesh_config("{balance: {algorithm: RingHash, key: {header: x-user}, slowStart: 30s}}")
        + &policy("orders", ORDERS, "  balance: {algorithm: RoundRobin}\n")));
    let table = table(&set);
    let (orders, db) = (
        traffic(&table, "orders.shop", 80),
        traffic(&table, "db.shop", 5432),
    );
    assert_eq!(orders.balance.algorithm, Algorithm::RoundRobin);
    assert_eq!(orders.balance.slow_start, Duration::from_secs(30));
    let key = HashKey::Header("x-user".into());
    assert_eq!(db.balance.algorithm, Algorithm::RingHash(key));
    let of_orders = why(&set, "Service/shop/orders", "balance.key");
    assert_eq!(of_orders, ["null from service: TrafficPolicy/shop/orders"]);
}

#[test]
fn a_largest_wait_is_never_below_a_first_wait_from_elsewhere() {
    let set = set(&(MESH.to_owned()
        + &mesh_config("{retry: {backoff: {max: 50ms}}, breaker: {ejection: {max: 5s}}}")
        + &policy(
            "orders",
            ORDERS,
            "  retry: {backoff: {base: 1s}}\n  breaker: {ejection: {base: 10s}}\n",
        )));
    let table = table(&set);
    let traffic = traffic(&table, "orders.shop", 80);
    let backoff = &traffic.request.retry.backoff;
    assert_eq!(
        (backoff.base, backoff.max),
        (Duration::from_secs(1), Duration::from_secs(1))
    );
    assert_eq!(traffic.breaker.ejection_max, Duration::from_secs(10));
}

#[test]
fn a_failover_goes_to_the_same_port_and_counts_as_a_backend() {
    let deny = "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
                metadata: {name: p, namespace: other}\nspec:\n  targetRefs: [{kind: Service, name: spare}]\n  \
                action: Allow\n  from: [{principals: ['spiffe://demo.test/ns/shop/sa/nobody']}]\n";
    let failover = policy(
        "orders",
        ORDERS,
        "  failover: {name: spare, namespace: other}\n",
    );
    let open = table(&set(&(MESH.to_owned() + &failover)));
    for port in [80, 81] {
        let to = traffic(&open, "orders.shop", port)
            .failover
            .as_ref()
            .unwrap();
        assert_eq!(
            (to.service.to_string(), to.port),
            ("spare.other".to_owned(), port)
        );
    }
    // A workload that may not call it learns so, as of the backend of a route.
    let closed = table(&set(&(MESH.to_owned() + &failover + deny)));
    assert!(closed.forbidden.contains_key(&service("spare.other")));
    // A sidecar of the failover service decides about the service that was addressed, too.
    let revision = open.revision.clone();
    let spare = Sidecar {
        identity: "spiffe://demo.test/ns/other/sa/spare".parse().unwrap(),
        listens_for: [].into(),
        serves: [service("spare.other")].into(),
        features: Features::all(),
    };
    let plan = Plan::new(
        revision,
        "demo.test".parse().unwrap(),
        &set(&(MESH.to_owned() + &failover)),
    );
    let table = plan.table(&spare, &Endpoints::new());
    assert!(
        table.services[&service("orders.shop")]
            .authorization
            .is_some()
    );
    // A service that does not exist is left out.
    let nowhere = policy("orders", ORDERS, "  failover: {name: nowhere}\n");
    let table = self::table(&set(&(MESH.to_owned() + &nowhere)));
    assert_eq!(traffic(&table, "orders.shop", 80).failover, None);
}

#[test]
fn what_is_in_force_has_every_field_that_means_something_there() {
    let set = set(MESH);
    let shown = |key: &str| -> Vec<Vec<&'static str>> {
        let places = effective(&set, &key.parse().unwrap()).unwrap();
        let fields = places.iter();
        fields
            .map(|place| place.fields.iter().map(|one| one.field).collect())
            .collect()
    };
    let listed = |wanted: &dyn Fn(&crate::resources::Field) -> bool| -> Vec<&'static str> {
        let fields = FIELDS.iter().filter(|field| wanted(field));
        fields.map(|field| field.path).collect()
    };
    let of_slow = vec!["timeouts.request"];
    assert_eq!(shown("Service/shop/orders"), [listed(&|_| true), of_slow]);
    assert_eq!(shown("Service/shop/db"), [listed(&|field| field.on_tcp)]);
    let of_rule = listed(&|field| field.on_routes);
    assert_eq!(shown("HTTPRoute/shop/split"), [of_rule.clone(), of_rule]);
    assert!(effective(&set, &"Service/shop/none".parse().unwrap()).is_none());
}
