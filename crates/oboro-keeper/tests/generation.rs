//! A generation at a real keeper over real TLS, and requests that it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Keeper, issue, rng, searcher, values};
use oboro_channel::{Connection, Role};
use oboro_ckks::{
    BatchEncryptor, BatchPacking, BatchTableShare, BlindTrainer, EncryptedBatch, MaskSeed,
    MaskedBatchCodebook, MaskedCodebook, MaskedOffsets, Packing, ParameterSet, PublicKey, Step,
    TableScale, TrainedCodebook, TrainingPlan, TrainingSample, WorkRows,
};
use oboro_protocol::generation::v1::{
    self, keeper_generation_client::KeeperGenerationClient as Client,
};
use oboro_protocol::{Reason, reason_of};
use tonic::transport::Channel;
use tonic::{Response, Status};
use zeroize::Zeroizing;

const SET: ParameterSet = ParameterSet::N2048Q50;
const SAMPLES: usize = 300;
const ROUNDS: usize = 2;

fn client(connection: &Connection) -> Client<Channel> {
    Client::new(connection.channel.clone())
        .max_decoding_message_size(64 << 20)
        .max_encoding_message_size(usize::MAX)
}

async fn refusal<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Reason {
    match call.await {
        Err(status) => reason_of(&status).unwrap_or_else(|| panic!("{status:?}")),
        Ok(_) => panic!("not refused"),
    }
}

/// An owner's and a searcher's side of one generation.
struct World {
    keeper: Keeper,
    packing: BatchPacking,
    sample: TrainingSample,
    mask_seed: MaskSeed,
    owner: Client<Channel>,
    searcher: Client<Channel>,
}

impl World {
    async fn new() -> Self {
        let keeper = Keeper::start(SET, |config| config.record_view = true).await;
        let packing = BatchPacking::new(SET, 4, 3, 16).unwrap();
        let vectors = values(SAMPLES * packing.vector_len(), &mut rng(40));
        Self {
            owner: client(&keeper.connect_as(Role::Owner).await),
            searcher: client(&keeper.connect_as(Role::Searcher).await),
            sample: TrainingSample::new(&packing, &vectors, &mut rng(41)).unwrap(),
            mask_seed: MaskSeed::generate(&mut rng(42)),
            packing,
            keeper,
        }
    }

    fn key(&self) -> &PublicKey {
        &self.keeper.public_key
    }

    fn request(&self) -> v1::KeeperBeginRequest {
        v1::KeeperBeginRequest {
            shape: Some(v1::Shape {
                index_id: vec![6; 16].into(),
                batch_packing: self.packing.to_bytes().to_vec().into(),
                split: 1,
                bounds: self.sample.bounds().to_bytes().to_vec().into(),
                rounds: ROUNDS as u32,
                vectors: 1_000,
                segments: 1,
            }),
            key_fingerprint: self.key().fingerprint().to_vec().into(),
        }
    }

    async fn begin(&mut self) -> Bytes {
        let request = self.request();
        let reply = self.owner.begin(request).await.unwrap();
        reply.into_inner().session
    }

    async fn shares(&mut self, session: &Bytes) {
        let shares = Bytes::from(self.sample.shares(&self.mask_seed));
        let mut offset = 0;
        for piece in shares.chunks(10_000) {
            let request = v1::SharesRequest {
                session: session.clone(),
                offset: offset as u64,
                shares: Bytes::copy_from_slice(piece),
            };
            // Brought twice, it counts once.
            self.owner.shares(request.clone()).await.unwrap();
            let reply = self.owner.shares(request).await.unwrap().into_inner();
            offset += piece.len();
            assert_eq!(reply.received, offset as u64);
        }
    }

    fn trainer(&self) -> BlindTrainer {
        let plan = TrainingPlan {
            rounds: ROUNDS,
            vector_norm: 4.0,
            seed: Zeroizing::new([43; 32]),
        };
        BlindTrainer::new(
            &self.packing,
            self.sample.bounds(),
            plan,
            self.mask_seed.clone(),
            self.key().clone(),
        )
        .unwrap()
    }

    fn means(&self, session: &Bytes, trainer: &BlindTrainer) -> v1::MeansRequest {
        v1::MeansRequest {
            session: session.clone(),
            scale: trainer.scale().to_bytes().to_vec().into(),
            labels: trainer.labels().to_bytes().into(),
        }
    }

