//! A request that a server refuses without processing it is sent again and does not count as a failure; and
//! the request matches the URL.

use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use weft_transport::external::{Identity, QuicServer, ServerTls, Trust};
use weft_transport::tuning::TransportSettings;
use weft_transport::wire::Reason;

use crate::harness::{Ran, load};

const REQUESTS: u64 = 40;

/// A server in this process. Ended when dropped.
struct Origin {
    address: SocketAddr,
    _runtime: Runtime,
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// As many refusals as one request may have.
const BORNE: u64 = 5;

/// Speaks HTTP/2 and refuses the first streams of each connection.
fn refusing_http2(refused: u64) -> Origin {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = runtime();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                let mut count = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    count += 1;
                    if count <= refused {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let _ = respond.send_response(Response::new(()), true);
                    }
                }
            });
        }
    });
    Origin {
        address,
        _runtime: runtime,
    }
}

/// Speaks HTTP/3 and rejects the first requests of each connection.
fn rejecting_http3() -> Origin {
    let identity = Identity::self_made(vec!["localhost".to_owned()]).unwrap();
    let tls = ServerTls::new(identity, Trust::AnyPeer);
    let tuning = TransportSettings::default().validate().unwrap();
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let runtime = runtime();
    runtime.spawn(async move {
        let server = QuicServer::new(&tls, &tuning, socket).unwrap();
        let mut connections = JoinSet::new();
        while let Some(incoming) = server.accept().await {
            connections.spawn(async move {
                let Ok(mut connection) = incoming.handshake().await else {
                    return;
                };
                let mut count = 0;
                while let Ok(Some(request)) = connection.accept().await {
                    count += 1;
                    if count <= BORNE {
                        request.respond.reset(Reason::Unprocessed);
                    } else {
                        let (mut head, ()) = Response::new(()).into_parts();
                        head.status = StatusCode::NO_CONTENT;
                        let _ = request.respond.head(&head, true).await;
                    }
                }
            });
        }
    });
    Origin {
        address,
        _runtime: runtime,
    }
}

/// Answers the first request of each connection of HTTP/1.1, and closes it when the second has come.
fn closing_at_the_second() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                if head(&mut stream).is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).unwrap();
                    head(&mut stream);
                }
            });
        }
    });
    address
}

/// The head of a request without a body; `None` if the connection ends before.
fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn requests(url: &str, flags: &[&str]) -> Ran {
    let count = REQUESTS.to_string();
    load(&[&[url, "--closed", "-c", "1", "-n", &count], flags].concat())
}

#[track_caller]
fn all_succeed(ran: &Ran) {
    assert_eq!(ran.summary("succeeded"), ran.summary("requests"), "{ran:?}");
    assert_eq!((ran.code, ran.summary("failed")), (0, 0), "{ran:?}");
}

/// As [`all_succeed`], and each refusal was one more attempt.
#[track_caller]
fn all_succeed_after_the_refusals(ran: &Ran) {
    all_succeed(ran);
    assert_eq!(ran.summary("resent"), BORNE, "{ran:?}");
}

#[test]
fn a_stream_that_http2_refuses_is_sent_again_whatever_its_method_is() {
    let origin = refusing_http2(BORNE);
    let url = format!("http://{}/", origin.address);
    let flags = ["--http2", "--streams", "4"];
    all_succeed_after_the_refusals(&requests(&url, &flags));
    let post = ["-m", "POST", "--data", "x"];
    all_succeed_after_the_refusals(&requests(&url, &[&flags[..], &post].concat()));
}

#[test]
fn a_server_that_refuses_every_stream_fails_each_request_after_five_more_times() {
    let origin = refusing_http2(u64::MAX);
    let url = format!("http://{}/", origin.address);
    let ran = requests(&url, &["--http2", "--streams", "4"]);
    assert_eq!(ran.failed("reset"), REQUESTS, "{ran:?}");
    assert_eq!(ran.summary("resent"), 5 * REQUESTS, "{ran:?}");
}

#[test]
fn a_request_that_http3_rejects_is_sent_again() {
    let origin = rejecting_http3();
    let url = format!("https://{}/", origin.address);
    let flags = ["--http3", "--insecure", "--streams", "4"];
    let post = ["-m", "POST", "--data", "x"];
    all_succeed_after_the_refusals(&requests(&url, &[&flags[..], &post].concat()));
}

#[test]
fn a_kept_connection_that_closes_without_an_answer_costs_a_get_nothing_and_a_post_its_answer() {
    let url = format!("http://{}/", closing_at_the_second());
    let ran = requests(&url, &[]);
    assert_eq!(ran.summary("succeeded"), REQUESTS, "{ran:?}");
    assert_eq!(ran.summary("resent"), REQUESTS - 1, "{ran:?}");
    // The server may have processed it.
    let ran = requests(&url, &["-m", "POST", "--data", ""]);
    assert_eq!(ran.failed("closed"), REQUESTS / 2, "{ran:?}");
    assert_eq!(ran.summary("resent"), 0, "{ran:?}");
}

