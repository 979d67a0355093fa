//! The keeper's key is rotated while vectors are encoded blindly: no vector is decrypted
//! under another key than it was encrypted for, and nothing is lost.
#![allow(clippy::unwrap_used)]

#[path = "common/blind.rs"]
mod blind;
mod common;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use blind::{DIMENSION, Failed, Maker, Roles, options, owner, rows, serve, words};
use bytes::Bytes;
use common::{Shape, World, id_of_row};
use oboro_channel::{ConnectOptions, Role, connect};
use oboro_client::{
    SearchOptions,
    blind::BlindWriter,
    rotation::{OwnerSession, rotate},
    writer::Writer,
};
use oboro_index::{BuildState, OnExisting};
use oboro_owner::{
    BlindEncoder, BlindEncryptor, BlindReport, BlindStart, Encodes, Ids, InsertOptions, OwnerError,
    Rows, Skip, Target, Unencoded, VectorSource,
};
use oboro_protocol::{
    Reason,
    generation::v1::{self, encoder_client::EncoderClient},
    reason_of,
};
use oboro_quant::Metric;
use oboro_session::{ServedIndex, SessionError};
use tokio::runtime::Handle;
use tonic::transport::Channel;

const ROWS: usize = 400;

/// A world whose vectors have a blindly made index, at the address that serves it.
async fn served(keeper: SocketAddr, world: &World) -> SocketAddr {
    let maker = Maker::start(world, "blind", keeper).await;
    let mut roles = Roles::connect(world, &maker, keeper).await;
    let mut settings = options(ROWS, 2);
    settings.centroids = 16;
    blind::build(world, &mut roles, &settings).await.unwrap();
    let folder = maker.folder.clone();
    maker.task.await.unwrap().unwrap().unwrap();
    let searcher = serve(world, &folder, world.searcher_config(Some(keeper))).await;
    // Once it is open.
    drop(world.client(searcher).await);
    searcher
}

fn world() -> World {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let mut world = World::with_base(&shape, words(200));
    world.base = words(ROWS);
    world
}

/// Some vectors, prepared for encoding, with their ids.
struct Prepared {
    ids: Vec<u64>,
    vectors: Unencoded,
}

fn prepared(encoder: &BlindEncoder, count: usize) -> Prepared {
    let values = words(count);
    let records = Rows::new(&values, DIMENSION)
        .unwrap()
        .read(count)
        .unwrap()
        .unwrap();
    let (seen, rng) = (&mut Default::default(), &mut common::rng(5));
    let (segment, _) = encoder
        .encode(records, &[], &Skip::default(), seen, rng)
        .unwrap();
    Prepared {
        ids: segment.ids,
        vectors: segment.unencoded.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_vectors_that_are_encrypted_for_an_epoch_that_is_over() {
    const COUNT: usize = 64;
    let world = world();
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let searcher = served(keeper.address, &world).await;
    let config = world.writer_config(searcher, world.owner_identity());
    let writer = Writer::connect(&config).await.unwrap();
    let blind = BlindWriter::connect(&config, writer.descriptor().index_id)
        .await
        .unwrap();
    let width = writer.descriptor().subquantizers();
    let encoder = BlindEncoder::new(world.owner_key.writer_key(), writer.descriptor()).unwrap();
    let Prepared { ids, vectors } = prepared(&encoder, COUNT);
    let encrypted = |writer: &Writer, seed| {
        let encryptor = BlindEncryptor::new(blind.scale(), writer.descriptor()).unwrap();
        encryptor.encrypt(&vectors, &mut common::rng(seed)).unwrap()
    };
    let codes = |epoch, batches: Vec<Vec<u8>>| {
        let blind = blind.clone();
        async move { blind.encode(epoch, &batches, COUNT, width).await }
    };
    let first = encrypted(&writer, 31);
    let before = codes(1, first.clone()).await.unwrap();
    // A writer that knows of no epochs is one of the first epoch.
    let raw = raw(&world, searcher).await;
    let request = |epoch, batches: &[Vec<u8>]| v1::EncodeBatchesRequest {
        index_id: writer.descriptor().index_id.to_vec().into(),
        batches: batches.iter().cloned().map(Bytes::from).collect(),
        epoch,
    };
    let reply = raw.clone().encode(request(0, &first)).await.unwrap();
    assert_eq!(reply.into_inner().codes.concat()[..before.len()], before);

    // In the overlap both epochs are encoded, each under its own key, and codes are those of
    // the one codebook but for what lies between two centroids.
    let mut session = OwnerSession::connect(world.owner_config(searcher, keeper.address))
        .await
        .unwrap();
    let report = session.rotate(Duration::from_secs(300)).await.unwrap();
    let next = Writer::connect(&config).await.unwrap();
    assert_eq!(next.descriptor().epoch, 2);
    let second = encrypted(&next, 32);
    let by_id = |codes: &[u8]| -> BTreeMap<u64, Vec<u8>> {
        let rows = codes.chunks_exact(width).map(<[u8]>::to_vec);
        ids.iter().copied().zip(rows).collect()
    };
    for (epoch, batches) in [(1, &first), (2, &second), (1, &first), (2, &second)] {
        let now = codes(epoch, batches.clone()).await.unwrap();
        let pairs = by_id(&before).into_values().zip(by_id(&now).into_values());
        let pairs: Vec<(u8, u8)> = pairs.flat_map(|(a, b)| a.into_iter().zip(b)).collect();
        let same = pairs.iter().filter(|(a, b)| a == b).count();
        assert!(same * 100 > 97 * pairs.len(), "{same} of {}", pairs.len());
    }
    // Without a word on the epoch it could be either.
    for (epoch, batches) in [(0, &first), (3, &second)] {
        let status = raw
            .clone()
            .encode(request(epoch, batches))
            .await
            .err()
            .unwrap();
        assert_eq!(reason_of(&status), Some(Reason::WrongEpoch), "{status}");
        assert!(status.message().contains("epoch 2"), "{status}");
    }

    // The key goes before the overlap is over.
    session.retire(&report.from_fingerprint).await.unwrap();
    let error = codes(1, first.clone()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::WrongEpoch), "{error}");
    codes(2, second.clone()).await.unwrap();

    // No overlap at all.
    rotate(
        world.owner_config(searcher, keeper.address),
        Duration::ZERO,
        false,
    )
    .await
    .unwrap();
    for (epoch, batches) in [(1, &first), (2, &second)] {
        let error = codes(epoch, batches.clone()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::WrongEpoch), "{error}");
    }
    let third = Writer::connect(&config).await.unwrap();
    codes(3, encrypted(&third, 33)).await.unwrap();
}

