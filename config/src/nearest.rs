//! Finds the known word nearest to a mistyped one, for messages. Pure.

use crate::limits;

/// The candidate nearest to `word`, if it is near enough to be the intended one: at most two edits, and fewer
/// than the word has characters.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| {
            (
                distance(&word.to_lowercase(), &candidate.to_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= 2.max(candidate.len() / 4) && *distance < word.chars().count()
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance. Words longer than any field name are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > limits::COMPARED_WORD_MAX {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (above, to) in row.iter().skip(1).zip(&b) {
            left = (diagonal + usize::from(from != *to))
                .min(above + 1)
                .min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// Says that `key` is unknown, with the nearest known key or else all of them.
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(near) => format!("unknown key `{key}`: did you mean `{near}`?"),
        None if known.is_empty() => format!("unknown key `{key}`"),
        None => format!("unknown key `{key}`: known here are {}", known.join(", ")),
    }
}

/// Says that `word` is none of the known values.
pub fn unknown_word(word: &str, known: &[&str]) -> String {
    format!("unknown value `{word}`: write one of {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_field_is_found_for_small_mistakes_only() {
        let fields = ["backendRefs", "matches", "name"];
        assert_eq!(nearest("backendRfs", &fields), Some("backendRefs"));
        assert_eq!(nearest("backendrefs", &fields), Some("backendRefs"));
        assert_eq!(nearest("match", &fields), Some("matches"));
        assert_eq!(nearest("filters", &fields), None);
        assert_eq!(nearest("x", &["y"]), None);
    }

    #[test]
    fn a_typing_error_finds_its_key_and_a_stranger_none() {
        let known = ["state_dir", "workers", "inbound", "outbound"];
        assert_eq!(nearest("workres", &known), Some("workers"));
        assert_eq!(nearest("stateDir", &known), Some("state_dir"));
        assert_eq!(nearest("imbound", &known), Some("inbound"));
        assert_eq!(nearest("telemetry", &known), None);
        assert!(unknown_key("x", &known).contains("known here are"));
    }
}
