//! What the network sees: bytes on the wire, whatever is asked for.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Shape, World};
use oboro_client::{Client, Filter, Keyholder, Rerank, SearchOptions};
use oboro_quant::Metric;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
};

/// Bytes that passed, from the client and to it.
#[derive(Default)]
struct Seen {
    up: AtomicU64,
    down: AtomicU64,
}

impl Seen {
    fn bytes(&self) -> (u64, u64) {
        (self.up.load(SeqCst), self.down.load(SeqCst))
    }
}

/// Who sees the network: passes everything on and counts.
async fn observer(to: SocketAddr) -> (SocketAddr, Arc<Seen>) {
    async fn pass(
        mut from: tcp::OwnedReadHalf,
        mut to: tcp::OwnedWriteHalf,
        count: impl Fn(u64) + Send + 'static,
    ) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            count(length as u64);
            if to.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            for end in [&near, &far] {
                end.set_nodelay(true).unwrap();
            }
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let up = Arc::clone(&counts);
            tokio::spawn(pass(near_in, far_out, move |n| {
                up.up.fetch_add(n, SeqCst);
            }));
            let down = Arc::clone(&counts);
            tokio::spawn(pass(far_in, near_out, move |n| {
                down.down.fetch_add(n, SeqCst);
            }));
        }
    });
    (address, seen)
}

/// Bytes of one search in each direction: the least of three, for now and then the
/// transport adds a ping or cuts what it encrypts into one piece more.
async fn cost(client: &Client, query: &[f32], options: &SearchOptions, seen: &Seen) -> (u64, u64) {
    let mut least = (u64::MAX, u64::MAX);
    for _ in 0..3 {
        let (up, down) = once(client, query, options, seen).await;
        least = (least.0.min(up), least.1.min(down));
    }
    least
}

async fn once(client: &Client, query: &[f32], options: &SearchOptions, seen: &Seen) -> (u64, u64) {
    let before = seen.bytes();
    client.search(query, options).await.unwrap();
    // What follows a reply, such as acknowledgements, may still be on its way.
    let mut now = seen.bytes();
    loop {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let later = seen.bytes();
        if later == now {
            return (now.0 - before.0, now.1 - before.1);
        }
        now = later;
    }
}

fn questions() -> Vec<SearchOptions> {
    let with = |k: usize, rerank: Rerank, seconds: u64| SearchOptions {
        k,
        rerank,
        deadline: Duration::from_secs(seconds),
        ..SearchOptions::default()
    };
    vec![
        with(1, Rerank::Candidates(10), 10),
        with(100, Rerank::Candidates(100), 10),
        with(10, Rerank::Candidates(128), 3),
        with(1, Rerank::Candidates(1), 59),
        with(200, Rerank::Candidates(200), 10),
        with(1, Rerank::Off, 10),
        with(100, Rerank::Off, 7),
    ]
}

/// All searches cost the same bytes, in both directions.
async fn all_alike(client: &Client, query: &[f32], seen: &Seen) {
    // The first ones carry settings and fill the tables of the header compression.
    for options in questions() {
        cost(client, query, &options, seen).await;
    }
    let mut costs = Vec::new();
    for options in questions() {
        costs.push(cost(client, query, &options, seen).await);
    }
    assert!(costs[0].0 > 10_000 && costs[0].1 > 5_000, "{costs:?}");
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_sees_neither_a_filter_nor_how_many_pass_it() {
    let world = World::new(&Shape::new(300, 8, Metric::L2).labelled());
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let (address, seen) = observer(searcher.address).await;
    let client = Client::connect(world.client_config(address)).await.unwrap();
    let query = &world.base[..8];
    let filters = [
        Filter::default(),
        client.filter(&["even"], &[], &[]).unwrap(),
        client.filter(&[], &["third"], &["odd"]).unwrap(),
        client.filter(&[], &["even", "odd"], &[]).unwrap(),
    ];
    let mut costs = Vec::new();
    for round in 0..2 {
        for filter in filters {
            for rerank in [Rerank::default(), Rerank::Off] {
                let options = SearchOptions {
                    rerank,
                    filter,
                    ..SearchOptions::default()
                };
                let cost = cost(&client, query, &options, &seen).await;
                // The first ones fill the tables of the header compression.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
    }
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_sees_neither_k_nor_candidates_nor_reranking() {
    let world = World::new(&Shape::new(300, 8, Metric::L2));
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let (address, seen) = observer(searcher.address).await;
    let client = Client::connect(world.client_config(address)).await.unwrap();
    all_alike(&client, &world.base[..8], &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_of_a_client_that_holds_the_key() {
    let world = World::new(&Shape::new(300, 8, Metric::L2).for_keyholders());
    let (_metrics, searcher) = world.searcher(None).await;
    let (address, seen) = observer(searcher.address).await;
    let mut config = world.client_config(address);
    config.keyholder = Keyholder::client(world.secret_key());
    let client = Client::connect(config).await.unwrap();
    all_alike(&client, &world.base[..8], &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_the_documented_sizes() {
    let world = World::new(&Shape::new(300, 8, Metric::L2));
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let sizes = world.sizes();
    for options in questions() {
        let result = client.search(&world.base[..8], &options).await.unwrap();
        assert_eq!(result.neighbours.len(), options.k);
        assert_eq!(result.bytes_up, sizes.search() as u64 + 5);
        assert_eq!(result.bytes_down, sizes.reply() as u64 + 5);
    }
}
