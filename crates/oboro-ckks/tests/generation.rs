//! Blind k-means against plaintext k-means, the arithmetic of shares, and what
//! each role sees.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    BatchEncryptor, BatchPacking, BlindTrainer, CkksError, CodebookMasks, DerivedRandomness,
    EncryptedBatch, Labels, MaskSeed, MaskedBatch, MaskedBatchCodebook, MaskedCodebook,
    MaskedDecryptor, MaskedOffsets, MeanShares, Packing, ParameterSet, PreparedBatchCodebook,
    QueryEncryptor, SampleBounds, SampleShares, SecretKey, Step, TableEvaluator, TableScale,
    TrainedCodebook, TrainingPlan, TrainingSample, Work, WorkRows,
};
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

/// The word vectors that the command ships, as they are: 20,000 x 50.
fn words() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oboro/data/glove-50d-20k.f16");
    std::fs::read(path)
        .unwrap()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|b| half_to_single(u16::from_le_bytes(*b)))
        .collect()
}

fn half_to_single(x: u16) -> f32 {
    let sign = if x >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(x >> 10 & 31), f32::from(x & 1023));
    sign * if exponent == 0 {
        mantissa * 2f32.powi(-24)
    } else {
        (1024.0 + mantissa) * 2f32.powi(exponent - 25)
    }
}

/// Everything that the three roles hold, in one process.
struct World {
    packing: BatchPacking,
    bounds: SampleBounds,
    rows: Vec<f32>,
    batches: Vec<EncryptedBatch>,
    shares: SampleShares,
    seed: MaskSeed,
    key: oboro_ckks::PublicKey,
    keeper: MaskedDecryptor,
    rng: ChaCha20Rng,
}

fn world(packing: BatchPacking, vectors: &[f32]) -> World {
    let mut rng = ChaCha20Rng::from_seed([17; 32]);
    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let sample = TrainingSample::new(&packing, vectors, &mut rng).unwrap();
    let bounds = SampleBounds::from_bytes(&packing, &sample.bounds().to_bytes()).unwrap();
    assert_eq!(bounds, sample.bounds());
    let encryptor = BatchEncryptor::new(bounds.scale(&packing).unwrap(), key.clone()).unwrap();
    let count = packing.batches(bounds.samples());
    let seed = MaskSeed::generate(&mut rng);
    let seed = MaskSeed::from_bytes(Zeroizing::new(*seed.as_bytes()));
    let mut shares = SampleShares::new(&packing, bounds);
    for portion in sample.shares(&seed).chunks(1_000_003) {
        shares.append(portion).unwrap();
    }
    World {
        packing,
        bounds,
        rows: (0..count).flat_map(|b| sample.batch(b).to_vec()).collect(),
        batches: (0..count)
            .map(|b| encryptor.encrypt(sample.batch(b), &mut rng).unwrap())
            .collect(),
        shares,
        seed,
        key,
        keeper: MaskedDecryptor::new(secret),
        rng,
    }
}

fn plan(rounds: usize, vector_norm: f64) -> TrainingPlan {
    TrainingPlan {
        rounds,
        vector_norm,
        seed: Zeroizing::new([5; 32]),
    }
}

/// What the keeper remembers between messages.
struct Keeper<'a> {
    world: &'a World,
    randomness: DerivedRandomness,
    state: Option<(MeanShares, PreparedBatchCodebook)>,
}

impl Keeper<'_> {
    fn codebook(&mut self, labels: &[u8], scale: &[u8]) -> Vec<u8> {
        let p = self.world.packing;
        let labels = Labels::from_bytes(&p, self.world.bounds.samples(), labels).unwrap();
        let scale = oboro_ckks::BatchScale::from_bytes(&p, scale).unwrap();
        let means = self.world.shares.means(&labels).unwrap();
        let mut rng = self.randomness.codebook(&self.world.keeper, &scale, &means);
        let (masked, prepared) = self
            .world
            .keeper
            .encrypt_batch_codebook(&means, &scale, &mut rng)
            .unwrap();
        self.state = Some((means, prepared));
        masked.to_bytes()
    }

    fn decrypt(&self, masked: Vec<MaskedBatch>) -> Vec<oboro_ckks::BatchTableShare> {
        let (_, prepared) = self.state.as_ref().unwrap();
        let mut rngs: Vec<_> = masked
            .iter()
            .map(|message| self.randomness.decryption(prepared, message))
            .collect();
        self.world
            .keeper
            .decrypt_batches(prepared, &masked, &mut rngs)
            .unwrap()
    }
}

