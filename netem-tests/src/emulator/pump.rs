//! The thread of one direction: reads packets from one device, asks the link model when they are
//! due, and writes them to the other.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};
use weft_transport::locks::lock;

use super::capture::{Capture, Point};
use super::{Device, Lateness};
use crate::limits;
use crate::link::{Counters, Direction, Impairment, IpPacket, NatTable, Seed, Translated};

/// The direction in which packets pass a NAT.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Out,
    Back,
}

type Nat = Option<(Role, Arc<Mutex<NatTable>>)>;

/// The capture that gets a copy of each packet, if there is one.
type Captured = Option<Arc<Mutex<Capture>>>;

/// A running direction. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Pump {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Interrupts the thread's wait, for `change` and `stop`.
    wake: EventFd,
    stop: AtomicBool,
    change: Mutex<Option<Impairment>>,
    has_change: AtomicBool,
    counters: Mutex<Counters>,
    lateness: Lateness,
    real_time: AtomicBool,
}

impl Pump {
    pub(super) fn start(
        name: &str,
        devices: [Arc<Device>; 2],
        seed: Seed,
        impairment: Impairment,
        nat: Nat,
        capture: Captured,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
            change: Mutex::new(None),
            has_change: AtomicBool::new(false),
            counters: Mutex::default(),
            lateness: Lateness::default(),
            real_time: AtomicBool::new(false),
        });
        let [from, to] = devices;
        let worker = Worker {
            from,
            to,
            direction: Direction::new(seed, impairment, Instant::now()),
            nat,
            capture,
            unmapped: 0,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn set(&self, impairment: Impairment) {
        *lock(&self.shared.change) = Some(impairment);
        self.shared.has_change.store(true, Ordering::Release);
        self.shared.wake();
    }

    pub(super) fn counters(&self) -> Counters {
        *lock(&self.shared.counters)
    }

    pub(super) fn lateness(&self) -> &Lateness {
        &self.shared.lateness
    }

    pub(super) fn is_real_time(&self) -> bool {
        self.shared.real_time.load(Ordering::Relaxed)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It panics only through a fault of this crate, and has reported that then.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }
}

struct Worker {
    from: Arc<Device>,
    to: Arc<Device>,
    direction: Direction<IpPacket>,
    nat: Nat,
    capture: Captured,
    unmapped: u64,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        self.shared
            .real_time
            .store(ahead_of_others(), Ordering::Relaxed);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while !self.shared.stop.load(Ordering::Acquire) {
            if self.shared.has_change.swap(false, Ordering::AcqRel)
                && let Some(impairment) = lock(&self.shared.change).take()
            {
                self.direction.set(Instant::now(), impairment);
            }
            let more = self.read(&mut buffer);
            self.write();
            if !more {
                self.wait();
            }
        }
    }

    /// Reads packets; returns whether there may be more.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..limits::PUMP_BATCH {
            match self.from.receive(buffer) {
                Ok(Some(length)) => {
                    let packet = IpPacket::new(buffer[..length].to_vec());
                    let now = Instant::now();
                    self.see(now, Point::Sent, packet.as_bytes());
                    self.take(now, packet);
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::debug!(%error, "a TUN device gave no packet");
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, now: Instant, mut packet: IpPacket) {
        let translated = match &self.nat {
            None => Translated::Yes,
            Some((Role::Out, nat)) => lock(nat).out(now, &mut packet),
            Some((Role::Back, nat)) => lock(nat).back(&mut packet),
        };
        match translated {
            Translated::Yes => self.direction.push(now, packet),
            Translated::Unmapped => self.unmapped += 1,
        }
    }

    fn see(&self, now: Instant, point: Point, packet: &[u8]) {
        if let Some(capture) = &self.capture {
            lock(capture).take(now, point, packet);
        }
    }

    /// Hands over what is due.
    fn write(&mut self) {
        let mut now = Instant::now();
        while let Some(departure) = self.direction.poll(now) {
            if let Err(error) = self.to.send(departure.packet.as_bytes()) {
                tracing::debug!(%error, "a TUN device took no packet");
            }
            now = Instant::now();
            self.see(now, Point::Delivered, departure.packet.as_bytes());
            self.shared
                .lateness
                .record(now.saturating_duration_since(departure.due));
        }
    }

    /// Waits for a packet, a change, or the next packet's time.
    fn wait(&mut self) {
        let mut counters = self.direction.counters();
        counters.unmapped = self.unmapped;
        *lock(&self.shared.counters) = counters;
        let due = self.direction.next_due();
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        // Falling asleep and waking up again would take longer.
        if left.is_some_and(|left| left < limits::PUMP_SPIN) {
            std::hint::spin_loop();
            return;
        }
        let mut descriptors = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let left = left.unwrap_or(limits::PUMP_SLEEP_MAX);
        let left = left.min(limits::PUMP_SLEEP_MAX) - limits::PUMP_SPIN / 2;
        if ppoll(&mut descriptors, Some(TimeSpec::from_duration(left)), None).is_err() {
            // Interrupted by a signal: the loop comes back here.
            return;
        }
        if descriptors[1].any().unwrap_or(false) {
            let _ = self.shared.wake.read();
        }
        if descriptors[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
        {
            // A device that is down reports that again and again.
            let _ = ppoll(
                &mut [],
                Some(TimeSpec::from_duration(Duration::from_millis(1))),
                None,
            );
        }
    }
}

/// Makes timers of this thread precise, and gives it priority over all ordinary threads, because it stands
/// for hardware; returns whether the priority was allowed.
pub(crate) fn ahead_of_others() -> bool {
    // In nanoseconds; the default of 50 us would be added to every wait.
    let _ = nix::sys::prctl::set_timerslack(1);
    let Ok(lowest) = ThreadPriorityValue::try_from(1u8) else {
        return false;
    };
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(lowest),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
    .is_ok()
}
