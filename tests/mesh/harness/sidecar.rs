//! A sidecar of a mesh: its configuration, and its process.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::WEFT;
use super::http::{self, Response};
use super::mesh::{Mesh, Place, without_settings};
use super::network::Namespace;
use super::process::{Output, Process, run};
use super::wait::{eventually, wait_until};

const MESH_PORT: u16 = 6143;
const ADMIN_PORT: u16 = 6191;
const BY_HOST_PORT: u16 = 6142;
const FIRST_LISTENER_PORT: u16 = 5001;

/// The configuration of a sidecar.
#[derive(Clone)]
pub(crate) struct SidecarPlan {
    name: String,
    folder: PathBuf,
    token: PathBuf,
    config: String,
    place: Place,
    inbound: Vec<(String, String)>,
    advertise: Option<String>,
    outbound: Vec<(String, String)>,
    by_host: bool,
    admin_settings: String,
    service_settings: String,
    outbound_settings: String,
    settings: String,
    environment: Vec<(&'static str, PathBuf)>,
    is_process_1: bool,
}

impl SidecarPlan {
    pub(super) fn new(mesh: &Mesh, namespace: &str, name: &str) -> Self {
        Self {
            token: mesh.token_of(namespace, name),
            folder: mesh.folder().join(name),
            config: mesh.config_address(),
            name: name.to_owned(),
            place: Place {
                address: mesh.address(),
                namespace: None,
            },
            inbound: Vec::new(),
            advertise: None,
            outbound: Vec::new(),
            by_host: false,
            admin_settings: String::new(),
            service_settings: String::new(),
            outbound_settings: String::new(),
            settings: String::new(),
            environment: Vec::new(),
            is_process_1: false,
        }
    }

    /// Its folder and its name in messages, if two have one identity.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.folder.set_file_name(name);
        name.clone_into(&mut self.name);
        self
    }

    /// Serves `orders:80` by the application at an address (or `unix:/path`).
    pub(crate) fn serves(mut self, service: &str, application: impl ToString) -> Self {
        self.inbound
            .push((service.to_owned(), application.to_string()));
        self
    }

    /// Listens for the application's calls to `orders:80`.
    pub(crate) fn calls(mut self, service: &str) -> Self {
        let port = FIRST_LISTENER_PORT + u16::try_from(self.outbound.len()).unwrap();
        let listen = format!("{}:{port}", self.place.address);
        self.outbound.push((service.to_owned(), listen));
        self
    }

    /// The same, on a Unix socket.
    pub(crate) fn calls_by_socket(mut self, service: &str, path: &Path) -> Self {
        self.outbound
            .push((service.to_owned(), format!("unix:{}", path.display())));
        self
    }

    /// Listens for HTTP to any service, found by the host.
    pub(crate) fn calls_by_host(mut self) -> Self {
        self.by_host = true;
        self
    }

