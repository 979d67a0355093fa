//! One pass over a snapshot: every segment, for all tables that share it.
//!
//! A large segment is worked on by all threads at once. Small ones, as live
//! inserts leave them, would cost more in handing parts around than in work, so
//! each is one thread's, side by side with the others.
//!
//! Where a query looks at some lists only, it shares nothing with the others but the
//! queue: each scans its own lists. Segments that are not laid out in lists it shares.
//!
//! Tables are quantized here and not before, because a sample of the codes that are
//! searched tells their scale.

use std::{cmp::Reverse, collections::HashMap};

use oboro_index::Listed;
use oboro_quant::{
    Candidate, Filter, QuantError, QuantizedTable, Scanner, SelectionPlan, filter::passing,
    ivf::Probed,
};
use oboro_simd::Arch;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{
    merge::{FILLER, Key, merge_keep_best},
    snapshot::Codes,
};

/// Vectors of a block of codes.
const BLOCK: usize = 64;

/// Vectors from which on a segment is divided among the threads.
const DIVIDED: usize = 1 << 16;

/// Small segments whose candidates are in memory at the same time: however many
/// there are, a pass takes no more.
const SIDE_BY_SIDE: usize = 256;

/// Plans kept for different sizes and numbers of candidates.
const MAX_PLANS: usize = 4_096;

/// A query's similarities to all centroids, as the shares of a table add up to.
pub(crate) struct Similarities {
    /// `[m][k]`, larger nearer.
    pub(crate) entries: Zeroizing<Vec<f32>>,
    pub(crate) subquantizers: usize,
    pub(crate) centroids: usize,
}

/// What one search asks of a pass.
pub(crate) struct Asked {
    pub(crate) similarities: Similarities,
    pub(crate) candidates: usize,
    pub(crate) filter: Filter,
    /// The lists to look at, ascending, where the index has lists.
    pub(crate) lists: Vec<u32>,
}

/// Makes passes; keeps what the next one can use again.
pub(crate) struct Pass {
    arch: Arch,
    scanner: Scanner,
    threads: usize,
    /// Segments come and go, their sizes are mostly those of batches.
    plans: HashMap<Over, SelectionPlan>,
}

