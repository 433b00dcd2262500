//! Events from a process's host: signals, and orphans.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Mesh, Need, Origin, eventually, get, need, service};

#[test]
fn sighup_ends_no_sidecar_no_ca_and_no_config_service() {
    let mut mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", origin.address)
        .start();
    let mut shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let processes = [
        &mut mesh.ca,
        &mut mesh.config,
        &mut orders.process,
        &mut shop.process,
    ];
    for process in processes {
        for times in 1..=2 {
            process.signal(Signal::SIGHUP);
            eventually("the signal is said to change nothing", || {
                process.log().matches("SIGHUP changes nothing").count() == times
            });
        }
        assert!(process.is_running());
    }
    assert_eq!(get(shop.listener("orders:80"), "/").unwrap().status, 200);
    mesh.apply(&format!(
        "{}{}",
        service("orders", 80, "http"),
        service("more", 80, "http")
    ));
}

#[test]
fn only_a_signal_to_end_ends_a_sidecar_whose_command_waits_for_it() {
    let mut mesh = Mesh::start();
    let plan = mesh.sidecar("shop").calls("orders:80");
    mesh.ca.kill();
    let mut shop = plan.spawn_wrapping(&["sleep", "60"]);
    shop.process.wait_for_line("waiting for the CA");
    for signal in [Signal::SIGHUP, Signal::SIGWINCH, Signal::SIGUSR1] {
        shop.process.signal(signal);
        shop.process.wait_for_line(signal.as_str());
    }
    assert!(shop.process.is_running());
    shop.terminate();
    let status = shop.process.wait_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn process_1_of_a_container_reaps_orphans_and_hands_on_the_exit_code() {
    if !need(&[Need::Root, Need::Program("unshare")]) {
        return;
    }
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("shop").calls("orders:80").in_pid_namespace();
    // Twenty orphans end; then only the sidecar is left to reap them.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (sh -c 'sleep 0.1' &); done
        sleep 2; echo \"zombies: $(grep -l '^State:.Z' /proc/[0-9]*/status | wc -l)\"; exit 7";
    let mut shop = plan.spawn_wrapping(&["sh", "-c", script]);
    let status = shop.process.wait_exit(Duration::from_secs(30));
    let log = shop.process.log();
    assert!(log.contains("zombies: 0"), "{log}");
    assert_eq!(status.code(), Some(7), "{log}");
}
