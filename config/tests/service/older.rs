//! A sidecar of the build before sidecars announced features: its messages are recorded bytes, and the table
//! that it expects is one that the config service of its time sent (`older/`).

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status, Streaming};
use weft_config::client::saved_table;
use weft_config::compile::{Endpoints, Plan, Sidecar as For};
use weft_config::operator::{SidecarInfo, SidecarState};
use weft_config::resources::{Set, parse};
use weft_config::server::MetricsHandle;
use weft_config::table::{Ban, Features, Table};

use crate::raw;
use crate::world::{PATIENCE, Sidecar, World, apply, files, name};

/// What an operator wrote at that time, with every field that there was.
const MESH: &str = include_str!("older/mesh.yaml");

/// The file of a sidecar `orders` of that time: the table that its config service made of [`MESH`].
const SAVED: &str = include_str!("older/table.json");

/// It serves `orders.shop:80` and its listeners name `secret.shop`.
const HELLO: &[u8] = b"\x0a\x2a\x0a\x050.1.0\x12\x05older\x1a\x0bsecret.shop\x22\x0d10.0.0.1:6143";
const REPORT: &[u8] = b"\x12\x13\x0a\x11\x0a\x0borders.shop\x10\x50\x18\x01";

/// The features that such a service cannot express: removed, with one more Service to show that the rest
/// arrives.
const RESTRICTED: &str = r"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { pathCase: insensitive, ports: [ { port: 80, protocol: http } ] }
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: { name: extra, namespace: shop }
spec: { ports: [ { port: 80, protocol: http } ] }
";

/// The JSON of a table as that build wrote it to disk.
fn saved_json() -> &'static str {
    SAVED.split_once('\n').unwrap().1
}

#[test]
fn the_table_for_an_older_sidecar_is_to_the_byte_the_one_that_its_own_service_made() {
    let recorded: Table = serde_json::from_str(saved_json()).unwrap();
    let parsed = parse(&files(MESH));
    assert!(!parsed.findings.has_errors(), "{:?}", parsed.findings);
    let mut set = Set::default();
    parsed.resources.into_iter().for_each(|one| set.insert(one));
    let domain = "demo.test".parse().unwrap();
    let plan = Plan::new(recorded.revision.clone(), domain, &set);
    let orders = &recorded.services[&name("orders.shop")].ports[&80];
    let endpoints = Endpoints::from([((name("orders.shop"), 80), orders.endpoints.clone().into())]);
    let older = For {
        identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
        listens_for: [name("secret.shop")].into(),
        serves: [name("orders.shop")].into(),
        features: Features::none(),
    };
    let fitted = plan.fitted(&plan.scope(&older), &endpoints);
    assert_eq!(fitted.withheld, []);
    let written = fitted.table.write_for(Features::none()).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), saved_json());
}

#[test]
fn a_table_that_an_older_sidecar_left_on_disk_is_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("table.json"), SAVED).unwrap();
    let table = saved_table(dir.path()).unwrap();
    assert_eq!(table.forbidden[&name("secret.shop")].ban, Ban::Unstated);
    assert!(table.services.contains_key(&name("orders.shop")));
}

