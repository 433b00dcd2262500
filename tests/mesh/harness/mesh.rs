//! A mesh of real processes, brought up the way the guide says: CA, tokens, config service,
//! login, apply. Its sidecars are in `sidecar.rs`.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::WEFT;
use super::http::{self, Response};
use super::network::{Loopback, Namespace};
use super::process::{Output, Process, run};
use super::sidecar::SidecarPlan;
use super::wait::eventually;

const CA_PORT: u16 = 6200;
const CONFIG_PORT: u16 = 6201;
const CA_ADMIN_PORT: u16 = 6290;
const CONFIG_ADMIN_PORT: u16 = 6291;

/// Where a process runs: an address of its own, in the test's namespace or in another one.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    pub(super) namespace: Option<Arc<Namespace>>,
}

impl Place {
    pub(super) fn command(&self, program: &str) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        }
    }

    fn can_connect(&self, port: u16) -> bool {
        match &self.namespace {
            None => TcpStream::connect((self.address, port)).is_ok(),
            Some(namespace) => {
                let target = format!("telnet://{}:{port}", self.address);
                let mut curl = namespace.command("curl");
                // 28: connected, and then no answer in time.
                run(curl.args(["-s", "--max-time", "0.3", &target])).code == 28
            }
        }
    }
}

/// CA, config service and an operator with a login.
pub(crate) struct Mesh {
    pub(crate) ca: Process,
    pub(crate) config: Process,
    place: Place,
    svid_ttl: &'static str,
    loopback: Loopback,
    folder: Folder,
}

impl Mesh {
    /// The trust domain.
    pub(crate) const DOMAIN: &str = "demo.test";

    pub(crate) fn start() -> Self {
        Self::start_with("24h", None)
    }

    /// With certificates of that life.
    pub(crate) fn with_svid_ttl(svid_ttl: &'static str) -> Self {
        Self::start_with(svid_ttl, None)
    }

    /// With the control plane in a network namespace.
    pub(crate) fn in_namespace(namespace: &Arc<Namespace>) -> Self {
        Self::start_with("24h", Some(Arc::clone(namespace)))
    }

    fn start_with(svid_ttl: &'static str, namespace: Option<Arc<Namespace>>) -> Self {
        let folder = Folder::new();
        let loopback = Loopback::claim();
        let address = namespace
            .as_ref()
            .map_or_else(|| loopback.address(), |namespace| namespace.address);
        let place = Place { address, namespace };
        let ca_folder = folder.path().join("ca");
        let mut init = weft(&place, &folder, &["ca", "init", "--dir"]);
        init.arg(&ca_folder)
            .args(["--trust-domain", Self::DOMAIN, "--address"])
            .arg(format!("{address}:{CA_PORT}"));
        run(&mut init).ok();
        let ca = serve_ca(&place, &folder, svid_ttl);

        let token = folder.path().join("config.token");
        let mut command = weft(&place, &folder, &["ca", "token", "--role", "config"]);
        std::fs::write(&token, run(command.arg("--dir").arg(&ca_folder)).ok()).unwrap();
        let config = serve_config(&place, &folder);

        let mesh = Self {
            ca,
            config,
            place,
            svid_ttl,
            loopback,
            folder,
        };
        mesh.log_in("admin");
        mesh
    }

