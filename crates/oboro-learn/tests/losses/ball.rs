//! The ball on tensors against the ball on slices and its closed form.

use crate::common::*;
use burn::tensor::{DType, Tensor};
use oboro_learn::geometry::tensor::{
    clip, distances, distances_to_tangents, exp0, exp0_clipped, flat_distances, log0, normalize,
    paired_distances,
};
use oboro_learn::geometry::{Ball, ancestor_depth, hyphc_term};
use oboro_learn::losses::tree::{ancestor_depths, hyphc};
use proptest::prelude::*;

const LENGTH: usize = 4;

fn rows(count: usize) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-2.0f64..2.0, count * LENGTH)
}

fn tensor(values: &[f64]) -> Tensor<2> {
    leaf(values.to_vec(), [values.len() / LENGTH, LENGTH], DType::F64)
}

fn row(values: &[f64], at: usize) -> &[f64] {
    &values[at * LENGTH..][..LENGTH]
}

fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn maps_are_those_of_slices(u in rows(3), c in 0.05f64..1.5, r in 0.3f64..2.5) {
        let ball = Ball::new(c).unwrap();
        let mapped = values(exp0(tensor(&u), c));
        let clipped = values(clip(tensor(&u), r));
        let both = values(exp0_clipped(tensor(&u), c, r));
        let back = values(log0(exp0_clipped(tensor(&u), c, r), c));
        for n in 0..3 {
            let u = row(&u, n);
            prop_assert!(close(row(&mapped, n), &ball.exp0(u), 1e-12));
            let short = Ball::clip(u, r);
            prop_assert!(close(row(&clipped, n), &short, 1e-12));
            prop_assert!(close(row(&both, n), &ball.exp0(&short), 1e-12));
            prop_assert!(close(row(&back, n), &short, 1e-9));
        }
    }

    #[test]
    fn distances_and_gradients_are_the_closed_form(u in rows(3), v in rows(3), c in 0.05f64..1.0) {
        let ball = Ball::new(c).unwrap();
        let (x, y) = (values(exp0_clipped(tensor(&u), c, 2.0)), values(exp0_clipped(tensor(&v), c, 2.0)));
        let (tx, ty) = (tensor(&x), tensor(&y));
        let paired = paired_distances(tx.clone(), ty.clone(), c);
        let found = values(paired.clone());
        let gradients = paired.sum().backward();
        let (gx, gy) = (gradient(&tx, &gradients), gradient(&ty, &gradients));
        for (n, found) in found.iter().enumerate() {
            prop_assume!(ball.distance(row(&x, n), row(&y, n)) > 1e-3);
            let (d, slope) = ball.distance_and_gradient(row(&x, n), row(&y, n));
            prop_assert!((found - d).abs() < 1e-12 * (1.0 + d));
            prop_assert!(close(row(&gx, n), &slope, 1e-9));
            let (_, slope) = ball.distance_and_gradient(row(&y, n), row(&x, n));
            prop_assert!(close(row(&gy, n), &slope, 1e-9));
        }
    }

    #[test]
    fn all_distances_from_one_product(u in rows(2), v in rows(3), c in 0.05f64..1.0) {
        let r = 1.8;
        let ball = Ball::new(c).unwrap();
        let (z, o) = (values(exp0_clipped(tensor(&u), c, r)), values(exp0_clipped(tensor(&v), c, r)));
        let (tz, to, tv) = (tensor(&z), tensor(&o), tensor(&v));
        let all = values(distances(to.clone(), tz.clone(), c));
        let from_tangents = distances_to_tangents(tv.clone(), tz.clone(), c, r);
        let same = values(from_tangents.clone());
        let gradients = from_tangents.sum().backward();
        let direct = distances(exp0_clipped(tv.clone(), c, r), tz.clone(), c).sum().backward();
        for proxy in 0..3 {
            for item in 0..2 {
                let d = ball.distance(row(&o, proxy), row(&z, item));
                prop_assume!(d > 1e-3);
                prop_assert!((all[proxy * 2 + item] - d).abs() < 1e-9 * (1.0 + d));
                prop_assert!((same[proxy * 2 + item] - d).abs() < 1e-9 * (1.0 + d));
            }
        }
        // The same gradient by way of the points and past them.
        prop_assert!(close(&gradient(&tv, &gradients), &gradient(&tv, &direct), 1e-7));
        prop_assert!(close(&gradient(&tz, &gradients), &gradient(&tz, &direct), 1e-7));
        for item in 0..2 {
            let mut slope = [0.0; LENGTH];
            for proxy in 0..3 {
                let (_, g) = ball.distance_and_gradient(row(&z, item), row(&o, proxy));
                for (s, g) in slope.iter_mut().zip(g) {
                    *s += g;
                }
            }
            prop_assert!(close(row(&gradient(&tz, &direct), item), &slope, 1e-7));
        }
    }

    #[test]
    fn flat_distances_are_the_limit_without_curvature(u in rows(2), v in rows(3)) {
        let c = 1e-9;
        let curved = values(distances_to_tangents(tensor(&v), exp0_clipped(tensor(&u), c, 2.0), c, 2.0));
        let flat = values(flat_distances(tensor(&v), clip(tensor(&u), 2.0), 2.0));
        prop_assert!(close(&flat, &curved, 1e-6), "{flat:?} {curved:?}");
    }

    #[test]
    fn trees_are_those_of_slices(u in rows(3), v in rows(3)) {
        let ball = Ball::new(1.0).unwrap();
        let (a, b) = (values(exp0_clipped(tensor(&u), 1.0, 1.5)), values(exp0_clipped(tensor(&v), 1.0, 1.5)));
        let depths = values(ancestor_depths(tensor(&a), tensor(&b)));
        for (n, found) in depths.iter().enumerate() {
            let depth = ancestor_depth(&ball, row(&a, n), row(&b, n));
            prop_assert!((found - depth).abs() < 1e-6, "{found} {depth}");
        }
        let similar = [0.2, 0.7, 0.4];
        let term = hyphc_term(&ball, [row(&a, 0), row(&a, 1), row(&b, 2)], similar, 0.3);
        let points = [row(&a, 0), row(&a, 1), row(&b, 2)].map(tensor);
        let found = hyphc(points, leaf(similar.to_vec(), [1, 3], DType::F64).detach(), 0.3);
        prop_assert!((scalar(&found) - term).abs() < 1e-5);
    }
}

