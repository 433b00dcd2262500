//! Services outside of the mesh, with the line that the operator reads.

use super::*;

fn external(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: ExternalService\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn a_host_is_a_name_and_an_address_is_one_of_a_host() {
    let found = check(&external(
        "pay",
        "{hosts: [10.0.0.1, '*.example.com', 'a.example:80', API.example, 0.0.0.0, '[::1]', '::'], \
         addresses: [0.0.0.0, a.b, 10.0.0.7, '::', '::ffff:0.0.0.0', '[2001:db8::1]'], \
         ports: [{port: 443, protocol: http}]}",
    ));
    let wanted = [
        "mesh.yaml:4: spec.hosts[0]: \"10.0.0.1\" is no DNS name; \
         write a name here, and the address under addresses",
        "mesh.yaml:4: spec.hosts[1]: \"*.example.com\" is no DNS name; \
         name each host: what is not listed is refused",
        "mesh.yaml:4: spec.hosts[2]: \"a.example:80\" is no DNS name; \
         write the name alone: ports stand under ports",
        "mesh.yaml:4: spec.hosts[3]: \"API.example\" is no DNS name; \
         write a name in lower case, as api.example.com",
        "mesh.yaml:4: spec.hosts[4]: \"0.0.0.0\" is no DNS name; \
         write a name here, and the address under addresses",
        "mesh.yaml:4: spec.hosts[5]: \"[::1]\" is no DNS name; \
         write a name here, and the address under addresses",
        "mesh.yaml:4: spec.hosts[6]: \"::\" is no DNS name; \
         write a name here, and the address under addresses",
        "mesh.yaml:4: spec.addresses[0]: 0.0.0.0 is not the address of one host",
        "mesh.yaml:4: spec.addresses[1]: \"a.b\" is not valid: invalid IP \
         address syntax; write an IPv4 or IPv6 address without a port and without brackets",
        "mesh.yaml:4: spec.addresses[3]: :: is not the address of one host",
        "mesh.yaml:4: spec.addresses[4]: 0.0.0.0 is not the address of one host",
        "mesh.yaml:4: spec.addresses[5]: \"[2001:db8::1]\" is not valid: invalid IP \
         address syntax; write an IPv4 or IPv6 address without a port and without brackets",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn tls_that_cannot_be_read_is_never_taken_for_none() {
    let port = |tls: &str| {
        let spec =
            format!("{{hosts: [a.example], ports: [{{port: 443, protocol: http, tls: {tls}}}]}}");
        let found = check(&external("pay", &spec));
        found
            .iter()
            .map(|line| line.splitn(3, ": ").last().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(port("{}").is_empty());
    assert!(
        port("{caFile: /a, certificateFile: /b, keyFile: /c, serverName: b.example}").is_empty()
    );
    assert_eq!(
        port("{caFile: ca.pem}"),
        ["\"ca.pem\" is no absolute path; write an absolute path of the sidecar's host"]
    );
    assert_eq!(
        port("{certificateFile: /b}"),
        ["certificateFile and keyFile belong together; write both, or neither"]
    );
    assert_eq!(
        port("{insecureSkipVerify: true}"),
        ["is not supported yet; name the server's own root by caFile"]
    );
    assert_eq!(port("yes")[0], "expected a mapping, found a text");
}

#[test]
fn several_names_need_addresses_as_each_resolves_to_its_own() {
    let spec = "{hosts: [a.example, b.example], ports: [{port: 443, protocol: http}]}";
    assert_eq!(
        check(&external("pay", spec)),
        [
            "mesh.yaml:4: spec.hosts: several names, and no addresses: each name \
          has its own; write an ExternalService for each name, or addresses"
        ]
    );
    let spec = "{hosts: [a.example, b.example], addresses: [10.0.0.7], ports: [{port: 443, protocol: http}]}";
    assert!(check(&external("pay", spec)).is_empty());
}

#[test]
fn a_range_begins_where_it_begins_and_concerns_names_that_are_resolved() {
    let spec =
        "{hosts: [a.example], allowedRanges: [10.0.0.1/8], ports: [{port: 443, protocol: http}]}";
    assert_eq!(
        check(&external("pay", spec)),
        [
            "mesh.yaml:4: spec.allowedRanges[0]: \"10.0.0.1/8\" is not valid: the \
          range begins at 10.0.0.0; write ADDRESS/BITS, as 10.20.0.0/16"
        ]
    );
    let spec = "{hosts: [a.example], addresses: [10.0.0.7], allowedRanges: [10.0.0.0/8], \
                ports: [{port: 443, protocol: http}]}";
    let found = check(&external("pay", spec));
    assert!(
        found[0].contains("concerns names that are resolved"),
        "{found:?}"
    );
}

#[test]
fn a_name_means_one_service_in_the_whole_mesh() {
    let spec = "{hosts: [a.example], ports: [{port: 443, protocol: http}]}";
    let other = external("other", spec);
    let found = check(&(external("pay", spec) + &other));
    assert_eq!(
        found,
        ["mesh.yaml:4: spec.hosts[0]: a.example is a host of \
          ExternalService/shop/other already; remove it from one of them"]
    );
    let found = check(&(service("pay", "http") + &external("pay", spec)));
    assert!(
        found[0].contains("metadata.name: there is a Service pay in namespace shop already"),
        "{found:?}"
    );
    let spec = "{hosts: [pay.shop], ports: [{port: 443, protocol: http}]}";
    let found = check(&(service("pay", "http") + &external("out", spec)));
    assert!(
        found[0].contains("pay.shop is a Service of the mesh"),
        "{found:?}"
    );
}

#[test]
fn no_workload_serves_it() {
    let spec = "{hosts: [a.example], identities: [], ports: [{port: 443, protocol: http}]}";
    let found = check(&external("pay", spec));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("spec.identities: unknown field"),
        "{found:?}"
    );
}

#[test]
fn it_is_sent_through_a_service_with_a_port_for_each_of_its_own() {
    let gate = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: gate, namespace: shop}\n\
                spec: {ports: [{port: 15, protocol: http}, {port: 16, protocol: tcp}]}\n---\n";
    let through = |via: &str, protocol: &str| {
        let spec = format!(
            "{{hosts: [a.example], via: {via}, ports: [{{port: 443, protocol: {protocol}}}]}}"
        );
        let found = check(&format!("{gate}{}", external("pay", &spec)));
        found
            .iter()
            .map(|line| line.split_once(": ").unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    for (via, protocol) in [
        ("{name: gate}", "http"),
        ("{name: gate, port: 15}", "grpc"),
        ("{name: gate, namespace: shop}", "tcp"),
    ] {
        assert!(through(via, protocol).is_empty(), "{via} {protocol}");
    }
    for (via, protocol, wanted) in [
        ("gate", "http", "spec.via: expected a mapping, found a text"),
        (
            "{name: gates}",
            "http",
            "spec.via.name: there is no Service gates in namespace shop; did you mean gate?",
        ),
        (
            "{name: pay}",
            "http",
            "spec.via.name: pay is an ExternalService; name a Service of the mesh, whose sidecars send outside",
        ),
        (
            "{name: gate, port: 16}",
            "http",
            "spec.via.port: port 16 of Service gate does not take requests, as port 443 does; write one of 15",
        ),
        (
            "{name: gate, port: 17}",
            "tcp",
            "spec.via.port: port 17 of Service gate does not take bytes of tcp, as port 443 does; write one of 16",
        ),
        (
            "{name: gate, kind: Service}",
            "http",
            "spec.via.kind: unknown field; known fields are name, namespace, port",
        ),
    ] {
        let found = through(via, protocol);
        assert_eq!(found.first().map(String::as_str), Some(wanted), "{found:?}");
    }
    let plain = service("plain", "http")
        + &external(
            "pay",
            "{hosts: [a.example], via: {name: plain}, ports: [{port: 443, protocol: tcp}]}",
        );
    let found = check(&plain);
    assert!(
        found[0].contains("Service plain has no port that takes bytes of tcp"),
        "{found:?}"
    );
}

#[test]
fn it_is_sent_through_a_service_of_another_namespace_where_a_grant_permits_it() {
    let mesh = "apiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n\
                spec: {requireReferenceGrants: true}\n---\n";
    let gate = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: gate, namespace: infra}\n\
                spec: {ports: [{port: 15, protocol: http}]}\n---\n";
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
                 metadata: {name: out, namespace: infra}\n\
                 spec: {from: [{group: weft.dev, kind: ExternalService, namespace: shop}], \
                 to: [{group: '', kind: Service}]}\n---\n";
    let pay = external(
        "pay",
        "{hosts: [a.example], via: {name: gate, namespace: infra}, ports: [{port: 443, protocol: http}]}",
    );
    assert!(check(&format!("{gate}{pay}")).is_empty());
    assert!(check(&format!("{mesh}{gate}{grant}{pay}")).is_empty());
    let found = check(&format!("{mesh}{gate}{pay}"));
    assert!(
        found[0].contains("spec.via.namespace: no ReferenceGrant in namespace infra permits it"),
        "{found:?}"
    );
}

#[test]
fn policies_name_the_kind_that_they_mean_and_limits_of_a_server_have_no_place() {
    let outside = external(
        "pay",
        "{hosts: [a.example], ports: [{port: 443, protocol: http}]}",
    );
    let policy = |kind: &str| {
        format!(
            "{outside}apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p, namespace: shop}}\nspec:\n  targetRefs: [{{kind: {kind}, name: pay}}]\n  \
             action: Allow\n  to: [{{methods: [GET]}}]\n"
        )
    };
    assert!(check(&policy("ExternalService")).is_empty());
    let found = check(&policy("Service"));
    assert!(
        found[0].contains("there is no Service pay in namespace shop"),
        "{found:?}"
    );
    let traffic = format!(
        "{outside}apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: t, namespace: shop}}\n\
         spec:\n  targetRefs: [{{kind: ExternalService, name: pay}}]\n  concurrency: {{max: 7}}\n"
    );
    let found = check(&traffic);
    assert!(
        found[0].contains("is enforced where a Service is served, and an ExternalService is not"),
        "{found:?}"
    );
}

#[test]
fn a_route_leads_to_an_external_service_by_its_kind_and_group() {
    let outside = external(
        "pay",
        "{hosts: [a.example], ports: [{port: 443, protocol: http}]}",
    );
    let route = |backend: &str| {
        format!(
            "{}{outside}apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r, namespace: shop}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: orders}}]\n  \
             rules: [{{backendRefs: [{backend}]}}]\n",
            service("orders", "http")
        )
    };
    assert!(
        check(&route(
            "{group: weft.dev, kind: ExternalService, name: pay, port: 443}"
        ))
        .is_empty()
    );
    let found = check(&route("{kind: ExternalService, name: pay, port: 443}"));
    assert!(
        found[0].contains("weft routes to no ExternalService"),
        "{found:?}"
    );
    let found = check(&route("{name: pay, port: 443}"));
    assert!(found[0].contains("there is no Service pay"), "{found:?}");
    let found = check(&route(
        "{group: weft.dev, kind: ExternalService, name: pay, port: 80}",
    ));
    assert!(
        found[0].contains("ExternalService pay has no port 80"),
        "{found:?}"
    );
}
