//! Another decryption key for an index in use.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Shape, World, raw};
use oboro_channel::Identity;
use oboro_ckks::{ParameterSet, PublicKey, SecretKey};
use oboro_client::{
    Client, ClientError, Rerank, SearchOptions,
    rotation::{OwnerSession, rotate},
};
use oboro_index::Descriptor;
use oboro_protocol::{
    Reason, reason_of,
    v1::{self, keeper_client::KeeperClient, searcher_client::SearcherClient},
};
use oboro_quant::Metric;
use oboro_searcher::SearcherError;
use tonic::transport::Channel;

const DIMENSION: usize = 8;

fn world() -> World {
    World::new(&Shape::new(600, DIMENSION, Metric::L2))
}

/// Searches for vectors of the index until told to stop; every one must be found.
async fn search_on(
    world: Arc<World>,
    client: Client,
    first: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) {
    let options = SearchOptions {
        k: 1,
        ..SearchOptions::default()
    };
    let mut row = first;
    while !stop.load(SeqCst) {
        let query = &world.base[row * DIMENSION..][..DIMENSION];
        let found = client.search(query, &options).await.unwrap();
        assert_eq!(found.neighbours[0].id, common::id_of_row(row as u64));
        done.fetch_add(1, SeqCst);
        row = (row + 7) % (world.base.len() / DIMENSION);
    }
}

