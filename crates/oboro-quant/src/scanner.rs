//! Scan and selection, group by group.

use crate::ivf::Probed;
use crate::{BlockedCodes, QuantError, QuantizedTable, SelectionPlan};
use oboro_simd::Arch;
use oboro_simd::mask;
use oboro_simd::scan::{self, BLOCK, ROW};
use oboro_simd::select::{self, LANES, NO_SCORE, ROW_BATCH};
use oboro_simd::sort::merge_columns;
use rayon::prelude::*;
use std::sync::Mutex;
use zeroize::Zeroize;

/// One vector that a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// Sum of table entries; smaller is nearer.
    pub score: u16,
    /// Position in the codes.
    pub position: u32,
}

impl Candidate {
    /// What stands in the place of a candidate where fewer vectors pass a mask
    /// than were asked for; real scores are smaller.
    pub const NONE: Self = Self {
        score: NO_SCORE,
        position: u32::MAX,
    };
}

/// The most blocks scanned before their scores are selected from: scores stay
/// in the first-level cache.
const TILE_BLOCKS: usize = 64;

/// The most bytes of codes scanned at a time: they stay in the second-level
/// cache for the next table.
const TILE_BYTES: usize = 256 << 10;

/// Keys of a merge: groups are gathered until this many are there, or eight
/// columns as long as the result.
const GATHERED_KEYS: usize = 8192;

/// Tables that share one pass over the codes.
const TABLES_PER_PASS: usize = 32;

/// Scans codes with tables and selects the best; keeps its buffers.
///
/// # Security
/// For given sizes, instructions and addresses are the same whatever codes and
/// tables hold. The result is written in the clear.
pub struct Scanner {
    arch: Arch,
    idle: Mutex<Vec<Buffers>>,
}

/// What one thread needs; kept between searches.
#[derive(Default)]
struct Buffers {
    scores: Vec<u16>,
    best: Vec<u32>,
    keys: Vec<u64>,
    scratch: Vec<u64>,
    pair: Vec<u64>,
    /// `tables * keep` keys: the best so far of every table.
    found: Vec<u64>,
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.scores.zeroize();
        self.best.zeroize();
        self.keys.zeroize();
        self.scratch.zeroize();
        self.pair.zeroize();
        self.found.zeroize();
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner for this processor.
    #[must_use]
    pub fn new() -> Self {
        Self::with_arch(Arch::detect())
    }

