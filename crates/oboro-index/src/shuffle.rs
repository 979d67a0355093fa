use rand_core::Rng;

/// A uniformly random order of `count` positions: `order[row]` is the position
/// at which row `row` is stored.
///
/// Vectors are stored in random order for two reasons: the order of the
/// source (often by class or time) must not be visible to the searcher, and
/// the scan's selection needs the best candidates spread evenly over its lanes.
///
/// # Panics
/// If `count` exceeds `u32::MAX`; a segment holds no more.
#[must_use]
pub fn permutation(count: usize, rng: &mut impl Rng) -> Vec<u32> {
    let count = u32::try_from(count).expect("a segment holds at most u32::MAX vectors");
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last as usize, below(last + 1, rng) as usize);
    }
    order
}

/// Uniform below `bound`, by Lemire's multiplication with rejection.
fn below(bound: u32, rng: &mut impl Rng) -> u32 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(rng.next_u32()) * u64::from(bound);
        if product as u32 >= threshold {
            return (product >> 32) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn every_position_once_and_no_order_favoured() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for count in [0, 1, 2, 3, 100, 1000] {
            let mut order = permutation(count, &mut rng);
            order.sort_unstable();
            assert!(order.iter().enumerate().all(|(i, &p)| i == p as usize));
        }
        // All 24 orders of 4, 200 expected of each.
        let mut seen = std::collections::HashMap::new();
        for _ in 0..4800 {
            *seen.entry(permutation(4, &mut rng)).or_insert(0_u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        let chi2: f64 = seen
            .values()
            .map(|&c| (f64::from(c) - 200.0).powi(2) / 200.0)
            .sum();
        // 23 degrees of freedom: above 60 with probability 4e-5.
        assert!(chi2 < 60.0, "{chi2}");
    }
}