/// What a plan is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Over {
    /// `candidates` of all vectors of a segment.
    All { vectors: usize, candidates: usize },
    /// `candidates` of some lists of a segment, of so many places each.
    Lists {
        places: usize,
        lists: usize,
        candidates: usize,
    },
    /// The sample at the beginning of a segment of `vectors`, where `candidates` of `total`
    /// are searched.
    Sample {
        vectors: usize,
        candidates: usize,
        total: usize,
    },
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
        let mut similarities = Vec::with_capacity(asked.len());
        let mut filters = Vec::with_capacity(asked.len());
        let mut probes = Vec::with_capacity(asked.len());
        for one in asked {
            assert_eq!(one.candidates, candidates, "one number of candidates");
            similarities.push(one.similarities);
            filters.push(one.filter);
            probes.push(one.lists);
        }
        let tables = self.tables(snapshot, &similarities, &filters, candidates)?;
        drop(similarities);
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
            if let Some(listed) = snapshot.listed(segment) {
                let alive = snapshot.alive_by_place(segment);
                let mut found = Vec::with_capacity(tables.len());
                for ((table, filter), lists) in tables.iter().zip(&filters).zip(&probes) {
                    let each = listed.layout().blocks_per_list() * BLOCK;
                    let look = Look {
                        listed,
                        alive,
                        lists,
                        plan: self.plan(Over::Lists {
                            places: each,
                            lists: lists.len(),
                            candidates,
                        })?,
                        threads: self.threads,
                    };
                    let list = self.lists(&look, table, filter)?;
                    found.push(keys(&list, segment, width));
                }
                merge(found);
                continue;
            }
            let plan = self.plan(Over::All {
                vectors,
                candidates,
            })?;
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

    /// The tables of every search, at the scale that the best of the snapshot ask for.
    pub(crate) fn tables(
        &mut self,
        snapshot: &impl Codes,
        similarities: &[Similarities],
        filters: &[Filter],
        candidates: usize,
    ) -> Result<Vec<QuantizedTable>, QuantError> {
        let lengths = || (0..snapshot.segments()).map(|segment| snapshot.codes(segment).len());
        let total: usize = lengths().sum();
        // The first of the largest: its sample is the largest, too.
        let largest = lengths()
            .enumerate()
            .max_by_key(|&(at, len)| (len, Reverse(at)));
        let Some((segment, vectors @ 1..)) = largest else {
            return similarities
                .iter()
                .map(|s| {
                    QuantizedTable::from_similarities(&s.entries, s.subquantizers, s.centroids)
                })
                .collect();
        };
        let plan = self.plan(Over::Sample {
            vectors,
            candidates,
            total,
        })?;
        let codes = snapshot.codes(segment);
        let words = plan.vectors().div_ceil(BLOCK);
        let alive = snapshot.alive(segment).map(|alive| &alive[..words]);
        let tags = snapshot.tags(segment).map(|tags| &tags[..plan.vectors()]);
        let quantize = |(similarities, filter): (&Similarities, &Filter)| {
            let mask = match tags {
                Some(tags) => {
                    let mut mask = Zeroizing::new(Vec::with_capacity(words));
                    passing(self.arch, tags, alive, filter, &mut mask)?;
                    Some(mask)
                }
                None => None,
            };
            let Similarities {
                entries,
                subquantizers,
                centroids,
            } = similarities;
            let mask = mask.as_ref().map(|mask| mask.as_slice()).or(alive);
            self.scanner
                .quantize(entries, *subquantizers, *centroids, codes, mask, &plan)
        };
        if self.threads > 1 && similarities.len() > 1 {
            (similarities, filters)
                .into_par_iter()
                .map(quantize)
                .collect()
        } else {
            similarities.iter().zip(filters).map(quantize).collect()
        }
    }

    fn plan(&mut self, over: Over) -> Result<SelectionPlan, QuantError> {
        if let Some(plan) = self.plans.get(&over) {
            return Ok(*plan);
        }
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        let plan = match over {
            Over::All {
                vectors,
                candidates,
            } => SelectionPlan::new(vectors, candidates.min(vectors))?,
            Over::Lists {
                places,
                lists,
                candidates,
            } => SelectionPlan::for_lists(places, lists, candidates)?,
            Over::Sample {
                vectors,
                candidates,
                total,
            } => SelectionPlan::for_sample(vectors, candidates, total)?,
        };
        self.plans.insert(over, plan);
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
            .iter()
            .map(|list| keys(list, segment, width))
            .collect())
    }

    /// The best of one query's lists.
    ///
    /// # Security
    /// Which lists are looked at shows in the addresses. How many of a list's vectors are
    /// there, deleted or pass the filter does not: every place of it is looked at.
    fn lists(
        &self,
        look: &Look<'_>,
        table: &QuantizedTable,
        filter: &Filter,
    ) -> Result<Vec<Candidate>, QuantError> {
        let layout = look.listed.layout();
        let blocks = layout.blocks_per_list();
        let mask = match look.listed.tags() {
            None => None,
            Some(tags) => {
                let mut mask = Zeroizing::new(vec![0; layout.lists() * blocks]);
                let mut part = Zeroizing::new(Vec::with_capacity(blocks));
                for &list in look.lists {
                    let words = list as usize * blocks..(list as usize + 1) * blocks;
                    let places = words.start * BLOCK..words.end * BLOCK;
                    let alive = look.alive.map(|alive| &alive[words.clone()]);
                    part.clear();
                    passing(self.arch, &tags[places], alive, filter, &mut part)?;
                    mask[words].copy_from_slice(&part);
                }
                Some(mask)
            }
        };
        let probed = Probed {
            lists: layout,
            probes: look.lists,
            mask: mask.as_ref().map(|mask| mask.as_slice()).or(look.alive),
        };
        let codes = look.listed.codes();
        self.scanner
            .search_lists(codes, &probed, table, &look.plan, look.threads)
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

/// Candidates of one segment as keys, `width` of them.
fn keys(found: &[Candidate], segment: usize, width: usize) -> Vec<Key> {
    let mut keys = Vec::with_capacity(width);
    keys.extend(
        found
            .iter()
            .map(|c| Key::new(c.score, segment as u16, c.position)),
    );
    keys.resize(width, FILLER);
    keys
}

/// The lists that one query looks at in one segment.
struct Look<'a> {
    listed: &'a Listed,
    alive: Option<&'a [u64]>,
    lists: &'a [u32],
    plan: SelectionPlan,
    threads: usize,
}

/// One segment's part of a pass.
struct Work {
    segment: usize,
    plan: SelectionPlan,
    threads: usize,
}