    /// A scanner that uses the given instruction set.
    #[must_use]
    pub const fn with_arch(arch: Arch) -> Self {
        Self {
            arch,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// For every table the plan's number of candidates, by ascending score and
    /// then position.
    ///
    /// All tables share a pass over the codes. `threads` parts of the codes
    /// are worked on at a time, on the caller's thread when 1 and in the
    /// current rayon pool otherwise; 0 means as many as that pool has. The
    /// result does not depend on it.
    ///
    /// # Errors
    /// When codes, tables and plan do not belong together.
    pub fn search(
        &self,
        codes: &BlockedCodes,
        tables: &[QuantizedTable],
        plan: &SelectionPlan,
        threads: usize,
    ) -> Result<Vec<Vec<Candidate>>, QuantError> {
        self.search_masked(codes, tables, &vec![None; tables.len()], plan, threads)
    }

    /// As [`Self::search`], among those vectors only that a table's mask has:
    /// one word for each block of 64 vectors, bit `i` of it for vector `i`;
    /// `None` for all. [`crate::filter::passing`] makes masks from tags.
    ///
    /// Where fewer vectors pass than the plan asks for, [`Candidate::NONE`]
    /// fills the end of the list.
    ///
    /// # Errors
    /// When codes, tables, masks and plan do not belong together.
    ///
    /// # Security
    /// Which tables have a mask shows; what the masks hold does not. A lane
    /// loses one of the best with the plan's probability if which vectors pass
    /// does not depend on their positions, as it does not once they are
    /// shuffled.
    pub fn search_masked(
        &self,
        codes: &BlockedCodes,
        tables: &[QuantizedTable],
        masks: &[Option<&[u64]>],
        plan: &SelectionPlan,
        threads: usize,
    ) -> Result<Vec<Vec<Candidate>>, QuantError> {
        check(codes, tables, masks, plan)?;
        let scan = Scan {
            runs: Runs {
                codes,
                starts: &[0],
                blocks: codes.blocks(),
                vectors: codes.len(),
            },
            tables,
            masks,
            plan,
        };
        Ok(self.search_runs(&scan, threads))
    }

    /// As [`Self::search_masked`] for one table, in some lists only. Positions
    /// are places: [`crate::ivf::IvfLists::vector`] tells whose.
    ///
    /// # Errors
    /// When codes, lists, table, mask and plan do not belong together, or a
    /// list is not there or named twice.
    ///
    /// # Security
    /// Which lists are probed shows in the addresses, to the host too; see
    /// [`crate::ivf`]. Within them the search is as oblivious as any.
    pub fn search_lists(
        &self,
        codes: &BlockedCodes,
        probed: &Probed<'_>,
        table: &QuantizedTable,
        plan: &SelectionPlan,
        threads: usize,
    ) -> Result<Vec<Candidate>, QuantError> {
        let Probed {
            lists,
            probes,
            mask,
        } = *probed;
        let blocks = lists.blocks_per_list();
        let starts = lists.starts(probes)?;
        if codes.len() != lists.places() {
            return Err(QuantError::Mismatch {
                what: "the number of places that the codes are for",
                actual: codes.len(),
                expected: lists.places(),
            });
        }
        let vectors = starts.len() * blocks * BLOCK;
        check_plan(vectors, plan)?;
        check_tables(codes, std::slice::from_ref(table))?;
        check_mask(codes, mask)?;
        let mut chosen = Vec::with_capacity(starts.len() * blocks);
        for &start in &starts {
            let range = start..start + blocks;
            let own = lists.mask()[range.clone()].iter();
            match mask {
                Some(mask) => chosen.extend(own.zip(&mask[range]).map(|(own, mask)| own & mask)),
                None => chosen.extend(own),
            }
        }
        let scan = Scan {
            runs: Runs {
                codes,
                starts: &starts,
                blocks,
                vectors,
            },
            tables: std::slice::from_ref(table),
            masks: &[Some(&chosen)],
            plan,
        };
        let mut found = self.search_runs(&scan, threads);
        chosen.zeroize();
        let mut found = found.pop().unwrap_or_default();
        oblivious_places(self.arch, &starts, blocks, &mut found);
        Ok(found)
    }

    /// The best of the first `plan.vectors()` vectors; a mask may be of these only.
    pub(crate) fn search_sample(
        &self,
        codes: &BlockedCodes,
        table: &QuantizedTable,
        mask: Option<&[u64]>,
        plan: &SelectionPlan,
    ) -> Result<Vec<Candidate>, QuantError> {
        let blocks = plan.vectors().div_ceil(BLOCK);
        // A sample that ends within a block ends with the codes.
        let whole = plan.vectors().is_multiple_of(BLOCK) && plan.vectors() <= codes.len();
        if !whole && plan.vectors() != codes.len() {
            return Err(QuantError::Mismatch {
                what: "the number of vectors that the sample's plan is for",
                actual: plan.vectors(),
                expected: codes.len(),
            });
        }
        if let Some(mask) = mask
            && mask.len() < blocks
        {
            return Err(QuantError::Mismatch {
                what: "the number of words of a sample's mask",
                actual: mask.len(),
                expected: blocks,
            });
        }
        check_tables(codes, std::slice::from_ref(table))?;
        let scan = Scan {
            runs: Runs {
                codes,
                starts: &[0],
                blocks,
                vectors: plan.vectors(),
            },
            tables: std::slice::from_ref(table),
            masks: &[mask.map(|mask| &mask[..blocks])],
            plan,
        };
        Ok(self.search_runs(&scan, 1).pop().unwrap_or_default())
    }

    fn search_runs(&self, scan: &Scan<'_>, threads: usize) -> Vec<Vec<Candidate>> {
        let plan = scan.plan;
        let threads = match threads {
            0 => rayon::current_num_threads(),
            threads => threads,
        };
        let parts = threads.clamp(1, plan.groups());
        let mut results = Vec::with_capacity(scan.tables.len());
        for (tables, masks) in scan
            .tables
            .chunks(TABLES_PER_PASS)
            .zip(scan.masks.chunks(TABLES_PER_PASS))
        {
            let scan = Scan {
                tables,
                masks,
                ..*scan
            };
            let part = |part: usize| {
                let mut buffers = self.take();
                let groups = part * plan.groups() / parts..(part + 1) * plan.groups() / parts;
                self.scan_groups(&scan, groups, &mut buffers);
                buffers
            };
            let mut done: Vec<Buffers> = if parts == 1 {
                vec![part(0)]
            } else {
                (0..parts).into_par_iter().map(part).collect()
            };
            let (first, others) = done.split_first_mut().expect("there is a part");
            let keep = plan.keep();
            for other in others {
                for (found, more) in first
                    .found
                    .chunks_exact_mut(keep)
                    .zip(other.found.chunks_exact(keep))
                {
                    fold(self.arch, found, more, &mut first.pair, &mut first.scratch);
                }
            }
            for found in first.found.chunks_exact(keep) {
                let mut candidates = vec![Candidate::NONE; plan.candidates()];
                oblivious_candidates(self.arch, &found[..plan.candidates()], &mut candidates);
                results.push(candidates);
            }
            self.idle
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .append(&mut done);
        }
        results
    }

    fn take(&self) -> Buffers {
        let mut idle = self
            .idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.pop().unwrap_or_default()
    }

    /// Leaves the best `keep` keys of every table in `buffers.found`.
    fn scan_groups(&self, scan: &Scan<'_>, groups: std::ops::Range<usize>, buffers: &mut Buffers) {
        let Scan { tables, plan, .. } = scan;
        let (keep, depth) = (plan.keep(), plan.depth());
        let Buffers {
            scores,
            best,
            keys,
            scratch,
            pair,
            found,
        } = buffers;
        found.clear();
        found.resize(tables.len() * keep, u64::MAX);
        best.resize(tables.len() * depth * LANES, 0);
        // As many groups as fill a merge, but no more than there are.
        let gathered = (GATHERED_KEYS.max(8 * keep) / (depth * LANES))
            .max(1)
            .min(groups.len().next_power_of_two());
        let columns = gathered * LANES;
        let matrix = depth * columns;
        keys.resize(tables.len() * matrix, 0);
        scratch.resize(matrix.max(2 * keep), 0);
        pair.resize(2 * keep, 0);

        let mut next = groups.start;
        while next < groups.end {
            let first = next == groups.start;
            let batch = next..(next + gathered).min(groups.end);
            next = batch.end;
            keys[..tables.len() * matrix].fill(u64::MAX);
            for (slot, group) in batch.enumerate() {
                best[..tables.len() * depth * LANES].fill(u32::MAX);
                self.scan_group(scan, group, scores, best);
                let base = group * plan.group_blocks() * BLOCK;
                for (best, keys) in best
                    .chunks_exact(depth * LANES)
                    .zip(keys.chunks_exact_mut(matrix))
                {
                    oblivious_widen_keys(self.arch, best, base as u32, keys, columns, slot);
                }
            }
            for (table, found) in found.chunks_exact_mut(keep).enumerate() {
                let matrix = &mut keys[table * matrix..][..matrix];
                let scratch_part = &mut scratch[..matrix.len()];
                let rows = merge_columns(self.arch, matrix, scratch_part, depth, columns, keep);
                if first {
                    found[..rows].copy_from_slice(&matrix[..rows]);
                } else {
                    fold(self.arch, found, &matrix[..rows], pair, scratch);
                }
            }
        }
    }

    /// Scans one group tile by tile, with all tables, into the lanes' best.
    fn scan_group(&self, scan: &Scan<'_>, group: usize, scores: &mut Vec<u16>, best: &mut [u32]) {
        const BATCH_BLOCKS: usize = ROW_BATCH * ROW / BLOCK;
        let Scan {
            runs,
            tables,
            masks,
            plan,
        } = scan;
        let first = group * plan.group_blocks();
        let end = (first + plan.group_blocks()).min(runs.starts.len() * runs.blocks);
        let codes = runs.codes;
        let block_bytes = codes.block_bytes();
        let tile_blocks = (TILE_BYTES / block_bytes / BATCH_BLOCKS * BATCH_BLOCKS)
            .clamp(BATCH_BLOCKS, TILE_BLOCKS);
        scores.resize(tile_blocks * BLOCK, 0);
        let mut block = first;
        while block < end {
            let (tile, blocks) = runs.tile(block, tile_blocks.min(end - block));
            let padded = blocks.next_multiple_of(BATCH_BLOCKS);
            for ((table, mask), best) in tables
                .iter()
                .zip(*masks)
                .zip(best.chunks_exact_mut(plan.depth() * LANES))
            {
                let (used, missing) = scores[..padded * BLOCK].split_at_mut(blocks * BLOCK);
                let entries = table.entries();
                if codes.bits() == 8 {
                    scan::scan8(self.arch, tile, codes.subquantizers(), entries, used);
                } else {
                    let pairs = codes.subquantizers().div_ceil(2);
                    scan::scan4(self.arch, tile, pairs, entries, used);
                }
                if let Some(mask) = mask {
                    mask::hide(self.arch, &mask[block..block + blocks], used);
                }
                missing.fill(NO_SCORE);
                hide_padding(used, runs.vectors - block * BLOCK);
                let scores = &scores[..padded * BLOCK];
                select::lane_best(
                    self.arch,
                    plan.depth(),
                    best,
                    scores,
                    (block - first) * BLOCK / ROW,
                );
            }
            block += blocks;
        }
    }
}

/// What is scanned with what.
struct Scan<'a> {
    runs: Runs<'a>,
    tables: &'a [QuantizedTable],
    /// For each table a word a block of the runs.
    masks: &'a [Option<&'a [u64]>],
    plan: &'a SelectionPlan,
}

