//! nginx behind a sidecar, curl and wrk in front: the first setup of most users.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::harness::{Mesh, Need, Process, Shop, eventually, heavy, need, run};

const NGINX: &[Need] = &[
    Need::Program("nginx"),
    Need::Program("curl"),
    Need::Program("wrk"),
];

/// Sizes around the limits of buffers, packets and windows, up to more than any window holds.
const SIZES: [usize; 9] = [
    0,
    1,
    1199,
    65_535,
    65_536,
    65_537,
    1 << 20,
    17_000_001,
    256 << 20,
];

struct Site {
    shop: Shop,
    nginx: Nginx,
}

/// One nginx (one process, so that it ends when it is killed) with its own folder; files can be
/// read and put.
struct Nginx {
    _process: Process,
    address: SocketAddr,
    root: PathBuf,
}

impl Nginx {
    fn start(mesh: &Mesh) -> Self {
        let folder = mesh.folder().join("nginx");
        let root = folder.join("root");
        std::fs::create_dir_all(&root).unwrap();
        let address = SocketAddr::from((mesh.address(), 8080));
        let shown = folder.display();
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let configuration = format!(
            "daemon off; master_process off; {user} pid {shown}/pid; error_log stderr warn;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; client_max_body_size 0; keepalive_requests 1000000;
               client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;
               fastcgi_temp_path {shown}/fastcgi; uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi;
               server {{ listen {address}; root {shown}/root;
                 location / {{ dav_methods PUT; }} }}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let mut command = crate::harness::program("nginx");
        command
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .args(["-e", "stderr"]);
        let process = Process::spawn("nginx", &folder, &mut command);
        eventually("nginx listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            _process: process,
            address,
            root,
        }
    }
}

fn site() -> Site {
    let mesh = Mesh::start();
    let nginx = Nginx::start(&mesh);
    let shop = Shop::start(mesh, nginx.address);
    Site { shop, nginx }
}

#[test]
fn ten_thousand_requests_on_64_connections_have_no_error() {
    if !need(NGINX) {
        return;
    }
    let _heavy = heavy();
    let site = site();
    std::fs::write(site.nginx.root.join("small"), "s".repeat(512)).unwrap();
    let url = format!("http://{}/small", site.shop.address);
    let mut requests = 0;
    while requests < 10_000 {
        let output =
            run(Command::new("wrk").args(["-t1", "-c64", "-d3s", "--timeout", "10s", &url])).ok();
        assert!(
            !output.contains("Socket errors") && !output.contains("Non-2xx"),
            "{output}"
        );
        let line = output.lines().find(|line| line.contains("requests in"));
        let count = line.and_then(|line| line.split_whitespace().next());
        let count: usize = count.unwrap().parse().unwrap();
        assert!(count > 0, "{output}");
        requests += count;
    }
}

#[test]
fn bodies_of_any_size_arrive_byte_exact_both_ways() {
    if !need(NGINX) {
        return;
    }
    let _heavy = heavy();
    let site = site();
    let base = format!("http://{}", site.shop.address);
    let sent = site.shop.mesh.folder().join("sent");
    let got = site.shop.mesh.folder().join("got");
    for (index, size) in SIZES.into_iter().enumerate() {
        let hash = write_pattern(&sent, size);
        // A length that is told first, one that is not, and both over HTTP/2.
        for (variant, flags) in [
            ("length", &[][..]),
            ("chunked", &["-H", "Transfer-Encoding: chunked"]),
            ("h2", &["--http2-prior-knowledge"]),
        ] {
            // curl itself never ends an empty chunked upload; a large one would show nothing new.
            if variant == "chunked" && (size == 0 || size > 100 << 20) {
                continue;
            }
            let name = format!("{variant}-{index}");
            curl(
                &["-T", sent.to_str().unwrap(), &format!("{base}/{name}")],
                flags,
            );
            let stored = site.nginx.root.join(&name);
            assert_eq!(hash_file(&stored), hash, "PUT of {size} B, {variant}");
            let flags = if variant == "h2" { flags } else { &[] };
            curl(
                &["-o", got.to_str().unwrap(), &format!("{base}/{name}")],
                flags,
            );
            assert_eq!(hash_file(&got), hash, "GET of {size} B, {variant}");
            std::fs::remove_file(&stored).unwrap();
            let _ = std::fs::remove_file(&got);
        }
    }
}

#[test]
fn sixty_four_clients_at_once_get_byte_exact_bodies() {
    if !need(NGINX) {
        return;
    }
    let _heavy = heavy();
    let site = site();
    let hash = write_pattern(&site.nginx.root.join("file"), 2_000_003);
    let url = format!("http://{}/file", site.shop.address);
    let folder = site.shop.mesh.folder();
    let mut clients: Vec<_> = (0..64)
        .map(|n| {
            let mut curl = Command::new("curl");
            curl.args(["-sSf", "--max-time", "60", "-o"])
                .arg(folder.join(format!("got-{n}")))
                .arg(&url);
            Process::spawn(&format!("curl-{n}"), folder, &mut curl)
        })
        .collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.wait_exit(Duration::from_secs(60)).success());
        assert_eq!(hash_file(&folder.join(format!("got-{n}"))), hash);
    }
}

#[test]
fn ranges_conditions_and_head_pass_as_nginx_means_them() {
    if !need(NGINX) {
        return;
    }
    let site = site();
    std::fs::write(site.nginx.root.join("digits"), "0123456789").unwrap();
    let url = format!("http://{}/digits", site.shop.address);
    let shown = |flags: &[&str]| {
        let format = "%{http_code} %{size_download}";
        run(Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", format, "--max-time", "10"])
            .args(flags)
            .arg(&url))
        .ok()
    };
    assert_eq!(shown(&["-r", "2-4"]), "206 3");
    assert_eq!(shown(&["-I"]), "200 0");
    assert_eq!(shown(&["-H", "If-None-Match: *"]), "304 0");
    assert_eq!(
        shown(&["-H", "Expect: 100-continue", "-X", "POST", "-d", "x"]).get(..3),
        Some("405")
    );
}

/// curl that fails on any status but 2xx.
#[track_caller]
fn curl(arguments: &[&str], flags: &[&str]) {
    let output = run(Command::new("curl")
        .args(["-sSf", "--max-time", "120"])
        .args(flags)
        .args(arguments));
    assert_eq!(
        output.code, 0,
        "curl {flags:?} {arguments:?}: {}",
        output.stderr
    );
}

/// Writes `size` bytes that repeat nowhere within a megabyte, and gives their hash.
fn write_pattern(path: &Path, size: usize) -> String {
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut block: Vec<u8> = (0..1u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut written = 0;
    while written < size {
        // Each block differs, so that a swapped or repeated one shows.
        block[..8].copy_from_slice(&(written as u64).to_be_bytes());
        let length = block.len().min(size - written);
        file.write_all(&block[..length]).unwrap();
        written += length;
    }
    file.flush().unwrap();
    hash_file(path)
}

fn hash_file(path: &Path) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    context
        .finish()
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}
