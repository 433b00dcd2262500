//! Reads URLs as the URL standard does (url.spec.whatwg.org): it sends what a browser would send. Pure.
//!
//! Three rules differ. A zone may stand in the brackets of an IPv6 address (RFC 6874); it says where to
//! connect and is not sent. User names are refused, because some clients send them and others drop them.
//! Names in other scripts than Latin are refused, with a hint: their tables would be the largest part of the
//! command. Not here: which schemes there are ([`super::target`]).

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What is encoded in a query of HTTP ("special-query percent-encode set").
const QUERY: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\'');

/// What is encoded in a path ("path percent-encode set").
const PATH: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Characters that no name may have ("forbidden domain code point"), besides controls.
const NOT_IN_NAMES: &str = " #/:<>?@[\\]^|%";

/// A URL, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// In small letters.
    pub scheme: String,
    /// A name or an address, without brackets; with a zone if it has one.
    pub host: String,
    /// The port, if one is written or the scheme has one.
    pub port: Option<u16>,
    /// Host and port as `Host` and `:authority` have them: without a zone, and without the scheme's own port.
    pub authority: String,
    /// Path and query, as they stand in a request line.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// The fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches(|char: char| char <= ' ');
        let text: String = text
            .chars()
            .filter(|char| !"\t\r\n".contains(*char))
            .collect();
        // `localhost:8080` would be a scheme and a path.
        let (scheme, rest) = text
            .split_once("://")
            .filter(|(scheme, _)| is_scheme(scheme))
            .ok_or("a URL needs a scheme")?;
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let rest = rest.replace('\\', "/");
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest.as_str(), ""),
        };
        let (host, port) = authority_of(authority)?;
        let default = match scheme.as_str() {
            "http" | "grpc" => Some(80),
            "https" | "grpcs" => Some(443),
            _ => None,
        };
        let named = host.without_zone();
        Ok(Self {
            authority: match port.filter(|port| Some(*port) != default) {
                Some(port) => format!("{named}:{port}"),
                None => named,
            },
            host: host.to_connect(),
            port: port.or(default),
            path: path_of(path, query),
            scheme,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

enum Host {
    Name(String),
    V6(Ipv6Addr, Option<String>),
}

impl Host {
    fn without_zone(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::V6(address, _) => format!("[{address}]"),
        }
    }

    fn to_connect(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::V6(address, None) => address.to_string(),
            Self::V6(address, Some(zone)) => format!("{address}%{zone}"),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn authority_of(text: &str) -> Result<(Host, Option<u16>), String> {
    if text.contains('@') {
        return Err("user names in URLs are not supported, use -H 'Authorization: ...'".to_owned());
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest
            .split_once(']')
            .ok_or("an address in brackets needs its ]")?;
        (v6(address)?, rest)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (host, rest) = text.split_at(end);
        (name(host)?, rest)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse();
            Some(port.map_err(|_| format!("the port {digits} is out of range: write 1 to 65535"))?)
        }
        None | Some(_) => return Err(format!("{port:?} is no port")),
    };
    Ok((host, port))
}

/// `fe80::1`, `fe80::1%eth0`, or `fe80::1%25eth0` as RFC 6874 writes it.
fn v6(text: &str) -> Result<Host, String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let parsed = address
        .parse()
        .map_err(|_| format!("{address} is no IPv6 address"))?;
    let zone = zone.map(|zone| match zone.strip_prefix("25") {
        Some(zone) if !zone.is_empty() => decoded(zone),
        Some(_) | None => Ok(Cow::Borrowed(zone)),
    });
    let zone = zone.transpose()?;
    let plain = |zone: &str| !zone.is_empty() && !zone.contains(|char: char| char <= ' ');
    if let Some(zone) = zone.as_deref()
        && (!plain(zone) || zone.contains(['/', '%']))
    {
        return Err("the zone of an IPv6 address is an interface, as [fe80::1%eth0]".to_owned());
    }
    Ok(Host::V6(parsed, zone.map(Cow::into_owned)))
}

fn name(text: &str) -> Result<Host, String> {
    let name = decoded(text)?;
    if name.is_empty() {
        return Err("no host".to_owned());
    }
    if !name.is_ascii() {
        return Err(format!(
            "the host {name} has letters that DNS does not: write it as DNS has it (xn--...)"
        ));
    }
    let name = name.to_ascii_lowercase();
    if let Some(wrong) = name
        .chars()
        .find(|char| char.is_ascii_control() || NOT_IN_NAMES.contains(*char))
    {
        return Err(format!("{wrong:?} cannot be in a host"));
    }
    // A name that ends in a number is an address of IPv4 in some notation, or invalid.
    let last = name.strip_suffix('.').unwrap_or(&name);
    let last = last.rsplit('.').next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(last) || v4_part(last).is_some() {
        let address = v4(&name).ok_or_else(|| format!("{name} is no IPv4 address"))?;
        return Ok(Host::Name(address.to_string()));
    }
    Ok(Host::Name(name))
}

/// One to four numbers; the last fills what is left (`127.1` is 127.0.0.1).
fn v4(text: &str) -> Option<Ipv4Addr> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let parts: Option<Vec<u64>> = text.split('.').map(v4_part).collect();
    let parts = parts?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 8 * (4 - leading.len());
    if *last >= 1 << room {
        return None;
    }
    let leading = leading.iter().enumerate();
    let bits = leading.fold(*last, |bits, (index, part)| bits | part << (24 - 8 * index));
    Some(Ipv4Addr::from(u32::try_from(bits).ok()?))
}

