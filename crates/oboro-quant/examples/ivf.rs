//! What an inverted file gains in time, and loses in recall, on a folder of
//! `base.fvecs`, `query.fvecs` and `groundtruth.ivecs` (L2).
//!
//! `cargo run --release -p oboro-quant --example ivf -- FOLDER LISTS M`

use oboro_quant::ivf::{CoarseCentroids, CoarseOptions, IvfLists, Probed};
use oboro_quant::recall::recall_k_at_k;
use oboro_quant::{
    BlockedCodes, Codebook, Metric, QuantizedTable, Scanner, SelectionPlan, TrainOptions,
};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const QUERIES: usize = 1000;
const CANDIDATES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count, subquantizers] = &arguments[..] else {
        return Err("usage: ivf FOLDER LISTS M".into());
    };
    let (count, subquantizers): (usize, usize) = (count.parse()?, subquantizers.parse()?);
    let folder = Path::new(folder);
    let base = oboro_vectors::read_f32(folder.join("base.fvecs"))?;
    let queries = oboro_vectors::read_f32(folder.join("query.fvecs"))?;
    let truth = oboro_vectors::read_ivecs(folder.join("groundtruth.ivecs"))?;
    let dimension = base.dimension();
    let queries: Vec<&[f32]> = queries
        .data()
        .chunks_exact(dimension)
        .take(QUERIES)
        .collect();
    let truth: Vec<Vec<u64>> = (0..queries.len())
        .map(|i| truth.row(i).iter().take(10).map(|&id| id as u64).collect())
        .collect();

    let base = base.data();
    let codebook = Codebook::train(
        base,
        dimension,
        &TrainOptions::new(subquantizers, 256, [3; 32]),
    )?;
    let codes = codebook.encode(base)?;
    let start = Instant::now();
    let coarse = CoarseCentroids::train(base, dimension, &CoarseOptions::new(count, [5; 32]))?;
    println!("coarse centroids: {:.1} s", start.elapsed().as_secs_f64());
    let scanner = Scanner::new();
    let whole = BlockedCodes::from_rows(&codes, subquantizers, 8)?;
    let sample = SelectionPlan::for_sample(whole.len(), CANDIDATES, whole.len())?;
    let tables: Vec<QuantizedTable> = queries
        .iter()
        .map(|query| {
            let similarities = codebook.similarities(query, Metric::L2)?;
            scanner.quantize(&similarities, subquantizers, 256, &whole, None, &sample)
        })
        .collect::<Result<_, _>>()?;
    let plan = SelectionPlan::new(whole.len(), CANDIDATES)?;
    let start = Instant::now();
    let mut found = Vec::new();
    for table in &tables {
        let candidates = scanner
            .search(&whole, std::slice::from_ref(table), &plan, 1)?
            .remove(0);
        found.push(candidates.iter().map(|c| u64::from(c.position)).collect());
    }
    report("all vectors", start, &found, &truth);
    drop(whole);

    let unbalanced = coarse.assign(base)?;
    let padding = IvfLists::from_assignments(&unbalanced, count)?.padding();
    println!("nearest lists: {padding:.2} places a vector");
    for slack in [1.0, 1.25, 1.5, 2.0] {
        let start = Instant::now();
        let lists = IvfLists::from_assignments(&coarse.assign_balanced(base, slack)?, count)?;
        println!(
            "slack {slack}: {:.2} places a vector, {} blocks a list, assigned in {:.1} s",
            lists.padding(),
            lists.blocks_per_list(),
            start.elapsed().as_secs_f64()
        );
        let arranged =
            BlockedCodes::from_rows(&lists.arrange(&codes, subquantizers)?, subquantizers, 8)?;
        for probes in [4, 16, 64].into_iter().filter(|&p| p <= count) {
            let plan = SelectionPlan::for_lists(64 * lists.blocks_per_list(), probes, CANDIDATES)?;
            let start = Instant::now();
            let mut found = Vec::new();
            for (query, table) in queries.iter().zip(&tables) {
                let chosen = coarse.probes(query, Metric::L2, probes)?;
                let probed = Probed {
                    lists: &lists,
                    probes: &chosen,
                    mask: None,
                };
                let candidates = scanner.search_lists(&arranged, &probed, table, &plan, 1)?;
                found.push(
                    candidates
                        .iter()
                        .filter_map(|c| lists.vector(c.position).map(u64::from))
                        .collect(),
                );
            }
            report(&format!("  {probes} probes"), start, &found, &truth);
        }
    }
    Ok(())
}

/// With exact re-ranking, what counts is which of the true ten are among the
/// candidates.
fn report(name: &str, start: Instant, found: &[Vec<u64>], truth: &[Vec<u64>]) {
    let taken = start.elapsed().as_secs_f64() * 1e3 / found.len() as f64;
    let reranked: Vec<Vec<u64>> = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| {
            truth
                .iter()
                .filter(|id| found.contains(id))
                .copied()
                .collect()
        })
        .collect();
    println!(
        "{name:<12} {taken:.3} ms a query, 10-recall@10 re-ranked from {CANDIDATES}: {:.4}",
        recall_k_at_k(&reranked, truth, 10)
    );
}
