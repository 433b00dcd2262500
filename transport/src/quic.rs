//! quinn configurations from checked settings. Only this file passes settings to quinn.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::{self, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};

use crate::acknowledged::ObservedConfig;
use crate::congestion::TolerantConfig;
use crate::credentials::Credentials;
use crate::limits;
use crate::qlog;
use crate::receive_window::Origin;
use crate::rehearsal::Rehearsal;
use crate::steering::{Epoch, SteeredIds, Worker, initial_destination};
use crate::tls::{self, Expected};
use crate::tuning::{Congestion, TransportSettings, Tuning};

/// The protocol name of HTTP/3 (RFC 9114 section 3.1).
pub(crate) const ALPN: &[u8] = b"h3";

/// Which side keeps a connection alive: the dialling one, so that pings do not cross.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialling,
    Listening,
}

/// The key with which all endpoints of a sidecar make stateless reset tokens (RFC 9000 section
/// 10.3), so that a restarted one can tell its peers at once that their connections are gone.
#[derive(Clone)]
pub struct ResetKey([u8; Self::LENGTH]);

impl ResetKey {
    /// Bytes of the key.
    pub const LENGTH: usize = 32;

    /// A key from random bytes, which should be kept across restarts.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }
}

/// The TLS or QUIC library refused a configuration; a fault of this program or of its settings.
#[derive(Debug, thiserror::Error)]
#[error("QUIC configuration: {0}")]
pub struct ConfigurationError(String);

/// TLS of the mesh: whom both sides accept, and the certificate that they present. One for all workers of a
/// sidecar.
#[derive(Clone)]
pub struct MeshTls {
    pub(crate) credentials: Credentials,
    listening: Arc<QuicServerConfig>,
    dialling: Arc<QuicClientConfig>,
    pub(crate) rehearsal: Rehearsal,
}

impl MeshTls {
    /// Follows the credentials from now on: each handshake uses those in force.
    ///
    /// # Errors
    /// When the TLS library refuses; a fault of this program.
    pub fn new(credentials: &Credentials, tuning: &Tuning) -> Result<Self, ConfigurationError> {
        let post_quantum = tuning.settings().post_quantum;
        let listening = tls::server_config(credentials, None, ALPN, post_quantum).map_err(text)?;
        let expected = Expected::Mesh(credentials.clone());
        let dialling =
            tls::client_config(Some(credentials), expected, ALPN, post_quantum).map_err(text)?;
        let rehearsal = Rehearsal {
            server: Arc::new(listening),
            client: Arc::new(dialling),
        };
        let listening = QuicServerConfig::try_from(Arc::clone(&rehearsal.server));
        let dialling = QuicClientConfig::try_from(Arc::clone(&rehearsal.client));
        Ok(Self {
            credentials: credentials.clone(),
            listening: Arc::new(listening.map_err(text)?),
            dialling: Arc::new(dialling.map_err(text)?),
            rehearsal,
        })
    }
}

pub(crate) fn server_config(
    tls: &MeshTls,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, ConfigurationError> {
    with_crypto(Arc::clone(&tls.listening), tuning)
}

/// As [`server_config`], for handshakes while many are under way: abandoned handshakes are forgotten soon.
pub(crate) fn hurried_server_config(
    tls: &MeshTls,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, ConfigurationError> {
    let settings = tuning.settings();
    let hurried = TransportSettings {
        initial_rtt: settings.initial_rtt.min(limits::HURRIED_RTT),
        // One file for each worker and side is enough.
        qlog_dir: None,
        ..settings.clone()
    };
    server_config(tls, &hurried.validate().map_err(text)?)
}

/// The configuration of a listening side, for any demand on its clients.
pub(crate) fn listening_config(
    tls: rustls::ServerConfig,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, ConfigurationError> {
    with_crypto(
        Arc::new(QuicServerConfig::try_from(tls).map_err(text)?),
        tuning,
    )
}

fn with_crypto(
    crypto: Arc<QuicServerConfig>,
    tuning: &Tuning,
) -> Result<quinn::ServerConfig, ConfigurationError> {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport_config(tuning, Side::Listening)?))
        .migration(tuning.settings().migration)
        .max_incoming(limits::INCOMING_MAX)
        .incoming_buffer_size(limits::INCOMING_BUFFER)
        .incoming_buffer_size_total(limits::INCOMING_BUFFER_TOTAL);
    Ok(config)
}

pub(crate) fn client_config(
    tls: &MeshTls,
    tuning: &Tuning,
    worker: Worker,
) -> Result<quinn::ClientConfig, ConfigurationError> {
    let crypto = Arc::clone(&tls.dialling);
    let mut config = quinn::ClientConfig::new(crypto);
    config
        .transport_config(Arc::new(transport_config(tuning, Side::Dialling)?))
        .initial_dst_cid_provider(Arc::new(move || initial_destination(worker)));
    Ok(config)
}

pub(crate) fn endpoint_config(
    key: &ResetKey,
    worker: Worker,
    epoch: Epoch,
    tuning: &Tuning,
) -> Result<EndpointConfig, ConfigurationError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(SteeredIds { worker, epoch }));
    // quinn's default of 1472 would tell peers that larger datagrams are not accepted, and so stop their MTU
    // discovery.
    config
        .max_udp_payload_size(tuning.settings().mtu_max)
        .map_err(text)?;
    Ok(config)
}