    /// The folder of the mesh's files and logs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An address for one more process.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.loopback.address()
    }

    /// The CA's admin endpoint and that of the config service.
    pub(crate) fn control_admins(&self) -> [SocketAddr; 2] {
        [CA_ADMIN_PORT, CONFIG_ADMIN_PORT].map(|port| (self.place.address, port).into())
    }

    /// A page of the CA's admin endpoint.
    pub(crate) fn ca_page(&self, path: &str) -> Response {
        http::get((self.place.address, CA_ADMIN_PORT).into(), path).unwrap()
    }

    /// A page of the config service's admin endpoint.
    pub(crate) fn config_page(&self, path: &str) -> Response {
        http::get((self.place.address, CONFIG_ADMIN_PORT).into(), path).unwrap()
    }

    /// The config service's address.
    pub(crate) fn config_address(&self) -> String {
        format!("{}:{CONFIG_PORT}", self.place.address)
    }

    /// Runs the command as the operator.
    pub(crate) fn weft(&self, arguments: &[&str]) -> Output {
        run(&mut weft(&self.place, &self.folder, arguments))
    }

    /// The command as the operator, to be changed before it is run.
    pub(crate) fn weft_command(&self, arguments: &[&str]) -> Command {
        weft(&self.place, &self.folder, arguments)
    }

    /// A join token for `ns/shop/sa/NAME`, in a file of its own.
    pub(crate) fn token(&self, name: &str) -> PathBuf {
        self.token_of("shop", name)
    }

    /// The same in another namespace.
    pub(super) fn token_of(&self, namespace: &str, name: &str) -> PathBuf {
        self.new_token(&["--identity", &format!("ns/{namespace}/sa/{name}")], name)
    }

    fn log_in(&self, operator: &str) {
        let token = self.new_token(&["--role", "operator", operator], operator);
        let mut login = self.weft_command(&["login", &self.config_address()]);
        run(login.arg("--join-token-file").arg(token)).ok();
    }

    fn new_token(&self, whom: &[&str], name: &str) -> PathBuf {
        let mut command = self.weft_command(&["ca", "token"]);
        command
            .args(whom)
            .arg("--dir")
            .arg(self.folder().join("ca"));
        let token = run(&mut command).ok();
        let path = (0..)
            .map(|n| self.folder().join(format!("{name}-{n}.token")))
            .find(|path| !path.exists())
            .unwrap();
        std::fs::write(&path, token).unwrap();
        path
    }

    /// Applies resources; panics unless every connected sidecar took them.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> String {
        self.try_apply(yaml).ok()
    }

    pub(crate) fn try_apply(&self, yaml: &str) -> Output {
        let path = self.folder().join("mesh.yaml");
        std::fs::write(&path, yaml).unwrap();
        let mut command = self.weft_command(&["apply", "-f"]);
        run(command.arg(path))
    }

    /// `weft get WHAT -o json`.
    #[track_caller]
    pub(crate) fn get(&self, what: &str) -> serde_json::Value {
        let text = self.weft(&["get", what, "-o", "json"]).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Starts the CA again after it was killed.
    pub(crate) fn restart_ca(&mut self) {
        self.ca = serve_ca(&self.place, &self.folder, self.svid_ttl);
    }

    /// Starts the config service again after it was killed.
    pub(crate) fn restart_config(&mut self) {
        self.config = serve_config(&self.place, &self.folder);
    }

    /// A sidecar of the workload `ns/shop/sa/NAME`, to be described further.
    pub(crate) fn sidecar(&self, name: &str) -> SidecarPlan {
        self.sidecar_of("shop", name)
    }

    /// The same in another namespace.
    pub(crate) fn sidecar_of(&self, namespace: &str, name: &str) -> SidecarPlan {
        SidecarPlan::new(self, namespace, name)
    }
}

/// A Service of namespace `shop`.
pub(crate) fn service(name: &str, port: u16, protocol: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ ports: [ {{ port: {port}, protocol: {protocol} }} ] }}\n"
    )
}

fn weft(place: &Place, folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = place.command(WEFT);
    command.args(arguments).env("HOME", folder.path());
    without_settings(&mut command);
    command
}

/// Keeps the developer's own environment out of the test.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["WEFT_", "XDG_", "OTEL_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
}

fn serve_ca(place: &Place, folder: &Folder, svid_ttl: &str) -> Process {
    let mut command = weft(place, folder, &["ca", "serve", "--svid-ttl", svid_ttl]);
    command
        .arg("--dir")
        .arg(folder.path().join("ca"))
        .arg("--listen")
        .arg(format!("{}:{CA_PORT}", place.address))
        .arg("--admin")
        .arg(format!("{}:{CA_ADMIN_PORT}", place.address));
    let mut process = Process::spawn("ca", folder.path(), &mut command);
    wait_listening("the CA", &mut process, place, CA_PORT);
    process
}

fn serve_config(place: &Place, folder: &Folder) -> Process {
    let mut command = weft(place, folder, &["config", "serve"]);
    command
        .arg("--dir")
        .arg(folder.path().join("config"))
        .arg("--listen")
        .arg(format!("{}:{CONFIG_PORT}", place.address))
        .arg("--admin")
        .arg(format!("{}:{CONFIG_ADMIN_PORT}", place.address))
        .arg("--join-token-file")
        .arg(folder.path().join("config.token"));
    let mut process = Process::spawn("config", folder.path(), &mut command);
    wait_listening("the config service", &mut process, place, CONFIG_PORT);
    process
}

fn wait_listening(name: &str, process: &mut Process, place: &Place, port: u16) {
    eventually(&format!("{name} listens"), || {
        assert!(process.is_running(), "{name} ended");
        place.can_connect(port)
    });
}

/// A temporary folder that is kept for inspection when its test failed.
struct Folder(Option<TempDir>);

impl Folder {
    fn new() -> Self {
        Self(Some(
            tempfile::Builder::new()
                .prefix("weft-mesh-")
                .tempdir()
                .unwrap(),
        ))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.0.take().unwrap().keep();
            eprintln!("---- files are kept in {}", kept.display());
        }
    }
}
