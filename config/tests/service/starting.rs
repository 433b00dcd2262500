//! How the config service starts: anew, with its own store, with a restored one, or not at all.

use weft_config::server::{ConfigServeSettings, ConfigServer, ServeError, backup, restore};

use crate::MESH;
use crate::world::{Authority, Shop, World, apply, endpoints};

#[tokio::test]
async fn a_restarted_service_loses_nothing_and_causes_no_gap() {
    let mut shop = Shop::start(MESH).await;
    // The workload goes away together with the service, so it cannot register again.
    let _gone = shop.orders.stop_hard();
    shop.world.restart().await;
    let mut operator = shop.world.operator("anna").await;
    let more = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: more, namespace: shop}\n\
                spec: {ports: [{port: 80, protocol: http}]}\n";
    assert_eq!(apply(&mut operator, more).await.revision.unwrap().number, 2);
    let table = shop
        .frontend
        .table(|table| table.revision.number == 2)
        .await;
    assert_eq!(
        endpoints(&table),
        ["10.0.0.1:6143"],
        "it is known until a lease has passed"
    );
    shop.frontend
        .table(|table| endpoints(table).is_empty())
        .await;
}

#[tokio::test]
async fn a_restored_backup_is_another_store() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let revision = apply(&mut operator, MESH).await.revision.unwrap();
    let content = backup(world.dir.path()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &content).unwrap();
    assert_eq!(restored.number, revision.number);
    assert_ne!(restored.store, revision.store);
    assert!(matches!(
        restore(dir.path(), &content),
        Err(ServeError::Store(_))
    ));
}

#[tokio::test]
async fn a_service_without_the_reserved_identity_does_not_start_and_is_not_believed() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let settings = ConfigServeSettings {
        dir: dir.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
    };
    let credentials = authority.credentials("spiffe://demo.test/ns/shop/sa/config");
    let error = ConfigServer::bind(&settings, credentials)
        .await
        .unwrap_err();
    assert!(matches!(error, ServeError::Identity(_)), "{error}");
}

#[tokio::test]
async fn what_keeps_a_config_service_from_starting_is_one_line_with_the_way_out() {
    let world = World::start().await;
    let credentials = || {
        world
            .authority
            .credentials("spiffe://demo.test/ns/weft/sa/config")
    };
    let bind = |dir: &std::path::Path| {
        let settings = ConfigServeSettings {
            dir: dir.to_owned(),
            listen: world.address,
        };
        async move { ConfigServer::bind(&settings, credentials()).await }
    };
    let said = bind(world.dir.path()).await.unwrap_err().to_string();
    let expected = format!(
        "a config service (process {}) serves from {} already: end it, or choose another directory with --dir",
        std::process::id(),
        world.dir.path().display()
    );
    assert_eq!(said, expected);

    let other = tempfile::tempdir().unwrap();
    let said = bind(other.path()).await.unwrap_err().to_string();
    let expected = format!("cannot listen on {}: ", world.address);
    assert!(
        said.starts_with(&expected) && said.ends_with("or choose another with --listen)"),
        "{said}"
    );
}
