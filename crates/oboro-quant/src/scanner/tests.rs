#![allow(clippy::unwrap_used)]

use super::*;

struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

fn codes(len: usize, subquantizers: usize, bits: usize, words: &mut Words) -> Vec<u8> {
    let mask = if bits == 4 { 15 } else { 255 };
    (0..len * subquantizers)
        .map(|_| (words.next() & mask) as u8)
        .collect()
}

fn table(subquantizers: usize, centroids: usize, words: &mut Words) -> QuantizedTable {
    let values: Vec<f32> = (0..subquantizers * centroids)
        .map(|_| (words.next() % 1000) as f32)
        .collect();
    QuantizedTable::from_similarities(&values, subquantizers, centroids).unwrap()
}

/// What a full sort by score and position finds.
fn sorted(rows: &[u8], table: &QuantizedTable, candidates: usize) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = rows
        .chunks_exact(table.subquantizers())
        .enumerate()
        .map(|(position, row)| Candidate {
            score: table.score(row),
            position: position as u32,
        })
        .collect();
    all.sort_unstable();
    all.truncate(candidates);
    all
}

#[test]
fn finds_what_a_full_sort_finds() {
    let mut words = Words(77);
    for (len, candidates) in [
        (1, 1),
        (1, 100),
        (63, 10),
        (64, 64),
        (65, 100),
        (130, 1),
        (1000, 100),
        (4097, 4096),
        (20_000, 7),
        (70_001, 100),
        (70_001, 1500),
        (300_000, 40),
    ] {
        for (subquantizers, centroids) in [(1, 256), (3, 200), (8, 256), (5, 16), (4, 9)] {
            let bits = crate::code_bits(centroids);
            let mut rows = codes(len, subquantizers, bits, &mut words);
            rows.iter_mut()
                .for_each(|code| *code %= centroids.min(255) as u8);
            let blocked = BlockedCodes::from_rows(&rows, subquantizers, bits).unwrap();
            let plan = SelectionPlan::new(len, candidates).unwrap();
            let tables: Vec<_> = (0..3)
                .map(|_| table(subquantizers, centroids, &mut words))
                .collect();
            let expected: Vec<_> = tables
                .iter()
                .map(|t| sorted(&rows, t, candidates))
                .collect();
            for arch in Arch::available() {
                // The slow reference need not see every size.
                if arch.name() == "portable" && len > 5000 {
                    continue;
                }
                let scanner = Scanner::with_arch(arch);
                for threads in [1, 2, 5] {
                    let found = scanner.search(&blocked, &tables, &plan, threads).unwrap();
                    assert_eq!(
                        found,
                        expected,
                        "{} {len} {candidates} {subquantizers} {threads}",
                        arch.name()
                    );
                }
            }
        }
    }
}

#[test]
fn many_subquantizers_make_small_tiles() {
    let mut words = Words(5);
    let rows = codes(900, 400, 8, &mut words);
    let blocked = BlockedCodes::from_rows(&rows, 400, 8).unwrap();
    let tables: Vec<_> = (0..2).map(|_| table(400, 256, &mut words)).collect();
    let plan = SelectionPlan::new(900, 30).unwrap();
    let found = Scanner::new().search(&blocked, &tables, &plan, 1).unwrap();
    for (found, table) in found.iter().zip(&tables) {
        assert_eq!(*found, sorted(&rows, table, 30));
    }
}

/// A lane that more of the best fall into than it keeps loses the worst of
/// them, and nothing else changes.
#[test]
fn an_overfull_lane_loses_its_worst() {
    let len = 4096;
    let plan = SelectionPlan::with(len, 16, 64, 4);
    let mut rows = vec![200u8; len];
    // Eight close vectors in lane 0 of group 0: positions 0, 1, 64, 65, ...
    for row in 0..8 {
        rows[scan::position(row, 0)] = row as u8;
    }
    let values: Vec<f32> = (0..256).map(|k| -(k as f32)).collect();
    let table = QuantizedTable::from_similarities(&values, 1, 256).unwrap();
    let codes = BlockedCodes::from_rows(&rows, 1, 8).unwrap();
    let found = Scanner::new()
        .search(&codes, &[table], &plan, 1)
        .unwrap()
        .remove(0);
    let close: Vec<u32> = found[..4].iter().map(|c| c.position).collect();
    assert_eq!(close, [0, 1, 64, 65]);
    assert!(found[4..].iter().all(|c| c.score == 200));
    assert_eq!(found.len(), 16);
    assert!(plan.displacement_probability() > 1e-9);
}

