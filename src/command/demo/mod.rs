//! `weft demo`: the whole mesh on this machine, as real processes, without any preparation.
//!
//! `perform` has the steps in order. `src/children.rs` owns the processes, `services.rs` the applications,
//! `wiretap.rs` the eavesdropper, `traffic.rs` the callers, `report.rs` the texts. Everything is in one
//! temporary directory that is removed at the end.

mod report;
mod services;
mod traffic;
mod wiretap;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;

use crate::admin_client::{self, Target};
use crate::children::Children;
use crate::failure::{Code, Failure};
use crate::output::{note, text_out};
use crate::process::Signals;
use report::Outcome;
use services::Application;
use traffic::{Client, converse};
use wiretap::Wiretap;

/// Runs a whole mesh on this machine and shows what it does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft demo           about ten seconds, no root, nothing left behind\n  \
    weft demo --hold    keep it running and say what to try; Ctrl-C ends it")]
pub struct Demo {
    /// Keep the mesh running after the report
    #[arg(long)]
    hold: bool,
}

/// The resources that are applied.
const MESH: &str = include_str!("mesh.yaml");
/// A text that must not be readable on the wire (a card number of test suites).
const SECRET: &str = "4929-4212-0000-7331";
/// The first bytes of the TCP application.
const GREETING: &str = "ledger ready\n";
/// Requests over the split: enough that a share of 10 % shows.
const REQUESTS: usize = 200;
/// Requests behind each median.
const LATENCY_SAMPLES: usize = 300;
/// How long a step of the bring-up may take, on a busy machine too.
const STEP: Duration = Duration::from_secs(30);
/// How often a step is checked.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs `weft demo`.
pub fn run(args: &Demo) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("weft-demo-")
        .tempdir()
        .map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot make a temporary directory: {error}"),
            )
        })?;
    let result = crate::process::runtime()?.block_on(run_in(args, directory.path()));
    // Before the exit code is decided, so that Ctrl-C leaves no process either.
    if let Err(error) = directory.close() {
        note(format_args!(
            "weft: the temporary directory remains: {error}"
        ));
    }
    result
}

