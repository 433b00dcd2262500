//! The config service, operators and sidecars together in one process, over mutual TLS on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test where they unwrap"
)]

mod certificates;
mod changes;
mod hostile;
mod local;
mod older;
mod presence;
mod raw;
mod starting;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use weft_config::client::{Health, Subscription, SubscriptionSettings};
use weft_config::table::Table;

use world::{PATIENCE, SIDECAR, Shop, Sidecar, World, ZONE, apply, endpoints, name};

const MESH: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: orders } ]
  action: Allow
  from: [ { principals: ["spiffe://demo.test/ns/shop/sa/frontend"] } ]
"#;

#[tokio::test]
async fn a_table_is_delivered_acknowledged_and_follows_registrations() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let orders = world.sidecar("orders", &[], &["orders.shop"]);
    frontend.table(|_| true).await;
    let mut operator = world.operator("anna").await;
    let acknowledging = frontend.acknowledge_everything();
    let also = orders.acknowledge_everything();
    let result = apply(&mut operator, MESH).await;
    assert_eq!(
        result.revision.as_ref().map(|revision| revision.number),
        Some(1),
        "{result:?}"
    );
    assert_eq!(result.sidecars.len(), 2);
    assert!(
        result.sidecars.iter().all(|sidecar| sidecar.acknowledged),
        "{result:?}"
    );
    let table = frontend.table(|table| table.revision.number == 1).await;
    assert!(endpoints(&table).is_empty());

    orders.handle.set_health(&name("orders.shop"), 80, true);
    let table = frontend.table(|table| !endpoints(table).is_empty()).await;
    assert_eq!(endpoints(&table), ["10.0.0.1:6143"]);
    orders.handle.set_health(&name("orders.shop"), 80, false);
    frontend.table(|table| endpoints(table).is_empty()).await;

    let sidecars = operator.sidecars().await.unwrap();
    let serves: Vec<_> = sidecars.iter().flat_map(|one| &one.serves).collect();
    assert_eq!(serves, [(&"orders.shop:80".to_owned(), &false)]);
    assert!(frontend.handle.status().last_heard.is_some());
    assert_eq!(sidecars.len(), 2);
    assert!(
        sidecars
            .iter()
            .all(|one| one.connected && one.revision.is_some()),
        "{sidecars:?}"
    );
    drop((acknowledging, also));
}

#[tokio::test]
async fn a_sidecar_whose_host_moves_is_listed_at_its_new_address_alone() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let orders = world.sidecar("orders", &[], &["orders.shop"]);
    let mut operator = world.operator("anna").await;
    let _acknowledging = (
        frontend.acknowledge_everything(),
        orders.acknowledge_everything(),
    );
    apply(&mut operator, MESH).await;
    orders.handle.set_health(&name("orders.shop"), 80, true);
    frontend.table(|table| endpoints(table) == [SIDECAR]).await;
    orders.move_to("10.0.0.2:6143");
    let table = frontend
        .table(|table| endpoints(table) == ["10.0.0.2:6143"])
        .await;
    let endpoint = &table.services[&name("orders.shop")].ports[&80].endpoints[0];
    assert_eq!(endpoint.locality, Some(ZONE.parse().unwrap()));
}

#[tokio::test]
async fn a_process_that_takes_over_goes_on_with_the_registration() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let old = world.sidecar("orders", &[], &["orders.shop"]);
    let _all_acknowledge = [&frontend, &old].map(Sidecar::acknowledge_everything);
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    old.handle.set_health(&name("orders.shop"), 80, true);
    let table = frontend.table(|table| !endpoints(table).is_empty()).await;

    let registration = old.handle.registration().await;
    old.handle.hand_over();
    let dir = tempfile::tempdir().unwrap();
    let addresses = world.addresses();
    let settings = SubscriptionSettings {
        takes_over: Some(registration),
        ..world.settings("orders", &[], &["orders.shop"], dir.path(), &addresses)
    };
    let mut new = Sidecar::start(settings, dir);
    let _new_acknowledges = new.acknowledge_everything();
    let first = new.table(|_| true).await;
    let served = &first.services[&name("orders.shop")];
    assert!(served.authorization.is_some(), "it must not deny all");
    old.handle.set_health(&name("orders.shop"), 80, false);
    old.stop().await;

    // Any undoing by the old process would show by then.
    let another = MESH.replace("name: callers", "name: others");
    let result = apply(&mut operator, &another).await;
    assert_eq!(result.sidecars.len(), 2, "{result:?}");
    let after = frontend.table(|table| table.revision.number == 2).await;
    let orders = |table: &Table| {
        table.services[&name("orders.shop")].ports[&80]
            .endpoints
            .clone()
    };
    assert_eq!(orders(&after), orders(&table));
    new.handle.set_health(&name("orders.shop"), 80, false);
    frontend.table(|table| endpoints(table).is_empty()).await;
}

