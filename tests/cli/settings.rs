//! Settings: from the environment and from files, and what is wrong with them.

use std::path::Path;

use weft_config::settings::{Sources, load_ca, load_config, load_proxy};

use super::{code, command, stderr, weft};

#[test]
fn a_bad_variable_is_named_and_not_the_file() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/proxy.yaml");
    let output = command(&["proxy", "run", "--config", example.to_str().unwrap()])
        .env("WEFT_WORKERS", "0")
        .output()
        .unwrap();
    assert_eq!(code(&output), 65);
    let said = stderr(&output);
    assert!(
        said.contains("environment variable WEFT_WORKERS: 0 is out of range"),
        "{said}"
    );
    assert!(!said.contains("proxy.yaml"), "{said}");
}

#[test]
fn bad_settings_are_one_line_with_place_and_hint_and_end_with_65() {
    let cases = [
        (
            "state_dir: s\nworkres: 2\n",
            "2:1: unknown key `workres`: did you mean `workers`?",
        ),
        (
            "state_dir: s\ndrain: { deadline: 10 }\n",
            "2:20: \"10\" has no unit; write 10s",
        ),
        (
            "state_dir: s\n",
            "inbound, outbound: the sidecar would do nothing",
        ),
        (
            "state_dir: s\noutbound: { listeners: [ { listen: \"127.0.0.1:1\", route_by: original_destination } ] }\n",
            "outbound.listeners[0].route_by: original_destination is not supported yet",
        ),
        ("state_dir: [\n", "1:12: expected string scalar"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.yaml");
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let output = weft(&["proxy", "run", "--config", file.to_str().unwrap()]);
        let said = stderr(&output);
        assert_eq!(code(&output), 65, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("proxy.yaml"), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = weft(&["proxy", "run", "--config", "/no/such.yaml"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("/no/such.yaml: cannot read the settings: No such file"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_packaged_examples_are_valid_settings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples");
    load_proxy(Sources {
        file: Some(examples.join("proxy.yaml")),
        ..Sources::default()
    })
    .unwrap();
    load_ca(Sources {
        file: Some(examples.join("ca.yaml")),
        ..Sources::default()
    })
    .unwrap();
    load_config(Sources {
        file: Some(examples.join("config.yaml")),
        ..Sources::default()
    })
    .unwrap();
}
