//! Real servers in both versions behind a sidecar, each with its own reading of where a message ends: nginx,
//! lighttpd with a CGI program, and hypercorn, whose HTTP/2 is Python's. `framing.rs` records exactly what an
//! application receives.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Client, Content, Mesh, Need, Process, Shop, SidecarPlan, Version, eventually, need, program,
    python_command,
};

const VERSIONS: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

const CONTENTS: [Content; 6] = [
    Content::None,
    Content::Sized(""),
    Content::Sized("abc"),
    Content::Streamed(&[]),
    Content::Streamed(&["ab", "c"]),
    Content::Trailed(&["abc"], ("x-sum", "294")),
];

/// The protocol of the port, by which a sidecar uses HTTP/1.1 or HTTP/2.
const PROTOCOLS: [&str; 2] = ["http", "grpc"];

/// A server in a folder of its own.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(
        name: &str,
        mesh: &Mesh,
        configure: impl FnOnce(&Path, SocketAddr) -> Command,
    ) -> Self {
        let folder = mesh.folder().join(name);
        std::fs::create_dir_all(folder.join("root")).unwrap();
        let address = SocketAddr::from((mesh.address(), 8080));
        let mut command = configure(&folder, address);
        let mut process = Process::spawn(name, &folder, &mut command);
        eventually(&format!("{name} listens"), || {
            assert!(process.is_running(), "{}", process.log());
            std::net::TcpStream::connect(address).is_ok()
        });
        Self { process, address }
    }
}

