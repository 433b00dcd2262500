//! Orders in which a peer may send things, and how the connection reacts. No socket, clock or task.

use super::*;

/// One peer, byte by byte or stream by stream.
struct Peer {
    core: Core,
    now: Instant,
    requests: u32,
}

impl Peer {
    fn of(side: Side) -> Self {
        let now = Instant::now();
        Self {
            core: Core::new(side, now),
            now,
            requests: 0,
        }
    }

    /// All events in the bytes of one stream, until it breaks a rule.
    fn says(
        &mut self,
        stream: &mut PeerStream,
        bytes: &[u8],
    ) -> Result<Vec<StreamEvent>, ErrorCode> {
        stream.push(Bytes::copy_from_slice(bytes));
        let mut all = Vec::new();
        while let Some(said) = self
            .core
            .next(stream, self.now, self.requests)
            .map_err(|broken| broken.code)?
        {
            all.push(said);
        }
        Ok(all)
    }

    fn opens(&mut self, bytes: &[u8]) -> Result<Vec<StreamEvent>, ErrorCode> {
        self.says(&mut PeerStream::new(), bytes)
    }
}

fn frame_of(frame: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_frame(frame, payload, &mut out);
    out.to_vec()
}

fn settings() -> StreamEvent {
    StreamEvent::Settings(Settings::default())
}

/// A control stream that begins well.
fn greeted() -> (Peer, PeerStream) {
    let (mut peer, mut stream) = (Peer::of(Side::Client), PeerStream::new());
    let said = peer.says(
        &mut stream,
        &[&[0x00][..], &frame_of(frame::SETTINGS, &[])].concat(),
    );
    assert_eq!(said, Ok(vec![settings()]));
    (peer, stream)
}

#[test]
fn each_side_understands_the_greeting_and_the_goaway_of_the_other_in_pieces_of_any_size() {
    let said = [&greeting()[..], &goaway(8)].concat();
    for size in [1, 2, 3, said.len()] {
        let (mut peer, mut stream) = (Peer::of(Side::Client), PeerStream::new());
        let mut heard = Vec::new();
        for piece in said.chunks(size) {
            heard.extend(peer.says(&mut stream, piece).unwrap());
        }
        assert!(
            matches!(
                heard[..],
                [StreamEvent::Settings(_), StreamEvent::Goaway(8)]
            ),
            "{heard:?}"
        );
    }
}

#[test]
fn a_goaway_before_the_settings_breaks_the_connection() {
    let early = [&[0x00][..], &goaway(0)].concat();
    assert_eq!(
        Peer::of(Side::Client).opens(&early),
        Err(ErrorCode::H3_MISSING_SETTINGS)
    );
}

#[test]
fn a_second_stream_of_one_type_breaks_the_connection_whatever_came_between() {
    for kind in [CONTROL, QPACK_ENCODER, QPACK_DECODER] {
        let mut peer = Peer::of(Side::Server);
        let kind = u8::try_from(kind).unwrap();
        assert_eq!(peer.opens(&[kind]), Ok(vec![]));
        assert_eq!(peer.opens(&[0x21]), Ok(vec![StreamEvent::Ignore]));
        assert_eq!(
            peer.opens(&[kind]),
            Err(ErrorCode::H3_STREAM_CREATION_ERROR)
        );
    }
}

#[test]
fn a_goaway_falls_and_never_rises_over_pieces_of_the_stream() {
    let (mut peer, mut stream) = greeted();
    for id in [12, 8, 8] {
        let said = peer.says(&mut stream, &goaway(id));
        assert_eq!(said, Ok(vec![StreamEvent::Goaway(id)]));
    }
    assert_eq!(
        peer.says(&mut stream, &goaway(12)),
        Err(ErrorCode::H3_ID_ERROR)
    );
}

