//! Tables and codes of batches against exact ones, and the keeper's view.

#![allow(clippy::unwrap_used, missing_docs)]

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    BatchCodebook, BatchCodebookMasks, BatchEncryptor, BatchEvaluator, BatchPacking, BatchScale,
    BatchTableShare, CkksError, CodebookOrigin, EncryptedBatch, MaskedBatch, MaskedDecryptor,
    ParameterSet, PreparedBatchCodebook, SecretKey,
};
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

struct World {
    packing: BatchPacking,
    scale: BatchScale,
    centroids: Vec<f32>,
    encryptor: BatchEncryptor,
    evaluator: BatchEvaluator,
    keeper: MaskedDecryptor,
    prepared: PreparedBatchCodebook,
    rng: ChaCha20Rng,
}

fn normal(rng: &mut impl Rng) -> f32 {
    let sum: f64 = (0..12)
        .map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX))
        .sum();
    (sum - 6.0) as f32
}

fn world(packing: BatchPacking, seed: u8) -> World {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let (d, k) = (packing.width(), packing.centroids());
    let root = (packing.vector_len() as f32).sqrt();
    let centroids: Vec<f32> = (0..packing.codebook_len())
        .map(|_| normal(&mut rng) / root)
        .collect();
    let norm: f64 = centroids
        .chunks_exact(d)
        .map(|c| f64::from(c.iter().map(|x| x * x).sum::<f32>()))
        .collect::<Vec<_>>()
        .chunks_exact(k)
        .map(|row| row.iter().copied().fold(0.0, f64::max))
        .sum();
    let scale = BatchScale::new(&packing, 3.0, norm.sqrt(), CodebookOrigin::Owner).unwrap();
    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let codebook = BatchCodebook::encrypt(&scale, &key, &centroids, &mut rng).unwrap();
    let codebook = BatchCodebook::from_bytes(&packing, &codebook.to_bytes()).unwrap();
    let masks = BatchCodebookMasks::from_bytes(&packing, &codebook.masks().to_bytes()).unwrap();
    let keeper = MaskedDecryptor::new(secret);
    World {
        prepared: keeper.prepare_batch(scale, &masks).unwrap(),
        packing,
        scale,
        centroids,
        encryptor: BatchEncryptor::new(scale, key.clone()).unwrap(),
        evaluator: BatchEvaluator::new(scale, key, codebook).unwrap(),
        keeper,
        rng,
    }
}

impl World {
    fn vectors(&mut self, count: usize) -> Vec<f32> {
        let length = self.packing.vector_len();
        (0..count * length)
            .map(|_| normal(&mut self.rng) / (length as f32).sqrt())
            .collect()
    }

    /// `[vector][subquantizer][centroid]`.
    fn exact(&self, vectors: &[f32]) -> Vec<f64> {
        let (m, d, k) = (
            self.packing.subquantizers(),
            self.packing.width(),
            self.packing.centroids(),
        );
        let mut out = Vec::new();
        for vector in vectors.chunks_exact(m * d) {
            for slot in 0..m {
                for c in 0..k {
                    let centroid = &self.centroids[(slot * k + c) * d..][..d];
                    let ip = vector[slot * d..][..d]
                        .iter()
                        .zip(centroid)
                        .map(|(&x, &y)| f64::from(x) * f64::from(y))
                        .sum::<f64>();
                    out.push(ip);
                }
            }
        }
        out
    }

    fn shares(
        &mut self,
        vectors: &[f32],
        blocks: std::ops::Range<usize>,
    ) -> (oboro_ckks::BatchSearcherShare, BatchTableShare) {
        let p = self.packing;
        let batch = self.encryptor.encrypt(vectors, &mut self.rng).unwrap();
        let batch = EncryptedBatch::from_bytes(&p, &batch.to_bytes()).unwrap();
        let mut rngs = [ChaCha20Rng::from_rng(&mut self.rng)];
        let (share, masked) = self
            .evaluator
            .evaluate(&[&batch], blocks.clone(), &mut rngs)
            .unwrap()
            .pop()
            .unwrap();
        let masked = MaskedBatch::from_bytes(&p, blocks.clone(), masked.to_bytes()).unwrap();
        let table = self
            .keeper
            .decrypt_batches(&self.prepared, &[masked], &mut rngs)
            .unwrap()
            .pop()
            .unwrap();
        let table = BatchTableShare::from_bytes(&p, blocks, &table.to_bytes()).unwrap();
        (share, table)
    }

