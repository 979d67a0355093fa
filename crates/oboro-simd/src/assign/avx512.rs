//! 512-bit assignment: four points against four chunks of centroids at a time.
//!
//! Products and differences are rounded one by one, never fused, as in the
//! portable loops.

use super::{CHUNK, Transposed};
use std::arch::x86_64::*;

/// Points, or queries, whose sums are kept in registers.
const POINTS: usize = 4;

/// Chunks of 16 rows whose sums are kept in registers.
const CHUNKS: usize = 4;

/// `offset - <point, row>` of `P` points against `C` chunks from `chunk`.
#[target_feature(enable = "avx512f")]
#[inline]
fn sums<const P: usize, const C: usize>(
    points: &[&[f32]; P],
    rows: &Transposed,
    chunk: usize,
) -> [[__m512; C]; P] {
    let width = rows.width;
    let (offsets, _) = rows.half_norms[chunk * CHUNK..].as_chunks::<CHUNK>();
    let (values, _) = rows.values[chunk * width * CHUNK..].as_chunks::<CHUNK>();
    // One check for all of the loop below.
    let values = &values[..C * width];
    let points = points.map(|point| &point[..width]);
    let mut sums = [[_mm512_setzero_ps(); C]; P];
    for sums in &mut sums {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum = load(&offsets[c]);
        }
    }
    for j in 0..width {
        let mut rows = [_mm512_setzero_ps(); C];
        for (c, row) in rows.iter_mut().enumerate() {
            *row = load(&values[c * width + j]);
        }
        for (point, sums) in points.iter().zip(&mut sums) {
            let x = _mm512_set1_ps(point[j]);
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm512_sub_ps(*sum, _mm512_mul_ps(x, row));
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(values: &[f32; CHUNK]) -> __m512 {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(values: &mut [f32; CHUNK], register: __m512) {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), register) };
}

/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) fn assign(
    points: &[f32],
    stride: usize,
    centroids: &Transposed,
    indexes: &mut [u32],
    values: &mut [f32],
) {
    let point = |i: usize| &points[i * stride..i * stride + centroids.width];
    let whole = indexes.len() / POINTS * POINTS;
    for i in (0..whole).step_by(POINTS) {
        let points = [point(i), point(i + 1), point(i + 2), point(i + 3)];
        nearest(&points, centroids, &mut indexes[i..], &mut values[i..]);
    }
    for i in whole..indexes.len() {
        nearest(&[point(i)], centroids, &mut indexes[i..], &mut values[i..]);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn nearest<const P: usize>(
    points: &[&[f32]; P],
    centroids: &Transposed,
    indexes: &mut [u32],
    values: &mut [f32],
) {
    let chunks = centroids.half_norms.len() / CHUNK;
    let mut best = [_mm512_set1_ps(f32::INFINITY); P];
    let mut at = [_mm512_setzero_si512(); P];
    let mut chunk = 0;
    while chunk + CHUNKS <= chunks {
        let sums = sums::<P, CHUNKS>(points, centroids, chunk);
        keep_nearer(&mut best, &mut at, &sums, chunk);
        chunk += CHUNKS;
    }
    while chunk < chunks {
        let sums = sums::<P, 1>(points, centroids, chunk);
        keep_nearer(&mut best, &mut at, &sums, chunk);
        chunk += 1;
    }
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for p in 0..P {
        let least = _mm512_set1_ps(_mm512_reduce_min_ps(best[p]));
        let equal = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(best[p], least);
        let index = _mm512_add_epi32(_mm512_slli_epi32::<4>(at[p]), lanes);
        let index = _mm512_mask_reduce_min_epu32(equal, index);
        // The value as computed: a minimum may return either zero.
        let mut lanes = [0.0; CHUNK];
        store(&mut lanes, best[p]);
        indexes[p] = index;
        values[p] = lanes[index as usize % CHUNK];
    }
}

/// Strictly nearer only, so that the lowest chunk wins a tie.
#[target_feature(enable = "avx512f")]
#[inline]
fn keep_nearer<const P: usize, const C: usize>(
    best: &mut [__m512; P],
    at: &mut [__m512i; P],
    sums: &[[__m512; C]; P],
    chunk: usize,
) {
    for p in 0..P {
        for (c, &sum) in sums[p].iter().enumerate() {
            let nearer = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(sum, best[p]);
            best[p] = _mm512_mask_mov_ps(best[p], nearer, sum);
            at[p] = _mm512_mask_mov_epi32(at[p], nearer, _mm512_set1_epi32((chunk + c) as i32));
        }
    }
}

/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) fn products(queries: &[f32], rows: &Transposed, out: &mut [f32]) {
    let padded = rows.half_norms.len();
    let chunks = padded / CHUNK;
    let whole = chunks / CHUNKS * CHUNKS;
    // Chunks outside: they stay in the first-level cache for all queries.
    for chunk in (0..whole).step_by(CHUNKS) {
        products_of::<CHUNKS>(queries, rows, chunk, out);
    }
    for chunk in whole..chunks {
        products_of::<1>(queries, rows, chunk, out);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn products_of<const C: usize>(queries: &[f32], rows: &Transposed, chunk: usize, out: &mut [f32]) {
    let padded = rows.half_norms.len();
    let count = queries.len() / rows.width;
    let query = |i: usize| &queries[i * rows.width..(i + 1) * rows.width];
    let mut write = |query: usize, sums: [__m512; C]| {
        let (out, _) = out[query * padded + chunk * CHUNK..].as_chunks_mut::<CHUNK>();
        for (out, sum) in out.iter_mut().zip(sums) {
            store(out, sum);
        }
    };
    let whole = count / POINTS * POINTS;
    for i in (0..whole).step_by(POINTS) {
        let queries = [query(i), query(i + 1), query(i + 2), query(i + 3)];
        for (p, sums) in sums::<POINTS, C>(&queries, rows, chunk)
            .into_iter()
            .enumerate()
        {
            write(i + p, sums);
        }
    }
    for i in whole..count {
        let [sums] = sums::<1, C>(&[query(i)], rows, chunk);
        write(i, sums);
    }
}
