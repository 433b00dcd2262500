//! A sidecar is replaced while it works: a successor takes its sockets, and no request notices.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::Duration;

use crate::harness::{
    Load, Mesh, Need, OpenLoad, Origin, Process, Sidecar, eventually, expect_echo, get, need,
    pause, program, run, service,
};

/// Of the settings, in the folder of the sidecar.
const SOCKET: &str = "takeover_socket: takeover.sock";

/// Longer than any drain.
const END: Duration = Duration::from_secs(40);

/// `/slow` takes three seconds, everything else nothing.
fn origin(mesh: &Mesh) -> Origin {
    Origin::http(mesh.address(), |request, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")?;
        if request.path() == "/slow" {
            pause(Duration::from_secs(3));
        }
        out.write_all(b"done")?;
        Ok(true)
    })
}

/// Echoes what it reads, to the end.
fn echo(mesh: &Mesh) -> Origin {
    Origin::raw(mesh.address(), |mut tap| {
        let mut writer = tap.try_clone()?;
        std::io::copy(&mut tap, &mut writer)?;
        writer.stream.shutdown(Shutdown::Write)
    })
}

fn load(mesh: &Mesh, address: SocketAddr, seconds: u32, flags: &[&str]) -> OpenLoad {
    OpenLoad::start(mesh.weft_command(&["load"]), address, 200, seconds, flags)
}

#[test]
fn the_only_instance_of_a_service_is_replaced_three_times_under_load_without_a_failure() {
    let mesh = Mesh::start();
    let (http, tcp) = (origin(&mesh), echo(&mesh));
    mesh.apply(&(service("orders", 80, "http") + &service("store", 7000, "tcp")));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .setting(SOCKET)
        .start();
    let mut store = mesh
        .sidecar("store")
        .serves("store:7000", tcp.address)
        .setting(SOCKET)
        .start();
    let shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .calls("store:7000")
        .start();
    shop.wait_endpoints("orders:80", 1);
    shop.wait_endpoints("store:7000", 1);
    let address = shop.listener("orders:80");
    let kept = Load::start(address, "/", 4, Duration::from_millis(20));
    let at_rate = load(&mesh, address, 14, &[]);
    let mut tunnel = TcpStream::connect(shop.listener("store:7000")).unwrap();
    expect_echo(&mut tunnel, b"before");

    let is_slow = |origin: &Origin| {
        let requests = origin.requests();
        requests
            .iter()
            .filter(|seen| seen.path() == "/slow")
            .count()
    };
    let slow = thread::spawn(move || get(address, "/slow"));
    eventually("the slow request is running", || is_slow(&http) == 1);
    let mut old = vec![orders.take_over(), store.take_over()];
    // The earlier processes still drain.
    old.push(orders.take_over());
    old.push(orders.take_over());
    assert_eq!(slow.join().unwrap().unwrap().text(), "halfdone");
    for _ in 0..50 {
        expect_echo(&mut tunnel, &[7; 20_000]);
    }
    tunnel.shutdown(Shutdown::Write).unwrap();
    assert_eq!(tunnel.read(&mut [0; 16]).unwrap(), 0);
    for process in &mut old {
        let status = process.wait_exit(END);
        assert!(status.success(), "{status}");
    }
    // The state directory has passed on with the sockets.
    let third = orders.run_again(&["--takeover", "/no/such.sock"]);
    let holder = format!("(process {})", orders.process.pid());
    assert!(third.stderr.contains(&holder), "{}", third.stderr);
    assert!(at_rate.is_running(), "the load ended before the restarts");
    at_rate.expect_all_good();
    kept.finish().expect_all_good(100);
    orders.expect_alive();
    store.expect_alive();
    let sidecars = mesh.get("sidecars");
    let serving = sidecars.as_array().unwrap().iter().filter(|one| {
        let serves = one["serves"].as_object();
        one["connected"] == true && serves.is_some_and(|serves| !serves.is_empty())
    });
    assert_eq!(serving.count(), 2, "{sidecars}");
}