#[tokio::test]
async fn a_refusal_is_reported_with_its_reason_and_the_old_table_stays_on_disk() {
    let world = World::start().await;
    let mut frontend = world.sidecar("frontend", &[], &[]);
    let table = frontend.table(|_| true).await;
    frontend.handle.acknowledge(&table.revision, Ok(()));
    let mut operator = world.operator("anna").await;
    let (handle, mut tables) = (frontend.handle.clone(), frontend.handle.tables());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let newer = |table: &Option<Arc<Table>>| {
            table
                .as_ref()
                .is_some_and(|table| table.revision.number == 1)
        };
        let table = tables.wait_for(newer).await.unwrap().clone().unwrap();
        handle.acknowledge(&table.revision, Err("no socket for it".into()));
    });
    let result = apply(&mut operator, MESH).await;
    assert_eq!(
        result.sidecars[0].refusal.as_deref(),
        Some("no socket for it"),
        "{result:?}"
    );
    assert!(!result.sidecars[0].acknowledged);
    // A restart would start from the acknowledged table.
    let dir = frontend.stop().await;
    let (_, handle) = Subscription::start(world.settings("frontend", &[], &[], dir.path(), &[]));
    let table = handle.tables().borrow().clone().unwrap();
    assert_eq!(table.revision.number, 0);
}

#[tokio::test]
async fn an_identity_that_may_not_serve_is_never_listed_and_only_operators_hear_why() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let intruder = world.sidecar("intruder", &[], &["orders.shop"]);
    intruder.handle.set_health(&name("orders.shop"), 80, true);
    let problems = intruder.problems().await;
    assert_eq!(
        problems["orders.shop:80"].as_str(),
        "waits: no Service orders.shop that this identity may serve"
    );
    let sidecars = operator.sidecars().await.unwrap();
    assert!(sidecars.iter().all(|one| one.serves.is_empty()));
    let told: Vec<&str> = sidecars
        .iter()
        .filter_map(|one| one.problems.get("orders.shop:80").map(String::as_str))
        .collect();
    assert_eq!(
        told,
        [
            "spiffe://demo.test/ns/shop/sa/intruder may not serve orders.shop, only \
             spiffe://demo.test/ns/shop/sa/orders may: start the sidecar with a token for such an identity, or \
             name this one in spec.identities of the Service"
        ]
    );
    let table = frontend.table(|_| true).await;
    assert!(endpoints(&table).is_empty());
}

