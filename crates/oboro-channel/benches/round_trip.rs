//! One gRPC request over mutual TLS on the loopback interface, with the sizes of a table
//! decryption: masked products up, a share down. Server and client have a runtime each,
//! as two processes would.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use oboro_channel::{
    AcceptOptions, Authority, ConnectOptions, Role, connect, serve_incoming, tuned_server,
};
use oboro_protocol::v1;
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::v1::keeper_server::{Keeper, KeeperServer};
use std::hint::black_box;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

const UP: usize = 145 << 10;
const DOWN: usize = 8 << 10;

/// Answers with a share of the right size and no work.
struct Idle(Bytes);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Keeper for Idle {
    async fn decrypt(&self, request: Request<v1::DecryptRequest>) -> Reply<v1::DecryptReply> {
        black_box(request.into_inner().products.len());
        Ok(Response::new(v1::DecryptReply {
            share: self.0.clone(),
            ..Default::default()
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Reply<v1::KeeperStatus> {
        Ok(Response::new(v1::KeeperStatus::default()))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Reply<v1::KeeperDescription> {
        Err(Status::unimplemented("not measured"))
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Reply<v1::ReleaseReply> {
        Err(Status::unimplemented("not measured"))
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Reply<v1::RegisterReply> {
        Err(Status::unimplemented("not measured"))
    }

    async fn prepare(&self, _: Request<v1::PrepareRequest>) -> Reply<v1::PrepareReply> {
        Err(Status::unimplemented("not measured"))
    }

    async fn new_key(&self, _: Request<v1::NewKeyRequest>) -> Reply<v1::NewKeyReply> {
        Err(Status::unimplemented("not measured"))
    }

    async fn reencrypt(&self, _: Request<v1::ReencryptRequest>) -> Reply<v1::ReencryptReply> {
        Err(Status::unimplemented("not measured"))
    }

    async fn retire_key(&self, _: Request<v1::RetireKeyRequest>) -> Reply<v1::RetireKeyReply> {
        Err(Status::unimplemented("not measured"))
    }
}

fn round_trip(criterion: &mut Criterion) {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let issue = |role| authority.issue(role, SystemTime::now(), day).unwrap();
    let trust = authority.trust();
    let far = Runtime::new().unwrap();
    let address = far.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = AcceptOptions {
            allowed: vec![Role::Searcher],
            ..AcceptOptions::default()
        };
        let keeper = issue(Role::Keeper);
        let incoming = serve_incoming(listener, &keeper, &trust, options).unwrap();
        let service = KeeperServer::new(Idle(vec![7; DOWN].into()));
        tokio::spawn(
            tuned_server()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        address
    });
    let near = Runtime::new().unwrap();
    let searcher = issue(Role::Searcher);
    let options = ConnectOptions::default();
    let connection = near
        .block_on(connect(
            &address,
            &searcher,
            &trust,
            Role::Keeper,
            options.clone(),
        ))
        .unwrap();
    let client = KeeperClient::new(connection.channel);
    let products = Bytes::from(vec![9; UP]);

    let mut group = criterion.benchmark_group("grpc over mutual TLS, loopback");
    group.bench_function("145 KiB up, 8 KiB down", |bencher| {
        bencher.iter(|| {
            near.block_on(async {
                client
                    .clone()
                    .decrypt(v1::DecryptRequest {
                        handle: Bytes::new(),
                        products: products.clone(),
                    })
                    .await
                    .unwrap()
            })
        });
    });
    group.bench_function("empty", |bencher| {
        bencher.iter(|| {
            near.block_on(async { client.clone().status(v1::StatusRequest {}).await.unwrap() })
        });
    });
    group.bench_function("connect", |bencher| {
        bencher.iter(|| {
            near.block_on(connect(
                &address,
                &searcher,
                &trust,
                Role::Keeper,
                options.clone(),
            ))
            .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
