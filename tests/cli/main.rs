//! Black-box tests of the command line: its output and its exit codes.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test where they unwrap"
)]

mod authority;
mod settings;

use std::path::Path;
use std::process::{Command, Output};

/// Every subcommand that does something by itself.
const COMMANDS: [&[&str]; 46] = [
    &["demo"],
    &["ca", "init"],
    &["ca", "serve"],
    &["ca", "token"],
    &["ca", "renew"],
    &["ca", "inspect"],
    &["ca", "bundle"],
    &["ca", "backup"],
    &["ca", "restore"],
    &["config", "serve"],
    &["config", "backup"],
    &["config", "restore"],
    &["config", "rotate-session-key"],
    &["login"],
    &["logout"],
    &["proxy", "run"],
    &["proxy", "status"],
    &["proxy", "config"],
    &["proxy", "drain"],
    &["proxy", "logging"],
    &["apply"],
    &["get"],
    &["delete"],
    &["diff"],
    &["rollback"],
    &["validate"],
    &["endpoints"],
    &["explain"],
    &["stat"],
    &["edges"],
    &["why"],
    &["routes"],
    &["import"],
    &["check"],
    &["load"],
    &["completion"],
    &["lab"],
    &["lab", "up"],
    &["lab", "exec"],
    &["lab", "set"],
    &["lab", "rebind"],
    &["lab", "move"],
    &["lab", "status"],
    &["lab", "down"],
    &["lab", "check"],
    &["version"],
];

#[test]
fn each_command_explains_itself() {
    for command in COMMANDS {
        let output = weft(&[command, &["--help"]].concat());
        let text = stdout(&output);
        assert!(output.status.success(), "{command:?}");
        assert!(text.contains("Usage: weft"), "{command:?}: {text}");
    }
}

#[test]
fn what_takes_resources_says_where_their_fields_are_described() {
    for command in ["apply", "validate"] {
        let text = stdout(&weft(&[command, "--help"]));
        assert!(text.contains("docs/resources/KIND.md"), "{command}: {text}");
    }
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/resources");
    assert!(pages.join("AuthorizationPolicy.md").exists());
}

#[test]
fn the_overview_lists_the_commands_in_the_order_in_which_they_are_needed() {
    let text = stdout(&weft(&["--help"]));
    let listed: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        listed,
        [
            "demo",
            "ca",
            "config",
            "login",
            "logout",
            "proxy",
            "apply",
            "get",
            "delete",
            "diff",
            "rollback",
            "import",
            "validate",
            "endpoints",
            "routes",
            "stat",
            "edges",
            "why",
            "explain",
            "check",
            "load",
            "lab",
            "completion",
            "version",
            "help"
        ]
    );
    assert!(text.contains("Exit codes:"));
}

#[test]
fn weft_proxy_has_the_commands_of_a_sidecar_and_no_others() {
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_weft-proxy");
        Command::new(program).args(arguments).output().unwrap()
    };
    let listed = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let commands = lines.take_while(|line| !line.is_empty());
        commands.map(str::to_owned).collect()
    };
    let alone = listed(&stdout(&run(&["--help"])));
    assert_eq!(alone, listed(&stdout(&weft(&["proxy", "--help"]))));
    assert_eq!(run(&["ca", "serve"]).status.code(), Some(2));
    // The same flags, texts and codes.
    for command in ["run", "status", "config", "drain", "logging"] {
        let (own, other) = (
            run(&[command, "--help"]),
            weft(&["proxy", command, "--help"]),
        );
        let other = stdout(&other).replace("Usage: weft proxy", "Usage: weft-proxy");
        assert_eq!(stdout(&own), other, "{command}");
    }
    let refused = run(&["run", "--config", "/nonexistent.yaml"]);
    let other = weft(&["proxy", "run", "--config", "/nonexistent.yaml"]);
    assert_eq!(
        (refused.status, &refused.stderr),
        (other.status, &other.stderr)
    );
    assert!(!refused.status.success());
}

#[test]
fn wrong_usage_ends_with_2() {
    for line in [
        &["frobnicate"] as &[&str],
        &["ca", "token"],
        &["apply"],
        &["proxy", "run", "--inbound", "x"],
    ] {
        assert_eq!(code(&weft(line)), 2, "{line:?}");
    }
}

#[test]
fn a_resource_file_that_cannot_be_read_is_no_difference() {
    for command in ["diff", "apply", "validate"] {
        let output = weft(&[command, "-f", "/no/such.yaml"]);
        assert_eq!(code(&output), 65, "{command}");
        let said = stderr(&output);
        assert!(said.contains("/no/such.yaml: No such file"), "{said}");
    }
}