#[test]
fn the_callers_sidecar_is_replaced_under_load_without_a_failure() {
    if !need(&[Need::Program("curl")]) {
        return;
    }
    let mesh = Mesh::start();
    let http = origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let _orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .start();
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .setting(SOCKET)
        .start();
    shop.wait_endpoints("orders:80", 1);
    let address = shop.listener("orders:80");
    let kept = Load::start(address, "/", 4, Duration::from_millis(10));
    let new_connections = load(&mesh, address, 6, &["--no-keep-alive"]);
    let slow = thread::spawn(move || {
        let mut curl = program("curl");
        curl.args(["-s", "--http2-prior-knowledge"]);
        run(curl.arg(format!("http://{address}/slow"))).ok()
    });
    eventually("all run", || {
        let requests = http.requests();
        requests.len() > 200 && requests.iter().any(|seen| seen.path() == "/slow")
    });
    let mut old = [shop.take_over(), shop.take_over()];
    for process in &mut old {
        assert!(process.wait_exit(END).success());
    }
    new_connections.expect_all_good();
    assert_eq!(slow.join().unwrap(), "halfdone", "over HTTP/2");
    kept.finish().expect_all_good(200);
    shop.expect_alive();
}

#[test]
fn a_rolling_restart_of_two_instances_and_their_applications_fails_no_request() {
    let mesh = Mesh::start();
    mesh.apply(&service("orders", 80, "http"));
    let mut applications = [origin(&mesh), origin(&mesh)];
    let folder = mesh.folder().to_owned();
    // An application that is started again has another port; its sidecar knows a name that stays.
    let name = |index: usize| folder.join(format!("application-{index}.sock"));
    let bridge = |index: usize, to: SocketAddr| bridge(&name(index), to);
    let _bridges: Vec<_> = (0..2)
        .map(|index| bridge(index, applications[index].address))
        .collect();
    let mut instances: Vec<Sidecar> = (0..2)
        .map(|index| {
            mesh.sidecar("orders")
                .named(&format!("orders-{index}"))
                .serves("orders:80", format!("unix:{}", name(index).display()))
                .setting(SOCKET)
                .start()
        })
        .collect();
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .setting(SOCKET)
        .start();
    shop.wait_endpoints("orders:80", 2);
    let address = shop.listener("orders:80");
    let kept = Load::start(address, "/", 4, Duration::from_millis(10));
    let new_connections = load(&mesh, address, 20, &["--no-keep-alive"]);
    let serves = |origin: &Origin| {
        let before = origin.requests().len();
        eventually("it serves", || origin.requests().len() > before);
    };
    applications.iter().for_each(serves);

    let mut old = vec![shop.take_over()];
    for (index, instance) in instances.iter_mut().enumerate() {
        // The sidecar alone, then the instance as a whole: drained, application and sidecar anew.
        old.push(instance.take_over());
        serves(&applications[index]);
        instance.terminate();
        assert!(instance.process.wait_exit(END).success());
        applications[index] = origin(&mesh);
        let _ = std::fs::remove_file(name(index));
        bridge(index, applications[index].address);
        instance.restart();
        instance.wait_ready();
        shop.wait_endpoints("orders:80", 2);
        serves(&applications[index]);
    }
    for process in &mut old {
        assert!(process.wait_exit(END).success());
    }
    assert!(new_connections.is_running(), "the load ended too early");
    new_connections.expect_all_good();
    kept.finish().expect_all_good(200);
}

/// Leads a Unix socket to a TCP address, as long as the test runs.
fn bridge(path: &std::path::Path, to: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(other) = TcpStream::connect(to) else {
                continue;
            };
            let _ = other.set_nodelay(true);
            let pair = (stream.try_clone().unwrap(), other.try_clone().unwrap());
            thread::spawn(move || {
                let (mut from, mut into) = (stream, other);
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let (mut into, mut from) = pair;
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
        }
    });
}

