//! Gradients against finite differences where there is no fixture.

use crate::common::*;
use crate::fixtures::plain;
use burn::tensor::DType;
use oboro_learn::geometry::tensor::{exp0_clipped, normalize};
use oboro_learn::losses::chest::{ChestLoss, ChestSettings};
use oboro_learn::losses::pooling::Pooling;
use oboro_learn::losses::proxies::{ProxyLoss, ProxySettings};
use oboro_learn::losses::reducer::{Reducer, Side};
use oboro_learn::losses::regulariser::Regulariser;
use oboro_learn::losses::similarity::Distance;
use oboro_learn::losses::{Embeddings, Loss};

/// A slope of `function` in one of its inputs.
fn slope(function: &dyn Fn(&[f64]) -> f64, at: &[f64], n: usize) -> f64 {
    let moved = |by: f64| {
        let mut at = at.to_vec();
        at[n] += by;
        function(&at)
    };
    (moved(1e-6) - moved(-1e-6)) / 2e-6
}

#[test]
fn gradients_without_a_fixture_are_slopes() {
    let (c, r) = (0.1, 2.3);
    let [local, classes, items, length] = [3, 4, 6, 5];
    let labels = [0, 1, 1, 3, 0, 3];
    let softmax = Reducer::Softmax {
        scale: 4.35,
        margin: 0.046,
    };
    let soft = Pooling::SoftTriple { gamma: 0.46 };
    let tangent = plain(Distance::Tangent { c, r }, soft, softmax);
    let anchored = plain(
        Distance::Poincare { c, r },
        Pooling::LogSumExp { gamma: 0.46 },
        Reducer::Anchor {
            alpha: 3.0,
            delta: -2.0,
            positive: Side::Data,
            negative: Side::Class,
        },
    );
    let mut squared = plain(Distance::SquaredEuclidean, Pooling::Max, softmax);
    squared.regularisers = vec![
        Regulariser::Centres { weight: 0.3 },
        Regulariser::Sparse { weight: 0.2 },
    ];
    for mut settings in [tangent, anchored, squared] {
        settings.per_class = local;
        let run = |u: &[f64], v: &[f64]| {
            let u = leaf(u.to_vec(), [items, length], DType::F64);
            let v = leaf(v.to_vec(), [local, classes, length], DType::F64);
            let loss = ProxyLoss::with_proxies(settings.clone(), v, &mut rng()).unwrap();
            let embeddings = Embeddings {
                euclidean: normalize(u.clone()),
                hyperbolic: Some(exp0_clipped(u.clone(), c, r)),
            };
            let value = loss.forward(&embeddings, &labels, &mut rng()).unwrap();
            let gradients = value.backward();
            let found = [
                gradient(&u, &gradients),
                gradient(&loss.proxies(), &gradients),
            ];
            (scalar(&value), found)
        };
        // Some of them beyond the clipping radius.
        let u: Vec<f64> = draw(items * length, 1).iter().map(|v| 2.0 * v).collect();
        let v: Vec<f64> = draw(local * classes * length, 2)
            .iter()
            .map(|v| 2.0 * v)
            .collect();
        let (_, [in_u, in_v]) = run(&u, &v);
        for (n, found) in in_u.iter().enumerate() {
            let slope = slope(&|u| run(u, &v).0, &u, n);
            assert!(
                (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                "{settings:?} {found} {slope}"
            );
        }
        for (n, found) in in_v.iter().enumerate() {
            let slope = slope(&|v| run(&u, v).0, &v, n);
            assert!(
                (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                "{settings:?} {found} {slope}"
            );
        }
    }
}

#[test]
fn the_tree_is_chest_s_as_a_regulariser_of_proxies_too() {
    // CHEST without its Euclidean part and hyperbolic SoftTriple with a tree
    // draw the same triples and are one loss.
    let mut chest = ChestSettings::without_euclidean();
    chest.per_class = 3;
    let proxies = ProxySettings {
        distance: Distance::Poincare { c: 0.1, r: 2.3 },
        per_class: 3,
        pooling: Pooling::SoftTriple { gamma: 0.46 },
        reducer: Reducer::Softmax {
            scale: 4.35,
            margin: 0.046,
        },
        regularisers: vec![Regulariser::Tree {
            weight: 0.5,
            temperature: 0.05,
            triples: 1024,
        }],
    };
    let v = || leaf(draw(3 * 4 * 5, 2), [3, 4, 5], DType::F64);
    let p = leaf(draw(3 * 4 * 5, 3), [3, 4, 5], DType::F64);
    let chest = ChestLoss::with_proxies(chest, p, v(), &mut rng()).unwrap();
    let proxies = ProxyLoss::with_proxies(proxies, v(), &mut rng()).unwrap();
    let z = || {
        hyperbolic(exp0_clipped(
            leaf(draw(30, 1), [6, 5], DType::F64),
            0.1,
            2.3,
        ))
    };
    let labels = [0, 1, 1, 3, 0, 3];
    let one = chest.forward(&z(), &labels, &mut rng()).unwrap();
    let other = proxies.forward(&z(), &labels, &mut rng()).unwrap();
    assert!((scalar(&one) - scalar(&other)).abs() < 1e-12);
    let of_one = gradient(&chest.hyperbolic().unwrap(), &one.backward());
    let of_other = gradient(&proxies.proxies(), &other.backward());
    assert_eq!(of_one, of_other);
    assert!(of_one.iter().any(|&g| g != 0.0));
}
