//! Routes and traffic policy of Istio.

use super::*;

#[test]
fn a_virtual_service_becomes_a_route_with_all_that_it_says() {
    let imported = imported(
        From::Istio,
        r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: shop }
spec:
  hosts: [ reviews.shop.svc.cluster.local ]
  http:
    - match:
        - uri: { exact: /v2/reviews }
          headers: { end-user: { exact: jason }, x-trace: { prefix: 'a.' } }
          method: { exact: GET }
          queryParams: { page: { regex: '[0-9]+' } }
      route:
        - destination: { host: reviews, subset: v2 }
          weight: 90
        - destination: { host: ratings, port: { number: 8080 } }
          weight: 10
          headers: { response: { remove: [ x-internal ] } }
      timeout: 2.5s
      retries: { attempts: 3, perTryTimeout: 800ms, retryOn: '5xx,connect-failure' }
    - match: [ { uri: { prefix: /old } } ]
      redirect: { uri: /new, authority: 'www.example.org:8443', redirectCode: 308 }
    - match: [ { uri: { prefix: /api } } ]
      rewrite: { uri: /, authority: inner }
      headers: { request: { set: { x-from: mesh }, add: { x-more: '1' }, remove: [ cookie ] } }
      mirror: { host: ratings }
      mirrorPercentage: { value: 12.5 }
      corsPolicy:
        allowOrigins: [ { exact: 'https://example.org' }, { regex: '.*' } ]
        allowMethods: [ GET, PUT ]
        maxAge: 24h
        allowCredentials: true
      route: [ { destination: { host: reviews } } ]
    - fault: { delay: { percentage: { value: 10 }, fixedDelay: 5s }, abort: { percentage: { value: 1 }, httpStatus: 503 } }
      match: [ { uri: { exact: /x } } ]
      route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: reviews } } ]
",
    );
    let routes = of_kind(&imported, "HTTPRoute");
    let rules = &routes[0]["spec"]["rules"];
    let first = &rules[0];
    assert_eq!(first["matches"][0]["path"]["type"], "Exact");
    assert_eq!(first["matches"][0]["headers"][1]["value"], "a\\..*");
    assert_eq!(
        first["matches"][0]["queryParams"][0]["type"],
        "RegularExpression"
    );
    assert_eq!(first["backendRefs"][0]["name"], "reviews-v2");
    assert_eq!(first["backendRefs"][0]["port"], 9080);
    assert_eq!(
        first["backendRefs"][1]["filters"][0]["type"],
        "ResponseHeaderModifier"
    );
    assert_eq!(first["timeouts"]["request"], "2500ms");
    assert_eq!(first["timeouts"]["backendRequest"], "800ms");
    assert_eq!(first["retry"]["attempts"], 3);
    assert_eq!(
        first["retry"]["codes"],
        serde_json::json!([500, 502, 503, 504])
    );
    let redirect = &rules[1]["filters"][0]["requestRedirect"];
    assert_eq!(
        (&redirect["statusCode"], &redirect["port"]),
        (&308.into(), &8443.into())
    );
    assert!(rules[1].get("backendRefs").is_none());
    let types: Vec<&str> = rules[2]["filters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "RequestHeaderModifier",
            "CORS",
            "RequestMirror",
            "URLRewrite"
        ]
    );
    assert_eq!(
        rules[2]["filters"][2]["requestMirror"]["fraction"]["numerator"],
        12_500
    );
    assert_eq!(rules[2]["filters"][1]["cors"]["maxAge"], 86_400);
    // A fault is a policy for a route of its own.
    assert_eq!(routes[1]["metadata"]["name"], "reviews-fault-1");
    let policy = of_kind(&imported, "TrafficPolicy")[0];
    assert_eq!(policy["spec"]["fault"]["delay"]["duration"], "5s");
    assert_eq!(of_kind(&imported, "Service").len(), 4);
    let errors = errors(&imported);
    has(
        &errors,
        "spec.http[2].corsPolicy.allowOrigins[1]",
        "only whole origins",
    );
    assert!(
        !errors.iter().any(|one| one.contains("subset")),
        "{errors:?}"
    );
}

