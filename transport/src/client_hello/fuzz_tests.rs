//! Fuzz target of ClientHellos: CONTRIBUTING.md says how to run it for long.

use weft_fuzz::{Target, in_pieces};

use super::{ClientHello, NoClientHello};

fn read(pieces: &[&[u8]]) -> String {
    let mut reader = ClientHello::default();
    for piece in pieces {
        match reader.read(piece) {
            Ok(None) => {}
            Ok(Some(asked)) => return format!("host {:?}", asked.host.map(|host| host.len())),
            Err(NoClientHello(_)) => return "refused".to_owned(),
        }
    }
    "incomplete".to_owned()
}

#[test]
fn a_client_hello_means_the_same_however_it_is_cut() {
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "client_hellos");
    let seen = target.rounds(500).run(|bytes| {
        let whole = read(&[bytes]);
        for pieces in in_pieces(bytes) {
            assert_eq!(read(&pieces), whole);
        }
        whole
    });
    seen.expect("refused")
        .expect("incomplete")
        .expect("host None");
}