/// Drives a training to its end, `group` batches at a time, perhaps backwards;
/// stops before round `stop`.
fn train(
    mut trainer: BlindTrainer,
    keeper: &mut Keeper<'_>,
    group: usize,
    backwards: bool,
    stop: Option<usize>,
) -> BlindTrainer {
    let world = keeper.world;
    let randomness = DerivedRandomness::new(Zeroizing::new([8; 32]));
    loop {
        if trainer
            .checkpoint()
            .is_some_and(|(round, _)| Some(round) == stop)
        {
            return trainer;
        }
        match trainer.step() {
            Step::Finished => return trainer,
            Step::Centroids => {
                let answer =
                    keeper.codebook(&trainer.labels().to_bytes(), &trainer.scale().to_bytes());
                let answer = MaskedBatchCodebook::from_bytes(&world.packing, &answer).unwrap();
                trainer.install(answer).unwrap();
            }
            Step::Tables => {
                let evaluator = trainer.evaluator().unwrap();
                let digest = DerivedRandomness::codebook_digest(evaluator);
                let mut work = trainer.work();
                if backwards {
                    work.reverse();
                }
                let mut found = Vec::new();
                // Items with the same range of blocks go together.
                for group in work
                    .chunk_by(|a, b| a.blocks() == b.blocks())
                    .flat_map(|run| run.chunks(group))
                {
                    let batches: Vec<&EncryptedBatch> = group
                        .iter()
                        .map(|work: &Work| match work.rows() {
                            WorkRows::Sample(index) => &world.batches[index],
                            WorkRows::Centroids(index) => trainer.centroid_batch(index).unwrap(),
                        })
                        .collect();
                    let blocks = group[0].blocks();
                    let mut rngs: Vec<_> = batches
                        .iter()
                        .map(|batch| randomness.evaluation(&digest, batch, &blocks))
                        .collect();
                    let products = evaluator.evaluate(&batches, blocks, &mut rngs).unwrap();
                    let (shares, masked): (Vec<_>, Vec<_>) = products.into_iter().unzip();
                    for ((work, share), table) in
                        group.iter().zip(&shares).zip(keeper.decrypt(masked))
                    {
                        found.push(trainer.decode(work, share, &table).unwrap());
                    }
                }
                for found in found {
                    trainer.absorb(found).unwrap();
                }
            }
        }
    }
}

fn run(world: &World, rounds: usize, vector_norm: f64) -> (TrainedCodebook, MeanShares, Vec<f64>) {
    let mut keeper = Keeper {
        world,
        randomness: DerivedRandomness::new(Zeroizing::new([9; 32])),
        state: None,
    };
    let trainer = BlindTrainer::new(
        &world.packing,
        world.bounds,
        plan(rounds, vector_norm),
        world.seed.clone(),
        world.key.clone(),
    )
    .unwrap();
    let trainer = train(trainer, &mut keeper, 4, false, None);
    let gains = trainer.gains().to_vec();
    (trainer.finish().unwrap(), keeper.state.unwrap().0, gains)
}

/// What nobody but a test may do: put the two shares together.
fn reveal(keeper: &MeanShares, searcher: &MeanShares) -> Vec<f64> {
    let (keeper, searcher) = (keeper.to_bytes(), searcher.to_bytes());
    let unit = f64::from_le_bytes(keeper[..8].try_into().unwrap());
    let value = |bytes: &[u8]| {
        let mut wide = [0; 16];
        wide[..14].copy_from_slice(bytes);
        i128::from_le_bytes(wide)
    };
    keeper[8..]
        .chunks_exact(14)
        .zip(searcher[8..].chunks_exact(14))
        .map(|(x, r)| (value(x) - value(r)) as f64 * unit)
        .collect()
}

