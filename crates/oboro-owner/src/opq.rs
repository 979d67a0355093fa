//! Learning the matrix of OPQ on the sample, and what it gains there.

use std::sync::Arc;

use oboro_quant::{
    BlockedCodes, Codebook, OpqOptions, OpqTransform, QuantError, Scanner, SelectionPlan,
    code_bits, exact,
};

use crate::build::{ROTATION_ITERATIONS, train};
use crate::shape::Shape;
use crate::{BuildOptions, OwnerError, Stage, as_near};

/// Turns of the vectors where nothing else is said.
pub const DEFAULT_OPQ_TURNS: usize = 20;

/// Vectors of the sample that the gain is measured on.
const MEASURED: usize = 16_384;

/// Of those, queries; the others are searched.
const QUERIES: usize = 256;

/// Neighbours that recall counts.
const NEIGHBOURS: usize = 10;

/// A distortion must fall by this share for the matrix to be worth its while.
const WORTH: f64 = 0.02;

/// What the learned matrix gains, measured on some vectors of the sample with quickly
/// trained codebooks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpqReport {
    /// Turns of the vectors.
    pub turns: usize,
    /// Mean squared error of codes without the matrix.
    pub distortion_without: f64,
    /// The same with it.
    pub distortion_with: f64,
    /// 10-recall@10 of codes alone, without the matrix.
    pub recall_without: f64,
    /// The same with it.
    pub recall_with: f64,
}

impl OpqReport {
    /// Whether the matrix makes codes better; where not, an index without it does as
    /// well.
    #[must_use]
    pub fn helps(&self) -> bool {
        self.distortion_with < (1.0 - WORTH) * self.distortion_without
    }
}

/// Learns the matrix from vectors that are prepared and rotated.
pub(crate) fn learn(
    sample: &[f32],
    shape: &Shape,
    turns: usize,
    options: &BuildOptions,
) -> Result<(OpqTransform, OpqReport), OwnerError> {
    let (subquantizers, centroids) = (shape.packing.subquantizers(), shape.packing.centroids());
    let learning = OpqOptions {
        iterations: turns,
        cancel: Arc::clone(&options.cancel),
        progress: options.progress.clone().map(|progress| {
            Arc::new(move |done, total| progress(Stage::Turn, done, total)) as oboro_quant::Progress
        }),
        ..OpqOptions::new(subquantizers, centroids, options.seed)
    };
    let trained = match OpqTransform::train(sample, shape.dimension, &learning) {
        Err(QuantError::Cancelled) => return Err(OwnerError::Cancelled),
        result => result?,
    };
    let mut measured = sample[..sample.len().min(MEASURED * shape.dimension)].to_vec();
    let (distortion_without, recall_without) = measure(&measured, shape, options)?;
    trained.transform.apply_rows(&mut measured)?;
    let (distortion_with, recall_with) = measure(&measured, shape, options)?;
    let report = OpqReport {
        turns,
        distortion_without,
        distortion_with,
        recall_without,
        recall_with,
    };
    Ok((trained.transform, report))
}

/// Distortion and 10-recall@10 of the codes of some vectors.
fn measure(
    vectors: &[f32],
    shape: &Shape,
    options: &BuildOptions,
) -> Result<(f64, f64), OwnerError> {
    let (subquantizers, centroids) = (shape.packing.subquantizers(), shape.packing.centroids());
    let mut quick = options.clone();
    quick.iterations = ROTATION_ITERATIONS;
    quick.progress = None;
    let rows = vectors.len() / shape.dimension;
    let codebook: Codebook = train(vectors, shape, rows, &quick)?;
    let distortion = codebook.distortion(vectors)?;
    let queries = QUERIES.min(rows / 4);
    let (queries, base) = vectors.split_at(queries * shape.dimension);
    let found = base.len() / shape.dimension;
    if queries.is_empty() || found < NEIGHBOURS {
        return Ok((distortion, 1.0));
    }
    // What stands here is prepared: of a cosine the inner product is left.
    let (distances, _) = exact::search(
        base,
        shape.dimension,
        queries,
        NEIGHBOURS,
        options.metric,
        0,
    )?;
    let codes =
        BlockedCodes::from_rows(&codebook.encode(base)?, subquantizers, code_bits(centroids))?;
    let plan = SelectionPlan::new(found, NEIGHBOURS)?;
    let sample = SelectionPlan::for_sample(found, NEIGHBOURS, found)?;
    let scanner = Scanner::new();
    let mut hits = 0;
    for (query, distances) in queries
        .chunks_exact(shape.dimension)
        .zip(distances.chunks_exact(NEIGHBOURS))
    {
        options.check_cancelled()?;
        let similarities = codebook.similarities(query, options.metric)?;
        let table = scanner.quantize(
            &similarities,
            subquantizers,
            centroids,
            &codes,
            None,
            &sample,
        )?;
        let best = scanner.search(&codes, std::slice::from_ref(&table), &plan, 0)?;
        let reach = as_near(options.metric, distances[NEIGHBOURS - 1]);
        let near = |position: u32| {
            let row = &base[position as usize * shape.dimension..][..shape.dimension];
            options.metric.distance(query, row) <= reach
        };
        hits += best[0].iter().filter(|c| near(c.position)).count();
    }
    Ok((
        distortion,
        hits as f64 / (queries.len() / shape.dimension * NEIGHBOURS) as f64,
    ))
}
