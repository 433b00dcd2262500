//! Identities and issuing certificates at their expiry.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_ca::agent::{Agent, AgentError, AgentSettings};
use weft_ca::{Admin, ErrorKind, Event, ServeSettings, Server};

use crate::world::{
    Ca, init, init_at, join, loopback, order, replace_by_one_issued_at, settings, within,
};

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
    // It expired two hours ago: past this CA's grace, and well within the usual one.
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
async fn a_limited_patience_ends_with_the_error_that_no_ca_answers() {
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
