//! Searches through the whole encrypted path against exact search.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Shape, World, clustered, overlap};
use oboro_ckks::ParameterSet;
use oboro_client::{Client, Keyholder, Rerank, SearchOptions, blocking};
use oboro_quant::Metric;

const QUERIES: usize = 20;

/// Recall of ten of the exact ten over some queries.
async fn recall(world: &World, client: &Client, options: &SearchOptions) -> f64 {
    let queries = clustered(QUERIES, world.dimension, 9);
    // Queries beside base vectors, so that there is something near.
    let mut sum = 0.0;
    for (row, noise) in queries.chunks_exact(world.dimension).enumerate() {
        let near = &world.base[row * 5 * world.dimension..][..world.dimension];
        let query: Vec<f32> = near.iter().zip(noise).map(|(a, b)| a + 0.05 * b).collect();
        let result = client.search(&query, options).await.unwrap();
        assert_eq!(result.neighbours.len(), options.k);
        assert!(
            result
                .neighbours
                .is_sorted_by(|a, b| (a.distance, a.id) <= (b.distance, b.id)
                    || options.rerank == Rerank::Off && a.distance <= b.distance)
        );
        let ids: Vec<u64> = result.neighbours.iter().map(|n| n.id).collect();
        sum += overlap(&ids, &world.exact(&query, options.k));
    }
    sum / QUERIES as f64
}

async fn check(shape: Shape, least: f64) {
    let world = World::new(&shape);
    let (_keeper, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    assert!(client.is_simulated());
    let found = recall(&world, &client, &SearchOptions::default()).await;
    assert!(
        found >= least,
        "{} {}: {found}",
        shape.metric.name(),
        shape.dimension
    );
    drop(client);
    searcher.stop().await;
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn squared_distance_in_all_dimensions() {
    for dimension in [8, 50, 97, 128] {
        check(Shape::new(2_000, dimension, Metric::L2), 0.97).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inner_product_in_all_dimensions() {
    for dimension in [8, 50, 97, 128] {
        check(Shape::new(2_000, dimension, Metric::InnerProduct), 0.95).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cosine_in_all_dimensions() {
    for dimension in [8, 50, 97, 128] {
        check(Shape::new(2_000, dimension, Metric::Cosine), 0.95).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_packings_and_parameters() {
    for split in [2, 4, 8] {
        let shape = Shape {
            split,
            subquantizers: Some(4),
            ..Shape::new(600, 32, Metric::L2)
        };
        check(shape, 0.97).await;
    }
    let shape = Shape {
        set: ParameterSet::N4096Q100,
        ..Shape::new(600, 40, Metric::L2)
    };
    check(shape, 0.97).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_vectors_than_candidates_gives_all_exactly() {
    let world = World::new(&Shape::new(70, 8, Metric::L2));
    let (_keeper, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let query = vec![0.1; 8];
    let options = SearchOptions {
        k: 70,
        ..SearchOptions::default()
    };
    let result = client.search(&query, &options).await.unwrap();
    let ids: Vec<u64> = result.neighbours.iter().map(|n| n.id).collect();
    // Originals are stored in half precision: compare as sets.
    assert_eq!(overlap(&ids, &world.exact(&query, 70)), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reranking_ids_come_in_score_order() {
    let world = World::new(&Shape::new(2_000, 32, Metric::L2));
    let (_keeper, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let options = SearchOptions {
        rerank: Rerank::Off,
        ..SearchOptions::default()
    };
    let off = recall(&world, &client, &options).await;
    assert!(off > 0.5, "{off}");
    let view = metrics.view();
    assert_eq!(view.searches, QUERIES as u64);
    assert_eq!(view.tables_decoded, QUERIES as u64);
    assert_eq!(view.ids_touched, 10 * QUERIES as u64);
    assert_eq!(
        view.ciphertext_bytes,
        (QUERIES * client.index().query_bytes) as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_holds_the_key_needs_no_keeper() {
    let world = World::new(&Shape::new(2_000, 50, Metric::Cosine).for_keyholders());
    let (metrics, searcher) = world.searcher(None).await;
    let mut config = world.client_config(searcher.address);
    config.keyholder = Keyholder::client(world.secret_key());
    let client = Client::connect(config).await.unwrap();
    let found = recall(&world, &client, &SearchOptions::default()).await;
    assert!(found >= 0.95, "{found}");
    let view = metrics.view();
    assert_eq!(view.searches, QUERIES as u64);
    // A seed stands for half of each query.
    assert!(client.index().query_bytes < 13_000);
    assert_eq!(
        view.ciphertext_bytes,
        (QUERIES * client.index().query_bytes) as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_a_time_answer_in_order() {
    let world = World::new(&Shape::new(5_000, 16, Metric::L2));
    let (_keeper, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let queries: Vec<Vec<f32>> = world
        .base
        .chunks_exact(16)
        .step_by(25)
        .map(<[f32]>::to_vec)
        .collect();
    let options = SearchOptions {
        k: 1,
        ..SearchOptions::default()
    };
    let results = client
        .search_many(queries.clone(), &options, 16)
        .await
        .unwrap();
    assert_eq!(results.len(), queries.len());
    for (query, result) in queries.iter().zip(&results) {
        assert_eq!(result.neighbours[0].id, world.exact(query, 1)[0]);
    }
    let passes = metrics.passes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(passes <= queries.len() as u64);
}

#[test]
fn blocking_client_on_a_plain_thread() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = World::new(&Shape::new(1_000, 8, Metric::L2));
    let (_keeper, keeper) = runtime.block_on(world.keeper("127.0.0.1:0"));
    let (_metrics, searcher) = runtime.block_on(world.searcher(Some(keeper.address)));
    // Wait until the index is open.
    drop(runtime.block_on(world.client(searcher.address)));
    let client = blocking::Client::connect(world.client_config(searcher.address)).unwrap();
    let query = &world.base[80..88];
    let result = client.search(query, &SearchOptions::default()).unwrap();
    assert_eq!(result.neighbours[0].id, world.exact(query, 1)[0]);
    assert!(result.bytes_up >= client.index().query_bytes as u64);
    assert!(result.bytes_up < client.index().query_bytes as u64 + 200);
    assert!(result.bytes_down > 100 * 8);
    let many = client
        .search_many(vec![query.to_vec(); 5], &SearchOptions::default(), 3)
        .unwrap();
    assert!(many.iter().all(|r| r.neighbours == result.neighbours));
    drop(client);
    runtime.block_on(searcher.stop());
    runtime.block_on(keeper.stop());
}
