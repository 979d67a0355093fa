//! Sessions, their table, and the share that is kept.
#![allow(clippy::unwrap_used)]

use super::session::Session;
use super::sessions::{Generations, MAX_INSTALLED};
use super::shape::Shape;
use super::share::Share;
use crate::state::KeyPair;
use oboro_ckks::{
    BatchPacking, Labels, MaskSeed, ParameterSet, SampleBounds, SecretKey, TrainingSample,
};
use oboro_protocol::generation::{IDLE_LIFETIME, SESSION_LIFETIME};
use rand_core::SeedableRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const OWNER: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

struct World {
    pair: Arc<KeyPair>,
    packing: BatchPacking,
    bounds: SampleBounds,
    share: Vec<u8>,
    now: Instant,
}

fn rng(seed: u8) -> chacha20::ChaCha20Rng {
    chacha20::ChaCha20Rng::from_seed([seed; 32])
}

impl World {
    fn new() -> Self {
        let set = ParameterSet::N2048Q50;
        let secret = SecretKey::generate(set, &mut rng(1));
        let public = secret.public_key(&mut rng(2));
        let packing = BatchPacking::new(set, 4, 3, 16).unwrap();
        let values: Vec<f32> = (0..20 * packing.vector_len()).map(|x| x as f32).collect();
        let sample = TrainingSample::new(&packing, &values, &mut rng(3)).unwrap();
        let mut labels = vec![0; 2 * 4 * 20];
        for (index, label) in labels.chunks_exact_mut(2).enumerate() {
            label[0] = (index % 20 % 16) as u8;
        }
        let labels = Labels::from_bytes(&packing, 20, &labels).unwrap();
        let seed = MaskSeed::generate(&mut rng(4));
        let means = seed.means(&packing, &sample.bounds(), &labels).unwrap();
        Self {
            pair: Arc::new(KeyPair::new(secret, public).unwrap()),
            bounds: sample.bounds(),
            share: Share::to_bytes(&sample.bounds().scale(&packing).unwrap(), &means).to_vec(),
            packing,
            now: Instant::now(),
        }
    }

    fn session(&self, index: u8, owner: [u8; 32], vectors: u64) -> Session {
        let message = oboro_protocol::generation::v1::Shape {
            index_id: vec![index; 16].into(),
            batch_packing: self.packing.to_bytes().to_vec().into(),
            split: 1,
            bounds: self.bounds.to_bytes().to_vec().into(),
            rounds: 2,
            vectors,
            segments: 1,
        };
        let shape = Shape::parse(Some(&message), self.packing.set()).unwrap();
        Session::new(
            shape,
            Arc::clone(&self.pair),
            owner,
            Zeroizing::new([7; 32]),
        )
    }

    fn installed(&self, index: u8, searcher: u8) -> Session {
        self.installed_under(&self.pair, index, searcher)
    }

    fn installed_under(&self, pair: &Arc<KeyPair>, index: u8, searcher: u8) -> Session {
        let share = Share::from_bytes(&self.share).unwrap();
        let (pair, seed) = (Arc::clone(pair), Zeroizing::new([7; 32]));
        Session::install([index; 16], pair, [searcher; 32], seed, share, 0.0)
            .unwrap()
            .0
    }
}

#[test]
fn an_owner_that_never_comes_back_is_forgotten() {
    let world = World::new();
    let table = Generations::default();
    table
        .begin([1; 16], world.session(1, OWNER, 9), world.now)
        .unwrap();
    table.install([2; 16], world.installed(2, 8), world.now);
    assert_eq!(table.len(), 2);
    // One that is asked for something stays.
    let early = world.now + IDLE_LIFETIME - Duration::from_secs(1);
    table.of_owner(&[1; 16], &OWNER, early).unwrap();
    table.expire(world.now + IDLE_LIFETIME);
    assert_eq!(table.len(), 1);
    table.expire(early + IDLE_LIFETIME);
    assert_eq!(table.len(), 0);
    // And none stays longer than a day, however busy.
    table
        .begin([1; 16], world.session(1, OWNER, 9), world.now)
        .unwrap();
    let mut now = world.now;
    while now < world.now + SESSION_LIFETIME - IDLE_LIFETIME {
        now += IDLE_LIFETIME / 2;
        table.of_owner(&[1; 16], &OWNER, now).unwrap();
    }
    let end = world.now + SESSION_LIFETIME;
    assert!(table.of_owner(&[1; 16], &OWNER, end).is_err());
}

