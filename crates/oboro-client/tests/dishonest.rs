//! A searcher that an owner's authority vouches for and that is not honest.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Shape, World, attester, raw};
use oboro_attest::{AttestedRole, Subject};
use oboro_channel::{AcceptOptions, Offer, Role, serve_incoming, tuned_server};
use oboro_client::{Client, ClientError, SearchOptions};
use oboro_protocol::v1::{
    self,
    searcher_client::SearcherClient,
    searcher_server::{Searcher, SearcherServer},
};
use oboro_protocol::{Failure, Reason};
use oboro_quant::Metric;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::Channel};

/// Asks an honest searcher and changes what it says.
struct Between {
    honest: SearcherClient<Channel>,
    change: fn(&mut v1::SearchReply),
    counts: Arc<Counts>,
}

/// What happened in between.
#[derive(Default)]
struct Counts {
    /// Searches that will be refused, as if the epoch had ended.
    refusals: AtomicUsize,
    /// Query models that clients fetched.
    query_models: AtomicUsize,
}

type Answer<T> = Result<Response<T>, Status>;

fn unasked<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of the test"))
}

#[tonic::async_trait]
impl Searcher for Between {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Answer<v1::SearcherDescription> {
        self.honest.clone().describe(request.into_inner()).await
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Answer<v1::SearchReply> {
        let one_less = |left: usize| left.checked_sub(1);
        let refusals = &self.counts.refusals;
        if refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            let failure = Failure::new(Reason::WrongEpoch, "this epoch is over");
            return Err(failure.into());
        }
        let mut reply = self.honest.clone().search(request.into_inner()).await?;
        (self.change)(reply.get_mut());
        Ok(reply)
    }

    async fn begin_search(&self, _: Request<v1::SearchRequest>) -> Answer<v1::BeginSearchReply> {
        unasked()
    }

    async fn finish_search(&self, _: Request<v1::FinishSearchRequest>) -> Answer<v1::SearchReply> {
        unasked()
    }

    async fn codebook_masks(
        &self,
        _: Request<v1::CodebookMasksRequest>,
    ) -> Answer<v1::CodebookMasksReply> {
        unasked()
    }

    async fn query_model(
        &self,
        request: Request<v1::QueryModelRequest>,
    ) -> Answer<v1::QueryModelReply> {
        self.counts.query_models.fetch_add(1, Ordering::Relaxed);
        self.honest.clone().query_model(request.into_inner()).await
    }

    async fn begin_rotation(
        &self,
        _: Request<v1::BeginRotationRequest>,
    ) -> Answer<v1::BeginRotationReply> {
        unasked()
    }

    async fn commit_rotation(
        &self,
        _: Request<v1::CommitRotationRequest>,
    ) -> Answer<v1::CommitRotationReply> {
        unasked()
    }

    async fn model(&self, _: Request<v1::ModelRequest>) -> Answer<v1::ModelReply> {
        unasked()
    }

    async fn stage(&self, _: Request<v1::StageRequest>) -> Answer<v1::StageReply> {
        unasked()
    }

    async fn commit(&self, _: Request<v1::CommitRequest>) -> Answer<v1::CommitReply> {
        unasked()
    }

    async fn compact(&self, _: Request<v1::CompactRequest>) -> Answer<v1::CompactReply> {
        unasked()
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::SearcherStatus> {
        unasked()
    }
}

/// Serves what `honest` serves, changed, with evidence about `subject`.
async fn between(
    world: &World,
    honest: SocketAddr,
    subject: Subject,
    change: fn(&mut v1::SearchReply),
) -> SocketAddr {
    counted(world, honest, subject, change, Arc::default()).await
}

async fn counted(
    world: &World,
    honest: SocketAddr,
    subject: Subject,
    change: fn(&mut v1::SearchReply),
    counts: Arc<Counts>,
) -> SocketAddr {
    let trust = world.authority.trust();
    let service = Between {
        honest: raw(honest, &world.client_identity, &trust).await,
        change,
        counts,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = AcceptOptions {
        allowed: vec![Role::Client],
        offer: Some(Offer::new(attester(), AttestedRole::Searcher, subject)),
        ..AcceptOptions::default()
    };
    let incoming = serve_incoming(listener, &world.searcher_identity, &trust, options).unwrap();
    let service = SearcherServer::new(service);
    tokio::spawn(
        tuned_server()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    address
}

/// A world and what its honest searcher attests.
async fn serving() -> (World, SocketAddr, Subject, Vec<common::Running>) {
    serving_of(&Shape::new(300, 8, Metric::L2)).await
}

async fn serving_of(shape: &Shape) -> (World, SocketAddr, Subject, Vec<common::Running>) {
    let world = World::new(shape);
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let descriptor = world.index().descriptor().clone();
    let subject = Subject {
        index_id: descriptor.index_id,
        epoch: descriptor.epoch,
        ..Subject::new([0; 32])
    };
    let address = searcher.address;
    (world, address, subject, vec![keeper, searcher])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_evidence_about_another_index_or_epoch() {
    let (world, honest, subject, _running) = serving().await;
    let unchanged = |_: &mut v1::SearchReply| ();
    // The way itself works.
    let address = between(&world, honest, subject, unchanged).await;
    let client = Client::connect(world.client_config(address)).await.unwrap();
    let options = SearchOptions::default();
    client.search(&world.base[..8], &options).await.unwrap();
    let mut other_index = subject;
    other_index.index_id[0] ^= 1;
    for wrong in [
        other_index,
        Subject {
            epoch: subject.epoch + 1,
            ..subject
        },
        Subject::new([0; 32]),
    ] {
        let address = between(&world, honest, wrong, unchanged).await;
        let config = world.client_config(address);
        let error = Client::connect(config).await.err().unwrap();
        assert!(matches!(error, ClientError::Subject { .. }), "{error}");
        assert!(error.is_untrusted());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_replies_of_another_size() {
    let (world, honest, subject, _running) = serving().await;
    let changes: [fn(&mut v1::SearchReply); 3] = [
        |reply| reply.padding.clear(),
        |reply| reply.padding.push(vec![0; 7].into()),
        |reply| reply.timings = None,
    ];
    for change in changes {
        let address = between(&world, honest, subject, change).await;
        let client = Client::connect(world.client_config(address)).await.unwrap();
        let error = client
            .search(&world.base[..8], &SearchOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Reply(_)), "{error}");
        let due = world.sizes().reply().to_string();
        assert!(error.to_string().contains(&due), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_keeps_the_query_model() {
    let shape = Shape::new(300, 8, Metric::L2).turned(2).in_lists(4, 2);
    let (world, honest, subject, _running) = serving_of(&shape).await;
    let counts = Arc::<Counts>::default();
    let address = counted(&world, honest, subject, |_| (), Arc::clone(&counts)).await;
    let fetched = || counts.query_models.load(Ordering::Relaxed);
    let options = SearchOptions::default();
    let client = Client::connect(world.client_config(address)).await.unwrap();
    let before = client.search(&world.base[..8], &options).await.unwrap();
    assert_eq!(fetched(), 1);
    for _ in 0..3 {
        counts.refusals.store(1, Ordering::Relaxed);
        let after = client.search(&world.base[..8], &options).await.unwrap();
        assert_eq!(counts.refusals.load(Ordering::Relaxed), 0);
        assert_eq!(after.neighbours, before.neighbours);
    }
    assert_eq!(fetched(), 1);
    // Another client has none yet.
    drop(Client::connect(world.client_config(address)).await.unwrap());
    assert_eq!(fetched(), 2);
}
