//! Trial queries: the finished codes searched through the encrypted path.
//!
//! The build does not know the keeper's secret key, so it makes a key of its
//! own of the same parameter set, encrypts the codebook under it, and plays
//! client, searcher and keeper. Packing, scale, noise and codes are the same
//! as in the index; only the key differs.

use oboro_ckks::{
    EncryptedCodebook, MaskedDecryptor, Packing, QueryEncryptor, SecretKey, TableEvaluator,
    TableScale,
};
use oboro_index::QueryModel;
use oboro_quant::ivf::{IvfLists, Probed};
use oboro_quant::{
    BlockedCodes, Codebook, Metric, QuantizedTable, Scanner, SelectionPlan, TableTerms,
};
use rand_core::CryptoRng;

use crate::{BuildOptions, OwnerError, Stage};

/// A decoded entry may be off by this many standard deviations: over a million
/// entries, ten are passed with probability below 10^-17.
const DEVIATIONS: f64 = 10.0;

/// What the trial queries showed. They are vectors of the index; a query does
/// not count itself among its neighbours.
#[derive(Clone, Debug)]
pub struct TrialReport {
    /// How many there were.
    pub queries: usize,
    /// Candidates that recall after re-ranking is measured at.
    pub candidates: usize,
    /// Largest error of a decrypted table entry against plain arithmetic.
    pub table_error: f64,
    /// The error that must not be passed.
    pub table_error_bound: f64,
    /// 10-recall@10 after exact re-ranking of the candidates. Of vectors that are [as
    /// near](crate::as_near) as the tenth, one is as right as another. `None` where nothing
    /// was to be found: of a single vector, or of so many equal ones that they say nothing.
    pub recall_10_at_10: Option<f64>,
    /// 10-recall@10 without re-ranking.
    pub recall_10_at_10_unranked: Option<f64>,
    /// 10-recall@10 after re-ranking, where each query looks at as many lists as it may;
    /// `None` also without lists.
    pub recall_in_lists: Option<f64>,
}

/// The parts of an index that a trial searches.
pub(crate) struct Subject<'a> {
    pub(crate) codebook: &'a Codebook,
    pub(crate) terms: &'a TableTerms,
    pub(crate) metric: Metric,
    pub(crate) packing: Packing,
    pub(crate) scale: TableScale,
    pub(crate) codes: &'a BlockedCodes,
    /// The lists, if there are any.
    pub(crate) lists: Option<Lists<'a>>,
}

/// Lists as queries look at them.
pub(crate) struct Lists<'a> {
    query: &'a QueryModel,
    probes: usize,
    /// `None` where the vectors are too few for lists: then a search looks at all.
    laid_out: Option<(IvfLists, BlockedCodes)>,
}

impl<'a> Lists<'a> {
    pub(crate) fn of(
        query: &'a QueryModel,
        codes: &BlockedCodes,
        lists: &[u16],
        probes: u32,
    ) -> Result<Option<Self>, OwnerError> {
        let count = query.lists();
        if count == 0 {
            return Ok(None);
        }
        let laid_out = match lists.len() < count * BLOCK {
            true => None,
            false => {
                let of: Vec<u32> = lists.iter().map(|&list| list.into()).collect();
                let layout = IvfLists::from_assignments(&of, count)?;
                let codes = layout.arrange_blocks(codes)?;
                Some((layout, codes))
            }
        };
        Ok(Some(Self {
            query,
            probes: probes as usize,
            laid_out,
        }))
    }

    /// Places of a list.
    pub(crate) fn places(&self) -> usize {
        let laid_out = self.laid_out.as_ref();
        laid_out.map_or(0, |(layout, _)| layout.blocks_per_list() * BLOCK)
    }

    /// Positions of the candidates of a query; `None` where a search looks at all.
    fn search(
        &self,
        scanner: &Scanner,
        query: &[f32],
        metric: Metric,
        table: &QuantizedTable,
        candidates: usize,
    ) -> Result<Option<Vec<u32>>, OwnerError> {
        let Some((layout, codes)) = &self.laid_out else {
            return Ok(None);
        };
        let probes = self.query.probes(query, metric, self.probes)?;
        let plan = SelectionPlan::for_lists(self.places(), probes.len(), candidates)?;
        let probed = Probed {
            lists: layout,
            probes: &probes,
            mask: None,
        };
        let found = scanner.search_lists(codes, &probed, table, &plan, 0)?;
        let positions = found.iter().filter_map(|c| layout.vector(c.position));
        Ok(Some(positions.collect()))
    }
}

/// Vectors of a block of codes.
const BLOCK: usize = 64;

