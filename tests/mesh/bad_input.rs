//! Mistakes of users: one clear line, the right exit code, and no change.

use std::fs::{File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Mesh, Origin, Output, WEFT, run, service};

const BAD_DATA: i32 = 65;
const UNREACHABLE: i32 = 69;
const NOT_PERMITTED: i32 = 77;

/// Exit code, one line on stderr that contains all of `words`, nothing on stdout.
#[track_caller]
fn expect_line(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    let lines: Vec<&str> = said(&output.stderr);
    assert_eq!(lines.len(), 1, "{output:?}");
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {:?}", lines[0]);
    }
}

/// The lines for people: a process that serves also logs, as JSON lines.
fn said(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter(|line| !line.starts_with('{') && !line.is_empty())
        .collect()
}

#[test]
fn a_bad_file_is_refused_as_a_whole_with_file_and_line() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let before = mesh.get("revisions");
    let good = service("payments", 80, "http");
    let cases = [
        // Broken YAML.
        (
            format!("{good}---\nkind: [unclosed\n"),
            &["mesh.yaml", ":"][..],
        ),
        // An unknown field, with the nearest known one.
        (
            format!(
                "{good}{}",
                service("stock", 80, "http").replace("protocol:", "protocl:")
            ),
            &["mesh.yaml", "protocl", "protocol"],
        ),
        // A route with a regular expression that is none.
        (
            format!(
                "{good}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: lost, namespace: shop }}\nspec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: orders, port: 80 }} ]\n  rules: [ {{ matches: [ {{ path: {{ type: RegularExpression, value: \"/(\" }} }} ], backendRefs: [ {{ name: orders, port: 80 }} ] }} ]\n"
            ),
            &["mesh.yaml", "matches[0].path.value", "regular expression"],
        ),
        // A kind that does not exist.
        (
            format!(
                "{good}---\napiVersion: weft.dev/v1alpha1\nkind: Servce\nmetadata: {{ name: a, namespace: shop }}\n"
            ),
            &["mesh.yaml", "Servce", "Service"],
        ),
        // A port out of range.
        (
            format!("{good}{}", service("stock", 0, "http")),
            &["mesh.yaml", "port"],
        ),
        // Method rules on a TCP service.
        (
            format!(
                "{good}{}---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: shop }}\nspec: {{ targetRefs: [ {{ kind: Service, name: db }} ], action: Allow, to: [ {{ methods: [GET] }} ] }}\n",
                service("db", 5432, "tcp")
            ),
            &["mesh.yaml", "db"],
        ),
    ];
    for (yaml, words) in cases {
        let output = mesh.try_apply(&yaml);
        assert_eq!(output.code, BAD_DATA, "{output:?}");
        // One line for each finding, and one with the result of the change.
        let lines = said(&output.stderr);
        let (last, findings) = lines.split_last().unwrap();
        assert!(
            findings
                .iter()
                .any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?} in {lines:?}"
        );
        assert!(findings.len() <= 2, "{lines:?}");
        assert!(last.contains("nothing was changed"), "{lines:?}");
        assert_eq!(mesh.get("revisions"), before, "{yaml}");
    }
}

#[test]
fn a_token_buys_one_identity_and_no_second_one() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("orders").calls("orders:80");
    let first = plan.clone().start();
    // The same token used with another key.
    let mut second = plan.named("thief").moved(&mesh).spawn();
    let status = second.process.wait_exit(Duration::from_secs(20));
    assert_eq!(
        status.code(),
        Some(NOT_PERMITTED),
        "{}",
        second.process.log()
    );
    let log = second.process.log();
    assert_eq!(said(&log).len(), 1, "{log}");
    assert!(said(&log)[0].contains("token"), "{log}");
    drop(first);
}

#[test]
fn a_workloads_token_is_no_login_and_a_login_that_fails_replaces_none() {
    let mesh = Mesh::start();
    let mut login = mesh.weft_command(&["login", &mesh.config_address(), "--context", "other"]);
    let output = run(login.arg("--join-token-file").arg(mesh.token("orders")));
    expect_line(
        &output,
        NOT_PERMITTED,
        &["ns/shop/sa/orders", "--role operator"],
    );
    let output = mesh.weft(&["login", "127.0.0.1:1", "--wait", "1s"]);
    expect_line(&output, UNREACHABLE, &["the earlier login stays"]);
    // The CA proves its identity, and will not become the config service.
    let ca = mesh.config_address().replace(":6201", ":6200");
    let output = mesh.weft(&["login", &ca, "--wait", "30s"]);
    expect_line(&output, UNREACHABLE, &["is the CA, not the config service"]);
    mesh.weft(&["get", "services"]).ok();
}

#[test]
fn a_port_in_use_ends_the_process_with_the_address() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("orders").calls("orders:80");
    let taken = TcpListener::bind(plan.first_listener()).unwrap();
    let mut sidecar = plan.spawn();
    let status = sidecar.process.wait_exit(Duration::from_secs(20));
    let log = sidecar.process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(said(&log).len(), 1, "{log}");
    let address = taken.local_addr().unwrap().to_string();
    assert!(said(&log)[0].contains(&address), "{log}");

    let second = run(mesh
        .weft_command(&["ca", "serve", "--listen", &address, "--dir"])
        .arg(mesh.folder().join("ca")));
    assert_eq!(second.code, 1, "{second:?}");
    assert_eq!(said(&second.stderr).len(), 1, "{second:?}");
}