#[test]
fn what_a_route_cannot_say_leads_nowhere_else_and_is_named_with_its_place() {
    let text = r"
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: { name: odd, namespace: shop }
spec:
  hosts: [ reviews, api.example.com ]
  http:
    - match:
        - { uri: { prefix: / }, sourceLabels: { app: x } }
        - { withoutHeaders: { a: { exact: b } } }
      route: [ { destination: { host: reviews } } ]
    - match: [ { uri: { prefix: /down } } ]
      directResponse: { status: 503 }
    - match: [ { uri: { prefix: /out } } ]
      route: [ { destination: { host: www.example.com } } ]
    - match: [ { uri: { exact: /late } } ]
      route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: reviews } } ]
    - route: [ { destination: { host: ratings } } ]
";
    let imported = imported(From::Istio, text);
    let errors = errors(&imported);
    has(&errors, "spec.hosts[1]", "no Service of the mesh");
    has(
        &errors,
        "spec.http[0].match[0].sourceLabels",
        "this match is left out",
    );
    has(
        &errors,
        "spec.http[0].match[1].withoutHeaders",
        "this match is left out",
    );
    has(&errors, "spec.http[1].directResponse", "get 500");
    has(&errors, "spec.http[2].route[0].destination", "gets 500");
    has(&errors, "spec.http[3].match[0]", "asked first in weft");
    let rules = of_kind(&imported, "HTTPRoute")[0]["spec"]["rules"]
        .as_array()
        .unwrap();
    let paths: Vec<&str> = rules
        .iter()
        .map(|one| one["matches"][0]["path"]["value"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(paths, ["/down", "/out", "/late", ""]);
    assert!(rules[0].get("backendRefs").is_none());
    // The place is the line of the file.
    let found = imported
        .findings
        .listed
        .iter()
        .find(|one| one.field == "spec.http[1].directResponse");
    let line = found.unwrap().position.unwrap().line;
    let before = SERVICES.lines().count()
        + text
            .lines()
            .position(|one| one.contains("directResponse"))
            .unwrap();
    assert_eq!(usize::try_from(line).unwrap(), before + 1);
}

#[test]
fn a_destination_rule_becomes_policies_and_its_subsets_services() {
    let imported = imported(
        From::Istio,
        r"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: shop }
spec:
  host: reviews
  trafficPolicy:
    connectionPool: { tcp: { maxConnections: 100 } }
    outlierDetection: { consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 30 }
    loadBalancer: { simple: LEAST_REQUEST, warmupDurationSecs: 30s }
    tls: { mode: ISTIO_MUTUAL }
  subsets:
    - { name: v1, labels: { version: v1 } }
    - { name: v2, labels: { version: v2 }, trafficPolicy: { loadBalancer: { consistentHash: { httpHeaderName: x-user } } } }
",
    );
    let policies = of_kind(&imported, "TrafficPolicy");
    let names: Vec<&str> = policies
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["reviews", "reviews-v1", "reviews-v2"]);
    let breaker = &policies[0]["spec"]["breaker"];
    assert_eq!(breaker["consecutiveFailures"], 7);
    assert_eq!(
        breaker["ejection"],
        serde_json::json!({ "base": "900s", "max": "900s" })
    );
    assert_eq!(policies[2]["spec"]["balance"]["key"]["header"], "x-user");
    let services = of_kind(&imported, "Service");
    let v1 = services
        .iter()
        .find(|one| one["metadata"]["name"] == "reviews-v1")
        .unwrap();
    assert_eq!(
        v1["spec"]["identities"][0],
        "spiffe://demo.test/ns/shop/sa/reviews"
    );
    has(
        &errors(&imported),
        "spec.trafficPolicy.connectionPool",
        "connections of each caller",
    );
}