/// A query as it is after rotation, its own position, and what it should find.
pub(crate) struct TrialQuery {
    pub(crate) prepared: Vec<f32>,
    pub(crate) itself: u32,
    /// True neighbours that count, at most [`NEIGHBOURS`].
    pub(crate) due: usize,
    /// Positions of all vectors that are as near as the last of them, ascending.
    pub(crate) right: Vec<u32>,
}

/// Neighbours that recall counts.
pub(crate) const NEIGHBOURS: usize = 10;

pub(crate) fn run(
    subject: &Subject<'_>,
    queries: &[TrialQuery],
    candidates: usize,
    options: &BuildOptions,
    rng: &mut impl CryptoRng,
) -> Result<TrialReport, OwnerError> {
    let Subject {
        codebook,
        terms,
        metric,
        packing,
        scale,
        codes,
        lists,
    } = subject;
    let secret = SecretKey::generate(packing.set(), rng);
    let public = secret.public_key(rng);
    let encrypted = EncryptedCodebook::encrypt(
        *packing,
        scale,
        &public,
        terms.centroids(),
        terms.offsets(),
        rng,
    )?;
    let encryptor = QueryEncryptor::new(*packing, *scale, public.clone())?;
    let evaluator = TableEvaluator::new(*packing, *scale, public, encrypted)?;
    let decryptor = MaskedDecryptor::new(secret);
    let prepared = decryptor.prepare(*packing, *scale, &evaluator.masks())?;

    // The query itself is found, too, and does not count.
    let plan = SelectionPlan::new(codes.len(), candidates + 1)?;
    let sample = SelectionPlan::for_sample(codes.len(), candidates, codes.len())?;
    let scanner = Scanner::new();
    let mut report = TrialReport {
        queries: queries.len(),
        candidates,
        table_error: 0.0,
        table_error_bound: DEVIATIONS * scale.table_error(),
        recall_10_at_10: None,
        recall_10_at_10_unranked: None,
        recall_in_lists: None,
    };
    let (mut ranked, mut unranked, mut in_lists, mut due) = (0, 0, 0, 0);
    for (done, query) in queries.iter().enumerate() {
        options.check_cancelled()?;
        options.report(Stage::Trial, done as u64, queries.len() as u64);
        let padded = codebook.subspaces().pad(&query.prepared);
        let ciphertext = encryptor.encrypt(&padded, rng)?;
        let zero = evaluator.zero(rng);
        let (share, products) = evaluator.evaluate(&ciphertext, zero)?;
        let answer = decryptor.decrypt(&prepared, &products, rng)?;
        let table = evaluator.unmask(&share, &answer)?;
        let plain = terms.table(&padded)?;
        let error = table
            .iter()
            .zip(&plain)
            .map(|(&got, &expected)| f64::from((got - expected).abs()))
            .fold(0.0, f64::max);
        report.table_error = report.table_error.max(error);
        // Single precision itself is off by some last places of the largest
        // entry.
        let largest = plain
            .iter()
            .fold(0.0_f32, |most, entry| most.max(entry.abs()));
        let allowed = report.table_error_bound + f64::from(largest) * 1e-5;
        if error.is_nan() || error > allowed {
            return Err(OwnerError::TrialFailed {
                error,
                bound: allowed,
            });
        }
        let quantized = scanner.quantize(
            &table,
            packing.subquantizers(),
            packing.centroids(),
            codes,
            None,
            &sample,
        )?;
        let found = scanner.search(codes, std::slice::from_ref(&quantized), &plan, 0)?;
        let positions: Vec<u32> = found[0]
            .iter()
            .map(|candidate| candidate.position)
            .filter(|&position| position != query.itself)
            .take(candidates)
            .collect();
        // Exact re-ranking brings every true neighbour among the candidates
        // to its place, so it is enough to count those.
        let hits = |among: &[u32]| {
            let right = among
                .iter()
                .filter(|p| query.right.binary_search(p).is_ok());
            right.count().min(query.due)
        };
        ranked += hits(&positions);
        unranked += hits(&positions[..positions.len().min(NEIGHBOURS)]);
        if let Some(lists) = lists {
            let found = lists.search(
                &scanner,
                &query.prepared,
                *metric,
                &quantized,
                candidates + 1,
            )?;
            in_lists += hits(found.as_ref().unwrap_or(&positions));
        }
        due += query.due;
    }
    options.report(Stage::Trial, queries.len() as u64, queries.len() as u64);
    let recall = |hits: usize| (due > 0).then(|| hits as f64 / due as f64);
    report.recall_10_at_10 = recall(ranked);
    report.recall_10_at_10_unranked = recall(unranked);
    report.recall_in_lists = lists.as_ref().and_then(|_| recall(in_lists));
    Ok(report)
}
