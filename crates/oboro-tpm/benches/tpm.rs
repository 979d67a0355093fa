//! How long a software TPM takes, `swtpm`, with our part of it. TPMs on chips of their own
//! take longer.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/swtpm/mod.rs"]
mod swtpm;

use criterion::{Criterion, criterion_group, criterion_main};
use oboro_tpm::{
    AttestationKey, CounterAuth, KeyChoice, MonotonicCounter, NvCounter, PcrSelection, SealingRoot,
};

fn tpm(criterion: &mut Criterion) {
    let Some(machine) = swtpm::Swtpm::start() else {
        return;
    };
    let tpm = machine.open();
    let mut group = criterion.benchmark_group("swtpm");
    group.sample_size(20);
    let selection = PcrSelection::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]).unwrap();
    let key = AttestationKey::new(tpm.clone(), KeyChoice::EcdsaP256).unwrap();
    group.bench_function("quote of 14 PCRs, P-256", |bencher| {
        bencher.iter(|| key.quote(selection, &[1; 32]).unwrap());
    });
    let root = SealingRoot::new(tpm.clone(), selection).unwrap();
    group.bench_function("sealing key", |bencher| {
        bencher.iter(|| root.key("bench").unwrap());
    });
    let auth = CounterAuth::default();
    let counter = NvCounter::open(tpm, NvCounter::DEFAULT_INDEX, auth).unwrap();
    group.bench_function("read the counter", |bencher| {
        bencher.iter(|| counter.read().unwrap());
    });
    group.bench_function("count up", |bencher| {
        bencher.iter(|| counter.increment().unwrap());
    });
    group.finish();
}

criterion_group!(benches, tpm);
criterion_main!(benches);
