//! The name of a conformance test: first the ids of the cases that it judges, then what holds, as
//! `m1_g4_requests_go_where_the_path_leads`. The one place that says which test judges which case: the page
//! is made from it. Also a module of `tests/documentation`, which knows all names from the sources.

/// The cases of a test, as `M1`, and what holds. No case where the name begins with none.
pub(super) fn cases_of(name: &str) -> (Vec<String>, String) {
    let words: Vec<&str> = name.split('_').collect();
    let count = words.iter().take_while(|word| is_case(word)).count();
    let (cases, what) = words.split_at(count);
    let cases = cases.iter().map(|case| case.to_uppercase());
    (cases.collect(), what.join(" "))
}

/// A group in one letter and a number.
fn is_case(word: &str) -> bool {
    let (group, number) = word.split_at(usize::from(!word.is_empty()));
    let is_group = group.chars().all(|letter| letter.is_ascii_lowercase());
    is_group && !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
}

#[test]
fn a_name_has_its_cases_before_its_words() {
    let (cases, what) = cases_of("m1_x12_a_b4_c");
    assert_eq!(
        (cases, what.as_str()),
        (vec!["M1".into(), "X12".into()], "a b4 c")
    );
    assert_eq!(cases_of("no_case"), (Vec::new(), "no case".to_owned()));
}