/// Waits until a number of searches more are done.
async fn more(done: &AtomicUsize, searches: usize) {
    let until = done.load(SeqCst) + searches;
    let start = Instant::now();
    while done.load(SeqCst) < until {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "searches stand still"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn searches_before_during_and_after_rotations_are_all_right() {
    let world = Arc::new(world());
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut clients = Vec::new();
    let mut tasks = Vec::new();
    for first in 0..4 {
        let client = world.client(searcher.address).await;
        assert_eq!(client.index().epoch, 1);
        clients.push(client.clone());
        tasks.push(tokio::spawn(search_on(
            Arc::clone(&world),
            client,
            first,
            Arc::clone(&stop),
            Arc::clone(&done),
        )));
    }
    more(&done, 50).await;

    let first_key = world.public.fingerprint();
    let mut key = first_key;
    for epoch in 2..=3 {
        let overlap = Duration::from_secs(2);
        let owner = world.owner_config(searcher.address, keeper.address);
        let report = rotate(owner, overlap, false).await.unwrap();
        assert_eq!((report.from_epoch, report.epoch), (epoch - 1, epoch));
        assert_eq!(report.from_fingerprint, key);
        assert_ne!(report.fingerprint, key);
        assert!(report.simulated && !report.remarks.is_empty());
        key = report.fingerprint;
        // Who connects now is on the new epoch, who was there goes on as before.
        assert_eq!(world.client(searcher.address).await.index().epoch, epoch);
        more(&done, 50).await;
        tokio::time::sleep(overlap + Duration::from_millis(1_500)).await;
        more(&done, 50).await;
        for client in &clients {
            assert_eq!(client.index().epoch, epoch, "moved over without an error");
        }
    }
    stop.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        metrics.failed.load(SeqCst),
        2 * clients.len() as u64,
        "one refusal each"
    );

    // The first key is of no use any more.
    let mut session = OwnerSession::connect(world.owner_config(searcher.address, keeper.address))
        .await
        .unwrap();
    assert_eq!(session.held_keys().len(), 3);
    assert_eq!(session.retire(&key).await, Err(ClientError::KeyInUse));
    for old in session.held_keys().to_vec() {
        if old != key {
            session.retire(&old).await.unwrap();
        }
    }
    assert_eq!(server.public_keys().len(), 1);
    let found = clients[0]
        .search(&world.base[..DIMENSION], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(found.neighbours[0].id, common::id_of_row(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keeper_may_restart_while_two_epochs_are_served() {
    let world = world();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let options = SearchOptions::default();
    let query = &world.base[..DIMENSION];
    client.search(query, &options).await.unwrap();
    let owner = world.owner_config(searcher.address, keeper.address);
    rotate(owner, Duration::from_secs(60), false).await.unwrap();

    let address = keeper.address.to_string();
    drop(server);
    keeper.stop().await;
    let (_server, _keeper) = world.keeper(&address).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let newer = world.client(searcher.address).await;
    for (client, epoch) in [(&client, 1), (&newer, 2)] {
        let found = client.search(query, &options).await.unwrap();
        assert_eq!(found.neighbours[0].id, common::id_of_row(0));
        assert_eq!(client.index().epoch, epoch);
    }
}

/// The keeper answers for the newest epoch and the one before, and for no key that was
/// retired. Clients of what it gave up before the overlap was over move on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_an_epoch_that_the_keeper_gave_up_move_over() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let overlap = Duration::from_secs(60);
    let query = &world.base[..DIMENSION];
    let first = world.client(searcher.address).await;
    let mut session = OwnerSession::connect(world.owner_config(searcher.address, keeper.address))
        .await
        .unwrap();
    session.rotate(overlap).await.unwrap();
    let second = world.client(searcher.address).await;
    let report = session.rotate(overlap).await.unwrap();
    assert_eq!(report.epoch, 3);
    let found = first.search(query, &SearchOptions::default()).await;
    assert_eq!(found.unwrap().neighbours[0].id, common::id_of_row(0));
    assert_eq!(first.index().epoch, 3, "two epochs later");

    session.retire(&report.from_fingerprint).await.unwrap();
    assert_eq!(second.index().epoch, 2);
    let found = second.search(query, &SearchOptions::default()).await;
    assert_eq!(found.unwrap().neighbours[0].id, common::id_of_row(0));
    assert_eq!(second.index().epoch, 3, "its key was retired early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_epoch_open_and_ids_stay() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let before = world.client(searcher.address).await;
    let owner = world.owner_config(searcher.address, keeper.address);
    rotate(owner, Duration::from_secs(60), false).await.unwrap();
    let after = world.client(searcher.address).await;
    for rerank in [Rerank::Candidates(100), Rerank::Off] {
        let options = SearchOptions {
            rerank,
            ..SearchOptions::default()
        };
        let mut same = Vec::new();
        for row in (0..600).step_by(50) {
            let query = &world.base[row * DIMENSION..][..DIMENSION];
            let ids = |result: oboro_client::SearchResult| {
                let ids = result.neighbours.into_iter().map(|n| n.id);
                ids.collect::<Vec<u64>>()
            };
            let old = ids(before.search(query, &options).await.unwrap());
            let new = ids(after.search(query, &options).await.unwrap());
            same.push(common::overlap(&old, &new));
        }
        // Without exact ranking, noise exchanges neighbours of nearly one score, as it
        // does between two queries of one epoch.
        let least = if rerank == Rerank::Off { 0.75 } else { 1.0 };
        let mean = same.iter().sum::<f64>() / same.len() as f64;
        assert!(mean >= least, "{same:?}");
    }
    assert_eq!((before.index().epoch, after.index().epoch), (1, 2));
}

/// The owner's requests one by one.
struct Steps {
    searcher: SearcherClient<Channel>,
    keeper: KeeperClient<Channel>,
    present: Descriptor,
}

impl Steps {
    async fn new(
        world: &World,
        identity: &Identity,
        searcher: SocketAddr,
        keeper: SocketAddr,
    ) -> Self {
        let trust = world.authority.trust();
        let channel = oboro_channel::connect(
            &keeper.to_string(),
            identity,
            &trust,
            oboro_channel::Role::Keeper,
            oboro_channel::ConnectOptions::default(),
        )
        .await
        .unwrap()
        .channel;
        Self {
            searcher: raw(searcher, identity, &trust).await,
            keeper: KeeperClient::new(channel),
            present: world.index().descriptor().clone(),
        }
    }

    async fn new_key(&mut self) -> PublicKey {
        let reply = self
            .keeper
            .new_key(v1::NewKeyRequest {
                parameter_set: self.present.packing.set().name().to_owned(),
                index_id: self.present.index_id.to_vec().into(),
                from_fingerprint: self.present.public_key_fingerprint().to_vec().into(),
            })
            .await
            .unwrap();
        PublicKey::from_bytes(&reply.into_inner().public_key).unwrap()
    }

    fn begin_request(&self, key: &PublicKey) -> v1::BeginRotationRequest {
        v1::BeginRotationRequest {
            index_id: self.present.index_id.to_vec().into(),
            epoch: self.present.epoch,
            public_key: key.to_bytes().into(),
        }
    }

    async fn begin(&mut self, key: &PublicKey) -> [u8; 32] {
        let request = self.begin_request(key);
        let reply = self.searcher.begin_rotation(request).await.unwrap();
        reply.into_inner().codebook_digest[..].try_into().unwrap()
    }

    async fn commit(
        &mut self,
        world: &World,
        next: &Descriptor,
        overlap_seconds: u32,
    ) -> Result<u64, tonic::Status> {
        let descriptor = next.to_bytes(&world.owner_key.descriptor_key());
        let request = v1::CommitRotationRequest {
            descriptor: descriptor.into(),
            overlap_seconds,
        };
        let reply = self.searcher.commit_rotation(request).await?;
        Ok(reply.into_inner().epoch)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_rotations_that_no_owner_makes() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let owner = world.owner_identity();
    let mut steps = Steps::new(&world, &owner, searcher.address, keeper.address).await;
    let because = |status: tonic::Status| (reason_of(&status), status.message().to_owned());

    // A key that the keeper did not make for this index.
    let stranger = SecretKey::generate(ParameterSet::N2048Q50, &mut common::rng(7));
    let stranger = stranger.public_key(&mut common::rng(8));
    let request = steps.begin_request(&stranger);
    let status = steps.searcher.begin_rotation(request).await.unwrap_err();
    assert!(because(status).1.contains("refused"), "the keeper refuses");
    // Of another set; the present one; malformed; of another epoch or index.
    let other = SecretKey::generate(ParameterSet::N4096Q100, &mut common::rng(7));
    let other = other.public_key(&mut common::rng(8));
    let good = steps.begin_request(&stranger);
    let malformed = v1::BeginRotationRequest {
        public_key: good.public_key.slice(1..),
        ..good.clone()
    };
    let epoch = v1::BeginRotationRequest {
        epoch: 2,
        ..good.clone()
    };
    let index = v1::BeginRotationRequest {
        index_id: vec![3; 16].into(),
        ..good.clone()
    };
    for (request, reason) in [
        (steps.begin_request(&other), Reason::BadRequest),
        (steps.begin_request(&world.public), Reason::BadRequest),
        (malformed, Reason::BadRequest),
        (epoch, Reason::WrongEpoch),
        (index, Reason::WrongEpoch),
    ] {
        let status = steps.searcher.begin_rotation(request).await.unwrap_err();
        assert_eq!(because(status).0, Some(reason));
    }

    // Nothing was begun; begun by another owner; another descriptor; too long.
    let key = steps.new_key().await;
    let fake = steps.present.next_epoch(key.clone(), [1; 32]).unwrap();
    let status = steps.commit(&world, &fake, 1).await.unwrap_err();
    assert_eq!(because(status).0, Some(Reason::UnknownSession));
    let digest = steps.begin(&key).await;
    let next = steps.present.next_epoch(key.clone(), digest).unwrap();
    let another = world.owner_identity();
    let mut others = Steps::new(&world, &another, searcher.address, keeper.address).await;
    let status = others.commit(&world, &next, 1).await.unwrap_err();
    assert_eq!(because(status).0, Some(Reason::UnknownSession));
    let status = steps.commit(&world, &next, u32::MAX).await.unwrap_err();
    assert_eq!(because(status).0, Some(Reason::Limit));
    for wrong in [
        fake,
        steps.present.next_epoch(stranger, digest).unwrap(),
        next.next_epoch(key.clone(), digest).unwrap(),
        Descriptor {
            candidates_max: 7,
            ..next.clone()
        },
    ] {
        steps.begin(&key).await;
        let status = steps.commit(&world, &wrong, 1).await.unwrap_err();
        assert_eq!(because(status).0, Some(Reason::BadRequest));
    }

    // None of it changed anything, and the rotation still goes through.
    assert_eq!(world.index().generation(), 1);
    let digest = steps.begin(&key).await;
    let next = steps.present.next_epoch(key, digest).unwrap();
    assert_eq!(steps.commit(&world, &next, 0).await.unwrap(), 2);
    let found = client
        .search(&world.base[..DIMENSION], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(found.neighbours[0].id, common::id_of_row(0));
    assert_eq!(client.index().epoch, 2, "no overlap: moved over at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_stopped_half_way_is_begun_again() {
    let world = world();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let owner = world.owner_identity();
    let mut steps = Steps::new(&world, &owner, searcher.address, keeper.address).await;
    let key = steps.new_key().await;
    let digest = steps.begin(&key).await;
    let next = steps.present.next_epoch(key, digest).unwrap();

    // No keeper, no share for the new epoch: nothing is written.
    let address = keeper.address;
    drop(server);
    keeper.stop().await;
    let status = steps.commit(&world, &next, 1).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::KeeperUnreachable));
    assert_eq!(world.index().generation(), 1);

    // The owner comes back another day, with the keeper, and begins anew.
    drop(steps);
    let (_server, _keeper) = world.keeper(&address.to_string()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let owner = world.owner_config(searcher.address, address);
    let mut session = OwnerSession::connect(owner).await.unwrap();
    let report = session.rotate(Duration::ZERO).await.unwrap();
    assert_eq!(report.epoch, 2);
    let found = client
        .search(&world.base[..DIMENSION], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(found.neighbours[0].id, common::id_of_row(0));
    assert_eq!(client.index().epoch, 2);
    // The keeper gave the key of the first attempt, not one more.
    let owner = world.owner_config(searcher.address, address);
    let session = OwnerSession::connect(owner).await.unwrap();
    assert_eq!(session.held_keys().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_rotation_where_clients_hold_the_key() {
    let world = World::new(&Shape::new(300, DIMENSION, Metric::L2).for_keyholders());
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let owner = world.owner_config(searcher.address, keeper.address);
    let error = rotate(owner, Duration::ZERO, false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the clients of this index hold its key themselves, so nobody can re-encrypt it here; build the index again for a new key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searcher_that_ends_at_any_time_opens_at_the_old_or_the_new_epoch() {
    let world = Arc::new(world());
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let owner = world.owner_identity();
    let mut old = 0;
    for attempt in 0..12_u64 {
        let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
        let client = world.client(searcher.address).await;
        let query = &world.base[..DIMENSION];
        let found = client.search(query, &SearchOptions::default()).await;
        assert_eq!(found.unwrap().neighbours[0].id, common::id_of_row(0));
        let before = world.index().descriptor().epoch;
        assert_eq!(client.index().epoch, before);

        let mut steps = Steps::new(&world, &owner, searcher.address, keeper.address).await;
        let key = steps.new_key().await;
        let digest = steps.begin(&key).await;
        let next = steps.present.next_epoch(key, digest).unwrap();
        let committing = tokio::spawn({
            let world = Arc::clone(&world);
            async move { steps.commit(&world, &next, 0).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(attempt / 2)).await;
        searcher.kill().await;
        committing.await.unwrap();
        let after = world.index().descriptor().epoch;
        assert!(after == before || after == before + 1);
        old += u64::from(after == before);
    }
    assert!(old < 12, "some were committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_an_older_copy_of_the_index_is_put_back() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let copy = world.folder.path().join("copy");
    common::copy_folder(&world.index_path(), &copy);
    let owner = world.owner_config(searcher.address, keeper.address);
    rotate(owner, Duration::ZERO, false).await.unwrap();
    searcher.stop().await;

    std::fs::remove_dir_all(world.index_path()).unwrap();
    common::copy_folder(&copy, &world.index_path());
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let error = searcher.ended().await;
    assert!(matches!(error, SearcherError::Stale(_)), "{error}");
    assert_eq!(error.reason(), Reason::Stale);
    assert!(error.to_string().contains("older"), "{error}");
}
