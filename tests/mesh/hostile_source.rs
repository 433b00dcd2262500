//! One address that takes all places of the CA that it can get, while workloads behind the same address join
//! and renew.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Mesh, Need, Process, heavy, need, pause, program, run};

/// Well-behaved clients of each kind.
const CLIENTS: usize = 20;
/// The delay that the attack may cause to each of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// A life whose last third, in which a certificate is renewed, begins after the logins and lasts for all
/// commands.
const LIFE: &str = "45s";
const RENEWAL_DUE: Duration = Duration::from_secs(31);

#[test]
fn silent_connections_and_bad_tokens_keep_no_other_behind_their_address_out() {
    let Some(target) = Target::start() else {
        return;
    };
    let mut attack = target.attack(&["--silent", "512", "--rate", "600", "--tokens", "1000"]);
    target.log_in("early", CLIENTS / 2);
    attack.wait_for_line("tokens done");
    target.log_in("late", CLIENTS / 2);
    target.renew(&["early", "late"]);
    assert!(attack.is_running());
    drop(attack);
    let page = target.mesh.ca_page("/metrics").text();
    let count = |sample: &str| number(&page, sample);
    assert_eq!(
        count("weft_ca_refused_total{reason=\"token_unknown\"}"),
        1000
    );
    assert!(count("weft_ca_connections_ended_total{reason=\"handshake_place\"}") > 1000);
    // Tokens and certificates of all clients, and few of the refusals.
    let entries = target.log_entries();
    assert!(entries < 300, "{entries} entries of the log");
}

#[test]
fn clients_that_do_not_go_on_after_their_handshake_keep_no_other_out() {
    let Some(target) = Target::start() else {
        return;
    };
    let each = ["--tls", "200", "--idle", "200", "--dribble", "200"];
    let mut attack = target.attack(&each);
    target.log_in("one", CLIENTS);
    target.renew(&["one"]);
    assert!(attack.is_running());
    drop(attack);
    let page = target.mesh.ca_page("/metrics").text();
    assert!(number(&page, "weft_ca_connections_ended_total{reason=\"place\"}") > 300);
}

#[test]
fn a_connection_to_the_config_service_ends_with_the_certificate_that_opened_it() {
    if !need(&[Need::Program("python3")]) {
        return;
    }
    let mesh = Mesh::with_svid_ttl("30s");
    // A certificate that is fresh, and that no later command renews.
    log_in(&mesh, "holder", &operator_token(&mesh, "holder"));
    let identity = mesh.folder().join(".config/weft/contexts/holder/identity");
    let [certificate, key] = ["identity.crt", "identity.key"].map(|name| identity.join(name));
    let mut command = script();
    command
        .args(["hold", &mesh.config_address(), "--certificate"])
        .arg(certificate)
        .arg("--key")
        .arg(key);
    let held: Value = serde_json::from_str(&run(&mut command).ok()).unwrap();
    let lived = held["ended"].as_f64().unwrap() - held["opened"].as_f64().unwrap();
    assert!((20.0..=31.5).contains(&lived), "{held}");
}

struct Target {
    mesh: Mesh,
    /// How long the slowest of some logins took before the attack.
    usual: Duration,
    resident: u64,
    _alone: std::fs::File,
}

impl Target {
    fn start() -> Option<Self> {
        if !need(&[Need::Program("python3")]) {
            return None;
        }
        let alone = heavy();
        let mesh = Mesh::with_svid_ttl(LIFE);
        let usual = (0..5).map(|number| {
            let name = format!("usual-{number}");
            log_in(&mesh, &name, &operator_token(&mesh, &name))
        });
        let usual = usual.max().unwrap();
        mesh.ca.forget_peak();
        Some(Self {
            usual,
            resident: mesh.ca.resident(),
            mesh,
            _alone: alone,
        })
    }

    fn attack(&self, arguments: &[&str]) -> Process {
        let address = self.mesh.config_address().replace(":6201", ":6200");
        let mut command = script();
        command.arg("attack").arg(address).args(arguments);
        let mut process = Process::spawn("attack", self.mesh.folder(), &mut command);
        process.wait_for_line("attacking");
        process
    }

    /// Joins of new operators, each with its own token.
    fn log_in(&self, name: &str, count: usize) {
        for number in 0..count {
            let name = format!("{name}-{number}");
            let token = operator_token(&self.mesh, &name);
            let took = log_in(&self.mesh, &name, &token);
            self.expect_in_time(&name, took);
        }
    }

    /// Renewals of those operators: a command renews a certificate in the last third of its life.
    fn renew(&self, names: &[&str]) {
        let signed = self.signed();
        pause(RENEWAL_DUE);
        for name in names {
            for number in 0..CLIENTS / names.len() {
                let name = format!("{name}-{number}");
                let begin = Instant::now();
                let arguments = ["get", "revisions", "--context", &name];
                let output = self.mesh.weft(&arguments);
                self.expect_in_time(&name, begin.elapsed());
                assert!(
                    output.code == 0 && !output.stderr.contains("not renewed"),
                    "{name}: {output:?}"
                );
            }
        }
        assert!(self.signed() >= signed + CLIENTS as u64);
        let grown = self.mesh.ca.resident_peak().saturating_sub(self.resident);
        assert!(grown <= 64 * 1024, "the CA grew by {grown} KiB");
    }

    fn expect_in_time(&self, name: &str, took: Duration) {
        let usual = self.usual;
        assert!(
            took <= usual + PATIENCE,
            "{name}: {took:?} instead of {usual:?}"
        );
    }

    fn signed(&self) -> u64 {
        number(
            &self.mesh.ca_page("/metrics").text(),
            "weft_ca_signed_total",
        )
    }

    /// Entries of the issuance log.
    fn log_entries(&self) -> u64 {
        let ca = self.mesh.folder().join("ca");
        let arguments = ["ca", "inspect", "-o", "json", "--dir", ca.to_str().unwrap()];
        let seen: Value = serde_json::from_str(&self.mesh.weft(&arguments).ok()).unwrap();
        seen["log_entries"].as_u64().unwrap()
    }
}

/// A join token of an operator, in a file.
fn operator_token(mesh: &Mesh, name: &str) -> PathBuf {
    let mut command = mesh.weft_command(&["ca", "token", "--role", "operator", name, "--dir"]);
    let token = run(command.arg(mesh.folder().join("ca"))).ok();
    let path = mesh.folder().join(format!("{name}.token"));
    std::fs::write(&path, token).unwrap();
    path
}

/// How long a login took: a join, and a connection to the config service.
fn log_in(mesh: &Mesh, name: &str, token: &std::path::Path) -> Duration {
    let address = mesh.config_address();
    let mut command = mesh.weft_command(&["login", &address, "--context", name]);
    command.arg("--join-token-file").arg(token);
    let begin = Instant::now();
    run(&mut command).ok();
    begin.elapsed()
}

fn script() -> Command {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/hostile_ca.py");
    let mut command = program("python3");
    command.arg("-u").arg(path);
    command
}

fn number(page: &str, sample: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.and_then(|rest| rest.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {sample} in {page}"))
}
