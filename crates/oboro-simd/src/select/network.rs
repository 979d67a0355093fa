//! Sorting networks over rows held in registers, written once for all widths.

/// Smaller keys of two rows to `$a`, larger to `$b`.
macro_rules! exchange {
    ($list:ident, $(($a:expr, $b:expr)),+) => {
        $(
            let (low, high) = (min($list[$a], $list[$b]), max($list[$a], $list[$b]));
            $list[$a] = low;
            $list[$b] = high;
        )+
    };
}

/// Sorts the rows `$at ..` of a bitonic sequence.
macro_rules! bitonic {
    (4, $list:ident, $at:expr) => {
        exchange!(
            $list,
            ($at, $at + 2),
            ($at + 1, $at + 3),
            ($at, $at + 1),
            ($at + 2, $at + 3)
        );
    };
    (8, $list:ident, $at:expr) => {
        exchange!(
            $list,
            ($at, $at + 4),
            ($at + 1, $at + 5),
            ($at + 2, $at + 6),
            ($at + 3, $at + 7)
        );
        bitonic!(4, $list, $at);
        bitonic!(4, $list, $at + 4);
    };
    (16, $list:ident, $at:expr) => {
        exchange!(
            $list,
            ($at, $at + 8),
            ($at + 1, $at + 9),
            ($at + 2, $at + 10),
            ($at + 3, $at + 11),
            ($at + 4, $at + 12),
            ($at + 5, $at + 13),
            ($at + 6, $at + 14),
            ($at + 7, $at + 15)
        );
        bitonic!(8, $list, $at);
        bitonic!(8, $list, $at + 8);
    };
    (32, $list:ident, $at:expr) => {
        for i in $at..$at + 16 {
            exchange!($list, (i, i + 16));
        }
        bitonic!(16, $list, $at);
        bitonic!(16, $list, $at + 16);
    };
}

/// Sorts rows: the shortest networks known.
macro_rules! sort {
    (4, $list:ident) => {
        exchange!($list, (0, 2), (1, 3), (0, 1), (2, 3), (1, 2));
    };
    (8, $list:ident) => {
        exchange!($list, (0, 2), (1, 3), (4, 6), (5, 7));
        exchange!($list, (0, 4), (1, 5), (2, 6), (3, 7));
        exchange!($list, (0, 1), (2, 3), (4, 5), (6, 7));
        exchange!($list, (2, 4), (3, 5), (1, 4), (3, 6));
        exchange!($list, (1, 2), (3, 4), (5, 6));
    };
}

/// A kernel that merges batches of rows into the best of every lane.
///
/// The module that calls it provides the type `Row` of a register of keys,
/// `LANES`, `min`, `max`, `keys::<HIGH>` to make keys of half the scores of a
/// row, and `load_best::<HIGH>` and `store_best` to go between the order of
/// lanes in memory and that of `keys`.
macro_rules! lane_best_kernel {
    ($(#[$attribute:meta])* $name:ident, $depth:tt, $batch:tt) => {
        $(#[$attribute])*
        #[inline(never)]
        pub(super) fn $name(best: &mut [u32], scores: &[u16], first_row: u32) {
            for part in 0..PARTS {
                let mut halves = [[zero(); $depth]; 2];
                for (i, best) in best.chunks_exact(LANES).enumerate() {
                    [halves[0][i], halves[1][i]] = load_best(&best[part * LANES / PARTS..]);
                }
                let [low, high] = &mut halves;
                merge_half::<false>(low, scores, first_row, part);
                merge_half::<true>(high, scores, first_row, part);
                for (i, best) in best.chunks_exact_mut(LANES).enumerate() {
                    store_best(&mut best[part * LANES / PARTS..], halves[0][i], halves[1][i]);
                }
            }

            $(#[$attribute])*
            #[inline]
            fn merge_half<const HIGH: bool>(
                best: &mut [Row; $depth],
                scores: &[u16],
                first_row: u32,
                part: usize,
            ) {
                let mut list = *best;
                let mut row = first_row;
                for batch in scores.chunks_exact($batch * LANES) {
                    let mut fresh = [zero(); $batch];
                    for (fresh, scores) in fresh.iter_mut().zip(batch.chunks_exact(LANES)) {
                        *fresh = keys::<HIGH>(&scores[part * LANES / PARTS..], row);
                        row += 1;
                    }
                    sort!($batch, fresh);
                    // Ascending against descending: the minima are the best of
                    // both lists and form a bitonic sequence.
                    for i in 0..$batch {
                        list[$depth - 1 - i] = min(list[$depth - 1 - i], fresh[i]);
                    }
                    bitonic!($depth, list, 0);
                }
                *best = list;
            }
        }
    };
}

pub(crate) use {bitonic, exchange};
pub(super) use {lane_best_kernel, sort};
