//! PostgreSQL and redis behind TCP services, driven by their own benchmarks.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::harness::{
    Mesh, Need, Process, Sidecar, eventually, heavy, need, postgres_programs, program, run, service,
};

fn tunnel(mesh: &Mesh, name: &str, application: SocketAddr) -> (Sidecar, Sidecar) {
    let reference = format!("{name}:{}", application.port());
    mesh.apply(&service(name, application.port(), "tcp"));
    let served = mesh.sidecar(name).serves(&reference, application).start();
    let caller = mesh.sidecar("shop").calls(&reference).start();
    caller.wait_endpoints(&reference, 1);
    (served, caller)
}

#[test]
fn pgbench_runs_through_the_mesh_without_error() {
    if !need(&[Need::Postgres, Need::Program("pgbench")]) {
        return;
    }
    let _heavy = heavy();
    let mesh = Mesh::start();
    let address = SocketAddr::from((mesh.address(), 5432));
    let _postgres = postgres(mesh.folder(), address);
    let (_served, caller) = tunnel(&mesh, "postgres", address);
    let through = caller.listener("postgres:5432");
    let (host, port) = (through.ip().to_string(), through.port().to_string());
    let pgbench = |flags: &[&str]| {
        run(Command::new("pgbench")
            .args(["-h", &host, "-p", &port, "-U", "weft"])
            .args(flags)
            .arg("postgres"))
    };
    let filled = pgbench(&["-i", "-s", "2", "-q"]);
    assert_eq!(filled.code, 0, "{}", filled.stderr);
    for protocol in ["simple", "prepared"] {
        let report = pgbench(&["-c", "8", "-j", "2", "-t", "250", "-M", protocol]).ok();
        assert!(
            report.contains("transactions actually processed: 2000/2000"),
            "{report}"
        );
    }
    // A connection per transaction: each one is a new tunnel.
    let report = pgbench(&["-c", "4", "-t", "50", "-C", "-S"]).ok();
    assert!(
        report.contains("transactions actually processed: 200/200"),
        "{report}"
    );
}

/// A server in `folder`. As root it runs as the package's user, because it refuses to be root.
fn postgres(folder: &Path, address: SocketAddr) -> Process {
    let programs = postgres_programs().unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    let command = |name: &str| {
        let path = programs.join(name);
        if !is_root {
            return Command::new(path);
        }
        // Becomes the server itself, so that a kill reaches it.
        let mut command = program("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(path);
        command
    };
    let data = folder.join("postgres");
    std::fs::create_dir(&data).unwrap();
    if is_root {
        // The mesh's folder is private to root; the server must be able to pass through.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
        run(program("chown").arg("postgres").arg(&data)).ok();
    }
    run(command("initdb")
        .args(["--auth=trust", "--username=weft", "--no-sync", "-D"])
        .arg(&data)
        .current_dir("/"))
    .ok();
    let mut server = command("postgres");
    server
        .arg("-D")
        .arg(&data)
        .args(["-k", "", "-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-c", "fsync=off"])
        .current_dir("/");
    let process = Process::spawn("postgres-server", folder, &mut server);
    eventually("PostgreSQL accepts", || {
        process.log().contains("ready to accept connections")
    });
    process
}

#[test]
fn redis_benchmark_runs_through_the_mesh_without_error() {
    if !need(&[
        Need::Program("redis-server"),
        Need::Program("redis-benchmark"),
    ]) {
        return;
    }
    let _heavy = heavy();
    let mesh = Mesh::start();
    let address = SocketAddr::from((mesh.address(), 6379));
    let mut server = Command::new("redis-server");
    server
        .args(["--bind", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no"])
        .arg("--dir")
        .arg(mesh.folder());
    let _redis = Process::spawn("redis-server", mesh.folder(), &mut server);
    eventually("redis listens", || TcpStream::connect(address).is_ok());
    let (_served, caller) = tunnel(&mesh, "redis", address);
    let through = caller.listener("redis:6379");
    let (host, port) = (through.ip().to_string(), through.port().to_string());
    for flags in [
        &[
            "-n",
            "10000",
            "-c",
            "50",
            "-t",
            "ping,set,get,lpush,lrange_100",
        ][..],
        &["-n", "100000", "-c", "20", "-P", "32", "-t", "set,get"],
        &["-n", "300", "-c", "4", "-d", "1000000", "-t", "set,get"],
    ] {
        let output = run(Command::new("redis-benchmark")
            .args(["-h", &host, "-p", &port, "--csv"])
            .args(flags));
        let lines = output.stdout.lines().filter(|line| line.starts_with('"'));
        // The heading, and one line for each kind of command.
        let commands = flags.last().unwrap().split(',').count();
        assert!(lines.count() > commands, "{output:?}");
        assert_eq!(output.code, 0, "{output:?}");
        assert!(
            !output.stderr.to_lowercase().contains("error"),
            "{output:?}"
        );
    }
}