async fn run_in(args: &Demo, directory: &Path) -> Result<(), Failure> {
    let mut signals = Signals::take_with_hangup()?;
    let mut children = Children::new(directory)?;
    let result = tokio::select! {
        result = perform(args, directory, &mut children) => result,
        _ = signals.next() => Err(Failure::silent(Code::Interrupted)),
    };
    let result = match result {
        Ok(Some(mesh)) => {
            let interrupted = signals.next().await;
            drop(mesh);
            match interrupted {
                true => Err(Failure::silent(Code::Interrupted)),
                false => Ok(()),
            }
        }
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    children.end().await;
    result
}

/// The values that must live as long as the demo.
struct Mesh {
    orders: [Application; 2],
    /// Kept so that it goes on serving.
    _ledger: Application,
    wiretaps: Vec<Wiretap>,
    ports: Ports,
}

/// The addresses that are fixed before the processes start.
struct Ports {
    ca: SocketAddr,
    config: SocketAddr,
    frontend_admin: SocketAddr,
    orders: SocketAddr,
    ledger: SocketAddr,
    by_host: SocketAddr,
}

/// The demo from start to report; the mesh is handed back if it is to be held.
async fn perform(
    args: &Demo,
    directory: &Path,
    children: &mut Children,
) -> Result<Option<Mesh>, Failure> {
    let start = now();
    let mesh = bring_up(directory, children).await?;
    let bring_up = start.elapsed();
    note("sending traffic");
    let outcome = observe(&mesh, bring_up).await.inspect_err(|_| {
        note(format_args!(
            "frontend's log: {}",
            children.log_tail("frontend")
        ));
    })?;
    children.check()?;
    text_out(&outcome.text())?;
    let broken = outcome.broken_promises();
    if !broken.is_empty() {
        return Err(Failure::new(
            Code::Assertion,
            format!("the demo did not show that {}", broken.join(", nor that ")),
        ));
    }
    if !args.hold {
        return Ok(None);
    }
    text_out(&what_to_try(&mesh.ports, directory))?;
    Ok(Some(mesh))
}

async fn bring_up(directory: &Path, children: &mut Children) -> Result<Mesh, Failure> {
    let ports = Ports {
        ca: free_tcp()?,
        config: free_tcp()?,
        frontend_admin: free_tcp()?,
        orders: free_tcp()?,
        ledger: free_tcp()?,
        by_host: free_tcp()?,
    };
    let (ca, config) = (ports.ca.to_string(), ports.config.to_string());
    let orders = [
        services::http("orders-v1", SECRET).await?,
        services::http("orders-v2", SECRET).await?,
    ];
    let ledger = services::echo(GREETING).await?;

    note("making a certificate authority");
    children
        .run(&[
            "ca",
            "init",
            "--dir",
            "ca",
            "--trust-domain",
            "demo.test",
            "--address",
            &ca,
        ])
        .await?;
    token(children, directory, "config", &["--role", "config"]).await?;
    token(
        children,
        directory,
        "operator",
        &["--role", "operator", "demo"],
    )
    .await?;
    for name in ["frontend", "orders-v1", "orders-v2", "ledger"] {
        let identity = format!("ns/shop/sa/{name}");
        token(children, directory, name, &["--identity", &identity]).await?;
    }
    children.start("ca", &["ca", "serve", "--dir", "ca", "--listen", &ca])?;
    listening(children, ports.ca).await?;

    note("starting the config service");
    children.start(
        "config",
        &[
            "config",
            "serve",
            "--dir",
            "config",
            "--listen",
            &config,
            "--join-token-file",
            "config.token",
        ],
    )?;
    listening(children, ports.config).await?;
    children
        .run(&["login", &config, "--join-token-file", "operator.token"])
        .await?;

    note("starting four sidecars");
    let mut wiretaps = Vec::new();
    let mut admins = vec![ports.frontend_admin];
    let served = [
        ("orders-v1", 80, orders[0].address),
        ("orders-v2", 80, orders[1].address),
        ("ledger", 5432, ledger.address),
    ];
    for (name, port, application) in served {
        let listen = free_udp()?;
        let wiretap = Wiretap::start(listen).await?;
        let admin = free_tcp()?;
        let inbound = format!("{name}:{port}={application}");
        let (listen, advertise) = (listen.to_string(), wiretap.address.to_string());
        let flags = [
            "--listen",
            &listen,
            "--advertise",
            &advertise,
            "--inbound",
            &inbound,
        ];
        sidecar(children, name, &config, admin, &flags)?;
        admins.push(admin);
        wiretaps.push(wiretap);
    }
    let to_orders = format!("{}=orders:80", ports.orders);
    let to_ledger = format!("{}=ledger:5432", ports.ledger);
    let by_host = ports.by_host.to_string();
    let flags = [
        "--outbound",
        &to_orders,
        "--outbound",
        &to_ledger,
        "--outbound-by-host",
        &by_host,
    ];
    sidecar(children, "frontend", &config, ports.frontend_admin, &flags)?;

    note("applying routes and policy");
    let path = directory.join("mesh.yaml");
    std::fs::write(&path, MESH).map_err(|error| Failure::io(&path, &error))?;
    children.run(&["apply", "-f", "mesh.yaml"]).await?;
    for admin in admins {
        let at = [Target::Tcp(admin)];
        until(children, &format!("the sidecar with admin {admin} to be ready"), async || {
            matches!(admin_client::get(&at, "/ready").await, Ok(answer) if answer.status.is_success())
        })
        .await?;
    }
    for host in ["orders-v1", "orders-v2"] {
        until(children, &format!("{host} to answer"), async || {
            let Ok(mut client) = Client::connect(ports.by_host, host, SECRET).await else { return false };
            matches!(client.call(Method::GET, "/orders/0").await, Ok(reply) if reply.status.is_success())
        })
        .await?;
    }
    until(children, "ledger to answer", async || {
        converse(ports.ledger, GREETING, "hello")
            .await
            .unwrap_or(false)
    })
    .await?;
    Ok(Mesh {
        orders,
        _ledger: ledger,
        wiretaps,
        ports,
    })
}

/// Writes a join token to `NAME.token`.
async fn token(
    children: &Children,
    directory: &Path,
    name: &str,
    subject: &[&str],
) -> Result<(), Failure> {
    let text = children
        .run(&[&["ca", "token", "--dir", "ca"], subject].concat())
        .await?;
    let path = directory.join(name).with_extension("token");
    std::fs::write(&path, text).map_err(|error| Failure::io(&path, &error))
}

fn sidecar(
    children: &mut Children,
    name: &str,
    config: &str,
    admin: SocketAddr,
    flags: &[&str],
) -> Result<(), Failure> {
    let (token, admin) = (format!("{name}.token"), admin.to_string());
    let state = format!("{name}.state");
    let common = [
        "proxy",
        "run",
        "--join-token-file",
        &token,
        "--state-dir",
        &state,
        "--server",
        config,
        "--admin",
        &admin,
        "--workers",
        "1",
    ];
    children.start(name, &[&common, flags].concat())
}

/// Calls over the mesh and measures.
async fn observe(mesh: &Mesh, bring_up: Duration) -> Result<Outcome, Failure> {
    let served = || -> u64 {
        mesh.orders
            .iter()
            .map(|orders| orders.served.load(Ordering::Relaxed))
            .sum()
    };

    let mut frontend = Client::connect(mesh.ports.orders, "orders", SECRET).await?;
    let (mut answered, mut versions) = (0, [0, 0]);
    for number in 0..REQUESTS {
        let reply = frontend
            .call(Method::GET, &format!("/orders/{number}"))
            .await?;
        answered += usize::from(reply.status.is_success());
        versions[0] += usize::from(reply.body.starts_with("orders-v1"));
        versions[1] += usize::from(reply.body.starts_with("orders-v2"));
    }
    let before = served();
    let denied = frontend.call(Method::DELETE, "/orders/1").await?;
    let denied_seen_by_application = served() - before;
    let ledger_exact = converse(mesh.ports.ledger, GREETING, SECRET).await?;

    let mut through = Client::connect(mesh.ports.by_host, "orders-v1", SECRET).await?;
    let through = through.median("/orders/1", LATENCY_SAMPLES).await?;
    let secrets = mesh
        .orders
        .iter()
        .map(|orders| orders.secrets.load(Ordering::Relaxed));
    let secrets_at_application = secrets.sum();
    let mut direct = Client::connect(mesh.orders[0].address, "orders-v1", SECRET).await?;
    let direct = direct.median("/orders/1", LATENCY_SAMPLES).await?;

    let seen: Vec<_> = mesh.wiretaps.iter().map(Wiretap::seen).collect();
    Ok(Outcome {
        processes: 6,
        bring_up,
        requests: REQUESTS,
        answered,
        first_version: versions[0],
        second_version: versions[1],
        ledger_exact,
        denied_status: denied.status.as_u16(),
        denied_seen_by_application,
        secret: SECRET,
        secrets_at_application,
        wire_datagrams: seen.iter().map(|seen| seen.datagrams).sum(),
        wire_bytes: seen.iter().map(|seen| seen.bytes.len()).sum(),
        wire_secrets: seen.iter().map(|seen| seen.count(SECRET)).sum(),
        latency_samples: LATENCY_SAMPLES,
        direct,
        mesh: through,
    })
}

fn what_to_try(ports: &Ports, directory: &Path) -> String {
    let home = directory.join("operator");
    let (home, directory) = (home.display(), directory.display());
    format!(
        "\nThe mesh keeps running. In another terminal:\n  \
           curl http://{orders}/orders/7              the split, as the frontend sees it\n  \
           curl -X DELETE http://{orders}/orders/7    the forbidden call\n  \
           curl -H 'Host: orders-v2' http://{by_host}/orders/7\n  \
           nc {ledger_ip} {ledger_port}                          TCP over the mesh\n  \
           export WEFT_HOME={home}\n  \
           weft get sidecars                                    who is there\n  \
           weft get revisions                                   who changed what\n  \
           weft diff -f {directory}/mesh.yaml     edit it, then: weft apply -f {directory}/mesh.yaml\n  \
           weft proxy status --admin {admin}\n  \
           curl http://{admin}/metrics\n\
         Ctrl-C ends it and leaves nothing behind.\n",
        orders = ports.orders,
        by_host = ports.by_host,
        ledger_ip = ports.ledger.ip(),
        ledger_port = ports.ledger.port(),
        admin = ports.frontend_admin,
    )
}

async fn listening(children: &mut Children, address: SocketAddr) -> Result<(), Failure> {
    until(children, &format!("{address} to listen"), async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await
}

/// Waits until `done`, as long as every child lives and the step's time lasts.
async fn until(
    children: &mut Children,
    what: &str,
    mut done: impl AsyncFnMut() -> bool,
) -> Result<(), Failure> {
    let start = now();
    while !done().await {
        children.check()?;
        if start.elapsed() > STEP {
            let frontend = children.log_tail("frontend");
            return Err(Failure::new(
                Code::Failed,
                format!(
                    "waited {}s for {what}; frontend's log: {frontend}",
                    STEP.as_secs()
                ),
            ));
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// A port that was free a moment ago.
fn free_tcp() -> Result<SocketAddr, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::new(Code::Failed, format!("no free TCP port: {error}")))
}

fn free_udp() -> Result<SocketAddr, Failure> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .map_err(|error| Failure::new(Code::Failed, format!("no free UDP port: {error}")))
}

/// A stopwatch at the shell.
fn now() -> Instant {
    Instant::now()
}
