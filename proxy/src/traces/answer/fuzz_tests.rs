//! What must hold of all bytes with which a collector may answer an export. Their inputs are in
//! `proxy/fuzz/corpus/collector_answers`: the status of HTTP in two bytes, a line for `Retry-After`, the
//! message.

use http::HeaderValue;
use weft_fuzz::Target;

use super::*;

#[test]
fn an_answer_of_any_bytes_takes_rejects_or_waits_within_its_bounds() {
    let words = &[
        "type.googleapis.com/google.rpc.RetryInfo",
        "\n",
        "120",
        "Thu, 01 Jan 1970 00:00:09 GMT",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "collector_answers").words(words);
    target.run(|bytes| {
        let (status, rest) = bytes.split_at_checked(2).unwrap_or((b"\x00\xc8", bytes));
        let status = u16::from_be_bytes([status[0], status[1]]) % 500 + 100;
        let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let (after, message) = rest.split_at(line);
        let mut headers = HeaderMap::new();
        if let Ok(after) = HeaderValue::from_bytes(after) {
            headers.insert(http::header::RETRY_AFTER, after);
        }
        let status = StatusCode::from_u16(status).unwrap();
        let of_http = of_http(status, &headers, message, SystemTime::UNIX_EPOCH);
        let of_grpc = of_grpc(i32::from(rest.len() as u8 % 17), "", message);
        for answer in [&of_http, &of_grpc] {
            if let Answer::Later(Some(wait), _) = answer {
                assert!(*wait <= limits::EXPORT_RETRY_MAX);
            }
        }
        // Only success takes spans.
        assert_eq!(matches!(of_http, Answer::Taken { .. }), status.is_success());
        assert!(!matches!(of_grpc, Answer::Taken { .. }));
        let word = |answer| match answer {
            Answer::Taken { rejected, .. } => format!("taken {}", rejected.min(1)),
            Answer::Later(wait, _) => format!("later {}", wait.is_some()),
            Answer::Never(_) => "never".to_owned(),
        };
        format!("{} {}", word(of_http), word(of_grpc))
    });
}
