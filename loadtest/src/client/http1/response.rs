//! Finds where an HTTP/1.1 response ends (RFC 9112 section 6.3), and reads its head. Pure: it gets bytes as
//! they arrive, and passes the parts of the message to a [`Sink`].
//!
//! Not here: sockets, and whether the answer is as expected.

use std::mem::MaybeUninit;

use crate::limits;

/// Takes what a response consists of.
pub(super) trait Sink {
    /// The final head.
    fn head(&mut self, status: u16, fields: &[httparse::Header<'_>]);
    /// A piece of the body.
    fn body(&mut self, bytes: &[u8]);
}

/// Reads one response.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    bodiless: bool,
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// This many bytes of the body are missing.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// The bytes are not an HTTP/1.1 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The meaning of the connection's end for an incomplete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtClose {
    /// It is complete: only the end of the connection delimits it.
    Complete,
    /// No byte of its head had arrived.
    NotBegun,
    /// The connection ended within the response.
    Short,
}

impl Reader {
    /// Reads the response to a request; `head` if that was a HEAD request.
    pub(super) fn new(head: bool) -> Self {
        Self {
            state: State::Head,
            bodiless: head,
            keep_alive: false,
        }
    }

    /// Whether the whole response has been read.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the connection can serve another request; meaningful when done.
    pub(super) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Reads from the front of `bytes` and returns how many are used up. The rest is either the beginning of
    /// an incomplete part, or, when done, not of this response.
    pub(super) fn read(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, Malformed> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let before = self.state;
            let taken = match self.state {
                State::Done => return Ok(used),
                State::Head => self.head(rest, sink)?,
                State::Length(left) => {
                    let (taken, left) = take_body(rest, left, sink);
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Length(left)
                    };
                    taken
                }
                State::UntilClose => {
                    sink.body(rest);
                    return Ok(bytes.len());
                }
                State::ChunkSize => self.chunk_size(rest)?,
                State::Chunk(left) => {
                    let (taken, left) = take_body(rest, left, sink);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    taken
                }
                State::ChunkEnd => self.chunk_end(rest)?,
                State::Trailers => self.trailers(rest)?,
            };
            used += taken;
            // Interim heads take bytes without a change of state; a change may need no bytes.
            if taken == 0 && self.state == before {
                return Ok(used);
            }
        }
    }

    /// Judges a connection that ended; `pending` are bytes that were not used up.
    pub(super) fn at_close(&self, pending: usize) -> AtClose {
        match self.state {
            State::UntilClose | State::Done => AtClose::Complete,
            State::Head if pending == 0 => AtClose::NotBegun,
            State::Head
            | State::Length(_)
            | State::ChunkSize
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailers => AtClose::Short,
        }
    }

    fn head(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize, Malformed> {
        let mut fields = [MaybeUninit::uninit(); limits::FIELDS_MAX];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut head, bytes, &mut fields)
            .map_err(|_| Malformed)?;
        let httparse::Status::Complete(length) = parsed else {
            return if bytes.len() > limits::HEAD_BYTES_MAX {
                Err(Malformed)
            } else {
                Ok(0)
            };
        };
        let status = head.code.ok_or(Malformed)?;
        match status {
            // A response without a request, or not a status.
            101 | 0..100 => return Err(Malformed),
            // Interim: the final one follows.
            102..200 | 100 => {}
            200.. => {
                sink.head(status, head.headers);
                self.frame(status, head.version == Some(1), head.headers)?;
            }
        }
        Ok(length)
    }

    /// RFC 9112 sections 6.3 and 9.3.
    fn frame(
        &mut self,
        status: u16,
        is_http_1_1: bool,
        fields: &[httparse::Header<'_>],
    ) -> Result<(), Malformed> {
        let mut length = None;
        let mut codings = None;
        self.keep_alive = is_http_1_1;
        for field in fields {
            if field.name.eq_ignore_ascii_case("content-length") {
                let value = decimal(field.value).ok_or(Malformed)?;
                if length.is_some_and(|known| known != value) {
                    return Err(Malformed);
                }
                length = Some(value);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                codings = Some(field.value);
            } else if field.name.eq_ignore_ascii_case("connection") {
                for option in field.value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    }
                }
            }
        }
        self.state = if self.bodiless || status == 204 || status == 304 {
            State::Done
        } else if let Some(codings) = codings {
            // Both together are the mark of a smuggled message (RFC 9112 section 6.1).
            if length.is_some() {
                return Err(Malformed);
            }
            let last = codings.rsplit(|byte| *byte == b',').next();
            let last = last.unwrap_or_default().trim_ascii();
            if last.eq_ignore_ascii_case(b"chunked") {
                State::ChunkSize
            } else {
                State::UntilClose
            }
        } else {
            match length {
                Some(0) => State::Done,
                Some(length) => State::Length(length),
                None => State::UntilClose,
            }
        };
        if self.state == State::UntilClose {
            self.keep_alive = false;
        }
        Ok(())
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((used, size))) => {
                self.state = if size == 0 {
                    State::Trailers
                } else {
                    State::Chunk(size)
                };
                Ok(used)
            }
            Ok(httparse::Status::Partial) if bytes.len() <= limits::HEAD_BYTES_MAX => Ok(0),
            Ok(httparse::Status::Partial) | Err(_) => Err(Malformed),
        }
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkSize;
                Ok(2)
            }
            [] | [b'\r'] => Ok(0),
            _ => Err(Malformed),
        }
    }

    /// A load generator needs no trailers: they are read to their empty line.
    fn trailers(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if bytes.starts_with(b"\r\n") {
            self.state = State::Done;
            return Ok(2);
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            self.state = State::Done;
            return Ok(end + 4);
        }
        if bytes.len() > limits::HEAD_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(0)
    }
}

