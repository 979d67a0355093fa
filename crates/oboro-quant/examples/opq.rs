//! What OPQ gains on a file of vectors: the error of quantization and
//! 10-recall@10, with and without.
//!
//! `cargo run --release -p oboro-quant --example opq -- FILE METRIC M K [ROWS]`
//!
//! The last thousand rows are the queries.

use oboro_quant::recall::recall_k_at_k;
use oboro_quant::{
    BlockedCodes, Codebook, Metric, OpqOptions, OpqTransform, Scanner, SelectionPlan, TrainOptions,
    code_bits, exact,
};
use std::error::Error;
use std::time::Instant;

const QUERIES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, metric, subquantizers, centroids, rest @ ..] = &arguments[..] else {
        return Err("usage: opq FILE METRIC M K [ROWS]".into());
    };
    let metric = Metric::from_name(metric).ok_or("metrics are l2, ip, cosine, lorentz")?;
    let (subquantizers, centroids) = (subquantizers.parse()?, centroids.parse()?);
    let vectors = oboro_vectors::read_f32(file)?;
    let dimension = vectors.dimension();
    let mut values = vectors.data().to_vec();
    if let Some(rows) = rest.first() {
        values.truncate(rows.parse::<usize>()? * dimension);
    }
    let rows = values.len() / dimension;
    if rows <= QUERIES {
        return Err(format!("{rows} rows are too few; give more than {QUERIES}").into());
    }
    let mut queries = values.split_off((rows - QUERIES) * dimension);
    let (_, truth) = exact::search(&values, dimension, &queries, 10, metric, 0)?;
    let truth: Vec<Vec<u64>> = truth.chunks_exact(10).map(<[u64]>::to_vec).collect();
    values
        .chunks_exact_mut(dimension)
        .for_each(|row| metric.prepare_base(row));
    queries
        .chunks_exact_mut(dimension)
        .for_each(|row| metric.prepare_query(row));

    let set = Set {
        dimension,
        metric,
        subquantizers,
        centroids,
        truth,
    };
    set.measure("PQ", &values, &queries)?;
    let start = Instant::now();
    let options = OpqOptions::new(subquantizers, centroids, [7; 32]);
    let trained = OpqTransform::train(&values, dimension, &options)?;
    let taken = start.elapsed().as_secs_f64();
    trained.transform.apply_rows(&mut values)?;
    trained.transform.apply_rows(&mut queries)?;
    println!(
        "learned in {taken:.1} s; on the sample {:.4} falls to {:.4}",
        trained.distortions.first().copied().unwrap_or(f64::NAN),
        trained.distortions.last().copied().unwrap_or(f64::NAN),
    );
    set.measure("OPQ", &values, &queries)
}

struct Set {
    dimension: usize,
    metric: Metric,
    subquantizers: usize,
    centroids: usize,
    truth: Vec<Vec<u64>>,
}

impl Set {
    fn measure(&self, name: &str, base: &[f32], queries: &[f32]) -> Result<(), Box<dyn Error>> {
        let options = TrainOptions::new(self.subquantizers, self.centroids, [3; 32]);
        let codebook = Codebook::train(base, self.dimension, &options)?;
        let rows = base.len() / self.dimension;
        let bits = code_bits(self.centroids);
        let codes = BlockedCodes::from_rows(&codebook.encode(base)?, self.subquantizers, bits)?;
        let plan = SelectionPlan::new(rows, 100)?;
        let sample = SelectionPlan::for_sample(rows, 100, rows)?;
        let scanner = Scanner::new();
        let mut found = Vec::with_capacity(QUERIES);
        for query in queries.chunks_exact(self.dimension) {
            let similarities = codebook.similarities(query, self.metric)?;
            let table = scanner.quantize(
                &similarities,
                self.subquantizers,
                self.centroids,
                &codes,
                None,
                &sample,
            )?;
            let candidates = scanner.search(&codes, &[table], &plan, 1)?.remove(0);
            found.push(candidates.iter().map(|c| u64::from(c.position)).collect());
        }
        // With exact re-ranking, what counts is which of the true ten are
        // among the candidates.
        let reranked: Vec<Vec<u64>> = found
            .iter()
            .zip(&self.truth)
            .map(|(found, truth): (&Vec<u64>, &Vec<u64>)| {
                truth
                    .iter()
                    .filter(|id| found.contains(id))
                    .copied()
                    .collect()
            })
            .collect();
        println!(
            "{name:<4} {rows} x {}, {}x{bits}: error {:.4}, 10-recall@10 {:.4}, re-ranked from 100 {:.4}",
            self.dimension,
            self.subquantizers,
            codebook.distortion(&base[..base.len().min(20_000 * self.dimension)])?,
            recall_k_at_k(&found, &self.truth, 10),
            recall_k_at_k(&reranked, &self.truth, 10),
        );
        Ok(())
    }
}
