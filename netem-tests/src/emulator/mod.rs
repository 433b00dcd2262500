//! Runs the link model between two TUN devices, one thread for each direction.
//!
//! - `device.rs`: a TUN device without offloads: every packet is separate and has its checksum.
//! - `pump.rs`: the thread that reads, asks the model, waits and writes.
//! - `capture.rs`: the last packets, for people who look for a fault.
//! - `lateness.rs`: how late packets were written, compared with the model's times.
//!
//! A TUN device has no back-pressure: when the thread falls behind, the device's queue overflows and the
//! kernel counts drops, which [`crate::lab::Health`] reports beside the lateness.

mod capture;
mod device;
mod lateness;
mod pump;

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use capture::Capture;
pub use device::Device;
pub use lateness::Lateness;
pub(crate) use pump::ahead_of_others;

use crate::link::{Counters, End, Impairment, NatTable, Seed};
use pump::Pump;
use weft_transport::locks;

/// A link between two devices. Dropping it ends its threads.
#[derive(Debug)]
pub struct Emulator {
    /// By the end at which packets enter.
    pumps: [Pump; 2],
    nat: Option<Arc<Mutex<NatTable>>>,
    /// Parallel to `pumps`, each with its name.
    captures: Option<[(String, Arc<Mutex<Capture>>); 2]>,
}

impl Emulator {
    /// Starts the threads. `nat` is the end that is inside, and the address outside. `capture` names the
    /// directions by their first ends, if their last packets are to be kept.
    pub fn start(
        name: &str,
        devices: [Device; 2],
        seed: Seed,
        impairments: [Impairment; 2],
        nat: Option<(End, Ipv4Addr)>,
        capture: Option<[String; 2]>,
    ) -> io::Result<Self> {
        let captures = capture.map(|names| {
            names.map(|name| {
                let ring = Capture::new(Instant::now(), SystemTime::now());
                (name, Arc::new(Mutex::new(ring)))
            })
        });
        let [first, second] = devices.map(Arc::new);
        let table = nat.map(|(_, outside)| Arc::new(Mutex::new(NatTable::new(outside))));
        let [outward, inward] = impairments;
        let start = |from: End, to_and_fro: [&Arc<Device>; 2], impairment| {
            let role = nat.map(|(inside, _)| match inside == from {
                true => pump::Role::Out,
                false => pump::Role::Back,
            });
            Pump::start(
                &format!("{name}-{}", from.index()),
                to_and_fro.map(Arc::clone),
                seed.of(name, from),
                impairment,
                role.zip(table.clone()),
                captures
                    .as_ref()
                    .map(|captures| Arc::clone(&captures[from.index()].1)),
            )
        };
        Ok(Self {
            pumps: [
                start(End::First, [&first, &second], outward)?,
                start(End::Second, [&second, &first], inward)?,
            ],
            nat: table,
            captures,
        })
    }

    /// Changes the impairment of packets that enter at `from`. It holds within the time that the thread needs
    /// to wake up, some tens of microseconds.
    pub fn set(&self, from: End, impairment: Impairment) {
        self.pumps[from.index()].set(impairment);
    }

    /// The counts of packets that entered at `from`.
    pub fn counters(&self, from: End) -> Counters {
        self.pumps[from.index()].counters()
    }

    /// The last packets of both directions as a file of pcapng, if they were kept.
    pub fn take_capture(&self) -> Option<Vec<u8>> {
        let lock = |ring: &'_ Arc<Mutex<Capture>>| {
            let empty = Capture::new(Instant::now(), SystemTime::now());
            let mut ring = locks::lock(ring);
            std::mem::replace(&mut *ring, empty)
        };
        let [first, second] = self.captures.as_ref()?;
        // Moved out, so that the threads need not wait for the writing.
        let (there, back) = (lock(&first.1), lock(&second.1));
        let rings = [(first.0.clone(), &there), (second.0.clone(), &back)];
        Some(capture::pcapng(&rings))
    }

    /// How late packets that entered at `from` were delivered.
    pub fn lateness(&self, from: End) -> &Lateness {
        self.pumps[from.index()].lateness()
    }

    /// Whether both threads have priority over all ordinary ones (SCHED_FIFO).
    pub fn is_real_time(&self) -> bool {
        self.pumps.iter().all(Pump::is_real_time)
    }

    /// Makes the NAT forget its mappings and use `outside` from here on; false if there is no NAT.
    pub fn rebind(&self, outside: impl FnOnce(Ipv4Addr) -> Ipv4Addr) -> bool {
        let Some(nat) = &self.nat else {
            return false;
        };
        let mut nat = locks::lock(nat);
        let outside = outside(nat.outside());
        nat.rebind(outside);
        true
    }
}

/// The lateness of several directions as one: median, 99th percentile and the worst.
pub fn worst<'a>(all: impl IntoIterator<Item = &'a Lateness>) -> (u64, [Duration; 3]) {
    let total = Lateness::default();
    for lateness in all {
        total.add(lateness);
    }
    (
        total.count(),
        [total.quantile(0.5), total.quantile(0.99), total.max()],
    )
}
