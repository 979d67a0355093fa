//! The first centroids: k-means++ on the inner products of candidates.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::sample::below;

/// Trials for every centroid, the best of which is kept (greedy k-means++).
const TRIALS: usize = 4;

/// Chooses `k` of the candidates, whose inner products `gram` holds,
/// `[candidate][candidate]`, each with a probability that grows with the square
/// of its distance from those already chosen.
///
/// # Security
/// Every step goes over all candidates; what is chosen is told to the keeper
/// as labels.
pub(super) fn choose(gram: &[f32], k: usize, rng: &mut impl CryptoRng) -> Vec<usize> {
    let count = gram.len().isqrt();
    let norm = |a: usize| f64::from(gram[a * count + a]);
    // Noise may make the distance of two that are alike negative.
    let distance =
        |a: usize, b: usize| (norm(a) + norm(b) - 2.0 * f64::from(gram[a * count + b])).max(0.0);
    let mut chosen = vec![below(count, rng)];
    let mut nearest: Zeroizing<Vec<f64>> =
        Zeroizing::new((0..count).map(|a| distance(a, chosen[0])).collect());
    let mut taken = vec![false; count];
    taken[chosen[0]] = true;
    nearest[chosen[0]] = 0.0;
    while chosen.len() < k {
        let total: f64 = nearest.iter().sum();
        let mut best: Option<(f64, usize)> = None;
        for _ in 0..TRIALS {
            let at = f64::from((rng.next_u64() >> 32) as u32) / f64::from(u32::MAX) * total;
            // The first whose running sum passes the draw.
            let (mut sum, mut index) = (0.0, 0);
            for &weight in nearest.iter() {
                sum += weight;
                index += usize::from(sum <= at);
            }
            let index = index.min(count - 1);
            if taken[index] {
                continue;
            }
            let left = (0..count)
                .map(|a| nearest[a].min(distance(a, index)))
                .sum::<f64>();
            if best.is_none_or(|(least, _)| left < least) {
                best = Some((left, index));
            }
        }
        // Where all that is left are duplicates of chosen ones, any will do.
        let next = best.map_or_else(
            || taken.iter().position(|&t| !t).unwrap_or(0),
            |(_, index)| index,
        );
        taken[next] = true;
        for (a, nearest) in nearest.iter_mut().enumerate() {
            *nearest = nearest.min(distance(a, next));
        }
        nearest[next] = 0.0;
        chosen.push(next);
    }
    // The order of choice would tell which lie far out.
    for i in (1..chosen.len()).rev() {
        chosen.swap(i, below(i + 1, rng));
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn every_group_gets_a_centroid() {
        // 8 tight groups on a line, 16 candidates each.
        let points: Vec<f32> = (0..128)
            .map(|i| (i % 8) as f32 * 10.0 + (i / 8) as f32 * 0.01)
            .collect();
        let gram: Vec<f32> = points
            .iter()
            .flat_map(|a| points.iter().map(move |b| a * b))
            .collect();
        for seed in 0..8 {
            let mut rng = ChaCha20Rng::from_seed([seed; 32]);
            let mut groups: Vec<_> = choose(&gram, 8, &mut rng).iter().map(|i| i % 8).collect();
            groups.sort_unstable();
            assert_eq!(groups, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn duplicates_are_chosen_once_each() {
        let gram = vec![1.0; 16 * 16];
        let mut chosen = choose(&gram, 16, &mut ChaCha20Rng::from_seed([1; 32]));
        chosen.sort_unstable();
        assert_eq!(chosen, (0..16).collect::<Vec<_>>());
    }
}
