//! Lane-wise oblivious selection: every lane keeps its best `depth` scores.
//!
//! Scores come in rows of [`LANES`]. A lane is a fixed set of positions, so
//! which of them it keeps depends on the scores but which are looked at, and in
//! which order, does not: rows are sorted in small batches by a fixed network
//! of minima and maxima and merged into the lane's list.
//!
//! A kept entry is a key `score << 16 | row`. Keys are distinct and ordered by
//! score, then row, hence the result does not depend on the batch size.

use crate::Arch;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod network;

/// Lanes of a group; also the scores in a row.
pub const LANES: usize = 32;

/// Rows that [`lane_best`] takes at a time: its `scores` hold a multiple.
pub const ROW_BATCH: usize = 8;

/// Depths that [`lane_best`] offers.
pub const DEPTHS: [usize; 4] = [4, 8, 16, 32];

/// The score that marks "no vector here"; real scores must stay below.
pub const NO_SCORE: u16 = u16::MAX;

/// Merges the rows `first_row ..` of `scores` into the best of every lane.
///
/// * `best`: `depth * 32` keys, row-major, each lane ascending; start with
///   `u32::MAX` everywhere,
/// * `scores`: a multiple of `ROW_BATCH` rows of 32 scores; rows that are not
///   there hold [`NO_SCORE`].
///
/// # Panics
/// When a length does not fit, `depth` is not one of [`DEPTHS`], or a row
/// number would pass 65,535.
pub fn lane_best(arch: Arch, depth: usize, best: &mut [u32], scores: &[u16], first_row: usize) {
    assert!(
        DEPTHS.contains(&depth),
        "depth {depth} is not one of {DEPTHS:?}"
    );
    assert_eq!(best.len(), depth * LANES, "best does not fit");
    assert_eq!(
        scores.len() % (ROW_BATCH * LANES),
        0,
        "scores must be whole batches"
    );
    assert!(
        first_row + scores.len() / LANES <= 1 << 16,
        "row numbers pass 16 bits"
    );
    let first_row = first_row as u32;
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernels.
        Arch::Avx512(_) => unsafe {
            match depth {
                4 => avx512::oblivious_lane_best_4_avx512(best, scores, first_row),
                8 => avx512::oblivious_lane_best_8_avx512(best, scores, first_row),
                16 => avx512::oblivious_lane_best_16_avx512(best, scores, first_row),
                _ => avx512::oblivious_lane_best_32_avx512(best, scores, first_row),
            }
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernels.
        Arch::Avx2(_) => unsafe {
            match depth {
                4 => avx2::oblivious_lane_best_4_avx2(best, scores, first_row),
                8 => avx2::oblivious_lane_best_8_avx2(best, scores, first_row),
                16 => avx2::oblivious_lane_best_16_avx2(best, scores, first_row),
                _ => avx2::oblivious_lane_best_32_avx2(best, scores, first_row),
            }
        },
        _ => match depth {
            4 => oblivious_lane_best_4_portable(best, scores, first_row),
            8 => oblivious_lane_best_8_portable(best, scores, first_row),
            16 => oblivious_lane_best_16_portable(best, scores, first_row),
            _ => oblivious_lane_best_32_portable(best, scores, first_row),
        },
    }
}

/// Half a row of keys.
type Half = [u32; LANES / 2];

#[inline(always)]
fn exchange(low: &mut Half, high: &mut Half) {
    for (low, high) in low.iter_mut().zip(high) {
        let (a, b) = (*low, *high);
        *low = a.min(b);
        *high = a.max(b);
    }
}

#[inline(always)]
fn exchange_at(list: &mut [Half], low: usize, high: usize) {
    let (left, right) = list.split_at_mut(high);
    exchange(&mut left[low], &mut right[0]);
}

/// Batcher's odd-even merge sort over rows; `N` is a power of two.
#[inline(always)]
fn sort_rows<const N: usize>(list: &mut [Half; N]) {
    let mut p = 1;
    while p < N {
        let mut k = p;
        while k >= 1 {
            let mut j = k % p;
            while j + k < N {
                for i in 0..k {
                    if i + j + k < N && (i + j) / (2 * p) == (i + j + k) / (2 * p) {
                        exchange_at(list, i + j, i + j + k);
                    }
                }
                j += 2 * k;
            }
            k /= 2;
        }
        p *= 2;
    }
}