#[test]
fn masked_searches_find_what_a_full_sort_of_the_rest_finds() {
    let mut words = Words(99);
    for (len, candidates) in [
        (1, 1),
        (63, 10),
        (64, 64),
        (65, 100),
        (1000, 100),
        (4097, 1000),
        (70_001, 100),
    ] {
        for (subquantizers, centroids) in [(1, 256), (3, 256), (5, 16)] {
            let bits = crate::code_bits(centroids);
            let rows = codes(len, subquantizers, bits, &mut words);
            let blocked = BlockedCodes::from_rows(&rows, subquantizers, bits).unwrap();
            let plan = SelectionPlan::new(len, candidates).unwrap();
            // All, none, one, few, many, and no mask. Bits beyond the last
            // vector are set now and then and mean nothing.
            let blocks = blocked.blocks();
            let one = (words.next() % len as u64) as usize;
            let mut word = || words.next() << 11 ^ words.next();
            let masks: Vec<Option<Vec<u64>>> = vec![
                Some(vec![u64::MAX; blocks]),
                Some(vec![0; blocks]),
                Some(
                    (0..blocks)
                        .map(|b| u64::from(b == one / 64) << (one % 64))
                        .collect(),
                ),
                Some(
                    (0..blocks)
                        .map(|_| word() & word() & word() & word() & word())
                        .collect(),
                ),
                Some((0..blocks).map(|_| word() | word()).collect()),
                None,
            ];
            let tables: Vec<_> = masks
                .iter()
                .map(|_| table(subquantizers, centroids, &mut words))
                .collect();
            let expected: Vec<_> = tables
                .iter()
                .zip(&masks)
                .map(|(table, mask)| {
                    let mut all = sorted(&rows, table, len);
                    let pass = |at: usize| {
                        mask.as_ref()
                            .is_none_or(|m| m[at / 64] >> (at % 64) & 1 == 1)
                    };
                    all.retain(|c| pass(c.position as usize));
                    all.resize(all.len().max(candidates), Candidate::NONE);
                    all.truncate(plan.candidates());
                    all
                })
                .collect();
            let masks: Vec<_> = masks.iter().map(Option::as_deref).collect();
            for arch in Arch::available() {
                if arch.name() == "portable" && len > 5000 {
                    continue;
                }
                let scanner = Scanner::with_arch(arch);
                for threads in [1, 3] {
                    let found = scanner
                        .search_masked(&blocked, &tables, &masks, &plan, threads)
                        .unwrap();
                    assert_eq!(
                        found,
                        expected,
                        "{} {len} {candidates} {subquantizers} {threads}",
                        arch.name()
                    );
                }
            }
        }
    }
}

/// The largest sum that a table can have is still a score.
#[test]
fn the_farthest_vectors_are_not_taken_for_none() {
    for subquantizers in [1, 2, 257, 258, 4096] {
        let values: Vec<f32> = (0..subquantizers * 256)
            .map(|i| -((i % 256) as f32))
            .collect();
        let table = QuantizedTable::from_similarities(&values, subquantizers, 256).unwrap();
        let codes = BlockedCodes::from_rows(&vec![255; 2 * subquantizers], subquantizers, 8);
        let codes = codes.unwrap();
        let plan = SelectionPlan::new(2, 2).unwrap();
        let found = Scanner::new()
            .search_masked(&codes, &[table], &[Some(&[2])], &plan, 1)
            .unwrap();
        let largest = (65_534 / subquantizers).min(255) * subquantizers;
        let far = Candidate {
            score: largest as u16,
            position: 1,
        };
        assert_eq!(found, [[far, Candidate::NONE]], "{subquantizers}");
    }
}

#[test]
fn fail_masks_that_do_not_belong_to_the_codes() {
    let codes = BlockedCodes::from_rows(&[0; 130], 2, 8).unwrap();
    let mut words = Words(3);
    let tables = [table(2, 256, &mut words)];
    let plan = SelectionPlan::new(65, 10).unwrap();
    let scanner = Scanner::new();
    let search = |masks: &[Option<&[u64]>]| scanner.search_masked(&codes, &tables, masks, &plan, 1);
    assert!(search(&[Some(&[0; 2])]).is_ok());
    assert!(search(&[]).is_err());
    assert!(search(&[None, None]).is_err());
    for words in [0, 1, 3] {
        assert!(search(&[Some(&vec![0; words])]).is_err(), "{words}");
    }
}

#[test]
fn fail_parts_that_do_not_belong_together() {
    let codes = BlockedCodes::from_rows(&[0; 200], 2, 8).unwrap();
    let mut words = Words(3);
    let scanner = Scanner::new();
    let plan = SelectionPlan::new(100, 10).unwrap();
    assert!(
        scanner
            .search(&codes, &[table(3, 256, &mut words)], &plan, 1)
            .is_err()
    );
    assert!(
        scanner
            .search(&codes, &[table(2, 16, &mut words)], &plan, 1)
            .is_err()
    );
    let other = SelectionPlan::new(99, 10).unwrap();
    assert!(
        scanner
            .search(&codes, &[table(2, 256, &mut words)], &other, 1)
            .is_err()
    );
    assert_eq!(scanner.search(&codes, &[], &plan, 1), Ok(vec![]));
}