/// Decimal, octal after a zero, hexadecimal after `0x`.
fn v4_part(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(digits) = text.strip_prefix("0x") {
        (digits, 16)
    } else if text.len() > 1
        && let Some(digits) = text.strip_prefix('0')
    {
        (digits, 8)
    } else {
        (text, 10)
    };
    if digits.is_empty() && radix == 16 {
        return Some(0);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn decoded(text: &str) -> Result<Cow<'_, str>, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| format!("{text} is not UTF-8"))
}

/// A path without its first slash, and the query behind it, as they are sent.
fn path_of(path: &str, query: Option<&str>) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => {
                segments.push(part);
                continue;
            }
        }
        if is_last {
            segments.push("");
        }
    }
    let mut sent = String::new();
    for segment in &segments {
        sent.push('/');
        sent.extend(utf8_percent_encode(segment, &PATH));
    }
    if let Some(query) = query {
        sent.push('?');
        sent.extend(utf8_percent_encode(query, &QUERY));
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_sent_is_what_the_standard_says() {
        // The right column is the result of a browser's `new URL(...)`.
        for (text, sent) in [
            ("http://h?x=1", "http://h/?x=1"),
            ("HTTP://ExAmPle.COM:80", "http://example.com/"),
            ("http://h:/a", "http://h/a"),
            ("https://h:443/a", "https://h/a"),
            ("https://h:80/a", "https://h:80/a"),
            ("http://h/a b?c d", "http://h/a%20b?c%20d"),
            ("http://h/\u{e9}?\u{e9}", "http://h/%C3%A9?%C3%A9"),
            ("http://h/%7Ea?%zz", "http://h/%7Ea?%zz"),
            ("http://h/{a}|`?{b}|`'", "http://h/%7Ba%7D|%60?{b}|`%27"),
            ("http://h/a/../b/./c", "http://h/b/c"),
            ("http://h/a/%2E%2e/b/.", "http://h/b/"),
            ("http://h/../..", "http://h/"),
            ("http://h//a//", "http://h//a//"),
            ("http:///x", ""),
            ("http://h\\a\\b?c\\d", "http://h/a/b?c\\d"),
            ("http://h/a#b?c", "http://h/a"),
            ("http://h?a?b#c", "http://h/?a?b"),
            (" http://h/a\n", "http://h/a"),
            ("http://%65xample/", "http://example/"),
            ("http://127.1/", "http://127.0.0.1/"),
            ("http://0x7f.0.0.01:81/", "http://127.0.0.1:81/"),
            ("http://2130706433", "http://127.0.0.1/"),
            ("http://[0:0::1]:8080/", "http://[::1]:8080/"),
        ] {
            match Url::parse(text) {
                Ok(url) => assert_eq!(url.to_string(), sent, "{text}"),
                Err(error) => assert_eq!(sent, "", "{text}: {error}"),
            }
        }
    }

    #[test]
    fn a_zone_says_where_to_connect_and_is_not_sent() {
        for text in ["http://[fe80::1%25eth0]:81/", "http://[fe80::1%eth0]:81/"] {
            let url = parse(text);
            assert_eq!(url.host, "fe80::1%eth0", "{text}");
            assert_eq!(url.authority, "[fe80::1]:81", "{text}");
            assert_eq!(url.port, Some(81), "{text}");
        }
        // An interface whose name begins like the code of the percent sign.
        assert_eq!(parse("http://[fe80::1%25]/").host, "fe80::1%25");
        assert_eq!(parse("http://[fe80::1%2525]/").host, "fe80::1%25");
    }

    #[test]
    fn the_port_is_the_schemes_unless_one_is_written() {
        assert_eq!(parse("http://h").port, Some(80));
        assert_eq!(parse("grpcs://h/a/b").port, Some(443));
        assert_eq!(parse("tcp://h").port, None);
        assert_eq!(parse("tcp://h:80").port, Some(80));
        assert_eq!(parse("tcp://h:80").authority, "h:80");
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, why) in [
            ("127.0.0.1:8080", "scheme"),
            ("localhost:8080/", "scheme"),
            ("/a", "scheme"),
            ("1a://h", "scheme"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://u@h/", "Authorization"),
            ("http://h:65536/", "out of range"),
            ("http://h:8x/", "no port"),
            ("http://[::1/", "]"),
            ("http://[::1]x/", "no port"),
            ("http://[::g]/", "no IPv6 address"),
            ("http://[fe80::1%]/", "zone"),
            ("http://[fe80::1%25a%2fb]/", "zone"),
            ("http://b\u{fc}cher/", "xn--"),
            ("http://%ff/", "UTF-8"),
            ("http://a b/", "' ' cannot be in a host"),
            ("http://a%00b/", "cannot be in a host"),
            ("http://256.1/", "no IPv4 address"),
            ("http://1.2.3.4.5/", "no IPv4 address"),
            ("http://08/", "no IPv4 address"),
            ("http://4294967296/", "no IPv4 address"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
