//! A member of the mesh that speaks gRPC without weft's client, and breaks rules that the client never would.

use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use weft_transport::tcp::TlsConnector;

use crate::world::World;

/// A message to `Subscribe`, as far as these tests need it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToService {
    #[prost(message, tag = "1")]
    pub(crate) hello: Option<Hello>,
    #[prost(message, tag = "2")]
    pub(crate) report: Option<Report>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "2")]
    pub(crate) instance: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) listens_for: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Report {
    #[prost(message, repeated, tag = "1")]
    pub(crate) inbound: Vec<Inbound>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Inbound {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

/// Whatever comes back: not decoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Anything {}

/// A connection with the identity `ns/shop/sa/ACCOUNT`.
pub(crate) async fn connect(world: &World, account: &str) -> Channel {
    let id = format!("spiffe://demo.test/ns/shop/sa/{account}");
    let credentials = world.authority.credentials(&id);
    let server = "spiffe://demo.test/ns/weft/sa/config".parse().unwrap();
    let connector = TlsConnector::mutual(&credentials, server).unwrap();
    let tcp = TcpStream::connect(world.address).await.unwrap();
    let mut stream = Some(TokioIo::new(connector.connect(tcp).await.unwrap()));
    Endpoint::from_static("http://config.weft")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let taken = stream.take();
            std::future::ready(taken.ok_or_else(|| std::io::Error::other("used up")))
        }))
        .await
        .unwrap()
}

/// A subscription of a sidecar that names itself `instance`. It lives while the sender does.
pub(crate) async fn subscribe(
    channel: &Channel,
    instance: &str,
) -> Result<(mpsc::Sender<ToService>, Streaming<Anything>), Status> {
    let (sender, messages) = mpsc::channel(4);
    let hello = Hello {
        version: "0.1.0".into(),
        instance: instance.into(),
        listens_for: Vec::new(),
    };
    let first = [
        ToService {
            hello: Some(hello),
            report: None,
        },
        ToService {
            hello: None,
            report: Some(Report::default()),
        },
    ];
    for message in first {
        sender.try_send(message).unwrap();
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(failed)?;
    let answer = client
        .streaming(
            Request::new(ReceiverStream::new(messages)),
            "/weft.config.v1.Discovery/Subscribe".parse().unwrap(),
            ProstCodec::<ToService, Anything>::default(),
        )
        .await?;
    Ok((sender, answer.into_inner()))
}

/// A call of `method` whose body never comes.
pub(crate) async fn call_without_body(channel: &Channel, method: &str) -> Status {
    let (sender, messages) = mpsc::channel::<Anything>(1);
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(failed).unwrap();
    let answer = client
        .client_streaming(
            Request::new(ReceiverStream::new(messages)),
            format!("/weft.config.v1.{method}").parse().unwrap(),
            ProstCodec::<Anything, Anything>::default(),
        )
        .await;
    drop(sender);
    answer.unwrap_err()
}

fn failed(error: tonic::transport::Error) -> Status {
    Status::unavailable(error.to_string())
}