/// The settings of a dialling side, for clients outside of the mesh.
pub(crate) fn dialling_transport(tuning: &Tuning) -> Result<TransportConfig, ConfigurationError> {
    transport_config(tuning, Side::Dialling)
}

fn transport_config(tuning: &Tuning, side: Side) -> Result<TransportConfig, ConfigurationError> {
    let settings = tuning.settings();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.mtu_max);
    let keep_alive = (side == Side::Dialling).then_some(settings.keep_alive);
    // Only a client opens request streams (RFC 9114 section 6.1).
    let (streams, origin) = match side {
        Side::Dialling => (0, Origin::Dialled),
        Side::Listening => (settings.streams, Origin::Accepted),
    };
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(settings.uni_streams.into())
        .max_idle_timeout(Some(idle_timeout(settings.idle_timeout)?))
        .keep_alive_interval(keep_alive)
        .initial_rtt(settings.initial_rtt)
        .stream_receive_window(var_int(settings.stream_window)?)
        // Both grow, see `receive_window.rs` and `send_window.rs`.
        .receive_window(var_int(origin.beginning(tuning))?)
        .send_window(limits::WINDOW_PAGE.min(settings.send_window))
        .initial_mtu(settings.mtu_initial)
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(settings.gso)
        .crypto_buffer_size(limits::CRYPTO_BUFFER)
        .datagram_receive_buffer_size(None);
    if let Some(directory) = &settings.qlog_dir {
        let side = match side {
            Side::Dialling => "dialling",
            Side::Listening => "listening",
        };
        let stream = qlog::stream(directory, side).map_err(|error| {
            let directory = directory.display();
            ConfigurationError(format!("cannot write qlog_dir {directory}: {error}"))
        })?;
        config.qlog_stream(stream);
    }
    if settings.ack_frequency > 0 {
        let mut frequency = AckFrequencyConfig::default();
        frequency.ack_eliciting_threshold(settings.ack_frequency.into());
        config.ack_frequency_config(Some(frequency));
    }
    let controllers: Arc<dyn ControllerFactory + Send + Sync> = match settings.congestion {
        Congestion::Tolerant => Arc::new(TolerantConfig::default()),
        Congestion::Cubic => Arc::new(congestion::CubicConfig::default()),
        Congestion::Bbr => Arc::new(congestion::BbrConfig::default()),
        Congestion::Newreno => Arc::new(congestion::NewRenoConfig::default()),
    };
    config.congestion_controller_factory(Arc::new(ObservedConfig(controllers)));
    Ok(config)
}

fn idle_timeout(timeout: Duration) -> Result<IdleTimeout, ConfigurationError> {
    IdleTimeout::try_from(timeout).map_err(text)
}

fn var_int(value: u64) -> Result<VarInt, ConfigurationError> {
    VarInt::from_u64(value).map_err(text)
}

fn text(error: impl std::fmt::Display) -> ConfigurationError {
    ConfigurationError(error.to_string())
}