#[test]
fn the_service_manager_learns_of_the_new_process_before_the_old_one_ends() {
    let mesh = Mesh::start();
    let path = mesh.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    mesh.apply(&service("orders", 80, "http"));
    let mut shop = mesh
        .sidecar("shop")
        .calls("orders:80")
        .setting(SOCKET)
        .environment("NOTIFY_SOCKET", &path)
        .start();
    let mut old = shop.take_over();
    assert!(old.wait_exit(END).success());
    manager.set_nonblocking(true).unwrap();
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.recv(&mut buffer) {
        heard += &String::from_utf8_lossy(&buffer[..length]);
        heard.push('\n');
    }
    assert!(
        heard.contains(&format!("MAINPID={}", shop.process.pid())),
        "{heard}"
    );
    assert!(!heard.contains("STOPPING"), "{heard}");
}

#[test]
fn what_cannot_take_over_says_why_and_changes_nothing() {
    let mesh = Mesh::start();
    let http = origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .setting(SOCKET)
        .setting("workers: 2")
        .start();
    let log = orders.process.log();
    assert!(log.contains("no sidecar to take over from"), "{log}");
    let shop = mesh.sidecar("shop").calls("orders:80").start();
    shop.wait_endpoints("orders:80", 1);
    let kept = Load::start(
        shop.listener("orders:80"),
        "/",
        2,
        Duration::from_millis(10),
    );

    let refused = orders.run_again(&["--workers", "1"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("set workers: 2"),
        "{}",
        refused.stderr
    );
    let refused = orders.run_again(&["--listen", "127.0.0.1:6999"]);
    assert!(
        refused.stderr.contains("127.0.0.1:6999"),
        "{}",
        refused.stderr
    );
    let refused = orders.run_again(&["--", "true"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let elsewhere = mesh.folder().join("nobody.sock");
    let refused = orders.run_again(&["--takeover", &elsewhere.to_string_lossy()]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("does not wait at") && refused.stderr.contains("nobody.sock"),
        "{}",
        refused.stderr
    );
    // Fails after it was offered the sockets.
    let refused = orders.run_again(&["--admin", &http.address.to_string()]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("cannot listen"),
        "{}",
        refused.stderr
    );

    kept.finish_after(100).expect_all_good(100);
    orders.expect_alive();
}

#[test]
fn another_user_neither_takes_over_nor_is_taken_over() {
    if !need(&[Need::Root, Need::Program("python3")]) {
        return;
    }
    const NOBODY: u32 = 65534;
    let mesh = Mesh::start();
    let http = origin(&mesh);
    mesh.apply(&service("orders", 80, "http"));
    let mut orders = mesh
        .sidecar("orders")
        .serves("orders:80", http.address)
        .setting(SOCKET)
        .start();
    let socket = orders.folder().join("takeover.sock");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&socket) & 0o777, 0o600);

    // A process that got past the mode of the socket is refused by name.
    for (path, mode) in [
        (mesh.folder(), 0o755),
        (&*orders.folder(), 0o755),
        (&*socket, 0o666),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nprint(s.recv(4096))";
    let mut stranger = program("python3");
    stranger.args(["-c", ask]).arg(&socket).uid(NOBODY);
    let heard = run(&mut stranger).ok();
    assert!(heard.contains("user 65534"), "{heard}");
    orders.expect_alive();

    // A socket at which another program answers.
    let open = mesh.folder().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let trap = open.join("trap.sock");
    let listen = "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\ntime.sleep(60)";
    let mut stranger = program("python3");
    stranger.args(["-c", listen]).arg(&trap).uid(NOBODY);
    let _stranger = Process::spawn("stranger", mesh.folder(), &mut stranger);
    eventually("the trap is set", || trap.exists());
    let refused = orders.run_again(&["--takeover", &trap.to_string_lossy()]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("of user 65534"),
        "{}",
        refused.stderr
    );
}