/// `[subquantizer][centroid][d]` of labelled rows.
fn plain_means(p: &BatchPacking, rows: &[f32], labels: &[u16]) -> Vec<f64> {
    let (m, d, k) = (p.subquantizers(), p.width(), p.centroids());
    let samples = rows.len() / (m * d);
    let mut sums = vec![0.0; m * k * d];
    let mut counts = vec![0.0; m * k];
    for (v, row) in rows.chunks_exact(m * d).enumerate() {
        for slot in 0..m {
            let label = labels[slot * samples + v] as usize;
            if label < k {
                counts[slot * k + label] += 1.0;
                for j in 0..d {
                    sums[(slot * k + label) * d + j] += f64::from(row[slot * d + j]);
                }
            }
        }
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum /= counts[i / d];
    }
    sums
}

/// The mean squared distance of sub-vectors from their nearest centroids, per
/// vector, and which these are, `[subquantizer][vector]`.
fn assign(p: &BatchPacking, rows: &[f32], centroids: &[f64]) -> (f64, Vec<u16>) {
    let (m, d, k) = (p.subquantizers(), p.width(), p.centroids());
    let samples = rows.len() / (m * d);
    let mut labels = vec![0; m * samples];
    let mut total = 0.0;
    for (v, row) in rows.chunks_exact(m * d).enumerate() {
        for slot in 0..m {
            let sub = &row[slot * d..][..d];
            let (mut best, mut at) = (f64::INFINITY, 0);
            for (c, centroid) in centroids[slot * k * d..][..k * d]
                .chunks_exact(d)
                .enumerate()
            {
                let distance: f64 = sub
                    .iter()
                    .zip(centroid)
                    .map(|(&x, y)| (f64::from(x) - y).powi(2))
                    .sum();
                if distance < best {
                    (best, at) = (distance, c);
                }
            }
            total += best;
            labels[slot * samples + v] = at as u16;
        }
    }
    (total / samples as f64, labels)
}

/// Plaintext k-means: random distinct rows, then Lloyd's rounds.
fn lloyd(p: &BatchPacking, rows: &[f32], rounds: usize, rng: &mut impl Rng) -> Vec<f64> {
    let (m, d, k) = (p.subquantizers(), p.width(), p.centroids());
    let samples = rows.len() / (m * d);
    let mut centroids = Vec::new();
    for slot in 0..m {
        let mut order: Vec<usize> = (0..samples).collect();
        for i in 0..k {
            let j = i + (rng.next_u64() % (samples - i) as u64) as usize;
            order.swap(i, j);
            let from = order[i] * m * d + slot * d;
            centroids.extend(rows[from..from + d].iter().map(|&x| f64::from(x)));
        }
    }
    for _ in 0..rounds {
        let (_, labels) = assign(p, rows, &centroids);
        let means = plain_means(p, rows, &labels);
        for (c, mean) in centroids.iter_mut().zip(means) {
            if mean.is_finite() {
                *c = mean;
            }
        }
    }
    centroids
}

fn largest_norm(rows: &[f32], length: usize) -> f64 {
    rows.chunks_exact(length)
        .map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>())
        .fold(0.0, f64::max)
        .sqrt()
}

