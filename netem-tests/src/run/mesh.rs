//! Brings the mesh of a scenario up on its hosts, as an operator would by hand: CA, tokens, config
//! service, resources, applications, sidecars; and waits until every caller sees every endpoint.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use weft_transport::tuning::TransportSettings;

use super::RunError;
use super::fleet::{Fleet, Plan};
use super::keep;
use super::limits::{FIRST_REQUESTS, GLANCE, STEP_TIMEOUT};
use super::resources::resources_of;
use super::stop::Stop;
use crate::lab::NodeName;
use crate::scenario::{Application, Caller, Endpoint, Protocol, Scenario, Service};

/// The namespace of everything in a lab.
pub(super) const NAMESPACE: &str = "lab";
pub(super) const TRUST_DOMAIN: &str = "lab.test";
/// The port that services have in the mesh.
pub(super) const SERVICE_PORT: u16 = 80;
const CA_PORT: u16 = 6200;
const CONFIG_PORT: u16 = 6201;
/// Of these two, on the loopback of their host.
const CA_ADMIN_PORT: u16 = 6291;
const CONFIG_ADMIN_PORT: u16 = 6292;
/// First ports of what may be several on one host.
const MESH_PORT: u16 = 6143;
const ADMIN_PORT: u16 = 6191;
const LISTENER_PORT: u16 = 5001;
const APPLICATION_PORT: u16 = 8080;

/// Where a load reaches a service: the listener of its caller's sidecar, by caller and service.
pub(super) type Listeners = BTreeMap<(String, String), u16>;

/// Ports that are taken on each host.
#[derive(Default)]
struct Ports(BTreeMap<(String, u16), u16>);

impl Ports {
    /// The next free port at or after `first`.
    fn next(&mut self, host: &str, first: u16) -> u16 {
        let taken = self.0.entry((host.to_owned(), first)).or_default();
        *taken += 1;
        first + *taken - 1
    }
}

/// The parameters of a bring-up.
pub(super) struct Builder<'a, 'l> {
    pub(super) scenario: &'a Scenario,
    pub(super) weft: &'a Path,
    pub(super) qlog: bool,
    pub(super) fleet: &'a mut Fleet<'l>,
    pub(super) stop: &'a Stop,
    /// Where the application of each service listens on its host; of several, the last.
    pub(super) applications: BTreeMap<String, String>,
}

