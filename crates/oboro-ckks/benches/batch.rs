//! Encoding in private, every stage of a vector, one thread: D=128, M=16, K=256.
//!
//! Batches of 64 vectors go through the codebook four at a time, as the roles do
//! it; the throughput shown is vectors.

use chacha20::ChaCha20Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oboro_ckks::{
    BatchEncryptor, BatchEvaluator, EncryptedBatch, MaskedDecryptor, ParameterSet, SampleShares,
    SecretKey, TrainingSample, generation::MaskSeed,
};
use oboro_ckks::{BatchPacking, Labels};
use rand_core::{Rng, SeedableRng};

const GROUP: usize = 4;

fn batches(c: &mut Criterion) {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let packing = BatchPacking::new(ParameterSet::N2048Q50, 16, 8, 256).expect("a shape that fits");
    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let keeper = MaskedDecryptor::new(secret);
    let vectors: Vec<f32> = (0..256 * 128)
        .map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5)
        .collect();
    let sample = TrainingSample::new(&packing, &vectors, &mut rng).expect("finite values");
    let bounds = sample.bounds();
    let scale = bounds.scale(&packing).expect("valid bounds");
    let seed = MaskSeed::generate(&mut rng);
    let mut shares = SampleShares::new(&packing, bounds);
    shares.append(&sample.shares(&seed)).expect("the sample's");
    // Every vector a centroid.
    let labels: Vec<u8> = (0..16)
        .flat_map(|_| (0..256u16).flat_map(u16::to_le_bytes))
        .collect();
    let labels = Labels::from_bytes(&packing, 256, &labels).expect("a member each");
    let means = shares.means(&labels).expect("all shares");
    let masks = seed
        .means(&packing, &bounds, &labels)
        .expect("labels that fit");

    let mut group = c.benchmark_group("codebook");
    group.sample_size(10);
    group.bench_function("keeper encrypt", |b| {
        b.iter(|| keeper.encrypt_batch_codebook(&means, &scale, &mut rng));
    });
    group.bench_function("searcher unmask", |b| {
        b.iter_batched(
            || {
                keeper
                    .encrypt_batch_codebook(&means, &scale, &mut rng)
                    .expect("one shape")
                    .0
            },
            |masked| masked.unmask(&masks, &scale),
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();

    let (masked, prepared) = keeper
        .encrypt_batch_codebook(&means, &scale, &mut rng)
        .expect("one shape");
    let (codebook, _) = masked.unmask(&masks, &scale).expect("one shape");
    let encryptor = BatchEncryptor::new(scale, key.clone()).expect("one set");
    let evaluator = BatchEvaluator::new(scale, key, codebook).expect("one shape");
    let encrypted: Vec<EncryptedBatch> = (0..GROUP)
        .map(|i| {
            encryptor
                .encrypt(sample.batch(i), &mut rng)
                .expect("finite values")
        })
        .collect();
    let refs: Vec<&EncryptedBatch> = encrypted.iter().collect();
    let generators = |rng: &mut ChaCha20Rng| {
        (0..GROUP)
            .map(|_| ChaCha20Rng::from_rng(rng))
            .collect::<Vec<_>>()
    };
    let offsets = vec![-0.1f32; packing.table_len()];
    let mut rngs = generators(&mut rng);
    let (kept, masked): (Vec<_>, Vec<_>) = evaluator
        .evaluate(&refs, 0..packing.blocks(), &mut rngs)
        .expect("one shape")
        .into_iter()
        .unzip();
    let tables = keeper
        .decrypt_batches(&prepared, &masked, &mut rngs)
        .expect("one shape");

    let mut group = c.benchmark_group("batch/N2048_Q50/M=16/K=256");
    group.sample_size(10);
    group.throughput(Throughput::Elements(packing.batch() as u64));
    group.bench_function("owner encrypt", |b| {
        b.iter(|| encryptor.encrypt(sample.batch(0), &mut rng));
    });
    group.throughput(Throughput::Elements((GROUP * packing.batch()) as u64));
    group.bench_function("searcher evaluate", |b| {
        b.iter(|| evaluator.evaluate(&refs, 0..packing.blocks(), &mut rngs));
    });
    group.bench_function("keeper decrypt", |b| {
        b.iter(|| keeper.decrypt_batches(&prepared, &masked, &mut rngs));
    });
    group.bench_function("searcher unmask and assign", |b| {
        b.iter(|| {
            for (share, table) in kept.iter().zip(&tables) {
                evaluator.assign(share, table, &offsets).expect("in range");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
