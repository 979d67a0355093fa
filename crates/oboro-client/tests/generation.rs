//! Blind generation end to end: owner, searcher and keeper in one process over real
//! connections, on real word vectors.
#![allow(clippy::unwrap_used)]

#[path = "common/blind.rs"]
mod blind;
mod common;

use std::{collections::BTreeMap, time::Duration};

use blind::{DIMENSION, Failed, Maker, Roles, build, config, options, owner, rows, serve, words};
use common::{Shape, World, id_of_row, overlap, verifier};
use oboro_channel::{ConnectOptions, Identity, Role, connect};
use oboro_ckks::ParameterSet;
use oboro_client::{
    Client, ClientError, Rerank, SearchOptions,
    blind::BlindWriter,
    generation::{GenerationSession, SegmentParts},
    writer::{Writer, WriterConfig},
};
use oboro_index::{BuildState, Index, OnExisting};
use oboro_owner::{
    BlindEncoder, BlindEncryptor, BlindReport, BlindStart, Encodes, Ids, OwnerError, Rows, Skip,
    VectorSource,
};
use oboro_protocol::generation::v1::{self, generator_client::GeneratorClient};
use oboro_protocol::{Reason, reason_of};
use oboro_quant::Metric;
use oboro_searcher::GeneratorServer;
use oboro_session::ServedIndex;
use tokio::runtime::Handle;

/// Who is killed while a build goes on, beside the owner.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Nobody,
    Searcher,
    Keeper,
    Both,
}

