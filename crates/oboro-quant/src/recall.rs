//! Measures of how much of the truth a search finds.

/// `k-recall@k`: the mean share of the `k` true nearest among the first `k`
/// found. Lists shorter than `k` count what they lack as missed.
///
/// # Panics
/// When the lists differ in number, or `k` is zero.
#[must_use]
pub fn recall_k_at_k(found: &[Vec<u64>], truth: &[Vec<u64>], k: usize) -> f64 {
    assert_eq!(
        found.len(),
        truth.len(),
        "a list of found and of true ids per query"
    );
    assert!(k > 0, "k must not be zero");
    if found.is_empty() {
        return 0.0;
    }
    let hits: usize = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| {
            let truth = &truth[..k.min(truth.len())];
            found[..k.min(found.len())]
                .iter()
                .filter(|id| truth.contains(id))
                .count()
        })
        .sum();
    hits as f64 / (found.len() * k) as f64
}

/// `1-recall@r`: the share of queries whose true nearest is among the first
/// `r` found.
///
/// # Panics
/// When the lists differ in number.
#[must_use]
pub fn recall_1_at(found: &[Vec<u64>], truth: &[Vec<u64>], r: usize) -> f64 {
    assert_eq!(
        found.len(),
        truth.len(),
        "a list of found and of true ids per query"
    );
    if found.is_empty() {
        return 0.0;
    }
    let hits = found
        .iter()
        .zip(truth)
        .filter(|(found, truth)| {
            truth
                .first()
                .is_some_and(|id| found[..r.min(found.len())].contains(id))
        })
        .count();
    hits as f64 / found.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalls_of_known_lists() {
        let truth = vec![vec![1, 2, 3], vec![4, 5, 6]];
        let found = vec![vec![2, 1, 9], vec![7, 8, 4]];
        assert_eq!(recall_k_at_k(&found, &truth, 2), 0.5);
        assert_eq!(recall_k_at_k(&found, &truth, 3), 0.5);
        assert_eq!(recall_1_at(&found, &truth, 1), 0.0);
        assert_eq!(recall_1_at(&found, &truth, 2), 0.5);
        assert_eq!(recall_1_at(&found, &truth, 10), 1.0);
        assert_eq!(recall_k_at_k(&[vec![1]], &[vec![1, 2]], 2), 0.5);
    }
}
