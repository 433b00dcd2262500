//! Operators' local commands on the CA's host, beside a running CA and without one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt;
use weft_ca::limits::ADMIN_CONNECTIONS_MAX;
use weft_ca::{
    Admin, ErrorKind, Event, InitError, JoinToken, Role, ServeError, Server, Subject, TokenOrder,
};

use crate::world::{Ca, init, join, loopback, order, replace_by_one_issued_at, settings, within};

#[tokio::test]
async fn local_commands_are_served_beside_connections_that_say_nothing() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let mut silent = Vec::new();
    for _ in 0..2 * ADMIN_CONNECTIONS_MAX {
        let socket = ca.path().join("admin.sock");
        silent.push(tokio::net::UnixStream::connect(socket).await.unwrap());
    }
    within(ca.token("ns/shop/sa/orders")).await;
    // The oldest of them were ended.
    let mut oldest = silent.swap_remove(0);
    let _ = within(oldest.read_to_end(&mut Vec::new())).await;
    ca.stop().await;
}

#[tokio::test]
async fn state_and_socket_are_private() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(state.clone()), 0o700);
    assert_eq!(mode(state.join("identity.key")), 0o600);
    for name in ["root.key", "issuing.key", "ca.redb", "admin.sock"] {
        assert_eq!(mode(ca.path().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(ca.path()), 0o700);
    ca.stop().await;
}

#[tokio::test]
async fn local_commands_work_beside_a_running_ca_and_without_one() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let running = ca.token("ns/shop/sa/orders").await;
    join(&ca.state("orders"), Some(&running)).await.unwrap();
    let mut admin = Admin::open(&ca.path()).await.unwrap();
    let config = TokenOrder {
        subject: Subject::Role(Role::Config),
        ..order("ns/a/sa/b")
    };
    let text = admin.create_tokens(&config).await.unwrap().remove(0);
    let config: JoinToken = text.parse().unwrap();
    assert_eq!(config.identity.path(), "/ns/weft/sa/config");
    let seen = admin.inspect().await.unwrap();
    assert_eq!(seen.addresses, [ca.address.to_string()]);
    drop(admin);
    let directory = ca.stop().await;
    let stopped = Admin::open(&directory.path().join("ca"))
        .await
        .unwrap()
        .inspect()
        .await
        .unwrap();
    assert_eq!(stopped, seen);
    assert_eq!(seen.log_broken_at, None);
    assert_eq!(seen.tokens["spiffe://demo.test/ns/shop/sa/orders"].used, 1);
    assert!(
        seen.log
            .iter()
            .any(|entry| matches!(entry.event, Event::Issued { .. }) && entry.by == "token")
    );
}

#[tokio::test]
async fn a_socket_left_by_a_killed_ca_is_replaced() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let directory = ca.stop().await;
    let path = directory.path().join("ca");
    drop(std::os::unix::net::UnixListener::bind(path.join("admin.sock")).unwrap());
    Admin::open(&path).await.unwrap().inspect().await.unwrap();
    let ca = Ca::serve(directory, loopback(), Duration::from_secs(3600)).await;
    ca.token("ns/shop/sa/orders").await;
    ca.stop().await;
}

#[tokio::test]
async fn what_keeps_a_ca_from_serving_is_said_in_one_line() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let bind = |directory: &Path, listen| {
        let settings = settings(directory, listen, Duration::from_secs(3600));
        async move { Server::bind(&settings).await.err().unwrap() }
    };
    assert!(matches!(
        bind(&ca.path(), loopback()).await,
        ServeError::Running(_)
    ));

    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("other");
    let missing = bind(&path, loopback()).await.to_string();
    assert!(missing.contains("weft ca init"), "{missing}");
    init(&path);
    let taken = bind(&path, ca.address).await.to_string();
    assert!(
        taken.contains(&ca.address.to_string()) && taken.contains("--listen"),
        "{taken}"
    );
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path.join("issuing.key"), mode).unwrap();
    let exposed = bind(&path, loopback()).await;
    assert_eq!(exposed.kind(), ErrorKind::NotPermitted);
    assert!(exposed.to_string().contains("chmod 600"), "{exposed}");
    std::fs::write(path.join("issuing.key"), "no key").unwrap();
    std::fs::set_permissions(
        path.join("issuing.key"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    assert_eq!(bind(&path, loopback()).await.kind(), ErrorKind::BadData);
    ca.stop().await;
}

#[tokio::test]
async fn a_second_init_leaves_the_first_ca_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    init(&path);
    let before = std::fs::read(path.join("root.key")).unwrap();
    let domain = "demo.test".parse().unwrap();
    let error =
        weft_ca::init(&path, &domain, &[], SystemTime::now(), &mut rand::rng()).unwrap_err();
    assert!(matches!(error, InitError::Exists(_)));
    assert_eq!(std::fs::read(path.join("root.key")).unwrap(), before);
}

#[tokio::test]
async fn tokens_need_an_address_that_workloads_can_reach() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    init(&path);
    let mut admin = Admin::open(&path).await.unwrap();
    let error = admin
        .create_tokens(&order("ns/shop/sa/orders"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--address"), "{error}");
}

#[tokio::test]
async fn a_backup_of_a_running_ca_restores_to_one_that_goes_on_without_its_tokens() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let unused = ca.token("ns/shop/sa/payments").await;
    let state = ca.state("orders");
    let orders = join(&state, Some(&token)).await.unwrap();
    let backup = ca.directory.path().join("backup");
    Admin::open(&ca.path())
        .await
        .unwrap()
        .backup(&backup)
        .await
        .unwrap();
    let entries = std::fs::read_dir(ca.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let mut names = names.map(|name| name.into_string().unwrap());
    assert!(
        !names.any(|name| name.starts_with("backup")),
        "the CA keeps no copy of its keys"
    );
    // The backup does not know of this.
    join(&ca.state("payments"), Some(&unused)).await.unwrap();
    let address = ca.address;
    let directory = ca.stop().await;

    let (path, now) = (directory.path().join("ca"), SystemTime::now());
    assert!(
        weft_ca::restore(&path, &backup, false, now).is_err(),
        "it is not empty"
    );
    std::fs::remove_dir_all(&path).unwrap();
    weft_ca::restore(&path, &backup, false, now).unwrap();
    let ca = Ca::serve(directory, address, Duration::from_secs(3600)).await;
    let error = join(&ca.state("thief"), Some(&unused)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPermitted);
    let said = error.to_string();
    assert!(said.contains("made before the CA was restored"), "{said}");
    let error = join(&ca.state("again"), Some(&token)).await.unwrap_err();
    assert!(error.to_string().contains("already used"), "{error}");
    // A workload that has an identity keeps it, and new tokens work.
    let two_hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    let old = replace_by_one_issued_at(&ca.path(), &state, two_hours_ago);
    let renewed = join(&state, None).await.unwrap();
    assert!(renewed.svid().serial() != old && renewed.svid().id() == orders.svid().id());
    let fresh = ca.token("ns/shop/sa/payments").await;
    join(&ca.state("fresh"), Some(&fresh)).await.unwrap();
    let seen = Admin::open(&ca.path()).await.unwrap().inspect().await;
    let seen = seen.unwrap();
    let payments = &seen.tokens["spiffe://demo.test/ns/shop/sa/payments"];
    assert_eq!(
        (payments.restored, payments.used, payments.unused),
        (1, 1, 0)
    );
    assert_eq!(seen.log_broken_at, None);
    ca.stop().await;
}
