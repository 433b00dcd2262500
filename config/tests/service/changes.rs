//! What operators change and read, and what is kept of it.

use weft_config::operator::{ChangeOptions, Operator, OperatorError};
use weft_config::resources::Kind;
use weft_config::table::Table;

use crate::MESH;
use crate::world::{World, apply, files, name};

#[tokio::test]
async fn a_traffic_policy_reaches_sidecars_resolved_and_its_change_is_shown_by_field() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let mut operator = world.operator("anna").await;
    frontend.table(|_| true).await;
    let acknowledging = frontend.acknowledge_everything();
    let policy = |attempts: u32| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\n\
             metadata: {{ name: orders, namespace: shop }}\nspec:\n  \
             targetRefs: [ {{ kind: Service, name: orders }} ]\n  retry: {{ attempts: {attempts} }}\n"
        )
    };
    apply(&mut operator, &format!("{MESH}---\n{}", policy(1))).await;
    let attempts = |table: &Table| {
        let traffic = &table.services[&name("orders.shop")].ports[&80].traffic;
        traffic.request.retry.attempts
    };
    let table = frontend.table(|table| table.revision.number == 1).await;
    assert_eq!(attempts(&table), 1);
    let result = apply(&mut operator, &policy(0)).await;
    assert_eq!(
        result.changes[0].to_string(),
        "~ TrafficPolicy/shop/orders\n    spec.retry.attempts: 1 -> 0"
    );
    let table = frontend.table(|table| table.revision.number == 2).await;
    assert_eq!(attempts(&table), 0);
    let read = operator
        .get(Some(Kind::TrafficPolicy), None, None)
        .await
        .unwrap();
    assert_eq!(read.len(), 1);
    drop(acknowledging);
}

#[tokio::test]
async fn only_operators_may_change_or_read_the_mesh() {
    let world = World::start().await;
    let credentials = world
        .authority
        .credentials("spiffe://demo.test/ns/shop/sa/operator-anna");
    let mut other = Operator::connect(&world.addresses(), &credentials)
        .await
        .unwrap();
    let error = other
        .apply(&files(MESH), &ChangeOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OperatorError::NotPermitted(_)), "{error}");
    let error = other.get(None, None, None).await.unwrap_err();
    assert!(matches!(error, OperatorError::NotPermitted(_)), "{error}");
}

#[tokio::test]
async fn a_change_with_errors_or_without_effect_makes_no_revision() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let bad = apply(
        &mut operator,
        &MESH.replace("name: orders }", "name: order }"),
    )
    .await;
    assert!(
        bad.findings.has_errors() && bad.revision.is_none(),
        "{bad:?}"
    );
    let dry = ChangeOptions {
        dry_run: true,
        ..ChangeOptions::default()
    };
    let dry = operator.apply(&files(MESH), &dry).await.unwrap();
    assert!(dry.revision.is_none() && dry.changes.len() == 2);
    assert!(operator.revisions().await.unwrap().is_empty());
    assert!(apply(&mut operator, MESH).await.revision.is_some());
    assert!(apply(&mut operator, MESH).await.revision.is_none());
}

#[tokio::test]
async fn rollback_and_delete_are_new_revisions_with_author_and_message() {
    let world = World::start().await;
    let mut anna = world.operator("anna").await;
    let mut ben = world.operator("ben").await;
    apply(&mut anna, MESH).await;
    let key = "AuthorizationPolicy/shop/callers".parse().unwrap();
    let options = ChangeOptions {
        message: "open it".into(),
        ..ChangeOptions::default()
    };
    ben.delete(&[key], &options).await.unwrap();
    let result = anna.rollback(1, &ChangeOptions::default()).await.unwrap();
    assert_eq!(result.revision.unwrap().number, 3);
    assert_eq!(
        result.changes[0].to_string(),
        "+ AuthorizationPolicy/shop/callers"
    );
    assert_eq!(result.overwritten[0].author, "ben");
    let revisions = anna.revisions().await.unwrap();
    let told: Vec<(&str, &str)> = revisions
        .iter()
        .map(|one| (one.author.as_str(), one.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [("anna", "rollback to 1"), ("ben", "open it"), ("anna", "")]
    );
    assert!(matches!(
        anna.rollback(9, &ChangeOptions::default()).await,
        Err(OperatorError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_resource_keeps_its_age_over_changes_and_what_a_file_says_of_it_is_not_read() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    let service = async |operator: &mut Operator| {
        let found = operator.get(Some(Kind::Service), None, None).await;
        found.unwrap().remove(0)
    };
    let first = service(&mut operator).await;
    let metadata = first.metadata();
    assert_eq!(metadata.generation, Some(1));
    assert!(metadata.creation_timestamp.is_some());
    // As it is shown it can be applied again, with a status, and is no change.
    let shown = first.to_yaml() + "status: { parents: [] }\n";
    let again = apply(&mut operator, &shown).await;
    assert!(
        again.changes.is_empty() && again.revision.is_none(),
        "{again:?}"
    );
    let forged = shown
        .replace("generation: 1", "generation: 99\n  resourceVersion: \"12\"")
        .replace("protocol: http", "protocol: grpc");
    let changed = apply(&mut operator, &forged).await;
    assert_eq!(
        changed.changes[0].to_string(),
        "~ Service/shop/orders\n    spec.ports[0].protocol: \"http\" -> \"grpc\""
    );
    let second = service(&mut operator).await;
    assert_eq!(second.metadata().generation, Some(2));
    assert_eq!(second.metadata().uid, metadata.uid);
    assert_eq!(
        second.metadata().creation_timestamp,
        metadata.creation_timestamp
    );
    operator
        .rollback(1, &ChangeOptions::default())
        .await
        .unwrap();
    let back = service(&mut operator).await;
    assert_eq!(back.metadata().generation, Some(3));
    assert_eq!(back.metadata().uid, metadata.uid);
}