    fn largest_error(&mut self) -> (f64, f64) {
        let vectors = self.vectors(self.packing.batch());
        let (share, table) = self.shares(&vectors, 0..self.packing.blocks());
        let tables = self.evaluator.tables(&share, &table).unwrap();
        let exact = self.exact(&vectors);
        assert_eq!(tables.len(), exact.len());
        let (mut largest, mut squares) = (0f64, 0f64);
        for (&got, want) in tables.iter().zip(&exact) {
            let error = (f64::from(got) - want).abs();
            largest = largest.max(error);
            squares += error * error;
        }
        (largest, (squares / exact.len() as f64).sqrt())
    }
}

#[test]
fn tables_match_exact_ones_within_the_stated_error() {
    for (set, m, d, k) in [
        (ParameterSet::N2048Q50, 16, 8, 256),
        (ParameterSet::N2048Q50, 10, 5, 64),
        (ParameterSet::N2048Q50, 1, 97, 15),
        (ParameterSet::N2048Q50, 300, 2, 16),
        (ParameterSet::N4096Q100, 16, 8, 16),
        (ParameterSet::N4096Q100, 60, 16, 16),
    ] {
        let mut world = world(BatchPacking::new(set, m, d, k).unwrap(), 3);
        let (largest, rms) = world.largest_error();
        let stated = world.scale.table_error();
        assert!(
            rms < 1.15 * stated,
            "{set:?} {m} {d} {k}: rms {rms:.2e}, stated {stated:.2e}"
        );
        assert!(largest < 7.0 * stated, "{set:?} {m} {d} {k}: {largest:.2e}");
    }
}

#[test]
fn codes_are_those_of_the_tables_and_a_range_of_blocks_gives_its_part() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 13, 3, 31).unwrap(),
        5,
    );
    let (m, k) = (13, 31);
    let vectors = world.vectors(50);
    let (share, table) = world.shares(&vectors, 0..16);
    let tables = world.evaluator.tables(&share, &table).unwrap();
    let offsets: Vec<f32> = (0..m * k).map(|i| (i as f32).cos() * 0.01).collect();
    let nearest = world.evaluator.assign(&share, &table, &offsets).unwrap();
    let mut codes = Vec::new();
    nearest.append_codes(50, &mut codes);
    let mut expected = Vec::new();
    for (row, slot) in tables.chunks_exact(k).take(50 * m).zip((0..m).cycle()) {
        let score = |c: usize| row[c] + offsets[slot * k + c];
        let best = (1..k).fold(0, |best, c| if score(c) > score(best) { c } else { best });
        expected.push(best as u8);
    }
    assert_eq!(codes, expected);

    let (share, table) = world.shares(&vectors, 3..5);
    let part = world.evaluator.tables(&share, &table).unwrap();
    let exact = world.exact(&vectors);
    for (i, (&got, want)) in part.iter().zip(&exact).enumerate() {
        let inside = (6..10).contains(&(i % k));
        let want = if inside { *want } else { 0.0 };
        assert!((f64::from(got) - want).abs() < 8.0 * world.scale.table_error());
    }
}

