//! Which paths a policy may judge. Pure.
//!
//! The serving sidecar never rewrites a path (a route of the caller may have, before): the policy sees
//! exactly the bytes that the application gets. Applications differ in how they decode, trim and resolve
//! paths. So a path with more than one reading is refused (403) where a policy has a path condition, whatever
//! the rules say. Where no path condition applies, any path passes untouched. docs/protocol.md states the
//! rule.

use percent_encoding::percent_decode_str;
use weft_config::table::PathCase;

/// Why a path is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguous {
    /// `//`, which some merge.
    EmptySegment,
    /// `.` or `..`, plain, encoded or with parameters, which some resolve.
    DotSegment,
    /// A backslash, which some read as a slash.
    Backslash,
    /// `;`, which some cut off with the text after it.
    Parameter,
    /// `%` before an encoding that some decode into a character that structures a path, before a character
    /// that needs no encoding, or before bytes that are not UTF-8, which decoders handle in different ways.
    Encoding,
    /// Encoded white space at the beginning or end of a segment, which some trim.
    WhiteSpace,
    /// A character that becomes an ASCII letter where case is ignored.
    Folding,
    /// A byte outside printable ASCII.
    Bytes,
    /// Not of the form `/...`.
    Relative,
}

impl Ambiguous {
    /// For the answer's detail.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::EmptySegment => "path has an empty segment and a policy judges paths",
            Self::DotSegment => "path has a dot segment and a policy judges paths",
            Self::Backslash => "path has a backslash and a policy judges paths",
            Self::Parameter => "path has a parameter and a policy judges paths",
            Self::Encoding => "path has an ambiguous encoding and a policy judges paths",
            Self::WhiteSpace => {
                "path has a segment that could be trimmed and a policy judges paths"
            }
            Self::Folding => "path has a letter whose case is ambiguous and a policy judges paths",
            Self::Bytes => "path has bytes outside printable ASCII and a policy judges paths",
            Self::Relative => "path is not absolute and a policy judges paths",
        }
    }
}

/// Whether every application reads `path` (without query) in the same way, given its `case` rule.
pub(crate) fn check(path: &str, case: PathCase) -> Result<(), Ambiguous> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Ambiguous::Relative);
    };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        check_bytes(segment.as_bytes())?;
        match segment {
            "" if !last => return Err(Ambiguous::EmptySegment),
            "." | ".." => return Err(Ambiguous::DotSegment),
            _ => {}
        }
        if segment.contains('%') {
            check_decoded(segment, case)?;
        }
    }
    Ok(())
}

fn check_bytes(segment: &[u8]) -> Result<(), Ambiguous> {
    let mut bytes = segment.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => return Err(Ambiguous::Backslash),
            b';' => return Err(Ambiguous::Parameter),
            0x21..=0x7e if *byte != b'%' => {}
            b'%' => {
                let digit =
                    |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(Ambiguous::Encoding);
                };
                let decoded = u8::try_from(high * 16 + low).unwrap_or(0);
                // Most applications read `%2e` and `%61` as `.` and `a`. `%23` and `%3f` end the path if it
                // is parsed a second time, and `%25` begins a second decoding.
                let needless =
                    decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~');
                let structure = matches!(decoded, b'/' | b'\\' | b';' | b'%' | b'#' | b'?');
                if needless || structure || decoded.is_ascii_control() {
                    return Err(Ambiguous::Encoding);
                }
            }
            _ => return Err(Ambiguous::Bytes),
        }
    }
    Ok(())
}

