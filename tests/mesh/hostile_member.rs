//! A member of the mesh with a valid identity that asks the config service for more than its share, beside
//! operators and sidecars that must not be affected.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Mesh, Need, Process, Sidecar, eventually, heavy, need, program, run, service,
};

/// By how many KiB the config service may grow, whatever a member does.
const GROWTH_MAX: u64 = 64 << 10;

struct Attack {
    mesh: Mesh,
    /// The attacker's identity; its own sidecar has ended.
    mallory: Sidecar,
    /// A sidecar that takes every revision.
    _frontend: Sidecar,
}

fn attack(services: usize) -> Attack {
    let mesh = Mesh::start();
    let all: String = (0..services)
        .map(|n| service(&format!("s{n}"), 80, "http"))
        .chain([service("good", 80, "http")])
        .collect();
    mesh.apply(&all);
    let mut mallory = mesh.sidecar("mallory").calls("s0:80").start();
    mallory.terminate();
    mallory.process.wait_exit(Duration::from_secs(30));
    let frontend = mesh.sidecar("frontend").calls("s0:80").start();
    Attack {
        mesh,
        mallory,
        _frontend: frontend,
    }
}

/// `hostile_grpc.py`, which needs only an interpreter.
fn member(mesh: &Mesh, scenario: &str, state: &Sidecar, seconds: u32) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/hostile_grpc.py");
    let mut command = program("python3");
    command
        .args([script, scenario, &mesh.config_address()])
        .arg(state.state())
        .arg(seconds.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn large_applies_by_no_operator_cost_no_memory_and_hold_up_neither_applies_nor_registrations() {
    if !need(&[Need::Program("python3")]) {
        return;
    }
    let _alone = heavy();
    let attack = attack(20);
    let mesh = &attack.mesh;
    let mut good = mesh
        .sidecar("good")
        .serves("good:80", "127.0.0.1:9")
        .start();
    good.terminate();
    good.process.wait_exit(Duration::from_secs(30));
    let resident = mesh.config.resident();
    mesh.config.forget_peak();
    let mut flood = Process::spawn(
        "mallory-calls",
        mesh.folder(),
        &mut member(mesh, "applies", &attack.mallory, 15),
    );
    let mut slow = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        mesh.apply(&service(&format!("t{n}"), 80, "http"));
        slow.push(begun.elapsed());
    }
    slow.retain(|took| *took > Duration::from_secs(1));
    assert!(slow.is_empty(), "slow applies: {slow:?}");
    let registered = run(&mut member(mesh, "registrations", &good, 10)).ok();
    let took = last_line(&registered)["took"].clone();
    let took: Vec<f64> = serde_json::from_value(took).unwrap();
    assert_eq!(took.len(), 20);
    assert!(took.iter().all(|took| *took < 1.0), "{took:?}");
    assert!(flood.is_running(), "{}", flood.log());
    assert!(flood.wait_exit(Duration::from_secs(60)).success());
    let seen = last_line(&flood.log());
    assert!(seen["ended"].as_u64().unwrap() > 100, "{seen}");
    let grown = mesh.config.resident_peak().saturating_sub(resident);
    assert!(grown <= GROWTH_MAX, "grew by {grown} KiB: {seen}");
}

#[test]
fn four_hundred_subscriptions_that_take_nothing_are_one_sidecar_and_hold_no_memory() {
    if !need(&[Need::Program("python3")]) {
        return;
    }
    let _alone = heavy();
    let attack = attack(1000);
    let mesh = &attack.mesh;
    let resident = mesh.config.resident();
    mesh.config.forget_peak();
    let mut flood = Process::spawn(
        "mallory-streams",
        mesh.folder(),
        &mut member(mesh, "subscriptions", &attack.mallory, 5),
    );
    flood.wait_for_line("subscribed");
    eventually("one sidecar of that identity is connected", || {
        let sidecars = mesh.get("sidecars");
        let all = sidecars.as_array().unwrap().iter();
        let connected = all.filter(|one| {
            let identity = one["identity"].as_str().unwrap_or_default();
            identity.ends_with("/mallory") && one["connected"] == true
        });
        connected.count() == 1
    });
    assert!(flood.wait_exit(Duration::from_secs(60)).success());
    let grown = mesh.config.resident_peak().saturating_sub(resident);
    assert!(grown <= GROWTH_MAX, "grew by {grown} KiB: {}", flood.log());
    // A sidecar that takes nothing is not waited for when it has gone, and the next change reaches all
    // sidecars.
    eventually("a change reaches every sidecar", || {
        mesh.try_apply(&service("late", 80, "http")).code == 0
    });
}
