//! The effect of the commands on labs, and that they leave nothing behind.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Lab, PAIR, alone, can_run, stderr, stdout, weft};

/// Two hosts behind a router, one of them behind NAT.
const ROUTED: &str = "
topology:
  hosts: [client, server]
  routers: [middle]
  links:
    home: { between: [client, middle], nat: client }
    wan: { between: [middle, server], set: { delay: 1ms } }
";

fn pings(lab: &Lab, to: &str) -> bool {
    let mut command = lab.command("client", &["ping", "-c", "1", "-W", "2", to]);
    command.stdout(Stdio::null()).status().unwrap().success()
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Whether a process of the machine, in whatever namespace, runs with this argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}

#[test]
fn this_machine_can_run_labs() {
    if !can_run(&["ip"]) {
        return;
    }
    let output = weft(&["lab", "check", "-o", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let findings: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding["what"] == "TUN devices")
    );
}

#[test]
fn hosts_find_each_other_by_name_through_routers_and_nat() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(ROUTED, &[]);
    assert!(pings(&lab, "server"));
    lab.weft("rebind", &["home", "--address"]);
    assert!(pings(&lab, "server"));
    // From outside there is no way in.
    let mut inward = lab.command("server", &["ping", "-c", "1", "-W", "1", "client"]);
    assert!(!inward.stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(lab.counter("middle", "unmapped"), 1);
}

#[test]
fn a_host_that_moves_has_another_address_and_is_found_under_it() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let before = lab.exec("client", &["getent", "hosts", "server"]);
    let address = lab.weft("move", &["server"]);
    let after = lab.exec("client", &["getent", "hosts", "server"]);
    assert_ne!(before, after);
    assert!(after.starts_with(address.trim()), "{after}");
    assert!(pings(&lab, "server"));
    assert!(!pings(&lab, before.split_whitespace().next().unwrap()));
}

#[test]
fn a_blackout_of_one_direction_leaves_the_other_alone() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    lab.weft("set", &["wire", "--from", "server", "blackout=on"]);
    assert!(!pings(&lab, "server"));
    assert_eq!(lab.counter("client", "delivered"), 1);
    assert_eq!(lab.counter("server", "blacked_out"), 1);
    lab.weft("set", &["wire", "clear"]);
    assert!(pings(&lab, "server"));
}

#[test]
fn long_packets_vanish_in_a_black_hole_and_are_refused_by_an_mtu() {
    if !can_run(&["ping", "ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let long = [
        "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1372", "server",
    ];
    assert!(lab.exec("client", &long).contains("1 received"));
    lab.weft("set", &["wire", "black_hole=1300"]);
    assert!(lab.exec("client", &long).contains("0 received"));
    assert_eq!(lab.counter("client", "too_long"), 1);
    lab.weft("set", &["wire", "clear", "mtu=1300"]);
    let output = lab.command("client", &long).output().unwrap();
    let said = stdout(&output) + &stderr(&output);
    assert!(
        said.contains("message too long") || said.contains("Message too long"),
        "{said}"
    );
}

#[test]
fn an_exit_code_is_that_of_the_command() {
    if !can_run(&["ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let mut command = lab.command("client", &["sh", "-c", "exit 42"]);
    assert_eq!(command.status().unwrap().code(), Some(42));
    let output = lab.command("nobody", &["true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there are: client, server"));
}

#[test]
fn a_wrong_change_is_refused_with_what_to_write() {
    if !can_run(&["ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let set = |arguments: &[&str]| {
        let fixed = ["lab", "set", "--lab", &lab.name];
        let output = weft(&[&fixed, arguments].concat());
        (output.status.code().unwrap(), stderr(&output))
    };
    let (code, said) = set(&["wire", "loss=5"]);
    assert_eq!(code, 2);
    assert!(said.contains("`5%`"), "{said}");
    let (code, said) = set(&["wan", "loss=5%"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("no link `wan`") && said.contains("wire"),
        "{said}"
    );
    let (code, said) = set(&["wire", "--from", "other", "loss=5%"]);
    assert_eq!(code, 1);
    assert!(said.contains("between client and server"), "{said}");
}

#[test]
fn after_down_no_process_and_no_file_is_left() {
    if !can_run(&["ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let directory = lab.directory();
    // A number of seconds that no other process sleeps for.
    let mark = format!(
        "86400.{}",
        lab.name.replace(|c: char| !c.is_ascii_digit(), "")
    );
    // A daemon of a program, detached from the lab as far as possible.
    let mut daemon = lab
        .command("client", &["setsid", "sleep", &mark])
        .spawn()
        .unwrap();
    wait_until("the daemon runs", || runs(&mark));
    let output = weft(&["lab", "down", &lab.name]);
    assert!(output.status.success(), "{}", stderr(&output));
    daemon.wait().unwrap();
    assert!(!runs(&mark));
    assert!(!directory.exists());
}

#[test]
fn what_a_killed_lab_leaves_behind_is_found_and_removed() {
    if !can_run(&["ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    let directory = lab.directory();
    let card = std::fs::read(directory.join("lab.json")).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    let process = nix::unistd::Pid::from_raw(card["process"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    let gone = format!("/proc/{process}");
    wait_until("the lab's process is gone", || !Path::new(&gone).exists());
    assert!(directory.exists());
    let output = weft(&["lab", "down", &lab.name]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&lab.name), "{}", stderr(&output));
    assert!(!directory.exists());
}

/// A private device file, since /dev/net/tun may be root's alone.
const AS_NOBODY: &str = "
    mount -t tmpfs none /mnt && mknod -m 666 /mnt/tun c 10 200 || exit 99
    mount --bind /mnt/tun /dev/net/tun || exit 99
    exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"
";

#[test]
fn without_root_a_lab_lives_in_a_user_namespace() {
    if !can_run(&["ip", "ping", "unshare", "setpriv"]) {
        return;
    }
    let _alone = alone();
    // The build directory may be closed to others.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let program = folder.path().join("weft");
    std::fs::copy(env!("CARGO_BIN_EXE_weft"), &program).unwrap();
    std::fs::write(folder.path().join("pair.yaml"), PAIR).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        AS_NOBODY,
        "sh",
        "sh",
        "-ec",
        A_WHOLE_LAB,
    ]);
    let output = command
        .current_dir(folder.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let said = stdout(&output) + &stderr(&output);
    if output.status.code() == Some(99) || said.contains("CLONE_NEWUSER") {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no user namespaces here: {said}"
        );
        assert!(std::env::var_os("CI").is_none(), "{said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" 3 received"), "{said}");
}

/// The usual commands on a lab, in the folder that has the program.
const A_WHOLE_LAB: &str = "
    ./weft lab check
    ./weft lab up pair.yaml --name nobody --backend emulator
    trap './weft lab down nobody' EXIT
    ./weft lab set wire delay=1ms
    ./weft lab exec client -- ping -c 3 -i 0.2 server
";

#[test]
fn programs_whose_parents_ended_are_waited_for() {
    if !can_run(&["ip"]) {
        return;
    }
    let lab = Lab::up(PAIR, &[]);
    // The inner shell outlives its parent, and then ends.
    let mut orphan = lab.command("client", &["sh", "-c", "(sleep 0.1 &)"]);
    assert!(orphan.status().unwrap().success());
    let dead = || {
        let mut states = lab.command("client", &["sh", "-c", "cat /proc/[0-9]*/stat"]);
        let said = states.stderr(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.contains("(sleep)")
    };
    wait_until("the orphan to be gone, and not only dead", || !dead());
}