#[test]
fn the_same_owner_finds_what_it_began_and_nobody_else_does() {
    let world = World::new();
    let table = Generations::default();
    let begin = |token, index, owner, vectors| {
        table.begin([token; 16], world.session(index, owner, vectors), world.now)
    };
    assert_eq!(begin(1, 1, OWNER, 9).unwrap(), [1; 16]);
    table
        .of_owner(&[1; 16], &OWNER, world.now)
        .unwrap()
        .append(0, &[5; 13])
        .unwrap();
    assert_eq!(begin(2, 1, OWNER, 9).unwrap(), [1; 16]);
    let found = table.of_owner(&[1; 16], &OWNER, world.now).unwrap();
    assert_eq!(found.append(0, &[]).unwrap(), 13);
    // Of another shape it is another one, and another owner has its own.
    assert_eq!(begin(3, 1, OWNER, 10).unwrap(), [3; 16]);
    assert!(table.of_owner(&[1; 16], &OWNER, world.now).is_err());
    assert_eq!(begin(4, 1, OTHER, 10).unwrap(), [4; 16]);
    assert!(table.of_owner(&[3; 16], &OTHER, world.now).is_err());
    // An owner gives its own up for a fifth, and none of another's.
    for index in 2..8 {
        begin(10 + index, index, OWNER, 9).unwrap();
    }
    assert!(table.of_owner(&[4; 16], &OTHER, world.now).is_ok());
}

#[test]
fn fail_shares_cut_or_longer() {
    let world = World::new();
    assert!(Share::from_bytes(&world.share).is_ok());
    for length in 0..world.share.len() {
        assert!(Share::from_bytes(&world.share[..length]).is_err());
    }
    let mut long = world.share.clone();
    long.push(0);
    assert!(Share::from_bytes(&long).is_err());
    let (pair, seed) = (Arc::clone(&world.pair), Zeroizing::new([7; 32]));
    let share = Share::from_bytes(&world.share).unwrap();
    assert!(Session::install([1; 16], pair, [8; 32], seed, share, 99.0).is_err());
}

#[test]
fn fail_installed_codebooks_beyond_what_a_keeper_holds() {
    let world = World::new();
    let table = Generations::default();
    for index in 0..=MAX_INSTALLED as u8 {
        let now = world.now + Duration::from_secs(index.into());
        table.install([index; 16], world.installed(index, 8), now);
    }
    assert_eq!(table.len(), MAX_INSTALLED);
    let later = world.now + Duration::from_secs(20);
    assert!(table.of_searcher(&[0; 16], &[8; 32], later).is_err());
    assert!(table.of_searcher(&[1; 16], &[9; 32], later).is_err());
    let session = table.of_searcher(&[1; 16], &[8; 32], later).unwrap();
    assert!(session.append(0, &[1]).is_err());
    assert!(session.means(&[], &[], 0.0).is_err());
    assert!(session.codebook(&[], &[], 0.0).is_err());
    // Shown again, it takes the place of the one before.
    table.install([99; 16], world.installed(1, 8), later);
    assert_eq!(table.len(), MAX_INSTALLED);
    assert!(table.of_searcher(&[1; 16], &[8; 32], later).is_err());
}

#[test]
fn two_epochs_of_an_index_stand_beside_each_other_until_a_key_goes() {
    let world = World::new();
    let secret = SecretKey::generate(world.packing.set(), &mut rng(11));
    let public = secret.public_key(&mut rng(12));
    let next = Arc::new(KeyPair::new(secret, public).unwrap());
    let table = Generations::default();
    let find = |token: u8| table.of_searcher(&[token; 16], &[8; 32], world.now).is_ok();
    table.install([1; 16], world.installed(1, 8), world.now);
    table.install([2; 16], world.installed_under(&next, 1, 8), world.now);
    assert!(find(1) && find(2));
    // Shown again, each takes its own place only.
    table.install([3; 16], world.installed(1, 8), world.now);
    assert!(!find(1) && find(2) && find(3));
    // A training under the key that goes ends as well.
    table
        .begin([4; 16], world.session(1, OWNER, 9), world.now)
        .unwrap();
    table.forget(&world.pair.fingerprint);
    assert!(find(2) && !find(3));
    assert!(table.of_owner(&[4; 16], &OWNER, world.now).is_err());
    assert_eq!(table.len(), 1);
    // Nobody holds the key any more.
    assert_eq!(Arc::strong_count(&world.pair), 1);
}