/// Builds with one seed, interrupted at each of `stops`; every byte of the index.
async fn interrupted(
    world: &World,
    owners: &Identity,
    name: &str,
    stops: &[(&'static str, Who)],
) -> (BTreeMap<String, Vec<u8>>, Vec<u32>) {
    // A keeper that never heard of the index.
    let _ = std::fs::remove_dir_all(world.folder.path().join("keeper"));
    let (_, mut keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let mut maker = Maker::start(world, name, address).await;
    let (mut kept, mut standings) = (None, Vec::new());
    let mut options = options(world.base.len() / world.dimension, 2);
    options.centroids = 16;
    for round in 0..=stops.len() {
        let mut roles = Roles::connect_as(world, owners, &maker, address).await;
        roles.stop_at = stops.get(round).map(|(step, _)| *step);
        let state = BuildState {
            index_id: [7; 16],
            seed: zeroize::Zeroizing::new([8; 32]),
            input: kept.unwrap_or_default(),
            apart_from_key: None,
        };
        let result = tokio::task::block_in_place(|| {
            let mut keep = |state: &BuildState| {
                kept = Some(state.input);
                Ok(())
            };
            let start = BlindStart {
                state,
                resume: round > 0,
                segment_vectors: 200,
                keep: &mut keep,
            };
            owner(world).build_blind(&mut rows(world), &mut roles, &options, start)
        });
        standings.extend(roles.roles.segments());
        drop(roles);
        let Some((step, who)) = stops.get(round) else {
            result.unwrap();
            break;
        };
        assert!(matches!(result, Err(Failed::Stopped)), "{step}");
        if matches!(who, Who::Searcher | Who::Both) {
            maker.kill().await;
            // In one process, what the killed one had open ends a little later.
            tokio::time::sleep(Duration::from_millis(300)).await;
            maker = Maker::start(world, name, address).await;
        }
        if matches!(who, Who::Keeper | Who::Both) {
            keeper.stop().await;
            keeper = world.keeper(&address.to_string()).await.1;
        }
    }
    let folder = maker.folder.clone();
    maker.task.await.unwrap().unwrap().unwrap();
    keeper.stop().await;
    let files = std::fs::read_dir(&folder).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_name() != "LOCK").map(|file| {
        let name = file.file_name().into_string().unwrap();
        (name, std::fs::read(file.path()).unwrap())
    });
    (files.collect(), standings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_interrupted_build_gives_the_same_bytes() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let mut world = World::with_base(&shape, words(200));
    world.base = words(500);
    // The certificate that began it stands in what is kept.
    let owners = world.owner_identity();
    let (whole, standings) = interrupted(&world, &owners, "whole", &[]).await;
    assert_eq!(standings, [0]);
    assert!(whole.contains_key("blind.oboro") && whole.contains_key("MANIFEST"));
    for who in [Who::Nobody, Who::Searcher, Who::Keeper, Who::Both] {
        // In the middle of the training, which is done again; before and after the first
        // segment, which is not.
        let stops = [
            ("training", who),
            ("describe", who),
            ("segment", who),
            ("second segment", who),
            ("commit", who),
        ];
        let name = format!("{who:?}");
        let (files, standings) = interrupted(&world, &owners, &name, &stops).await;
        let differ: Vec<_> = whole
            .iter()
            .filter(|(name, bytes)| files.get(*name) != Some(bytes))
            .map(|(name, _)| name)
            .collect();
        assert!(files == whole, "{who:?}: other bytes in {differ:?}");
        assert_eq!(standings, [0, 0, 0, 0, 1, 3], "{who:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_going_on_with_other_vectors_or_as_another_owner() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let mut world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let (first, second) = (world.owner_identity(), world.owner_identity());
    let mut roles = Roles::connect_as(&world, &first, &maker, keeper.address).await;
    roles.stop_at = Some("segment");
    let options = options(200, 2);
    build(&world, &mut roles, &options).await.unwrap_err();
    // Another certificate of the owner gets no generation beside it, also once the
    // searcher has only the draft on disk.
    let generation = |roles: &mut Roles| {
        let mut rng = common::rng(77);
        let mut keep = |_: &BuildState| Ok(());
        let start = BlindStart::new(&mut rng, &mut keep);
        let options = options.clone();
        tokio::task::block_in_place(|| {
            owner(&world).build_blind(&mut rows(&world), roles, &options, start)
        })
    };
    let refused = |result: Result<BlindReport, Failed>| match result {
        Err(Failed::Client(error)) => error.to_string(),
        other => panic!("{}", other.is_ok()),
    };
    let mut other = Roles::connect_as(&world, &second, &maker, keeper.address).await;
    let error = refused(generation(&mut other));
    assert!(error.contains("another owner"), "{error}");
    maker.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut other = Roles::connect_as(&world, &second, &maker, keeper.address).await;
    let error = refused(generation(&mut other));
    assert!(error.contains("another owner"), "{error}");
    // Who gives its own up makes room.
    let mut roles = Roles::connect_as(&world, &first, &maker, keeper.address).await;
    roles.stop_at = Some("segment");
    build(&world, &mut roles, &options).await.unwrap_err();
    roles.session().abort().await;
    let mut other = Roles::connect_as(&world, &second, &maker, keeper.address).await;
    other.stop_at = Some("train");
    assert!(matches!(generation(&mut other), Err(Failed::Stopped)));
    // The same state, but other vectors.
    world.base[0] += 1.0;
    let mut keep = |_: &BuildState| Ok(());
    let start = BlindStart {
        state: BuildState {
            index_id: [7; 16],
            seed: zeroize::Zeroizing::new([8; 32]),
            input: [9; 32],
            apart_from_key: Some([9; 32]),
        },
        resume: true,
        segment_vectors: 200,
        keep: &mut keep,
    };
    let result = tokio::task::block_in_place(|| {
        owner(&world).build_blind(&mut rows(&world), &mut other, &options, start)
    });
    assert!(matches!(result, Err(Failed::Owner(OwnerError::OtherInput))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_vectors_of_a_blind_index_are_encoded_blindly() {
    const WORDS: usize = 900;
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let mut world = World::with_base(&shape, words(200));
    world.base = words(600);
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let maker = Maker::start(&world, "blind", address).await;
    let mut roles = Roles::connect(&world, &maker, address).await;
    let mut settings = options(600, 2);
    settings.centroids = 16;
    build(&world, &mut roles, &settings).await.unwrap();
    let folder = maker.folder.clone();
    maker.task.await.unwrap().unwrap().unwrap();
    let searcher = serve(&world, &folder, world.searcher_config(Some(address))).await;
    let client = world.client(searcher).await;
    let config = |identity: Identity| WriterConfig {
        address: searcher.to_string(),
        identity,
        trust: world.authority.trust(),
        descriptor_key: world.owner_key.descriptor_key(),
        verifier: verifier(),
        connect_timeout: Duration::from_secs(5),
    };
    let index_id = Index::peek(&folder).unwrap().index_id;
    // Not for those who may only search.
    let reader = config(world.client_identity.clone());
    let error = BlindWriter::connect(&reader, index_id).await.err().unwrap();
    assert_eq!(error.reason(), Some(Reason::Forbidden));
    let owners = config(world.owner_identity());
    assert!(BlindWriter::connect(&owners, [9; 16]).await.is_err());
    let blind = BlindWriter::connect(&owners, index_id).await.unwrap();
    let writer = Writer::connect(&owners).await.unwrap();
    let encoder = BlindEncoder::new(world.owner_key.writer_key(), writer.descriptor()).unwrap();
    let encryptor = BlindEncryptor::new(blind.scale(), writer.descriptor()).unwrap();
    // A vector that was in the build gets the codes that it got there.
    let subquantizers = writer.descriptor().subquantizers();
    let codes_of = |first: usize, count: usize| {
        let (encoder, encryptor, blind) = (&encoder, &encryptor, blind.clone());
        let values = words(first + count)[first * DIMENSION..].to_vec();
        let mut rows = Rows::new(&values, DIMENSION).unwrap();
        let records = rows.read(count).unwrap().unwrap();
        let mut rng = common::rng(5);
        let (segment, _) = encoder
            .encode(
                records,
                &[],
                &Skip::default(),
                &mut Default::default(),
                &mut rng,
            )
            .unwrap();
        let vectors = segment.unencoded.as_ref().unwrap();
        let batches = encryptor.encrypt(vectors, &mut rng).unwrap();
        async move {
            let codes = blind
                .encode(encryptor.epoch(), &batches, count, subquantizers)
                .await
                .unwrap();
            let of = segment.ids.iter().zip(codes.chunks_exact(subquantizers));
            of.map(|(id, codes)| (*id, codes.to_vec()))
                .collect::<BTreeMap<_, _>>()
        }
    };
    let index = {
        let head = Index::peek(&folder).unwrap();
        let key = world
            .owner_key
            .epoch_key(&head.index_id, head.epoch, head.released);
        Index::open(&folder, &key).unwrap()
    };
    let again = codes_of(0, 100).await;
    let mut same = 0;
    for (row, codes) in &again {
        let place = index.locate(id_of_row(*row)).unwrap();
        let stored = &index.segments()[place.segment];
        let stored = stored.codes().row(place.position as usize);
        same += codes.iter().zip(&stored).filter(|(a, b)| a == b).count();
    }
    let share = same as f64 / (100 * subquantizers) as f64;
    println!("{share:.4} of the codes are those of the build");
    assert!(share > 0.97, "{share}");

    let (mut target, encoder) = tokio::task::block_in_place(|| {
        let config = config(world.owner_identity());
        let mut index = ServedIndex::connect(config, Handle::current()).unwrap();
        let key = world.owner_key.writer_key();
        let encoder = index.encoder(key, common::rng(21)).unwrap();
        (index, encoder)
    });
    // A keeper that was started again is shown the codebook again.
    keeper.stop().await;
    let (_, keeper) = world.keeper(&address.to_string()).await;
    let all = words(WORDS);
    // Another seed each time: from one come the same ids of segments.
    let insert = |target: &mut ServedIndex, rows: std::ops::Range<usize>, on_existing, seed| {
        let values = &all[rows.start * DIMENSION..rows.end * DIMENSION];
        let ids = rows.map(|row| id_of_row(row as u64)).collect();
        let mut source = Rows::new(values, DIMENSION)
            .unwrap()
            .with_ids(Ids::Numbers(ids))
            .unwrap();
        let options = oboro_owner::InsertOptions {
            on_existing,
            batch: 130,
            ..Default::default()
        };
        tokio::task::block_in_place(|| {
            let rng = &mut common::rng(seed);
            oboro_owner::insert(&*encoder, &mut source, target, &options, rng)
        })
        .unwrap()
    };
    let report = insert(&mut target, 500..WORDS, OnExisting::Refuse, 6);
    assert_eq!(
        (report.changed.inserted, report.changed.refused),
        (300, 100)
    );
    let report = insert(&mut target, 500..520, OnExisting::Replace, 7);
    assert_eq!((report.changed.inserted, report.changed.replaced), (0, 20));
    assert_eq!(report.changed.vectors, WORDS as u64);
    for row in [0, 510, 700, 899] {
        let query = &all[row * DIMENSION..][..DIMENSION];
        let found = client
            .search(query, &SearchOptions::default())
            .await
            .unwrap();
        assert_eq!(found.neighbours[0].id, id_of_row(row as u64), "{row}");
    }
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blind_build_works_with_the_larger_set_and_in_960_dimensions() {
    for (set, dimension) in [
        (ParameterSet::N4096Q100, DIMENSION),
        (ParameterSet::N2048Q50, 960),
    ] {
        let mut shape = Shape::new(100, dimension, Metric::L2);
        shape.set = set;
        let world = World::new(&shape);
        let (_, keeper) = world.keeper("127.0.0.1:0").await;
        let maker = Maker::start(&world, "blind", keeper.address).await;
        let mut roles = Roles::connect(&world, &maker, keeper.address).await;
        let report = build(&world, &mut roles, &options(100, 2)).await.unwrap();
        println!(
            "{dimension}: {:.1} bits of flooding",
            report.batch_flooding_bits
        );
        let folder = maker.folder.clone();
        maker.task.await.unwrap().unwrap().unwrap();
        let searcher = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
        let client = world.client(searcher).await;
        for row in [0, 57] {
            let query = &world.base[row * dimension..][..dimension];
            let found = client
                .search(query, &SearchOptions::default())
                .await
                .unwrap();
            assert_eq!(found.neighbours[0].id, id_of_row(row as u64));
        }
        keeper.stop().await;
    }
}

/// 10-recall@10 by the tables alone.
async fn recall(client: &Client, world: &World, queries: usize) -> f64 {
    let unranked = SearchOptions {
        rerank: Rerank::Off,
        deadline: Duration::from_secs(60),
        ..SearchOptions::default()
    };
    let step = world.base.len() / world.dimension / queries;
    let mut sum = 0.0;
    for query in world
        .base
        .chunks_exact(world.dimension * step)
        .take(queries)
    {
        // Between two words, so that no query is in the index.
        let query: Vec<f32> = query[..world.dimension]
            .iter()
            .zip(&query[world.dimension..])
            .map(|(a, b)| 0.6 * a + 0.4 * b)
            .collect();
        let found = client.search(&query, &unranked).await.unwrap();
        let found: Vec<u64> = found.neighbours.iter().map(|near| near.id).collect();
        sum += overlap(&found, &world.exact(&query, 10));
    }
    sum / queries as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blind_index_is_as_good_as_a_local_one() {
    const WORDS: usize = 6_000;
    let shape = Shape::new(WORDS, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(WORDS));
    let (keeper_server, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut roles = Roles::connect(&world, &maker, keeper.address).await;
    let options = options(WORDS, 10);
    let report = build(&world, &mut roles, &options).await.unwrap();
    assert_eq!((report.vectors, report.unrecorded), (WORDS, false));

    // The searcher that made it has ended by itself, and another one serves it.
    let folder = maker.folder.clone();
    let made = maker.task.await.unwrap().unwrap().unwrap();
    assert_eq!(made.head, report.state);
    assert_eq!(
        keeper_server
            .newest(&made.head.index_id)
            .unwrap()
            .manifest_digest,
        made.head.manifest_digest
    );
    let blind = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
    let blind = world.client(blind).await;

    // The same vectors, sample and rounds where the owner trains.
    let local = world.folder.path().join("local");
    let mut local_options = options.clone();
    local_options.iterations = 25;
    owner(&world)
        .build(
            &mut rows(&world),
            &local,
            &local_options,
            &mut common::rng(7),
        )
        .unwrap();
    let head = Index::peek(&local).unwrap();
    let key = world.owner_key.epoch_key(&head.index_id, 1, true);
    let index = Index::open(&local, &key).unwrap();
    let model = world
        .owner_key
        .model_key()
        .open(&head.index_id, index.model_bytes().unwrap())
        .unwrap();
    let best = model.codebook.distortion(&world.base).unwrap();
    let reached = *report.distortions.last().unwrap();
    assert!(
        reached < 1.02 * best,
        "distortion {reached} blindly, {best} locally"
    );
    let local = serve(&world, &local, world.searcher_config(Some(keeper.address))).await;
    let local = world.client(local).await;
    let (blind, local) = (
        recall(&blind, &world, 250).await,
        recall(&local, &world, 250).await,
    );
    println!(
        "10-recall@10 {blind:.3} blindly, {local:.3} locally; distortion {reached:.4}, {best:.4}"
    );
    assert!(blind > local - 0.01, "{blind} blindly, {local} locally");
}

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_stops_in_the_middle_leaves_nothing_visible() {
    const WORDS: usize = 600;
    let shape = Shape::new(200, DIMENSION, Metric::Cosine);
    let mut world = World::with_base(&shape, words(200));
    world.base = words(WORDS);
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let before = names(&world);
    // One owner, who leaves more generations behind than a keeper holds.
    let owner = world.owner_identity();
    let mut options = options(WORDS, 2);
    options.metric = Metric::Cosine;
    options.centroids = 16;

    for step in [
        "shares", "train", "training", "describe", "segment", "commit",
    ] {
        // The owner stops, then the searcher is killed.
        let maker = Maker::start(&world, "blind", keeper.address).await;
        let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
        roles.stop_at = Some(step);
        let error = build(&world, &mut roles, &options).await.unwrap_err();
        assert!(matches!(error, Failed::Stopped), "{step}: {error:?}");
        assert!(Index::peek(maker.folder.join("index")).is_err());
        let folder = maker.kill().await;
        assert!(Index::peek(&folder).is_err(), "{step}");
    }
    // What they left is hidden, and gone once one that is not stopped is done.
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let left: Vec<String> = names(&world)
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert_eq!(left, [".blind.generating"]);
    let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
    let report = build(&world, &mut roles, &options).await.unwrap();
    assert_eq!(report.vectors, WORDS);
    let folder = maker.folder.clone();
    assert!(maker.task.await.unwrap().unwrap().is_some());
    assert_eq!(names(&world).len(), before.len() + 1);
    let searcher = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
    let client = world.client(searcher).await;
    let found = client
        .search(&world.base[..DIMENSION], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(found.neighbours[0].id, id_of_row(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_owner_may_give_up_and_begin_anew() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let options = options(200, 2);
    // Two that vanish, without a word.
    let owner = world.owner_identity();
    for step in ["train", "commit"] {
        let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
        roles.stop_at = Some(step);
        build(&world, &mut roles, &options).await.unwrap_err();
    }
    let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
    build(&world, &mut roles, &options).await.unwrap();
    assert!(maker.stop().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_when_the_keeper_forgets_the_generation() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let maker = Maker::start(&world, "blind", address).await;
    let mut roles = Roles::connect(&world, &maker, address).await;
    roles.stop_at = Some("train");
    build(&world, &mut roles, &options(200, 2))
        .await
        .unwrap_err();
    keeper.stop().await;
    let (_, keeper) = world.keeper(&address.to_string()).await;
    // The training begins, and the keeper that was started again knows nothing of it.
    let error = loop {
        match roles.session().train().await {
            Ok(progress) => assert!(progress.trained.is_none()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("unknown"), "{error}");
    assert!(Index::peek(&maker.folder).is_err());
    assert!(maker.stop().await.is_none());
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_messages_out_of_order_and_of_others() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut roles = Roles::connect(&world, &maker, keeper.address).await;
    let reason = |error: ClientError| error.reason().unwrap();
    // Before there is a generation.
    let session = roles.session();
    let error = session.train().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    roles.stop_at = Some("shares");
    build(&world, &mut roles, &options(200, 2))
        .await
        .unwrap_err();
    let session = roles.session();
    // Nothing of the sample is there.
    let error = session.train().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.sample(0, vec![vec![0; 99]]).await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.describe(b"descriptor").await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let parts = SegmentParts {
        segment_id: [1; 16],
        ids: vec![1],
        tags: Vec::new(),
        records: vec![0; 100],
    };
    let error = session.segment(0, parts).await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.commit().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    // A session that nobody opened.
    let (identity, trust) = (world.owner_identity(), world.authority.trust());
    let address = maker.address.to_string();
    let options = ConnectOptions::default();
    let connection = connect(&address, &identity, &trust, Role::Searcher, options)
        .await
        .unwrap();
    let mut raw = GeneratorClient::new(connection.channel);
    let request = v1::TrainRequest {
        session: vec![7; 16].into(),
    };
    let status = raw.train(request).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::UnknownSession));
    // A client does not even get a connection.
    let client = config(&world, &world.client_identity, &maker, keeper.address);
    assert!(GenerationSession::connect(&client).await.is_err());
    // Nor does a second searcher get the folder.
    let key = world.owner_key.storage_key();
    let config = world.searcher_config(Some(keeper.address));
    assert!(GeneratorServer::new(&maker.folder, key, config).is_err());
    assert!(maker.stop().await.is_none());
}
