//! Leaks on purpose: what the checks must find.

use std::hint::black_box;

use crate::run::Run;

/// Looks distances up by code: the address depends on the code.
pub(crate) fn lookup(run: &Run) {
    let codes = run.secret(256, |bits| bits as u8);
    let table: Vec<u16> = (0..256).map(|i| i * 3).collect();
    run.region(|| sum_by_code(&codes, &table));
}

#[inline(never)]
fn sum_by_code(codes: &[u8], table: &[u16]) -> u32 {
    codes
        .iter()
        .map(|code| u32::from(table[usize::from(*code)]))
        .sum()
}

/// Keeps the best ten by comparing and inserting: the branch depends on the
/// score.
pub(crate) fn branch(run: &Run) {
    let scores = run.secret(256, |bits| bits as u16);
    run.region(|| best_by_insertion(&scores, 10));
}

#[inline(never)]
fn best_by_insertion(scores: &[u16], count: usize) -> Vec<u16> {
    let mut best = Vec::with_capacity(count + 1);
    for &score in scores {
        if best.len() < count || best.last().is_some_and(|worst| score < *worst) {
            let place = best.partition_point(|b| *b <= score);
            best.insert(place, score);
            best.truncate(count);
        }
    }
    best
}

/// Divides by a secret: the time depends on it.
pub(crate) fn division(run: &Run) {
    let values = run.secret(64, |bits| bits as u32);
    run.region(|| integer_division(&values));
}

#[inline(never)]
fn integer_division(values: &[u32]) -> u32 {
    values
        .iter()
        .map(|v| black_box(1_000_000) / (v | 1))
        .fold(0, u32::wrapping_add)
}

/// Divides floating-point numbers by a secret.
pub(crate) fn float_division(run: &Run) {
    let values = run.secret(64, |bits| 1.0 + (bits >> 40) as f32);
    run.region(|| oblivious_planted_float_division(&values));
}

#[inline(never)]
fn oblivious_planted_float_division(values: &[f32]) -> f32 {
    values.iter().map(|v| black_box(1.0f32) / v).sum()
}

/// Stops at the first chunk that holds a large score: the branch depends on
/// vector data.
pub(crate) fn early_stop(run: &Run) {
    let scores = run.secret(512, |bits| bits as u16);
    run.region(|| oblivious_planted_early_stop(&scores));
}

#[inline(never)]
fn oblivious_planted_early_stop(scores: &[u16]) -> usize {
    for (i, chunk) in scores.as_chunks::<32>().0.iter().enumerate() {
        let largest = chunk.iter().fold(0, |a, b| a.max(*b));
        if largest > 60_000 {
            return i;
        }
    }
    usize::MAX
}
