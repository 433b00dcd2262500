//! An application in the test's own process. It records every byte that reaches it: tests decide by this
//! record, and never by a status code, whether something "reached the application".

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::http;

/// A request as the application saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// Its head declared that no body follows; HTTP/2 only.
    pub(crate) ends_with_head: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let is_named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(is_named)
            .map(|(_, value)| value.as_str())
    }

    /// The path of the request line.
    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The state that all connections share.
#[derive(Default)]
struct Record {
    ended: AtomicBool,
    /// One entry per connection: a handle to end it with while it lives, and its bytes.
    connections: Mutex<Vec<(Option<TcpStream>, Vec<u8>)>>,
    requests: Mutex<Vec<Seen>>,
}

/// A listening application; it and its connections end when it is dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    record: Arc<Record>,
}

impl Origin {
    /// Serves each connection by `serve`, on a thread of its own.
    pub(crate) fn raw<F>(address: Ipv4Addr, serve: F) -> Self
    where
        F: Fn(Tap) -> io::Result<()> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let (record, serve) = (Arc::clone(&shared), Arc::clone(&serve));
                let index = {
                    let mut connections = record.connections.lock().unwrap();
                    connections.push((Some(stream.try_clone().unwrap()), Vec::new()));
                    connections.len() - 1
                };
                let tap = Tap {
                    stream,
                    record: Arc::clone(&record),
                    index,
                };
                thread::spawn(move || {
                    let end = tap.stream.try_clone();
                    // The test sees at the other side how a connection ends.
                    let _ = serve(tap);
                    // Other handles may be left, so the connection must be ended explicitly.
                    let _ = end.and_then(|stream| stream.shutdown(Shutdown::Both));
                    // A test may make more connections than a process may have descriptors.
                    record.connections.lock().unwrap()[index].0 = None;
                });
            }
        });
        Self { address, record }
    }

    /// Serves HTTP/1.1 with keep-alive: `answer` writes the whole response as raw bytes, and returns whether
    /// the connection goes on.
    pub(crate) fn http<F>(address: Ipv4Addr, answer: F) -> Self
    where
        F: Fn(&Seen, &mut Tap) -> io::Result<bool> + Send + Sync + 'static,
    {
        Self::raw(address, move |tap| {
            let mut writer = tap.try_clone()?;
            let mut reader = BufReader::new(tap);
            loop {
                let mut request = read_request(&mut reader)?;
                request.connection = writer.index;
                let record = Arc::clone(&writer.record);
                record.requests.lock().unwrap().push(request.clone());
                if !answer(&request, &mut writer)? {
                    return writer.stream.shutdown(Shutdown::Both);
                }
            }
        })
    }

    /// Answers every request with its own description: request line, headers, length of the body.
    pub(crate) fn echo(address: Ipv4Addr, name: &'static str) -> Self {
        Self::http(address, move |request, out| {
            let text = format!("{name} {} {}", request.line, request.body.len());
            let length = text.len();
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
            out.write_all(response.as_bytes())?;
            Ok(true)
        })
    }

    /// How many connections were ever made to it.
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.lock().unwrap().len()
    }

    /// Every byte that reached it, connection after connection.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let connections = self.record.connections.lock().unwrap();
        connections
            .iter()
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect()
    }

    /// The whole requests that reached it.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.record.requests.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.ended.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees that it should end.
        let _ = TcpStream::connect(self.address);
        let connections = self.record.connections.lock().unwrap();
        for stream in connections.iter().filter_map(|(stream, _)| stream.as_ref()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection of an [`Origin`] that records what is read from it.
pub(crate) struct Tap {
    pub(crate) stream: TcpStream,
    record: Arc<Record>,
    index: usize,
}

impl Tap {
    /// Bytes per connection that are kept; tests that send more count them themselves.
    const KEPT: usize = 1 << 20;

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            record: Arc::clone(&self.record),
            index: self.index,
        })
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        let mut connections = self.record.connections.lock().unwrap();
        let bytes = &mut connections[self.index].1;
        let room = Self::KEPT.saturating_sub(bytes.len());
        bytes.extend_from_slice(&buffer[..read.min(room)]);
        Ok(read)
    }
}

impl Write for Tap {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn read_request(reader: &mut BufReader<Tap>) -> io::Result<Seen> {
    let mut request = Seen {
        line: http::read_line(reader)?,
        headers: http::read_fields(reader)?,
        ..Seen::default()
    };
    if request.header("transfer-encoding").is_some() {
        request.body = http::read_chunks(reader)?;
        request.trailers = http::read_fields(reader)?;
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
    }
    Ok(request)
}