#[test]
fn the_ball_is_geoopts() {
    for pair in list(&fixture("poincare")["pairs"]) {
        let c = pair["c"].as_f64().unwrap();
        let field = |name: &str| flat(&pair[name]);
        let mapped = values(exp0(tensor(&field("u")), c));
        assert!(close(&mapped, &field("x"), 1e-13));
        let (x, y) = (tensor(&field("x")), tensor(&field("y")));
        let distance = paired_distances(x.clone(), y, c);
        let expected = pair["distance"].as_f64().unwrap();
        // To the digits that the points themselves carry.
        let tolerance = if expected < 1e-3 { 1e-9 } else { 1e-12 };
        assert!((values(distance.clone())[0] / expected - 1.0).abs() < tolerance);
        let slope = gradient(&x, &distance.sum().backward());
        let tolerance = if expected < 1e-3 { 1e-7 } else { 1e-10 };
        assert!(close(&slope, &field("gradient"), tolerance), "{slope:?}");
    }
}

#[test]
fn near_pairs_keep_their_digits_in_single_precision() {
    let c = 0.1;
    let wide = Ball::new(c).unwrap();
    let x: Vec<f64> = (0..40).map(|n| f64::from(n * 7 % 11) / 20.0).collect();
    // What single precision holds.
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v as f32)).collect();
    let y: Vec<f64> = x.iter().map(|&v| f64::from((v + 3e-5) as f32)).collect();
    let narrow = |v: &[f64]| leaf(v.to_vec(), [10, LENGTH], DType::F32);
    let found = values(paired_distances(narrow(&x), narrow(&y), c));
    let mut worst = 0.0f64;
    for (n, found) in found.iter().enumerate() {
        let exact = wide.distance(row(&x, n), row(&y, n));
        worst = worst.max((found / exact - 1.0).abs());
    }
    assert!(worst < 1e-6, "{worst}");
    // By one product such pairs are lost; what is said instead is bounded.
    let lost = values(distances(narrow(&x), narrow(&y), c));
    assert!((0..10).all(|n| lost[n * 11] < 5e-3), "{lost:?}");
}

#[test]
fn normalized_rows_have_length_one_and_zero_stays_finite() {
    let x = leaf(vec![3.0, 4.0, 0.0, 0.0, 1e-3, 0.0], [3, 2], DType::F32);
    let unit = normalize(x.clone());
    let found = values(unit.clone());
    assert!(close(&found, &[0.6, 0.8, 0.0, 0.0, 1.0, 0.0], 1e-6));
    let slope = gradient(&x, &unit.sum().backward());
    assert!(slope.iter().all(|g| g.is_finite()), "{slope:?}");
}