impl Builder<'_, '_> {
    /// Brings everything up; returns where loads reach the services.
    pub(super) fn bring_up(
        &mut self,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Listeners, RunError> {
        let control = node(&self.scenario.control)?;
        let address = self.address(&control)?;
        progress("making a certificate authority");
        self.make_tokens(&control, address)?;
        self.launch_control(&control, address)?;
        progress("starting the config service");
        let config = format!("{address}:{CONFIG_PORT}");
        let token = self.path("operator.token");
        self.retry(
            &control,
            &["login", &config, "--join-token-file", &text(&token)],
        )?;
        let resources = self.path("mesh.yaml");
        write_file(&resources, resources_of(self.scenario).as_bytes())?;
        self.retry(&control, &["apply", "-f", &text(&resources)])?;
        progress("starting applications and sidecars");
        let listeners = self.launch_sidecars(&config)?;
        for name in self.fleet.with_admin() {
            self.until(&format!("{name} to be ready"), |fleet| {
                fleet
                    .ask(&name, "/ready")
                    .is_some_and(|answer| answer.status == 200)
            })?;
        }
        for caller in &self.scenario.callers {
            for service in called(self.scenario, caller) {
                let (name, count) = (&caller.name, service.endpoints.len());
                let what = format!("{name} to see {count} endpoints of {}", service.name);
                self.until(&what, |fleet| {
                    endpoints(fleet, name, &service.name) == Some(count)
                })?;
            }
        }
        progress("first requests");
        for caller in &self.scenario.callers {
            for service in called(self.scenario, caller) {
                let listener = listeners.get(&(caller.name.clone(), service.name.clone()));
                if let Some(port) = listener {
                    self.first_requests(&node(&caller.host)?, service, *port)?;
                }
            }
        }
        self.bring_up_pairs(progress)?;
        Ok(listeners)
    }

    /// The first requests make the connections of the mesh. Made here, a connection that appears under the
    /// loads is one that replaces another.
    pub(super) fn first_requests(
        &mut self,
        host: &NodeName,
        service: &Service,
        port: u16,
    ) -> Result<(), RunError> {
        let scheme = match service.protocol {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        };
        let url = format!("{scheme}://127.0.0.1:{port}/");
        // Of two endpoints chosen at random, even of few, each is met within this many requests.
        let requests = (FIRST_REQUESTS * service.endpoints.len()).to_string();
        let flags = ["--rate", "100", "--requests", &requests, "--quiet"];
        let arguments = [&["load", &url], flags.as_slice()].concat();
        self.retry(host, &arguments).map(drop)
    }

    /// The CA's store, and a token for every process.
    fn make_tokens(&mut self, control: &NodeName, address: Ipv4Addr) -> Result<(), RunError> {
        let ca = text(&self.path("ca"));
        let at = format!("{address}:{CA_PORT}");
        self.weft(
            control,
            &[
                "ca",
                "init",
                "--dir",
                &ca,
                "--trust-domain",
                TRUST_DOMAIN,
                "--address",
                &at,
            ],
        )?;
        self.token(control, "config", &["--role", "config"], &["config"])?;
        self.token(
            control,
            "operator",
            &["--role", "operator", "lab"],
            &["operator"],
        )?;
        for service in with_sidecars(self.scenario) {
            let names: Vec<&str> = service
                .endpoints
                .iter()
                .map(|one| one.name.as_str())
                .collect();
            let identity = format!("ns/{NAMESPACE}/sa/{}", service.name);
            let count = names.len().to_string();
            let flags = ["--identity", &identity, "--count", &count];
            self.token(control, &service.name, &flags, &names)?;
        }
        for caller in &self.scenario.callers {
            let identity = format!("ns/{NAMESPACE}/sa/{}", caller.name);
            self.token(
                control,
                &caller.name,
                &["--identity", &identity],
                &[&caller.name],
            )?;
        }
        Ok(())
    }

    /// Makes tokens, one line each, and writes each to `NAME.token`.
    fn token(
        &mut self,
        control: &NodeName,
        whom: &str,
        flags: &[&str],
        names: &[&str],
    ) -> Result<(), RunError> {
        let ca = text(&self.path("ca"));
        let said = self.weft(control, &[&["ca", "token", "--dir", &ca], flags].concat())?;
        let mut lines = said.lines().filter(|line| !line.is_empty());
        for name in names {
            let line = lines.next().ok_or_else(|| RunError::Step {
                what: format!("make a token for {whom}"),
                said: said.clone(),
            })?;
            write_file(&self.path(&format!("{name}.token")), line.as_bytes())?;
        }
        Ok(())
    }

    fn launch_control(&mut self, control: &NodeName, address: Ipv4Addr) -> Result<(), RunError> {
        let ca = [
            "ca".to_owned(),
            "serve".to_owned(),
            "--dir".to_owned(),
            text(&self.path("ca")),
            "--listen".to_owned(),
            format!("{address}:{CA_PORT}"),
            "--admin".to_owned(),
            format!("127.0.0.1:{CA_ADMIN_PORT}"),
        ];
        let plan = self.plan(control, ca, Some(CA_ADMIN_PORT));
        self.fleet.launch("ca", plan)?;
        let config = [
            "config".to_owned(),
            "serve".to_owned(),
            "--dir".to_owned(),
            text(&self.path("config")),
            "--listen".to_owned(),
            format!("{address}:{CONFIG_PORT}"),
            "--admin".to_owned(),
            format!("127.0.0.1:{CONFIG_ADMIN_PORT}"),
            "--join-token-file".to_owned(),
            text(&self.path("config.token")),
        ];
        let plan = self.plan(control, config, Some(CONFIG_ADMIN_PORT));
        self.fleet.launch("config", plan)
    }

    fn launch_sidecars(&mut self, config: &str) -> Result<Listeners, RunError> {
        let mut ports = Ports::default();
        let mut listeners = Listeners::new();
        for service in with_sidecars(self.scenario) {
            for index in 0..service.endpoints.len() {
                self.launch_endpoint(service, index, config, &mut ports)?;
            }
        }
        for caller in &self.scenario.callers {
            let mut outbound = Vec::new();
            for service in &caller.calls {
                let port = ports.next(&caller.host, LISTENER_PORT);
                listeners.insert((caller.name.clone(), service.clone()), port);
                outbound.push(json!({
                    "listen": format!("127.0.0.1:{port}"), "service": service, "port": SERVICE_PORT,
                }));
            }
            let blocks = json!({ "outbound": { "listeners": outbound } });
            self.launch_sidecar(&caller.name, &caller.host, config, blocks, &mut ports)?;
        }
        Ok(listeners)
    }

    /// The `index`-th sidecar of a service, with the applications behind it.
    fn launch_endpoint(
        &mut self,
        service: &Service,
        index: usize,
        config: &str,
        ports: &mut Ports,
    ) -> Result<(), RunError> {
        let scenario = self.scenario;
        let mut served = Vec::new();
        let shares =
            |one: &&Service| one.name == service.name || one.beside.as_ref() == Some(&service.name);
        for service in scenario.services.iter().filter(shares) {
            let application =
                self.launch_application(service.protocol, &service.endpoints[index], ports)?;
            served.push(json!({
                "service": service.name, "port": SERVICE_PORT, "application": application,
            }));
            self.applications.insert(service.name.clone(), application);
        }
        let endpoint = &service.endpoints[index];
        let port = ports.next(&endpoint.host, MESH_PORT);
        let listen = format!("0.0.0.0:{port}");
        let blocks = json!({ "inbound": { "listen": listen, "services": served } });
        self.launch_sidecar(&endpoint.name, &endpoint.host, config, blocks, ports)
    }

    /// Starts an application; returns where it listens.
    fn launch_application(
        &mut self,
        protocol: Protocol,
        endpoint: &Endpoint,
        ports: &mut Ports,
    ) -> Result<String, RunError> {
        let host = node(&endpoint.host)?;
        let port = ports.next(&endpoint.host, APPLICATION_PORT);
        let address = format!("127.0.0.1:{port}");
        let mut plan = match &endpoint.application {
            Application::BuiltIn(flags) => {
                let serve = serve_flags(protocol, &address);
                self.plan(&host, serve.into_iter().chain(flags.iter().cloned()), None)
            }
            Application::Command(command) => Plan {
                host,
                command: command.iter().map(OsString::from).collect(),
                environment: Vec::new(),
                admin: None,
            },
        };
        plan.environment
            .push(("PORT".into(), port.to_string().into()));
        self.fleet.launch(&format!("{}.app", endpoint.name), plan)?;
        Ok(address)
    }

    fn launch_sidecar(
        &mut self,
        name: &str,
        host: &str,
        config: &str,
        mut settings: Value,
        ports: &mut Ports,
    ) -> Result<(), RunError> {
        let admin = ports.next(host, ADMIN_PORT);
        settings["join"] = json!({ "token_file": self.path(&format!("{name}.token")) });
        settings["config"] = json!({ "addresses": [config] });
        settings["state_dir"] = json!(self.path(&format!("{name}.state")));
        settings["workers"] = json!(self.scenario.workers);
        settings["admin"] = json!({ "listen": format!("127.0.0.1:{admin}") });
        settings["transport"] = json!(self.transport(name)?);
        let file = self.path(&format!("{name}.yaml"));
        // JSON is YAML.
        write_file(&file, settings.to_string().as_bytes())?;
        let run = ["proxy", "run", "--config", &text(&file)].map(str::to_owned);
        let plan = self.plan(&node(host)?, run, Some(admin));
        self.fleet.launch(name, plan)
    }

    /// The transport's settings of a sidecar.
    fn transport(&self, name: &str) -> Result<TransportSettings, RunError> {
        let mut settings = self.scenario.transport.clone();
        if self.qlog {
            let directory = self.path(&keep::qlog_directory(name));
            std::fs::create_dir_all(&directory).map_err(|source| RunError::System {
                what: format!("make {}", directory.display()),
                source,
            })?;
            settings.qlog_dir.get_or_insert(directory);
        }
        Ok(settings)
    }

    fn plan(
        &self,
        host: &NodeName,
        arguments: impl IntoIterator<Item = String>,
        admin: Option<u16>,
    ) -> Plan {
        let arguments = arguments.into_iter().map(OsString::from);
        Plan {
            host: host.clone(),
            command: std::iter::once(self.weft.into()).chain(arguments).collect(),
            environment: self.environment(),
            admin,
        }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("WEFT_HOME".into(), self.path("operator").into()),
            ("WEFT_LOG".into(), "info".into()),
        ]
    }