    /// Tells the mesh another address than it listens on.
    pub(crate) fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address.to_string());
        self
    }

    /// Moves to an address of its own: for a second process of one plan.
    pub(crate) fn moved(mut self, mesh: &Mesh) -> Self {
        let old = self.place.address.to_string();
        self.place.address = mesh.address();
        let new = self.place.address.to_string();
        for (_, listen) in &mut self.outbound {
            *listen = listen.replace(&old, &new);
        }
        self
    }

    /// The address of the first listener.
    pub(crate) fn first_listener(&self) -> SocketAddr {
        self.outbound[0].1.parse().unwrap()
    }

    /// One more top-level line of the settings file.
    pub(crate) fn setting(mut self, line: &str) -> Self {
        writeln!(self.settings, "{line}").unwrap();
        self
    }

    /// One more key of `admin`.
    pub(crate) fn admin_setting(mut self, key: &str) -> Self {
        write!(self.admin_settings, ", {key}").unwrap();
        self
    }

    /// One more key of each service that it serves.
    pub(crate) fn service_setting(mut self, key: &str) -> Self {
        write!(self.service_settings, ", {key}").unwrap();
        self
    }

    /// One more key of `outbound`.
    pub(crate) fn outbound_setting(mut self, line: &str) -> Self {
        writeln!(self.outbound_settings, "  {line}").unwrap();
        self
    }

    /// With a variable of the environment.
    pub(crate) fn environment(mut self, name: &'static str, value: &Path) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Runs in another network namespace.
    pub(crate) fn in_namespace(mut self, namespace: &Arc<Namespace>) -> Self {
        self.place = Place {
            address: namespace.address,
            namespace: Some(Arc::clone(namespace)),
        };
        self
    }

    /// Runs as process 1 of a PID namespace, as in a container.
    pub(crate) fn in_pid_namespace(mut self) -> Self {
        self.is_process_1 = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Sidecar {
        let mut sidecar = self.spawn();
        sidecar.wait_ready();
        sidecar
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(self) -> Sidecar {
        self.spawn_wrapping(&[])
    }

    /// Starts it around `command`.
    pub(crate) fn spawn_wrapping(self, command: &[&str]) -> Sidecar {
        std::fs::create_dir_all(&self.folder).unwrap();
        std::fs::write(self.folder.join("proxy.yaml"), self.settings_file()).unwrap();
        Sidecar {
            process: self.run(command),
            plan: self,
        }
    }

    fn command(&self) -> Command {
        let mut command = match self.is_process_1 {
            true => {
                let mut command = self.place.command("unshare");
                command.args(["--pid", "--fork", "--kill-child", "--mount-proc", WEFT]);
                command
            }
            false => self.place.command(WEFT),
        };
        command
            .args(["proxy", "run", "--config"])
            .arg(self.folder.join("proxy.yaml"));
        without_settings(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, wrapped: &[&str]) -> Process {
        let mut command = self.command();
        if !wrapped.is_empty() {
            command.arg("--").args(wrapped);
        }
        Process::spawn(&self.name, &self.folder, &mut command)
    }

    fn settings_file(&self) -> String {
        let mut text = format!(
            "join: {{ token_file: \"{}\" }}\nconfig: {{ addresses: [\"{}\"] }}\nstate_dir: state\nadmin: {{ listen: \"{}\"{} }}\n{}",
            self.token.display(),
            self.config,
            self.admin(),
            self.admin_settings,
            self.settings
        );
        if !self.inbound.is_empty() {
            let listen = self.mesh_address();
            writeln!(text, "inbound:\n  listen: \"{listen}\"").unwrap();
            if let Some(advertise) = &self.advertise {
                writeln!(text, "  advertise: \"{advertise}\"").unwrap();
            }
            writeln!(text, "  services:").unwrap();
            for (service, application) in &self.inbound {
                let (name, port) = service.split_once(':').unwrap();
                writeln!(
                    text,
                    "    - {{ service: {name}, port: {port}, application: \"{application}\"{} }}",
                    self.service_settings
                )
                .unwrap();
            }
        }
        if !self.outbound.is_empty() || self.by_host {
            write!(text, "outbound:\n{}", self.outbound_settings).unwrap();
            writeln!(text, "  listeners:").unwrap();
            for (service, listen) in &self.outbound {
                let (name, port) = service.split_once(':').unwrap();
                writeln!(
                    text,
                    "    - {{ listen: \"{listen}\", service: {name}, port: {port} }}"
                )
                .unwrap();
            }
            if self.by_host {
                let listen = SocketAddr::from((self.place.address, BY_HOST_PORT));
                writeln!(text, "    - {{ listen: \"{listen}\", route_by: host }}").unwrap();
            }
        }
        text
    }

    fn admin(&self) -> SocketAddr {
        match self.place.namespace {
            None => (self.place.address, ADMIN_PORT).into(),
            Some(_) => (Ipv4Addr::LOCALHOST, ADMIN_PORT).into(),
        }
    }

    fn mesh_address(&self) -> SocketAddr {
        (self.place.address, MESH_PORT).into()
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    plan: SidecarPlan,
}

impl Sidecar {
    /// Where the application calls `service`.
    pub(crate) fn listener(&self, service: &str) -> SocketAddr {
        let (_, listen) = self
            .plan
            .outbound
            .iter()
            .find(|(name, _)| name == service)
            .unwrap_or_else(|| panic!("{} does not call {service}", self.plan.name));
        listen.parse().unwrap()
    }

    /// Where the application calls any service by its host.
    pub(crate) fn by_host(&self) -> SocketAddr {
        (self.plan.place.address, BY_HOST_PORT).into()
    }

    /// The UDP address of the mesh side.
    pub(crate) fn mesh_address(&self) -> SocketAddr {
        self.plan.mesh_address()
    }

    /// The folder of its key, certificate and bundle.
    pub(crate) fn state(&self) -> PathBuf {
        self.plan.folder.join("state")
    }

    /// The folder of its settings file.
    pub(crate) fn folder(&self) -> PathBuf {
        self.plan.folder.clone()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.plan.admin()
    }

    /// `GET path` at its admin endpoint.
    pub(crate) fn admin_get(&self, path: &str) -> std::io::Result<Response> {
        let Some(namespace) = &self.plan.place.namespace else {
            return http::get(self.admin(), path);
        };
        let url = format!("http://{}{path}", self.admin());
        let output = run(namespace.command("curl").args(["-si", &url]));
        http::read_response(&mut output.stdout.as_bytes(), false)
    }

    /// The Unix socket of its admin endpoint.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.state().join("admin.sock")
    }

    /// `METHOD path` there.
    pub(crate) fn admin_ask(&self, line: &str, body: &str) -> std::io::Result<Response> {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        http::exchange_at(&self.admin_socket(), request.as_bytes())
    }

    /// An admin page, as JSON.
    #[track_caller]
    pub(crate) fn admin_json(&self, path: &str) -> serde_json::Value {
        let response = self.admin_get(path).unwrap();
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()))
    }

    /// Waits for `/ready`.
    pub(crate) fn wait_ready(&mut self) {
        let what = format!("{} is ready", self.plan.name);
        wait_until(&what, Duration::from_secs(30), || {
            assert!(self.process.is_running(), "{what}: it ended");
            let ready = self.admin_get("/ready").ok()?;
            (ready.status == 200).then_some(())
        });
    }

    /// Waits until it has `count` endpoints of `service` (as `orders:80` of namespace shop, or
    /// `orders.shop:80`).
    pub(crate) fn wait_endpoints(&self, service: &str, count: usize) {
        let (name, port) = service.split_once(':').unwrap();
        let name = name.strip_suffix(".shop").unwrap_or(name);
        let pointer = format!("/services/{name}.shop/ports/{port}/endpoints");
        let what = format!("{} has {count} endpoints of {service}", self.plan.name);
        eventually(&what, || {
            let dump = self.admin_json("/config_dump");
            let table = dump.get("table").unwrap_or(&dump);
            let endpoints = table.pointer(&pointer).and_then(|found| found.as_array());
            endpoints.map_or(0, Vec::len) == count
        });
    }

    /// The revision of its table.
    pub(crate) fn revision(&self) -> u64 {
        let dump = self.admin_json("/config_dump");
        let table = dump.get("table").unwrap_or(&dump);
        let number = table.pointer("/revision/number");
        number.and_then(serde_json::Value::as_u64).unwrap_or(0)
    }

    /// Starts a successor, and waits until it has taken over. Returns the predecessor, which finishes its
    /// work. The plan has a `takeover_socket`.
    pub(crate) fn take_over(&mut self) -> Process {
        let times = |log: &str| log.matches("took over from the running sidecar").count();
        let before = times(&self.process.log());
        let new = self.successor();
        let old = std::mem::replace(&mut self.process, new);
        let what = format!("{} is taken over", self.plan.name);
        eventually(&what, || {
            assert!(self.process.is_running(), "{what}: the new process ended");
            // All processes of a plan write to one log.
            times(&self.process.log()) > before
        });
        old
    }

    /// Starts a successor without waiting.
    pub(crate) fn successor(&self) -> Process {
        self.plan.run(&[])
    }

    /// Runs its plan once more, with `arguments`, beside the process that runs.
    pub(crate) fn run_again(&self, arguments: &[&str]) -> Output {
        let mut command = self.plan.command();
        run(command.args(arguments))
    }

    /// Starts it again, on the same state, after it was killed.
    pub(crate) fn restart(&mut self) {
        self.process = self.plan.run(&[]);
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Panics if it ended, or logged a message that only a defect causes.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        assert!(self.process.is_running(), "{} ended", self.plan.name);
        let log = self.process.log();
        assert!(!log.contains("panicked at"), "{log}");
        assert_eq!(self.admin_get("/ready").unwrap().status, 200);
    }
}
