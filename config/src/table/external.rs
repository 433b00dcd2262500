//! Services outside of the mesh, as a sidecar reaches them, and which addresses their names may lead to.
//! Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServiceName;

/// How a service outside of the mesh is reached. A service that has this has no workloads, and no connection
/// to it is one of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Names by which applications mean it, in lower case. The first is what a request says that names it
    /// otherwise.
    pub hosts: Vec<String>,
    /// Its addresses. If there are none, the first host is resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Ranges that its name may lead to although they are not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ranges: Vec<AddressRange>,
    /// The ports on which the sidecar speaks TLS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<u16, ExternalTls>,
    /// The service of the mesh whose sidecars send its traffic outside; none where each caller's own sidecar
    /// does. A caller's table has the endpoints of that service at the ports, and of this type only the
    /// hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
}

/// The service of the mesh that the traffic of a service outside is sent through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Via {
    /// Its name.
    pub service: ServiceName,
    /// The port of it that each port of the service outside is sent through. One that is not here leads
    /// nowhere.
    pub ports: BTreeMap<u16, u16>,
    /// Whether this sidecar serves it: then it sends outside what callers send here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub here: bool,
}

/// TLS towards a service outside of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalTls {
    /// What its certificate must prove.
    pub server_name: String,
    /// The file of roots; those of the system if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// What is shown to a server that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ClientCertificate>,
}

/// Files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The chain, the leaf first.
    pub chain: String,
    /// The private key.
    pub key: String,
}

/// What becomes of a request for a name outside of the mesh.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Egress {
    /// it is refused with 503.
    #[default]
    Deny,
    /// it passes as with `Allow`, and the log names what `Deny` would refuse.
    Observe,
    /// it is sent to a public address of the name, without TLS. `weft_egress_passed_total` counts these.
    Allow,
}

impl Egress {
    /// Whether it is the default, which is left out where it is written.
    pub fn is_deny(&self) -> bool {
        *self == Self::Deny
    }
}

impl External {
    /// Whether the sidecar that has this in its table sends to it by itself, for its own workload or for
    /// callers, and so resolves its name.
    pub fn is_sent_from_here(&self) -> bool {
        self.via.as_ref().is_none_or(|via| via.here)
    }

    /// What a caller needs to know whose own sidecar does not send outside: its names, and through what.
    pub fn seen_by_callers(&self) -> Self {
        Self {
            hosts: self.hosts.clone(),
            via: self.via.clone(),
            ..Self::default()
        }
    }

    /// Whether its name may lead to this address. Ask at each dial: the answer of a resolver is not to be
    /// trusted.
    pub fn permits(&self, address: IpAddr) -> bool {
        is_public(address)
            || self
                .allowed_ranges
                .iter()
                .any(|range| range.contains(address))
    }
}

/// Addresses that begin with the same bits, written `10.20.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    base: IpAddr,
    bits: u8,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// It is not an address, a slash and a number.
    #[error("a range is ADDRESS/BITS")]
    Form,
    /// More bits than an address has.
    #[error("an address of that family has {0} bits")]
    Bits(u8),
    /// Bits behind the range are set.
    #[error("the range begins at {0}")]
    Base(IpAddr),
}

impl AddressRange {
    /// Whether the address is in it. An IPv4 address in the form of IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()) & mask_4(self.bits) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()) & mask_6(self.bits) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn mask_4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let (base, bits) = text.split_once('/').ok_or(AddressRangeError::Form)?;
        let base: IpAddr = base.parse().map_err(|_| AddressRangeError::Form)?;
        let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u8 = match bits.parse() {
            Ok(bits) if is_number => bits,
            Ok(_) | Err(_) => return Err(AddressRangeError::Form),
        };
        let most = if base.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(AddressRangeError::Bits(most));
        }
        let first = match base {
            IpAddr::V4(base) => IpAddr::V4((base.to_bits() & mask_4(bits)).into()),
            IpAddr::V6(base) => IpAddr::V6((base.to_bits() & mask_6(bits)).into()),
        };
        if first != base {
            return Err(AddressRangeError::Base(first));
        }
        // A range of IPv4 in the form of IPv6 would contain nothing: addresses are compared in their own
        // form.
        if base.to_canonical() != base {
            return Err(AddressRangeError::Form);
        }
        Ok(Self { base, bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressRangeError;

    fn try_from(text: String) -> Result<Self, AddressRangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

/// Whether an address is one of the public internet: none of this host, of a private network, of a link, of a
/// cloud's metadata service, or reserved (the special-purpose registries of RFC 6890). An IPv6 address that
/// carries an IPv4 address is judged by that one.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_4(address),
        IpAddr::V6(address) => is_public_6(address),
    }
}