#[tokio::test]
async fn an_older_sidecar_runs_the_mesh_and_refuses_calls_under_rules_that_it_does_not_support() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    let mut older = Older::start(&world).await;
    let bystander = world.sidecar("orders", &[], &["orders.shop"]);
    let _acknowledging = bystander.acknowledge_everything();
    older.acknowledge(1).await;
    let told: serde_json::Value = older.table(1).await;
    assert_eq!(told["forbidden"], serde_json::json!(["secret.shop"]));

    let answering = async {
        let told = older.table(2).await;
        older.acknowledge(2).await;
        told
    };
    let (told, result) = tokio::join!(answering, apply(&mut operator, RESTRICTED));
    let orders = &told["services"]["orders.shop"]["authorization"];
    let closed = serde_json::json!({"default": "Deny", "rules": [
        {"policy": "Service/shop/orders", "action": "Deny"}]});
    assert_eq!(*orders, closed);
    assert!(told["services"]["extra.shop"].is_object(), "the rest comes");

    let withheld = |withheld: &[weft_config::table::Withheld]| -> Vec<String> {
        withheld.iter().map(ToString::to_string).collect()
    };
    let expected = [
        "Service/shop/orders needs path-case, which this sidecar does not know: it refuses every call to orders.shop",
    ];
    let of = |state: &&SidecarState| state.instance == "older";
    let state = result.sidecars.iter().find(of).unwrap();
    assert!(state.acknowledged);
    assert_eq!(withheld(&state.withheld), expected);
    let other = result.sidecars.iter().find(|state| !of(state)).unwrap();
    assert_eq!(
        (other.acknowledged, withheld(&other.withheld)),
        (true, vec![])
    );
    let listed = operator.sidecars().await.unwrap();
    let listed = listed.iter().find(|one| one.instance == "older").unwrap();
    let SidecarInfo {
        features,
        withheld: names,
        ..
    } = listed;
    assert_eq!(
        (features.len(), withheld(names)),
        (0, expected.map(String::from).to_vec())
    );
    assert_eq!(number(&world.metrics(), "path-case"), 1);
    assert_eq!(number(&world.metrics(), "route-only"), 0);
    whole(&bystander);
}

/// A peer that does not register, with a weight and a label.
const WORKLOAD: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: { name: cellar, namespace: shop }
spec:
  address: "10.0.0.9:6143"
  identity: spiffe://demo.test/ns/shop/sa/orders
  services: [ { name: orders, port: 80 } ]
  weight: 300
  metadata: { version: v2 }
"#;

#[tokio::test]
async fn an_older_sidecar_gets_the_endpoints_of_workloads_without_what_it_does_not_know_of_them() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    apply(&mut operator, WORKLOAD).await;
    let mut older = Older::start(&world).await;
    let mut bystander = world.sidecar("orders", &[], &["orders.shop"]);
    let _acknowledging = bystander.acknowledge_everything();
    let told = older.table(2).await;
    let endpoints = &told["services"]["orders.shop"]["ports"]["80"]["endpoints"];
    // Its own registration is one of them.
    let named = |one: &&serde_json::Value| one["workload"] == "Workload/shop/cellar";
    let endpoint = endpoints.as_array().unwrap().iter().find(named).unwrap();
    let plain = serde_json::json!({
        "workload": "Workload/shop/cellar",
        "address": "10.0.0.9:6143",
        "identity": "spiffe://demo.test/ns/shop/sa/orders",
    });
    assert_eq!(*endpoint, plain);
    let table = bystander.table(|table| table.revision.number == 2).await;
    let mut endpoints = table.services[&name("orders.shop")].ports[&80]
        .endpoints
        .iter();
    let whole = endpoints.find(|one| one.workload == "Workload/shop/cellar");
    let details = &whole.unwrap().details;
    assert_eq!(details.weight.get(), 300);
    assert_eq!(
        details.metadata.iter().collect::<Vec<_>>(),
        [("version", "v2")]
    );
    assert_eq!(bystander.handle.status().withheld, []);
}

/// A sidecar of this build decides by the operator's resources.
fn whole(bystander: &Sidecar) {
    let table = bystander.tables.borrow().clone().unwrap();
    let orders = &table.services[&name("orders.shop")];
    let authorization = orders.authorization.as_ref().unwrap();
    assert!(!authorization.path_case.is_sensitive());
    assert!(authorization.rules.len() > 1);
    assert_eq!(bystander.handle.status().withheld, []);
}

