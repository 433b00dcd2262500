//! Identity, TLS, QUIC and HTTP/3 between sidecars
