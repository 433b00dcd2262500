//! Asks a sidecar's admin endpoint, which listens on the loopback of its own host: a thread that enters the
//! network namespace of the process sends the request.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::limits::{ADMIN_BYTES_MAX, ADMIN_TIMEOUT};

/// The answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// `GET path` at `port` on the loopback of the process's host.
pub(super) fn get(process: u32, port: u16, path: &str) -> io::Result<Answer> {
    // A namespace belongs to a thread, and this thread must not change its own.
    let exchange = || exchange(process, port, path);
    std::thread::scope(|scope| scope.spawn(exchange).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that asked ended")))
}

fn exchange(process: u32, port: u16, path: &str) -> io::Result<Answer> {
    let namespace = File::open(format!("/proc/{process}/ns/net"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ADMIN_TIMEOUT)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    // HTTP/1.0: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ADMIN_BYTES_MAX).read_to_end(&mut bytes)?;
    read(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

fn read(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = read("HTTP/1.0 503 x\r\na: b\r\n\r\nno table\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no table\n"));
        assert!(read("garbage").is_none());
    }
}
