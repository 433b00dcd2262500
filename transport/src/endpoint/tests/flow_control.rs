//! Settings of streams and windows: what a peer may open, send and leave unread.

use super::*;

#[tokio::test]
async fn streams_and_uni_streams_bound_what_a_client_may_open() {
    let pair = Pair::with(TransportSettings {
        streams: 7,
        uni_streams: 5,
        ..defaults()
    })
    .await;
    let mut opened = Vec::new();
    while let Some(Ok(stream)) = pair.client.open_bi().now_or_never() {
        opened.push(stream);
    }
    let mut opened_uni = Vec::new();
    while let Some(Ok(stream)) = pair.client.open_uni().now_or_never() {
        opened_uni.push(stream);
    }
    assert_eq!((opened.len(), opened_uni.len()), (7, 5));
    // HTTP/3 servers open no request streams, and a client allows none.
    assert!(pair.server.open_bi().now_or_never().is_none());
}

#[tokio::test]
async fn streams_max_bounds_how_far_the_allowance_grows() {
    let settings = TransportSettings {
        streams: 4,
        streams_max: 6,
        ..defaults()
    };
    let pair = Pair::with(settings.clone()).await;
    let streams = Streams::new(pair.server.clone(), &settings.validate().unwrap());
    let _slots: Vec<_> = (0..4).map(|_| streams.enter()).collect();
    let mut opened = Vec::new();
    for _ in 0..6 {
        let stream = timeout(PATIENCE, pair.client.open_bi()).await.unwrap();
        opened.push(stream.unwrap());
    }
    assert!(pair.client.open_bi().now_or_never().is_none());
}

#[tokio::test]
async fn stream_window_bounds_what_one_unread_stream_holds() {
    let pair = Pair::with(TransportSettings {
        stream_window: 128 * KIB,
        ..defaults()
    })
    .await;
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    assert_eq!(fill(&mut send), 128 * KIB);
}

#[tokio::test]
async fn connection_window_bounds_what_all_unread_streams_hold() {
    let pair = Pair::with(TransportSettings {
        stream_window: 512 * KIB,
        connection_window: MIB,
        ..defaults()
    })
    .await;
    assert_eq!(fill_streams(&pair.client, 4).await, MIB);
}

#[tokio::test]
async fn connection_window_max_bounds_how_far_it_grows() {
    let settings = TransportSettings {
        stream_window: 512 * KIB,
        connection_window: MIB,
        connection_window_max: 2 * MIB,
        ..defaults()
    };
    let pair = Pair::with(settings.clone()).await;
    let streams = Streams::new(pair.server.clone(), &settings.validate().unwrap());
    let told = pair.client.stats().frame_rx.max_data;
    streams.message_came();
    let _long: Vec<_> = (0..50).map(|_| streams.long_body()).collect();
    until(|| pair.client.stats().frame_rx.max_data > told).await;
    assert_eq!(fill_streams(&pair.client, 8).await, 2 * MIB);
}

#[tokio::test]
async fn a_peer_may_send_a_page_ahead_and_more_with_what_it_asks_for() {
    let pair = Pair::fresh(defaults()).await;
    let streams = of_worker(&pair.server, defaults());
    let told = || pair.client.stats().frame_rx.max_data;
    let _slots: Vec<_> = (0..200).map(|_| streams.enter()).collect();
    assert_eq!(fill_streams(&pair.client, 2).await, 64 * KIB);
    streams.message_came();
    until(|| told() == 1).await;
    // 200 short bodies: an eighth of the window must be free beside them, or quinn does not announce credit.
    let room = 200 * 16 * KIB;
    let room = (room + room.div_ceil(7)).next_multiple_of(64 * KIB);
    pair.client.set_send_window(64 * MIB);
    assert_eq!(fill_streams(&pair.client, 8).await, room - 64 * KIB);
    let _long = streams.long_body();
    until(|| told() == 2).await;
    assert_eq!(fill_streams(&pair.client, 16).await, 16 * MIB - room);
}

#[tokio::test]
async fn send_window_bounds_what_is_not_acknowledged() {
    let settings = TransportSettings {
        send_window: 256 * KIB,
        ..defaults()
    };
    let pair = Pair::with_credit(settings.clone()).await;
    let streams = of_worker(&pair.client, settings);
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    // Neither ever yields, so no acknowledgement is read in between.
    assert_eq!(fill(&mut send), 64 * KIB);
    streams.wrote(64 << 10);
    assert_eq!(fill(&mut send), (256 - 64) * KIB);
}

#[tokio::test]
async fn the_send_window_grows_with_acknowledgements_and_goes_back_when_all_have_come() {
    let pair = Pair::with_credit(defaults()).await;
    let streams = of_worker(&pair.client, defaults());
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    let fill_all = |send: &mut quinn::SendStream| {
        let mut total = 0;
        loop {
            let written = fill(send);
            if written == 0 {
                return total;
            }
            total += written;
            streams.wrote(usize::try_from(written).unwrap());
        }
    };
    let first = fill_all(&mut send);
    assert_eq!(first, MIB);

    let (_back, mut receive) = pair.server.accept_bi().await.unwrap();
    let read = async {
        let mut read = 0;
        while read < 64 * MIB {
            let chunk = receive.read_chunk(1 << 20, true).await.unwrap().unwrap();
            read += chunk.bytes.len() as u64;
        }
    };
    let write = async {
        let block = vec![0; 1 << 20];
        let mut sent = first;
        while sent < 64 * MIB {
            let left = usize::try_from(64 * MIB - sent).unwrap();
            let written = send.write(&block[..left.min(block.len())]).await.unwrap();
            streams.wrote(written);
            sent += u64::try_from(written).unwrap();
        }
    };
    timeout(PATIENCE, async { tokio::join!(read, write) })
        .await
        .unwrap();
    until(|| streams.acknowledged().all).await;
    assert!(fill(&mut send) > MIB + 256 * KIB);
    let acknowledged = streams.acknowledged().bytes;
    receive.read_chunk(1, true).await.unwrap();
    until(|| streams.acknowledged().all && streams.acknowledged().bytes > acknowledged).await;
    // The next check comes after an eighth of the large window.
    streams.wrote(64 << 20);
    // One page again, for a stream that has credit; it grows with the first bytes that are sent.
    streams.shrink_send_window();
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    assert_eq!(fill(&mut send), 64 * KIB);
    streams.wrote(64 << 10);
    assert!(fill(&mut send) > 0);
}
