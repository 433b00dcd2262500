//! A TUN device without packet headers or offloads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tun_rs::{DeviceBuilder, SyncDevice};

/// One end of an emulated link. It belongs to the network namespace of the thread that opened it; dropping it
/// removes it.
pub struct Device(SyncDevice);

impl Device {
    /// Makes a device in the calling thread's network namespace. It is down and has no address. Its queue
    /// should be made longer ([`crate::limits::TUN_QUEUE_PACKETS`]) by netlink, because the kernel does not
    /// allow that by ioctl in a user namespace.
    pub fn open(name: &str, mtu: u16) -> io::Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(mtu)
            // Without the virtio header the kernel splits super packets into packets of the wire's size and
            // completes their checksums before it delivers them.
            .offload(false)
            .packet_information(false)
            .enable(false)
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Self(device))
    }

    /// The next packet, if there is one.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // A device that is down for a moment (its address changes) has no packets.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a packet to the namespace.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.0.as_fd()).finish()
    }
}
