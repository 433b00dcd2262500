//! Records how many of the bytes sent to a peer it has acknowledged. quinn reports that only to the
//! congestion controller, so [`Observed`] wraps each controller and records it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use crate::limits::ACKNOWLEDGEMENT_MAX;

/// The state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Nothing is on its way.
    pub(crate) all: bool,
    /// Bytes so far, of packets.
    pub(crate) bytes: u64,
    /// The bytes that this allows in flight.
    pub(crate) congestion_window: u64,
}

impl Acknowledged {
    /// The bytes that the peer of `connection` has acknowledged.
    pub(crate) fn of(connection: &quinn::Connection) -> Self {
        let controller = connection.congestion_state().into_any();
        let Ok(observed) = controller.downcast::<Observed>() else {
            // Of a configuration that is not this crate's.
            return Self {
                all: false,
                bytes: 0,
                congestion_window: 0,
            };
        };
        Self {
            all: observed.heard.all.load(Ordering::Relaxed),
            bytes: observed.heard.bytes.load(Ordering::Relaxed),
            congestion_window: observed.controller.window(),
        }
    }
}

/// How many frames were sent that a peer must acknowledge. While acknowledgements are overdue, probes are
/// among them: they are sent as PING, or as IMMEDIATE_ACK to peers that know it (RFC 9002 section 6.2).
pub(crate) fn asked_for(connection: &quinn::Connection) -> u64 {
    let frames = connection.stats().frame_tx;
    frames.stream + frames.reset_stream + frames.stop_sending + frames.ping + frames.immediate_ack
}

/// Makes [`Observed`] controllers.
pub(crate) struct ObservedConfig(pub(crate) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for ObservedConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Observed {
            controller: Arc::clone(&self.0).build(now, current_mtu),
            heard: Arc::default(),
        })
    }
}

/// A congestion controller, and the record of what it is told.
pub(crate) struct Observed {
    pub(crate) controller: Box<dyn Controller>,
    /// Shared with clones, which quinn makes for callers and for new paths.
    heard: Arc<Acknowledgements>,
}

#[derive(Default)]
struct Acknowledgements {
    all: AtomicBool,
    bytes: AtomicU64,
}

impl Controller for Observed {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        // This side's acknowledgements are not acknowledged themselves.
        if bytes > ACKNOWLEDGEMENT_MAX {
            self.heard.all.store(false, Ordering::Relaxed);
        }
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.heard.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.heard.all.store(in_flight == 0, Ordering::Relaxed);
        self.controller
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.controller
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.controller.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            controller: self.controller.clone_box(),
            heard: Arc::clone(&self.heard),
        })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
