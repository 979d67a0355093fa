//! One pass over a snapshot: every segment, for all tables that share it.
//!
//! A large segment is worked on by all threads at once. Small ones, as live
//! inserts leave them, would cost more in handing parts around than in work, so
//! each is one thread's, side by side with the others.

use std::collections::HashMap;

use oboro_quant::{Filter, QuantError, QuantizedTable, Scanner, SelectionPlan, filter::passing};
use oboro_simd::Arch;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{
    merge::{FILLER, Key, merge_keep_best},
    snapshot::Codes,
};

/// Vectors from which on a segment is divided among the threads.
const DIVIDED: usize = 1 << 16;

/// Small segments whose candidates are in memory at the same time: however many
/// there are, a pass takes no more.
const SIDE_BY_SIDE: usize = 256;

/// Plans kept for different sizes and numbers of candidates.
const MAX_PLANS: usize = 4_096;

/// What one search asks of a pass.
pub(crate) struct Asked {
    pub(crate) table: QuantizedTable,
    pub(crate) candidates: usize,
    pub(crate) filter: Filter,
}

/// Makes passes; keeps what the next one can use again.
pub(crate) struct Pass {
    arch: Arch,
    scanner: Scanner,
    threads: usize,
    /// By vectors of a segment and candidates: segments come and go, their
    /// sizes are mostly those of batches.
    plans: HashMap<(usize, usize), SelectionPlan>,
}

impl Pass {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            arch: Arch::detect(),
            scanner: Scanner::new(),
            threads,
            plans: HashMap::new(),
        }
    }

    /// The candidates of every search, ascending, as many as they all ask for:
    /// what is missing follows at the end.
    ///
    /// # Panics
    /// When they do not ask for the same number.
    pub(crate) fn run(
        &mut self,
        snapshot: &impl Codes,
        asked: Vec<Asked>,
    ) -> Result<Vec<Vec<Key>>, QuantError> {
        let Some(first) = asked.first() else {
            return Ok(Vec::new());
        };
        let candidates = first.candidates;
        let mut tables = Vec::with_capacity(asked.len());
        let mut filters = Vec::with_capacity(asked.len());
        for one in asked {
            assert_eq!(one.candidates, candidates, "one number of candidates");
            tables.push(one.table);
            filters.push(one.filter);
        }
        let width = candidates.next_power_of_two();
        let mut best = vec![vec![FILLER; width]; tables.len()];
        let mut merge = |found: Vec<Vec<Key>>| {
            for (kept, offered) in best.iter_mut().zip(found) {
                merge_keep_best(kept, &offered);
            }
        };

        let mut small = Vec::new();
        for segment in 0..snapshot.segments() {
            let vectors = snapshot.codes(segment).len();
            if vectors == 0 {
                continue;
            }
            let plan = self.plan(vectors, candidates)?;
            if self.threads > 1 && vectors < DIVIDED {
                small.push((segment, plan));
                continue;
            }
            let work = Work {
                segment,
                plan,
                threads: self.threads,
            };
            merge(self.segment(snapshot, &tables, &filters, width, work)?);
        }
        for part in small.chunks(SIDE_BY_SIDE) {
            let found: Vec<Vec<Vec<Key>>> = part
                .par_iter()
                .map(|&(segment, plan)| {
                    let work = Work {
                        segment,
                        plan,
                        threads: 1,
                    };
                    self.segment(snapshot, &tables, &filters, width, work)
                })
                .collect::<Result<_, _>>()?;
            found.into_iter().for_each(&mut merge);
        }
        for keys in &mut best {
            keys.truncate(candidates);
        }
        Ok(best)
    }

    fn plan(&mut self, vectors: usize, candidates: usize) -> Result<SelectionPlan, QuantError> {
        if let Some(plan) = self.plans.get(&(vectors, candidates)) {
            return Ok(*plan);
        }
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        let plan = SelectionPlan::new(vectors, candidates.min(vectors))?;
        self.plans.insert((vectors, candidates), plan);
        Ok(plan)
    }

    /// The best of one segment for every table, each in `width` keys.
    fn segment(
        &self,
        snapshot: &impl Codes,
        tables: &[QuantizedTable],
        filters: &[Filter],
        width: usize,
        work: Work,
    ) -> Result<Vec<Vec<Key>>, QuantError> {
        let Work {
            segment,
            plan,
            threads,
        } = work;
        let codes = snapshot.codes(segment);
        let alive = snapshot.alive(segment);
        let masks = match snapshot.tags(segment) {
            Some(tags) => Some(self.masks(tags, alive, filters, threads)?),
            None => None,
        };
        let masks: Vec<Option<&[u64]>> = match &masks {
            Some(masks) => masks.iter().map(|mask| Some(mask.as_slice())).collect(),
            None => vec![alive; tables.len()],
        };
        let found = self
            .scanner
            .search_masked(codes, tables, &masks, &plan, threads)?;
        Ok(found
            .into_iter()
            .map(|list| {
                let mut keys = Vec::with_capacity(width);
                keys.extend(
                    list.iter()
                        .map(|c| Key::new(c.score, segment as u16, c.position)),
                );
                keys.resize(width, FILLER);
                keys
            })
            .collect())
    }

    /// For every search, which vectors of a segment may be candidates.
    ///
    /// # Security
    /// Also for a search without a filter: it takes as long as any other. Which
    /// vectors pass says what was asked for, so it is wiped like the tables.
    fn masks(
        &self,
        tags: &[u64],
        alive: Option<&[u64]>,
        filters: &[Filter],
        threads: usize,
    ) -> Result<Vec<Zeroizing<Vec<u64>>>, QuantError> {
        let mask = |filter: &Filter| {
            let mut mask = Zeroizing::new(Vec::with_capacity(tags.len().div_ceil(64)));
            passing(self.arch, tags, alive, filter, &mut mask)?;
            Ok(mask)
        };
        if threads > 1 {
            filters.par_iter().map(mask).collect()
        } else {
            filters.iter().map(mask).collect()
        }
    }
}

/// One segment's part of a pass.
struct Work {
    segment: usize,
    plan: SelectionPlan,
    threads: usize,
}
