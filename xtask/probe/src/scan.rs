//! Table quantization, scan and selection. Codes and tables are secret.

use oboro_quant::filter::{Filter, passing};
use oboro_quant::ivf::{IvfLists, Probed};
use oboro_quant::{BlockedCodes, QuantizedTable, Scanner, SelectionPlan};

use oboro_simd::Arch;

use crate::run::Run;
use crate::table::Setup;

/// f32 similarities to 8-bit distances.
pub(crate) fn quantize(run: &Run) {
    let similarities = run.secret(2 * 256, similarity);
    let table = run.region(|| QuantizedTable::from_similarities(&similarities, 2, 256));
    run.expect_secret(table.expect("the shape fits").entries());
}

/// The same with a scale that a sample of the codes tells.
pub(crate) fn quantize_by_sample(run: &Run) {
    let rows = run.secret(300 * 2, |bits| bits as u8);
    let codes = blocked(run, rows, 2, 8);
    let similarities = run.secret(2 * 256, similarity);
    let mask = run.secret(300_usize.div_ceil(64), |bits| bits);
    let plan = SelectionPlan::for_sample(300, 10, 300).expect("the sizes are in range");
    let scanner = Scanner::new();
    let table = run.region(|| scanner.quantize(&similarities, 2, 256, &codes, Some(&mask), &plan));
    run.expect_secret(table.expect("the parts fit").entries());
}

/// 8-bit codes: one table, enough vectors for several groups of the plan.
pub(crate) fn search_eight_bits(run: &Run) {
    search(run, 300, 1, 256, 1, 20);
}

/// 8-bit codes, several tables in one pass, an odd number of sub-quantizers.
pub(crate) fn search_several_tables(run: &Run) {
    search(run, 100, 3, 256, 2, 10);
}

/// 4-bit codes.
pub(crate) fn search_four_bits(run: &Run) {
    search(run, 500, 3, 16, 1, 20);
}

/// 8-bit codes under a secret mask that a secret filter makes of secret tags:
/// the masked lanes get neither score nor position.
pub(crate) fn search_masked(run: &Run) {
    masked(run, 300, 1, 256, 20);
}

/// The same with 4-bit codes.
pub(crate) fn search_masked_four_bits(run: &Run) {
    masked(run, 200, 3, 16, 10);
}

fn masked(run: &Run, vectors: usize, subquantizers: usize, centroids: usize, candidates: usize) {
    let rows = run.secret(vectors * subquantizers, |bits| {
        (bits % centroids as u64) as u8
    });
    let bits = oboro_quant::code_bits(centroids);
    let codes = blocked(run, rows, subquantizers, bits);
    let tables: Vec<QuantizedTable> = (0..2)
        .map(|_| {
            let similarities = run.secret(subquantizers * centroids, similarity);
            QuantizedTable::from_similarities(&similarities, subquantizers, centroids)
                .expect("the shape fits")
        })
        .collect();
    let tags = run.secret(vectors, |bits| bits);
    let alive = run.secret(vectors.div_ceil(64), |bits| bits);
    // Bits that some tags have, so that some vectors pass and some do not.
    let words = run.secret(3, |bits| bits);
    let filter = Filter {
        any: words[0],
        all: words[1] & 1,
        none: words[2] & 2,
    };
    let plan = SelectionPlan::new(vectors, candidates).expect("the sizes are in range");
    let scanner = Scanner::new();
    let mut mask = Vec::with_capacity(alive.len());
    let found = run
        .region(|| {
            passing(Arch::detect(), &tags, Some(&alive), &filter, &mut mask)?;
            scanner.search_masked(&codes, &tables, &[Some(&mask), None], &plan, 1)
        })
        .expect("the parts fit");
    run.expect_secret(&mask);
    for found in &found {
        assert_eq!(found.len(), candidates);
        run.expect_secret(found);
    }
}

