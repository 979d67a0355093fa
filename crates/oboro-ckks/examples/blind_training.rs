//! A whole blind training in one process: what it costs and how good it is.
//!
//! ```sh
//! cargo run --release -p oboro-ckks --example blind_training -- [vectors.fvecs] [samples] [rounds] [threads]
//! ```
//! Without a file the vectors are a mixture of 128-dimensional clusters. M = 16,
//! K = 256. Says the time of each part and the distortion of the result beside
//! that of plaintext k-means from a random start.

#![allow(clippy::unwrap_used, missing_docs, reason = "an example that may stop")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    BatchEncryptor, BatchPacking, BlindTrainer, DerivedRandomness, EncryptedBatch, MaskSeed,
    MaskedDecryptor, MeanShares, ParameterSet, PreparedBatchCodebook, SampleShares, SecretKey,
    Step, TrainingPlan, TrainingSample, WorkRows,
};
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

const SUBQUANTIZERS: usize = 16;
const CENTROIDS: usize = 256;
const GROUP: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| arguments.get(i).map_or(default, |x| x.parse().unwrap());
    let (samples, rounds, threads) = (number(1, 25_600), number(2, 10), number(3, 2));
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (dimension, vectors) = match arguments.first().filter(|name| *name != "-") {
        Some(name) => read_fvecs(name, samples),
        None => (128, mixture(samples, &mut rng)),
    };
    let width = dimension / SUBQUANTIZERS;
    let packing =
        BatchPacking::new(ParameterSet::N2048Q50, SUBQUANTIZERS, width, CENTROIDS).unwrap();

    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let keeper = MaskedDecryptor::new(secret);
    let start = Instant::now();
    let sample = TrainingSample::new(&packing, &vectors, &mut rng).unwrap();
    let bounds = sample.bounds();
    let encryptor = BatchEncryptor::new(bounds.scale(&packing).unwrap(), key.clone()).unwrap();
    let seed = MaskSeed::generate(&mut rng);
    let mut shares = SampleShares::new(&packing, bounds);
    shares.append(&sample.shares(&seed)).unwrap();
    let batches: Vec<EncryptedBatch> = (0..packing.batches(samples))
        .map(|b| encryptor.encrypt(sample.batch(b), &mut rng).unwrap())
        .collect();
    println!(
        "owner: {} vectors encrypted and shared in {:.2?}",
        samples,
        start.elapsed()
    );

    let plan = TrainingPlan {
        rounds,
        vector_norm: bounds.row_norm(),
        seed: Zeroizing::new([2; 32]),
    };
    let mut trainer = BlindTrainer::new(&packing, bounds, plan, seed, key).unwrap();
    let searcher = DerivedRandomness::new(Zeroizing::new([3; 32]));
    let dither = DerivedRandomness::new(Zeroizing::new([4; 32]));
    let mut state: Option<(MeanShares, PreparedBatchCodebook)> = None;
    let start = Instant::now();
    let times = Times::default();
    let mut codebooks = Duration::ZERO;
    loop {
        match trainer.step() {
            Step::Finished => break,
            Step::Centroids => {
                let start = Instant::now();
                let means = shares.means(trainer.labels()).unwrap();
                let mut rng = dither.codebook(&keeper, trainer.scale(), &means);
                let (masked, prepared) = keeper
                    .encrypt_batch_codebook(&means, trainer.scale(), &mut rng)
                    .unwrap();
                trainer.install(masked).unwrap();
                state = Some((means, prepared));
                codebooks += start.elapsed();
            }
            Step::Tables => {
                let (_, prepared) = state.as_ref().unwrap();
                let evaluator = trainer.evaluator().unwrap();
                let digest = DerivedRandomness::codebook_digest(evaluator);
                let work = trainer.work();
                let groups: Vec<_> = work
                    .chunk_by(|a, b| a.blocks() == b.blocks())
                    .flat_map(|run| run.chunks(GROUP))
                    .collect();
                let next = AtomicUsize::new(0);
                let found = Mutex::new(Vec::new());
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            while let Some(group) = groups.get(next.fetch_add(1, Relaxed)) {
                                let batches: Vec<&EncryptedBatch> = group
                                    .iter()
                                    .map(|work| match work.rows() {
                                        WorkRows::Sample(index) => &batches[index],
                                        WorkRows::Centroids(index) => {
                                            trainer.centroid_batch(index).unwrap()
                                        }
                                    })
                                    .collect();
                                let blocks = group[0].blocks();
                                let (shares, masked): (Vec<_>, Vec<_>) = times.take(0, || {
                                    let mut rngs: Vec<_> = batches
                                        .iter()
                                        .map(|batch| searcher.evaluation(&digest, batch, &blocks))
                                        .collect();
                                    evaluator
                                        .evaluate(&batches, blocks, &mut rngs)
                                        .unwrap()
                                        .into_iter()
                                        .unzip()
                                });
                                let tables = times.take(1, || {
                                    let mut rngs: Vec<_> = masked
                                        .iter()
                                        .map(|message| dither.decryption(prepared, message))
                                        .collect();
                                    keeper
                                        .decrypt_batches(prepared, &masked, &mut rngs)
                                        .unwrap()
                                });
                                times.take(2, || {
                                    for ((work, share), table) in
                                        group.iter().zip(&shares).zip(&tables)
                                    {
                                        let result = trainer.decode(work, share, table).unwrap();
                                        found.lock().unwrap().push(result);
                                    }
                                });
                                times.vectors.fetch_add(
                                    group.len() * packing.batch() * group[0].blocks().len()
                                        / packing.blocks(),
                                    Relaxed,
                                );
                            }
                        });
                    }
                });
                for found in found.into_inner().unwrap() {
                    trainer.absorb(found).unwrap();
                }
            }
        }
    }
    println!(
        "training: {rounds} rounds in {:.2?}, of which codebooks {codebooks:.2?}",
        start.elapsed()
    );
    times.print();
    println!("mean score by round: {:.5?}", trainer.gains());
    let trained = trainer.finish().unwrap();
    let (means, _) = state.unwrap();

    let rows: Vec<f32> = (0..batches.len())
        .flat_map(|b| sample.batch(b).to_vec())
        .collect();
    let blind = distortion(&packing, &rows, &reveal(&means, trained.means()), None);
    let plain = lloyd(&packing, &rows, rounds, &mut rng);
    println!(
        "distortion: blind {blind:.6}, plaintext {plain:.6}, ratio {:.4}",
        blind / plain
    );
}