#[test]
fn a_group_of_batches_gives_the_same_bytes_as_one_by_one() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 16, 2, 16).unwrap(),
        6,
    );
    let batches: Vec<EncryptedBatch> = (0..3)
        .map(|_| {
            let vectors = world.vectors(64);
            world.encryptor.encrypt(&vectors, &mut world.rng).unwrap()
        })
        .collect();
    let rngs = || {
        (0..3)
            .map(|i| ChaCha20Rng::from_seed([i; 32]))
            .collect::<Vec<_>>()
    };
    let group: Vec<&EncryptedBatch> = batches.iter().collect();
    let together = world.evaluator.evaluate(&group, 0..8, &mut rngs()).unwrap();
    let (mut shares, mut masked) = (Vec::new(), Vec::new());
    for (share, product) in together {
        shares.push(share);
        masked.push(product);
    }
    let tables = world
        .keeper
        .decrypt_batches(&world.prepared, &masked, &mut rngs())
        .unwrap();
    for i in 0..3 {
        let (_, alone) = world
            .evaluator
            .evaluate(&group[i..=i], 0..8, &mut rngs()[i..=i])
            .unwrap()
            .pop()
            .unwrap();
        assert_eq!(alone.as_bytes(), masked[i].as_bytes());
        let table = world
            .keeper
            .decrypt_batches(&world.prepared, &[alone], &mut rngs()[i..=i])
            .unwrap()
            .pop()
            .unwrap();
        assert_eq!(table.to_bytes(), tables[i].to_bytes());
        assert!(world.evaluator.tables(&shares[i], &tables[i]).is_ok());
    }
}

#[test]
fn fail_shares_that_do_not_belong_together() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 16, 2, 16).unwrap(),
        7,
    );
    let vectors = world.vectors(10);
    let (first, table_of_first) = world.shares(&vectors, 0..8);
    let (second, _) = world.shares(&vectors, 0..8);
    assert!(world.evaluator.tables(&first, &table_of_first).is_ok());
    let zeros = vec![0.0; 16 * 16];
    assert_eq!(
        world.evaluator.tables(&second, &table_of_first),
        Err(CkksError::OutOfRange)
    );
    assert!(matches!(
        world.evaluator.assign(&second, &table_of_first, &zeros),
        Err(CkksError::OutOfRange)
    ));
    let (_, table_of_part) = world.shares(&vectors, 0..4);
    assert!(world.evaluator.tables(&first, &table_of_part).is_err());
    assert!(
        world
            .evaluator
            .assign(&first, &table_of_first, &zeros[1..])
            .is_err()
    );
}

#[test]
fn fail_nan_wrong_lengths_and_ranges() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 4, 3, 16).unwrap(),
        8,
    );
    let p = world.packing;
    let mut vectors = world.vectors(2);
    assert!(
        world
            .encryptor
            .encrypt(&vectors[1..], &mut world.rng)
            .is_err()
    );
    let many = world.vectors(p.batch() + 1);
    assert!(world.encryptor.encrypt(&many, &mut world.rng).is_err());
    let batch = world.encryptor.encrypt(&vectors, &mut world.rng).unwrap();
    vectors[3] = f32::NAN;
    assert_eq!(
        world.encryptor.encrypt(&vectors, &mut world.rng).err(),
        Some(CkksError::NotFinite("the batch"))
    );
    let mut rngs = [ChaCha20Rng::from_seed([1; 32])];
    for blocks in [0..0, 0..9, 8..9, 5..5] {
        assert!(
            world
                .evaluator
                .evaluate(&[&batch], blocks.clone(), &mut rngs)
                .is_err()
        );
        assert!(BatchTableShare::from_bytes(&p, blocks, &[]).is_err());
    }
    assert!(world.evaluator.evaluate(&[], 0..8, &mut rngs).is_err());
    assert!(
        world
            .keeper
            .decrypt_batches(&world.prepared, &[], &mut rngs)
            .is_err()
    );
    // A residue beyond q in c1 and in a.
    let length = MaskedBatch::encoded_len(&p, 8);
    let masked = MaskedBatch::from_bytes(&p, 0..8, vec![0xff; length]).unwrap();
    assert!(
        world
            .keeper
            .decrypt_batches(&world.prepared, &[masked], &mut rngs)
            .is_err()
    );
    assert!(EncryptedBatch::from_bytes(&p, &vec![0xff; EncryptedBatch::encoded_len(&p)]).is_err());
    // A scale for the keeper's codebooks is none for the owner's.
    let scale = BatchScale::new(&p, 1.0, 1.0, CodebookOrigin::Keeper).unwrap();
    let secret = SecretKey::generate(p.set(), &mut world.rng);
    let key = secret.public_key(&mut world.rng);
    assert!(BatchCodebook::encrypt(&scale, &key, &world.centroids, &mut world.rng).is_err());
    let scale = BatchScale::new(&p, 1.0, 1.0, CodebookOrigin::Owner).unwrap();
    assert!(BatchCodebook::encrypt(&scale, &key, &world.centroids[1..], &mut world.rng).is_err());
}

