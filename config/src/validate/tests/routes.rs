//! Routes: what Gateway API refuses, each as one line, and what it accepts although it leads nowhere.

use super::*;

/// The findings of an HTTPRoute whose rule has these fields, each without the name of the file.
fn rule(fields: &str) -> Vec<String> {
    let text = route(&format!("    - {{{fields}}}\n"));
    let found = check(&text);
    let short = found
        .iter()
        .map(|line| line.trim_start_matches("mesh.yaml:22: "));
    short.map(str::to_owned).collect()
}

const TO: &str = "backendRefs: [{name: orders, port: 80}]";

/// One line that begins with this, and nothing else.
fn is_refused(fields: &str, line: &str) {
    let found = rule(fields);
    assert_eq!(found.len(), 1, "{fields}: {found:#?}");
    assert!(found[0].starts_with(line), "{fields}: {found:#?}");
}

fn is_accepted(fields: &str) {
    assert_eq!(rule(fields), Vec::<String>::new(), "{fields}");
}

#[test]
fn filters_that_exclude_each_other_are_refused() {
    let redirect = "{type: RequestRedirect, requestRedirect: {port: 81}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.example}}";
    let at = "spec.rules[0].filters";
    is_refused(
        &format!("filters: [{redirect}, {rewrite}]"),
        &format!("{at}: RequestRedirect and URLRewrite exclude each other;"),
    );
    is_refused(
        &format!("filters: [{redirect}], {TO}"),
        "spec.rules[0].backendRefs: a rule that redirects sends nothing to backends;",
    );
    is_accepted(&format!("filters: [{redirect}]"));
    is_accepted(&format!(
        "backendRefs: [{{name: orders, port: 80, filters: [{redirect}]}}]"
    ));
    for filter in [
        redirect,
        rewrite,
        "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}",
        "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}",
        "{type: CORS, cors: {allowOrigins: ['*']}}",
    ] {
        is_refused(
            &format!("filters: [{filter}, {filter}]"),
            &format!("{at}[1]: a second "),
        );
    }
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: orders, port: 80}}}";
    is_accepted(&format!("filters: [{mirror}, {mirror}], {TO}"));
}

#[test]
fn a_prefix_is_replaced_only_where_the_rule_has_exactly_one() {
    let replace = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]";
    let fault = "spec.rules[0].filters: ReplacePrefixMatch needs exactly one match";
    for matches in [
        "",
        "matches: [{path: {value: /a}}, {path: {value: /b}}], ",
        "matches: [{path: {type: Exact, value: /a}}], ",
        "matches: [{method: GET}], ",
    ] {
        is_refused(&format!("{matches}{replace}, {TO}"), fault);
    }
    is_accepted(&format!(
        "matches: [{{path: {{value: /a}}}}], {replace}, {TO}"
    ));
    is_refused(
        "backendRefs: [{name: orders, port: 80, filters: [{type: URLRewrite, urlRewrite: \
         {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]}]",
        "spec.rules[0].backendRefs: ReplacePrefixMatch needs exactly one match",
    );
}

