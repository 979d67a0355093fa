//! Fixed sorting networks over columns of keys.
//!
//! A matrix of 64-bit keys, row-major, whose columns are sorted, is folded in
//! halves: column `c` merges with column `c + columns / 2` by a bitonic merge,
//! all columns at once over contiguous memory. Which keys are compared depends
//! on the shape only. Once the columns are as long as the number of keys asked
//! for, a merge keeps the smaller half and no column grows further.

use crate::Arch;

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Folds `columns` ascending columns of `rows` keys into one ascending column
/// and returns its length, `min(keep, rows * columns)`.
///
/// * `keys`: `rows * columns` keys, row-major; the result lies in its front,
/// * `scratch`: as long as `keys`; overwritten,
/// * `rows`, `columns` and `keep`: powers of two.
///
/// The result holds the smallest keys of the matrix. Keys that are not there
/// are `u64::MAX`.
///
/// # Panics
/// When a number is not a power of two, `rows > keep`, or a length does not
/// fit.
pub fn merge_columns(
    arch: Arch,
    keys: &mut [u64],
    scratch: &mut [u64],
    rows: usize,
    columns: usize,
    keep: usize,
) -> usize {
    assert!(
        rows.is_power_of_two() && columns.is_power_of_two() && keep.is_power_of_two(),
        "rows {rows}, columns {columns} and keep {keep} must be powers of two"
    );
    assert!(
        rows <= keep,
        "columns of {rows} keys are longer than the {keep} to keep"
    );
    assert_eq!(keys.len(), rows * columns, "keys do not fit");
    assert_eq!(scratch.len(), keys.len(), "scratch does not fit");
    let shape = Shape { rows, columns };
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe {
            avx512::oblivious_merge_columns_avx512(keys, scratch, shape, keep)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernel.
        Arch::Avx2(_) => unsafe { oblivious_merge_columns_avx2(keys, scratch, shape, keep) },
        _ => oblivious_merge_columns_portable(keys, scratch, shape, keep),
    }
}

/// Rows and columns of a matrix of keys.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
}

/// Smaller keys of `left` and `right` to `low`, larger to `high`.
///
/// Not in place: where a key is written to the place it was read from, the
/// compiler may turn the choice into a store that happens only if the keys
/// are out of order (`vpmaskmovq`), which depends on them.
#[inline(always)]
fn exchange(left: &[u64], right: &[u64], low: &mut [u64], high: &mut [u64]) {
    for (((a, b), low), high) in left.iter().zip(right).zip(low).zip(high) {
        *low = *a.min(b);
        *high = *a.max(b);
    }
}

#[inline(never)]
fn oblivious_merge_columns_portable(
    keys: &mut [u64],
    scratch: &mut [u64],
    shape: Shape,
    keep: usize,
) -> usize {
    merge(keys, scratch, shape, keep)
}

/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline(never)]
fn oblivious_merge_columns_avx2(
    keys: &mut [u64],
    scratch: &mut [u64],
    shape: Shape,
    keep: usize,
) -> usize {
    merge(keys, scratch, shape, keep)
}

#[inline(always)]
fn merge(keys: &mut [u64], scratch: &mut [u64], shape: Shape, keep: usize) -> usize {
    let Shape {
        mut rows,
        mut columns,
    } = shape;
    // Every step reads one buffer and writes the other.
    let (mut from, mut to) = (keys, scratch);
    let mut in_keys = true;
    while columns > 1 {
        let half = columns / 2;
        let grow = rows < keep;
        for i in 0..rows {
            // Ascending left columns against descending right columns: the
            // minima are the smaller half of both, and bitonic.
            let left = &from[i * columns..][..half];
            let right = &from[(rows - 1 - i) * columns + half..][..half];
            let low = &mut to[i * half..][..half];
            for ((low, left), right) in low.iter_mut().zip(left).zip(right) {
                *low = *left.min(right);
            }
            if grow {
                let high = &mut to[(rows + i) * half..][..half];
                for ((high, left), right) in high.iter_mut().zip(left).zip(right) {
                    *high = *left.max(right);
                }
            }
        }
        std::mem::swap(&mut from, &mut to);
        in_keys = !in_keys;
        columns = half;
        // One bitonic sequence of `rows` keys a column, or two.
        let used = rows * columns * if grow { 2 } else { 1 };
        let mut distance = rows / 2;
        while distance >= 1 {
            // Rows are contiguous, so a run of `distance` rows is one slice.
            let span = distance * columns;
            let pairs = from[..used].chunks_exact(2 * span);
            for (from, to) in pairs.zip(to[..used].chunks_exact_mut(2 * span)) {
                let (left, right) = from.split_at(span);
                let (low, high) = to.split_at_mut(span);
                exchange(left, right, low, high);
            }
            std::mem::swap(&mut from, &mut to);
            in_keys = !in_keys;
            distance /= 2;
        }
        if grow {
            rows *= 2;
        }
    }
    if !in_keys {
        to[..rows * columns].copy_from_slice(&from[..rows * columns]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_keys_come_out_in_order() {
        let mut state = 1u64;
        for (rows, columns, keep) in [
            (1, 1, 1),
            (1, 2, 1),
            (4, 1, 8),
            (4, 2, 4),
            (4, 32, 128),
            (8, 1024, 128),
            (16, 64, 4096),
            (8, 16, 1024),
            (1, 4096, 4096),
            (128, 4, 128),
        ] {
            let mut keys = vec![0u64; rows * columns];
            for column in 0..columns {
                let mut values: Vec<u64> = (0..rows)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(99);
                        // High bit set now and then: keys are unsigned.
                        state ^ (state >> 29)
                    })
                    .collect();
                values.sort_unstable();
                for (row, value) in values.into_iter().enumerate() {
                    keys[row * columns + column] = value;
                }
            }
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            for arch in Arch::available() {
                let mut work = keys.clone();
                let mut scratch = vec![0; keys.len()];
                let found = merge_columns(arch, &mut work, &mut scratch, rows, columns, keep);
                assert_eq!(found, keep.min(rows * columns));
                assert_eq!(work[..found], sorted[..found], "{}", arch.name());
            }
        }
    }
}
