//! Inverted files: vectors in lists around coarse centroids, of which a search
//! looks at the nearest few only.
//!
//! Codes are of the vectors themselves, not of residuals, so that one table
//! serves all lists. All lists have the same number of places; fillers make
//! up what is missing, and masks leave them out.
//!
//! # Security
//! **Probing gives away what the full scan hides.** The numbers of the lists
//! that a query probes are the neighbourhood that it falls into. Who learns
//! them, for every query:
//! - the searcher, which is told;
//! - the host, which sees the addresses or pages that a scan touches, and
//!   could also tell that two queries are close, or follow how often which
//!   list is asked for;
//! - not the network: a request is as long for any lists.
//!
//! What stays hidden: within the probed lists, which vectors score well and
//! how; how many vectors a list really has (all are of equal length); and, as
//! long as always the same number of lists is probed, nothing in time or
//! length. A host that knows what lies in a list, because it may insert or
//! knows some vectors, learns what a query is about. Off unless chosen.

use crate::error::{check_finite, check_rows};
use crate::kmeans::{self, Job};
use crate::metric::dot;
use crate::train::{in_pool, sample};
use crate::{BlockedCodes, Metric, Progress, QuantError};
use aligned_vec::{AVec, ConstAlign};
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign, products};
use oboro_simd::scan::BLOCK;
use rayon::prelude::*;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroize;

/// The most lists.
pub const MAX_LISTS: usize = 1 << 16;

/// Rows that a thread works on at a time.
const ROWS: usize = 1024;

/// Lists that a vector may come into when nearer ones are full, before any
/// with room will do.
const CHOICES: usize = 8;

/// How coarse centroids are trained.
#[derive(Clone)]
pub struct CoarseOptions {
    /// Number of lists.
    pub lists: usize,
    /// Most rounds of Lloyd's algorithm.
    pub iterations: usize,
    /// Vectors to train on, drawn without replacement; `None` for 64 a list.
    pub sample: Option<usize>,
    /// What everything random is derived from.
    pub seed: [u8; 32],
    /// Size of the thread pool; 0 for the current one. The centroids are the
    /// same for any.
    pub threads: usize,
    /// Set it to stop.
    pub cancel: Arc<AtomicBool>,
    /// Hears of progress.
    pub progress: Option<Progress>,
}

