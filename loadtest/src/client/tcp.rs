//! Raw TCP: an echo, a connect, bytes up or bytes down.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use super::dial::{Dial, Stream};
use super::judge::Judge;
use super::kind_of;
use crate::clock::Clock;
use crate::limits;
use crate::plan::target::TcpPattern;
use crate::plan::{Plan, Reuse};
use crate::sample::{ErrorKind, Outcome, Sample};

/// The values that all lanes share.
pub(crate) struct Client {
    dial: Dial,
    endpoints: Vec<usize>,
    pattern: TcpPattern,
    payload: Bytes,
    reuse: Reuse,
    judge: Judge,
}

/// One request at a time, on a kept connection for each target.
pub(crate) struct Lane {
    client: Arc<Client>,
    kept: Vec<Option<Stream>>,
    buffer: Box<[u8]>,
}

impl Client {
    pub(crate) fn new(plan: &Plan, dial: Dial, pattern: TcpPattern) -> Self {
        let targets = plan.targets.list().iter();
        Self {
            dial,
            endpoints: targets.map(|target| target.endpoint).collect(),
            pattern,
            payload: super::payload(&plan.message.body),
            reuse: plan.reuse,
            judge: Judge::new(&plan.expectations),
        }
    }
}

impl Lane {
    /// Whether a target has a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.kept.iter().any(Option::is_some)
    }

    pub(crate) fn new(client: Arc<Client>) -> Self {
        let kept = client.endpoints.iter().map(|_| None);
        let bulk = matches!(client.pattern, TcpPattern::Upload | TcpPattern::Download);
        let buffer = if bulk {
            limits::READ_BUFFER_MAX
        } else {
            limits::READ_BUFFER
        };
        Self {
            kept: kept.collect(),
            buffer: vec![0; buffer].into(),
            client,
        }
    }

    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Outcome, ErrorKind> {
        let client = &*self.client;
        let endpoint = *client.endpoints.get(target).ok_or(ErrorKind::Io)?;
        let slot = self.kept.get_mut(target).ok_or(ErrorKind::Io)?;
        let kept = slot.take().filter(Stream::is_quiet);
        sample.reused = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => client.dial.open(endpoint, clock, sample).await?,
        };
        match client.pattern {
            TcpPattern::Connect => Ok(Outcome::Success),
            TcpPattern::Echo => {
                let echo = echo(
                    &mut stream,
                    &client.payload,
                    &mut self.buffer,
                    clock,
                    sample,
                );
                let outcome = echo.await?;
                if client.reuse == Reuse::KeepAlive {
                    *slot = Some(stream);
                }
                Ok(outcome)
            }
            TcpPattern::Upload => {
                send(&mut stream, &client.payload, &mut self.buffer, sample).await?;
                // The peer closes when it has all bytes.
                receive(&mut stream, &mut self.buffer, &client.judge, clock, sample).await
            }
            TcpPattern::Download => {
                receive(&mut stream, &mut self.buffer, &client.judge, clock, sample).await
            }
        }
    }
}

/// Sends all of `payload` and then ends its side.
async fn send(
    stream: &mut Stream,
    payload: &[u8],
    buffer: &mut [u8],
    sample: &mut Sample,
) -> Result<(), ErrorKind> {
    let mut unsent = payload;
    let sent = poll_fn(|cx| poll_send(stream, cx, &mut unsent, buffer, sample)).await;
    sample.bytes_out += (payload.len() - unsent.len()) as u64;
    sent.map_err(|error| kind_of(&error))?;
    stream.shutdown().await.map_err(|error| kind_of(&error))
}

/// Writes all bytes. The peer's bytes are read and dropped: a peer that echoes would otherwise stop reading.
fn poll_send(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    unsent: &mut &[u8],
    buffer: &mut [u8],
    sample: &mut Sample,
) -> Poll<io::Result<()>> {
    loop {
        poll_write(stream, cx, unsent)?;
        if unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut room = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut room))?;
        if room.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        sample.bytes_in += room.filled().len() as u64;
    }
}

/// Reads until the peer closes.
async fn receive(
    stream: &mut Stream,
    buffer: &mut [u8],
    judge: &Judge,
    clock: Clock,
    sample: &mut Sample,
) -> Result<Outcome, ErrorKind> {
    let mut verdict = judge.begin();
    loop {
        let read = stream.read(buffer).await.map_err(|error| kind_of(&error))?;
        if read == 0 {
            return Ok(verdict.outcome());
        }
        sample.first_byte.get_or_insert_with(|| clock.now());
        sample.bytes_in += read as u64;
        verdict.body(buffer.get(..read).unwrap_or_default());
    }
}

/// Sends `payload` while it reads as many bytes, which must be the same.
async fn echo(
    stream: &mut Stream,
    payload: &[u8],
    buffer: &mut [u8],
    clock: Clock,
    sample: &mut Sample,
) -> Result<Outcome, ErrorKind> {
    let mut unsent = payload;
    let mut missing = payload;
    while !missing.is_empty() {
        let read = poll_fn(|cx| poll_both(stream, cx, &mut unsent, buffer)).await;
        let read = read.map_err(|error| kind_of(&error))?;
        sample.bytes_out = (payload.len() - unsent.len()) as u64;
        if read == 0 {
            return Err(if missing.len() == payload.len() {
                ErrorKind::Closed
            } else {
                ErrorKind::ShortBody
            });
        }
        sample.first_byte.get_or_insert_with(|| clock.now());
        sample.bytes_in += read as u64;
        let came = buffer.get(..read).unwrap_or_default();
        let Some(rest) = missing.strip_prefix(came) else {
            return Err(ErrorKind::UnexpectedBody);
        };
        missing = rest;
    }
    Ok(Outcome::Success)
}

/// Writes what can be written, and reads.
fn poll_both(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    unsent: &mut &[u8],
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    poll_write(stream, cx, unsent)?;
    let mut room = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut room))?;
    Poll::Ready(Ok(room.filled().len()))
}

/// Writes what can be written.
fn poll_write(stream: &mut Stream, cx: &mut Context<'_>, unsent: &mut &[u8]) -> io::Result<()> {
    while !unsent.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, unsent)? {
            Poll::Ready(written) => *unsent = unsent.get(written..).unwrap_or_default(),
            Poll::Pending => break,
        }
    }
    Ok(())
}