#[test]
fn blind_k_means_is_as_good_as_plaintext_k_means_on_word_vectors() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 64).unwrap();
    let vectors = &words()[..50 * 6_000];
    let world = world(packing, vectors);
    let norm = largest_norm(vectors, 50);
    let (trained, keeper, gains) = run(&world, 10, norm);
    assert_eq!(gains.len(), 10);
    assert!(
        gains
            .windows(2)
            .all(|pair| pair[1] > pair[0] - 1e-3 * pair[0].abs())
    );

    let blind = reveal(&keeper, trained.means());
    let (blind, _) = assign(&packing, &world.rows, &blind);
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let plain = (0..3)
        .map(|_| {
            let centroids = lloyd(&packing, &world.rows, 10, &mut rng);
            assign(&packing, &world.rows, &centroids).0
        })
        .sum::<f64>()
        / 3.0;
    println!("distortion: blind {blind:.4}, plaintext {plain:.4}");
    assert!(blind < 1.02 * plain, "blind {blind}, plaintext {plain}");
}

#[test]
fn codes_offsets_and_search_codebook_of_a_training_are_those_of_its_centroids() {
    for set in ParameterSet::ALL {
        let packing = BatchPacking::new(set, 10, 5, 16).unwrap();
        let vectors = &words()[..50 * 600];
        let mut world = world(packing, vectors);
        let norm = largest_norm(vectors, 50);
        let (trained, keeper, _) = run(&world, 2, norm);
        let centroids = reveal(&keeper, trained.means());

        // Offsets: -|c|²/2 within the stated error of a table, twice as large
        // where rows were shortened.
        let scale = *trained.evaluator().scale();
        for (offset, centroid) in trained.offsets().iter().zip(centroids.chunks_exact(5)) {
            let want = -centroid.iter().map(|x| x * x).sum::<f64>() / 2.0;
            assert!((f64::from(*offset) - want).abs() < 7.0 * scale.table_error());
        }
        assert!(trained.codebook_norm() <= world.bounds.codebook_norm());

        // Encoding: at most near-ties differ from the exact nearest centroid.
        let encryptor = BatchEncryptor::new(scale, world.key.clone()).unwrap();
        let count = packing.batch();
        let batch = encryptor
            .encrypt(&vectors[..count * 50], &mut world.rng)
            .unwrap();
        let keeper_side = world
            .keeper
            .prepare_batch(scale, &trained.codebook().masks())
            .unwrap();
        let mut rngs = [ChaCha20Rng::from_seed([3; 32])];
        let (share, masked) = trained
            .evaluator()
            .evaluate(&[&batch], 0..packing.blocks(), &mut rngs)
            .unwrap()
            .pop()
            .unwrap();
        let table = world
            .keeper
            .decrypt_batches(&keeper_side, &[masked], &mut rngs)
            .unwrap()
            .pop()
            .unwrap();
        let nearest = trained
            .evaluator()
            .assign(&share, &table, trained.offsets())
            .unwrap();
        let mut codes = Vec::new();
        nearest.append_codes(count, &mut codes);
        let (_, exact) = assign(&packing, &vectors[..count * 50], &centroids);
        for (i, &code) in codes.iter().enumerate() {
            let (v, slot) = (i / 10, i % 10);
            let best = exact[slot * count + v] as usize;
            let distance = |c: usize| -> f64 {
                (0..5)
                    .map(|j| {
                        (f64::from(vectors[v * 50 + slot * 5 + j])
                            - centroids[(slot * 16 + c) * 5 + j])
                            .powi(2)
                    })
                    .sum()
            };
            let loss = distance(usize::from(code)) - distance(best);
            assert!(loss < 30.0 * scale.table_error(), "{loss}");
        }

        // The same centroids in the form for searching, through every byte.
        let packing = Packing::new(set, 10, 5, 16, 2).unwrap();
        let scale = TableScale::new(
            &packing,
            norm,
            trained.codebook_norm(),
            trained.offset_bound(),
        )
        .unwrap();
        let (offsets, keep) =
            MaskedOffsets::new(&packing, &scale, Some(trained.offsets()), &mut world.rng).unwrap();
        let offsets = MaskedOffsets::from_bytes(&packing, &offsets.to_bytes()).unwrap();
        let means = MeanShares::from_bytes(world.shares.packing(), &keeper.to_bytes()).unwrap();
        let masked = world
            .keeper
            .encrypt_search_codebook(&means, &packing, &scale, &offsets, &mut world.rng)
            .unwrap();
        let masked = MaskedCodebook::from_bytes(&packing, &masked.to_bytes()).unwrap();
        let codebook = keep.unmask(masked, trained.means(), &scale).unwrap();
        let evaluator = TableEvaluator::new(packing, scale, world.key.clone(), codebook).unwrap();
        let query = &vectors[50 * 33..50 * 34];
        let encrypted = QueryEncryptor::new(packing, scale, world.key.clone())
            .unwrap()
            .encrypt(query, &mut world.rng)
            .unwrap();
        let zero = evaluator.zero(&mut world.rng);
        let (share, products) = evaluator.evaluate(&encrypted, zero).unwrap();
        let masks = CodebookMasks::from_bytes(&packing, &evaluator.masks().to_bytes()).unwrap();
        let prepared = world.keeper.prepare(packing, scale, &masks).unwrap();
        let table = world
            .keeper
            .decrypt(&prepared, &products, &mut world.rng)
            .unwrap();
        let table = evaluator.unmask(&share, &table).unwrap();
        for (i, &entry) in table.iter().enumerate() {
            let slot = i / 16;
            let ip: f64 = (0..5)
                .map(|j| f64::from(query[slot * 5 + j]) * centroids[i * 5 + j])
                .sum();
            let want = ip + f64::from(trained.offsets()[i]);
            assert!((f64::from(entry) - want).abs() < 7.0 * scale.table_error());
        }
    }
}

