//! Disks that are full or read-only: a process keeps in memory all that it needs to go on.

use std::time::Duration;

use crate::harness::{
    Disk, Load, Mesh, Need, Origin, Sidecar, eventually, get, need, pause, service, wait_until,
};

/// The life of certificates.
const LIFE: &str = "30s";
/// They are renewed within this time: at two thirds of the life, give or take a tenth of that.
const RENEWAL: Duration = Duration::from_secs(28);

#[test]
fn a_full_state_directory_costs_no_request_no_identity_and_no_table() {
    if !need(&[Need::Root]) {
        return;
    }
    let mut mesh = Mesh::with_svid_ttl(LIFE);
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let disk = Disk::mount(&mesh.folder().join("shop/state"));
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let bystander = Load::start(
        shop.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(20),
    );

    disk.fill();
    let old = serial(&shop);
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("more", 80, "http")
    ));
    wait_until("the identity is renewed without the disk", RENEWAL, || {
        (serial(&shop) != old).then_some(())
    });
    // The certificate on disk expires in the meantime.
    pause(Duration::from_secs(13));
    let ready = shop.admin_get("/ready").unwrap();
    assert_eq!(ready.status, 200, "{ready:?}");
    let said = ready.text();
    for what in [
        "the identity in force is not on disk",
        "the table in force is not on disk",
    ] {
        assert!(said.contains(what), "{said}");
    }
    assert_eq!(unsaved(&shop), [1, 1]);
    let log = shop.process.log();
    assert!(
        log.contains("the new identity is used from memory"),
        "{log}"
    );
    assert!(log.contains("the table in force is not on disk"), "{log}");

    disk.clear();
    eventually("all is saved", || unsaved(&shop) == [0, 0]);
    assert_eq!(shop.admin_get("/ready").unwrap().text(), "ready\n");
    // The files on disk now suffice for a start without any control plane.
    mesh.ca.kill();
    mesh.config.kill();
    bystander.finish().expect_all_good(500);
    shop.process.kill();
    shop.restart();
    shop.wait_ready();
    assert_eq!(shop.revision(), 2);
    assert_eq!(get(shop.listener("orders:80"), "/").unwrap().status, 200);
}

#[test]
fn a_sidecar_starts_and_renews_on_a_read_only_state_directory() {
    if !need(&[Need::Root]) {
        return;
    }
    let mesh = Mesh::with_svid_ttl(LIFE);
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let disk = Disk::mount(&mesh.folder().join("shop/state"));
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    eventually("the table is on disk", || {
        shop.state().join("table.json").exists()
    });
    shop.process.kill();
    disk.set_read_only(true);
    shop.restart();
    shop.wait_ready();
    let old = serial(&shop);
    wait_until("the identity is renewed without the disk", RENEWAL, || {
        (serial(&shop) != old).then_some(())
    });
    assert_eq!(get(shop.listener("orders:80"), "/").unwrap().status, 200);
    let second = shop.run_again(&[]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("of a running sidecar"), "{second:?}");
    disk.set_read_only(false);
    eventually("the identity is saved", || unsaved(&shop)[0] == 0);
}

#[test]
fn a_config_service_with_a_full_disk_goes_on_with_a_renewed_identity() {
    if !need(&[Need::Root]) {
        return;
    }
    let mut mesh = Mesh::with_svid_ttl(LIFE);
    mesh.apply(&service("orders", 80, "http"));
    mesh.config.kill();
    let disk = Disk::mount(&mesh.folder().join("config"));
    mesh.restart_config();
    disk.fill();
    wait_until("the identity is renewed without the disk", RENEWAL, || {
        let page = mesh.config_page("/metrics").text();
        page.contains("\nweft_identity_unsaved 1\n").then_some(())
    });
    let ready = mesh.config_page("/ready").text();
    assert!(ready.starts_with("ready, but "), "{ready}");
    // The certificate on disk expires in the meantime; new callers are served.
    pause(Duration::from_secs(13));
    let _shop = mesh.sidecar("shop").calls("orders:80").start();
    mesh.get("sidecars");
    // More than the space that the store has taken already.
    let more: String = (0..600)
        .map(|number| service(&format!("more-{number}"), 80, "http"))
        .collect();
    let refused = mesh.try_apply(&more);
    assert_eq!(refused.code, 1, "{refused:?}");
    disk.clear();
    wait_until("what is applied is kept again", RENEWAL, || {
        let applied = mesh.try_apply(&more);
        eprintln!("{applied:?}");
        (applied.code == 0).then_some(())
    });
    eventually("the identity is saved", || {
        mesh.config_page("/metrics")
            .text()
            .contains("\nweft_identity_unsaved 0\n")
    });
}

#[test]
fn a_ca_whose_disk_was_full_issues_again_without_a_restart() {
    if !need(&[Need::Root]) {
        return;
    }
    let mut mesh = Mesh::start();
    mesh.ca.kill();
    let disk = Disk::mount(&mesh.folder().join("ca"));
    mesh.restart_ca();
    let plan = mesh.sidecar("shop").calls("orders:80");
    disk.fill();
    let mut shop = plan.spawn();
    mesh.ca.wait_for_line("cannot issue a certificate");
    disk.clear();
    shop.wait_ready();
}

fn serial(sidecar: &Sidecar) -> String {
    sidecar.admin_json("/certs")["serial"].to_string()
}

/// Whether the identity and the table are not on disk, as the metrics say.
fn unsaved(sidecar: &Sidecar) -> [u64; 2] {
    let page = sidecar.admin_get("/metrics").unwrap().text();
    ["weft_identity_unsaved ", "weft_config_table_unsaved "].map(|name| {
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {page}"))
            .parse()
            .unwrap()
    })
}
