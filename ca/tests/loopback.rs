//! A CA and its workloads on loopback: the behaviour that operators and sidecars rely on.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint sees tests only by their attribute"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_ca::agent::{Agent, AgentError, AgentSettings};
use weft_ca::csr::ProvenKey;
use weft_ca::issuer::Issuer;
use weft_ca::limits::{ADMIN_CONNECTIONS_MAX, HANDSHAKES};
use weft_ca::{
    Admin, ErrorKind, Event, InitError, JoinToken, Role, ServeError, ServeSettings, Server,
    Subject, TokenOrder,
};
use weft_transport::credentials::Credentials;

/// Far above what anything here takes, and below a test runner's own limit.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_token_buys_an_identity_that_a_restart_takes_up_without_it() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    let first = join(&state, Some(&token)).await.unwrap();
    assert_eq!(
        first.svid().id().as_str(),
        "spiffe://demo.test/ns/shop/sa/orders"
    );

    let without_token = join(&state, None).await.unwrap();
    assert_eq!(without_token.svid().serial(), first.svid().serial());
    let with_spent_token = join(&state, Some(&token)).await.unwrap();
    assert_eq!(with_spent_token.svid().serial(), first.svid().serial());
    ca.stop().await;
}

#[tokio::test]
async fn a_restart_needs_no_ca_while_the_identity_is_valid() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    let first = join(&state, Some(&token)).await.unwrap();
    let directory = ca.stop().await;
    let second = join(&state, None).await.unwrap();
    assert_eq!(second.svid().serial(), first.svid().serial());
    drop(directory);
}

#[tokio::test]
async fn a_used_token_is_refused_with_one_definitive_line() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    join(&ca.state("first"), Some(&token)).await.unwrap();
    let error = join(&ca.state("second"), Some(&token)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPermitted);
    let line = error.to_string();
    assert!(
        line.contains("token already used") && !line.contains('\n'),
        "{line}"
    );
    ca.stop().await;
}

#[tokio::test]
async fn a_crash_after_the_request_gets_the_same_certificate_for_the_same_key() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    let first = join(&state, Some(&token)).await.unwrap();
    // As if the process had died before the answer reached its disk.
    std::fs::rename(state.join("identity.key"), state.join("identity.key.next")).unwrap();
    std::fs::remove_file(state.join("identity.crt")).unwrap();
    let again = join(&state, Some(&token)).await.unwrap();
    assert_eq!(again.svid().serial(), first.svid().serial());
    ca.stop().await;
}

#[tokio::test]
async fn a_crash_between_certificate_and_key_is_repaired_at_the_next_start() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    let first = join(&state, Some(&token)).await.unwrap();
    std::fs::rename(state.join("identity.key"), state.join("identity.key.next")).unwrap();
    std::fs::write(state.join("identity.key"), "the key before").unwrap();
    let again = join(&state, None).await.unwrap();
    assert_eq!(again.svid().serial(), first.svid().serial());
    assert!(!state.join("identity.key.next").exists());
    ca.stop().await;
}

#[tokio::test]
async fn the_damaged_file_of_a_pair_is_the_one_that_is_named() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    for (name, text) in [("identity.key", "no key"), ("identity.crt", "no chain")] {
        let path = state.join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let said = join(&state, None).await.unwrap_err().to_string();
        let expected = format!("{} is damaged", path.display());
        assert!(said.starts_with(&expected), "{said}");
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_file(state.join("identity.key")).unwrap();
    let said = join(&state, None).await.unwrap_err().to_string();
    assert!(
        said.contains("identity.key is damaged (it is missing)"),
        "{said}"
    );
    ca.stop().await;
}

#[tokio::test]
async fn of_many_that_race_with_one_token_exactly_one_wins() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let racers = (0..6).map(|n| {
        let (state, token) = (ca.state(&format!("racer-{n}")), token.clone());
        async move { join(&state, Some(&token)).await.is_ok() }
    });
    let results = futures_util::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|won| **won).count(), 1, "{results:?}");
    ca.stop().await;
}

