//! Scan, selection and quantization of tables over a million vectors, beside
//! a plain read of the same bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oboro_quant::filter::{Filter, passing};
use oboro_quant::{BlockedCodes, QuantizedTable, Scanner, SelectionPlan, code_bits};
use oboro_simd::Arch;
use oboro_simd::mask::hide;
use oboro_simd::scan::{BLOCK, scan4, scan8};
use oboro_simd::select::{LANES, lane_best};
use oboro_simd::sort::merge_columns;
use std::hint::black_box;
use std::time::Duration;

const VECTORS: usize = 1_000_000;

struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn codes(subquantizers: usize, centroids: usize) -> BlockedCodes {
    let mut words = Words(88_172_645_463_325_252);
    let bits = code_bits(centroids);
    let mask = if bits == 4 { 15 } else { 255 };
    let rows: Vec<u8> = (0..VECTORS * subquantizers)
        .map(|_| (words.next() >> 9 & mask) as u8)
        .collect();
    BlockedCodes::from_rows(&rows, subquantizers, bits).expect("valid rows")
}

fn table(subquantizers: usize, centroids: usize, seed: u64) -> QuantizedTable {
    let mut words = Words(seed);
    let similarities: Vec<f32> = (0..subquantizers * centroids)
        .map(|_| (words.next() >> 40) as f32)
        .collect();
    QuantizedTable::from_similarities(&similarities, subquantizers, centroids).expect("valid table")
}

/// The fastest that memory gives: 512 bits at a time, eight sums.
#[inline(never)]
fn plain_read(arch: Arch, bytes: &[u8]) -> u64 {
    arch.vectorize(
        #[inline(always)]
        || {
            let (words, _) = bytes.as_chunks::<8>();
            let (lines, _) = words.as_chunks::<64>();
            let mut sums = [0_u64; 64];
            for line in lines {
                for (sum, word) in sums.iter_mut().zip(line) {
                    *sum ^= u64::from_ne_bytes(*word);
                }
            }
            sums.iter().fold(0, |all, sum| all ^ sum)
        },
    )
}

/// Scans in tiles whose scores stay in the first-level cache.
fn scan_only(arch: Arch, codes: &BlockedCodes, table: &QuantizedTable, scores: &mut [u16]) {
    let bytes = codes.as_bytes();
    let stride = bytes.len() / codes.blocks();
    for tile in bytes.chunks(64 * stride) {
        let scores = &mut scores[..tile.len() / stride * BLOCK];
        if codes.bits() == 8 {
            scan8(arch, tile, codes.subquantizers(), table.entries(), scores);
        } else {
            scan4(arch, tile, stride / BLOCK, table.entries(), scores);
        }
        black_box(&scores);
    }
}

fn scans(criterion: &mut Criterion) {
    let arch = Arch::detect();
    let mut group = criterion.benchmark_group("million");
    for (subquantizers, centroids) in [
        (8, 256),
        (16, 256),
        (32, 256),
        (64, 256),
        (32, 16),
        (64, 16),
    ] {
        let name = format!("{subquantizers}x{}", code_bits(centroids));
        let codes = codes(subquantizers, centroids);
        let tables: Vec<_> = (1..=8)
            .map(|seed| table(subquantizers, centroids, seed))
            .collect();
        group.throughput(Throughput::Bytes(codes.as_bytes().len() as u64));
        group.bench_function(BenchmarkId::new("plain read", &name), |b| {
            b.iter(|| plain_read(arch, black_box(codes.as_bytes())));
        });
        let mut scores = vec![0u16; 64 * BLOCK];
        group.bench_function(BenchmarkId::new("scan", &name), |b| {
            b.iter(|| scan_only(arch, &codes, &tables[0], &mut scores));
        });
        let scanner = Scanner::new();
        let plan = SelectionPlan::new(VECTORS, 100).expect("valid plan");
        for count in [1, 8] {
            group.bench_function(
                BenchmarkId::new(format!("top 100, tables {count}"), &name),
                |b| {
                    b.iter(|| scanner.search(&codes, &tables[..count], &plan, 1));
                },
            );
        }
        if (subquantizers, centroids) == (16, 256) {
            // Every other vector, which is as good as any: the mask's content
            // does not show.
            let mask = vec![0x5555_5555_5555_5555; codes.blocks()];
            group.bench_function(BenchmarkId::new("top 100, tables 1, masked", &name), |b| {
                b.iter(|| scanner.search_masked(&codes, &tables[..1], &[Some(&mask)], &plan, 1));
            });
            for candidates in [10, 1000, 4096] {
                let plan = SelectionPlan::new(VECTORS, candidates).expect("valid plan");
                group.bench_function(
                    BenchmarkId::new(format!("top {candidates}, tables 1"), &name),
                    |b| b.iter(|| scanner.search(&codes, &tables[..1], &plan, 1)),
                );
            }
        }
    }
    group.finish();
}

