//! TCP services: bytes, ends and resets arrive as they would without the mesh.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{self, Digest};
use socket2::SockRef;

use crate::harness::{Mesh, Sidecar, heavy, service};

/// How long a read or write may wait before the test reports it as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

struct Tunnel {
    _mesh: Mesh,
    _served: Sidecar,
    caller: Sidecar,
}

impl Tunnel {
    /// Through the mesh, to the application at `application`.
    fn to(mesh: Mesh, application: SocketAddr) -> Self {
        mesh.apply(&service("store", 7000, "tcp"));
        let served = mesh
            .sidecar("store")
            .serves("store:7000", application)
            .start();
        let caller = mesh.sidecar("shop").calls("store:7000").start();
        caller.wait_endpoints("store:7000", 1);
        Self {
            _mesh: mesh,
            _served: served,
            caller,
        }
    }

    fn connect(&self) -> TcpStream {
        connect(self.caller.listener("store:7000"))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Serves every connection on a thread of its own.
fn serve(
    address: Ipv4Addr,
    handle: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || {
                let _ = handle(stream);
            });
        }
    });
    address
}

#[test]
fn bytes_of_a_server_that_speaks_first_arrive_at_once() {
    let mesh = Mesh::start();
    let application = serve(mesh.address(), |mut stream| {
        stream.write_all(b"220 ready\r\n")?;
        io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    });
    let tunnel = Tunnel::to(mesh, application);
    let mut stream = tunnel.connect();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    stream.write_all(b"QUIT").unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"QUIT");
}

#[test]
fn a_gibibyte_each_way_at_once_arrives_byte_exact() {
    const SIZE: u64 = 1 << 30;
    let _heavy = heavy();
    let mesh = Mesh::start();
    // Both ends send and receive at the same time, and report what they received.
    let (report, reports) = std::sync::mpsc::sync_channel(1);
    let application = serve(mesh.address(), move |stream| {
        let received = exchange(stream, SIZE, 1)?;
        report.send(received).map_err(io::Error::other)
    });
    let tunnel = Tunnel::to(mesh, application);
    let at_client = exchange(tunnel.connect(), SIZE, 0).unwrap();
    let at_server = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(at_client.as_ref(), expected(SIZE, 1).as_ref());
    assert_eq!(at_server.as_ref(), expected(SIZE, 0).as_ref());
}

/// Sends `size` bytes of pattern `seed`, ends, and hashes what comes until the other end ends.
fn exchange(stream: TcpStream, size: u64, seed: u8) -> io::Result<Digest> {
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        pattern(size, seed, |block| sender.write_all(block))?;
        sender.shutdown(Shutdown::Write)
    });
    let received = hash(stream)?;
    sending.join().unwrap()?;
    Ok(received)
}

fn hash(mut stream: impl Read) -> io::Result<Digest> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(context.finish());
        }
        context.update(&buffer[..read]);
    }
}

fn expected(size: u64, seed: u8) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    pattern(size, seed, |block| {
        context.update(block);
        Ok(())
    })
    .unwrap();
    context.finish()
}

/// `size` bytes in blocks that all differ.
fn pattern(size: u64, seed: u8, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block: Vec<u8> = (0..256u32 << 10)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect();
    let mut sent = 0;
    while sent < size {
        block[..8].copy_from_slice(&sent.to_be_bytes());
        let length = (size - sent).min(block.len() as u64);
        take(&block[..length as usize])?;
        sent += length;
    }
    Ok(())
}

#[test]
fn a_half_closed_connection_behaves_as_without_the_mesh() {
    let mesh = Mesh::start();
    // Answers only when the client has ended its half, and then at length.
    let application = serve(mesh.address(), |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request)?;
        stream.write_all(&request.repeat(100_000))?;
        stream.shutdown(Shutdown::Write)
    });
    let tunnel = Tunnel::to(mesh, application);
    for mut stream in [connect(application), tunnel.connect()] {
        stream.write_all(b"what is left?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 13 * 100_000);
    }
}

#[test]
fn a_server_that_ends_first_still_reads_what_the_client_sends() {
    let mesh = Mesh::start();
    let (report, reports) = std::sync::mpsc::sync_channel(1);
    let application = serve(mesh.address(), move |mut stream| {
        stream.write_all(b"go on")?;
        stream.shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        if rest.is_empty() {
            // The sidecar only checked whether a program listens.
            return Ok(());
        }
        report.send(rest).map_err(io::Error::other)
    });
    let tunnel = Tunnel::to(mesh, application);
    let mut stream = tunnel.connect();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).unwrap();
    assert_eq!(told, b"go on");
    stream.write_all(&vec![7; 3_000_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let rest = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rest.len(), 3_000_000);
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_a_reset() {
    let mesh = Mesh::start();
    let (report, reports) = std::sync::mpsc::sync_channel(1);
    let application = serve(mesh.address(), move |mut stream| {
        // The sidecar also connects only to check, and sends nothing.
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"hello")?;
        let end = io::copy(&mut stream, &mut io::sink());
        report
            .send(end.map_err(|error| error.kind()))
            .map_err(io::Error::other)
    });
    let tunnel = Tunnel::to(mesh, application);
    let mut stream = tunnel.connect();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    reset(stream);
    let end = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_reset_by_the_server_reaches_the_client_as_a_reset() {
    let mesh = Mesh::start();
    let application = serve(mesh.address(), |mut stream| {
        stream.read_exact(&mut [0; 5])?;
        reset(stream);
        Ok(())
    });
    let tunnel = Tunnel::to(mesh, application);
    let mut stream = tunnel.connect();
    stream.write_all(b"hello").unwrap();
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Ends a connection by RST: a close with zero linger time.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[test]
fn a_connection_to_a_service_without_endpoint_is_closed_at_once() {
    let mesh = Mesh::start();
    mesh.apply(&service("store", 7000, "tcp"));
    let caller = mesh.sidecar("shop").calls("store:7000").start();
    let begin = Instant::now();
    let mut told = Vec::new();
    // An end or a reset is accepted; silence is not.
    let _ = connect(caller.listener("store:7000")).read_to_end(&mut told);
    assert!(told.is_empty());
    assert!(begin.elapsed() < Duration::from_secs(10));
}