#[tokio::test]
async fn a_running_agent_renews_into_the_same_credentials() {
    // A life of 10 s is due after 6 to 7.3 s.
    let ca = Ca::start(Duration::from_secs(10)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let settings = AgentSettings {
        state_dir: ca.state("orders"),
        join_token: Some(token),
        waiting: watch::Sender::default(),
        patience: None,
    };
    let (agent, credentials) = within(Agent::start(settings)).await.unwrap();
    let (status, first) = (agent.status(), credentials.svid());
    let mut swaps = credentials.subscribe();
    let shutdown = CancellationToken::new();
    let running = tokio::task::spawn_blocking({
        let shutdown = shutdown.clone();
        move || tokio::runtime::Handle::current().block_on(agent.run(shutdown))
    });
    within(swaps.changed()).await.unwrap();
    assert_ne!(credentials.svid().serial(), first.serial());
    assert!(credentials.svid().not_after() > first.not_after());
    shutdown.cancel();
    within(running).await.unwrap();
    let renewals = status
        .samples()
        .into_iter()
        .find(|s| s.name == "weft_identity_renewals_total");
    assert_eq!(renewals.unwrap().value, 1);
    // What was swapped in is what a restart finds.
    let restarted = join(&ca.state("orders"), None).await.unwrap();
    assert_eq!(restarted.svid().serial(), credentials.svid().serial());
    ca.stop().await;
}

#[tokio::test]
async fn a_workload_that_starts_before_the_ca_joins_when_it_comes() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let address = ca.address;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    let directory = ca.stop().await;
    let joining = join(&state, Some(&token));
    let starting = async {
        // The first attempt fails at once; the next comes a second later.
        Ca::serve(directory, address, Duration::from_secs(3600)).await
    };
    let (joined, ca) = tokio::join!(joining, starting);
    assert_eq!(joined.unwrap().svid().id().path(), "/ns/shop/sa/orders");
    ca.stop().await;
}

#[tokio::test]
async fn an_identity_that_expired_within_the_grace_is_renewed_before_it_is_used() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    let serial = replace_by_one_issued_at(&ca.path(), &state, two_hours_ago);

    let renewed = join(&state, None).await.unwrap();
    assert_ne!(renewed.svid().serial(), serial);
    assert!(renewed.svid().not_after() > SystemTime::now());
    ca.stop().await;
}

#[tokio::test]
async fn an_identity_past_the_grace_needs_a_new_token() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(80 * 3600);
    replace_by_one_issued_at(&ca.path(), &state, long_ago);

    let error = join(&state, None).await.unwrap_err();
    assert!(matches!(error, AgentError::Expired { .. }));
    let fresh = ca.token("ns/shop/sa/orders").await;
    join(&state, Some(&fresh)).await.unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn strangers_that_send_garbage_or_nothing_are_in_nobodys_way() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let mut silent = Vec::new();
    // More than there are places for handshakes.
    for n in 0..HANDSHAKES.places + 8 {
        let mut stream = tokio::net::TcpStream::connect(ca.address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[0x16; 512]).await.unwrap();
        }
        silent.push(stream);
    }
    let token = ca.token("ns/shop/sa/orders").await;
    let begin = Instant::now();
    join(&ca.state("orders"), Some(&token)).await.unwrap();
    // Long before the silent ones are given up.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    ca.stop().await;
}

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
async fn a_token_of_another_identity_beside_a_stored_one_is_a_mix_up() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let orders = ca.token("ns/shop/sa/orders").await;
    let payments = ca.token("ns/shop/sa/payments").await;
    let state = ca.state("orders");
    join(&state, Some(&orders)).await.unwrap();
    let error = join(&state, Some(&payments)).await.unwrap_err();
    assert!(matches!(error, AgentError::OtherIdentity { .. }));
    ca.stop().await;
}

