//! Every stage of an encrypted table, one thread: D=128, M=16, K=256.

use chacha20::ChaCha20Rng;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use oboro_ckks::{
    CodebookMasking, EncryptedCodebook, MaskedDecryptor, Packing, ParameterSet, QueryEncryptor,
    SecretKey, TableEvaluator, TableScale, reencrypt,
};
use rand_core::SeedableRng;

fn tables(c: &mut Criterion) {
    for (set, split) in [
        (ParameterSet::N2048Q50, 1),
        (ParameterSet::N2048Q50, 2),
        (ParameterSet::N2048Q50, 8),
        (ParameterSet::N4096Q100, 1),
    ] {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let packing = Packing::new(set, 16, 8, 256, split).expect("a shape that fits");
        let scale = TableScale::new(&packing, 2.0, 1.0, 0.5).expect("valid bounds");
        let secret = SecretKey::generate(set, &mut rng);
        let key = secret.public_key(&mut rng);
        let centroids = vec![0.02f32; packing.table_len() * 8];
        let offsets = vec![-0.001f32; packing.table_len()];
        let codebook =
            EncryptedCodebook::encrypt(packing, &scale, &key, &centroids, Some(&offsets), &mut rng)
                .expect("a valid codebook");
        let encryptor = QueryEncryptor::new(packing, scale, key.clone()).expect("one set");
        let evaluator = TableEvaluator::new(packing, scale, key, codebook).expect("one set");
        let keeper = MaskedDecryptor::new(secret);
        let prepared = keeper
            .prepare(packing, scale, &evaluator.masks())
            .expect("one set");
        let plain = vec![0.05f32; 128];
        let query = encryptor.encrypt(&plain, &mut rng).expect("a finite query");
        let zero = evaluator.zero(&mut rng);
        let (share, products) = evaluator.evaluate(&query, zero).expect("one packing");
        let table = keeper
            .decrypt(&prepared, &products, &mut rng)
            .expect("one packing");

        let mut group = c.benchmark_group(format!("table/{}/d1={split}", set.name()));
        group.bench_function("client encrypt", |b| {
            b.iter(|| encryptor.encrypt(&plain, &mut rng).expect("a finite query"));
        });
        group.bench_function("searcher zero (pool)", |b| {
            b.iter(|| evaluator.zero(&mut rng))
        });
        group.bench_function("searcher evaluate", |b| {
            b.iter_batched(
                || evaluator.zero(&mut rng),
                |zero| evaluator.evaluate(&query, zero).expect("one packing"),
                BatchSize::LargeInput,
            );
        });
        group.bench_function("keeper decrypt", |b| {
            b.iter(|| {
                keeper
                    .decrypt(&prepared, &products, &mut rng)
                    .expect("one packing")
            });
        });
        group.bench_function("searcher unmask", |b| {
            b.iter(|| evaluator.unmask(&share, &table).expect("in range"));
        });
        let next = SecretKey::generate(set, &mut rng);
        group.bench_function("searcher mask codebook", |b| {
            b.iter(|| CodebookMasking::mask(evaluator.codebook(), &mut rng));
        });
        let (masked, _) = CodebookMasking::mask(evaluator.codebook(), &mut rng);
        group.bench_function("keeper re-encrypt codebook", |b| {
            b.iter(|| {
                reencrypt(keeper.key(), &next, &packing, &masked, &mut rng).expect("one packing")
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = tables
}
criterion_main!(benches);