#[test]
fn fail_truncated_and_longer_bytes() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 4, 1, 4).unwrap(),
        9,
    );
    let p = world.packing;
    let vectors = world.vectors(3);
    let batch = world
        .encryptor
        .encrypt(&vectors, &mut world.rng)
        .unwrap()
        .to_bytes();
    let codebook = world.evaluator.codebook().to_bytes();
    let masks = world.evaluator.codebook().masks().to_bytes();
    let masked = vec![0; MaskedBatch::encoded_len(&p, 2)];
    let share = vec![0; BatchTableShare::encoded_len(&p, 2)];
    type Decoder<'a> = (&'a [u8], Box<dyn Fn(&[u8]) -> bool>);
    let decoders: Vec<Decoder<'_>> = vec![
        (
            &batch,
            Box::new(move |b| EncryptedBatch::from_bytes(&p, b).is_ok()),
        ),
        (
            &codebook,
            Box::new(move |b| BatchCodebook::from_bytes(&p, b).is_ok()),
        ),
        (
            &masks,
            Box::new(move |b| BatchCodebookMasks::from_bytes(&p, b).is_ok()),
        ),
        (
            &masked,
            Box::new(move |b| MaskedBatch::from_bytes(&p, 0..2, b.to_vec()).is_ok()),
        ),
        (
            &share,
            Box::new(move |b| BatchTableShare::from_bytes(&p, 0..2, b).is_ok()),
        ),
    ];
    for (bytes, decode) in decoders {
        assert!(decode(bytes));
        for cut in 0..bytes.len() {
            assert!(!decode(&bytes[..cut]));
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(!decode(&longer));
        // A flipped byte is another value or an error, never a panic.
        for at in (0..bytes.len()).step_by(bytes.len() / 200) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0xff;
            decode(&flipped);
        }
    }
}

#[test]
fn the_keepers_view_is_uniform_whatever_the_vectors() {
    let mut world = world(
        BatchPacking::new(ParameterSet::N2048Q50, 16, 4, 16).unwrap(),
        11,
    );
    let p = world.packing;
    let header = MaskedBatch::encoded_len(&p, 0);
    let zeros = vec![0.0; 64 * p.vector_len()];
    let random = world.vectors(64);
    for vectors in [zeros, random] {
        let batch = world.encryptor.encrypt(&vectors, &mut world.rng).unwrap();
        let mut counts = [0f64; 256];
        for round in 0..2 {
            let mut rngs = [ChaCha20Rng::from_seed([round; 32])];
            let (_, masked) = world
                .evaluator
                .evaluate(&[&batch], 0..8, &mut rngs)
                .unwrap()
                .pop()
                .unwrap();
            for coefficient in masked.as_bytes()[header..].chunks_exact(3) {
                counts[usize::from(coefficient[2])] += 1.0;
            }
        }
        let expected = counts.iter().sum::<f64>() / 256.0;
        let chi: f64 = counts
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        // 255 degrees of freedom: mean 255, deviation 22.6; six of them.
        assert!((119.0..391.0).contains(&chi), "chi-square {chi}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_gives_the_exact_tables(m in 1usize..80, d in 1usize..12, k in 1usize..=32, seed: u8) {
        let packing = BatchPacking::new(ParameterSet::N2048Q50, m, d, k).unwrap();
        let mut world = world(packing, seed);
        let (largest, _) = world.largest_error();
        prop_assert!(largest < 8.0 * world.scale.table_error());
    }

    #[test]
    fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packing = BatchPacking::new(ParameterSet::N2048Q50, 4, 3, 16).unwrap();
        let _ = BatchPacking::from_bytes(&bytes);
        let _ = BatchScale::from_bytes(&packing, &bytes);
        let _ = EncryptedBatch::from_bytes(&packing, &bytes);
        let _ = BatchCodebook::from_bytes(&packing, &bytes);
    }
}