/// Sorts a bitonic sequence of rows; `N` is a power of two.
#[inline(always)]
fn sort_bitonic<const N: usize>(list: &mut [Half; N]) {
    let mut distance = N / 2;
    while distance >= 1 {
        for i in 0..N {
            if i & distance == 0 {
                exchange_at(list, i, i + distance);
            }
        }
        distance /= 2;
    }
}

/// `BATCH` new rows at a time: sort them, keep the smaller half of both lists,
/// sort again.
#[inline(always)]
fn lane_best_by<const DEPTH: usize, const BATCH: usize>(
    best: &mut [u32],
    scores: &[u16],
    first_row: u32,
) {
    for half in 0..2 {
        let start = half * (LANES / 2);
        let mut list = [[0u32; LANES / 2]; DEPTH];
        for (row, list) in list.iter_mut().enumerate() {
            list.copy_from_slice(&best[row * LANES + start..][..LANES / 2]);
        }
        let mut row = first_row;
        for batch in scores.chunks_exact(BATCH * LANES) {
            let mut fresh = [[0u32; LANES / 2]; BATCH];
            for (fresh, scores) in fresh.iter_mut().zip(batch.chunks_exact(LANES)) {
                for (key, &score) in fresh.iter_mut().zip(&scores[start..start + LANES / 2]) {
                    *key = u32::from(score) << 16 | row;
                }
                row += 1;
            }
            sort_rows(&mut fresh);
            // Ascending against descending: the minima are the best DEPTH of
            // both and form a bitonic sequence.
            for (i, fresh) in fresh.iter().enumerate().take(DEPTH) {
                for (kept, &fresh) in list[DEPTH - 1 - i].iter_mut().zip(fresh) {
                    *kept = (*kept).min(fresh);
                }
            }
            sort_bitonic(&mut list);
        }
        for (row, list) in list.iter().enumerate() {
            best[row * LANES + start..][..LANES / 2].copy_from_slice(list);
        }
    }
}

#[inline(never)]
fn oblivious_lane_best_4_portable(best: &mut [u32], scores: &[u16], first_row: u32) {
    lane_best_by::<4, 4>(best, scores, first_row);
}

#[inline(never)]
fn oblivious_lane_best_8_portable(best: &mut [u32], scores: &[u16], first_row: u32) {
    lane_best_by::<8, 8>(best, scores, first_row);
}

#[inline(never)]
fn oblivious_lane_best_16_portable(best: &mut [u32], scores: &[u16], first_row: u32) {
    lane_best_by::<16, 8>(best, scores, first_row);
}

#[inline(never)]
fn oblivious_lane_best_32_portable(best: &mut [u32], scores: &[u16], first_row: u32) {
    lane_best_by::<32, 8>(best, scores, first_row);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(count: usize, modulus: u64) -> Vec<u16> {
        let mut state = 88_172_645_463_325_252_u64;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 20) % modulus) as u16
            })
            .collect()
    }

    #[test]
    fn every_lane_keeps_its_smallest_keys_in_order() {
        for rows in [8, 16, 128, 1024] {
            // A small modulus makes many ties.
            for modulus in [3, 65_535] {
                let scores = scores(rows * LANES, modulus);
                for depth in DEPTHS {
                    for arch in Arch::available() {
                        let mut best = vec![u32::MAX; depth * LANES];
                        let first = 1000;
                        let cut = rows / 16 * 8 * LANES;
                        lane_best(arch, depth, &mut best, &scores[..cut], first);
                        lane_best(arch, depth, &mut best, &scores[cut..], first + cut / LANES);
                        for lane in 0..LANES {
                            let mut keys: Vec<u32> = (0..rows)
                                .map(|row| {
                                    u32::from(scores[row * LANES + lane]) << 16
                                        | (first + row) as u32
                                })
                                .collect();
                            keys.sort_unstable();
                            keys.resize(keys.len().max(depth), u32::MAX);
                            let kept: Vec<u32> =
                                (0..depth).map(|i| best[i * LANES + lane]).collect();
                            assert_eq!(
                                kept,
                                keys[..depth],
                                "{} depth {depth} rows {rows} lane {lane}",
                                arch.name()
                            );
                        }
                    }
                }
            }
        }
    }
}
