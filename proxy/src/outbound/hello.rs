//! The ClientHello of a connection whose port has routes by host. Its bytes are kept, and go to the backend
//! as they came. How it is read is in [`weft_transport::client_hello`].

use std::io;

use bytes::BytesMut;
use weft_transport::client_hello::{Asked, ClientHello};

use crate::failure::{Failure, Reason};
use crate::limits;
use crate::stream::ApplicationStream;

/// The first bytes of a client, and what they say.
pub(super) struct Hello {
    /// All that was read of it.
    pub(super) bytes: BytesMut,
    /// Whom it asks for.
    pub(super) wanted: Wanted,
}

/// The host that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This one.
    Host(String),
    /// It names none.
    NoHost,
    /// It has not said so, and why.
    Unsaid(Unsaid),
}

/// Why the host of a client is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsaid {
    /// It does not speak TLS as it should.
    NotTls(String),
    /// Its ClientHello has no end within [`limits::CLIENT_HELLO_BYTES_MAX`].
    TooLong,
    /// Its ClientHello was not whole within [`limits::CLIENT_HELLO_TIMEOUT`].
    TooSlow,
}

impl Unsaid {
    /// Why its connection is refused, at the port of that name.
    pub(crate) fn failure(&self, label: &str) -> Failure {
        let (reason, what) = match self {
            Self::NotTls(what) => (Reason::BadRequest, what.clone()),
            Self::TooLong => (
                Reason::HeadTooLarge,
                format!(
                    "its ClientHello is longer than {} bytes",
                    limits::CLIENT_HELLO_BYTES_MAX
                ),
            ),
            Self::TooSlow => (
                Reason::RequestTooSlow,
                format!(
                    "it sent no whole ClientHello within {} s",
                    limits::CLIENT_HELLO_TIMEOUT.as_secs()
                ),
            ),
        };
        let detail = format!("{label} has routes for hosts of TLS, and of this client: {what}");
        Failure::new(reason, detail)
    }
}

/// Reads until the host is known or cannot be. None if the client ends before its first byte.
pub(super) async fn read(stream: &ApplicationStream) -> Option<Hello> {
    let mut bytes = BytesMut::new();
    let reading = read_into(stream, &mut bytes);
    let wanted = match tokio::time::timeout(limits::CLIENT_HELLO_TIMEOUT, reading).await {
        Ok(wanted) => wanted,
        Err(_) => Some(Wanted::Unsaid(Unsaid::TooSlow)),
    };
    wanted.map(|wanted| Hello { bytes, wanted })
}

async fn read_into(stream: &ApplicationStream, bytes: &mut BytesMut) -> Option<Wanted> {
    let mut hello = ClientHello::default();
    loop {
        let before = bytes.len();
        let left = limits::CLIENT_HELLO_BYTES_MAX.saturating_sub(before);
        if left == 0 {
            return Some(Wanted::Unsaid(Unsaid::TooLong));
        }
        let ended = |why: &str| match before {
            0 => None,
            _ => Some(Wanted::Unsaid(Unsaid::NotTls(why.to_owned()))),
        };
        if stream.readable().await.is_err() {
            return ended("it broke off within its ClientHello");
        }
        // Memory is taken when there is something to read.
        bytes.reserve(limits::TUNNEL_READ_MIN.min(left));
        match stream.try_read(bytes) {
            Ok(0) => return ended("it ended within its ClientHello"),
            Ok(_) => {}
            Err(error) if is_to_repeat(&error) => continue,
            Err(_) => return ended("it broke off within its ClientHello"),
        }
        match hello.read(&bytes[before..]) {
            Ok(None) => {}
            Ok(Some(Asked { host: Some(host) })) => return Some(Wanted::Host(host)),
            Ok(Some(Asked { host: None })) => return Some(Wanted::NoHost),
            Err(error) => return Some(Wanted::Unsaid(Unsaid::NotTls(error.to_string()))),
        }
    }
}

fn is_to_repeat(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    const HELLO: &[u8] =
        include_bytes!("../../../transport/fuzz/corpus/client_hellos/tls13-with-host");

    fn pair() -> (UnixStream, ApplicationStream) {
        let (far, near) = UnixStream::pair().unwrap();
        (far, ApplicationStream::Unix(near))
    }

    #[tokio::test]
    async fn the_host_is_known_with_the_last_byte_and_every_byte_is_kept() {
        let (mut far, near) = pair();
        let (first, rest) = HELLO.split_at(7);
        let write = async {
            far.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            far.write_all(rest).await.unwrap();
        };
        let (hello, ()) = tokio::join!(read(&near), write);
        let hello = hello.unwrap();
        assert_eq!(hello.wanted, Wanted::Host("shop.example.com".to_owned()));
        assert_eq!(hello.bytes, HELLO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_the_server_is_given_up() {
        let (far, near) = pair();
        let began = tokio::time::Instant::now();
        let hello = read(&near).await.unwrap();
        assert_eq!(hello.wanted, Wanted::Unsaid(Unsaid::TooSlow));
        assert_eq!(began.elapsed(), limits::CLIENT_HELLO_TIMEOUT);
        drop(far);
    }

    #[tokio::test]
    async fn a_hello_without_end_is_too_long_and_no_more_of_it_is_kept() {
        let (mut far, near) = pair();
        // A handshake message of 60 KiB in records of one byte: each is valid.
        let head = [1, 0, 0xf0, 0].into_iter().chain(std::iter::repeat(0));
        let records: Vec<u8> = head
            .take(2 * limits::CLIENT_HELLO_BYTES_MAX)
            .flat_map(|byte| [0x16, 3, 1, 0, 1, byte])
            .collect();
        let write = async {
            let _ = far.write_all(&records).await;
        };
        let reading = async {
            let hello = read(&near).await.unwrap();
            drop(near);
            hello
        };
        let (hello, ()) = tokio::join!(reading, write);
        assert_eq!(hello.wanted, Wanted::Unsaid(Unsaid::TooLong));
        assert!(hello.bytes.len() <= limits::CLIENT_HELLO_BYTES_MAX + limits::TUNNEL_READ_MIN);
    }

    #[tokio::test]
    async fn a_client_that_ends_at_once_asks_for_nothing() {
        let (far, near) = pair();
        drop(far);
        assert!(read(&near).await.is_none());
        let (mut far, near) = pair();
        far.write_all(&HELLO[..10]).await.unwrap();
        drop(far);
        let hello = read(&near).await.unwrap();
        assert!(matches!(hello.wanted, Wanted::Unsaid(Unsaid::NotTls(_))));
    }
}
