//! What the tests of this crate share: a small service, and a world of two parties.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod platform;
pub mod raw;

use oboro_channel::{
    AcceptLimits, AcceptOptions, Authority, ChannelError, ConnectOptions, Connection, Demand,
    Identity, Offer, Role, Trust, connect, explain, peer, serve_incoming, tuned_server,
};
use oboro_protocol::v1;
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::v1::keeper_server::{Keeper, KeeperServer};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// Answers a masked table with its own bytes and a handle with the caller's key, role
/// and grant.
pub struct Echo;

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Keeper for Echo {
    async fn prepare(&self, request: Request<v1::PrepareRequest>) -> Reply<v1::PrepareReply> {
        let peer = peer(&request)?;
        let mut handle = peer.spki_sha256.to_vec();
        let attested = peer.appraisal.map_or("", |_| ", attested");
        handle.extend_from_slice(format!("{}, {}{attested}", peer.role, peer.grant).as_bytes());
        Ok(Response::new(v1::PrepareReply {
            handle: handle.into(),
        }))
    }

    async fn decrypt(&self, request: Request<v1::DecryptRequest>) -> Reply<v1::DecryptReply> {
        Ok(Response::new(v1::DecryptReply {
            share: request.into_inner().products,
            ..Default::default()
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Reply<v1::KeeperStatus> {
        Ok(Response::new(v1::KeeperStatus::default()))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Reply<v1::KeeperDescription> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Reply<v1::ReleaseReply> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Reply<v1::RegisterReply> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn new_key(&self, _: Request<v1::NewKeyRequest>) -> Reply<v1::NewKeyReply> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn reencrypt(&self, _: Request<v1::ReencryptRequest>) -> Reply<v1::ReencryptReply> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn retire_key(&self, _: Request<v1::RetireKeyRequest>) -> Reply<v1::RetireKeyReply> {
        Err(Status::unimplemented("not of this test"))
    }
}

pub fn issue(authority: &Authority, role: Role) -> Identity {
    authority.issue(role, SystemTime::now(), DAY).unwrap()
}

/// The keeper lets searchers and owners in.
pub fn accepting(limits: AcceptLimits) -> AcceptOptions {
    AcceptOptions {
        limits,
        allowed: vec![Role::Searcher, Role::Owner],
        ..AcceptOptions::default()
    }
}

pub fn serve(listener: TcpListener, identity: &Identity, trust: &Trust, options: AcceptOptions) {
    let incoming = serve_incoming(listener, identity, trust, options).unwrap();
    tokio::spawn(async move {
        tuned_server()
            .add_service(KeeperServer::new(Echo))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
}

/// A server of its own identity on a port of its own; the address.
pub async fn serve_at(identity: &Identity, trust: &Trust, options: AcceptOptions) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    serve(listener, identity, trust, options);
    address
}

/// A server in a runtime of its own: shutting that down breaks its connections, as when
/// a process ends.
pub fn serve_apart(
    address: &str,
    identity: &Identity,
    trust: &Trust,
    options: AcceptOptions,
) -> (tokio::runtime::Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let address = runtime.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        serve(listener, identity, trust, options);
        address
    });
    (runtime, address)
}

/// An authority, and a keeper that it vouches for.
pub struct World {
    pub authority: Authority,
    pub trust: Trust,
    pub keeper: Identity,
    pub address: String,
}

impl World {
    pub async fn new(options: AcceptOptions) -> Self {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        let trust = authority.trust();
        let keeper = issue(&authority, Role::Keeper);
        let address = serve_at(&keeper, &trust, options).await;
        Self {
            authority,
            trust,
            keeper,
            address,
        }
    }

    pub async fn connect(&self, role: Role) -> Result<Connection, ChannelError> {
        let identity = issue(&self.authority, role);
        self.connect_as(&identity, &self.trust).await
    }

    pub async fn connect_as(
        &self,
        identity: &Identity,
        trust: &Trust,
    ) -> Result<Connection, ChannelError> {
        let options = ConnectOptions::default();
        connect(&self.address, identity, trust, Role::Keeper, options).await
    }

    /// The connection must fail.
    pub async fn refuses(&self, identity: &Identity, sentence: &str) {
        let error = self.connect_as(identity, &self.trust).await.err().unwrap();
        assert!(error.to_string().contains(sentence), "{error}");
    }
}

pub async fn status(connection: &Connection) -> Result<(), Status> {
    KeeperClient::new(connection.channel.clone())
        .status(v1::StatusRequest {})
        .await
        .map(drop)
}

/// The words with which the server describes the caller.
pub async fn described(connection: &Connection) -> String {
    let reply = KeeperClient::new(connection.channel.clone())
        .prepare(v1::PrepareRequest::default())
        .await
        .unwrap()
        .into_inner();
    String::from_utf8(reply.handle[32..].to_vec()).unwrap()
}

/// Requests until one fails, for at most ten seconds; why it failed.
pub async fn until_refused(connection: &Connection) -> String {
    for _ in 0..1_000 {
        if let Err(error) = status(connection).await {
            return explain(&error);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never refused");
}

pub fn demands(role: Role, demand: Demand) -> HashMap<Role, Demand> {
    HashMap::from([(role, demand)])
}

pub fn offering(offer: &Offer) -> ConnectOptions {
    ConnectOptions {
        offer: Some(offer.clone()),
        ..ConnectOptions::default()
    }
}

pub fn demanding(demand: &Demand) -> ConnectOptions {
    ConnectOptions {
        demand: Some(demand.clone()),
        ..ConnectOptions::default()
    }
}
