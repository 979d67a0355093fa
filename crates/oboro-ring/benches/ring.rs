//! Ring arithmetic on every instruction set, at the sizes of both parameter
//! sets (the second per limb and whole). Random inputs; medians matter.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use criterion::{Criterion, criterion_group, criterion_main};
use oboro_ring::{Coefficient, Evaluation, Poly, Ring, prime, sample, tensor};
use oboro_simd::ntt::NttTable;
use oboro_simd::{Arch, modmul};
use rand_core::{Rng, SeedableRng};

fn rings() -> Vec<(String, Arc<Ring>)> {
    let mut rings = Vec::new();
    for arch in Arch::available() {
        for (degree, limbs) in [(2048, 1), (4096, 2)] {
            let primes = prime::largest_ntt_primes(degree, 50, limbs);
            let ring = Ring::with_arch(arch, degree, &primes).unwrap();
            rings.push((format!("{degree}x{limbs}/{}", arch.name()), ring));
        }
    }
    rings
}

/// One limb, in place, without allocation.
fn kernels(criterion: &mut Criterion) {
    for arch in Arch::available() {
        for degree in [2048, 4096] {
            let p = prime::largest_ntt_primes(degree, 50, 1)[0];
            let ring = Ring::new(degree, &[p]).unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let polys: Vec<Poly<Evaluation>> =
                (0..66).map(|_| sample::uniform(&ring, &mut rng)).collect();
            let table = NttTable::new(degree, p);
            let modulus = table.modulus();
            let mut x = polys[0].limb(0).to_vec();
            let mut y = polys[1].limb(0).to_vec();
            let pairs: Vec<modmul::Pair<'_>> = (0..32)
                .map(|i| (polys[2 * i].limb(0), polys[2 * i + 1].limb(0)))
                .collect();
            let mut group = criterion.benchmark_group(format!("kernel/{degree}/{}", arch.name()));
            group.bench_function("forward", |b| {
                b.iter(|| table.forward(arch, black_box(&mut x)))
            });
            group.bench_function("inverse", |b| {
                b.iter(|| table.inverse(arch, black_box(&mut x)))
            });
            group.bench_function("add", |b| {
                b.iter(|| modmul::add_assign(arch, modulus, black_box(&mut x), pairs[0].0));
            });
            for count in [1, 16] {
                group.bench_function(format!("inner product of {count}"), |b| {
                    b.iter(|| {
                        modmul::inner_product(arch, modulus, black_box(&mut x), &pairs[..count]);
                    });
                });
            }
            for count in [1, 8] {
                group.bench_function(format!("tensor of {count}"), |b| {
                    b.iter(|| {
                        modmul::tensor(
                            arch,
                            modulus,
                            black_box(&mut x),
                            black_box(&mut y),
                            &pairs[..count],
                            &pairs[16..16 + count],
                        );
                    });
                });
            }
        }
    }
}

/// Whole polynomials through the public interface.
fn polynomials(criterion: &mut Criterion) {
    for (name, ring) in rings() {
        let ring = &*ring;
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let a: Poly<Evaluation> = sample::uniform(ring, &mut rng);
        let b: Poly<Evaluation> = sample::uniform(ring, &mut rng);
        let c: Poly<Coefficient> = sample::uniform(ring, &mut rng);
        let mut group = criterion.benchmark_group(format!("ring/{name}"));
        group.bench_function("tensor of 1", |bench| {
            let (mut out0, mut out1) = (Poly::zero(ring), Poly::zero(ring));
            bench.iter(|| tensor(ring, &[(&a, &b)], &[(&b, &a)], &mut out0, &mut out1));
        });
        group.bench_function("ternary", |bench| {
            bench.iter(|| sample::ternary(ring, &mut rng))
        });
        group.bench_function("keystream of the Gaussian sampler", |bench| {
            let mut bytes = vec![0; 2 * ring.degree()];
            bench.iter(|| rng.fill_bytes(black_box(&mut bytes)));
        });
        group.bench_function("gaussian", |bench| {
            bench.iter(|| sample::gaussian(ring, &mut rng));
        });
        group.bench_function("uniform from seed", |bench| {
            bench.iter(|| sample::uniform_from_seed(ring, &[7; 32], 0));
        });
        let values: Vec<i64> = (0..ring.degree() as i64)
            .map(|i| i * 1_000_003 - 77)
            .collect();
        group.bench_function("from signed", |bench| {
            bench.iter(|| Poly::from_signed(ring, black_box(&values)));
        });
        group.bench_function("centered, all", |bench| {
            bench.iter(|| {
                (0..ring.degree())
                    .map(|i| c.centered(ring, i))
                    .sum::<i128>()
            });
        });
        let mut bytes = Vec::with_capacity(Poly::<Coefficient>::packed_len(ring));
        group.bench_function("pack", |bench| {
            bench.iter(|| {
                bytes.clear();
                c.pack(ring, black_box(&mut bytes));
            });
        });
        group.bench_function("unpack", |bench| {
            bench.iter(|| {
                Poly::<Coefficient>::unpack(ring, black_box(&bytes))
                    .ok()
                    .unwrap()
            });
        });
        let (drop_bits, width) = if ring.limbs() == 1 { (26, 3) } else { (52, 6) };
        group.bench_function("truncate", |bench| {
            bench.iter(|| c.truncate(ring, drop_bits, width).unwrap());
        });
        let short = c.truncate(ring, drop_bits, width).unwrap();
        group.bench_function("from truncated", |bench| {
            bench.iter(|| {
                Poly::from_truncated(ring, black_box(&short), drop_bits, width)
                    .ok()
                    .unwrap()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600));
    targets = kernels, polynomials
}
criterion_main!(benches);
