//! Peers that fall silent: restarts, moves, races.

use super::*;

#[tokio::test]
async fn a_restarted_peer_is_reached_again() {
    let mesh = Mesh::new();
    let first = mesh.serve(0, mesh.authority.credentials(ORDERS));
    let target = first.target.clone();
    let pool = mesh.pool();
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    first.stop().await;
    let port = target.address.port();
    // The old endpoint's driver gives the port back a few turns after its last handle is gone.
    while matches!(
        endpoint::bind(&mesh.settings(port, 1)),
        Err(BindError::InUse(_))
    ) {
        tokio::task::yield_now().await;
    }
    let second = mesh.serve(port, mesh.authority.credentials(ORDERS));
    let again = timeout(PATIENCE, async {
        while get(&pool, &target).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    again.await.unwrap();
    assert_eq!(second.accepted(), 1);
}

#[tokio::test]
async fn a_silent_peer_is_raced_and_its_successor_found() {
    let mesh = Mesh::new();
    let (first, wire, target) = mesh.serve_behind_wire().await;
    let pool = mesh.pool();
    let lost = pool.get(&target).await.unwrap();
    wire.leads_to.send_replace(None);
    let (head, ()) = get_root();
    let (_send, mut response) = lost.open(&head, true).await.unwrap();

    // Its successor at the address knows nothing of the old connection and cannot reset it.
    let mut settings = mesh.settings(0, 1);
    settings.reset_key = ResetKey::new([8; ResetKey::LENGTH]);
    let second = mesh.serve_with(&settings, mesh.authority.credentials(ORDERS));
    wire.leads_to.send_replace(Some(second.target.address));
    // A request that waited on the lost connection does not have to wait for the idle timeout of a minute.
    let waited = timeout(PATIENCE, response.head()).await.unwrap();
    assert!(waited.is_err());
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    assert_eq!((first.requests(), second.requests()), (0, 1));
}

#[tokio::test]
async fn a_connection_that_answers_again_goes_on_and_its_racers_are_dropped() {
    let mesh = Mesh::new();
    let (server, wire, target) = mesh.serve_behind_wire().await;
    let pool = mesh.pool();
    // The first handshake is over on both sides when its connection has carried something.
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    let first = pool.get(&target).await.unwrap();
    // The path drops everything until an attempt was sent, and then carries all packets except handshakes.
    wire.leads_to.send_replace(None);
    wire.holds_handshakes.send_replace(true);
    let (head, ()) = get_root();
    let (_send, mut response) = first.open(&head, true).await.unwrap();
    timeout(PATIENCE, wire.held.notified()).await.unwrap();
    wire.leads_to.send_replace(Some(server.target.address));
    let waited = timeout(PATIENCE, response.head()).await.unwrap();
    assert!(waited.is_ok());
    // The packets of the attempts arrive late; they lead to no connection, or at least to no request.
    wire.holds_handshakes.send_replace(false);
    timeout(PATIENCE, async {
        while server.accepted() < 2 || server.resolved() < server.accepted() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    assert!(first.is_usable());
    assert_eq!(server.requests_by_connection(), [3]);
}

#[tokio::test]
async fn a_peer_whose_address_changes_has_moved_once() {
    let mesh = Mesh::new();
    let (server, wire, target) = mesh.serve_behind_wire().await;
    let pool = mesh.pool();
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    assert_eq!((server.accepted(), server.moves()), (1, 0));
    wire.rebind.notify_one();
    for _ in 0..2 {
        assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    }
    assert_eq!((server.accepted(), server.moves()), (1, 1));
}

#[tokio::test]
async fn a_request_to_a_peer_that_fell_silent_fails_within_seconds_and_later_ones_at_once() {
    let mesh = Mesh::new();
    let (server, wire, target) = mesh.serve_behind_wire().await;
    let pool = mesh.pool();
    // The request is sent right after an answer: only its probes show the silence.
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    let connection = pool.get(&target).await.unwrap();
    wire.leads_to.send_replace(None);
    let (head, ()) = get_root();
    let (_send, mut response) = connection.open(&head, true).await.unwrap();
    let waited = timeout(PATIENCE, response.head()).await.unwrap();
    assert_eq!(waited.err(), Some(ConnectionError::TimedOut.into()));
    assert_eq!(
        pool.get(&target).await.err(),
        Some(DialError::Timeout(target.address))
    );
    // The same connection goes on when the wire heals.
    wire.leads_to.send_replace(Some(server.target.address));
    let healed = timeout(PATIENCE, async {
        while pool.get(&target).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    healed.await.unwrap();
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
}

#[tokio::test]
async fn what_may_go_elsewhere_leaves_a_silent_peer_soon_and_the_rest_gets_its_answer_when_the_path_heals()
 {
    let mesh = Mesh::new();
    let (server, wire, target) = mesh.serve_behind_wire().await;
    let pool = mesh.pool();
    assert_eq!(get(&pool, &target).await, Ok(StatusCode::OK));
    let connection = pool.get_unless_doubtful(&target).await.unwrap();
    wire.leads_to.send_replace(None);
    let (head, ()) = get_root();
    let (_send, mut movable) = connection.open(&head, true).await.unwrap();
    let (_send, mut bound) = connection.open(&head, true).await.unwrap();
    let left = timeout(crate::limits::SILENCE_MAX, movable.head_unless(true));
    assert!(
        matches!(left.await, Ok(Ok(None))),
        "in doubt, before it is given up"
    );
    assert_eq!(
        pool.get_unless_doubtful(&target).await.err(),
        Some(DialError::Doubtful(target.address))
    );
    wire.leads_to.send_replace(Some(server.target.address));
    assert!(timeout(PATIENCE, bound.head()).await.unwrap().is_ok());
    let healed = timeout(PATIENCE, async {
        while pool.get_unless_doubtful(&target).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    healed.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_no_new_connections_is_left_at_once() {
    let mesh = Mesh::new();
    let socket = endpoint::bind(&mesh.settings(0, 1)).unwrap().remove(0);
    let target = Target {
        address: socket.local_address().unwrap(),
        identity: ORDERS.parse().unwrap(),
    };
    let (listener, _) = start(socket, &mesh.authority.credentials(ORDERS));
    let mut refusing = JoinSet::new();
    refusing.spawn(async move { listener.refuse().await });
    assert_eq!(
        mesh.pool().get(&target).await.err(),
        Some(DialError::Closed(target.address))
    );
}