#[tokio::test]
async fn without_token_and_state_there_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let error = join(&directory.path().join("state"), None)
        .await
        .unwrap_err();
    let said = error.to_string();
    let expected = "holds no identity, and there is no join token";
    assert!(said.ends_with(expected), "{said}");
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
async fn a_socket_left_by_a_killed_ca_is_in_nobodys_way() {
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
    // Who has an identity goes on with it, and new tokens are good.
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

#[tokio::test]
async fn how_long_an_expired_identity_is_renewed_is_the_ca_s_to_know_and_to_log() {
    let directory = tempfile::tempdir().unwrap();
    init(&directory.path().join("ca"));
    let hour = Duration::from_secs(3600);
    let settings = ServeSettings {
        renewal_grace: hour,
        ..settings(&directory.path().join("ca"), loopback(), hour)
    };
    let ca = Ca::serve_with(directory, &settings).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    // It ended two hours ago: past this CA's grace, and well within the usual one.
    replace_by_one_issued_at(&ca.path(), &state, SystemTime::now() - 3 * hour);
    let error = join(&state, None).await.unwrap_err();
    assert!(matches!(error, AgentError::Expired { .. }), "{error}");
    assert!(error.to_string().contains("renewal grace"), "{error}");
    let seen = Admin::open(&ca.path()).await.unwrap().inspect().await;
    let refused = Event::Refused {
        reason: "svid_expired".to_owned(),
    };
    assert_eq!(seen.unwrap().log[0].event, refused);
    let fresh = ca.token("ns/shop/sa/orders").await;
    join(&state, Some(&fresh)).await.unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn who_has_an_end_of_patience_hears_that_no_ca_answers() {
    let ca = Ca::start(Duration::from_secs(3600)).await;
    let token = ca.token("ns/shop/sa/orders").await;
    let state = ca.state("orders");
    join(&state, Some(&token)).await.unwrap();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    replace_by_one_issued_at(&ca.path(), &state, two_hours_ago);
    let _directory = ca.stop().await;
    let settings = AgentSettings {
        state_dir: state,
        join_token: None,
        waiting: watch::Sender::default(),
        patience: Some(Duration::from_secs(1)),
    };
    let error = within(Agent::start(settings)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let said = error.to_string();
    assert!(
        said.contains("has expired") && said.contains("no CA answers"),
        "{said}"
    );
}

#[tokio::test]
async fn an_expired_issuing_certificate_is_renewed_and_older_identities_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let day = Duration::from_secs(24 * 3600);
    init_at(&path, SystemTime::now() - 400 * day);
    let settings = settings(&path, loopback(), day);
    let refused = Server::bind(&settings).await.err().unwrap().to_string();
    assert!(refused.contains("run `weft ca renew`"), "{refused}");

    let root = std::fs::read(path.join("root.crt")).unwrap();
    weft_ca::renew(&path, None, SystemTime::now(), &mut rand::rng()).unwrap();
    assert_eq!(std::fs::read(path.join("root.crt")).unwrap(), root);
    assert!(!path.join("issuing.key.next").exists());
    let ca = Ca::serve_with(directory, &settings).await;
    let token = ca.token("ns/shop/sa/orders").await;
    join(&ca.state("orders"), Some(&token)).await.unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn a_renewal_of_the_issuing_certificate_survives_a_crash_at_every_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    init(&path);
    let kept = |name: &str| std::fs::read(path.join(name)).unwrap();
    let (old_key, old_certificate) = (kept("issuing.key"), kept("issuing.crt"));
    weft_ca::renew(&path, None, SystemTime::now(), &mut rand::rng()).unwrap();
    let (key, certificate) = (kept("issuing.key"), kept("issuing.crt"));
    let put = |name: &str, content: &[u8]| std::fs::write(path.join(name), content).unwrap();
    let settings = settings(&path, loopback(), Duration::from_secs(3600));
    // The new key is there, the certificate is not; then the certificate is, and the key not in its place.
    for present in [&old_certificate, &certificate] {
        put("issuing.key", &old_key);
        put("issuing.crt", present);
        put("issuing.key.next", &key);
        for name in ["issuing.key", "issuing.key.next"] {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(path.join(name), private).unwrap();
        }
        drop(Server::bind(&settings).await.unwrap());
    }
    assert_eq!(kept("issuing.key"), key);
}

#[tokio::test]
async fn a_ca_that_serves_takes_up_a_renewed_issuing_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let day = Duration::from_secs(24 * 3600);
    init_at(&path, SystemTime::now() - 300 * day);
    // It looks at its files four times in the life of a certificate.
    let settings = settings(&path, loopback(), Duration::from_secs(10));
    let server = Server::bind(&settings).await.unwrap();
    let (metrics, shutdown) = (server.metrics(), CancellationToken::new());
    assert_eq!(metrics.concerns().len(), 1, "{:?}", metrics.concerns());
    assert!(metrics.concerns()[0].contains("weft ca renew"));
    let serving = server.run(shutdown.clone());
    let renewing = async {
        weft_ca::renew(&path, None, SystemTime::now(), &mut rand::rng()).unwrap();
        while !metrics.concerns().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut admin = Admin::open(&path).await.unwrap();
        let token = admin
            .create_tokens(&order("ns/shop/sa/orders"))
            .await
            .unwrap();
        let token = token[0].parse().unwrap();
        let state = directory.path().join("orders");
        let joined = join(&state, Some(&token)).await.unwrap();
        let issuing = std::fs::read_to_string(path.join("issuing.crt")).unwrap();
        let chain = joined.svid().chain_pem().replace("\r\n", "\n");
        assert!(
            chain.contains(issuing.replace("\r\n", "\n").trim()),
            "{chain}"
        );
        shutdown.cancel();
    };
    let (served, ()) = within(async { tokio::join!(serving, renewing) }).await;
    served.unwrap();
}

/// Puts an hour-long SVID with a new key into a state directory; returns its serial.
fn replace_by_one_issued_at(ca: &Path, state: &Path, then: SystemTime) -> String {
    let read = |name: &str| std::fs::read(ca.join(name)).unwrap();
    let (root, issuing, key) = (read("root.crt"), read("issuing.crt"), read("issuing.key"));
    let domain = "demo.test".parse().unwrap();
    let issuer = Issuer::load(domain, &root, &issuing, &key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let id = "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap();
    let proven = ProvenKey::from_csr(csr.der()).unwrap();
    let hour = Duration::from_secs(3600);
    let svid = issuer
        .issue(&id, &proven, hour, then, &mut rand::rng())
        .unwrap();
    std::fs::write(state.join("identity.crt"), &svid.chain_pem).unwrap();
    std::fs::write(state.join("identity.key"), key.serialize_pem()).unwrap();
    svid.serial
}

struct Ca {
    directory: TempDir,
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Ca {
    async fn start(svid_ttl: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        init(&directory.path().join("ca"));
        Self::serve(directory, loopback(), svid_ttl).await
    }

    async fn serve(directory: TempDir, listen: SocketAddr, svid_ttl: Duration) -> Self {
        let settings = settings(&directory.path().join("ca"), listen, svid_ttl);
        Self::serve_with(directory, &settings).await
    }

    async fn serve_with(directory: TempDir, settings: &ServeSettings) -> Self {
        let server = Server::bind(settings).await.unwrap();
        let (address, shutdown) = (server.local_addr(), CancellationToken::new());
        let running = tokio::task::spawn_blocking({
            let shutdown = shutdown.clone();
            move || tokio::runtime::Handle::current().block_on(server.run(shutdown))
        });
        Self {
            directory,
            address,
            shutdown,
            running,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn token(&self, identity: &str) -> JoinToken {
        let mut admin = Admin::open(&self.path()).await.unwrap();
        admin
            .create_tokens(&order(identity))
            .await
            .unwrap()
            .remove(0)
            .parse()
            .unwrap()
    }

    async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        within(self.running).await.unwrap().unwrap();
        self.directory
    }
}

/// Makes a CA that is older than every certificate in these tests.
fn init(directory: &Path) {
    init_at(
        directory,
        SystemTime::now() - Duration::from_secs(100 * 3600),
    );
}

fn init_at(directory: &Path, then: SystemTime) {
    let domain = "demo.test".parse().unwrap();
    weft_ca::init(directory, &domain, &[], then, &mut rand::rng()).unwrap();
}

fn settings(directory: &Path, listen: SocketAddr, svid_ttl: Duration) -> ServeSettings {
    ServeSettings {
        directory: directory.to_owned(),
        listen,
        svid_ttl,
        renewal_grace: weft_ca::limits::RENEWAL_GRACE,
    }
}

fn order(identity: &str) -> TokenOrder {
    let domain = "demo.test".parse().unwrap();
    TokenOrder {
        subject: Subject::from_identity(&domain, identity).unwrap(),
        ttl: Duration::from_secs(3600),
        count: 1,
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn join(state_dir: &Path, token: Option<&JoinToken>) -> Result<Credentials, AgentError> {
    let settings = AgentSettings {
        state_dir: state_dir.to_owned(),
        join_token: token.cloned(),
        waiting: watch::Sender::default(),
        patience: None,
    };
    within(Agent::start(settings))
        .await
        .map(|(_, credentials)| credentials)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work)
        .await
        .expect("it takes far too long")
}
