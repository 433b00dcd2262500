//! What must hold of all texts that a workload may be given as its join token, and of all bytes that a caller
//! may send as a certificate request. Their inputs are in `ca/fuzz/corpus`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use weft_fuzz::Target;

use crate::csr::{CsrError, ProvenKey};
use crate::limits::{ADDRESSES_MAX, CSR_BYTES_MAX};
use crate::token::{JoinToken, TokenError, check_address};

/// Characters of a text that an error may repeat: what a token is mistaken for may be a secret.
const REPEATED_MAX: usize = 32;

fn target(name: &'static str) -> Target {
    Target::new(env!("CARGO_MANIFEST_DIR"), name)
}

/// What the property of tokens says of this text.
fn judge(text: &str) -> &'static str {
    let token = match text.parse::<JoinToken>() {
        Ok(token) => token,
        Err(error) => {
            let said = error.to_string();
            let known = text.trim();
            let repeated = (REPEATED_MAX..known.len())
                .filter_map(|end| known.get(end - REPEATED_MAX..end))
                .find(|part| said.contains(part));
            assert_eq!(repeated, None, "{said}");
            return match error {
                TokenError::Empty => "empty",
                TokenError::Prefix => "prefix",
                TokenError::Version(_) => "version",
                TokenError::Several => "several",
                TokenError::TooLong => "too long",
                TokenError::Damaged(_) => "damaged",
            };
        }
    };
    assert!((1..=ADDRESSES_MAX).contains(&token.addresses.len()));
    for address in &token.addresses {
        assert_eq!(check_address(address), Ok(()));
    }
    let secret = URL_SAFE_NO_PAD.encode(token.secret.as_bytes());
    assert!(!format!("{token:?} {:?}", token.secret).contains(&secret));
    assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
    "a token"
}

/// An input is the text of a token.
#[test]
fn a_text_is_a_token_that_is_written_as_it_was_read_or_is_refused_without_being_repeated() {
    let property = |input: &[u8]| judge(&String::from_utf8_lossy(input));
    let words = &["weft-join-v", ".", "1.", " ", "\n", "=", "e30"];
    let seen = target("join_tokens")
        .words(words)
        .rounds(10_000)
        .run(property);
    seen.expect("a token").expect("version").expect("several");
}

/// An input is what a token's text encodes.
#[test]
fn the_content_of_a_token_is_one_or_is_refused() {
    let property = |input: &[u8]| judge(&format!("weft-join-v1.{}", URL_SAFE_NO_PAD.encode(input)));
    let words = &[
        "\"ca\"",
        "\"anchor\"",
        "\"id\"",
        "\"secret\"",
        "[]",
        ",",
        "0.0.0.0:1",
        "[::]:1",
        "spiffe://",
        "\\u0000",
        "%",
        "null",
        ":0",
        "/",
        "..",
    ];
    let seen = target("join_token_contents")
        .words(words)
        .rounds(10_000)
        .run(property);
    seen.expect("a token").expect("damaged");
}

/// An input is a request in DER.
#[test]
fn a_certificate_request_is_taken_whole_and_signed_or_not_at_all() {
    let property = |input: &[u8]| {
        let key = match ProvenKey::from_csr(input) {
            Ok(key) => key,
            Err(error) => {
                assert_eq!(error == CsrError::TooLarge, input.len() > CSR_BYTES_MAX);
                return format!("{error:?}");
            }
        };
        let longer = [input, &[0]].concat();
        let shorter = &input[..input.len() - 1];
        for other in [&longer, shorter] {
            assert!(ProvenKey::from_csr(other).is_err());
        }
        assert_eq!(key.hash().to_string().parse(), Ok(key.hash()));
        "taken".to_owned()
    };
    let seen = target("certificate_requests")
        .longest(20_000)
        .rounds(5000)
        .run(property);
    seen.expect("taken")
        .expect("SignatureWrong")
        .expect("KeyUnsupported")
        .expect("TooLarge");
}
