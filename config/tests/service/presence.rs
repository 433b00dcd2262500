//! For which sidecars an apply waits: those whose stream broke, and those that an earlier service knew.

use std::time::{Duration, Instant};

use weft_config::operator::{ChangeOptions, ChangeResult, Operator};

use crate::MESH;
use crate::world::{World, apply, files};

async fn apply_at_once(operator: &mut Operator, text: &str) -> ChangeResult {
    let options = ChangeOptions::default();
    operator.apply(&files(text), &options).await.unwrap()
}

fn more(name: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{port: 80, protocol: http}}]}}\n"
    )
}

#[tokio::test]
async fn a_sidecar_whose_stream_broke_is_named_and_one_that_ended_is_not() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    let mut ended = world.sidecar("ended", &[], &[]);
    let mut broken = world.sidecar("broken", &[], &[]);
    ended.table(|_| true).await;
    broken.table(|_| true).await;
    ended.stop().await;
    let _dir = broken.stop_hard();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    // The service learns of the end of a stream a moment later.
    let result = loop {
        number += 1;
        let result = apply_at_once(&mut operator, &more(&format!("more{number}"))).await;
        if result.sidecars.iter().all(|one| one.lost) || Instant::now() > deadline {
            break result;
        }
    };
    let named: Vec<(&str, bool, bool)> = result
        .sidecars
        .iter()
        .map(|one| (one.identity.as_str(), one.lost, one.acknowledged))
        .collect();
    assert_eq!(
        named,
        [("spiffe://demo.test/ns/shop/sa/broken", true, false)]
    );
    assert!(!result.settling);
}

#[tokio::test]
async fn a_service_that_was_just_started_waits_for_the_sidecars_that_it_knew_and_no_longer() {
    let mut world = World::start().await;
    let mut frontend = world.sidecar("frontend", &["orders.shop"], &[]);
    let _acknowledging = frontend.acknowledge_everything();
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    frontend.table(|table| table.revision.number == 1).await;
    world.restart().await;
    let mut operator = world.operator("anna").await;
    let begun = Instant::now();
    let result = apply(&mut operator, &more("more")).await;
    assert_eq!(result.sidecars.len(), 1, "{result:?}");
    assert!(
        result.sidecars[0].acknowledged && !result.settling,
        "{result:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_service_that_cannot_know_which_sidecars_there_are_says_so_until_a_lease_has_passed() {
    let mut world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    world.stop().await;
    std::fs::remove_file(world.dir.path().join("sidecars.json")).unwrap();
    world.serve().await;
    let mut operator = world.operator("anna").await;
    let result = apply_at_once(&mut operator, &more("more")).await;
    assert!(result.settling && result.revision.is_some(), "{result:?}");
    // There is no change left to make, and still the answer does not report success.
    let again = apply_at_once(&mut operator, &more("more")).await;
    assert!(again.settling && again.revision.is_none(), "{again:?}");
    let waited = apply(&mut operator, &more("last")).await;
    assert!(!waited.settling && waited.sidecars.is_empty(), "{waited:?}");
}

#[tokio::test]
async fn a_mesh_without_sidecars_is_changed_at_once_also_after_a_restart() {
    let mut world = World::start().await;
    let mut operator = world.operator("anna").await;
    let begun = Instant::now();
    let first = apply(&mut operator, MESH).await;
    world.restart().await;
    let mut operator = world.operator("anna").await;
    let second = apply(&mut operator, &more("more")).await;
    for result in [first, second] {
        assert!(result.revision.is_some() && !result.settling, "{result:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
}
