//! The metrics of one query's list.
//!
//! `relevant[i]` says whether the item of rank `i + 1` has the query's class;
//! `total` is R, the number of such items in the whole gallery.

/// Whether any of the first `k` is relevant.
#[must_use]
pub fn hit_at(relevant: &[bool], k: usize) -> bool {
    relevant.iter().take(k).any(|&r| r)
}

/// The relevant share of the first `k`; with `k = R` this is R-precision.
#[must_use]
pub fn precision_at(relevant: &[bool], k: usize) -> f64 {
    if k == 0 {
        return 0.0;
    }
    relevant.iter().take(k).filter(|&&r| r).count() as f64 / k as f64
}

/// MAP@R's term: `1/R` times the sum of the precisions at the relevant ranks
/// up to R.
#[must_use]
pub fn average_precision_at_r(relevant: &[bool], total: usize) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let mut hits = 0usize;
    let mut sum = 0.0;
    for (rank, _) in (1..).zip(relevant.iter().take(total)).filter(|(_, r)| **r) {
        hits += 1;
        sum += hits as f64 / f64::from(rank);
    }
    sum / total as f64
}

/// nDCG@k: the discounted gain of the first `k` over that of an ideal list.
#[must_use]
pub fn ndcg_at(relevant: &[bool], total: usize, k: usize) -> f64 {
    if total == 0 || k == 0 {
        return 0.0;
    }
    let gain = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let found: f64 = relevant
        .iter()
        .take(k)
        .enumerate()
        .filter(|(_, r)| **r)
        .map(|(rank, _)| gain(rank))
        .sum();
    found / (0..k.min(total)).map(gain).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 5e-5, "{a} {b}");
        let list = [false, true, true];
        near(ndcg_at(&list, 2, 3), 0.6934);
        near(average_precision_at_r(&list, 2), 0.25);
        let list = [true, false, true];
        near(ndcg_at(&list, 2, 3), 0.9197);
        near(average_precision_at_r(&list, 2), 0.5);
        near(ndcg_at(&[true, false, true, false], 5, 4), 0.5856);
    }

    #[test]
    fn ndcg_at_one_is_recall_at_one() {
        for list in [[true, false], [false, true]] {
            assert_eq!(ndcg_at(&list, 3, 1), f64::from(u8::from(hit_at(&list, 1))));
            assert_eq!(precision_at(&list, 1), ndcg_at(&list, 3, 1));
        }
    }

    #[test]
    fn nothing_to_find_counts_nothing() {
        assert_eq!(ndcg_at(&[false], 0, 5), 0.0);
        assert_eq!(average_precision_at_r(&[], 0), 0.0);
        assert_eq!(precision_at(&[true], 0), 0.0);
        // A list shorter than k misses what is not in it.
        assert_eq!(precision_at(&[true], 4), 0.25);
    }
}
