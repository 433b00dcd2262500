//! Hosts with IPv6 alone, and with both families: the commands of the README, with all addresses that it
//! leaves to the defaults.

use std::path::Path;
use std::process::Command;

use crate::harness::{Namespace, Need, Process, WEFT, eventually, need, run, service};

/// A namespace in which the commands are run.
struct Walk {
    namespace: Namespace,
    folder: tempfile::TempDir,
    running: Vec<Process>,
}

impl Walk {
    fn in_namespace(namespace: Namespace) -> Self {
        Self {
            namespace,
            folder: tempfile::tempdir().unwrap(),
            running: Vec::new(),
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.namespace.command(WEFT);
        command
            .args(line.split_whitespace())
            .current_dir(&self.folder)
            .env("WEFT_HOME", self.folder.path().join("operator"));
        command
    }

    #[track_caller]
    fn weft(&self, line: &str) -> String {
        run(&mut self.command(line)).ok()
    }

    fn start(&mut self, name: &str, line: &str) {
        let mut command = self.command(line);
        let process = Process::spawn(name, self.folder.path(), &mut command);
        self.running.push(process);
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn answers(&self, url: &str) -> bool {
        let mut curl = self.namespace.command("curl");
        run(curl.args(["-gsf", "--max-time", "5", url])).code == 0
    }

    /// Runs the commands; `host` is where everything is reached, `serving` are further flags of the serving
    /// sidecar.
    fn go(&mut self, host: &str, serving: &str) {
        self.start("origin", &format!("load serve --http {host}:8080"));
        self.weft(&format!(
            "ca init --dir ca --trust-domain demo.test --address {host}:6200"
        ));
        self.start("ca", "ca serve --dir ca");
        eventually("the CA makes tokens", || {
            run(&mut self.command("ca token --dir ca --role operator early")).code == 0
        });
        for (name, whom) in [
            ("config", "--role config"),
            ("me", "--role operator me"),
            ("orders", "--identity ns/shop/sa/orders"),
            ("frontend", "--identity ns/shop/sa/frontend"),
        ] {
            let token = self.weft(&format!("ca token --dir ca {whom}"));
            self.write(&format!("{name}.token"), &token);
        }
        self.start(
            "config",
            "config serve --dir config --join-token-file config.token",
        );
        self.weft(&format!("login {host}:6201 --join-token-file me.token"));
        self.write("mesh.yaml", &service("orders", 80, "http"));
        self.weft("apply -f mesh.yaml");
        self.start(
            "orders",
            &format!(
                "proxy run --join-token-file orders.token --state-dir orders \
                 --inbound orders:80={host}:8080 {serving}"
            ),
        );
        self.start(
            "frontend",
            &format!(
                "proxy run --join-token-file frontend.token --state-dir frontend --admin {host}:6192 \
                 --outbound {host}:5001=orders:80"
            ),
        );
        let url = format!("http://{host}:5001/");
        eventually("the service answers through both sidecars", || {
            self.answers(&url)
        });
        // The admin endpoint of the sidecar that named none.
        self.weft("proxy status --state-dir orders");
        let sidecars = self.weft("get sidecars -o json");
        assert!(sidecars.contains("\"connected\": true"), "{sidecars}");
        self.weft("ca inspect --dir ca");
    }
}

#[test]
fn the_walk_of_the_readme_passes_on_a_host_without_ipv4() {
    if !need(&[Need::Root, Need::Program("curl")]) {
        return;
    }
    let mut walk = Walk::in_namespace(Namespace::without_ipv4());
    walk.go("[::1]", "");
    let sidecars = walk.weft("get sidecars -o json");
    assert!(sidecars.contains("\"[::1]:6143\""), "{sidecars}");
}

#[test]
fn what_listens_by_default_is_reached_by_names_and_by_both_families() {
    if !need(&[Need::Root, Need::Program("curl")]) {
        return;
    }
    for serving in ["--advertise 127.0.0.1:6143", "--advertise [::1]:6143", ""] {
        let mut walk = Walk::in_namespace(Namespace::alone());
        walk.go("localhost", serving);
    }
}

#[test]
fn a_listener_of_ipv4_alone_is_not_advertised_by_an_ipv6_address() {
    if !need(&[Need::Root]) {
        return;
    }
    let mut walk = Walk::in_namespace(Namespace::alone());
    walk.weft("ca init --dir ca --trust-domain demo.test --address [::1]:6200");
    walk.start("ca", "ca serve --dir ca --listen [::1]:6200");
    eventually("the CA makes tokens", || {
        run(&mut walk.command("ca token --dir ca --role operator early")).code == 0
    });
    let token = walk.weft("ca token --dir ca --identity ns/shop/sa/orders");
    walk.write("orders.token", &token);
    let refused = run(&mut walk.command(
        "proxy run --join-token-file orders.token --state-dir orders --listen 0.0.0.0:6143 \
         --inbound orders:80=127.0.0.1:8080",
    ));
    assert_eq!(refused.code, 65, "{refused:?}");
    assert!(
        refused.stderr.contains("inbound.listen: \"[::]:6143\""),
        "{refused:?}"
    );
}