#[test]
fn the_order_of_work_does_not_matter_and_a_resumed_training_gives_the_same_bytes() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let world = world(packing, &words()[..50 * 300]);
    let new = || {
        BlindTrainer::new(
            &packing,
            world.bounds,
            plan(3, 20.0),
            world.seed.clone(),
            world.key.clone(),
        )
        .unwrap()
    };
    let keeper = || Keeper {
        world: &world,
        randomness: DerivedRandomness::new(Zeroizing::new([9; 32])),
        state: None,
    };
    let expected = train(new(), &mut keeper(), 1, false, None)
        .finish()
        .unwrap();
    let other = train(new(), &mut keeper(), 3, true, None).finish().unwrap();
    let stopped = train(new(), &mut keeper(), 2, false, Some(2));
    let (round, labels) = stopped.checkpoint().unwrap();
    let labels = Labels::from_bytes(&packing, 300, &labels.to_bytes()).unwrap();
    let resumed = BlindTrainer::resume(
        &packing,
        world.bounds,
        plan(3, 20.0),
        world.seed.clone(),
        world.key.clone(),
        round,
        labels,
    )
    .unwrap();
    let resumed = train(resumed, &mut keeper(), 2, false, None)
        .finish()
        .unwrap();
    for result in [&other, &resumed] {
        assert_eq!(*result.means().to_bytes(), *expected.means().to_bytes());
        assert_eq!(result.codebook().to_bytes(), expected.codebook().to_bytes());
        assert_eq!(result.offsets(), expected.offsets());
    }
}

fn random_labels(packing: &BatchPacking, samples: usize, rng: &mut impl Rng) -> Vec<u16> {
    let k = packing.centroids();
    (0..packing.subquantizers() * samples)
        .map(|i| {
            // The first K samples of every sub-space leave no cluster empty.
            let sample = i % samples;
            if sample < k {
                sample as u16
            } else {
                match rng.next_u64() % (k as u64 + 1) {
                    label if label < k as u64 => label as u16,
                    _ => u16::MAX,
                }
            }
        })
        .collect()
}