#[test]
fn a_filter_says_what_it_is_and_nothing_else() {
    let at = "spec.rules[0].filters[0]";
    for (filter, fault) in [
        ("requestHeaderModifier: {remove: [a]}", ".type: is missing"),
        ("type: Magic", ".type: \"Magic\" is not known here;"),
        (
            "type: URLRewrite",
            ".urlRewrite: is missing; type: URLRewrite needs it",
        ),
        (
            "type: CORS, cors: {}, urlRewrite: {}",
            ".urlRewrite: stands beside type: CORS;",
        ),
        (
            "type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], remove: [a]}",
            ".requestHeaderModifier.remove[0]: a is named twice in one filter;",
        ),
        (
            "type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Content-Length, value: '1'}]}",
            ".requestHeaderModifier.set[0].name: Content-Length belongs to each connection;",
        ),
        (
            "type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: Weft_Client.Id, value: a}]}",
            ".requestHeaderModifier.add[0].name: Weft_Client.Id belongs to the mesh;",
        ),
        (
            "type: ResponseHeaderModifier, responseHeaderModifier: {remove: [content_length]}",
            ".responseHeaderModifier.remove[0]: content_length belongs to each connection;",
        ),
        (
            "type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: grpc-status, value: '0'}]}",
            ".responseHeaderModifier.set[0].name: grpc-status is the server's to say;",
        ),
        (
            "type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}]}",
            ".requestHeaderModifier.set[0].name: Host is not changed by this filter;",
        ),
        (
            "type: RequestRedirect, requestRedirect: {statusCode: 304}",
            ".requestRedirect.statusCode: 304 is no redirect;",
        ),
        (
            "type: RequestRedirect, requestRedirect: {hostname: '10.0.0.1'}",
            ".requestRedirect.hostname: \"10.0.0.1\" is no hostname;",
        ),
        (
            "type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /a}}",
            ".urlRewrite.path.replacePrefixMatch: does not belong to this type;",
        ),
        (
            "type: CORS, cors: {allowOrigins: ['*', 'https://a.example']}",
            ".cors.allowOrigins: * means all and stands alone;",
        ),
        (
            "type: CORS, cors: {allowOrigins: ['a.example']}",
            ".cors.allowOrigins[0]: \"a.example\" is not valid;",
        ),
        (
            "type: CORS, cors: {maxAge: 0}",
            ".cors.maxAge: 0 is not within 1 to",
        ),
    ] {
        let found = rule(&format!("filters: [{{{filter}}}], {TO}"));
        assert!(
            found[0].starts_with(&format!("{at}{fault}")),
            "{filter}: {found:#?}"
        );
        assert!(found.len() <= 2, "{found:#?}");
    }
    is_accepted(&format!(
        "filters: [{{type: CORS, cors: {{allowOrigins: ['https://www.foo.com', 'https://*.bar.com:8443'], \
         allowMethods: [GET, OPTIONS], allowHeaders: [x-1], exposeHeaders: [x-3], allowCredentials: true, maxAge: 3600}}}}], {TO}"
    ));
}

#[test]
fn a_mirror_has_one_share_that_is_at_most_all() {
    let mirror = |share: &str| {
        format!(
            "filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: orders, port: 80}}{share}}}}}], {TO}"
        )
    };
    for good in [
        "",
        ", percent: 0",
        ", percent: 100",
        ", fraction: {numerator: 1}",
    ] {
        is_accepted(&mirror(good));
    }
    let at = "spec.rules[0].filters[0].requestMirror";
    is_refused(
        &mirror(", percent: 1, fraction: {numerator: 1}"),
        &format!("{at}.fraction: percent and fraction exclude each other;"),
    );
    is_refused(
        &mirror(", fraction: {numerator: 3, denominator: 2}"),
        &format!("{at}.fraction: 3 of 2 is more than all"),
    );
}

#[test]
fn paths_are_those_that_a_request_can_have() {
    let path = |value: &str| format!("matches: [{{path: {{value: '{value}'}}}}], {TO}");
    for bad in [
        "a", "/a//b", "/a/./b", "/a/..", "/a%2Fb", "/a#b", "/a?b", "/a b", "/ä", "/a%zz", "/<",
    ] {
        is_refused(&path(bad), "spec.rules[0].matches[0].path.value: ");
    }
    for good in ["/a%20b", "/a*b", "/a/", "/"] {
        is_accepted(&path(good));
    }
}

#[test]
fn conditions_that_are_none_are_refused() {
    let one = |fields: &str| format!("matches: [{{{fields}}}], {TO}");
    let at = "spec.rules[0].matches[0]";
    for (fields, fault) in [
        ("method: get", ".method: \"get\" is not known here;"),
        ("method: PURGE", ".method: \"PURGE\" is not known here;"),
        (
            "path: {type: Glob, value: /a}",
            ".path.type: \"Glob\" is not known here;",
        ),
        (
            "path: {type: RegularExpression, value: '('}",
            ".path.value: \"(\": not a regular expression:",
        ),
        (
            "headers: [{type: RegularExpression, name: a, value: '['}]",
            ".headers[0].value: \"[\": not a regular expression:",
        ),
        (
            "queryParams: [{name: a}]",
            ".queryParams[0].value: is missing",
        ),
        (
            "queryParams: [{name: 'a b', value: c}]",
            ".queryParams[0].name: \"a b\" is not valid;",
        ),
        (
            "headers: [{name: a, value: ''}]",
            ".headers[0].value: has 0 characters,",
        ),
    ] {
        is_refused(&one(fields), &format!("{at}{fault}"));
    }
    is_accepted(&one(
        "path: {type: RegularExpression, value: '/v[0-9]+'}, headers: [{name: host, value: a.example}], \
         queryParams: [{type: RegularExpression, name: Q, value: '[a-z]+'}]",
    ));
}

