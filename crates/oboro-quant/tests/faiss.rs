//! Our encoding and tables against those of faiss, from fixtures that
//! `fixtures/make_faiss.py` writes.
#![allow(clippy::unwrap_used)]

use oboro_quant::{
    BlockedCodes, Codebook, Metric, QuantizedTable, Scanner, SelectionPlan, Subspaces,
};

struct Fixture {
    codebook: Codebook,
    dimension: usize,
    vectors: Vec<f32>,
    codes: Vec<u8>,
    queries: Vec<f32>,
    /// `[query][vector]`
    inner_products: Vec<f32>,
    squared_distances: Vec<f32>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front.to_vec()
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let bytes = self.bytes(count * 4);
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    fn integer(&mut self) -> usize {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap()) as usize
    }
}

fn read(bytes: &[u8]) -> Fixture {
    let mut reader = Reader(bytes);
    let [dimension, m, k, n, q] = [(); 5].map(|()| reader.integer());
    let subspaces = Subspaces::new(dimension, m).unwrap();
    let centroids = reader.numbers(k * dimension);
    let fixture = Fixture {
        codebook: Codebook::from_values(subspaces, k, centroids).unwrap(),
        dimension,
        vectors: reader.numbers(n * dimension),
        codes: reader.bytes(n * m),
        queries: reader.numbers(q * dimension),
        inner_products: reader.numbers(q * n),
        squared_distances: reader.numbers(q * n),
    };
    assert!(reader.0.is_empty());
    fixture
}

fn fixtures() -> [Fixture; 2] {
    [
        read(include_bytes!("fixtures/faiss_21x3x256.bin")),
        read(include_bytes!("fixtures/faiss_32x8x16.bin")),
    ]
}

#[test]
fn codes_are_those_of_faiss() {
    for fixture in fixtures() {
        assert_eq!(
            fixture.codebook.encode(&fixture.vectors).unwrap(),
            fixture.codes
        );
    }
}

#[test]
fn table_sums_are_those_of_faiss() {
    for fixture in fixtures() {
        let codebook = &fixture.codebook;
        let (m, k) = (codebook.subspaces().count(), codebook.centroids());
        let n = fixture.codes.len() / m;
        for (q, query) in fixture.queries.chunks_exact(fixture.dimension).enumerate() {
            let norm: f32 = query.iter().map(|x| x * x).sum();
            for metric in [Metric::InnerProduct, Metric::L2] {
                let table = codebook.similarities(query, metric).unwrap();
                for (i, row) in fixture.codes.chunks_exact(m).enumerate() {
                    let sum: f32 = row
                        .iter()
                        .enumerate()
                        .map(|(j, &code)| table[j * k + usize::from(code)])
                        .sum();
                    let (ours, theirs) = match metric {
                        Metric::L2 => (norm - 2.0 * sum, fixture.squared_distances[q * n + i]),
                        _ => (sum, fixture.inner_products[q * n + i]),
                    };
                    assert!((ours - theirs).abs() < 1e-3, "{ours} {theirs}");
                }
            }
        }
    }
}

/// Eight bits may swap near neighbours, but every score must order as faiss's
/// distance does up to the rounding of M entries.
#[test]
fn scores_order_as_distances_of_faiss_do() {
    for fixture in fixtures() {
        let codebook = &fixture.codebook;
        let (m, k) = (codebook.subspaces().count(), codebook.centroids());
        let n = fixture.codes.len() / m;
        let codes = BlockedCodes::from_rows(&fixture.codes, m, oboro_quant::code_bits(k)).unwrap();
        let plan = SelectionPlan::new(n, n).unwrap();
        for (q, query) in fixture.queries.chunks_exact(fixture.dimension).enumerate() {
            let similarities = codebook.similarities(query, Metric::L2).unwrap();
            let range = similarities
                .chunks_exact(k)
                .map(|row| {
                    let top = row.iter().copied().fold(f32::MIN, f32::max);
                    top - row.iter().copied().fold(f32::MAX, f32::min)
                })
                .fold(0.0, f32::max);
            // A squared distance is twice what a table holds.
            let step = 2.0 * range / 255.0;
            let table = QuantizedTable::from_similarities(&similarities, m, k).unwrap();
            let found = Scanner::new()
                .search(&codes, &[table], &plan, 1)
                .unwrap()
                .remove(0);
            assert_eq!(found.len(), n);
            let distance = |position: u32| fixture.squared_distances[q * n + position as usize];
            let first = found[0];
            for candidate in &found {
                let exact = distance(candidate.position) - distance(first.position);
                let scored = f32::from(candidate.score - first.score) * step;
                assert!(
                    (exact - scored).abs() <= step * (m as f32 + 0.1),
                    "{exact} {scored}"
                );
            }
        }
    }
}