#[test]
fn what_is_missing_on_the_command_line_is_named() {
    for (line, expected) in [
        (
            &["ca", "token", "--dir", "ca"] as &[&str],
            ["--identity <IDENTITY>", "--role <ROLE>"],
        ),
        (
            &[
                "ca",
                "token",
                "--dir",
                "ca",
                "--identity",
                "a",
                "--role",
                "config",
            ],
            ["--identity <IDENTITY>", "cannot be used with"],
        ),
        (&["get"], ["say what to get: sidecars", "or all"]),
        (
            &["load", "serve", "--http", "8080"],
            ["--http <IP:PORT>", "write 127.0.0.1:8080 for this host"],
        ),
    ] {
        let output = weft(line);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        for part in expected {
            assert!(said.contains(part), "{line:?}: {said}");
        }
    }
    let help = stdout(&weft(&["get", "--help"]));
    assert!(help.contains("weft get [OPTIONS] <WHAT> [NAME]"), "{help}");
}

#[test]
fn without_identity_and_token_the_error_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let output = weft(&[
        "proxy",
        "run",
        "--state-dir",
        state.to_str().unwrap(),
        "--outbound",
        "127.0.0.1:0=orders:80",
        "--admin",
        "127.0.0.1:0",
    ]);
    assert_eq!(code(&output), 77);
    let said = stderr(&output);
    let expected = "make one by `weft ca token --dir DIR --identity ns/NAMESPACE/sa/NAME > FILE` and give it \
                    by --join-token-file FILE";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn operators_without_a_login_are_told_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(&["get", "services"])
        .env("WEFT_HOME", directory.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 77);
    assert!(
        stderr(&output).contains("weft login HOST:PORT --join-token-file FILE"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_demos_mesh_is_valid_and_a_broken_one_is_refused_with_line_and_hint() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mesh = root.join("src/command/demo/mesh.yaml");
    let output = weft(&["validate", "-f", mesh.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "6 resources are valid\n");

    let directory = tempfile::tempdir().unwrap();
    let one = directory.path().join("one.yaml");
    let text = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: a}\n\
                spec: {ports: [{port: 80, protocol: http}]}\n";
    std::fs::write(&one, text).unwrap();
    let output = weft(&["validate", "-f", one.to_str().unwrap()]);
    assert_eq!(stdout(&output), "1 resource is valid\n");

    let broken = directory.path().join("broken.yaml");
    let text = std::fs::read_to_string(mesh)
        .unwrap()
        .replace("protocol: tcp", "protokol: tcp");
    std::fs::write(&broken, text).unwrap();
    let output = weft(&["validate", "-f", broken.to_str().unwrap()]);
    assert_eq!(code(&output), 65);
    assert!(
        stderr(&output).contains("did you mean protocol?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_traffic_policy_is_in_force_is_shown_with_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let mesh = directory.path().join("mesh.yaml");
    let text = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: { name: orders, namespace: shop }\n\
                spec: { ports: [ { port: 80, protocol: http } ] }\n---\n\
                apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: all, namespace: shop }\n\
                spec:\n  targetRefs: [ { kind: Namespace, name: shop } ]\n  retry: { attempts: 1 }\n";
    std::fs::write(&mesh, text).unwrap();
    let file = mesh.to_str().unwrap();
    let show =
        |arguments: &[&str]| weft(&[&["get", "--effective"], arguments, &["-f", file]].concat());
    let output = show(&["orders", "-n", "shop"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let row = |field: &str| {
        let line = text.lines().find(|line| line.starts_with(field));
        let cells: Vec<&str> = line.unwrap().split_whitespace().collect();
        cells.join(" ")
    };
    assert_eq!(
        row("retry.attempts"),
        "retry.attempts 1 namespace: TrafficPolicy/shop/all"
    );
    assert_eq!(row("retry.backoff.base"), "retry.backoff.base 25ms default");
    assert_eq!(row("timeouts.request"), "timeouts.request none default");

    let json = stdout(&show(&["orders.shop", "-o", "json"]));
    let places: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(places[0]["place"], "Service/shop/orders");
    assert_eq!(places[0]["fields"][0]["field"], "timeouts.request");

    let output = show(&["nobody"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output)
            .contains("there is no Service, ExternalService, HTTPRoute or GRPCRoute nobody")
    );
    let output = weft(&["get"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn the_control_plane_out_of_reach_ends_with_69() {
    let output = weft(&["proxy", "status", "--admin", "127.0.0.1:1"]);
    assert_eq!(code(&output), 69);
    assert_eq!(stderr(&output).lines().count(), 1);
}

fn weft(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The binary with an environment that no installation on this machine affects.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .args(arguments)
        .env_remove("WEFT_CONTEXT")
        .env_remove("WEFT_LOG");
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