#[test]
fn names_of_rules_differ_and_matches_are_counted_over_the_route() {
    let two = route(
        "    - {name: a.b, backendRefs: [{name: orders, port: 80}], matches: [{method: GET}]}\n    \
         - {name: a.b, backendRefs: [{name: orders, port: 80}]}\n",
    );
    assert_eq!(
        check(&two),
        ["mesh.yaml:22: spec.rules: two rules have the name a.b; choose another name"]
    );
    let matches: Vec<String> = (0..64)
        .map(|i| format!("{{path: {{value: /{i}}}}}"))
        .collect();
    let rule = |prefix: &str| {
        format!(
            "    - {{matches: [{}], {TO}}}\n",
            matches
                .join(", ")
                .replace("value: /", &format!("value: /{prefix}"))
        )
    };
    assert!(check(&route(&(rule("a") + &rule("b")))).is_empty());
    let found = check(&route(&(rule("a") + &rule("b") + &rule("c"))));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("spec.rules: has 192 matches in all, at most 128"));
}

#[test]
fn retries_and_durations_are_those_of_gateway_api() {
    is_accepted(&format!(
        "{TO}, retry: {{codes: [500, 502], attempts: 3, backoff: 200ms}}"
    ));
    is_accepted(&format!("{TO}, retry: {{}}"));
    let at = "spec.rules[0]";
    for (fields, fault) in [
        (
            "retry: {attempts: 0}",
            ".retry.attempts: 0 is not within 1 to 10",
        ),
        (
            "retry: {codes: [200]}",
            ".retry.codes[0]: 200 is not within 400 to 599",
        ),
        (
            "retry: {backoff: 1.5s}",
            ".retry.backoff: \"1.5s\" is no duration of Gateway API;",
        ),
        (
            "timeouts: {request: 1d}",
            ".timeouts.request: \"1d\" is no duration of Gateway API;",
        ),
        (
            "timeouts: {request: 999999ms}",
            ".timeouts.request: \"999999ms\" is no duration of Gateway API;",
        ),
    ] {
        is_refused(&format!("{TO}, {fields}"), &format!("{at}{fault}"));
    }
}

#[test]
fn what_leads_nowhere_is_accepted_with_a_warning() {
    for (fields, warning) in [
        (
            "backendRefs: [{group: x.example.com, kind: Bucket, name: Any_Name}]",
            "warning: spec.rules[0].backendRefs[0].group: weft routes to no Bucket;",
        ),
        (
            "backendRefs: [{namespace: web, name: orders, port: 80}]",
            "warning: spec.rules[0].backendRefs[0].name: there is no Service orders in namespace web;",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: order, port: 80}}}], \
             backendRefs: [{name: orders, port: 80}]",
            "warning: spec.rules[0].filters[0].requestMirror.backendRef.name: there is no Service order in \
             namespace shop; did you mean orders?",
        ),
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}]",
            "warning: spec.rules[0].filters[0].extensionRef: weft knows no filter K n,",
        ),
        (
            "matches: [{method: GET}]",
            "warning: spec.rules[0]: has no backend, so what the rule takes gets an error;",
        ),
    ] {
        is_refused(fields, warning);
    }
    is_accepted(
        "backendRefs: [{name: orders, port: 80, weight: 1000000}, {name: orders, port: 80, weight: 1000000}]",
    );
    is_refused(
        "backendRefs: [{name: orders}]",
        "spec.rules[0].backendRefs[0].port: is missing;",
    );
}

#[test]
fn parents_of_one_service_differ_in_the_same_fields() {
    let parents = |refs: &str| {
        let text = route(&format!("    - {TO}\n"))
            .replace(
                "    - {group: '', kind: Service, name: orders, port: 80}\n",
                refs,
            )
            .replace(
                "{port: 80, protocol: http}",
                "{port: 80, name: web, protocol: http}, {port: 81, protocol: http}",
            )
            .replace(
                "    - {port: 80, name: web, protocol: http}, {port: 81, protocol: http}",
                "    - {port: 80, name: web, protocol: http}\n    - {port: 81, protocol: http}",
            );
        check(&text)
    };
    let one = |fields: &str| format!("    - {{group: '', kind: Service, name: orders{fields}}}\n");
    let both = |first: &str, second: &str| parents(&(one(first) + &one(second)));
    assert!(both(", port: 80", ", port: 81").is_empty());
    for (first, second) in [
        ("", ""),
        ("", ", namespace: shop"),
        ("", ", port: 80"),
        (", port: 80", ", sectionName: web"),
    ] {
        let found = both(first, second);
        assert_eq!(found.len(), 1, "{first} {second}: {found:?}");
        assert!(
            found[0].contains("spec.parentRefs[1]: the same"),
            "{found:?}"
        );
    }
    let section = parents(&one(", sectionName: wob"));
    assert_eq!(section.len(), 1, "{section:?}");
    assert!(
        section[0].contains(
            "warning: spec.parentRefs[0].sectionName: Service orders has no port of the name wob; it has web"
        ),
        "{section:?}"
    );
}

