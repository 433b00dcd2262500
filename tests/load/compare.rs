//! `weft load compare`: real sidecars beside a plug-in that imitates another proxy, so that the expected
//! figures are known.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ran, weft};

/// Leads callers to the server itself, and logs when it begins and when it ended in order.
const PASS: &str = r#"
echo "$WEFT_COMPARE_WORKERS $WEFT_COMPARE_SERVER_HOST" > "$MARKS/began"
test "$(pwd)" = "$WEFT_COMPARE_DIRECTORY" || exit 1
echo "{\"version\":\"pass 1.0\",\"http\":\"http://$WEFT_COMPARE_SERVER\",\
\"processes\":[{\"role\":\"caller\",\"pid\":$$},{\"role\":\"server\",\"pid\":$$}]}"
cat > /dev/null
echo yes > "$MARKS/ended"
"#;

/// A folder with plug-ins, in which the command makes its own temporary directory.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an executable script.
    fn plugin(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = weft();
        command
            .args(["load", "compare"])
            .args(arguments)
            .env("TMPDIR", self.path("tmp"))
            .env("MARKS", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn compare(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The run left no files.
    #[track_caller]
    fn expect_clean(&self) {
        let left = fs::read_dir(self.path("tmp")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Short loads, for conditions that must hold whatever else the machine does.
const SHORT: [&str; 12] = [
    "--rounds",
    "1",
    "-d",
    "300ms",
    "--warm-up",
    "100ms",
    "-c",
    "4",
    "--rates",
    "50",
    "--bulk",
    "1MiB",
];

#[track_caller]
fn figures<'a>(document: &'a Value, variant: &str, measurement: &str) -> &'a Value {
    let observations = document["observations"].as_array().unwrap();
    let mut found = observations
        .iter()
        .filter(|one| one["variant"] == variant && one["measurement"] == measurement);
    let one = found.next();
    let one = one.unwrap_or_else(|| panic!("no {measurement} of {variant}: {document:#}"));
    assert_eq!(one["failed"], 0, "{one:#}");
    assert!(found.next().is_none(), "{document:#}");
    &one["figures"]
}

#[test]
fn a_weft_proxy_of_another_build_is_not_measured() {
    let stage = Stage::new();
    let (weft, proxy) = (stage.path("weft"), stage.path("weft-proxy"));
    fs::copy(env!("CARGO_BIN_EXE_weft"), &weft).unwrap();
    fs::write(&proxy, "#!/bin/sh\necho weft-proxy 0.0.1\n").unwrap();
    fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).unwrap();
    let only = ["--loopback", "--quiet", "--only", "http", "-o", "json"];
    let mut command = Command::new(weft);
    command.args(["load", "compare"]).args(SHORT).args(only);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("weft-proxy is of another build"), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = document["variants"][1]["version"].as_str().unwrap();
    assert!(version.starts_with("weft "), "{version}");
}

#[test]
fn weft_direct_and_a_plug_in_are_measured_in_one_run_and_weft_twice() {
    let stage = Stage::new();
    let pass = stage.plugin("pass.sh", PASS);
    let page = stage.path("page.html");
    let page = page.to_str().unwrap();
    let only = [
        "--loopback",
        "--quiet",
        "--only",
        "http,tcp",
        "-o",
        "json",
        "--html",
        page,
        &pass,
    ];
    let ran = stage.compare(&[&SHORT[..], &only].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let document = ran.json();
    assert_eq!(document["schema"], "weft.compare/1");
    assert_eq!(document["variants"][2]["version"], "pass 1.0");
    // Its sidecars are processes of the program that packages have for them.
    let weft = document["variants"][1]["version"].as_str().unwrap();
    assert!(weft.starts_with("weft-proxy "), "{weft}");
    for variant in ["direct", "weft", "pass", "weft again"] {
        let rate = &figures(&document, variant, "http")["per_second"];
        assert!(rate.as_f64().unwrap() > 0.0, "{variant}: {document:#}");
    }
    assert!(figures(&document, "weft", "tcp")["cpu"].as_f64().unwrap() > 0.0);
    assert!(figures(&document, "direct", "tcp")["cpu"].is_null());
    // A shell that waits uses no CPU time; if the generator or the server were counted, it would show here.
    assert_eq!(figures(&document, "pass", "http")["cpu"], 0.0);
    let tcp = document["observations"].as_array().unwrap().iter();
    let tcp = tcp.filter(|one| one["measurement"] == "tcp");
    assert_eq!(tcp.count(), 3, "the plug-in offers no TCP: {document:#}");
    assert!(fs::read_to_string(page).unwrap().contains("pass 1.0"));
    assert_eq!(
        fs::read_to_string(stage.path("began")).unwrap(),
        "1 127.0.0.1\n"
    );
    assert_eq!(fs::read_to_string(stage.path("ended")).unwrap(), "yes\n");
    stage.expect_clean();
}

#[test]
fn every_kind_of_load_has_its_figures_in_the_table() {
    let stage = Stage::new();
    let only = ["--loopback", "--only", "serial,rate,connect,bulk"];
    let ran = stage.compare(&[&SHORT[..], &only].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    for words in [
        "HTTP, one request after another",
        "p50 added to direct",
        "TCP, 50 requests per second",
        "latency p99.9",
        "connections per second",
        "HTTP, one stream of 1.00 MiB down",
        "TCP, one stream of 1.00 MiB up",
        "MB per second",
        "CPU of the proxies, s per GiB",
        "CPU of the machine",
        "weft has",
        "noise",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("requests failed"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("round 1 of 1  bulk.up.tcp: "),
        "{}",
        ran.stderr
    );
    stage.expect_clean();
}

#[test]
fn an_interrupted_comparison_in_namespaces_leaves_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let stage = Stage::new();
    let pass = stage.plugin("pass", PASS);
    let arguments = ["--only", "http", "-d", "1h", &pass];
    let mut child = stage
        .command(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    // It prints its expected duration when everything is up and the first load begins.
    let said: Vec<String> = lines
        .by_ref()
        .take_while(|line| !line.contains(" rounds of "))
        .collect();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{said:?} {rest:?}");
    assert_eq!(
        fs::read_to_string(stage.path("began")).unwrap(),
        "1 10.231.0.2\n"
    );
    assert_eq!(fs::read_to_string(stage.path("ended")).unwrap(), "yes\n");
    assert!(!Path::new("/run/netns/weft-server").exists());
    stage.expect_clean();
}

#[test]
fn an_invalid_plug_in_is_reported_in_a_line_before_anything_starts() {
    let stage = Stage::new();
    let plain = stage.path("plain");
    fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    let missing = stage.path("missing");
    let missing = missing.to_str().unwrap();
    let named = stage.plugin("weft.sh", PASS);
    let pass = stage.plugin("pass.sh", PASS);
    for (arguments, says) in [
        (&[plain][..], "not an executable file"),
        (&[missing], "No such file"),
        (&[&named], "`weft` names something else"),
        (&[&pass, &pass], "two plug-ins are called `pass`"),
        (&["--rates", "0"], "rate"),
        (&["-c", "0"], "--connections 0"),
    ] {
        let ran = stage.compare(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.one_line().contains(says), "{ran:?}");
    }
    let ran = stage.compare(&["--only", "memory"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.stderr
            .contains("http,tcp,serial,rate,connect,bulk,idle"),
        "{ran:?}"
    );
}

#[test]
fn a_plug_in_that_fails_is_reported_with_its_own_output() {
    let stage = Stage::new();
    let rubbish = "echo listening on 80; cat > /dev/null";
    let dead = "echo 'no licence' >&2; exit 3";
    let nowhere =
        r#"echo '{"version":"x","processes":[{"role":"caller","pid":1}]}'; cat > /dev/null"#;
    let late = r#"echo "{\"version\":\"x\",\"http\":\"127.0.0.1:1\",\"processes\":[{\"role\":\"caller\",\"pid\":$$}]}"
        echo 'lost my peer' >&2"#;
    for (name, script, code, says) in [
        ("rubbish", rubbish, 65, "it printed `listening on 80`"),
        ("dead", dead, 1, "exit status: 3): no licence"),
        ("nowhere", nowhere, 65, "neither `http` nor `tcp`"),
        ("late", late, 1, "lost my peer"),
    ] {
        let plugin = stage.plugin(name, script);
        let only = ["--loopback", "--quiet", "--only", "http", &plugin];
        let ran = stage.compare(&[&SHORT[..], &only].concat());
        assert_eq!(ran.code, code, "{ran:?}");
        let line = ran.one_line();
        assert!(line.contains(&format!("plug-in {name}")), "{ran:?}");
        assert!(line.contains(says), "{ran:?}");
    }
    stage.expect_clean();
}

#[test]
fn a_held_stage_says_where_it_is_and_ends_with_ctrl_c() {
    let stage = Stage::new();
    let pass = stage.plugin("pass", PASS);
    let mut child = stage
        .command(&["--loopback", "--quiet", "--hold", &pass])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> = stdout.lines().take(3).map(Result::unwrap).collect();
    assert!(lines[0].starts_with("direct  http 127.0.0.1:"), "{lines:?}");
    assert!(
        lines[1].contains("caller pid") && lines[1].contains("  tcp 127"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("pass  http 127.0.0.1:"), "{lines:?}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(stage.path("ended")).unwrap(), "yes\n");
    stage.expect_clean();
}

#[test]
fn without_an_envoy_its_plug_in_says_how_to_get_one() {
    let stage = Stage::new();
    let envoy = concat!(env!("CARGO_MANIFEST_DIR"), "/compare/envoy-h3");
    let output = stage
        .command(&["--loopback", "--quiet", "--only", "http", envoy])
        .env("WEFT_COMPARE_ENVOY", "/nonexistent")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    // Without Python there is no plug-in either.
    let says = ["pip install -r", "python3"];
    assert!(says.iter().any(|words| stderr.contains(words)), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// Whether this may run; if not, it prints that, and fails where no test may be skipped.
fn may_make_namespaces() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--pid", "--mount", "--fork", "true"])
        .status();
    if nix::unistd::geteuid().is_root() && tried.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no network namespaces here"
    );
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED a comparison in namespaces: it needs root"
    );
    false
}
