//! A CA and its workloads on loopback: the behaviour that operators (`operator.rs`) and sidecars rely on.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint sees tests only by their attribute"
)]

mod ends;
mod operator;
mod world;

use std::time::{Duration, Instant, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_ca::ErrorKind;
use weft_ca::agent::{Agent, AgentError, AgentSettings};
use weft_ca::limits::HANDSHAKES;
use weft_transport::metrics::IDENTITY_RENEWALS;

use world::{Ca, join, replace_by_one_issued_at, within};

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
    // As if the process had crashed before the answer reached its disk.
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
        .find(|sample| sample.metric.name() == IDENTITY_RENEWALS.name());
    assert_eq!(renewals.unwrap().value, 1.0);
    // A restart finds the identity that was swapped in.
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
async fn strangers_that_send_garbage_or_nothing_keep_no_workload_out() {
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