#[test]
fn the_text_says_how_often_requests_were_sent_again() {
    let url = format!("http://{}/", closing_at_the_second());
    let ran = crate::harness::run(&[&url, "--quiet", "--closed", "-c", "1", "-n", "3"]);
    let line = "sent again   2 times, because the server had not processed the request";
    assert!(ran.stdout.lines().any(|found| found == line), "{ran:?}");
}

/// nginx that ends each connection after a hundred requests. Ended when dropped.
struct Nginx {
    child: Child,
    http1: SocketAddr,
    http2: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// `None` if it is not installed, which is printed and fails in CI.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display();
        let free = [(); 2].map(|()| TcpListener::bind(loopback()).unwrap());
        let [http1, http2] = free.map(|listener| listener.local_addr().unwrap());
        let configuration = format!(
            "daemon off; master_process off; pid {shown}/pid; error_log stderr crit;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; keepalive_requests 100;
               client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;
               fastcgi_temp_path {shown}/fastcgi; uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi;
               server {{ listen {http1}; listen {http2} http2; location / {{ return 204; }} }}
             }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        // Debian installs it where a plain user's PATH does not look.
        let child = ["nginx", "/usr/sbin/nginx"]
            .into_iter()
            .find_map(|program| {
                Command::new(program)
                    .arg("-p")
                    .arg(folder.path())
                    .arg("-c")
                    .arg(folder.path().join("nginx.conf"))
                    .args(["-e", "stderr"])
                    .stdin(Stdio::null())
                    .spawn()
                    .ok()
            });
        let Some(child) = child else {
            let line = "SKIPPED a run against nginx: no program `nginx` on the PATH (scripts/test installs it, as root)";
            assert!(std::env::var_os("CI").is_none(), "{line}");
            let _ = writeln!(std::io::stderr(), "{line}");
            return None;
        };
        let nginx = Self {
            child,
            http1,
            http2,
            _folder: folder,
        };
        let patience = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(http2).is_err() {
            assert!(Instant::now() < patience, "nginx does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_that_nginx_ends_after_a_hundred_requests_cost_no_request() {
    let Some(nginx) = Nginx::start() else {
        return;
    };
    let run = |address: SocketAddr, flags: &[&str]| {
        let url = format!("http://{address}/");
        let common = [url.as_str(), "--closed", "-n", "5000"];
        load(&[&common[..], flags].concat())
    };
    let ran = run(nginx.http1, &["-c", "8"]);
    assert_eq!(ran.summary("succeeded"), 5000, "{ran:?}");
    // A request that is in flight when the hundredth is answered is beyond GOAWAY's last stream.
    for more in [&[][..], &["-m", "POST", "--data", "x"]] {
        let flags = [&["--http2", "-c", "2", "--streams", "32"], more].concat();
        let ran = run(nginx.http2, &flags);
        all_succeed(&ran);
        assert!(ran.summary("resent") > 0, "{ran:?}");
    }
}

/// The request line and the host of one request to a server on `listen`; the URL is what `url` makes of its
/// port.
fn seen(listen: &str, url: impl Fn(u16) -> String) -> (String, String) {
    let listener = TcpListener::bind(listen).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads): (_, Receiver<String>) = sync_channel(1);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(head) = head(&mut stream) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).unwrap();
                let _ = sender.send(head);
            }
        }
    });
    let ran = load(&[&url(port), "--closed", "-c", "1", "-n", "1"]);
    assert_eq!(ran.summary("succeeded"), 1, "{ran:?}");
    let head = heads.recv().unwrap();
    let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
    let host = host.unwrap().replace(&port.to_string(), "PORT");
    (head.lines().next().unwrap().to_owned(), host)
}

#[test]
fn a_url_is_sent_as_a_browser_would_send_it() {
    for (url, line) in [
        ("http://127.0.0.1:PORT?x=1", "GET /?x=1 HTTP/1.1"),
        ("HTTP://127.1:PORT/a b/%7e", "GET /a%20b/%7e HTTP/1.1"),
        ("http://127.0.0.1:PORT/\u{e9}#top", "GET /%C3%A9 HTTP/1.1"),
    ] {
        let found = seen("127.0.0.1:0", |port| url.replace("PORT", &port.to_string()));
        assert_eq!(
            found,
            (line.to_owned(), "127.0.0.1:PORT".to_owned()),
            "{url}"
        );
    }
}

#[test]
fn the_zone_of_an_ipv6_address_is_where_to_connect_and_not_what_to_ask_for() {
    // Interface 1 is the loopback interface.
    let found = seen("[::1]:0", |port| format!("http://[::1%251]:{port}/"));
    assert_eq!(
        found,
        ("GET / HTTP/1.1".to_owned(), "[::1]:PORT".to_owned())
    );
}