    /// Runs `weft ARGUMENTS` to its end.
    fn weft(&mut self, host: &NodeName, arguments: &[&str]) -> Result<String, RunError> {
        self.try_weft(host, arguments)?
            .map_err(|said| RunError::Step {
                what: format!("weft {}", arguments.join(" ")),
                said,
            })
    }

    /// The same until it succeeds: a process that it needs may still be starting.
    fn retry(&mut self, host: &NodeName, arguments: &[&str]) -> Result<String, RunError> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            match self.try_weft(host, arguments)? {
                Ok(said) => return Ok(said),
                Err(said) if Instant::now() >= deadline => {
                    let what = format!("weft {}", arguments.join(" "));
                    return Err(RunError::Step { what, said });
                }
                Err(_) => self.stop.sleep(GLANCE)?,
            }
        }
    }

    fn try_weft(
        &mut self,
        host: &NodeName,
        arguments: &[&str],
    ) -> Result<Result<String, String>, RunError> {
        let arguments = arguments.iter().map(OsString::from);
        let command = std::iter::once(self.weft.into()).chain(arguments).collect();
        let environment = self.environment();
        self.fleet.errand(host, command, environment, self.stop)
    }

    /// Waits for `happened`; fails early when a process ends.
    fn until(&mut self, what: &str, happened: impl Fn(&Fleet<'_>) -> bool) -> Result<(), RunError> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while !happened(self.fleet) {
            if let Some((name, said)) = self.fleet.ended().into_iter().next() {
                return Err(RunError::Step {
                    what: format!("wait for {what}, because {name}"),
                    said,
                });
            }
            if Instant::now() >= deadline {
                let who = what.split(' ').next().unwrap_or_default();
                return Err(RunError::Step {
                    what: format!("wait for {what}"),
                    said: self.fleet.said(who),
                });
            }
            self.stop.sleep(GLANCE)?;
        }
        Ok(())
    }

    pub(super) fn address(&self, host: &NodeName) -> Result<Ipv4Addr, RunError> {
        self.fleet
            .lab()
            .address(host)
            .ok_or_else(|| RunError::Step {
                what: format!("find the address of {host}"),
                said: "the lab does not know it".to_owned(),
            })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.directory().join(name)
    }
}

