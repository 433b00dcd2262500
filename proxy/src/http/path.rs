//! Which paths a policy may judge. Pure.
//!
//! weft never rewrites a path: the policy sees exactly the bytes that the application gets. Applications
//! differ in how they decode and resolve paths, so where a policy has a path condition, a path that could
//! mean two things is refused (403), whatever the rules say. Where no path condition applies, any path
//! passes untouched.

/// Why a path is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguous {
    /// `//`, which some merge.
    EmptySegment,
    /// `.` or `..`, plain, encoded or with parameters, which some resolve.
    DotSegment,
    /// A backslash, which some take for a slash.
    Backslash,
    /// `;`, which some cut off with what follows.
    Parameter,
    /// `%` with something that some decode: a slash, backslash, NUL, or a character that needs no encoding.
    Encoding,
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
            Self::Bytes => "path has bytes outside printable ASCII and a policy judges paths",
            Self::Relative => "path is not absolute and a policy judges paths",
        }
    }
}

/// Whether every application reads `path` (without query) the same way.
pub(crate) fn check(path: &str) -> Result<(), Ambiguous> {
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
                // `%2e` and `%61` are `.` and `a` to most; `%25` begins a second decoding for some.
                let harmless = !(decoded.is_ascii_alphanumeric()
                    || matches!(
                        decoded,
                        b'-' | b'.' | b'_' | b'~' | b'/' | b'\\' | b';' | b'%'
                    )
                    || decoded.is_ascii_control());
                if !harmless {
                    return Err(Ambiguous::Encoding);
                }
            }
            _ => return Err(Ambiguous::Bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_clear() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a.b/c..d",
            "/orders/1",
            "/caf%C3%A9",
            "/a%20b",
            "/a+b,c=d",
            "/.well-known/x",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
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