fn as_bytes(labels: &[u16]) -> Vec<u8> {
    labels.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn means_under_masks_are_the_plaintext_means_to_the_stated_precision() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let mut world = world(packing, &words()[..50 * 500]);
    for _ in 0..4 {
        let labels = random_labels(&packing, 500, &mut world.rng);
        let encoded = Labels::from_bytes(&packing, 500, &as_bytes(&labels)).unwrap();
        let keeper = world.shares.means(&encoded).unwrap();
        let searcher = world.seed.means(&packing, &world.bounds, &encoded).unwrap();
        let blind = reveal(&keeper, &searcher);
        let plain = plain_means(&packing, &world.rows, &labels);
        // Half a unit of 2^-23 of the norm for every value, and 2^-8 for the means.
        let unit = world.bounds.codebook_norm() / f64::from(1 << 23);
        for (got, want) in blind.iter().zip(&plain) {
            assert!((got - want).abs() < 0.51 * unit, "{got} {want} {unit}");
        }
    }
}

fn chi_square(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0f64; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1.0);
    let expected = counts.iter().sum::<f64>() / 256.0;
    counts
        .iter()
        .map(|c| (c - expected).powi(2) / expected)
        .sum()
}

#[test]
fn the_keepers_shares_are_uniform_whatever_the_vectors() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    // One vector that is not zero, so that there is a scale.
    let mut still = vec![0.0; 50 * 3_000];
    still[0] = 1.0;
    let extreme: Vec<f32> = (0..50 * 3_000)
        .map(|i| if i % 3 == 0 { -1e4 } else { 1e4 })
        .collect();
    for vectors in [still, extreme] {
        let sample = TrainingSample::new(&packing, &vectors, &mut rng).unwrap();
        let shares = sample.shares(&MaskSeed::generate(&mut rng));
        for place in 0..13 {
            let chi = chi_square(shares.iter().skip(place).step_by(13).copied());
            // 255 degrees of freedom: mean 255, deviation 22.6; six of them.
            assert!(
                (119.0..391.0).contains(&chi),
                "byte {place}: chi-square {chi}"
            );
        }
    }
}

#[test]
fn with_the_seed_the_shares_are_the_vectors_and_without_it_nothing_fits() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let mut world = world(packing, &words()[..50 * 100]);
    let labels: Vec<u16> = (0..10)
        .flat_map(|_| (0..100).map(|v| if v < 16 { v } else { u16::MAX }))
        .collect();
    let encoded = Labels::from_bytes(&packing, 100, &as_bytes(&labels)).unwrap();
    let keeper = world.shares.means(&encoded).unwrap();
    let right = world.seed.means(&packing, &world.bounds, &encoded).unwrap();
    let plain = plain_means(&packing, &world.rows, &labels);
    let unit = world.bounds.codebook_norm() / f64::from(1 << 23);
    assert!(
        reveal(&keeper, &right)
            .iter()
            .zip(&plain)
            .all(|(x, y)| (x - y).abs() < unit),
        "the distinguisher must succeed with the seed"
    );
    let other = MaskSeed::generate(&mut world.rng);
    let wrong = other.means(&packing, &world.bounds, &encoded).unwrap();
    let near = reveal(&keeper, &wrong)
        .iter()
        .filter(|x| x.abs() < 1e6 * world.bounds.codebook_norm())
        .count();
    assert_eq!(near, 0);
}

#[test]
fn a_codebook_without_masks_is_uniform_to_the_searcher() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let mut world = world(packing, &words()[..50 * 200]);
    let labels = random_labels(&packing, 200, &mut world.rng);
    let labels = Labels::from_bytes(&packing, 200, &as_bytes(&labels)).unwrap();
    let scale = world.bounds.scale(&packing).unwrap();
    let means = world.shares.means(&labels).unwrap();
    let (masked, _) = world
        .keeper
        .encrypt_batch_codebook(&means, &scale, &mut world.rng)
        .unwrap();
    let searcher = world.seed.means(&packing, &world.bounds, &labels).unwrap();
    let (codebook, _) = masked.unmask(&searcher, &scale).unwrap();
    let chi = chi_square(codebook.to_bytes().into_iter());
    assert!((119.0..391.0).contains(&chi), "chi-square {chi}");
}

