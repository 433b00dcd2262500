//! One HTTP/1.1 connection: writes a request while it reads the answer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Request;
use super::response::{AtClose, Reader, Sink};
use crate::client::dial::Stream;
use crate::client::judge::{Judge, Verdict};
use crate::client::kind_of;
use crate::client::lost::{Lost, Unanswered, without_answer};
use crate::clock::Clock;
use crate::limits;
use crate::sample::{ErrorKind, Outcome, Sample};

/// A connection and the bytes that were read from it but not used yet.
pub(super) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: vec![0; limits::READ_BUFFER],
            filled: 0,
        }
    }

    /// Whether the peer has kept it open since the last answer, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        // An answer without a request is as bad as an end.
        self.filled == 0 && self.stream.is_quiet()
    }

    /// Sends one request and reads its answer; also whether the connection can be used again.
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        judge: &Judge,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<(Outcome, bool), Lost> {
        let mut reader = Reader::new(request.head);
        let mut verdict = Answer(judge.begin());
        let bytes = &*request.bytes;
        let mut unsent = bytes;
        let mut write_error = None;
        let sent_before = sample.bytes_out;
        while !reader.is_done() {
            let read = poll_fn(|cx| {
                if write_error.is_none()
                    && let Poll::Ready(Err(error)) = self.poll_write(cx, &mut unsent)
                {
                    // The peer may have answered before it stopped reading.
                    write_error = Some(error);
                }
                self.poll_read(cx)
            })
            .await;
            sample.bytes_out = sent_before + (bytes.len() - unsent.len()) as u64;
            let unanswered = Unanswered {
                reused: sample.reused,
                written: unsent.len() < bytes.len(),
                idempotent: request.idempotent,
            };
            let read = match read {
                Ok(read) => read,
                Err(error) if sample.first_byte.is_none() => {
                    return Err(without_answer(kind_of(&error), unanswered));
                }
                Err(error) => return Err(kind_of(&error).into()),
            };
            if read == 0 {
                return match reader.at_close(self.filled) {
                    AtClose::Complete => Ok((verdict.0.outcome(), false)),
                    AtClose::NotBegun if sample.first_byte.is_none() => {
                        let kind = write_error.map_or(ErrorKind::Closed, |error| kind_of(&error));
                        Err(without_answer(kind, unanswered))
                    }
                    // After an interim response the server has the request.
                    AtClose::NotBegun => Err(ErrorKind::Closed.into()),
                    AtClose::Short => Err(ErrorKind::ShortBody.into()),
                };
            }
            sample.bytes_in += read as u64;
            if sample.first_byte.is_none() {
                sample.first_byte = Some(clock.now());
            }
            self.consume(&mut reader, &mut verdict)?;
        }
        let reusable = reader.keep_alive() && unsent.is_empty() && write_error.is_none();
        Ok((verdict.0.outcome(), reusable))
    }

    /// Parses the available bytes, and keeps incomplete parts for the next read.
    fn consume(&mut self, reader: &mut Reader, verdict: &mut Answer<'_>) -> Result<(), ErrorKind> {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        let used = reader
            .read(bytes, verdict)
            .map_err(|_| ErrorKind::Protocol)?;
        let full = self.filled == self.buffer.len();
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        if full && self.buffer.len() < limits::READ_BUFFER_MAX {
            // A large answer: fewer, larger reads.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, unsent: &mut &[u8]) -> Poll<io::Result<()>> {
        if unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
            *unsent = unsent.get(written..).unwrap_or_default();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

/// The reader's findings, judged.
struct Answer<'a>(Verdict<'a>);

impl Sink for Answer<'_> {
    fn head(&mut self, status: u16, fields: &[httparse::Header<'_>]) {
        self.0.status(status);
        self.0.fields(|name, value| {
            fields.iter().any(|field| {
                field.name.eq_ignore_ascii_case(name)
                    && value.is_none_or(|value| value == field.value)
            })
        });
    }

    fn body(&mut self, bytes: &[u8]) {
        self.0.body(bytes);
    }
}
