//! The pair of weft sidecars, brought up as a user would: a CA, a config service, two sidecars that join by
//! tokens, one Allow policy. All other settings have their defaults.

use std::net::SocketAddr;
use std::path::Path;

use weft_loadtest::compare::Role;
use weft_loadtest::compare::answer::{Answer, Process};

use super::call;
use super::wire::{Wire, free_ports};
use crate::children::{Children, SidecarProgram};
use crate::failure::{Code, Failure};

const MESH: &str = include_str!("mesh.yaml");
const TRUST_DOMAIN: &str = "compare.test";

/// Sidecar `weft-caller` beside the generator and `weft-server`, with the control plane, beside the server.
pub struct WeftPair {
    caller: Children,
    server: Children,
    program: SidecarProgram,
    workers: String,
    config: String,
    application: SocketAddr,
    outbound: [SocketAddr; 2],
    admin: [SocketAddr; 2],
    mesh: SocketAddr,
}

impl WeftPair {
    /// Starts the control plane; the sidecars' services lead to `application`.
    pub async fn new(
        wire: &Wire,
        directory: &Path,
        workers: usize,
        application: SocketAddr,
    ) -> Result<Self, Failure> {
        let [http, tcp, first, second, mesh, ca, config] = free_ports()?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let remote = |port| SocketAddr::new(wire.server, port);
        let mut pair = Self {
            caller: Children::new(directory)?,
            server: Children::behind(wire.to_server(), directory)?,
            program: SidecarProgram::find().await,
            workers: workers.to_string(),
            config: remote(config).to_string(),
            application,
            outbound: [local(http), local(tcp)],
            admin: [local(first), local(second)],
            mesh: remote(mesh),
        };
        match pair.start_control_plane(directory, remote(ca)).await {
            Ok(()) => Ok(pair),
            Err(failure) => {
                pair.end().await;
                Err(failure)
            }
        }
    }

    /// Starts the sidecars.
    pub async fn start(&mut self) -> Result<Answer, Failure> {
        let [http, tcp] = self.outbound;
        let to_http = format!("{http}=web:80");
        let to_tcp = format!("{tcp}=web-tcp:80");
        let flags = ["--outbound", &to_http, "--outbound", &to_tcp];
        let arguments = self.sidecar("weft-caller", self.admin[0]);
        start(
            &mut self.caller,
            &self.program,
            "weft-caller",
            &arguments,
            &flags,
        )?;
        let (mesh, application) = (self.mesh.to_string(), self.application);
        let from_http = format!("web:80={application}");
        let from_tcp = format!("web-tcp:80={application}");
        let flags = [
            "--listen",
            &mesh,
            "--inbound",
            &from_http,
            "--inbound",
            &from_tcp,
        ];
        let arguments = self.sidecar("weft-server", self.admin[1]);
        start(
            &mut self.server,
            &self.program,
            "weft-server",
            &arguments,
            &flags,
        )?;
        for address in self.outbound {
            let answered = call::until_answered(address, || self.check()).await;
            answered.map_err(|failure| self.explain(failure))?;
        }
        let process = |role, children: &Children, name: &str| {
            let pid = children.id(name);
            let pid = pid.ok_or_else(|| Failure::new(Code::Failed, format!("{name} has ended")))?;
            Ok::<_, Failure>(Process { role, pid })
        };
        Ok(Answer {
            version: format!("{} {}", self.program.name(), env!("CARGO_PKG_VERSION")),
            http: Some(http),
            tcp: Some(tcp),
            processes: vec![
                process(Role::Caller, &self.caller, "weft-caller")?,
                process(Role::Server, &self.server, "weft-server")?,
            ],
        })
    }

    /// Ends the sidecars; they can be started again.
    pub async fn stop(&mut self) {
        self.caller.stop("weft-caller").await;
        self.server.stop("weft-server").await;
    }

    /// Ends all processes of the pair.
    pub async fn end(self) {
        self.caller.end().await;
        self.server.end().await;
    }

    async fn start_control_plane(
        &mut self,
        directory: &Path,
        ca: SocketAddr,
    ) -> Result<(), Failure> {
        let ca = ca.to_string();
        let config = self.config.clone();
        let domain = ["--trust-domain", TRUST_DOMAIN, "--address", &ca];
        let init = ["ca", "init", "--dir", "ca"];
        self.server.run(&[&init[..], &domain].concat()).await?;
        for (name, whose) in [
            (
                "weft-caller",
                ["--identity", "ns/compare/sa/client"].as_slice(),
            ),
            ("weft-server", &["--identity", "ns/compare/sa/web"]),
            ("config", &["--role", "config"]),
            ("operator", &["--role", "operator", "compare"]),
        ] {
            let token = ["ca", "token", "--dir", "ca"];
            let token = self.server.run(&[&token[..], whose].concat()).await?;
            write(&directory.join(name).with_extension("token"), &token)?;
        }
        let serve = ["ca", "serve", "--dir", "ca", "--listen", &ca];
        self.server.start("ca", &serve)?;
        self.listening(&ca).await?;
        let serve = ["config", "serve", "--dir", "config", "--listen", &config];
        let joined = ["--join-token-file", "config.token"];
        self.server
            .start("config", &[&serve[..], &joined].concat())?;
        self.listening(&config).await?;
        let login = ["login", &config, "--join-token-file", "operator.token"];
        self.server.run(&login).await?;
        write(&directory.join("mesh.yaml"), MESH)?;
        self.server.run(&["apply", "-f", "mesh.yaml"]).await?;
        Ok(())
    }

    async fn listening(&mut self, address: &str) -> Result<(), Failure> {
        let server = &mut self.server;
        call::until(&format!("{address} to listen"), async || {
            server.check()?;
            Ok(tokio::net::TcpStream::connect(address).await.is_ok())
        })
        .await
    }

    fn sidecar(&self, name: &str, admin: SocketAddr) -> Vec<String> {
        let (token, state) = (format!("{name}.token"), format!("{name}.state"));
        let admin = admin.to_string();
        let words = [
            "--join-token-file",
            &token,
            "--state-dir",
            &state,
            "--server",
            &self.config,
            "--admin",
            &admin,
            "--workers",
            &self.workers,
        ];
        words.map(str::to_owned).to_vec()
    }

    /// Fails if one of its processes has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.caller.check()?;
        self.server.check()
    }

    fn explain(&self, failure: Failure) -> Failure {
        let (caller, server) = (&self.caller, &self.server);
        let said = [
            caller.log_tail("weft-caller"),
            server.log_tail("weft-server"),
        ]
        .join(" || ");
        Failure {
            line: format!("weft: {}: {said}", failure.line),
            ..failure
        }
    }
}

fn start(
    children: &mut Children,
    program: &SidecarProgram,
    name: &str,
    arguments: &[String],
    flags: &[&str],
) -> Result<(), Failure> {
    let arguments = arguments.iter().map(String::as_str);
    let all: Vec<&str> = arguments.chain(flags.iter().copied()).collect();
    children.start_sidecar(program, name, &all)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::io(path, &error))
}
