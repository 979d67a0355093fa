//! Exact ranking of opened candidates.

use crate::result::Neighbour;

/// The `k` nearest of `candidates`, nearest first, ties by id.
///
/// The order is total even over unusual floats, so the result is the same on
/// every machine and for every order of arrival.
pub(crate) fn nearest(mut candidates: Vec<Neighbour>, k: usize) -> Vec<Neighbour> {
    let order =
        |a: &Neighbour, b: &Neighbour| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id));
    if k < candidates.len() && k > 0 {
        candidates.select_nth_unstable_by(k - 1, order);
    }
    candidates.truncate(k);
    candidates.sort_unstable_by(order);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_distance_then_id() {
        let list = [(5, 1.0), (3, 0.5), (9, 0.5), (1, 2.0), (2, f32::INFINITY)];
        let candidates: Vec<Neighbour> = list
            .iter()
            .map(|&(id, distance)| Neighbour {
                id,
                distance,
                extra: None,
            })
            .collect();
        for k in 0..=6 {
            let ids: Vec<u64> = nearest(candidates.clone(), k)
                .iter()
                .map(|n| n.id)
                .collect();
            assert_eq!(ids, [3, 9, 5, 1, 2][..k.min(5)], "k = {k}");
        }
    }
}