#[test]
fn a_parent_without_a_group_is_taken_as_a_service_with_a_warning_and_a_gateway_is_refused() {
    let with = |group: &str| check(&route(&format!("    - {TO}\n")).replace("group: '', ", group));
    assert_eq!(
        with(""),
        [
            "mesh.yaml:20: warning: spec.parentRefs[0]: has no group, which Gateway API takes for that of a Gateway; \
             write group: \"\", or the route does nothing in Kubernetes"
        ]
    );
    assert_eq!(
        with("group: gateway.networking.k8s.io, "),
        [
            "mesh.yaml:20: spec.parentRefs[0].group: a Gateway is no parent here: weft routes between Services; \
             write group: \"\""
        ]
    );
}

#[test]
fn routes_of_two_kinds_on_one_port_are_a_warning_at_the_one_that_does_not_act() {
    let text = route(&format!("    - {TO}\n"))
        + "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\n\
           spec:\n  parentRefs: [{group: '', kind: Service, name: orders}]\n  \
           rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: orders, port: 80}]}]\n";
    assert_eq!(
        check(&text),
        [
            "mesh.yaml:20: warning: spec.parentRefs[0]: GRPCRoute/shop/g acts on port 80, and this route does not; \
             use one kind of route for a port"
        ]
    );
}

#[test]
fn a_grpc_method_is_a_service_a_method_or_both() {
    let grpc = |rule: &str| {
        let text = service("orders", "grpc")
            + "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\n\
               spec:\n  parentRefs: [{group: '', kind: Service, name: orders}]\n  rules: [{RULE}]\n";
        check(&text.replace("RULE", rule))
    };
    let one = |method: &str| grpc(&format!("matches: [{{method: {method}}}], {TO}"));
    for good in [
        "{service: pkg.Echo, method: Echo}",
        "{service: .pkg.Echo}",
        "{method: Echo}",
        "{type: RegularExpression, service: 'pkg.*', method: 'E|F'}",
    ] {
        assert!(one(good).is_empty(), "{good}: {:?}", one(good));
    }
    for bad in [
        "{}",
        "{service: pkg/Echo}",
        "{method: 'Ec ho'}",
        "{type: Prefix, method: E}",
        "{type: RegularExpression, method: '('}",
    ] {
        assert_eq!(one(bad).len(), 1, "{bad}: {:?}", one(bad));
    }
    let redirect = grpc("filters: [{type: RequestRedirect, requestRedirect: {port: 81}}]");
    assert!(
        redirect[0].contains("\"RequestRedirect\" is not known here"),
        "{redirect:?}"
    );
}

#[test]
fn ports_have_distinct_names_and_both_protocols_agree() {
    let ports = |ports: &str| {
        check(&format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
             spec: {{ports: [{ports}]}}\n"
        ))
    };
    assert!(
        ports(
            "{name: a, port: 80, protocol: http, appProtocol: kubernetes.io/ws}, \
               {name: b, port: 81, protocol: grpc, appProtocol: kubernetes.io/h2c}, \
               {name: c, port: 82, protocol: tcp, appProtocol: mysql}"
        )
        .is_empty()
    );
    assert_eq!(
        ports("{name: a, port: 80, protocol: http}, {name: a, port: 81, protocol: http}"),
        ["mesh.yaml:4: spec.ports[1].name: two ports have the name a; choose another name"]
    );
    assert_eq!(
        ports("{port: 80, protocol: http, appProtocol: grpc}"),
        [
            "mesh.yaml:4: spec.ports[0].appProtocol: grpc does not agree with protocol: http; \
             write protocol: grpc, or another appProtocol"
        ]
    );
}