fn selection(criterion: &mut Criterion) {
    let arch = Arch::detect();
    let mut words = Words(3);
    let mut group = criterion.benchmark_group("selection of a million");
    // One tile over and over, as the scanner does.
    let scores: Vec<u16> = (0..4096)
        .map(|_| (words.next() >> 20 & 4095) as u16)
        .collect();
    for depth in [4, 8, 16, 32] {
        group.bench_function(BenchmarkId::new("lanes", depth), |b| {
            b.iter(|| {
                let mut best = vec![u32::MAX; depth * LANES];
                for tile in 0..VECTORS / 4096 {
                    let first_row = tile * 128 % 1024;
                    lane_best(arch, depth, &mut best, black_box(&scores), first_row);
                }
                best
            });
        });
        let columns = 1024;
        let mut keys: Vec<u64> = (0..depth * columns).map(|_| words.next()).collect();
        let mut scratch = keys.clone();
        group.bench_function(BenchmarkId::new("merge 1,024 lanes to 128", depth), |b| {
            b.iter(|| merge_columns(arch, &mut keys, &mut scratch, depth, columns, 128));
        });
    }
    group.finish();
}

fn filters(criterion: &mut Criterion) {
    let mut words = Words(7);
    let tags: Vec<u64> = (0..VECTORS).map(|_| words.next()).collect();
    let alive = vec![u64::MAX; VECTORS.div_ceil(64)];
    let filter = Filter {
        any: 6,
        all: 1,
        none: 8,
    };
    let mut mask = Vec::new();
    let mut group = criterion.benchmark_group("filter a million");
    group.throughput(Throughput::Bytes(8 * VECTORS as u64));
    for arch in Arch::available() {
        group.bench_function(arch.name(), |b| {
            b.iter(|| passing(arch, black_box(&tags), Some(&alive), &filter, &mut mask));
        });
        // One tile over and over, as the scanner does.
        let mut scores = vec![0u16; 4096];
        let tile = vec![0x5555_5555_5555_5555; scores.len() / BLOCK];
        group.bench_function(BenchmarkId::new("hide", arch.name()), |b| {
            b.iter(|| {
                for _ in 0..VECTORS / 4096 {
                    hide(arch, black_box(&tile), &mut scores);
                }
            });
        });
    }
    group.finish();
}

fn quantize(criterion: &mut Criterion) {
    let mut words = Words(5);
    let mut group = criterion.benchmark_group("quantize a table");
    for (subquantizers, centroids) in [(16, 256), (64, 256), (64, 16)] {
        let similarities: Vec<f32> = (0..subquantizers * centroids)
            .map(|_| (words.next() >> 40) as f32)
            .collect();
        group.bench_function(format!("{subquantizers}x{centroids}"), |b| {
            b.iter(|| {
                QuantizedTable::from_similarities(
                    black_box(&similarities),
                    subquantizers,
                    centroids,
                )
            });
        });
        let codes = (0..8_192 * subquantizers)
            .map(|_| (words.next() % centroids as u64) as u8)
            .collect::<Vec<_>>();
        let codes = BlockedCodes::from_rows(&codes, subquantizers, code_bits(centroids))
            .expect("valid codes");
        let plan = SelectionPlan::for_sample(codes.len(), 100, VECTORS).expect("valid sizes");
        let scanner = Scanner::new();
        group.bench_function(format!("{subquantizers}x{centroids} by a sample"), |b| {
            b.iter(|| {
                scanner.quantize(
                    black_box(&similarities),
                    subquantizers,
                    centroids,
                    &codes,
                    None,
                    &plan,
                )
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = scans, selection, filters, quantize
}
criterion_main!(benches);
