//! Members of the mesh that ask for more than their share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tonic::Code;
use weft_config::operator::ChangeOptions;
use weft_config::table::Table;

use crate::world::{PATIENCE, World, apply, files, name};
use crate::{MESH, raw};

#[tokio::test]
async fn of_four_hundred_streams_of_one_sidecar_one_lives_and_the_others_end_with_a_reason() {
    const STREAMS: usize = 400;
    let world = World::start().await;
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(raw::connect(&world, "mallory").await);
    }
    let mut open = Vec::new();
    for n in 0..STREAMS {
        open.push(raw::subscribe(&channels[n % 4], "one").await.unwrap());
    }
    let (_sender, mut last) = open.pop().unwrap();
    let mut ends = BTreeSet::new();
    for (_sender, mut stream) in open {
        let ended = async {
            while let Some(_table) = stream.message().await? {}
            Ok::<_, tonic::Status>(())
        };
        let status = tokio::time::timeout(PATIENCE, ended)
            .await
            .unwrap()
            .unwrap_err();
        ends.insert((status.code() as i32, status.message().to_owned()));
    }
    let told = (
        Code::Aborted as i32,
        "this sidecar has subscribed anew".to_owned(),
    );
    assert_eq!(ends, BTreeSet::from([told]));
    assert!(
        last.message().await.unwrap().is_some(),
        "the last one is served"
    );
    let sidecars = world.operator("anna").await.sidecars().await.unwrap();
    assert_eq!(sidecars.len(), 1, "{sidecars:?}");
}

#[tokio::test]
async fn a_call_by_no_operator_is_refused_before_its_body_comes() {
    let world = World::start().await;
    let channel = raw::connect(&world, "mallory").await;
    for method in [
        "Operator/Apply",
        "Operator/Validate",
        "Operator/Diff",
        "Operator/Delete",
        "Operator/Rollback",
        "Operator/Get",
        "Operator/ListRevisions",
        "Operator/ListSidecars",
        "Operator/Unknown",
        "Admin/Backup",
    ] {
        let refused = tokio::time::timeout(PATIENCE, raw::call_without_body(&channel, method));
        let status = refused.await.unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
    }
}

#[tokio::test]
async fn a_guessed_name_tells_a_workload_nothing() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    let more = MESH
        .replace("namespace: shop", "namespace: bank")
        .replace("name: orders", "name: vault");
    apply(&mut operator, &format!("{MESH}---\n{more}")).await;
    let guesses = ["vault.bank", "nothing.bank"];
    let mut mallory = world.sidecar(
        "mallory",
        &guesses,
        &[&guesses[..], &["orders.shop"]].concat(),
    );
    let problems = mallory.problems().await;
    for service in ["vault.bank", "nothing.bank", "orders.shop"] {
        let expected = format!("waits: no Service {service} that this identity may serve");
        assert_eq!(problems[&format!("{service}:80")], expected);
    }
    let table = mallory.table(|table| table.revision.number == 1).await;
    let names = |table: &Table| -> BTreeSet<String> {
        let services = table.services.keys().chain(table.forbidden.keys());
        services.map(ToString::to_string).collect()
    };
    assert_eq!(names(&table), BTreeSet::new());
    // It may learn which services of its own namespace are forbidden to its listeners, so that its
    // application gets 403.
    let mut neighbour = world.sidecar("neighbour", &["orders.shop"], &[]);
    let table = neighbour.table(|table| table.revision.number == 1).await;
    assert!(table.forbidden.contains_key(&name("orders.shop")));
}

#[tokio::test]
async fn a_sidecar_that_reports_without_pause_holds_up_no_other() {
    let world = World::start().await;
    let channel = raw::connect(&world, "mallory").await;
    let (sender, _stream) = raw::subscribe(&channel, "one").await.unwrap();
    let mut flood = tokio::task::JoinSet::new();
    flood.spawn(async move {
        for n in 0_u32.. {
            let inbound = (0..200).map(|service| raw::Inbound {
                service: format!("s{service}.shop"),
                port: n % 60_000 + 1,
            });
            let report = raw::Report {
                inbound: inbound.collect(),
            };
            let message = raw::ToService {
                hello: None,
                report: Some(report),
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut operator = world.operator("anna").await;
    for n in 0..5 {
        let begun = Instant::now();
        let text = MESH.replace("name: orders", &format!("name: orders{n}"));
        let (files, options) = (files(&text), ChangeOptions::default());
        let changed = operator.apply(&files, &options).await.unwrap();
        assert!(changed.revision.is_some());
        assert!(begun.elapsed() < Duration::from_secs(1), "change {n}");
    }
}
