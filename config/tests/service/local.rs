//! The socket for local commands: private, bounded, and gone with the service.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weft_config::limits::ADMIN_CONNECTIONS_MAX;
use weft_config::server::{backup, restore};

use crate::MESH;
use crate::world::{PATIENCE, World, apply};

const SOCKET: &str = "admin.sock";

#[tokio::test]
async fn only_the_user_of_the_service_may_connect_and_a_stopped_one_leaves_no_socket() {
    let mut world = World::start().await;
    let socket = world.dir.path().join(SOCKET);
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o600);
    world.stop().await;
    assert!(!socket.exists());
    // From the file, as no service runs.
    backup(world.dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_killed_service_leaves_a_socket_that_the_next_one_replaces() {
    let mut world = World::start().await;
    let socket = world.dir.path().join(SOCKET);
    world.stop().await;
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    world.serve().await;
    assert_eq!(socket.metadata().unwrap().mode() & 0o777, 0o600);
    backup(world.dir.path()).await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_backup_out_and_the_oldest_of_them_ends() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let revision = apply(&mut operator, MESH).await.revision.unwrap();
    let socket = world.dir.path().join(SOCKET);
    let mut idle = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // The beginning of HTTP/2, and no more.
        stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        idle.push(stream);
    }
    let content = tokio::time::timeout(PATIENCE, backup(world.dir.path()));
    let content = content.await.unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &content).unwrap();
    assert_eq!(restored.number, revision.number);
    let mut oldest = idle.remove(0);
    assert!(end_of(&mut oldest).await.is_ok());
    // The backup needed one place.
    let mut newest = idle.pop().unwrap();
    assert!(end_of(&mut newest).now_or_never().is_none());
}

#[tokio::test]
async fn a_service_that_stops_ends_connections_that_say_nothing() {
    let mut world = World::start().await;
    let socket = world.dir.path().join(SOCKET);
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    backup(world.dir.path()).await.unwrap();
    tokio::time::timeout(PATIENCE, world.stop()).await.unwrap();
    let refused = UnixStream::connect(&socket).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
    end_of(&mut stream).await.unwrap();
}

/// Waits until the service has ended a connection, with or without an answer.
async fn end_of(stream: &mut UnixStream) -> Result<(), tokio::time::error::Elapsed> {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said));
    ended.await.map(|_| ())
}
