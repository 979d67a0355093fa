#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    BlockedCodes, Candidate, Codebook, Metric, QuantizedTable, Scanner, SelectionPlan, TrainOptions,
};
use chacha20::ChaCha20Rng;
use oboro_simd::Arch;
use rand_core::{Rng, SeedableRng};

/// Clusters of very different sizes.
fn vectors(rows: usize, dimension: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut unit = || (rng.next_u64() >> 40) as f32 / (1 << 24) as f32;
    (0..rows)
        .flat_map(|_| {
            let cluster = (unit() * unit() * 12.0) as usize;
            (0..dimension)
                .map(|j| ((cluster * 31 + j * 17) % 23) as f32 + 3.0 * unit())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn coarse(data: &[f32], dimension: usize, lists: usize) -> CoarseCentroids {
    CoarseCentroids::train(data, dimension, &CoarseOptions::new(lists, [4; 32])).unwrap()
}

#[test]
fn balanced_lists_stay_within_their_capacity_and_near() {
    let (rows, dimension, lists) = (3000, 6, 9);
    let data = vectors(rows, dimension, 1);
    let centroids = coarse(&data, dimension, lists);
    let nearest = centroids.assign(&data).unwrap();
    for (slack, capacity) in [(1.0, 384), (1.3, 448), (100.0, 33_344)] {
        let balanced = centroids.assign_balanced(&data, slack).unwrap();
        let mut counts = vec![0; lists];
        balanced.iter().for_each(|&list| counts[list as usize] += 1);
        assert!(counts.iter().all(|&count| count <= capacity), "{counts:?}");
        let built = IvfLists::from_assignments(&balanced, lists).unwrap();
        assert!(built.padding() >= 1.0);
        assert!(built.places() <= lists * capacity);
        if slack == 100.0 {
            assert_eq!(balanced, nearest);
        } else {
            // No vector would rather be in a list that has it no farther than
            // one of its own (nor in one with room).
            let distance = |vector: usize, list: usize| -> f32 {
                let row = &data[vector * dimension..][..dimension];
                let centre = &centroids.values()[list * dimension..][..dimension];
                row.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum()
            };
            let mut farthest = vec![0f32; lists];
            for (vector, &list) in balanced.iter().enumerate() {
                let list = list as usize;
                farthest[list] = farthest[list].max(distance(vector, list));
            }
            for (vector, &own) in balanced.iter().enumerate() {
                for list in 0..lists {
                    let other = distance(vector, list) + 1e-2;
                    assert!(
                        distance(vector, own as usize) <= other
                            || (counts[list] == capacity && farthest[list] <= other),
                        "{vector}: {own} {list}"
                    );
                }
            }
        }
    }
}

#[test]
fn training_and_assignment_do_not_depend_on_threads() {
    let data = vectors(1500, 5, 2);
    let run = |threads: usize| {
        let options = CoarseOptions {
            threads,
            ..CoarseOptions::new(7, [4; 32])
        };
        let centroids = CoarseCentroids::train(&data, 5, &options).unwrap();
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| {
                (
                    centroids.values().to_vec(),
                    centroids.assign(&data).unwrap(),
                    centroids.assign_balanced(&data, 1.1).unwrap(),
                )
            })
    };
    assert!(run(1) == run(3));
}

#[test]
fn every_vector_has_one_place_and_fillers_are_masked() {
    let assignments = [2, 0, 2, 2, 0].repeat(31);
    let lists = IvfLists::from_assignments(&assignments, 4).unwrap();
    assert_eq!((lists.lists(), lists.blocks_per_list()), (4, 2));
    let mut seen = vec![false; assignments.len()];
    for place in 0..lists.places() as u32 {
        let set = lists.mask()[place as usize / 64] >> (place % 64) & 1 == 1;
        assert_eq!(lists.vector(place).is_some(), set);
        if let Some(vector) = lists.vector(place) {
            assert_eq!(assignments[vector as usize], place / 128);
            assert!(!std::mem::replace(&mut seen[vector as usize], true));
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
    assert_eq!(lists.vector(u32::MAX), None);
    assert_eq!(lists.padding(), 512.0 / 155.0);
}

#[test]
fn vectors_in_parts_come_into_the_same_lists() {
    let data = vectors(1500, 5, 2);
    let centroids = CoarseCentroids::train(&data, 5, &CoarseOptions::new(7, [4; 32])).unwrap();
    for slack in [1.1, 1.5, 100.0] {
        let mut choices = centroids.choices();
        for part in data.chunks(5 * 333) {
            choices.add(&centroids, part).unwrap();
        }
        // With eight choices of seven lists nobody is left without.
        let lists = choices
            .balanced(&centroids, slack, |_| unreachable!())
            .unwrap();
        assert_eq!(lists, centroids.assign_balanced(&data, slack).unwrap());
    }
    assert!(centroids.choices().add(&centroids, &data[..7]).is_err());
    let none = |_: &[usize]| Ok(Vec::new());
    assert!(centroids.choices().balanced(&centroids, 0.5, none).is_err());
    let other = CoarseCentroids::train(&data, 5, &CoarseOptions::new(6, [4; 32])).unwrap();
    assert!(centroids.choices().balanced(&other, 1.5, none).is_err());
}

/// A crowd around one point overflows the lists near it. Those whom none of their choices
/// takes come near, too, although only something like them is there to be compared.
#[test]
fn vectors_that_no_choice_takes_come_near() {
    let (rows, dimension, lists) = (4000, 4, 40);
    let mut data = vectors(rows, dimension, 7);
    // Every second one is nearly the first.
    for row in (0..rows).step_by(2) {
        for j in 0..dimension {
            data[row * dimension + j] = data[j] + 0.02 * data[row * dimension + j];
        }
    }
    let spread = vectors(1000, dimension, 8);
    let centroids = coarse(&spread, dimension, lists);
    let mut choices = centroids.choices();
    choices.add(&centroids, &data).unwrap();
    let mut asked = 0;
    let about = choices.balanced(&centroids, 1.25, |homeless| {
        asked += homeless.len();
        assert!(homeless.is_sorted());
        let rough = |&row: &usize| {
            data[row * dimension..][..dimension]
                .iter()
                .map(|x| (x * 64.0).round() / 64.0)
        };
        Ok(homeless.iter().flat_map(rough).collect())
    });
    assert!(asked > 500, "{asked}");
    let about = about.unwrap();
    let exact = centroids.assign_balanced(&data, 1.25).unwrap();
    let error = |lists: &[u32]| -> f64 {
        let of = |(row, &list): (&[f32], &u32)| -> f64 {
            let centre = &centroids.values()[list as usize * dimension..][..dimension];
            row.iter()
                .zip(centre)
                .map(|(a, b)| f64::from((a - b) * (a - b)))
                .sum()
        };
        data.chunks_exact(dimension).zip(lists).map(of).sum()
    };
    // Any list with room would do worse by far.
    let any: Vec<u32> = (0..rows as u32).map(|row| row % lists as u32).collect();
    assert!(
        error(&about) < 1.01 * error(&exact),
        "{} {}",
        error(&about),
        error(&exact)
    );
    assert!(
        error(&exact) < 0.7 * error(&any),
        "{} {}",
        error(&exact),
        error(&any)
    );
    let too_few = |_: &[usize]| Ok(vec![0.0; 3]);
    assert!(choices.balanced(&centroids, 1.25, too_few).is_err());
}

#[test]
fn codes_in_blocks_lie_as_rows_do() {
    let assignments = [2, 0, 2, 2, 0].repeat(31);
    let lists = IvfLists::from_assignments(&assignments, 4).unwrap();
    for (subquantizers, bits) in [(5, 8), (5, 4), (4, 4)] {
        let rows: Vec<u8> = (0..assignments.len() * subquantizers)
            .map(|v| (v * 7 % 251) as u8 >> (8 - bits))
            .collect();
        let codes = BlockedCodes::from_rows(&rows, subquantizers, bits).unwrap();
        let arranged = lists.arrange(&rows, subquantizers).unwrap();
        let expected = BlockedCodes::from_rows(&arranged, subquantizers, bits).unwrap();
        let found = lists.arrange_blocks(&codes).unwrap();
        assert_eq!(found.as_bytes(), expected.as_bytes());
    }
    let few = BlockedCodes::from_rows(&[1, 2, 3], 3, 8).unwrap();
    assert!(lists.arrange_blocks(&few).is_err());
}

/// What `search_lists` finds is what a full sort of the probed lists finds.
#[test]
fn probed_lists_are_searched_exactly() {
    let (rows, dimension, count) = (9000, 8, 12);
    let data = vectors(rows, dimension, 3);
    for centroids in [16, 64] {
        let codebook =
            Codebook::train(&data, dimension, &TrainOptions::new(4, centroids, [1; 32])).unwrap();
        let codes = codebook.encode(&data).unwrap();
        let coarse = coarse(&data, dimension, count);
        let lists = IvfLists::from_assignments(&coarse.assign_balanced(&data, 1.2).unwrap(), count)
            .unwrap();
        let bits = crate::code_bits(centroids);
        let arranged = lists.arrange(&codes, 4).unwrap();
        let blocked = BlockedCodes::from_rows(&arranged, 4, bits).unwrap();
        let list_places = lists.blocks_per_list() * 64;
        let every_third: Vec<u64> = (0..lists.mask().len())
            .map(|block| 0x9249_2492_4924_9249u64.rotate_left(block as u32))
            .collect();
        for (probes, candidates) in [(1, 10), (1, 4096), (3, 100), (5, 1000), (12, 50)] {
            let plan = SelectionPlan::for_lists(list_places, probes, candidates).unwrap();
            for query in data.chunks_exact(dimension).step_by(2900) {
                let chosen = coarse.probes(query, Metric::L2, probes).unwrap();
                let similarities = codebook.similarities(query, Metric::L2).unwrap();
                let table = QuantizedTable::from_similarities(&similarities, 4, centroids).unwrap();
                for mask in [None, Some(every_third.as_slice())] {
                    // In the order of the runs, as ties are.
                    let mut expected: Vec<(u16, usize, u32)> = Vec::new();
                    for (run, &list) in chosen.iter().enumerate() {
                        for i in 0..list_places {
                            let place = list as usize * list_places + i;
                            let kept = mask.is_none_or(|m| m[place / 64] >> (place % 64) & 1 == 1);
                            if let (true, Some(vector)) = (kept, lists.vector(place as u32)) {
                                let row = &codes[vector as usize * 4..][..4];
                                let at = run * list_places + i;
                                expected.push((table.score(row), at, place as u32));
                            }
                        }
                    }
                    expected.sort_unstable();
                    let mut expected: Vec<Candidate> = expected
                        .into_iter()
                        .map(|(score, _, position)| Candidate { score, position })
                        .collect();
                    expected.resize(plan.candidates(), Candidate::NONE);
                    for arch in Arch::available() {
                        for threads in [1, 2] {
                            let found = Scanner::with_arch(arch)
                                .search_lists(
                                    &blocked,
                                    &Probed {
                                        lists: &lists,
                                        probes: &chosen,
                                        mask,
                                    },
                                    &table,
                                    &plan,
                                    threads,
                                )
                                .unwrap();
                            assert_eq!(found, expected, "{} {probes} {candidates}", arch.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn probes_are_the_most_similar_centroids() {
    let data = vectors(500, 4, 6);
    let centroids = coarse(&data, 4, 10);
    for metric in [Metric::L2, Metric::InnerProduct] {
        let query = &data[40..44];
        let probes = centroids.probes(query, metric, 10).unwrap();
        let distances: Vec<f32> = probes
            .iter()
            .map(|&list| metric.distance(query, &centroids.values()[list as usize * 4..][..4]))
            .collect();
        let tolerance = 1e-3;
        assert!(
            distances.windows(2).all(|d| d[0] <= d[1] + tolerance),
            "{distances:?}"
        );
        assert_eq!(centroids.probes(query, metric, 3).unwrap(), probes[..3]);
    }
}

#[test]
fn fail_lists_and_probes_that_are_not_there() {
    assert!(IvfLists::from_assignments(&[0, 1], 0).is_err());
    assert!(IvfLists::from_assignments(&[0, 2], 2).is_err());
    assert!(IvfLists::from_assignments(&[], MAX_LISTS + 1).is_err());
    let lists = IvfLists::from_assignments(&[0, 1, 1], 2).unwrap();
    assert!(lists.arrange(&[0; 5], 2).is_err());
    let arranged = lists.arrange(&[0; 6], 2).unwrap();
    let codes = BlockedCodes::from_rows(&arranged, 2, 8).unwrap();
    let table = QuantizedTable::from_similarities(&[0.0; 512], 2, 256).unwrap();
    let plan = SelectionPlan::for_lists(64, 1, 10).unwrap();
    let scanner = Scanner::new();
    let search = |probes: &[u32], mask: Option<&[u64]>| {
        let probed = Probed {
            lists: &lists,
            probes,
            mask,
        };
        scanner.search_lists(&codes, &probed, &table, &plan, 1)
    };
    assert!(search(&[1], None).is_ok());
    assert!(search(&[2], None).is_err());
    assert!(search(&[], None).is_err());
    assert!(search(&[0, 1], None).is_err());
    assert!(search(&[1], Some(&[0])).is_err());
    let both = SelectionPlan::for_lists(64, 2, 10).unwrap();
    let probed = Probed {
        lists: &lists,
        probes: &[1, 1],
        mask: None,
    };
    let twice = scanner.search_lists(&codes, &probed, &table, &both, 1);
    assert!(twice.is_err());
    let centroids = CoarseCentroids::from_values(vec![0.0; 6], 2).unwrap();
    assert!(centroids.probes(&[0.0; 3], Metric::L2, 1).is_err());
    assert!(centroids.probes(&[0.0; 2], Metric::L2, 0).is_err());
    assert!(centroids.probes(&[0.0; 2], Metric::L2, 4).is_err());
    assert!(centroids.assign_balanced(&[0.0; 4], 0.9).is_err());
    assert!(centroids.assign_balanced(&[0.0; 4], f64::NAN).is_err());
    assert!(centroids.assign(&[0.0, f32::NAN]).is_err());
    assert!(CoarseCentroids::from_values(vec![f32::NAN; 2], 2).is_err());
    assert!(CoarseCentroids::from_values(vec![], 2).is_err());
    assert!(CoarseCentroids::train(&[0.0; 8], 2, &CoarseOptions::new(5, [0; 32])).is_err());
}