/// Ranges of IPv4 that are not public.
const SPECIAL_4: &[([u8; 4], u8)] = &[
    // "This network", loopback, link-local with the metadata services of most clouds.
    ([0, 0, 0, 0], 8),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    // Private use (RFC 1918), and between carriers and customers (RFC 6598).
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([100, 64, 0, 0], 10),
    // Protocol assignments, documentation, benchmarks, relays of 6to4.
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([198, 18, 0, 0], 15),
    ([192, 88, 99, 0], 24),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    // The host agent of Azure, whose address is otherwise a public one.
    ([168, 63, 129, 16], 32),
];

fn is_public_4(address: Ipv4Addr) -> bool {
    !SPECIAL_4.iter().any(|(base, bits)| {
        let base = u32::from_be_bytes(*base);
        (base ^ address.to_bits()) & mask_4(*bits) == 0
    })
}

fn is_public_6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, c, d] = [
        segments[6] >> 8,
        segments[6] & 255,
        segments[7] >> 8,
        segments[7] & 255,
    ]
    .map(|part| u8::try_from(part).unwrap_or(0));
    let last = Ipv4Addr::new(a, b, c, d);
    let of_6to4 = Ipv4Addr::from_bits(u32::from(segments[1]) << 16 | u32::from(segments[2]));
    match segments {
        // Mapped (RFC 4291), and translated by the well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_public_4(last),
        // 6to4 (RFC 3056).
        [0x2002, ..] => is_public_4(of_6to4),
        // Teredo carries addresses of both ends in a form of its own; documentation, benchmarks, ORCHID.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Only 2000::/3 is assigned to the internet: not loopback, link-local, unique local, multicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_addresses_of_the_internet_are_public_in_any_form_of_ipv6() {
        for special in [
            "0.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
        ] {
            assert!(!is_public(address(special)), "{special}");
        }
        for public in [
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "168.63.129.17",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(address(public)), "{public}");
        }
    }

    #[test]
    fn a_range_contains_addresses_of_its_family_in_any_form() {
        let range: AddressRange = "10.20.0.0/16".parse().unwrap();
        assert!(range.contains(address("10.20.255.1")));
        assert!(range.contains(address("::ffff:10.20.0.1")));
        assert!(!range.contains(address("10.21.0.0")));
        assert!(!range.contains(address("::10.20.0.1")));
        let all: AddressRange = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(address("127.0.0.1")) && !all.contains(address("::1")));
        let one: AddressRange = "fd00::1/128".parse().unwrap();
        assert!(one.contains(address("fd00::1")) && !one.contains(address("fd00::2")));
    }

    #[test]
    fn a_range_that_is_not_one_says_why() {
        let error = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        assert_eq!(error("10.0.0.0"), "a range is ADDRESS/BITS");
        assert_eq!(error("10.0.0.0/+8"), "a range is ADDRESS/BITS");
        assert_eq!(
            error("10.0.0.0/33"),
            "an address of that family has 32 bits"
        );
        assert_eq!(error("10.0.0.1/8"), "the range begins at 10.0.0.0");
        assert_eq!(error("::ffff:10.0.0.0/104"), "a range is ADDRESS/BITS");
    }

    #[test]
    fn a_name_may_lead_to_public_addresses_and_to_ranges_that_are_listed() {
        let external = External {
            allowed_ranges: vec!["127.0.0.0/8".parse().unwrap()],
            ..External::default()
        };
        assert!(external.permits(address("127.0.0.1")));
        assert!(external.permits(address("::ffff:127.0.0.1")));
        assert!(external.permits(address("1.1.1.1")));
        assert!(!external.permits(address("10.0.0.1")));
        assert!(!External::default().permits(address("::ffff:127.0.0.1")));
    }
}