    async fn train(&mut self, session: &Bytes) -> TrainedCodebook {
        let scale = self.sample.bounds().scale(&self.packing).unwrap();
        let encryptor = BatchEncryptor::new(scale, self.key().clone()).unwrap();
        let batches: Vec<EncryptedBatch> = (0..self.packing.batches(SAMPLES))
            .map(|batch| {
                encryptor
                    .encrypt(self.sample.batch(batch), &mut rng(44 + batch as u8))
                    .unwrap()
            })
            .collect();
        let mut trainer = self.trainer();
        let mut number = 0;
        let mut seed = 100;
        loop {
            match trainer.step() {
                Step::Centroids => {
                    let request = self.means(session, &trainer);
                    let reply = self.searcher.means(request.clone()).await.unwrap();
                    let again = self.searcher.means(request).await.unwrap().into_inner();
                    // The same question, the same answer.
                    assert!(reply.into_inner() == again);
                    let masked =
                        MaskedBatchCodebook::from_bytes(&self.packing, &again.codebook).unwrap();
                    trainer.install(masked).unwrap();
                    number = again.number;
                }
                Step::Tables => {
                    for work in trainer.work() {
                        let batch = match work.rows() {
                            WorkRows::Sample(index) => &batches[index],
                            WorkRows::Centroids(index) => trainer.centroid_batch(index).unwrap(),
                        };
                        seed += 1;
                        let mut rngs = [rng(seed)];
                        let evaluator = trainer.evaluator().unwrap();
                        let mut evaluated = evaluator
                            .evaluate(&[batch], work.blocks(), &mut rngs)
                            .unwrap();
                        let (share, masked) = evaluated.remove(0);
                        let request = v1::TablesRequest {
                            session: session.clone(),
                            number,
                            first_block: work.blocks().start as u32,
                            end_block: work.blocks().end as u32,
                            batches: vec![masked.to_bytes().into()],
                        };
                        let reply = self.searcher.tables(request).await.unwrap().into_inner();
                        let keeper = BatchTableShare::from_bytes(
                            &self.packing,
                            work.blocks(),
                            &reply.shares[0],
                        )
                        .unwrap();
                        let found = trainer.decode(&work, &share, &keeper).unwrap();
                        trainer.absorb(found).unwrap();
                    }
                }
                Step::Finished => return trainer.finish().unwrap(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codebook_is_trained_that_the_keeper_does_not_see() {
    let mut world = World::new().await;
    let session = world.begin().await;
    world.shares(&session).await;
    let trained = world.train(&session).await;
    // The keeper saw ciphertexts that look like noise.
    let view = world.keeper.server.view();
    let uniformity = view.uniformity.unwrap();
    assert!(uniformity.abs() < 6.0, "{uniformity}");
    assert!(world.keeper.server.metrics().batches > 0);

    // The same codebook in the form for searching.
    let packing = Packing::compact_query(SET, 4, 3, 16).unwrap();
    let scale = TableScale::new(
        &packing,
        8.0,
        trained.codebook_norm(),
        trained.offset_bound(),
    )
    .unwrap();
    let (masked, keep) =
        MaskedOffsets::new(&packing, &scale, Some(trained.offsets()), &mut rng(9)).unwrap();
    let request = v1::CodebookRequest {
        session: session.clone(),
        scale: scale.to_bytes().to_vec().into(),
        offsets: masked.to_bytes().into(),
    };
    let reply = world.searcher.codebook(request).await.unwrap().into_inner();
    let masked = MaskedCodebook::from_bytes(&packing, &reply.codebook).unwrap();
    keep.unmask(masked, trained.means(), &scale).unwrap();
    let request = v1::EndRequest { session };
    world.owner.end(request.clone()).await.unwrap();
    assert_eq!(
        refusal(world.owner.end(request)).await,
        Reason::UnknownSession
    );
}

#[tokio::test]
async fn fail_foreign_tokens_and_parties() {
    let mut world = World::new().await;
    let session = world.begin().await;
    world.shares(&session).await;
    let trainer = world.trainer();
    let request = world.means(&session, &trainer);
    let foreign = v1::MeansRequest {
        session: vec![7; 16].into(),
        ..request.clone()
    };
    assert_eq!(
        refusal(world.searcher.means(foreign)).await,
        Reason::UnknownSession
    );
    world.searcher.means(request.clone()).await.unwrap();
    // The session is the first searcher's; another certificate is another searcher.
    let mut second = client(&world.keeper.connect_as(Role::Searcher).await);
    assert_eq!(
        refusal(second.means(request.clone())).await,
        Reason::UnknownSession
    );
    // Nor is it another owner's.
    let mut other = client(&world.keeper.connect_as(Role::Owner).await);
    let end = v1::EndRequest {
        session: session.clone(),
    };
    assert_eq!(refusal(other.end(end)).await, Reason::UnknownSession);
    // Each role does its own part only.
    assert_eq!(refusal(world.owner.means(request)).await, Reason::Forbidden);
    let begin = world.request();
    assert_eq!(
        refusal(world.searcher.begin(begin.clone())).await,
        Reason::Forbidden
    );
    let mut reader = client(&world.keeper.connect_as(Role::Client).await);
    assert_eq!(refusal(reader.begin(begin)).await, Reason::Forbidden);
    // A searcher that attests another index.
    let identity = issue(&world.keeper.home.authority, Role::Searcher);
    let offer = Some(searcher(b"searcher", [9; 16]));
    let connection = world.keeper.connect(&identity, offer).await.unwrap();
    let session = {
        let mut request = world.request();
        request.shape.as_mut().unwrap().index_id = vec![8; 16].into();
        world
            .owner
            .begin(request)
            .await
            .unwrap()
            .into_inner()
            .session
    };
    let request = world.means(&session, &trainer);
    assert_eq!(
        refusal(client(&connection).means(request)).await,
        Reason::Forbidden
    );
}

#[tokio::test]
async fn fail_wrong_order_and_too_much() {
    let mut world = World::new().await;
    let session = world.begin().await;
    let trainer = world.trainer();
    // No shares, no means.
    let request = world.means(&session, &trainer);
    assert_eq!(
        refusal(world.searcher.means(request.clone())).await,
        Reason::BadRequest
    );
    let tables = v1::TablesRequest {
        session: session.clone(),
        number: 1,
        first_block: 0,
        end_block: 1,
        batches: vec![vec![0; 10].into()],
    };
    assert_eq!(
        refusal(world.searcher.tables(tables.clone())).await,
        Reason::BadRequest
    );
    let codebook = v1::CodebookRequest {
        session: session.clone(),
        scale: vec![0; 24].into(),
        offsets: Bytes::new(),
    };
    assert_eq!(
        refusal(world.searcher.codebook(codebook)).await,
        Reason::BadRequest
    );
    // Shares that leave a gap, and more than the sample has.
    let piece = |offset, length| v1::SharesRequest {
        session: session.clone(),
        offset,
        shares: vec![1; length].into(),
    };
    let gap = piece(1, 10);
    assert_eq!(refusal(world.owner.shares(gap)).await, Reason::BadRequest);
    let all = world.sample.shares(&world.mask_seed).len();
    let long = piece(0, all + 1);
    assert_eq!(refusal(world.owner.shares(long)).await, Reason::BadRequest);
    world.shares(&session).await;
    let beyond = piece(all as u64, 1);
    assert_eq!(
        refusal(world.owner.shares(beyond)).await,
        Reason::BadRequest
    );
    // Labels that are cut, and an empty cluster.
    for labels in [
        request.labels.slice(1..),
        vec![0xff; request.labels.len()].into(),
    ] {
        let bad = v1::MeansRequest {
            labels,
            ..request.clone()
        };
        assert_eq!(refusal(world.searcher.means(bad)).await, Reason::BadRequest);
    }
    let number = world.searcher.means(request.clone()).await.unwrap();
    let number = number.into_inner().number;
    // Another codebook, other blocks, batches that are none.
    for bad in [
        v1::TablesRequest {
            number: number + 1,
            ..tables.clone()
        },
        v1::TablesRequest {
            number,
            end_block: u32::MAX,
            batches: Vec::new(),
            ..tables.clone()
        },
        v1::TablesRequest {
            number,
            first_block: 3,
            end_block: 2,
            ..tables.clone()
        },
        v1::TablesRequest {
            number,
            end_block: 9,
            ..tables.clone()
        },
        v1::TablesRequest {
            number,
            ..tables.clone()
        },
    ] {
        let reason = refusal(world.searcher.tables(bad)).await;
        assert!(matches!(reason, Reason::BadRequest | Reason::Limit));
    }
    // Work is bounded.
    let mut made = 1;
    let reason = loop {
        match world.searcher.means(request.clone()).await {
            Ok(_) => made += 1,
            Err(status) => break reason_of(&status).unwrap(),
        }
        assert!(made < 1_000);
    };
    assert_eq!(reason, Reason::Limit);
    // The one that came before the shares counts, too.
    assert_eq!(made, 2 * (ROUNDS + 8) - 1);
}

#[tokio::test]
async fn fail_shapes_that_no_generation_has() {
    let mut world = World::new().await;
    type Change = fn(&mut v1::Shape);
    let changes: [Change; 10] = [
        |s| s.index_id = vec![0; 16].into(),
        |s| s.index_id = vec![1; 15].into(),
        |s| s.batch_packing = s.batch_packing.slice(1..),
        |s| s.split = 99,
        |s| s.bounds = s.bounds.slice(1..),
        |s| s.rounds = 0,
        |s| s.rounds = 101,
        |s| s.vectors = 0,
        |s| s.segments = u32::MAX,
        // Labels of so large a sample fit no message.
        |s| {
            let packing = BatchPacking::new(SET, 64, 1, 16).unwrap();
            s.batch_packing = packing.to_bytes().to_vec().into();
            let samples = (1u32 << 20).to_le_bytes();
            s.bounds = [samples.as_slice(), &s.bounds[4..]].concat().into();
        },
    ];
    for change in changes {
        let mut request = world.request();
        change(request.shape.as_mut().unwrap());
        let reason = refusal(world.owner.begin(request)).await;
        assert!(matches!(reason, Reason::BadRequest | Reason::Limit));
    }
    let request = v1::KeeperBeginRequest {
        shape: None,
        ..world.request()
    };
    assert_eq!(
        refusal(world.owner.begin(request)).await,
        Reason::BadRequest
    );
    let request = v1::KeeperBeginRequest {
        key_fingerprint: vec![0; 32].into(),
        ..world.request()
    };
    assert_eq!(
        refusal(world.owner.begin(request)).await,
        Reason::BadRequest
    );
    // Only so many at a time: an owner loses its own oldest, and nobody else's.
    let of_index = |index: u8| {
        let mut request = world.request();
        let shape = request.shape.as_mut().unwrap();
        shape.index_id = vec![index; 16].into();
        request
    };
    let requests: Vec<_> = (0..5).map(|index| of_index(index + 6)).collect();
    let mut sessions = Vec::new();
    for request in requests {
        let reply = world.owner.begin(request).await.unwrap();
        sessions.push(reply.into_inner().session);
    }
    let request = v1::EndRequest {
        session: sessions[0].clone(),
    };
    assert_eq!(
        refusal(world.owner.end(request)).await,
        Reason::UnknownSession
    );
    // One that it begins again is the one that it began.
    let mut again = world.request();
    again.shape.as_mut().unwrap().index_id = vec![10; 16].into();
    let reply = world.owner.begin(again).await.unwrap();
    assert_eq!(reply.into_inner().session, sessions[4]);
    let mut other = client(&world.keeper.connect_as(Role::Owner).await);
    assert_eq!(refusal(other.begin(world.request())).await, Reason::Busy);
}

#[tokio::test]
async fn fail_shares_of_codebooks_that_this_keeper_did_not_seal() {
    let mut world = World::new().await;
    let request = v1::InstallRequest {
        index_id: vec![6; 16].into(),
        share: vec![1; 500].into(),
        key_fingerprint: world.key().fingerprint().to_vec().into(),
    };
    assert_eq!(
        refusal(world.owner.install(request.clone())).await,
        Reason::Forbidden
    );
    for share in [vec![1; 500], vec![0; 28], vec![0; 11], Vec::new()] {
        let bad = v1::InstallRequest {
            share: share.into(),
            ..request.clone()
        };
        assert_eq!(
            refusal(world.searcher.install(bad)).await,
            Reason::BadRequest
        );
    }
    let bad = v1::InstallRequest {
        key_fingerprint: vec![0; 32].into(),
        ..request.clone()
    };
    assert!(world.searcher.install(bad).await.is_err());
    let bad = v1::InstallRequest {
        index_id: vec![6; 15].into(),
        ..request
    };
    assert_eq!(
        refusal(world.searcher.install(bad)).await,
        Reason::BadRequest
    );
}