#[tokio::test]
async fn a_sidecar_that_reads_no_table_of_this_service_is_named_and_keeps_its_registration() {
    let world = World::start().await;
    let mut operator = world.operator("anna").await;
    apply(&mut operator, MESH).await;
    // A hello of a later build: it reads schema 7, and announces a feature that does not exist yet.
    let mut hello = HELLO.to_vec();
    hello.extend_from_slice(b"\x32\x01\x07\x3a\x05later");
    hello[1] += 10;
    let _later = Older::subscribe(&world, &hello).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let listed = loop {
        let listed = operator.sidecars().await.unwrap().pop().unwrap();
        if listed.refusal.is_some() || tokio::time::Instant::now() > deadline {
            break listed;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        listed.refusal.as_deref(),
        Some(
            "it reads tables of schema [7], and this config service writes 1: run the same version of weft"
        )
    );
    assert_eq!(listed.serves.keys().collect::<Vec<_>>(), ["orders.shop:80"]);
    let result = apply(&mut operator, RESTRICTED).await;
    assert!(
        result.sidecars[0].refusal.is_some(),
        "apply does not wait for it"
    );
}

#[tokio::test]
async fn a_hello_with_more_features_than_there_can_be_is_refused() {
    let world = World::start().await;
    let mut hello = b"\x0a\x05later".to_vec();
    let features = vec![String::from("x"); weft_config::limits::FEATURES_MAX + 1];
    hello = Hello {
        version: "9".into(),
        instance: String::from_utf8(hello.split_off(2)).unwrap(),
        features,
    }
    .encode_to_vec();
    let mut message = vec![0x0a];
    prost::encoding::encode_varint(hello.len() as u64, &mut message);
    message.extend(hello);
    let mut stream = Older::subscribe(&world, &message).await.1;
    let ended = async {
        while stream.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let status = tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    instance: String,
    #[prost(string, repeated, tag = "7")]
    features: Vec<String>,
}

fn number(metrics: &MetricsHandle, feature: &str) -> u64 {
    let samples = metrics.samples();
    let mut withheld = samples
        .iter()
        .filter(|one| one.metric.name() == "weft_config_sidecars_withheld");
    withheld.find(|one| one.labels == [feature]).unwrap().value as u64
}

/// The messages of the service as that sidecar knows them. It ignores what it does not know, in tables
/// excepted.
#[derive(Clone, PartialEq, prost::Message)]
struct ToSidecar {
    #[prost(message, tag = "1")]
    table: Option<TableMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TableMessage {
    #[prost(bytes = "vec", tag = "1")]
    json: Vec<u8>,
    #[prost(bool, tag = "2")]
    settling: bool,
}

struct Older {
    outgoing: mpsc::Sender<Vec<u8>>,
    incoming: Streaming<Vec<u8>>,
    tables: Vec<serde_json::Value>,
}

impl Older {
    async fn start(world: &World) -> Self {
        let (outgoing, incoming) = Self::subscribe(world, HELLO).await;
        Self {
            outgoing,
            incoming,
            tables: Vec::new(),
        }
    }

    async fn subscribe(world: &World, hello: &[u8]) -> (mpsc::Sender<Vec<u8>>, Streaming<Vec<u8>>) {
        let (outgoing, messages) = mpsc::channel(8);
        outgoing.try_send(hello.to_vec()).unwrap();
        outgoing.try_send(REPORT.to_vec()).unwrap();
        let mut client = Grpc::new(raw::connect(world, "orders").await);
        client.ready().await.unwrap();
        let path = "/weft.config.v1.Discovery/Subscribe".parse().unwrap();
        let messages = Request::new(ReceiverStream::new(messages));
        let answer = client.streaming(messages, path, Recorded).await.unwrap();
        (outgoing, answer.into_inner())
    }

    /// The first table of that revision, from which on no older one comes.
    async fn table(&mut self, revision: u64) -> serde_json::Value {
        let number = |table: &serde_json::Value| table["revision"]["number"].as_u64().unwrap();
        loop {
            if let Some(table) = self.tables.iter().rev().find(|one| number(one) == revision) {
                return table.clone();
            }
            let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
            let bytes = message.unwrap().unwrap().unwrap();
            if let Some(table) = ToSidecar::decode(bytes.as_slice()).unwrap().table {
                self.tables
                    .push(serde_json::from_slice(&table.json).unwrap());
            }
        }
    }

    /// It runs the revision.
    async fn acknowledge(&mut self, revision: u64) {
        let store = self.table(revision).await["revision"]["store"].clone();
        let store = store.as_str().unwrap();
        let mut message = vec![0x1a, 38, 0x0a, 36, 0x0a, 32];
        message.extend_from_slice(store.as_bytes());
        message.extend_from_slice(&[0x10, u8::try_from(revision).unwrap()]);
        self.outgoing.send(message).await.unwrap();
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded;

impl Codec for Recorded {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Recorded {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Recorded {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; from.remaining()];
        from.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