/// CPU time of the stages, over all threads.
#[derive(Default)]
struct Times {
    nanoseconds: [AtomicUsize; 3],
    vectors: AtomicUsize,
}

impl Times {
    fn take<T>(&self, stage: usize, work: impl FnOnce() -> T) -> T {
        let start = cpu_time();
        let result = work();
        let taken = cpu_time() - start;
        self.nanoseconds[stage].fetch_add(taken, Relaxed);
        result
    }

    fn print(&self) {
        let vectors = self.vectors.load(Relaxed) as f64;
        let each = |stage: usize| self.nanoseconds[stage].load(Relaxed) as f64 / vectors / 1e3;
        println!(
            "CPU a vector and pass: evaluate {:.1} us, decrypt {:.1} us, unmask and assign {:.1} us, together {:.1} us",
            each(0),
            each(1),
            each(2),
            each(0) + each(1) + each(2)
        );
    }
}

/// Nanoseconds that this thread was on a processor, so that the load of other
/// programs does not count; 0 where the system does not tell.
fn cpu_time() -> usize {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

fn read_fvecs(name: &str, count: usize) -> (usize, Vec<f32>) {
    let bytes = std::fs::read(name).unwrap();
    let dimension = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let row = 4 + 4 * dimension;
    let all = bytes.len() / row;
    // Evenly spread over the file.
    let vectors = (0..count)
        .flat_map(|i| {
            let at = i * all / count * row + 4;
            bytes[at..at + 4 * dimension]
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
        })
        .collect();
    (dimension, vectors)
}

fn mixture(count: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut normal = || {
        let sum: f32 = (0..12)
            .map(|_| rng.next_u32() as f32 / u32::MAX as f32)
            .sum();
        sum - 6.0
    };
    let centres: Vec<f32> = (0..500 * 128).map(|_| normal()).collect();
    (0..count * 128)
        .map(|i| centres[(i / 128 % 500) * 128 + i % 128] + 0.7 * normal())
        .collect()
}

/// The two shares together, which no role ever has.
fn reveal(keeper: &MeanShares, searcher: &MeanShares) -> Vec<f32> {
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
        .map(|(x, r)| ((value(x) - value(r)) as f64 * unit) as f32)
        .collect()
}

/// Mean squared distance to the nearest centroids; puts labels where asked to.
fn distortion(
    p: &BatchPacking,
    rows: &[f32],
    centroids: &[f32],
    mut labels: Option<&mut Vec<usize>>,
) -> f64 {
    let (m, d, k) = (p.subquantizers(), p.width(), p.centroids());
    let mut total = 0.0;
    for (i, sub) in rows.chunks_exact(d).enumerate() {
        let (mut best, mut at) = (f32::INFINITY, 0);
        for (c, centroid) in centroids[i % m * k * d..][..k * d]
            .chunks_exact(d)
            .enumerate()
        {
            let distance: f32 = sub
                .iter()
                .zip(centroid)
                .map(|(x, y)| (x - y) * (x - y))
                .sum();
            if distance < best {
                (best, at) = (distance, c);
            }
        }
        total += f64::from(best);
        if let Some(labels) = &mut labels {
            labels.push(at);
        }
    }
    total / (rows.len() / (m * d)) as f64
}

fn lloyd(p: &BatchPacking, rows: &[f32], rounds: usize, rng: &mut impl Rng) -> f64 {
    let (m, d, k) = (p.subquantizers(), p.width(), p.centroids());
    let samples = rows.len() / (m * d);
    let mut centroids: Vec<f32> = Vec::new();
    for slot in 0..m {
        for _ in 0..k {
            let row = (rng.next_u64() % samples as u64) as usize;
            centroids.extend_from_slice(&rows[row * m * d + slot * d..][..d]);
        }
    }
    for _ in 0..rounds {
        let mut labels = Vec::new();
        distortion(p, rows, &centroids, Some(&mut labels));
        let mut sums = vec![0f64; centroids.len()];
        let mut counts = vec![0f64; m * k];
        for ((i, sub), &label) in rows.chunks_exact(d).enumerate().zip(&labels) {
            let cluster = i % m * k + label;
            counts[cluster] += 1.0;
            for (sum, &x) in sums[cluster * d..][..d].iter_mut().zip(sub) {
                *sum += f64::from(x);
            }
        }
        for (i, centroid) in centroids.iter_mut().enumerate() {
            if counts[i / d] > 0.0 {
                *centroid = (sums[i] / counts[i / d]) as f32;
            }
        }
    }
    distortion(p, rows, &centroids, None)
}