async fn raw(world: &World, searcher: SocketAddr) -> EncoderClient<Channel> {
    let (identity, trust) = (world.owner_identity(), world.authority.trust());
    let address = searcher.to_string();
    let options = ConnectOptions::default();
    let connection = connect(&address, &identity, &trust, Role::Searcher, options)
        .await
        .unwrap();
    EncoderClient::new(connection.channel)
        .max_encoding_message_size(oboro_protocol::generation::MAX_MESSAGE_BYTES)
}

/// Rotates the key after its second commit, before its segment is encoded; and after its
/// fourth, when the segment is staged.
struct Rotating<'a> {
    target: ServedIndex,
    runtime: Handle,
    world: &'a World,
    searcher: SocketAddr,
    keeper: SocketAddr,
    commits: usize,
    rotations: usize,
    stages: usize,
}

impl Rotating<'_> {
    fn rotate(&mut self) {
        self.rotations += 1;
        let config = self.world.owner_config(self.searcher, self.keeper);
        let rotating = rotate(config, Duration::ZERO, false);
        self.runtime.block_on(rotating).unwrap();
    }
}

impl Target for Rotating<'_> {
    type Stage = oboro_client::writer::StageToken;
    type Error = SessionError;

    fn stage(
        &mut self,
        segment: &oboro_owner::EncodedSegment,
    ) -> Result<Self::Stage, SessionError> {
        if self.commits == 2 && self.rotations == 0 {
            self.rotate();
        }
        self.stages += 1;
        self.target.stage(segment)
    }

    fn commit(
        &mut self,
        stages: Vec<Self::Stage>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<oboro_owner::Changed, SessionError> {
        if self.commits == 4 && self.rotations == 1 {
            self.rotate();
        }
        let changed = self.target.commit(stages, deletes, on_existing, strict)?;
        self.commits += 1;
        Ok(changed)
    }

    fn is_unstaged(&self, error: &SessionError) -> bool {
        self.target.is_unstaged(error)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_insert_goes_on_over_rotations_at_its_worst_moments() {
    const WORDS: usize = 700;
    let world = world();
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let searcher = served(keeper.address, &world).await;
    let config = world.writer_config(searcher, world.owner_identity());
    let (index, encoder) = tokio::task::block_in_place(|| {
        let mut index = ServedIndex::connect(config, Handle::current()).unwrap();
        let key = world.owner_key.writer_key();
        let encoder = index.encoder(key, common::rng(41)).unwrap();
        (index, encoder)
    });
    let mut target = Rotating {
        target: index,
        runtime: Handle::current(),
        world: &world,
        searcher,
        keeper: keeper.address,
        commits: 0,
        rotations: 0,
        stages: 0,
    };
    let all = words(WORDS);
    let ids = (ROWS..WORDS).map(|row| id_of_row(row as u64)).collect();
    let mut source = Rows::new(&all[ROWS * DIMENSION..], DIMENSION)
        .unwrap()
        .with_ids(Ids::Numbers(ids))
        .unwrap();
    let settings = InsertOptions {
        batch: 50,
        ..InsertOptions::default()
    };
    let report = tokio::task::block_in_place(|| {
        let rng = &mut common::rng(6);
        oboro_owner::insert(&*encoder, &mut source, &mut target, &settings, rng)
    })
    .unwrap();
    assert_eq!((report.changed.inserted, report.changed.refused), (300, 0));
    assert_eq!(report.changed.vectors, WORDS as u64);
    // Six batches; one was lost between staging and commit, and brought again.
    assert_eq!((target.commits, target.stages), (6, 7));
    assert_eq!(target.rotations, 2);
    // It moved over to the key in use, twice.
    assert_eq!(target.target.writer().descriptor().epoch, 3);
    let client = world.client(searcher).await;
    for row in [0, 410, 510, 610, 699] {
        let query = &all[row * DIMENSION..][..DIMENSION];
        let options = SearchOptions::default();
        let found = client.search(query, &options).await.unwrap();
        assert_eq!(found.neighbours[0].id, id_of_row(row as u64), "{row}");
    }
    assert_eq!(client.index().epoch, 3);
}

/// Builds with a state that was kept.
fn go_on(
    world: &World,
    roles: &mut Roles,
    kept: &mut Option<BuildState>,
    resume: bool,
) -> Result<BlindReport, Failed> {
    let state = kept.take().unwrap_or_else(|| BuildState {
        index_id: [7; 16],
        seed: zeroize::Zeroizing::new([8; 32]),
        input: [0; 32],
        apart_from_key: None,
    });
    let mut settings = options(ROWS, 2);
    settings.centroids = 16;
    tokio::task::block_in_place(|| {
        let mut keep = |state: &BuildState| {
            *kept = Some(BuildState {
                seed: state.seed.clone(),
                ..*state
            });
            Ok(())
        };
        let start = BlindStart {
            state,
            resume,
            segment_vectors: 150,
            keep: &mut keep,
        };
        owner(world).build_blind(&mut rows(world), roles, &settings, start)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_build_that_is_resumed_after_a_rotation_begins_anew_under_the_new_key() {
    let mut world = world();
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let owners = world.owner_identity();
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut kept = None;
    let mut roles = Roles::connect_as(&world, &owners, &maker, keeper.address).await;
    roles.stop_at = Some("second segment");
    let stopped = go_on(&world, &mut roles, &mut kept, false);
    assert!(matches!(stopped, Err(Failed::Stopped)));

    // Another index of the same keeper is rotated, and the key that both began with retired.
    let (_metrics, other) = world.searcher(Some(keeper.address)).await;
    drop(world.client(other.address).await);
    let mut session = OwnerSession::connect(world.owner_config(other.address, keeper.address))
        .await
        .unwrap();
    let rotated = session.rotate(Duration::ZERO).await.unwrap();
    session.retire(&rotated.from_fingerprint).await.unwrap();
    world.public = session.descriptor().public_key.clone();

    let mut roles = Roles::connect_as(&world, &owners, &maker, keeper.address).await;
    let report = go_on(&world, &mut roles, &mut kept, true).unwrap();
    assert!(report.begun_anew);
    assert_eq!(
        (roles.roles.segments(), report.vectors, report.unrecorded),
        (Some(0), ROWS, false)
    );
    let folder = maker.folder.clone();
    maker.task.await.unwrap().unwrap().unwrap();
    let searcher = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
    let client = world.client(searcher).await;
    for row in [0, 399] {
        let query = &world.base[row * DIMENSION..][..DIMENSION];
        let options = SearchOptions::default();
        let found = client.search(query, &options).await.unwrap();
        assert_eq!(found.neighbours[0].id, id_of_row(row as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_resuming_with_another_key_and_other_vectors() {
    let mut world = world();
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let owners = world.owner_identity();
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut kept = None;
    let mut roles = Roles::connect_as(&world, &owners, &maker, keeper.address).await;
    roles.stop_at = Some("describe");
    go_on(&world, &mut roles, &mut kept, false).unwrap_err();
    // A key that the keeper does not hold, but the same vectors: nothing is sent.
    let secret = oboro_ckks::SecretKey::generate(world.public.parameter_set(), &mut common::rng(3));
    world.public = secret.public_key(&mut common::rng(4));
    let mut roles = Roles::connect_as(&world, &owners, &maker, keeper.address).await;
    let mut same = copy(&kept);
    let refused = go_on(&world, &mut roles, &mut same, true);
    assert!(matches!(
        refused,
        Err(Failed::Client(oboro_client::ClientError::ForeignKeeper))
    ));
    // Other vectors, under whatever key, are another build.
    world.base[0] += 1.0;
    let refused = go_on(&world, &mut roles, &mut copy(&kept), true);
    assert!(matches!(
        refused,
        Err(Failed::Owner(OwnerError::OtherInput))
    ));
    // And of an older state it is not known what differs.
    world.base[0] -= 1.0;
    let mut old = copy(&kept);
    old.as_mut().unwrap().apart_from_key = None;
    let refused = go_on(&world, &mut roles, &mut old, true);
    assert!(matches!(
        refused,
        Err(Failed::Owner(OwnerError::OtherInput))
    ));
}

fn copy(kept: &Option<BuildState>) -> Option<BuildState> {
    kept.as_ref().map(|state| BuildState {
        seed: state.seed.clone(),
        ..*state
    })
}