#[tokio::test]
async fn a_table_that_cannot_be_decoded_is_refused_at_once_with_the_reason() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    let mut frontend = world.sidecar("frontend", &[], &[]);
    let table = frontend.table(|table| table.revision.number == 1).await;
    frontend.handle.acknowledge(&table.revision, Ok(()));
    let dir = frontend.stop().await;
    // It has run a revision that this store has forgotten.
    let path = dir.path().join("table.json");
    let saved = std::fs::read_to_string(&path).unwrap();
    let (_, json) = saved.split_once('\n').unwrap();
    let newer = json.replace("\"number\":1", "\"number\":1000");
    assert_ne!(json, newer);
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, newer.as_bytes());
    let sum: String = sum
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    std::fs::write(&path, format!("{sum}\n{newer}")).unwrap();
    let settings = world.settings("frontend", &[], &[], dir.path(), &world.addresses());
    let frontend = Sidecar::start(settings, dir);
    let bystander = world.sidecar("orders", &[], &[]);
    let acknowledging = bystander.acknowledge_everything();
    let more = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: more, namespace: shop}\n\
                spec: {ports: [{port: 80, protocol: http}]}\n";
    let connected = async {
        while operator
            .sidecars()
            .await
            .unwrap()
            .iter()
            .filter(|one| one.connected)
            .count()
            < 2
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.unwrap();
    let applied = tokio::time::timeout(PATIENCE / 2, apply(&mut operator, more));
    let result = applied.await.expect("an answer, not the end of the wait");
    let of = |name: &str| {
        let mut all = result.sidecars.iter();
        all.find(|one| one.identity.to_string().ends_with(name))
            .unwrap()
    };
    let refusal = of("/frontend").refusal.as_deref().unwrap_or_default();
    assert!(
        refusal.contains("older than") && refusal.contains("1000"),
        "{result:?}"
    );
    assert!(of("/orders").acknowledged, "{result:?}");
    let status = frontend.handle.status();
    assert!(
        status.refusal.is_some() && status.refused_unseen > 0,
        "{status:?}"
    );
    drop(acknowledging);
}

#[tokio::test]
async fn a_withdrawal_counts_at_once_also_right_after_a_restart_of_the_service() {
    let mut shop = Shop::start(MESH).await;
    shop.world.stop().await;
    // Its report is the first that the new service gets of it.
    shop.orders
        .handle
        .set_health(&name("orders.shop"), 80, false);
    shop.world.serve().await;
    let started = tokio::time::Instant::now();
    shop.frontend
        .table(|table| endpoints(table).is_empty())
        .await;
    assert!(started.elapsed() < weft_config::limits::LEASE);
    // And it takes it back as quickly.
    shop.orders
        .handle
        .set_health(&name("orders.shop"), 80, true);
    shop.frontend
        .table(|table| !endpoints(table).is_empty())
        .await;
    shop.orders
        .handle
        .set_health(&name("orders.shop"), 80, false);
    shop.frontend
        .table(|table| endpoints(table).is_empty())
        .await;
    assert!(started.elapsed() < weft_config::limits::LEASE);
}

#[tokio::test]
async fn what_a_sidecar_says_of_itself_reaches_callers_and_follows_its_restart() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let mut frontend = world.sidecar("frontend", &[], &[]);
    let _acknowledging = frontend.acknowledge_everything();
    apply(&mut operator, MESH).await;
    for weight in [250_u32, 100] {
        let dir = tempfile::tempdir().unwrap();
        let addresses = world.addresses();
        let mut settings = world.settings("orders", &[], &["orders.shop"], dir.path(), &addresses);
        for details in settings.inbound.values_mut() {
            details.weight = weight.try_into().unwrap();
        }
        let orders = Sidecar::start(settings, dir);
        orders.handle.set_health(&name("orders.shop"), 80, true);
        let said = |table: &Table| {
            let orders = table.services.get(&name("orders.shop"));
            let port = orders.and_then(|orders| orders.ports.get(&80));
            let endpoints = port.map_or(&[][..], |port| &port.endpoints);
            endpoints.len() == 1 && u32::from(endpoints[0].details.weight) == weight
        };
        frontend.table(said).await;
        orders.stop().await;
        frontend.table(|table| endpoints(table).is_empty()).await;
    }
}

#[tokio::test]
async fn operators_are_told_why_an_application_is_not_healthy_in_a_bounded_line() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let orders = world.sidecar("orders", &[], &["orders.shop"]);
    let _acknowledging = orders.acknowledge_everything();
    apply(&mut operator, MESH).await;
    orders.handle.set_health(&name("orders.shop"), 80, true);
    let why = Health::Bad(format!("http /healthz: {}", "x".repeat(10_000)));
    orders.handle.set_health(&name("orders.shop"), 80, why);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let problem = loop {
        let listed = operator.sidecars().await.unwrap();
        let problem = listed[0].problems.get("orders.shop:80").cloned();
        if problem.is_some() || tokio::time::Instant::now() > deadline {
            break problem.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(
        problem.starts_with("its application is not healthy: http /healthz: xxx"),
        "{problem}"
    );
    assert!(problem.chars().count() < 300);
}