/// Passes on the available bytes of a body of which `left` bytes are missing.
fn take_body(bytes: &[u8], left: u64, sink: &mut impl Sink) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    if let Some(piece) = bytes.get(..taken) {
        sink.body(piece);
    }
    (taken, left - taken as u64)
}

/// Digits only: no sign, no space, no list (RFC 9110 section 8.6).
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        status: u16,
        fields: usize,
        body: Vec<u8>,
    }

    impl Sink for Seen {
        fn head(&mut self, status: u16, fields: &[httparse::Header<'_>]) {
            self.status = status;
            self.fields = fields.len();
        }

        fn body(&mut self, bytes: &[u8]) {
            self.body.extend_from_slice(bytes);
        }
    }

    /// Feeds `text` in pieces of `size` bytes, as a connection would.
    fn feed(text: &str, size: usize, head: bool) -> Result<(Reader, Seen, usize), Malformed> {
        let mut reader = Reader::new(head);
        let mut seen = Seen::default();
        let mut pending = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            pending.extend_from_slice(piece);
            let used = reader.read(&pending, &mut seen)?;
            pending.drain(..used);
        }
        Ok((reader, seen, pending.len()))
    }

    #[test]
    fn however_the_bytes_arrive_the_message_is_the_same() {
        for (text, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                200,
                "ok",
            ),
            (
                "HTTP/1.1 500 X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\nB: c\r\n\r\n",
                500,
                "hello!",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
                200,
                "",
            ),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                let (reader, seen, pending) = feed(text, size, false).unwrap();
                assert!(reader.is_done() && reader.keep_alive(), "{text} by {size}");
                assert_eq!((seen.status, pending), (status, 0), "{text} by {size}");
                assert_eq!(seen.body, body.as_bytes(), "{text} by {size}");
            }
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let (reader, seen, _) = feed("HTTP/1.1 200 OK\r\n\r\nall of it", 4, false).unwrap();
        assert!(!reader.is_done());
        assert_eq!(reader.at_close(0), AtClose::Complete);
        assert_eq!(seen.body, b"all of it");
    }

    #[test]
    fn an_early_end_is_distinguished_from_no_answer_at_all() {
        for (text, verdict) in [
            ("", AtClose::NotBegun),
            ("HTTP/1.1 20", AtClose::Short),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
                AtClose::Short,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                AtClose::Short,
            ),
        ] {
            let (reader, _, pending) = feed(text, 100, false).unwrap();
            assert_eq!(reader.at_close(pending), verdict, "{text:?}");
        }
    }

    #[test]
    fn the_connection_is_kept_as_both_sides_agreed() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 200 OK\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n", false),
        ] {
            let text = format!("{head}Content-Length: 0\r\n\r\n");
            let (reader, _, _) = feed(&text, 100, false).unwrap();
            assert_eq!(reader.keep_alive(), kept, "{head}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body_whatever_it_says() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n";
        assert!(feed(text, 10, true).unwrap().0.is_done());
    }

    #[test]
    fn bytes_after_the_end_are_left_alone() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1";
        let (_, seen, pending) = feed(text, 1000, false).unwrap();
        assert_eq!((seen.body.as_slice(), pending), (&b"ok"[..], 8));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            "\u{16}\u{3}\u{1}garbage",
        ] {
            assert!(feed(text, 1000, false).is_err(), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000));
        assert!(feed(&endless, 4096, false).is_err());
    }
}
