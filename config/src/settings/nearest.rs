//! The known word nearest to a mistyped one, for messages. Pure.

/// Words further apart than this many edits are not suggested.
const EDITS_MAX: usize = 3;

/// The candidate with the fewest edits from `word`, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= EDITS_MAX.min(candidate.len().max(2) / 2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Says that `key` is unknown, with the nearest known key or else all of them.
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key `{key}`: did you mean `{near}`?"),
        None if known.is_empty() => format!("unknown key `{key}`"),
        None => format!("unknown key `{key}`: known here are {}", known.join(", ")),
    }
}

/// Says that `word` is none of the known values.
pub(super) fn unknown_word(word: &str, known: &[&str]) -> String {
    format!("unknown value `{word}`: write one of {}", known.join(", "))
}

/// Levenshtein distance over bytes, with one row of memory; `_` and `-` count as equal.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let same = x.eq_ignore_ascii_case(&y)
                || (matches!(x, b'-' | b'_') && matches!(y, b'-' | b'_'));
            let substituted = diagonal + usize::from(!same);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_key_and_a_stranger_none() {
        let known = ["state_dir", "workers", "inbound", "outbound"];
        assert_eq!(nearest("workres", known), Some("workers"));
        assert_eq!(nearest("stateDir", known), Some("state_dir"));
        assert_eq!(nearest("imbound", known), Some("inbound"));
        assert_eq!(nearest("telemetry", known), None);
        assert!(unknown_key("x", &known).contains("known here are"));
    }
}