impl CoarseOptions {
    /// The usual options: 10 rounds on 64 vectors a list.
    #[must_use]
    pub fn new(lists: usize, seed: [u8; 32]) -> Self {
        Self {
            lists,
            iterations: 10,
            sample: None,
            seed,
            threads: 0,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

/// The centres of lists.
///
/// # Security
/// They tell where vectors lie. For owner and clients only; wiped when
/// dropped.
pub struct CoarseCentroids {
    /// `[list][dimension]`
    values: Vec<f32>,
    dimension: usize,
}

impl Drop for CoarseCentroids {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl CoarseCentroids {
    /// Learns centroids from rows of `dimension` values, already prepared for
    /// the metric.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, there are no lists,
    /// too many, or more than vectors, or the caller cancels.
    pub fn train(
        vectors: &[f32],
        dimension: usize,
        options: &CoarseOptions,
    ) -> Result<Self, QuantError> {
        let rows = check_rows(vectors, dimension)?;
        let lists = options.lists;
        check_lists(lists)?;
        let wanted = options.sample.unwrap_or(64 * lists).min(rows);
        if wanted < lists {
            return Err(QuantError::TooFewVectors {
                vectors: wanted,
                centroids: lists,
            });
        }
        check_finite(vectors, dimension)?;
        let mut points: Vec<f32> = sample(rows, wanted, options.seed)
            .into_iter()
            .flat_map(|row| &vectors[row as usize * dimension..][..dimension])
            .copied()
            .collect();
        let done = AtomicU64::new(0);
        let total = options.iterations as u64 + 1;
        let step = |count: u64| {
            let done = done.fetch_add(count, Ordering::Relaxed) + count;
            if let Some(progress) = &options.progress {
                progress(done, total);
            }
        };
        let values = in_pool(options.threads, || {
            kmeans::train(&Job {
                points: &points,
                width: dimension,
                centroids: lists,
                iterations: options.iterations,
                seed: options.seed,
                stream: 1,
                cancel: &options.cancel,
                step: &step,
            })
        });
        points.zeroize();
        Ok(Self {
            values: values?,
            dimension,
        })
    }

    /// Centroids that were learned before, row after row.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, or there are none or
    /// too many.
    pub fn from_values(values: Vec<f32>, dimension: usize) -> Result<Self, QuantError> {
        check_lists(check_rows(&values, dimension)?)?;
        check_finite(&values, dimension)?;
        Ok(Self { values, dimension })
    }

    /// Number of lists.
    #[must_use]
    pub const fn lists(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Values of a vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// The centroids, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The list of the nearest centroid of every vector. For vectors that come
    /// later, where lists have room to grow; see [`Self::assign_balanced`].
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite.
    pub fn assign(&self, vectors: &[f32]) -> Result<Vec<u32>, QuantError> {
        let rows = check_rows(vectors, self.dimension)?;
        check_finite(vectors, self.dimension)?;
        let table = self.transposed();
        let mut indexes = vec![0u32; rows];
        indexes
            .par_chunks_mut(ROWS)
            .zip(vectors.par_chunks(ROWS * self.dimension))
            .for_each(|(indexes, vectors)| {
                let mut values = [0f32; ROWS];
                let values = &mut values[..indexes.len()];
                let width = self.dimension;
                assign(Arch::detect(), vectors, width, &table, indexes, values);
            });
        Ok(indexes)
    }

    /// A list for every vector such that none has more than
    /// `slack * vectors / lists`, rounded up to whole blocks: what lists are
    /// padded to. With a slack of 1 padding is least and more vectors lie in a
    /// list that is not their nearest.
    ///
    /// A full list keeps the vectors nearest to its centroid, the others go to
    /// the nearest of their next choices that takes them (Gale and Shapley's
    /// deferred acceptance); so the result does not depend on the order, but
    /// for ties.
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite, or the slack is
    /// below 1.
    pub fn assign_balanced(&self, vectors: &[f32], slack: f64) -> Result<Vec<u32>, QuantError> {
        let mut choices = self.choices();
        choices.add(self, vectors)?;
        choices.balanced_by(slack, |vector| {
            let row = &vectors[vector * self.dimension..][..self.dimension];
            self.nearest_lists(row, self.lists())
                .into_iter()
                .map(|(_, list)| list)
                .collect()
        })
    }

    /// The same for vectors that come in parts and are not kept: [`Choices::add`] takes
    /// them in, [`Choices::balanced`] gives the lists.
    #[must_use]
    pub fn choices(&self) -> Choices {
        Choices {
            lists: self.lists(),
            near: Vec::new(),
        }
    }

    /// For each vector the nearest `choices` lists, nearest first, each with
    /// the bits of its squared distance, which order as the distance does.
    fn nearest_lists(&self, vectors: &[f32], choices: usize) -> Vec<(u32, u32)> {
        let rows = vectors.len() / self.dimension;
        let lists = self.lists();
        let padded = lists.next_multiple_of(16);
        let table = self.transposed();
        // Values of a chunk for all lists stay in the second-level cache.
        let chunk = ((1 << 18) / padded).clamp(1, ROWS);
        let mut near = vec![(0u32, 0u32); rows * choices];
        near.par_chunks_mut(chunk * choices)
            .zip(vectors.par_chunks(chunk * self.dimension))
            .for_each(|(near, vectors)| {
                let mut values = vec![0f32; vectors.len() / self.dimension * padded];
                products(Arch::detect(), vectors, &table, &mut values);
                for ((near, row), values) in near
                    .chunks_exact_mut(choices)
                    .zip(vectors.chunks_exact(self.dimension))
                    .zip(values.chunks_exact(padded))
                {
                    let norm = dot(row, row);
                    let key = |list: usize| {
                        let distance = (2.0 * values[list] + norm).max(0.0);
                        (distance.to_bits(), list as u32)
                    };
                    let mut kept: Vec<(u32, u32)> = (0..lists).map(key).collect();
                    if choices < lists {
                        kept.select_nth_unstable(choices);
                        kept.truncate(choices);
                    }
                    kept.sort_unstable();
                    near.copy_from_slice(&kept);
                }
            });
        near
    }

    /// The `probes` lists to search for a prepared query, most similar
    /// centroid first.
    ///
    /// # Errors
    /// When the query has another dimension, or there are not that many lists.
    ///
    /// # Security
    /// The result tells the query's neighbourhood; see the [module](self).
    pub fn probes(
        &self,
        query: &[f32],
        metric: Metric,
        probes: usize,
    ) -> Result<Vec<u32>, QuantError> {
        if query.len() != self.dimension {
            return Err(QuantError::Mismatch {
                what: "the dimension of the query",
                actual: query.len(),
                expected: self.dimension,
            });
        }
        if probes == 0 || probes > self.lists() {
            return Err(QuantError::OutOfRange {
                what: "the number of lists to probe",
                actual: probes,
                minimum: 1,
                maximum: self.lists(),
            });
        }
        let mut order: Vec<(f32, u32)> = self
            .values
            .chunks_exact(self.dimension)
            .zip(0..)
            .map(|(c, list)| {
                let offset = if metric.has_offsets() {
                    dot(c, c) / 2.0
                } else {
                    0.0
                };
                (offset - dot(query, c), list)
            })
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(order[..probes].iter().map(|&(_, list)| list).collect())
    }

    fn transposed(&self) -> Transposed {
        Transposed::with_half_norms(&self.values, self.lists(), self.dimension, self.dimension)
    }
}

/// The lists nearest to vectors, from which each gets one.
///
/// # Security
/// It tells where vectors lie; wiped when dropped.
pub struct Choices {
    lists: usize,
    /// For every vector its choices, nearest first, each with the bits of its squared
    /// distance.
    near: Vec<(u32, u32)>,
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.near.zeroize();
    }
}

impl Choices {
    fn each(&self) -> usize {
        CHOICES.min(self.lists)
    }

    /// Takes in vectors, row after row, after those that came before.
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite, or the centroids are
    /// others.
    pub fn add(&mut self, centroids: &CoarseCentroids, vectors: &[f32]) -> Result<(), QuantError> {
        check_rows(vectors, centroids.dimension)?;
        check_finite(vectors, centroids.dimension)?;
        if centroids.lists() != self.lists {
            return Err(QuantError::Mismatch {
                what: "the number of lists",
                actual: centroids.lists(),
                expected: self.lists,
            });
        }
        self.near
            .extend(centroids.nearest_lists(vectors, self.each()));
        Ok(())
    }

    /// A list for every vector, as [`CoarseCentroids::assign_balanced`] gives it; but
    /// those that none of their choices takes come into the first lists with room, for
    /// the vectors are no longer there to be compared.
    ///
    /// # Errors
    /// When the slack is below 1.
    pub fn balanced(&self, slack: f64) -> Result<Vec<u32>, QuantError> {
        let lists = self.lists as u32;
        self.balanced_by(slack, |_| (0..lists).collect())
    }

    /// `order` gives all lists for a vector that no choice takes, best first.
    fn balanced_by(
        &self,
        slack: f64,
        order: impl Fn(usize) -> Vec<u32>,
    ) -> Result<Vec<u32>, QuantError> {
        if slack.is_nan() || slack < 1.0 {
            return Err(QuantError::OutOfRange {
                what: "the slack of lists, in percent",
                actual: (slack * 100.0) as usize,
                minimum: 100,
                maximum: 100 * self.lists,
            });
        }
        let (lists, choices) = (self.lists, self.each());
        let rows = self.near.len() / choices;
        let capacity = (slack * rows as f64 / lists as f64).ceil() as usize;
        // No more than there are, however large the slack.
        let capacity = capacity.clamp(rows.div_ceil(lists), rows);
        let capacity = capacity.next_multiple_of(BLOCK);
        let mut full: Vec<BinaryHeap<(u32, u32)>> = vec![BinaryHeap::new(); lists];
        let mut asked = vec![0u8; rows];
        let mut homeless = Vec::new();
        for vector in 0..rows {
            let mut seeking = vector;
            loop {
                let choice = usize::from(asked[seeking]);
                if choice == choices {
                    homeless.push(seeking);
                    break;
                }
                asked[seeking] += 1;
                let (distance, list) = self.near[seeking * choices + choice];
                let list = &mut full[list as usize];
                list.push((distance, seeking as u32));
                if list.len() <= capacity {
                    break;
                }
                match list.pop() {
                    Some((_, farthest)) => seeking = farthest as usize,
                    None => break,
                }
            }
        }
        let mut lists_of = vec![0u32; rows];
        for (list, members) in full.iter().enumerate() {
            for &(_, vector) in members {
                lists_of[vector as usize] = list as u32;
            }
        }
        let mut counts: Vec<usize> = full.iter().map(BinaryHeap::len).collect();
        homeless.sort_unstable();
        for vector in homeless {
            // All lists together have room for all vectors.
            let all = order(vector);
            if let Some(&list) = all.iter().find(|&&list| counts[list as usize] < capacity) {
                counts[list as usize] += 1;
                lists_of[vector] = list;
            }
        }
        Ok(lists_of)
    }
}

/// Which vector lies in which place of which list.
#[derive(Clone)]
pub struct IvfLists {
    lists: usize,
    /// Blocks of each.
    blocks: usize,
    vectors: usize,
    /// The vector in each place; [`FILLER`] where none is.
    places: Vec<u32>,
    /// A word a block: ones where a vector is.
    mask: Vec<u64>,
}

/// Where a query is searched.
#[derive(Clone, Copy)]
pub struct Probed<'a> {
    /// How the codes are laid out.
    pub lists: &'a IvfLists,
    /// The lists to look at, each once; always as many, whatever the query.
    pub probes: &'a [u32],
    /// Which places may be found, a word for each block of all lists; fillers
    /// never are.
    pub mask: Option<&'a [u64]>,
}

/// Stands for no vector.
const FILLER: u32 = u32::MAX;

impl IvfLists {
    /// Lays vectors out by their lists, in the order in which they come; all
    /// lists as long as the longest, in whole blocks.
    ///
    /// # Errors
    /// When there are no lists or too many, a list is not there, or places
    /// pass 2^32.
    ///
    /// # Security
    /// Shuffle the vectors before: their order within a list is what makes
    /// lanes random.
    pub fn from_assignments(assignments: &[u32], lists: usize) -> Result<Self, QuantError> {
        check_lists(lists)?;
        let mut counts = vec![0usize; lists];
        for &list in assignments {
            match counts.get_mut(list as usize) {
                Some(count) => *count += 1,
                None => return Err(no_such_list(list, lists)),
            }
        }
        let longest = counts.iter().copied().max().unwrap_or(0);
        let blocks = longest.div_ceil(BLOCK).max(1);
        let places = lists * blocks * BLOCK;
        if places > crate::codes::MAX_VECTORS {
            return Err(QuantError::OutOfRange {
                what: "the number of places in lists",
                actual: places,
                minimum: 1,
                maximum: crate::codes::MAX_VECTORS,
            });
        }
        let mut built = Self {
            lists,
            blocks,
            vectors: assignments.len(),
            places: vec![FILLER; places],
            mask: vec![0; lists * blocks],
        };
        let mut used = vec![0usize; lists];
        for (vector, &list) in assignments.iter().enumerate() {
            let used = &mut used[list as usize];
            let place = list as usize * blocks * BLOCK + *used;
            *used += 1;
            built.places[place] = vector as u32;
            built.mask[place / BLOCK] |= 1 << (place % BLOCK);
        }
        Ok(built)
    }

    /// Number of lists.
    #[must_use]
    pub const fn lists(&self) -> usize {
        self.lists
    }

    /// Blocks of 64 places in each list.
    #[must_use]
    pub const fn blocks_per_list(&self) -> usize {
        self.blocks
    }

    /// Places in all lists.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places.len()
    }

    /// The vector in a place; `None` for fillers and places that are not
    /// there.
    #[must_use]
    pub fn vector(&self, place: u32) -> Option<u32> {
        let vector = self.places.get(place as usize).copied();
        vector.filter(|&vector| vector != FILLER)
    }

    /// A word for each block, bit `i` set where place `i` has a vector.
    #[must_use]
    pub fn mask(&self) -> &[u64] {
        &self.mask
    }

    /// Places for each vector, fillers included: 1 when all are used.
    #[must_use]
    pub fn padding(&self) -> f64 {
        self.places() as f64 / self.vectors.max(1) as f64
    }

    /// Rows of codes, `width` bytes a vector, in the order of places; zeros in
    /// fillers.
    ///
    /// # Errors
    /// When `rows` is not a row for each vector.
    pub fn arrange(&self, rows: &[u8], width: usize) -> Result<Vec<u8>, QuantError> {
        if rows.len() != self.vectors * width {
            return Err(QuantError::Mismatch {
                what: "the number of bytes of the codes",
                actual: rows.len(),
                expected: self.vectors * width,
            });
        }
        let mut arranged = vec![0; self.places() * width];
        if width > 0 {
            for (row, &vector) in arranged.chunks_exact_mut(width).zip(&self.places) {
                if vector != FILLER {
                    row.copy_from_slice(&rows[vector as usize * width..][..width]);
                }
            }
        }
        Ok(arranged)
    }

    /// Codes in blocks, in the order of places; zeros in fillers.
    ///
    /// # Errors
    /// When `codes` are not as many as there are vectors.
    pub fn arrange_blocks(&self, codes: &BlockedCodes) -> Result<BlockedCodes, QuantError> {
        if codes.len() != self.vectors {
            return Err(QuantError::Mismatch {
                what: "the number of codes",
                actual: codes.len(),
                expected: self.vectors,
            });
        }
        let (subquantizers, bits) = (codes.subquantizers(), codes.bits());
        // Bytes of a vector; with 4 bits a byte has the codes of two sub-quantizers.
        let width = BlockedCodes::byte_len(BLOCK, subquantizers, bits) / BLOCK;
        let mut arranged = AVec::<u8, ConstAlign<64>>::with_capacity(64, 0);
        arranged.resize(
            BlockedCodes::byte_len(self.places(), subquantizers, bits),
            0,
        );
        for (block, vectors) in arranged
            .chunks_exact_mut(width * BLOCK)
            .zip(self.places.chunks_exact(BLOCK))
        {
            for (i, &vector) in vectors.iter().enumerate() {
                if vector == FILLER {
                    continue;
                }
                let vector = vector as usize;
                let from = &codes.as_bytes()[vector / BLOCK * width * BLOCK..];
                for row in 0..width {
                    block[row * BLOCK + i] = from[row * BLOCK + vector % BLOCK];
                }
            }
        }
        BlockedCodes::from_aligned(arranged, self.places(), subquantizers, bits)
    }

    /// The first block of each list, or the error that one is not there or
    /// named twice.
    pub(crate) fn starts(&self, probes: &[u32]) -> Result<Vec<usize>, QuantError> {
        let mut seen = probes.to_vec();
        seen.sort_unstable();
        if let Some(&list) = seen.last().filter(|&&list| list as usize >= self.lists) {
            return Err(no_such_list(list, self.lists));
        }
        seen.dedup();
        if seen.len() != probes.len() {
            return Err(QuantError::Mismatch {
                what: "the number of different lists to probe",
                actual: seen.len(),
                expected: probes.len(),
            });
        }
        Ok(probes
            .iter()
            .map(|&list| list as usize * self.blocks)
            .collect())
    }
}

fn check_lists(lists: usize) -> Result<(), QuantError> {
    if lists == 0 || lists > MAX_LISTS {
        return Err(QuantError::OutOfRange {
            what: "the number of lists",
            actual: lists,
            minimum: 1,
            maximum: MAX_LISTS,
        });
    }
    Ok(())
}

fn no_such_list(list: u32, lists: usize) -> QuantError {
    QuantError::OutOfRange {
        what: "a list",
        actual: list as usize,
        minimum: 0,
        maximum: lists - 1,
    }
}

#[cfg(test)]
mod tests;