/// Blocks that are scanned as if they lay one after the other: runs of the
/// same number of blocks.
#[derive(Clone, Copy)]
struct Runs<'a> {
    codes: &'a BlockedCodes,
    /// The first block of each.
    starts: &'a [usize],
    /// Blocks of each.
    blocks: usize,
    /// Vectors of all.
    vectors: usize,
}

impl Runs<'_> {
    /// The codes from `block` on, at most to the end of its run, and how many
    /// blocks they are.
    fn tile(&self, block: usize, most: usize) -> (&[u8], usize) {
        let (run, inside) = (block / self.blocks, block % self.blocks);
        let blocks = most.min(self.blocks - inside);
        let first = self.starts[run] + inside;
        (self.codes.block_range(first, blocks), blocks)
    }
}

fn check(
    codes: &BlockedCodes,
    tables: &[QuantizedTable],
    masks: &[Option<&[u64]>],
    plan: &SelectionPlan,
) -> Result<(), QuantError> {
    if masks.len() != tables.len() {
        return Err(QuantError::Mismatch {
            what: "the number of masks",
            actual: masks.len(),
            expected: tables.len(),
        });
    }
    for mask in masks {
        check_mask(codes, *mask)?;
    }
    check_plan(codes.len(), plan)?;
    check_tables(codes, tables)
}

