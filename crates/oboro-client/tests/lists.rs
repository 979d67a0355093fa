//! Learned matrices and lists, from the build to the search.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::{Running, Shape, World, clustered, id_of_row, new_segment, overlap, records};
use oboro_client::{
    Client, ClientError, Filter, Rerank, SearchOptions, rotation::rotate, writer::Change,
};
use oboro_index::{QueryModel, RotationMatrix};
use oboro_protocol::{Reason, reason_of, v1, validate};
use oboro_quant::{Metric, QuantizedTable};

const QUERIES: usize = 20;

/// The roles of a world and a client of it.
struct Served {
    world: World,
    client: Client,
    searcher: Running,
    keeper: Running,
}

async fn served(shape: &Shape) -> Served {
    let world = World::new(shape);
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let (_, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    Served {
        world,
        client,
        searcher,
        keeper,
    }
}

/// Queries beside vectors of the index.
fn queries(world: &World) -> Vec<Vec<f32>> {
    let dimension = world.dimension;
    let noise = clustered(QUERIES, dimension, 9);
    let near = world.base.chunks_exact(5 * dimension);
    near.zip(noise.chunks_exact(dimension))
        .map(|(near, noise)| near.iter().zip(noise).map(|(a, b)| a + 0.05 * b).collect())
        .collect()
}

async fn ids(client: &Client, query: &[f32], options: &SearchOptions) -> Vec<u64> {
    let found = client.search(query, options).await.unwrap();
    found.neighbours.iter().map(|n| n.id).collect()
}

async fn recall(served: &Served, options: &SearchOptions) -> f64 {
    let mut sum = 0.0;
    for query in queries(&served.world) {
        let found = ids(&served.client, &query, options).await;
        sum += overlap(&found, &served.world.exact(&query, 10));
    }
    sum / QUERIES as f64
}

/// What the libraries alone say, with the owner's model and the codes of the index: the
/// score of every vector that may be found, and that of the tenth.
fn expected(world: &World, query: &[f32], probes: usize) -> (HashMap<u64, u16>, u16) {
    let index = world.index();
    let descriptor = index.descriptor();
    let sealed = index.model_bytes().unwrap();
    let model = world
        .owner_key
        .model_key()
        .open(&descriptor.index_id, sealed)
        .unwrap();
    let client_key = world.owner_key.client_key();
    let rotation = RotationMatrix::derive(
        client_key.rotation_seed(),
        &descriptor.subspaces().unwrap(),
        descriptor.rotation,
        descriptor.metric,
    );
    let mut vector = query.to_vec();
    descriptor.metric.prepare_query(&mut vector);
    rotation.apply(&mut vector).unwrap();
    let turned: &QueryModel = &model.query;
    turned.apply(&mut vector).unwrap();
    let lists = turned.probes(&vector, descriptor.metric, probes).unwrap();
    let similarities = model
        .codebook
        .similarities(&vector, descriptor.metric)
        .unwrap();
    let table = QuantizedTable::from_similarities(
        &similarities,
        descriptor.subquantizers(),
        descriptor.centroids(),
    )
    .unwrap();
    let mut all = Vec::new();
    for segment in index.segments() {
        // One that is not laid out is searched whole.
        let whole = segment.listed().is_none();
        for position in 0..segment.len() {
            let list = segment.lists().map(|lists| u32::from(lists[position]));
            if whole || list.is_none_or(|list| lists.contains(&list)) {
                let score = table.score(&segment.codes().row(position));
                all.push((score, segment.ids()[position]));
            }
        }
    }
    all.sort_unstable();
    let tenth = all[9].0;
    let scores = all.into_iter().map(|(score, id)| (id, score)).collect();
    (scores, tenth)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_find_what_the_libraries_alone_find() {
    for shape in [
        Shape::new(2_000, 20, Metric::L2).turned(4),
        Shape::new(2_000, 20, Metric::L2).turned(4).in_lists(8, 5),
        Shape::new(2_000, 17, Metric::Cosine).in_lists(8, 5),
        Shape::new(2_000, 20, Metric::InnerProduct)
            .in_lists(8, 5)
            .labelled(),
    ] {
        let served = served(&shape).await;
        let summary = served.client.index();
        assert_eq!(summary.opq, shape.opq.is_some());
        let listed = served.world.index().segments()[0].listed().is_some();
        assert_eq!(listed, shape.lists.is_some());
        for probes in [None, Some(2)] {
            if probes.is_some() && !listed {
                continue;
            }
            let options = SearchOptions {
                rerank: Rerank::Off,
                probes,
                ..SearchOptions::default()
            };
            for query in queries(&served.world) {
                let found = ids(&served.client, &query, &options).await;
                let probes = probes.unwrap_or(summary.probes_max) as usize;
                let (scores, tenth) = expected(&served.world, &query, probes);
                assert_eq!(found.len(), 10);
                // Encrypted tables are off by a little, each of their entries.
                let most = tenth + 2 * summary.subquantizers as u16;
                assert!(
                    found
                        .iter()
                        .all(|id| scores.get(id).is_some_and(|&s| s <= most))
                );
            }
        }
        let found = recall(&served, &SearchOptions::default()).await;
        assert!(found > 0.9, "{}: {found}", shape.metric.name());
        served.searcher.stop().await;
        served.keeper.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_compaction_and_rotation_keep_matrix_and_lists() {
    const DIMENSION: usize = 12;
    let shape = Shape::new(1_200, DIMENSION, Metric::L2)
        .turned(3)
        .in_lists(6, 5)
        .labelled();
    let served = served(&shape).await;
    let world = &served.world;
    let writer = world.writer(served.searcher.address).await;
    let encoder = world.encoder(&writer).await;
    // New vectors beside old ones, far fewer than would be laid out in lists.
    let first = 1_u64 << 40;
    let vectors: Vec<f32> = world.base[..100 * DIMENSION]
        .iter()
        .map(|v| v + 0.01)
        .collect();
    let segment = encoder
        .segment(
            records(
                DIMENSION,
                (first..first + 100).collect(),
                vectors.clone(),
                b"",
            ),
            &[],
            &mut HashSet::new(),
            &mut common::rng(9),
        )
        .unwrap();
    assert_eq!(segment.lists.len(), 100);
    let token = writer.stage(&new_segment(&segment)).await.unwrap();
    let change = Change {
        stages: vec![token],
        deletes: (0..50).map(|row| id_of_row(row * 2)).collect(),
        ..Change::default()
    };
    let report = writer.commit(change).await.unwrap();
    assert_eq!((report.inserted, report.deleted), (100, 50));

    let check = async |client: &Client| {
        let options = SearchOptions {
            k: 3,
            ..SearchOptions::default()
        };
        let odd = client.filter(&["odd"], &[], &[]).unwrap();
        for row in 0..100 {
            let query = &vectors[row * DIMENSION..][..DIMENSION];
            let found = ids(client, query, &options).await;
            assert_eq!(found[0], first + row as u64);
            // Beside it lies the old one, unless that was deleted or does not pass.
            let old = id_of_row(row as u64);
            assert_eq!(found.contains(&old), row % 2 == 1, "{row}");
            let filter = SearchOptions {
                filter: odd,
                ..options
            };
            let passed = ids(client, query, &filter).await;
            assert_eq!(passed.first() == Some(&old), row % 2 == 1, "{row}");
            assert!(passed.iter().all(|&id| id < first));
        }
    };
    check(&served.client).await;
    let index = world.index();
    assert_eq!(index.segments().len(), 2);
    assert!(index.segments()[0].listed().is_some());
    assert!(index.segments()[1].listed().is_none());

    writer.compact().await.unwrap();
    let index = world.index();
    assert_eq!((index.segments().len(), index.vectors()), (1, 1_250));
    assert!(index.segments()[0].listed().is_some());
    check(&served.client).await;

    let sealed = index.query_model_bytes().unwrap().to_vec();
    let owner = world.owner_config(served.searcher.address, served.keeper.address);
    rotate(owner, Duration::from_secs(60), false).await.unwrap();
    check(&served.client).await;
    let fresh = world.client(served.searcher.address).await;
    assert_eq!(fresh.index().epoch, 2);
    check(&fresh).await;
    let index = world.index();
    assert_eq!(index.query_model_bytes().unwrap(), sealed);
    assert!(index.segments()[0].lists().is_some());
    served.searcher.stop().await;
    served.keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_lists_takes_as_many_bytes() {
    let served = served(&Shape::new(800, 8, Metric::L2).in_lists(10, 7)).await;
    let mut seen = HashSet::new();
    for probes in 1..=7 {
        let options = SearchOptions {
            probes: Some(probes),
            ..SearchOptions::default()
        };
        let query = &served.world.base[probes as usize * 8..][..8];
        let found = served.client.search(query, &options).await.unwrap();
        // Its own list is the nearest, as a rule; with most lists it is among them.
        if probes == 7 {
            assert_eq!(found.neighbours[0].id, id_of_row(u64::from(probes)));
        }
        seen.insert((found.bytes_up, found.bytes_down));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    served.searcher.stop().await;
    served.keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_lists_that_an_index_does_not_have() {
    let served = served(&Shape::new(800, 8, Metric::L2).in_lists(10, 3)).await;
    let (world, client) = (&served.world, &served.client);
    let query = &world.base[..8];
    let with = |probes| SearchOptions {
        probes: Some(probes),
        ..SearchOptions::default()
    };
    for probes in [0, 4, u32::MAX] {
        let error = client.search(query, &with(probes)).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Probes { most: 3, .. }),
            "{error}"
        );
    }
    let mut raw = common::raw(
        served.searcher.address,
        &world.client_identity,
        &world.authority.trust(),
    )
    .await;
    let index = client.index();
    let request = |lists: Vec<u8>| {
        let mut request = v1::SearchRequest {
            index_id: index.index_id.to_vec().into(),
            epoch: index.epoch,
            query: vec![0; index.query_bytes].into(),
            candidates: 10,
            with_ids: true,
            filter: Filter::default().to_bytes().to_vec().into(),
            lists: lists.into(),
            ..Default::default()
        };
        world.sizes().pad_search(&mut request);
        request
    };
    raw.search(request(validate::pack_lists([0, 4, 9])))
        .await
        .unwrap();
    for lists in [
        Vec::new(),
        vec![1],
        validate::pack_lists([4, 0, 9]),
        validate::pack_lists([4, 4, 9]),
        validate::pack_lists([4, 5, 10]),
        validate::pack_lists([4, 5, u16::MAX]),
        validate::pack_lists([0, 1, 2, 3]),
    ] {
        let status = raw.search(request(lists)).await.unwrap_err();
        assert_eq!(reason_of(&status), Some(Reason::BadRequest), "{status}");
    }
    let other = v1::QueryModelRequest {
        index_id: vec![1; 16].into(),
    };
    let status = raw.query_model(other).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::WrongEpoch));
    served.searcher.stop().await;
    served.keeper.stop().await;

    // An index without lists, and without a query model.
    let served = self::served(&Shape::new(600, 8, Metric::L2)).await;
    let error = served.client.search(query, &with(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::NoLists), "{error}");
    let mut raw = common::raw(
        served.searcher.address,
        &served.world.client_identity,
        &served.world.authority.trust(),
    )
    .await;
    let request = v1::QueryModelRequest {
        index_id: served.client.index().index_id.to_vec().into(),
    };
    let status = raw.query_model(request).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::BadRequest));
    served.searcher.stop().await;
    served.keeper.stop().await;
}
