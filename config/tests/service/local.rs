//! The socket for local commands: private, bounded, and gone with the service.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weft_config::limits::ADMIN_CONNECTIONS_MAX;
use weft_config::server::{backup, restore, rotate_session_key};
use weft_config::table::{SessionKey, Table};

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

const SESSIONS: &str = r#"
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: orders } ]
  rules: [ { sessionPersistence: {}, backendRefs: [ { name: orders, port: 80 } ] } ]
"#;

/// The keys of the one rule with sessions.
fn keys(table: &Table) -> Vec<SessionKey> {
    table.session_keys.values().flatten().cloned().collect()
}

#[tokio::test]
async fn rotated_keys_reach_sidecars_under_the_same_revision_and_outlive_a_restart() {
    let mut world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let _acknowledging = frontend.acknowledge_everything();
    let mut operator = world.operator("anna").await;
    let mesh = MESH.to_owned() + SESSIONS;
    let revision = apply(&mut operator, &mesh).await.revision.unwrap();
    let first = frontend.table(|table| !keys(table).is_empty()).await;
    let first = keys(&first);
    rotate_session_key(world.dir.path(), false).await.unwrap();
    let second = frontend.table(|table| keys(table) != first).await;
    assert_eq!(second.revision, revision);
    let second = keys(&second);
    // The sidecar knew the key that seals from now on, and goes on to know the one that did.
    assert_eq!((&second[0], &second[2]), (&first[1], &first[0]));
    assert!(!first.contains(&second[1]));
    // A change beside it keeps them, as does a restart.
    let changed = mesh
        + "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: { name: more, namespace: shop }\nspec: { ports: [ { port: 80, protocol: http } ] }\n";
    let later = apply(&mut operator, &changed).await.revision.unwrap();
    let table = frontend.table(|table| table.revision == later).await;
    assert_eq!(keys(&table), second);
    world.stop().await;
    // In the file, as no service runs; all of them, as one came into other hands.
    rotate_session_key(world.dir.path(), true).await.unwrap();
    world.serve().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let table = frontend.table(|table| !keys(table).is_empty()).await;
    assert!(keys(&table).iter().all(|key| !second.contains(key)));
    let nowhere = tempfile::tempdir().unwrap();
    let error = rotate_session_key(nowhere.path(), false).await.unwrap_err();
    assert!(error.to_string().contains("config.redb"), "{error}");
}

/// Waits until the service has ended a connection, with or without an answer.
async fn end_of(stream: &mut UnixStream) -> Result<(), tokio::time::error::Elapsed> {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said));
    ended.await.map(|_| ())
}