fn nginx(mesh: &Mesh, protocol: &str) -> Server {
    let spoken = if protocol == "grpc" { "http2" } else { "" };
    Server::start("nginx", mesh, |folder, address| {
        let shown = folder.display();
        std::fs::write(
            folder.join("root/page.shtml"),
            "ab<!--# echo var=\"c\" default=\"c\" -->",
        )
        .unwrap();
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let text = format!(
            "daemon off; master_process off; {user} pid {shown}/pid; error_log stderr warn;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; keepalive_requests 1000000;
               client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;
               fastcgi_temp_path {shown}/fastcgi; uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi;
               server {{ listen {address} {spoken}; root {shown}/root;
                 location = /seen {{ return 200 \"$request_method $content_length\"; }}
                 location = /empty {{ return 204; }}
                 location = /not-modified {{ return 304; }}
                 location = /page.shtml {{ ssi on; ssi_types *; }}
                 location /stored/ {{ dav_methods PUT DELETE; create_full_put_path on; }} }}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = program("nginx");
        command.arg("-p").arg(folder);
        command.arg("-c").arg(folder.join("nginx.conf"));
        command.args(["-e", "stderr"]);
        command
    })
}

fn lighttpd(mesh: &Mesh) -> Server {
    Server::start("lighttpd", mesh, |folder, address| {
        // HTTP/1.1 has to encode the output of a CGI program.
        let script = "#!/bin/sh\nbody=$(head -c \"${CONTENT_LENGTH:-0}\")\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s %s' \"$REQUEST_METHOD\" \"$body\"\n";
        std::fs::write(folder.join("root/echo.sh"), script).unwrap();
        let text = format!(
            "server.document-root = \"{0}/root\"\nserver.bind = \"{1}\"\nserver.port = {2}\nserver.modules = ( \"mod_cgi\" )\ncgi.assign = ( \".sh\" => \"/bin/sh\" )\nserver.upload-dirs = ( \"{0}\" )\nserver.stream-response-body = 1\nserver.http-parseopts = ( \"method-get-body\" => \"enable\" )\n",
            folder.display(),
            address.ip(),
            address.port()
        );
        let configuration: PathBuf = folder.join("lighttpd.conf");
        std::fs::write(&configuration, text).unwrap();
        let mut command = program("lighttpd");
        command.arg("-D").arg("-f").arg(configuration);
        command
    })
}

fn hypercorn(mesh: &Mesh) -> Server {
    Server::start("hypercorn", mesh, |_, address| {
        let mut command = python_command("asgi_application.py");
        command.arg(address.to_string());
        command
    })
}

fn shop(mesh: Mesh, protocol: &str, server: &Server) -> Shop {
    let one_worker = |shop: SidecarPlan| shop.setting("workers: 1");
    Shop::planned(mesh, protocol, server.address, |plan| plan, one_worker)
}

/// Calls `judge` with a client of each version, and each content that it can send.
fn for_all(shop: &Shop, mut judge: impl FnMut(&mut Client, Version, Content)) {
    for version in VERSIONS {
        let mut client = Client::open(version, shop.address);
        for content in CONTENTS {
            if content.is_of(version) {
                judge(&mut client, version, content);
            }
        }
    }
}

#[test]
fn nginx_reads_every_request_to_its_end_in_both_versions() {
    if !need(&[Need::Program("nginx")]) {
        return;
    }
    for protocol in PROTOCOLS {
        let mesh = Mesh::start();
        let nginx = nginx(&mesh, protocol);
        let shop = shop(mesh, protocol, &nginx);
        let mut stored = 0;
        for_all(&shop, |client, version, content| {
            let what = format!("{protocol}, {version:?}, {content:?}");
            // nginx ends a connection of HTTP/2 on which trailers of a request come.
            if protocol == "grpc" && matches!(content, Content::Trailed(..)) {
                return;
            }
            for method in ["GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"] {
                for (path, status) in [("/seen", 200), ("/empty", 204), ("/not-modified", 304)] {
                    let reply = client.ask(method, path, &[], content);
                    let reply = reply.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(reply.status, status, "{method} {path}, {what}: {reply:?}");
                    if status != 200 || method == "HEAD" {
                        assert_eq!(reply.body, "", "{what}: {reply:?}");
                    } else {
                        let begins = reply.body.starts_with(&format!("{method} "));
                        assert!(begins, "{what}: {reply:?}");
                    }
                }
            }
            // The body arrived as it was sent.
            stored += 1;
            let path = format!("/stored/{stored}");
            let reply = client.ask("PUT", &path, &[], content).unwrap();
            assert_eq!(reply.status, 201, "{what}: {reply:?}");
            let reply = client.ask("GET", &path, &[], Content::None).unwrap();
            assert_eq!((reply.status, reply.body), (200, content.text()), "{what}");
            let reply = client
                .ask("GET", "/page.shtml", &[], Content::None)
                .unwrap();
            assert_eq!((reply.status, &*reply.body), (200, "abc"), "{what}");
        });
    }
}

#[test]
fn lighttpd_hands_every_request_whole_to_its_program_in_both_versions() {
    if !need(&[Need::Program("lighttpd")]) {
        return;
    }
    for protocol in PROTOCOLS {
        let mesh = Mesh::start();
        let lighttpd = lighttpd(&mesh);
        let shop = shop(mesh, protocol, &lighttpd);
        for_all(&shop, |client, version, content| {
            let what = format!("{protocol}, {version:?}, {content:?}");
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let reply = client.ask(method, "/echo.sh", &[], content);
                let reply = reply.unwrap_or_else(|error| {
                    panic!("{method}, {what}: {error}\n{}", lighttpd.process.log())
                });
                // Over HTTP/2 it needs to know the length of a POST in advance.
                let is_told = matches!(content, Content::None | Content::Sized(_));
                if (protocol, method, is_told, reply.status) == ("grpc", "POST", false, 411) {
                    continue;
                }
                assert_eq!(reply.status, 200, "{method}, {what}: {reply:?}");
                let body = match method {
                    "HEAD" => String::new(),
                    _ => format!("{method} {}", content.text()),
                };
                assert_eq!(reply.body, body, "{what}");
            }
        });
    }
}

#[test]
fn hypercorn_reads_every_request_to_its_end_in_both_versions() {
    if !need(&[Need::Python]) {
        return;
    }
    for protocol in PROTOCOLS {
        let mesh = Mesh::start();
        let hypercorn = hypercorn(&mesh);
        let shop = shop(mesh, protocol, &hypercorn);
        for_all(&shop, |client, version, content| {
            let what = format!("{protocol}, {version:?}, {content:?}");
            for method in [
                "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW",
            ] {
                for path in ["/sized", "/streamed", "/no-content"] {
                    let reply = client.ask(method, path, &[], content);
                    let reply = reply.unwrap_or_else(|error| {
                        panic!(
                            "{method} {path}, {what}: {error}\n{}",
                            hypercorn.process.log()
                        )
                    });
                    let (status, body) = match (method, path) {
                        (_, "/no-content") => (204, String::new()),
                        ("HEAD", _) => (200, String::new()),
                        _ => (200, format!("{method} {}", content.text())),
                    };
                    assert_eq!(
                        (reply.status, &reply.body),
                        (status, &body),
                        "{path}, {what}"
                    );
                }
            }
        });
    }
}
