//! The commands of the CA that need no CA to run.

use std::path::Path;

use super::{code, stderr, stdout, weft};

#[test]
fn a_spoiled_join_token_ends_with_65_and_names_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "not a token\n").unwrap();
    let output = weft(&[
        "proxy",
        "run",
        "--state-dir",
        directory.path().join("state").to_str().unwrap(),
        "--join-token-file",
        token.to_str().unwrap(),
        "--outbound",
        "127.0.0.1:0=orders:80",
    ]);
    assert_eq!(code(&output), 65, "{}", stderr(&output));
    assert!(stderr(&output).contains("token: "), "{}", stderr(&output));
}

#[test]
fn an_authority_is_made_once_and_tokens_name_their_identity() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("ca");
    let dir = dir.to_str().unwrap();
    let init = [
        "ca",
        "init",
        "--dir",
        dir,
        "--trust-domain",
        "demo.test",
        "--address",
        "127.0.0.1:6200",
    ];
    assert_eq!(code(&weft(&init)), 0);
    assert_eq!(code(&weft(&init)), 1);

    let tokens = weft(&[
        "ca",
        "token",
        "--dir",
        dir,
        "--identity",
        "ns/shop/sa/orders",
        "--count",
        "2",
    ]);
    assert_eq!(
        stdout(&tokens)
            .lines()
            .filter(|line| line.starts_with("weft-join-v1."))
            .count(),
        2
    );

    let reserved = weft(&[
        "ca",
        "token",
        "--dir",
        dir,
        "--identity",
        "ns/weft/sa/config",
    ]);
    assert_eq!(code(&reserved), 65);
    assert!(
        stderr(&reserved).contains("--role config"),
        "{}",
        stderr(&reserved)
    );

    let inspection: serde_json::Value = serde_json::from_str(&stdout(&weft(&[
        "ca", "inspect", "--dir", dir, "-o", "json",
    ])))
    .unwrap();
    assert_eq!(inspection["trust_domain"], "demo.test");
    assert_eq!(inspection["addresses"][0], "127.0.0.1:6200");
}

#[test]
fn an_authority_without_addresses_says_how_its_tokens_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("ca");
    let dir = dir.to_str().unwrap();
    let init = ["ca", "init", "--dir", dir, "--trust-domain", "demo.test"];
    assert_eq!(code(&weft(&init)), 0);
    let table = stdout(&weft(&["ca", "inspect", "--dir", dir]));
    assert!(table.contains("none yet: give `weft ca serve`"), "{table}");
}

#[test]
fn an_issuing_certificate_is_renewed_and_its_root_stays() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca");
    let ca = ca.to_str().unwrap();
    weft(&["ca", "init", "--dir", ca, "--trust-domain", "demo.test"]);
    let read = |name: &str| std::fs::read(Path::new(ca).join(name)).unwrap();
    let names = ["root.crt", "root.key", "issuing.crt", "issuing.key"];
    let before = names.map(read);
    let output = weft(&["ca", "renew", "--dir", ca]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("renewed the issuing certificate"));
    let after = names.map(read);
    assert_eq!(before[..2], after[..2]);
    assert!(before[2] != after[2] && before[3] != after[3]);

    // The root's key may be kept elsewhere, and the command then asks for it by its flag.
    let elsewhere = directory.path().join("safe.key");
    std::fs::rename(Path::new(ca).join("root.key"), &elsewhere).unwrap();
    let output = weft(&["ca", "renew", "--dir", ca]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("--root-key"),
        "{}",
        stderr(&output)
    );
    let elsewhere = elsewhere.to_str().unwrap();
    let output = weft(&["ca", "renew", "--dir", ca, "--root-key", elsewhere]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}