fn check_mask(codes: &BlockedCodes, mask: Option<&[u64]>) -> Result<(), QuantError> {
    match mask {
        Some(mask) if mask.len() != codes.blocks() => Err(QuantError::Mismatch {
            what: "the number of words of a mask",
            actual: mask.len(),
            expected: codes.blocks(),
        }),
        _ => Ok(()),
    }
}

fn check_plan(vectors: usize, plan: &SelectionPlan) -> Result<(), QuantError> {
    if vectors == plan.vectors() {
        return Ok(());
    }
    Err(QuantError::Mismatch {
        what: "the number of vectors that the plan is for",
        actual: plan.vectors(),
        expected: vectors,
    })
}

fn check_tables(codes: &BlockedCodes, tables: &[QuantizedTable]) -> Result<(), QuantError> {
    for table in tables {
        if table.subquantizers() != codes.subquantizers() {
            return Err(QuantError::Mismatch {
                what: "the number of sub-quantizers of a table",
                actual: table.subquantizers(),
                expected: codes.subquantizers(),
            });
        }
        if table.bits() != codes.bits() {
            return Err(QuantError::Mismatch {
                what: "the number of bits of a table's codes",
                actual: table.bits(),
                expected: codes.bits(),
            });
        }
    }
    Ok(())
}