/// Patterns that span several bytes.
fn check_decoded(segment: &str, case: PathCase) -> Result<(), Ambiguous> {
    // Decoders turn overlong forms, surrogates and other bytes that are not UTF-8 into different characters.
    let Ok(text) = percent_decode_str(segment).decode_utf8() else {
        return Err(Ambiguous::Encoding);
    };
    let is_trimmed = |c: Option<char>| c.is_some_and(|c| c.is_whitespace() || c == BYTE_ORDER_MARK);
    if is_trimmed(text.chars().next()) || is_trimmed(text.chars().next_back()) {
        return Err(Ambiguous::WhiteSpace);
    }
    for c in text.chars().filter(|c| !c.is_ascii()) {
        if c.is_control() {
            return Err(Ambiguous::Encoding);
        }
        // The Kelvin sign, the long s, and the i with and without dot.
        let folds = || {
            c.to_lowercase()
                .chain(c.to_uppercase())
                .any(|c| c.is_ascii())
        };
        if case == PathCase::Insensitive && folds() {
            return Err(Ambiguous::Folding);
        }
    }
    Ok(())
}

/// JavaScript's `trim` treats it as white space.
const BYTE_ORDER_MARK: char = '\u{feff}';

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str) -> Result<(), Ambiguous> {
        super::check(path, PathCase::Sensitive)
    }

    #[test]
    fn plain_paths_are_clear() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a.b/c..d",
            "/orders/1",
            "/caf%C3%A9",
            "/%E4%B8%AD%E6%96%87",
            "/a%20b",
            "/a%5Bb%5D%22%3C%26%2B%3D%40%3A",
            "/a+b,c=d",
            "/ADMIN",
            "/%E2%84%AA",
            "/.well-known/x",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn letters_that_fold_into_ascii_are_ambiguous_only_where_case_is_ignored() {
        for path in ["/%E2%84%AAey", "/u%C5%BFer", "/adm%C4%B1n", "/%C4%B0d"] {
            let insensitive = super::check(path, PathCase::Insensitive);
            assert_eq!(insensitive, Err(Ambiguous::Folding), "{path}");
            assert_eq!(check(path), Ok(()), "{path}");
        }
        assert_eq!(super::check("/caf%C3%89", PathCase::Insensitive), Ok(()));
    }

    #[test]
    fn paths_with_two_readings_are_ambiguous() {
        for (path, why) in [
            ("//a", Ambiguous::EmptySegment),
            ("/a//b", Ambiguous::EmptySegment),
            ("/a/../b", Ambiguous::DotSegment),
            ("/a/.", Ambiguous::DotSegment),
            ("/a/%2e%2e/b", Ambiguous::Encoding),
            ("/a/..;/b", Ambiguous::Parameter),
            ("/a%2fb", Ambiguous::Encoding),
            ("/a%5Cb", Ambiguous::Encoding),
            ("/a\\b", Ambiguous::Backslash),
            ("/%61dmin", Ambiguous::Encoding),
            ("/a%00", Ambiguous::Encoding),
            ("/a%252fb", Ambiguous::Encoding),
            ("/a%23b", Ambiguous::Encoding),
            ("/a%3Fb", Ambiguous::Encoding),
            ("/%c0%afadmin", Ambiguous::Encoding),
            ("/%c1%a1dmin", Ambiguous::Encoding),
            ("/%e0%80%af", Ambiguous::Encoding),
            ("/%ed%a0%80", Ambiguous::Encoding),
            ("/a%ff", Ambiguous::Encoding),
            ("/a%c2%85b", Ambiguous::Encoding),
            ("/admin%20", Ambiguous::WhiteSpace),
            ("/%20admin", Ambiguous::WhiteSpace),
            ("/admin%20/x", Ambiguous::WhiteSpace),
            ("/admin%C2%A0", Ambiguous::WhiteSpace),
            ("/admin%EF%BB%BF", Ambiguous::WhiteSpace),
            ("/admin%09", Ambiguous::Encoding),
            ("/a%", Ambiguous::Encoding),
            ("/a%zz", Ambiguous::Encoding),
            ("/ä", Ambiguous::Bytes),
            ("*", Ambiguous::Relative),
            ("", Ambiguous::Relative),
        ] {
            assert_eq!(check(path), Err(why), "{path}");
        }
    }
}
