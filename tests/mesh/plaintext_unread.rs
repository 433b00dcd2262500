//! Callers without mutual TLS that ask and do not read: what they asked for ends by its time, and by a
//! policy, as the answer of any other caller does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Mesh, Origin, Shop, connect, eventually, get, pause};
use crate::plaintext::{moving_with, orders, shown};

/// An application that answers `/endless` without an end, and how many such answers it is at.
fn endless(mesh: &Mesh) -> (Origin, Arc<AtomicUsize>) {
    let under_way = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&under_way);
    let origin = Origin::http(mesh.address(), move |request, out| {
        if request.path() != "/endless" {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(true);
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let mut written = out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while written.is_ok() {
            written = out.write_all(&[b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat());
        }
        counted.fetch_sub(1, Ordering::SeqCst);
        Ok(false)
    });
    (origin, under_way)
}

/// Asks for it over HTTP/1.1 and over HTTP/2, and reads nothing: neither bytes of TCP, nor, in the third
/// case, more than the first window of the stream.
fn ask_and_read_nothing(address: SocketAddr) -> Vec<TcpStream> {
    let http1 = b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
    let http2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        // SETTINGS without any; HEADERS of stream 1, with END_STREAM and END_HEADERS.
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 15, 1, 5, 0, 0, 0, 1],
        // GET, http, the path and the authority `a` (RFC 7541 section 6).
        &[0x82, 0x86, 0x04, 8],
        b"/endless",
        &[0x01, 1, b'a'],
    ]
    .concat();
    let ask = |bytes: &[u8]| {
        let mut stream = connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let silent = [ask(&http1), ask(&http2)];
    let mut read = ask(&http2);
    let mut reader = read.try_clone().unwrap();
    // It ends with the connection.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    read.flush().unwrap();
    silent.into_iter().chain([read]).collect()
}

fn begun(setting: &str) -> (Shop, Origin, Arc<AtomicUsize>, Vec<TcpStream>) {
    let mesh = Mesh::start();
    let (origin, under_way) = endless(&mesh);
    let (shop, plaintext) = moving_with(mesh, "http", origin.address, setting);
    shop.mesh.apply(&orders("http", "Permissive"));
    let asked = ask_and_read_nothing(plaintext);
    eventually("each is being answered", || {
        under_way.load(Ordering::SeqCst) == asked.len()
    });
    (shop, origin, under_way, asked)
}

fn expect_ended(shop: &mut Shop, under_way: &AtomicUsize, mut asked: Vec<TcpStream>) {
    eventually("the application is rid of them", || {
        under_way.load(Ordering::SeqCst) == 0
    });
    eventually("no connection is left", || {
        shown(&shop.orders)["connections"] == 0
    });
    for stream in &mut asked[..2] {
        // What is left in the kernels, and then an end.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(get(shop.address, "/").unwrap().status, 200);
    shop.expect_unharmed();
}

#[test]
fn an_answer_that_is_not_read_ends_after_its_time_without_progress() {
    let (mut shop, _origin, under_way, asked) = begun("timeouts: { stream_idle: 2s }");
    expect_ended(&mut shop, &under_way, asked);
}

#[test]
fn an_answer_that_is_not_read_ends_when_a_policy_forbids_it() {
    let (mut shop, _origin, under_way, asked) = begun("");
    pause(std::time::Duration::from_secs(5));
    assert_eq!(under_way.load(Ordering::SeqCst), asked.len());
    let deny = "---\napiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: { name: deny, namespace: shop }\nspec:\n  targetRefs: [ { kind: Service, name: orders } ]\n  action: Deny\n  to: [ { paths: [/endless] } ]\n";
    let permissive = orders("http", "Permissive");
    shop.mesh.apply(&format!("{permissive}{deny}"));
    expect_ended(&mut shop, &under_way, asked);
}
