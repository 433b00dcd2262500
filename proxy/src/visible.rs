//! Escapes untrusted text for logs and terminals. Pure. Peers, applications and callers choose paths, hosts,
//! names and reasons. Terminals and log viewers obey some characters instead of showing them: these move the
//! cursor, begin another line, or reverse the order of the text around them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Bytes of a character as [`escape`] writes it: `\u202e`.
const ESCAPED_BYTES: usize = 6;

/// Stands in place of the part that was cut off.
const CUT: char = '…';

/// Whether a character acts on the text around it: control characters (C0, DEL, C1), those of the
/// bidirectional algorithm (UAX #9), and the separators of lines and paragraphs.
#[must_use]
pub fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text with each such character as `\uXXXX`, which is also how JSON writes it within a string.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(acts) else {
        return Cow::Borrowed(text);
    };
    let mut escaped = String::with_capacity(text.len() + ESCAPED_BYTES);
    escaped.push_str(&text[..first]);
    for character in text[first..].chars() {
        if acts(character) {
            // All of them are in the Basic Multilingual Plane; writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// The longest beginning of the text that takes at most `bytes_max` bytes within an escaped JSON string; if
/// that is not all of it, it ends with an ellipsis.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    // Escaping turns a byte into six at most, so most texts need no count.
    if text.len() <= bytes_max / ESCAPED_BYTES {
        return Cow::Borrowed(text);
    }
    let (mut bytes, mut end) = (0, 0);
    for (at, character) in text.char_indices() {
        let bytes_before = bytes;
        bytes += match character {
            '"' | '\\' => 2,
            character if acts(character) => ESCAPED_BYTES,
            character => character.len_utf8(),
        };
        if bytes > bytes_max {
            return Cow::Owned(format!("{}{CUT}", &text[..end]));
        }
        if bytes_before + CUT.len_utf8() <= bytes_max {
            end = at;
        }
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_that_acts_is_written_and_no_other() {
        for character in "\0\t\n\r\u{1b}\u{1f}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars() {
            let text = format!("a{character}b");
            let expected = format!("a\\u{:04x}b", u32::from(character));
            assert_eq!(escape(&text), expected);
            let json = format!("\"{}\"", escape(&text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        for text in [
            "",
            "plain",
            "äöü 漢字 🦀 \"quoted\" \\ …",
            "\u{a0}\u{2027}\u{202f}\u{2065}\u{206a}",
        ] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_is_cut_fits_as_json_and_ends_with_an_ellipsis() {
        for unit in [
            "a", "ä", "漢", "🦀", "\"", "\u{1}", "\u{9b}", "\u{202e}", "a\n🦀",
        ] {
            let text = unit.repeat(300);
            for bytes_max in [6, 7, 20, 64, 299, 300] {
                let cut = cut(&text, bytes_max);
                let json = serde_json::to_string(&cut).unwrap();
                let json = escape(&json);
                assert!(json.len() - 2 <= bytes_max, "{unit:?} {bytes_max}: {json}");
                if cut.len() < text.len() {
                    let kept = cut.strip_suffix(CUT).unwrap();
                    assert!(text.starts_with(kept));
                }
            }
        }
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc…");
    }
}
