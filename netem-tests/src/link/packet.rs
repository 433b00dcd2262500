//! The facts about a packet that the link model needs. Pure.

/// A packet on a link: an IP packet of the emulator, or a datagram of a test in memory.
pub trait Packet: Clone {
    /// Bytes that it takes on the wire.
    fn length(&self) -> usize;

    /// Its UDP ports (source, destination), if it is UDP.
    fn udp_ports(&self) -> Option<(u16, u16)>;

    /// The bytes of the application, which corruption damages; empty if there are none.
    fn payload(&mut self) -> &mut [u8];

    /// Corrects checksums after `payload` has changed.
    fn fix_checksum(&mut self);
}
