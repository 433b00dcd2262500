//! What must hold of all bytes with which an application may answer a question of gRPC about its health.
//! Their inputs are in `proxy/fuzz/corpus/grpc_health`.

use weft_fuzz::Target;

use super::*;

/// The same message, written by the rules of protobuf.
fn written(status: u8) -> Vec<u8> {
    match status {
        0 => vec![0, 0, 0, 0, 0],
        _ => vec![0, 0, 0, 0, 2, 8, status],
    }
}

#[test]
fn an_answer_of_any_bytes_is_read_as_its_plain_form_or_refused() {
    let seen = Target::new(env!("CARGO_MANIFEST_DIR"), "grpc_health").run(|bytes| {
        let Some(serving) = answer(bytes) else {
            return "refused".to_owned();
        };
        let status = match serving {
            Answer::Unknown => 0,
            Answer::Serving => 1,
            Answer::NotServing => 2,
            Answer::ServiceUnknown => 3,
        };
        assert_eq!(answer(&written(status)), Some(serving));
        // No cut of it is an answer, as the length says what is missing.
        for end in 0..bytes.len() {
            assert_eq!(answer(&bytes[..end]), None);
        }
        format!("{serving:?}")
    });
    drop(seen);
}

#[test]
fn the_answers_of_servers_are_read() {
    assert_eq!(answer(&[0, 0, 0, 0, 2, 8, 1]), Some(Answer::Serving));
    assert_eq!(answer(&[0, 0, 0, 0, 2, 8, 2]), Some(Answer::NotServing));
    assert_eq!(answer(&[0, 0, 0, 0, 0]), Some(Answer::Unknown));
    // A field of a later version, and a state of one.
    let later = [0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1];
    assert_eq!(answer(&later), Some(Answer::Serving));
    assert_eq!(answer(&[0, 0, 0, 0, 2, 8, 9]), Some(Answer::Unknown));
    // Compressed, cut, longer than it says, and no protobuf at all.
    for bad in [
        &[1, 0, 0, 0, 2, 8, 1][..],
        &[0, 0, 0, 0, 2, 8],
        &[0, 0, 0, 0, 2, 8, 1, 0],
        b"HTTP/1.1 200 OK",
        &[],
    ] {
        assert_eq!(answer(bad), None, "{bad:?}");
    }
}

#[test]
fn a_request_names_its_service_or_the_whole_server() {
    assert_eq!(request(""), [0, 0, 0, 0, 0]);
    assert_eq!(request("ab"), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
    let long = request(&"a".repeat(300));
    assert_eq!(long[..8], [0, 0, 0, 1, 47, 10, 0xac, 2]);
    assert_eq!(long.len(), 308);
}