/// Lists of an inverted file: which ones are probed is public, what they hold
/// and the mask are secret.
pub(crate) fn search_lists(run: &Run) {
    let assignments: Vec<u32> = (0..600).map(|i| i % 5).collect();
    let lists = IvfLists::from_assignments(&assignments, 5).expect("the lists are there");
    let rows = run.secret(lists.places(), |bits| bits as u8);
    let codes = blocked(run, rows, 1, 8);
    let similarities = run.secret(256, similarity);
    let table = QuantizedTable::from_similarities(&similarities, 1, 256).expect("the shape fits");
    let mask = run.secret(lists.mask().len(), |bits| bits);
    let plan = SelectionPlan::for_lists(64 * lists.blocks_per_list(), 3, 20)
        .expect("the sizes are in range");
    let scanner = Scanner::new();
    let found = run
        .region(|| {
            let probed = Probed {
                lists: &lists,
                probes: &[4, 0, 2],
                mask: Some(&mask),
            };
            scanner.search_lists(&codes, &probed, &table, &plan, 1)
        })
        .expect("the parts fit");
    assert_eq!(found.len(), 20);
    run.expect_secret(&found);
}

/// Deep lanes: many candidates of few vectors.
pub(crate) fn search_deep(run: &Run) {
    search(run, 300, 1, 16, 1, 130);
}

fn search(
    run: &Run,
    vectors: usize,
    subquantizers: usize,
    centroids: usize,
    tables: usize,
    candidates: usize,
) {
    let rows = run.secret(vectors * subquantizers, |bits| {
        (bits % centroids as u64) as u8
    });
    let bits = oboro_quant::code_bits(centroids);
    let codes = blocked(run, rows, subquantizers, bits);
    let tables: Vec<QuantizedTable> = (0..tables)
        .map(|_| {
            let similarities = run.secret(subquantizers * centroids, similarity);
            QuantizedTable::from_similarities(&similarities, subquantizers, centroids)
                .expect("the shape fits")
        })
        .collect();
    let plan = SelectionPlan::new(vectors, candidates).expect("the sizes are in range");
    let scanner = Scanner::new();
    let found = run
        .region(|| scanner.search(&codes, &tables, &plan, 1))
        .expect("the parts fit");
    for found in &found {
        assert_eq!(found.len(), candidates);
        run.expect_secret(found);
    }
}

/// All that the searcher does with a table: unmask, quantize, scan, select.
pub(crate) fn whole_query(run: &Run) {
    let (setup, share, keeper) = Setup::shares(run);
    let (subquantizers, centroids) = (
        setup.evaluator.packing().subquantizers(),
        setup.evaluator.packing().centroids(),
    );
    let rows = run.secret(500 * subquantizers, |bits| (bits % centroids as u64) as u8);
    let codes = blocked(run, rows, subquantizers, oboro_quant::code_bits(centroids));
    let plan = SelectionPlan::new(500, 20).expect("the sizes are in range");
    let sample = SelectionPlan::for_sample(500, 20, 500).expect("the sizes are in range");
    let scanner = Scanner::new();
    let found = run.region(|| {
        let similarities = setup
            .evaluator
            .unmask(&share, &keeper)
            .expect("the shares fit");
        let table = scanner
            .quantize(
                &similarities,
                subquantizers,
                centroids,
                &codes,
                None,
                &sample,
            )
            .expect("it fits");
        scanner.search(&codes, &[table], &plan, 1)
    });
    run.expect_secret(&found.expect("the parts fit")[0]);
}

/// Lays codes out unmarked (their range is checked there) and marks them.
fn blocked(run: &Run, rows: Vec<u8>, subquantizers: usize, bits: usize) -> BlockedCodes {
    oboro_simd::taint::public(&rows);
    let codes = BlockedCodes::from_rows(&rows, subquantizers, bits).expect("the codes fit");
    run.mark(codes.as_bytes());
    codes
}

/// A number between -1 and 1 from 64 bits.
fn similarity(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