#[test]
fn a_state_directory_has_one_sidecar_and_weft_check_may_look_at_it() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let mut sidecar = mesh.sidecar("orders").calls("orders:80").start();
    let holder = format!("(process {})", sidecar.process.pid());
    let second = sidecar.run_again(&[]);
    expect_line(&second, 1, &["state", &holder, "--state-dir"]);
    let file = sidecar.folder().join("proxy.yaml");
    let checked = mesh.weft(&["check", "--config", &file.to_string_lossy()]);
    assert!(
        checked.stdout.contains("in use, by the running sidecar"),
        "{checked:?}"
    );
    sidecar.process.kill();
    sidecar.restart();
    sidecar.wait_ready();
}

#[test]
fn a_key_that_cannot_be_read_or_is_none_ends_the_process() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let mut sidecar = mesh.sidecar("orders").calls("orders:80").start();
    sidecar.process.kill();
    let key = sidecar.state().join("identity.key");
    let good = std::fs::read(&key).unwrap();

    // The token entitles to a new identity, but it is spent; the old key stays for a person to repair.
    std::fs::write(
        &key,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    expect_end(&mut sidecar, NOT_PERMITTED, "identity.");
    assert!(std::fs::read_to_string(&key).unwrap().contains("AAAA"));

    // A folder in place of a file cannot be read by root either.
    std::fs::remove_file(&key).unwrap();
    std::fs::create_dir(&key).unwrap();
    expect_end(&mut sidecar, 1, "identity.key");
    std::fs::remove_dir(&key).unwrap();

    std::fs::write(&key, good).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    sidecar.restart();
    sidecar.wait_ready();
}

#[track_caller]
fn expect_end(sidecar: &mut crate::harness::Sidecar, code: i32, word: &str) {
    let before = sidecar.process.log().len();
    sidecar.restart();
    let status = sidecar.process.wait_exit(Duration::from_secs(20));
    let log = sidecar.process.log().split_off(before);
    assert_eq!(status.code(), Some(code), "{log}");
    assert_eq!(said(&log).len(), 1, "{log}");
    assert!(log.contains(word), "{log}");
}

#[test]
fn bad_settings_are_refused_with_file_line_and_the_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let check = |text: &str, words: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let output = run(Command::new(WEFT)
            .args(["proxy", "run", "--config"])
            .arg(&path));
        expect_line(&output, BAD_DATA, words);
    };
    check("state_dir: [\n", &["proxy.yaml"]);
    check(
        "state_dir: s\nworkes: 2\n",
        &["proxy.yaml:2", "workes", "workers"],
    );
    check("state_dir: s\nworkers: many\n", &["proxy.yaml:2", "number"]);
    check("state_dir: s\n", &["inbound"]);
    let output = run(Command::new(WEFT).args(["proxy", "run", "--config", "/nowhere/proxy.yaml"]));
    expect_line(&output, 1, &["/nowhere/proxy.yaml"]);
}

#[test]
fn an_operator_command_without_login_or_server_says_so() {
    let mesh = Mesh::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = run(mesh
        .weft_command(&["get", "services"])
        .env("HOME", elsewhere.path()));
    assert_ne!(stranger.code, 0);
    assert_eq!(said(&stranger.stderr).len(), 1, "{stranger:?}");
    assert!(stranger.stderr.contains("weft login"), "{stranger:?}");

    let mut mesh = mesh;
    mesh.config.kill();
    let output = mesh.try_apply(&service("orders", 80, "http"));
    expect_line(&output, UNREACHABLE, &[&mesh.config_address()]);
}

#[test]
fn a_workload_is_no_operator() {
    let mesh = Mesh::start();
    let origin = Origin::echo(mesh.address(), "orders");
    mesh.apply(&service("orders", 80, "http"));
    let token = mesh.token("orders");
    let home = tempfile::tempdir().unwrap();
    let login = run(mesh
        .weft_command(&["login", &mesh.config_address(), "--join-token-file"])
        .arg(&token)
        .env("HOME", home.path()));
    let refused = if login.code == 0 {
        let path = mesh.folder().join("evil.yaml");
        std::fs::write(&path, service("evil", 80, "http")).unwrap();
        run(mesh
            .weft_command(&["apply", "-f"])
            .arg(path)
            .env("HOME", home.path()))
    } else {
        login
    };
    assert_eq!(refused.code, NOT_PERMITTED, "{refused:?}");
    assert!(!mesh.get("services").to_string().contains("evil"));
    drop(origin);
}

#[test]
fn a_token_that_a_shell_puts_into_a_file_is_its_owners_alone() {
    let mesh = Mesh::start();
    let path = mesh.folder().join("orders.token");
    let file = File::create(&path).unwrap();
    // The mode that a shell gives `> orders.token` with the usual umask.
    file.set_permissions(Permissions::from_mode(0o644)).unwrap();
    let mut command = mesh.weft_command(&["ca", "token", "--identity", "ns/shop/sa/orders"]);
    command.arg("--dir").arg(mesh.folder().join("ca"));
    assert!(command.stdout(file).status().unwrap().success());
    assert!(!std::fs::read_to_string(&path).unwrap().is_empty());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn a_sidecar_whose_key_everybody_on_the_host_may_read_does_not_start() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let plan = mesh.sidecar("shop").calls("orders:80");
    let first = plan.clone().start();
    let key = first.state().join("identity.key");
    drop(first);
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let mut second = plan.clone().spawn();
    let status = second.process.wait_exit(Duration::from_secs(20));
    let log = second.process.log();
    assert_eq!(status.code(), Some(NOT_PERMITTED), "{log}");
    let command = format!("chmod 600 {}", key.display());
    assert!(said(&log)[0].contains(&command), "{log}");
    // The orchestrator chooses the group of a volume.
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    plan.start();
}
