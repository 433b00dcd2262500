//! HTTP/1.1 by hand: a test sends and receives exactly these bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a read waits. Far more than any honest answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A response as it came.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The statuses of the interim responses before it.
    pub(crate) interim: Vec<u16>,
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let is_named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(is_named)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Connects with a deadline on every later read and write.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends, and expects it back.
#[track_caller]
pub(crate) fn expect_echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

/// `GET path` on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(address, request.as_bytes())
}

/// Sends `request` unchanged on a connection of its own and reads one response.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Response> {
    let mut stream = connect(address)?;
    // A server may answer and close before it has read everything; its answer still counts.
    let written = stream.write_all(request);
    let is_head = request.starts_with(b"HEAD ");
    let response = read_response(&mut BufReader::new(stream), is_head);
    match (written, response) {
        (_, Ok(response)) => Ok(response),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// The same at a Unix socket.
pub(crate) fn exchange_at(path: &Path, request: &[u8]) -> io::Result<Response> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    read_response(&mut BufReader::new(stream), false)
}

/// Reads the final response (of interim ones only the statuses are kept). A body that ends early is an error.
pub(crate) fn read_response(stream: &mut impl BufRead, is_head: bool) -> io::Result<Response> {
    let mut interim = Vec::new();
    loop {
        let mut response = read_one(stream, is_head)?;
        if response.status >= 200 || response.status == 101 {
            response.interim = interim;
            return Ok(response);
        }
        interim.push(response.status);
    }
}

fn read_one(stream: &mut impl BufRead, is_head: bool) -> io::Result<Response> {
    let line = read_line(stream)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(format!("status line {line:?}")))?;
    let headers = read_fields(stream)?;
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
        trailers: Vec::new(),
        interim: Vec::new(),
    };
    if is_head || status < 200 || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some() {
        response.body = read_chunks(stream)?;
        response.trailers = read_fields(stream)?;
    } else if let Some(length) = response.header("content-length") {
        let length = length
            .parse()
            .map_err(|_| invalid(format!("content-length {length:?}")))?;
        response.body.resize(length, 0);
        stream.read_exact(&mut response.body)?;
    } else {
        stream.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

/// The data of a chunked body, up to its last chunk.
pub(crate) fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size =
            u64::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        if size == 0 {
            return Ok(body);
        }
        let got = stream.by_ref().take(size).read_to_end(&mut body)?;
        if got as u64 != size || !read_line(stream)?.is_empty() {
            return Err(invalid("a chunk ends early or late".to_owned()));
        }
    }
}

/// Header or trailer lines up to the empty one.
pub(crate) fn read_fields(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("header line {line:?}")))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// One line without its CRLF.
pub(crate) fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(invalid(format!(
            "a line ends early: {:?}",
            String::from_utf8_lossy(&line)
        ))),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A keep-alive connection for several exchanges.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::new(connect(address)?),
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub(crate) fn receive(&mut self, is_head: bool) -> io::Result<Response> {
        read_response(&mut self.reader, is_head)
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: app\r\n\r\n").as_bytes())?;
        self.receive(false)
    }

    pub(crate) fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.reader
    }
}