#[test]
fn critical_streams_must_not_end_and_others_may() {
    let mut peer = Peer::of(Side::Server);
    for (bytes, is_critical) in [
        (&[0x00][..], true),
        (&[0x02], true),
        (&[0x03], true),
        (&[], false),
        // A type of several bytes that is cut short.
        (&[0x40], false),
        (&[0x21, 1, 2, 3], false),
    ] {
        let mut stream = PeerStream::new();
        peer.says(&mut stream, bytes).unwrap();
        let ended = peer.core.ended(&stream, peer.now);
        assert_eq!(
            ended,
            if is_critical {
                Err(CLOSED_CRITICAL)
            } else {
                Ok(())
            }
        );
    }
}

#[test]
fn a_push_stream_is_wrong_in_a_way_of_its_own_on_each_side() {
    let push = [0x01];
    assert_eq!(
        Peer::of(Side::Server).opens(&push),
        Err(ErrorCode::H3_STREAM_CREATION_ERROR)
    );
    assert_eq!(
        Peer::of(Side::Client).opens(&push),
        Err(ErrorCode::H3_ID_ERROR)
    );
}

#[test]
fn messages_and_instructions_for_a_table_are_refused_where_they_come() {
    let (mut peer, mut stream) = greeted();
    let data = frame_of(frame::DATA, b"x");
    assert_eq!(
        peer.says(&mut stream, &data),
        Err(ErrorCode::H3_FRAME_UNEXPECTED)
    );
    // An insertion into a table of capacity 0.
    assert_eq!(
        Peer::of(Side::Server).opens(&[0x02, 0xc0, 0x00]),
        Err(ErrorCode::QPACK_ENCODER_STREAM_ERROR)
    );
}

#[test]
fn priority_updates_come_with_requests_and_a_flood_of_them_is_one_of_control_frames() {
    let (mut peer, mut stream) = greeted();
    let update = frame_of(frame::PRIORITY_UPDATE, &[0]);
    for _ in 0..limits::PRIORITY_UPDATES_AHEAD {
        assert_eq!(peer.says(&mut stream, &update), Ok(vec![]));
    }
    // SETTINGS was the first event of this period.
    for _ in 1..limits::CONTROL_EVENTS {
        assert_eq!(peer.says(&mut stream, &update), Ok(vec![]));
    }
    peer.requests = peer.requests.wrapping_add(1);
    for _ in 0..limits::PRIORITY_UPDATES_EACH {
        assert_eq!(peer.says(&mut stream, &update), Ok(vec![]));
    }
    assert_eq!(
        peer.says(&mut stream, &update),
        Err(ErrorCode::H3_EXCESSIVE_LOAD)
    );
}

#[test]
fn a_flood_is_counted_over_all_streams_and_forgotten_with_time() {
    let mut peer = Peer::of(Side::Server);
    for _ in 0..2 {
        for _ in 0..limits::CONTROL_EVENTS {
            assert_eq!(peer.opens(&[0x21]), Ok(vec![StreamEvent::Ignore]));
        }
        peer.now += limits::CONTROL_PERIOD;
    }
    for _ in 0..limits::CONTROL_EVENTS {
        let stream = PeerStream::new();
        assert_eq!(peer.core.ended(&stream, peer.now), Ok(()));
    }
    assert_eq!(peer.opens(&[0x21]), Err(ErrorCode::H3_EXCESSIVE_LOAD));
}

#[test]
fn after_a_shutdown_later_ids_are_refused_and_earlier_ones_taken_in_any_order() {
    let mut ids = RequestIds::default();
    assert!(ids.take(8));
    assert_eq!(ids.shut_down(), Some(12));
    assert_eq!(ids.shut_down(), None);
    // Streams arrive out of order: one below the GOAWAY was promised.
    assert!(ids.take(4));
    assert!(!ids.take(12));
    assert!(!ids.take(16));
    let mut unused = RequestIds::default();
    assert_eq!(unused.shut_down(), Some(0));
    assert!(!unused.take(0));
}