/// Marks positions from `vectors` on, which only the last block has.
fn hide_padding(scores: &mut [u16], vectors: usize) {
    if vectors >= scores.len() {
        return;
    }
    let first = vectors / BLOCK * BLOCK;
    for row in first / ROW..scores.len() / ROW {
        for lane in 0..ROW {
            if scan::position(row, lane) >= vectors {
                scores[row * ROW + lane] = NO_SCORE;
            }
        }
    }
}

/// Merges a sorted list of at most `found.len()` keys into `found`; `pair` and
/// `scratch` have room for twice as many.
fn fold(arch: Arch, found: &mut [u64], more: &[u64], pair: &mut [u64], scratch: &mut [u64]) {
    let keep = found.len();
    let pair = &mut pair[..2 * keep];
    interleave(pair, found, more);
    merge_columns(arch, pair, &mut scratch[..2 * keep], keep, 2, keep);
    found.copy_from_slice(&pair[..keep]);
}

fn interleave(pair: &mut [u64], left: &[u64], right: &[u64]) {
    for (i, pair) in pair.chunks_exact_mut(2).enumerate() {
        pair[0] = left[i];
        pair[1] = right.get(i).copied().unwrap_or(u64::MAX);
    }
}

/// Lanes' keys of 16 + 16 bits to keys of score and position, into the 32
/// columns of `slot`.
#[inline(never)]
fn oblivious_widen_keys(
    arch: Arch,
    best: &[u32],
    base: u32,
    keys: &mut [u64],
    columns: usize,
    slot: usize,
) {
    arch.vectorize(
        #[inline(always)]
        || {
            for (best, keys) in best.chunks_exact(LANES).zip(keys.chunks_exact_mut(columns)) {
                for (lane, (key, &entry)) in keys[slot * LANES..][..LANES]
                    .iter_mut()
                    .zip(best)
                    .enumerate()
                {
                    // `scan::position` written for a secret row: shifts only.
                    let row = entry & 0xffff;
                    let position = (row >> 1) * BLOCK as u32 + 2 * lane as u32 + (row & 1);
                    *key = u64::from(entry >> 16) << 32 | u64::from(base.wrapping_add(position));
                }
            }
        },
    );
}

/// Keys to candidates; those without a score get no position either.
#[inline(never)]
fn oblivious_candidates(arch: Arch, keys: &[u64], candidates: &mut [Candidate]) {
    arch.vectorize(
        #[inline(always)]
        || {
            for (candidate, &key) in candidates.iter_mut().zip(keys) {
                let score = key >> 32;
                // All ones where the score, plus one, passes 16 bits.
                let missing = ((score + 1) >> 16).wrapping_neg();
                candidate.score = score as u16;
                candidate.position = (key | missing) as u32;
            }
        },
    );
}

/// Positions in runs to places in the codes. Every candidate is compared with
/// the end of every run; those without a score stay as they are.
#[inline(never)]
fn oblivious_places(arch: Arch, starts: &[usize], blocks: usize, candidates: &mut [Candidate]) {
    arch.vectorize(
        #[inline(always)]
        || {
            let length = (blocks * BLOCK) as u64;
            for candidate in candidates.iter_mut() {
                let position = u64::from(candidate.position);
                let mut place = position;
                for (run, &start) in starts.iter().enumerate() {
                    let first = run as u64 * length;
                    // Ones where the position lies in this run: the sign of
                    // one difference, and not that of the other.
                    let inside =
                        !position.wrapping_sub(first) & position.wrapping_sub(first + length);
                    let inside = (inside >> 63).wrapping_neg();
                    let shifted = position
                        .wrapping_sub(first)
                        .wrapping_add((start * BLOCK) as u64);
                    place ^= (place ^ shifted) & inside;
                }
                candidate.position = place as u32;
            }
        },
    );
}

#[cfg(test)]
mod tests;
