//! The objects that operators name on the command line: one resource, a file of them, a whole namespace, a
//! revision. And the messages for objects that do not exist.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Mesh, Process, eventually, service};

/// The names of the Services in force.
fn services(mesh: &Mesh) -> Vec<String> {
    let found = mesh.get("services");
    let found = found.as_array().unwrap().iter();
    found
        .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A Service of namespace `bank`.
fn foreign(name: &str) -> String {
    service(name, 80, "http").replace("namespace: shop", "namespace: bank")
}

#[test]
fn resources_are_deleted_by_kind_and_name_by_key_and_by_file() {
    let mesh = Mesh::start();
    let all: String = ["a", "b", "c", "d", "e"]
        .map(|name| service(name, 80, "http"))
        .concat();
    mesh.apply(&all);
    mesh.weft(&["delete", "service", "a", "b", "-n", "shop"])
        .ok();
    mesh.weft(&["delete", "Service/shop/c"]).ok();
    assert_eq!(services(&mesh), ["d", "e"]);
    let file = mesh.folder().join("old.yaml");
    std::fs::write(&file, service("d", 80, "http")).unwrap();
    mesh.weft(&["delete", "-f", file.to_str().unwrap()]).ok();
    assert_eq!(services(&mesh), ["e"]);

    for (line, hint) in [
        (&["delete", "service", "e"] as &[&str], "write -n NAMESPACE"),
        (&["delete", "service"], "say which"),
        (&["delete", "Service/shop/e", "-n", "shop"], "leave -n out"),
        (&["delete"], "RESOURCE"),
    ] {
        let output = mesh.weft(line);
        assert_eq!(output.code, 2, "{line:?}: {output:?}");
        assert!(output.stderr.contains(hint), "{line:?}: {output:?}");
    }
    assert_eq!(services(&mesh), ["e"]);
}

#[test]
fn pruning_deletes_in_the_namespaces_that_it_names_and_never_the_mesh_config() {
    let mesh = Mesh::start();
    let config = "---\napiVersion: weft.dev/v1alpha1\nkind: MeshConfig\nmetadata: { name: mesh }\nspec: {}\n";
    let kept = service("kept", 80, "http");
    mesh.apply(&format!(
        "{config}{kept}{}{}",
        service("old", 80, "http"),
        foreign("vault")
    ));
    let file = mesh.folder().join("shop.yaml");
    std::fs::write(&file, &kept).unwrap();
    let file = file.to_str().unwrap();
    let without_namespace = mesh.weft(&["apply", "-f", file, "--prune"]);
    assert_eq!(without_namespace.code, 2, "{without_namespace:?}");
    let listed = mesh.weft(&["apply", "-f", file, "--prune", "-n", "shop", "--dry-run"]);
    assert!(listed.ok().contains("- Service/shop/old"));
    assert_eq!(services(&mesh).len(), 3);
    mesh.weft(&["apply", "-f", file, "--prune", "-n", "shop"])
        .ok();
    assert_eq!(services(&mesh), ["vault", "kept"]);
    assert_eq!(mesh.get("meshconfig").as_array().unwrap().len(), 1);
}

#[test]
fn what_does_not_exist_ends_every_command_with_1() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let admin = shop.admin().to_string();
    for line in [
        &["get", "service", "nothing", "-n", "shop"] as &[&str],
        &["get", "revisions", "99"],
        &["get", "sidecars", "unknown"],
        &["get", "sidecars", "-n", "nowhere"],
        &["get", "sidecars", "shop", "-n", "nowhere"],
        &["get", "services", "-n", "nowhere"],
        &["get", "services", "-n", "nowhere", "-o", "yaml"],
        &["endpoints", "nothing", "--admin", &admin],
        &["delete", "service", "nothing", "-n", "shop"],
        &["rollback", "99"],
    ] {
        let output = mesh.weft(line);
        assert_eq!(output.code, 1, "{line:?}: {output:?}");
        assert!(
            output.stderr.contains("there is no "),
            "{line:?}: {output:?}"
        );
    }
    let one = mesh.weft(&["get", "revisions", "1"]).ok();
    assert_eq!(one.lines().count(), 2, "{one}");
    assert_eq!(mesh.weft(&["get", "revisions", "x"]).code, 2);
}

#[test]
fn every_process_tells_which_build_it_is_and_what_it_uses() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    let own = shop.admin_get("/metrics").unwrap();
    let end = "weft_identity_expiry_timestamp_seconds ";
    for page in [
        mesh.config_page("/metrics"),
        shop.admin_get("/metrics").unwrap(),
    ] {
        let page = page.text();
        assert!(page.lines().any(|line| line.starts_with(end)), "{page}");
        assert!(!page.contains("weft_identity_cert_expiration"), "{page}");
    }
    for page in [mesh.ca_page("/metrics"), mesh.config_page("/metrics"), own] {
        let page = page.text();
        for name in [
            "weft_build_info{version=\"",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_start_time_seconds ",
        ] {
            assert!(page.lines().any(|line| line.starts_with(name)), "{page}");
        }
    }
}

#[test]
fn a_demo_that_is_held_ends_with_130_by_an_interrupt() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::harness::WEFT);
    command.args(["demo", "--hold"]);
    let mut demo = Process::spawn("demo", folder.path(), &mut command);
    eventually("the demo is held", || {
        assert!(demo.is_running(), "{}", demo.log());
        demo.log().contains("Ctrl-C")
    });
    demo.signal(Signal::SIGINT);
    let status = demo.wait_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(130), "{}", demo.log());
}
