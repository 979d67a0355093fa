//! What the parts of a query cost inside one process, on one core: medians.

use std::hint::black_box;
use std::time::{Duration, Instant};

use oboro_ckks::{MaskedDecryptor, QueryEncryptor, SecretKey, TableEvaluator};
use oboro_index::Index;
use oboro_quant::{BlockedCodes, QuantizedTable, Scanner, SelectionPlan};
use oboro_simd::arch::Arch;
use oboro_simd::scan::{BLOCK, scan4, scan8};

use crate::failure::{Failure, Outcome};
use crate::figures::median;
use crate::keys;
use crate::or_failure::OrFailure;

/// A measurement goes on for this long at least.
const LEAST: Duration = Duration::from_millis(400);
/// And for this many repetitions.
const REPETITIONS: usize = 15;
/// Blocks whose scores stay in the first-level cache.
const TILE: usize = 64;

/// Microseconds of the table's parts.
pub(crate) struct Tables {
    /// Client: encrypting a query.
    pub(crate) encrypt_us: f64,
    /// Searcher: evaluating, re-randomizing and masking, everything included.
    pub(crate) evaluate_us: f64,
    /// The part of it that needs no query: a fresh encryption of zero, which
    /// a running searcher makes ahead of time.
    pub(crate) zero_us: f64,
    /// Keeper and searcher: decrypting, unmasking and decoding.
    pub(crate) decrypt_us: f64,
    /// Searcher: quantizing the table for the scan.
    pub(crate) quantize_us: f64,
}

/// Milliseconds of the pass over the codes.
#[derive(Default)]
pub(crate) struct Scans {
    /// The table look-ups and sums of every code.
    pub(crate) scan_ms: f64,
    /// What selecting the best candidates adds to it.
    pub(crate) select_ms: f64,
    /// Reading the same bytes and doing nothing with them.
    pub(crate) memory_read_ms: f64,
}

impl std::ops::AddAssign for Scans {
    /// One segment after the other.
    fn add_assign(&mut self, other: Self) {
        self.scan_ms += other.scan_ms;
        self.select_ms += other.select_ms;
        self.memory_read_ms += other.memory_read_ms;
    }
}

/// Measures one index with the keeper's secret key.
pub(crate) fn tables(index: &Index, secret: SecretKey, queries: &[Vec<f32>]) -> Outcome<Tables> {
    let descriptor = index.descriptor();
    let (packing, scale) = (descriptor.packing, descriptor.scale);
    let mut rng = keys::os_rng()?;
    let public = descriptor.public_key.clone();
    let encryptor = QueryEncryptor::new(packing, scale, public.clone())?;
    let evaluator = TableEvaluator::new(packing, scale, public, index.codebook()?)?;
    let decryptor = MaskedDecryptor::new(secret);
    let prepared = decryptor.prepare(packing, scale, &evaluator.masks())?;
    let subspaces = descriptor.subspaces().or_failure()?;
    let padded: Vec<Vec<f32>> = queries.iter().map(|query| subspaces.pad(query)).collect();
    if padded.is_empty() {
        return Err(Failure::input("there are no queries to measure with"));
    }

    let mut times: [Vec<f64>; 5] = Default::default();
    let begin = Instant::now();
    for query in padded.iter().cycle() {
        let mut clock = Instant::now();
        let mut lap = |times: &mut Vec<f64>| {
            times.push(clock.elapsed().as_secs_f64() * 1e6);
            clock = Instant::now();
        };
        let ciphertext = encryptor.encrypt(query, &mut rng)?;
        lap(&mut times[0]);
        let zero = evaluator.zero(&mut rng);
        lap(&mut times[4]);
        let (share, products) = evaluator.evaluate(&ciphertext, zero)?;
        lap(&mut times[1]);
        let answer = decryptor.decrypt(&prepared, &products, &mut rng)?;
        let table = evaluator.unmask(&share, &answer)?;
        lap(&mut times[2]);
        let quantized =
            QuantizedTable::from_similarities(&table, packing.subquantizers(), packing.centroids())
                .or_failure()?;
        lap(&mut times[3]);
        black_box(quantized);
        if begin.elapsed() > 2 * LEAST && times[0].len() >= REPETITIONS {
            break;
        }
    }
    let [encrypt, evaluate, decrypt, quantize, zero] = times.map(median);
    Ok(Tables {
        encrypt_us: encrypt,
        evaluate_us: zero + evaluate,
        zero_us: zero,
        decrypt_us: decrypt,
        quantize_us: quantize,
    })
}

/// Measures the pass over an index's codes.
pub(crate) fn scans(codes: &BlockedCodes, centroids: usize, candidates: usize) -> Outcome<Scans> {
    let arch = Arch::detect();
    let subquantizers = codes.subquantizers();
    // Which entries a table has changes neither addresses nor instructions.
    let entries: Vec<f32> = (0..subquantizers * centroids)
        .map(|at| ((at * 2_654_435_761) % 1_000_003) as f32)
        .collect();
    let table =
        QuantizedTable::from_similarities(&entries, subquantizers, centroids).or_failure()?;
    let plan = SelectionPlan::new(codes.len(), candidates.min(codes.len())).or_failure()?;
    let scanner = Scanner::new();
    let mut scores = vec![0; TILE * BLOCK];

    // Turn by turn, so that a disturbance hits all three.
    let mut times: [Vec<f64>; 3] = Default::default();
    let begin = Instant::now();
    while begin.elapsed() < LEAST || times[0].len() < REPETITIONS {
        times[0].push(milliseconds(|| {
            black_box(read(arch, black_box(codes.as_bytes())));
        }));
        times[1].push(milliseconds(|| scan(arch, codes, &table, &mut scores)));
        let mut searched = Ok(Vec::new());
        times[2].push(milliseconds(|| {
            searched = scanner.search(codes, std::slice::from_ref(&table), &plan, 1);
        }));
        black_box(searched.or_failure()?);
    }
    let [read, scan, search] = times.map(median);
    Ok(Scans {
        scan_ms: scan,
        select_ms: (search - scan).max(0.0),
        memory_read_ms: read,
    })
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

/// Every byte once, 512 bits at a time, into eight independent sums.
#[inline(never)]
fn read(arch: Arch, bytes: &[u8]) -> u64 {
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

fn scan(arch: Arch, codes: &BlockedCodes, table: &QuantizedTable, scores: &mut [u16]) {
    let bytes = codes.as_bytes();
    let stride = bytes.len() / codes.blocks();
    for tile in bytes.chunks(TILE * stride) {
        let scores = &mut scores[..tile.len() / stride * BLOCK];
        if codes.bits() == 8 {
            scan8(arch, tile, codes.subquantizers(), table.entries(), scores);
        } else {
            scan4(arch, tile, stride / BLOCK, table.entries(), scores);
        }
        black_box(&scores);
    }
}
