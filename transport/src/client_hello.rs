//! The host that a client of TLS asks for, from its ClientHello. No handshake is made, and no byte is
//! changed: the caller keeps the bytes and passes them on. Pure; not TLS of the mesh, which is `tls.rs`.

use rustls::server::Acceptor;

/// Reads a ClientHello that comes in pieces, of packets or of TLS records.
#[derive(Default)]
pub struct ClientHello {
    acceptor: Acceptor,
}

/// What a whole ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The host in lower case; none if the client names none, or an address, which is no host (RFC 6066
    /// section 3).
    pub host: Option<String>,
}

/// The bytes are no ClientHello of TLS 1.2 or 1.3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no ClientHello of TLS 1.2 or 1.3: {0}")]
pub struct NoClientHello(String);

impl ClientHello {
    /// Takes the next bytes; none until the ClientHello is whole. What follows it in the same bytes is not
    /// looked at. After an answer or an error it must not be called again.
    ///
    /// # Errors
    /// If this cannot become one.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Asked>, NoClientHello> {
        while !bytes.is_empty() {
            match self.acceptor.read_tls(&mut bytes) {
                Ok(1..) => {}
                Ok(0) => return Err(NoClientHello("it does not end".to_owned())),
                Err(error) => return Err(NoClientHello(error.to_string())),
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let host = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok(Some(Asked { host }));
                }
                Err((error, _)) => return Err(NoClientHello(error.to_string())),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first flight of a client that asks for `name`.
    fn hello(name: &str, with_name: bool) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.enable_sni = with_name;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn asked(host: &str) -> Option<Asked> {
        let host = Some(host.to_owned());
        Some(Asked { host })
    }

    #[test]
    fn the_host_is_found_wherever_the_hello_is_cut() {
        let bytes = hello("Shop.Example.com", true);
        for cut in 0..bytes.len() {
            let mut reader = ClientHello::default();
            assert_eq!(reader.read(&bytes[..cut]), Ok(None), "{cut}");
            assert_eq!(
                reader.read(&bytes[cut..]),
                Ok(asked("shop.example.com")),
                "{cut}"
            );
        }
        let mut reader = ClientHello::default();
        let (last, before) = bytes.split_last().unwrap();
        for byte in before {
            assert_eq!(reader.read(&[*byte]), Ok(None));
        }
        assert_eq!(reader.read(&[*last]), Ok(asked("shop.example.com")));
    }

    #[test]
    fn a_hello_in_several_records_is_whole_with_the_last() {
        let bytes = hello("shop.example.com", true);
        let (head, message) = bytes.split_at(5);
        let records: Vec<u8> = message
            .chunks(20)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&head[..3], &length, part].concat()
            })
            .collect();
        let mut reader = ClientHello::default();
        assert_eq!(reader.read(&records), Ok(asked("shop.example.com")));
    }

    #[test]
    fn a_client_that_names_no_host_asks_for_none() {
        for bytes in [hello("shop.example.com", false), hello("127.0.0.1", true)] {
            let mut reader = ClientHello::default();
            assert_eq!(reader.read(&bytes), Ok(Some(Asked { host: None })));
        }
    }

    #[test]
    fn other_protocols_are_refused_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            // An alert.
            b"\x15\x03\x01\x00\x02\x02\x28",
            // A record of type handshake whose message is no ClientHello.
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        ] {
            let mut reader = ClientHello::default();
            assert!(reader.read(bytes).is_err(), "{bytes:?}");
        }
    }
}
