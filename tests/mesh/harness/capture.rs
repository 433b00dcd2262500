//! The traffic that an eavesdropper on a wire sees: tcpdump's file, read back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::network::{Namespace, Wire};
use super::process::Process;

/// A capture in progress.
pub(crate) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// The kind of a packet that crossed the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packet {
    Arp,
    /// Protocol name and the two ports.
    Ports(&'static str, u16, u16),
    Other(String),
}

impl Capture {
    /// Listens at one end of the wire.
    pub(crate) fn start(end: &Namespace, folder: &Path) -> Self {
        let file = folder.join("wire.pcap");
        let mut command = end.command("tcpdump");
        // Unbuffered, whole packets, a kernel buffer for bursts, and root keeps its rights.
        command
            .args(["-i", Wire::INTERFACE, "-U", "--immediate-mode"])
            .args(["-s", "0", "-B", "65536"])
            .args(["-Z", "root", "-w"])
            .arg(&file);
        let mut tcpdump = Process::spawn("tcpdump", folder, &mut command);
        tcpdump.wait_for_line("listening on");
        Self { tcpdump, file }
    }

    /// Whether these bytes were captured already.
    pub(crate) fn has(&self, wanted: &[u8]) -> bool {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        bytes.windows(wanted.len()).any(|part| part == wanted)
    }

    /// Ends the capture: each packet's kind and bytes.
    pub(crate) fn finish(mut self) -> Vec<(Packet, Vec<u8>)> {
        self.tcpdump.signal(Signal::SIGINT);
        self.tcpdump.wait_exit(Duration::from_secs(10));
        let log = self.tcpdump.log();
        assert!(log.contains("\n0 packets dropped by kernel"), "{log}");
        let bytes = std::fs::read(&self.file).unwrap();
        packets(&bytes)
    }
}

/// The packets of a pcap file (draft-ietf-opsawg-pcap): a header of 24 bytes, then records with a
/// header of 16, whose third word is the captured length.
fn packets(file: &[u8]) -> Vec<(Packet, Vec<u8>)> {
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        let frame = &rest[16..16 + length];
        packets.push((classify(frame), frame.to_vec()));
        rest = &rest[16 + length..];
    }
    packets
}

fn classify(frame: &[u8]) -> Packet {
    match (frame[12], frame[13]) {
        (0x08, 0x06) => Packet::Arp,
        (0x08, 0x00) => {
            let ip = &frame[14..];
            let payload = &ip[usize::from(ip[0] & 0x0f) * 4..];
            let name = match ip[9] {
                6 => "tcp",
                17 => "udp",
                other => return Packet::Other(format!("IP protocol {other}")),
            };
            let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            Packet::Ports(name, port(0), port(2))
        }
        (high, low) => Packet::Other(format!("EtherType {high:02x}{low:02x}")),
    }
}