#[test]
fn fail_steps_out_of_their_order() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 10, 5, 16).unwrap();
    let world = world(packing, &words()[..50 * 100]);
    let mut keeper = Keeper {
        world: &world,
        randomness: DerivedRandomness::new(Zeroizing::new([9; 32])),
        state: None,
    };
    let mut trainer = BlindTrainer::new(
        &packing,
        world.bounds,
        plan(1, 20.0),
        world.seed.clone(),
        world.key.clone(),
    )
    .unwrap();
    let answer = |keeper: &mut Keeper<'_>, trainer: &BlindTrainer| {
        let bytes = keeper.codebook(&trainer.labels().to_bytes(), &trainer.scale().to_bytes());
        MaskedBatchCodebook::from_bytes(&packing, &bytes).unwrap()
    };
    assert!(trainer.work().is_empty() && trainer.evaluator().is_none());
    trainer.install(answer(&mut keeper, &trainer)).unwrap();
    let again = answer(&mut keeper, &trainer);
    assert!(matches!(
        trainer.install(again),
        Err(CkksError::OutOfOrder(_))
    ));
    // One item twice.
    let work = trainer.work();
    let evaluator = trainer.evaluator().unwrap();
    let mut rngs = [ChaCha20Rng::from_seed([1; 32])];
    let (share, masked) = evaluator
        .evaluate(&[&world.batches[0]], work[0].blocks(), &mut rngs)
        .unwrap()
        .pop()
        .unwrap();
    let table = keeper.decrypt(vec![masked]).pop().unwrap();
    let first = trainer.decode(&work[0], &share, &table).unwrap();
    let second = trainer.decode(&work[0], &share, &table).unwrap();
    trainer.absorb(first).unwrap();
    assert!(matches!(
        trainer.absorb(second),
        Err(CkksError::OutOfOrder(_))
    ));
    let trainer = train(trainer, &mut keeper, 2, false, None);
    assert!(trainer.decode(&work[0], &share, &table).is_err());
    assert!(trainer.finish().is_ok());
    let early = BlindTrainer::new(
        &packing,
        world.bounds,
        plan(1, 20.0),
        world.seed.clone(),
        world.key.clone(),
    )
    .unwrap();
    assert!(matches!(early.finish(), Err(CkksError::OutOfOrder(_))));
    for (rounds, norm) in [(0, 1.0), (1001, 1.0), (1, f64::NAN)] {
        let plan = plan(rounds, norm);
        let refused = BlindTrainer::new(
            &packing,
            world.bounds,
            plan,
            world.seed.clone(),
            world.key.clone(),
        );
        assert!(refused.is_err());
    }
}

#[test]
fn fail_labels_that_do_not_fit() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 2, 5, 4).unwrap();
    let labels: Vec<u16> = vec![0, 1, 2, 3, u16::MAX, 3, 2, 1, 0, 0];
    let bytes = as_bytes(&labels);
    assert!(Labels::from_bytes(&packing, 5, &bytes).is_ok());
    for cut in 0..bytes.len() {
        assert!(Labels::from_bytes(&packing, 5, &bytes[..cut]).is_err());
    }
    assert!(Labels::from_bytes(&packing, 6, &bytes).is_err());
    let mut bad = labels.clone();
    bad[2] = 4;
    assert!(matches!(
        Labels::from_bytes(&packing, 5, &as_bytes(&bad)),
        Err(CkksError::Value(_))
    ));
    let mut empty = labels;
    empty[0] = 1;
    assert!(matches!(
        Labels::from_bytes(&packing, 5, &as_bytes(&empty)),
        Err(CkksError::EmptyClusters { empty: 1 })
    ));
}

