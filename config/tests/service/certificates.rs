//! How connections to the config service end with their certificate, and that a connection with a renewed
//! certificate goes on where the old one was.

use std::time::{Duration, Instant};

use weft_config::operator::{ChangeOptions, OperatorError};
use weft_config::resources::InvalidRules;

use crate::MESH;
use crate::world::{PATIENCE, Sidecar, World, apply, endpoints, files, name};

#[tokio::test]
async fn an_operator_whose_certificate_has_ended_changes_nothing_on_its_open_connection() {
    let world = World::start().await;
    let id = "spiffe://demo.test/ns/weft/sa/operator-anna";
    let life = Duration::from_secs(3);
    let credentials = world.authority.credentials_for(id, life);
    let mut anna = world.connect(&credentials).await;
    anna.diff(&files(MESH), InvalidRules::Refuse).await.unwrap();
    let ended = credentials.svid().not_after();
    while ended.elapsed().is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = anna.apply(&files(MESH), &ChangeOptions::default()).await;
    assert!(refused.is_err(), "{refused:?}");
    let mut other = world.operator("other").await;
    assert!(other.revisions().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_apply_answers_before_its_certificate_ends_however_long_it_was_to_wait() {
    let world = World::start().await;
    // It never acknowledges.
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    frontend.table(|_| true).await;
    let id = "spiffe://demo.test/ns/weft/sa/operator-anna";
    let credentials = world.authority.credentials_for(id, Duration::from_secs(5));
    let mut anna = world.connect(&credentials).await;
    let result = apply(&mut anna, MESH).await;
    assert!(result.revision.is_some());
    assert!(!result.sidecars[0].acknowledged);
    assert!(credentials.svid().not_after().elapsed().is_err());
}

#[tokio::test]
async fn a_renewed_certificate_goes_on_with_the_registration_before_the_old_one_ends() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let _acknowledging = frontend.acknowledge_everything();
    let id = "spiffe://demo.test/ns/shop/sa/orders";
    let life = Duration::from_secs(4);
    let credentials = world.authority.credentials_for(id, life);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = world.settings(
        "orders",
        &[],
        &["orders.shop"],
        dir.path(),
        &world.addresses(),
    );
    settings.credentials = credentials.clone();
    let orders = Sidecar::start(settings, dir);
    let _also = orders.acknowledge_everything();
    let mut anna = world.operator("anna").await;
    apply(&mut anna, MESH).await;
    orders.handle.set_health(&name("orders.shop"), 80, true);
    frontend.table(|table| !endpoints(table).is_empty()).await;

    // Three lives, each of which begins before the one before it ends.
    let mut connected = true;
    let begin = Instant::now();
    let mut renewed = 0;
    while begin.elapsed() < 3 * life {
        if begin.elapsed() > renewed * (life / 2) {
            let (svid, bundle) = world.authority.svid(id, life);
            credentials.replace(svid, bundle).unwrap();
            renewed += 1;
        }
        connected &= orders.handle.status().connected;
        let listed = anna.sidecars().await.unwrap();
        let own: Vec<_> = listed
            .iter()
            .filter(|one| one.identity.as_str() == id)
            .collect();
        connected &= own.len() == 1 && own[0].connected;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(connected, "it was never without a stream");
    assert_eq!(orders.handle.status().last_error, None);
    let table = frontend.table(|_| true).await;
    assert_eq!(endpoints(&table).len(), 1);
    // Of the newest stream, not of the first.
    let listed = anna.sidecars().await.unwrap();
    let orders = listed.iter().find(|one| one.identity.as_str() == id);
    assert!(orders.unwrap().serves["orders.shop:80"]);
    let again = MESH.replace("port: 80", "port: 81");
    let result = tokio::time::timeout(PATIENCE, apply(&mut anna, &again)).await;
    let result = result.unwrap();
    assert!(
        result.sidecars.iter().all(|one| one.acknowledged),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_has_ended_opens_no_connection_that_lasts() {
    let world = World::start().await;
    let id = "spiffe://demo.test/ns/weft/sa/operator-anna";
    // Ended within the clock skew that a handshake allows.
    let credentials = world.authority.credentials_for(id, Duration::ZERO);
    let called = async {
        let mut anna = world.try_connect(&credentials).await?;
        anna.apply(&files(MESH), &ChangeOptions::default()).await
    };
    let refused: Result<_, OperatorError> = called.await;
    assert!(refused.is_err(), "{refused:?}");
    let mut other = world.operator("other").await;
    assert!(other.revisions().await.unwrap().is_empty());
}
