//! Identities of the Poincaré ball and the stability of its distance.
#![allow(clippy::unwrap_used)]

use oboro_learn::geometry::{Ball, lorentz_distance, lorentz_product};
use proptest::prelude::*;

fn tangent() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-1.0f64..1.0, 4)
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

proptest! {
    #[test]
    fn the_exponential_map_doubles_lengths(u in tangent(), c in 0.01f64..2.0) {
        let ball = Ball::new(c).unwrap();
        let x = ball.exp0(&u);
        prop_assert!(ball.contains(&x));
        let distance = ball.distance(&[0.0; 4], &x);
        prop_assert!((distance - 2.0 * norm(&u)).abs() < 1e-11 * (1.0 + distance));
        for (a, b) in ball.log0(&x).iter().zip(&u) {
            prop_assert!((a - b).abs() < 1e-11);
        }
    }

    #[test]
    fn clipping_shortens_and_nothing_else(u in tangent(), r in 0.1f64..3.0) {
        let clipped = Ball::clip(&u, r);
        prop_assert!(norm(&clipped) <= r * (1.0 + 1e-15));
        if norm(&u) <= r {
            prop_assert_eq!(clipped, u);
        }
    }

    #[test]
    fn the_lift_keeps_distances(u in tangent(), v in tangent(), c in 0.05f64..1.5) {
        let ball = Ball::new(c).unwrap();
        let (x, y) = (ball.exp0(&u), ball.exp0(&v));
        let (p, q) = (ball.lift(&x), ball.lift(&y));
        prop_assert!((lorentz_product(&p, &p) + 1.0).abs() < 1e-9 * p[0] * p[0]);
        let distance = ball.distance(&x, &y);
        let product = (c.sqrt() * distance).cosh();
        prop_assert!((-lorentz_product(&p, &q) - product).abs() < 1e-10 * p[0] * q[0]);
        if distance > 0.1 {
            prop_assert!((lorentz_distance(&p, &q) / c.sqrt() - distance).abs() < 1e-6 * distance);
        }
        for (a, b) in ball.lower(&p).unwrap().iter().zip(&x) {
            prop_assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_is_the_slope(u in tangent(), v in tangent(), c in 0.05f64..1.5) {
        let ball = Ball::new(c).unwrap();
        let (x, y) = (ball.exp0(&u), ball.exp0(&v));
        prop_assume!(ball.distance(&x, &y) > 0.05);
        let (_, gradient) = ball.distance_and_gradient(&x, &y);
        for i in 0..x.len() {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[i] += by;
                ball.distance(&x, &y)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            prop_assert!((gradient[i] - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{} {slope}", gradient[i]);
        }
    }

    #[test]
    fn the_rank_key_orders_as_the_distance(u in tangent(), v in tangent(), w in tangent()) {
        let ball = Ball::new(0.1).unwrap();
        let [x, y, z] = [u, v, w].map(|t| ball.exp0(&t));
        let near = ball.distance(&x, &y) - ball.distance(&x, &z);
        let keys = ball.rank_key(&x, &y) - ball.rank_key(&x, &z);
        prop_assert!(near * keys >= -1e-24);
    }
}

#[test]
fn near_pairs_keep_their_digits_in_single_precision() {
    // Points at distance about 2e-4: the arccosh form loses all of it.
    let c = 0.1f32;
    let ball = Ball::new(c).unwrap();
    let wide = Ball::new(f64::from(c)).unwrap();
    let mut worst = 0.0f64;
    for n in 0..200 {
        let u: Vec<f32> = (0..8)
            .map(|i| ((n * 7 + i * 3) % 11) as f32 / 20.0)
            .collect();
        let x = ball.exp0(&u);
        let y: Vec<f32> = x.iter().map(|v| v + 3e-5).collect();
        let up = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let exact = wide.distance(&up(&x), &up(&y));
        worst = worst.max((f64::from(ball.distance(&x, &y)) / exact - 1.0).abs());
    }
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn equal_far_and_outside_points_are_safe() {
    let ball = Ball::new(1.0f32).unwrap();
    let x = [0.3f32, 0.4];
    assert_eq!(ball.distance_and_gradient(&x, &x), (0.0, vec![0.0, 0.0]));
    // The least distance there is.
    let y = [0.3f32.next_up(), 0.4];
    let (distance, gradient) = ball.distance_and_gradient(&x, &y);
    assert!(
        distance > 0.0 && gradient.iter().all(|g| g.is_finite()),
        "{gradient:?}"
    );
    let tiny = [1e-30f32, 0.0];
    let (_, gradient) = ball.distance_and_gradient(&tiny, &[0.0, 0.0]);
    assert!(gradient.iter().all(|g| g.is_finite()));
    let border = ball.exp0(&[40.0f32, 0.0]);
    let (distance, gradient) = ball.distance_and_gradient(&x, &border);
    assert!(distance.is_infinite());
    assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    assert!(ball.exp0(&[0.0, 0.0]) == [0.0, 0.0]);
    assert!(!ball.contains(&[f32::NAN, 0.0]));
    assert_eq!(ball.lower(&[]), None);
}

#[test]
fn fail_curvatures_that_are_none() {
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Ball::new(c).is_err());
    }
}
