//! Readers that stop until the peer may send no more: what happens to them and to the other streams.

use super::*;

const MIB: u32 = 1 << 20;
const WINDOW: u32 = 8 * MIB;

/// A connection whose client takes 8 MiB ahead of its readers on all streams together, never more.
async fn bounded_quic() -> Quic {
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(MIB.into())
        .receive_window(WINDOW.into());
    quic_with(transport).await
}

fn bounded_client(connection: &quinn::Connection, tasks: &mut JoinSet<()>) -> ClientConnection {
    let settings = TransportSettings {
        stream_window: MIB.into(),
        connection_window: WINDOW.into(),
        connection_window_max: WINDOW.into(),
        ..TransportSettings::default()
    };
    let streams = Streams::new(connection.clone(), &settings.validate().unwrap());
    let (client, driver) = ClientConnection::new(connection.clone(), peer(), streams);
    tasks.spawn(async {
        driver.await;
    });
    client
}

#[tokio::test]
async fn stopped_readers_that_leave_no_room_are_given_up_and_the_others_go_on() {
    let quic = bounded_quic().await;
    let mut tasks = JoinSet::new();
    serve(&quic.server, &mut tasks, |request| async move {
        let head = response(200, &[]);
        let mut send = request.respond.head(&head, false).await.unwrap();
        // Ends with an error on the streams that are given up.
        for _ in 0..40 {
            let piece = Bytes::from(vec![7; 50_000]);
            if send.send_data(piece).await.is_err() {
                return;
            }
        }
        let _ = send.finish().await;
    });
    let client = bounded_client(&quic.client, &mut tasks);
    let mut stopped = Vec::new();
    for _ in 0..12 {
        let (send, mut answer) = client.open(&get(), true).await.unwrap();
        // The first few fill the window, so that the heads of the others have to wait.
        let body = async move {
            answer.head().await.unwrap();
            let mut body = answer.into_body();
            let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx));
            frame.await.unwrap().unwrap();
            (send, body)
        };
        stopped.push(body.await);
    }
    let (_send, mut answer) = client.open(&get(), true).await.unwrap();
    let whole = async {
        answer.head().await.unwrap();
        read(&mut answer.into_body()).await.unwrap().0.len()
    };
    let whole = tokio::time::timeout(Duration::from_mins(1), whole).await;
    assert_eq!(whole, Ok(40 * 50_000));
    let needed = client.status().given_up_streams;
    assert!((5..=12).contains(&needed), "{needed}");
    // Streams whose readers resume either continue, or report that they were given up.
    let mut failed = 0;
    for (_send, mut body) in stopped {
        match read(&mut body).await {
            Ok((data, _)) => assert!(data.len() < 40 * 50_000),
            Err(error) => {
                assert_eq!(error, ReceiveError::GivenUp);
                failed += 1;
            }
        }
    }
    // Each reader that reports it was counted. On a slow host the last ones stand still for so long, while
    // the first ones read, that they are given up here.
    assert_eq!(failed, client.status().given_up_streams);
    assert!(failed >= needed, "{failed} of {needed}");
}
