//! TCP tunnels through the pair.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weft_config::table::Default;

use crate::sidecars::{Applications, Mesh, To, listener};

async fn mesh() -> (Mesh, TcpListener) {
    let (database, tcp) = listener().await;
    let (_, down) = listener().await;
    (
        Mesh::start_in_memory(Applications {
            http: down,
            grpc: down,
            tcp,
        })
        .await,
        database,
    )
}

/// The next connection that is not a health probe, which closes without a byte.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut first = [0];
        if stream.peek(&mut first).await.is_ok_and(|count| count > 0) {
            return stream;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_each_side_may_close_alone() {
    let (mesh, database) = mesh().await;
    let mut client = TcpStream::connect(mesh.listener(To::Database))
        .await
        .unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut server = accept(&database).await;
    let mut seen = Vec::new();
    server.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"question");
    // The client's side is closed; the answer still gets there.
    let answer: Vec<u8> = (0..3_000_000u32).map(|index| (index % 253) as u8).collect();
    let expected = answer.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert!(seen == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_arrives_as_a_reset() {
    let (mesh, database) = mesh().await;
    let mut client = TcpStream::connect(mesh.listener(To::Database))
        .await
        .unwrap();
    client.write_all(b"x").await.unwrap();
    let server = accept(&database).await;
    socket2::SockRef::from(&server)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(server);
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tunnel_is_reset_and_a_running_one_ends_when_the_policy_changes() {
    let (mesh, database) = mesh().await;
    let mut client = TcpStream::connect(mesh.listener(To::Database))
        .await
        .unwrap();
    client.write_all(b"x").await.unwrap();
    let mut server = accept(&database).await;
    mesh.allow(Default::Deny, vec![]).await;
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut seen = Vec::new();
    assert!(server.read_to_end(&mut seen).await.is_err() || seen == b"x");

    let mut denied = TcpStream::connect(mesh.listener(To::Database))
        .await
        .unwrap();
    let error = denied.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