#[test]
fn fail_samples_shares_and_bytes_that_do_not_fit() {
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 4, 2, 4).unwrap();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let new = |vectors: &[f32]| {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        TrainingSample::new(&packing, vectors, &mut rng)
    };
    let good: Vec<f32> = (0..8 * 9).map(|i| (i as f32).sin()).collect();
    assert!(new(&good).is_ok());
    assert!(new(&good[..8 * 3]).is_err(), "fewer than centroids");
    assert!(new(&good[1..]).is_err());
    assert!(new(&[0.0; 72]).is_err(), "no scale");
    let mut bad = good.clone();
    bad[7] = f32::INFINITY;
    assert!(matches!(new(&bad), Err(CkksError::NotFinite(_))));

    let sample = new(&good).unwrap();
    let bounds = sample.bounds();
    let seed = MaskSeed::generate(&mut rng);
    let bytes = sample.shares(&seed);
    let labels: Vec<u16> = (0..36).map(|i| i % 9 % 4).collect();
    let labels = Labels::from_bytes(&packing, 9, &as_bytes(&labels)).unwrap();
    let mut shares = SampleShares::new(&packing, bounds);
    shares.append(&bytes[..50]).unwrap();
    assert!(shares.means(&labels).is_err(), "shares are missing");
    shares.append(&bytes[50..]).unwrap();
    assert!(shares.append(&[0]).is_err());
    let means = shares.means(&labels).unwrap();
    let other = Labels::from_bytes(&packing, 4, &as_bytes(&[0, 1, 2, 3].repeat(4))).unwrap();
    assert!(shares.means(&other).is_err());
    assert!(seed.means(&packing, &bounds, &other).is_err());

    let secret = SecretKey::generate(packing.set(), &mut rng);
    let keeper = MaskedDecryptor::new(secret);
    let scale = bounds.scale(&packing).unwrap();
    let (masked, _) = keeper
        .encrypt_batch_codebook(&means, &scale, &mut rng)
        .unwrap();
    let search = Packing::new(ParameterSet::N2048Q50, 4, 2, 4, 1).unwrap();
    let table = TableScale::new(&search, 1.0, 1.0, 1.0).unwrap();
    let (offsets, _) = MaskedOffsets::new(&search, &table, Some(&[0.1; 16]), &mut rng).unwrap();
    assert!(MaskedOffsets::new(&search, &table, Some(&[0.1; 15]), &mut rng).is_err());

    type Decoder<'a> = (Vec<u8>, Box<dyn Fn(&[u8]) -> bool + 'a>);
    let decoders: Vec<Decoder<'_>> = vec![
        (
            bounds.to_bytes().to_vec(),
            Box::new(|b| SampleBounds::from_bytes(&packing, b).is_ok()),
        ),
        (
            means.to_bytes().to_vec(),
            Box::new(|b| MeanShares::from_bytes(&packing, b).is_ok()),
        ),
        (
            masked.to_bytes(),
            Box::new(|b| MaskedBatchCodebook::from_bytes(&packing, b).is_ok()),
        ),
        (
            offsets.to_bytes(),
            Box::new(|b| !b.is_empty() && MaskedOffsets::from_bytes(&search, b).is_ok()),
        ),
    ];
    for (bytes, decode) in decoders {
        assert!(decode(&bytes));
        for cut in 0..bytes.len() {
            assert!(!decode(&bytes[..cut]));
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(!decode(&longer));
        // A flipped byte is another value or an error, never a panic.
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(200)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0xff;
            decode(&flipped);
        }
        // Residues beyond q, norms that are NaN.
        let mut spoilt = bytes.clone();
        spoilt[..].fill(0xff);
        assert!(!decode(&spoilt));
    }
    // Shapes and scales that differ.
    let wide = BatchPacking::new(ParameterSet::N2048Q50, 4, 3, 4).unwrap();
    let wide = bounds.scale(&wide).unwrap();
    assert!(
        keeper
            .encrypt_batch_codebook(&means, &wide, &mut rng)
            .is_err()
    );
    let searcher = seed.means(&packing, &bounds, &labels).unwrap();
    assert!(masked.unmask(&searcher, &wide).is_err());
    let other = Packing::new(ParameterSet::N2048Q50, 4, 3, 4, 1).unwrap();
    assert!(
        keeper
            .encrypt_search_codebook(&means, &other, &table, &offsets, &mut rng)
            .is_err()
    );
}
