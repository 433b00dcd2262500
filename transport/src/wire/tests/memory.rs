//! Behaviour that only the wire in memory can show: the mistakes of peers, and their limits.

use super::*;
use crate::pool::{Pool, Target};

fn as_memory(responder: Responder) -> crate::wire::memory::Responder {
    match responder {
        Responder::Memory(responder) => responder,
        Responder::Http3(_) => panic!("this one is in memory"),
    }
}

fn server_of(ends: &Ends) -> &crate::wire::memory::ServerConnection {
    match &ends.server {
        ServerConnection::Memory(server) => server,
        ServerConnection::Http3(_) => panic!("this one is in memory"),
    }
}

#[tokio::test]
async fn a_malformed_answer_is_reported_as_one_to_both_sides() {
    let serving = in_memory().await.serve(|request| async move {
        let gone = request.respond.stopped();
        as_memory(request.respond).malformed("two statuses");
        assert_eq!(gone.await, Some(Reason::Malformed));
    });
    let (_send, mut response) = serving.client.open(&get(), true).await.unwrap();
    let error = response.head().await.unwrap_err();
    assert_eq!(error, ReceiveError::Malformed("two statuses"));
}

#[tokio::test]
async fn a_lost_connection_is_reported_to_both_sides() {
    let mut ends = in_memory().await;
    let (_send, mut response) = ends.client.open(&get(), true).await.unwrap();
    server_of(&ends).lose(&ConnectionError::TimedOut);
    let error = response.head().await.unwrap_err();
    assert_eq!(error, ConnectionError::TimedOut.into());
    let error = ends.server.accept().await.err();
    assert_eq!(error, Some(ConnectionError::TimedOut));
}

#[tokio::test]
async fn beyond_what_the_peer_allows_requests_wait_and_how_long_is_known() {
    tokio::time::pause();
    let ends = in_memory().await;
    server_of(&ends).allow(1);
    let client = ends.client.clone();
    let mut first = Some(client.reserve().await.unwrap());
    let mut waiting = Box::pin(client.reserve());
    let now = || tokio::time::Instant::now().into_std();
    let waited = timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(waited.is_err());
    assert!(client.crowded_for(now()) >= Duration::from_secs(2));
    first.take();
    assert!(waiting.await.is_ok());
    assert_eq!(client.crowded_for(now()), Duration::ZERO);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_its_sender() {
    let mut ends = in_memory().await;
    let head = ask("POST", "https://orders.shop/");
    let (mut send, _response) = ends.client.open(&head, false).await.unwrap();
    let mut request = ends.server.accept().await.unwrap().unwrap();
    let piece = Bytes::from(vec![0; 64 * 1024]);
    send.send_data(piece.clone()).await.unwrap();
    let mut held = Box::pin(send.send_data(piece));
    assert!(futures_util::poll!(&mut held).is_pending());
    let mut chunks = Vec::new();
    poll_fn(|cx| request.recv.poll_chunks(cx, &mut chunks))
        .await
        .unwrap();
    held.await.unwrap();
}

#[tokio::test]
async fn the_pool_shares_a_connection_and_dials_again_when_it_is_lost() {
    let network = Network::default();
    let target = Target {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        identity: ORDERS.parse().unwrap(),
    };
    let listener = network.listen(target.address, &target.identity);
    let pool = Pool::new(network.dialler(&FRONTEND.parse().unwrap()));
    let accept = async || {
        let incoming = listener.accept().await.unwrap().unwrap();
        incoming.handshake().await.unwrap().http
    };
    for _ in 0..2 {
        pool.get(&target).await.unwrap();
    }
    assert_eq!(pool.status().len(), 1);
    let server = accept().await;
    drop(server);
    let again = pool.get(&target).await;
    assert!(again.unwrap().is_usable());
    let _server = accept().await;
    let unheard = Target {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 2)),
        ..target.clone()
    };
    let error = pool.get(&unheard).await.err();
    assert_eq!(error, Some(DialError::Timeout(unheard.address)));
    let other = Target {
        identity: FRONTEND.parse().unwrap(),
        ..target
    };
    let error = pool.get(&other).await.err().unwrap();
    assert!(matches!(error, DialError::WrongIdentity { .. }), "{error}");
    pool.close(Duration::ZERO).await;
}
