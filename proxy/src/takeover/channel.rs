//! The Unix socket between two sidecars: messages, and descriptors (SCM_RIGHTS, see unix(7)). It stays open
//! until the older of them has ended.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::TakeoverError;
use super::message::{self, LENGTH_BYTES, Message};

/// Descriptors in one message of the kernel, which allows 253 (SCM_MAX_FD).
const AT_ONCE: usize = 64;

/// The byte that descriptors travel with.
const CARRIER: u8 = 0;

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// The revision of the other process's messages; 0 before the first.
    revision: u32,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            revision: 0,
        }
    }

    /// Whether the other process confirms with a message of its own that it takes the mesh port, and knows of
    /// processes before the running one.
    pub(super) fn takes(&self) -> bool {
        self.revision >= message::TAKES
    }

    /// The user that the other process runs as.
    pub(super) fn user(&self) -> io::Result<u32> {
        Ok(self.stream.peer_cred()?.uid())
    }

    pub(super) async fn send(&mut self, message: &Message) -> Result<(), TakeoverError> {
        let bytes = message::encode(message)?;
        self.stream
            .write_all(&bytes)
            .await
            .map_err(TakeoverError::Broken)
    }

    pub(super) async fn receive(&mut self) -> Result<Message, TakeoverError> {
        let mut head = [0; LENGTH_BYTES];
        self.read(&mut head).await?;
        let mut json = vec![0; message::length(head)?];
        self.read(&mut json).await?;
        let (message, revision) = message::decode(&json)?;
        self.revision = revision;
        Ok(message)
    }

    /// Makes every later message of the other process fail. Earlier messages can still be received.
    pub(super) fn stop_hearing(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(
            self.stream.as_fd(),
            rustix::net::Shutdown::Read,
        )?)
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<(), TakeoverError> {
        match self.stream.read_exact(bytes).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(TakeoverError::Ended),
            Err(error) => Err(TakeoverError::Broken(error)),
        }
    }

    pub(super) async fn send_descriptors(&self, all: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in all.chunks(AT_ONCE) {
            let send = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(some));
                let carrier = [IoSlice::new(&[CARRIER])];
                Ok(sendmsg(
                    self.stream.as_fd(),
                    &carrier,
                    &mut control,
                    SendFlags::NOSIGNAL,
                )?)
            };
            self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// Receives `count` descriptors, or those that came before the end.
    pub(super) async fn receive_descriptors(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        while all.len() < count {
            let receive = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut carrier = [0];
                let received = recvmsg(
                    self.stream.as_fd(),
                    &mut [IoSliceMut::new(&mut carrier)],
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                let mut some = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                        some.extend(descriptors);
                    }
                }
                Ok((received.bytes, some))
            };
            let (bytes, some) = self.stream.async_io(Interest::READABLE, receive).await?;
            if bytes == 0 || some.is_empty() {
                break;
            }
            all.extend(some);
        }
        Ok(all)
    }

    /// Waits until the other process has ended.
    pub(super) async fn closed(&self) {
        // No message follows the takeover, so anything readable is the end.
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Pair;

    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_in_order_between_messages() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        // More descriptors than one message carries, each recognised by the bytes written to it.
        let pairs: Vec<(Pair, Pair)> = (0..AT_ONCE * 2 + 3)
            .map(|_| Pair::pair().unwrap())
            .collect();
        let ends: Vec<BorrowedFd<'_>> = pairs.iter().map(|(end, _)| end.as_fd()).collect();
        one.send(&Message::Ready).await.unwrap();
        one.send_descriptors(&ends).await.unwrap();
        one.send(&Message::Yours).await.unwrap();

        assert_eq!(other.receive().await.unwrap(), Message::Ready);
        let received = other.receive_descriptors(pairs.len()).await.unwrap();
        assert_eq!(other.receive().await.unwrap(), Message::Yours);
        assert_eq!(received.len(), pairs.len());
        for ((_, kept), end) in pairs.iter().zip(received) {
            use std::io::{Read as _, Write as _};
            Pair::from(end).write_all(b"x").unwrap();
            let mut byte = [0];
            (&mut &*kept).read_exact(&mut byte).unwrap();
        }
    }

    #[tokio::test]
    async fn too_few_descriptors_end_the_wait() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Channel::new(one), Channel::new(other));
        let (end, _) = Pair::pair().unwrap();
        one.send_descriptors(&[end.as_fd()]).await.unwrap();
        drop(one);
        let received = other.receive_descriptors(2).await.unwrap();
        assert_eq!(received.len(), 1);
        other.closed().await;
    }

    #[tokio::test]
    async fn messages_after_the_end_of_reading_fail_and_earlier_ones_are_read() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        one.send(&Message::Taken).await.unwrap();
        other.stop_hearing().unwrap();
        assert!(one.send(&Message::Settled).await.is_err());
        assert_eq!(other.receive().await.unwrap(), Message::Taken);
        assert!(matches!(other.receive().await, Err(TakeoverError::Ended)));
        other.send(&Message::Refusal("late".into())).await.unwrap();
        drop(other);
        assert_eq!(
            one.receive().await.unwrap(),
            Message::Refusal("late".into())
        );
    }
}