/// `weft load serve` for a protocol; its other flags come from the scenario.
fn serve_flags(protocol: Protocol, listen: &str) -> Vec<String> {
    let flag = match protocol {
        Protocol::Http | Protocol::Grpc => "--http",
        Protocol::Tcp => "--tcp",
    };
    ["load", "serve", flag, listen].map(str::to_owned).to_vec()
}

fn with_sidecars(scenario: &Scenario) -> impl Iterator<Item = &Service> {
    let services = scenario.services.iter();
    services.filter(|service| service.beside.is_none())
}

fn called<'s>(scenario: &'s Scenario, caller: &'s Caller) -> impl Iterator<Item = &'s Service> {
    let services = scenario.services.iter();
    services.filter(|service| caller.calls.contains(&service.name))
}

/// How many endpoints of a service a sidecar knows.
fn endpoints(fleet: &Fleet<'_>, sidecar: &str, service: &str) -> Option<usize> {
    let answer = fleet.ask(sidecar, "/config_dump")?;
    let dump: Value = serde_json::from_str(&answer.body).ok()?;
    let pointer = format!("/table/services/{service}.{NAMESPACE}/ports/{SERVICE_PORT}/endpoints");
    Some(dump.pointer(&pointer)?.as_array()?.len())
}

/// A host's name, which the scenario's check let pass.
pub(super) fn node(name: &str) -> Result<NodeName, RunError> {
    NodeName::new(name).map_err(|error| RunError::Step {
        what: format!("find host {name}"),
        said: error.to_string(),
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    std::fs::write(path, bytes).map_err(|source| RunError::System {
        what: format!("write {}", path.display()),
        source,
    })
}
