//! Losses stay finite where points fall together, lie far out or have nothing
//! against them.

use crate::common::*;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor};
use oboro_learn::backend::cpu_autodiff;
use oboro_learn::geometry::tensor::{distances, paired_distances};
use oboro_learn::losses::{AnyLoss, Dimensions, Embeddings, Loss, Settings};

const LENGTH: usize = 6;

fn build(name: &str, classes: usize) -> AnyLoss {
    let dimensions = Dimensions {
        euclidean: LENGTH,
        hyperbolic: Some(LENGTH),
    };
    Settings::named(name)
        .unwrap()
        .build(classes, dimensions, &cpu_autodiff(), &mut rng())
        .unwrap()
}

#[track_caller]
fn finite(
    what: &str,
    loss: &AnyLoss,
    embeddings: &Embeddings,
    labels: &[usize],
    heads: &[Tensor<2>],
) {
    let value = loss.forward(embeddings, labels, &mut rng()).unwrap();
    assert!(scalar(&value).is_finite(), "{what}: {}", scalar(&value));
    let gradients = value.backward();
    for head in heads {
        let slope = gradient(head, &gradients);
        assert!(slope.iter().all(|g| g.is_finite()), "{what}: {slope:?}");
        // Nor may a near pair make it explode; of heads that give next to
        // nothing the normalisation alone has a gradient of a million.
        let limit = 1e8;
        assert!(slope.iter().all(|g| g.abs() < limit), "{what}: {slope:?}");
    }
    struct Finite<'a>(&'a burn::tensor::Gradients, &'a str);
    impl burn::module::ModuleVisitor for Finite<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let slope = gradient(&param.val(), self.0);
            assert!(slope.iter().all(|g| g.is_finite()), "{}", self.1);
        }
    }
    loss.visit(&mut Finite(&gradients, what));
}

/// The same parameters, times a factor.
struct Scaled(f64);

impl ModuleMapper for Scaled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|t| Tensor::from_inner(t.inner().mul_scalar(self.0)).require_grad())
    }
}

#[test]
fn all_losses_on_all_odd_batches() {
    let spread = draw(8 * LENGTH, 1);
    let one = draw(LENGTH, 2);
    let same: Vec<f64> = one.iter().cycle().take(8 * LENGTH).copied().collect();
    let near: Vec<f64> = same
        .iter()
        .zip(&spread)
        .map(|(a, b)| a + 1e-6 * b)
        .collect();
    let far: Vec<f64> = spread.iter().map(|v| v * 1e6).collect();
    let tiny: Vec<f64> = spread.iter().map(|v| v * 1e-12).collect();
    let zero = vec![0.0; 8 * LENGTH];
    let kinds = [
        ("spread", &spread),
        ("same", &same),
        ("near", &near),
        ("far", &far),
        ("tiny", &tiny),
        ("zero", &zero),
    ];
    let mixed = [0, 0, 1, 1, 2, 2, 3, 3];
    for name in Settings::NAMES {
        for (kind, x) in kinds {
            for (labels, classes) in [
                (mixed, 4),
                ([1; 8], 4),
                ([0; 8], 1),
                ([0, 1, 2, 3, 4, 5, 6, 7], 8),
            ] {
                let what = format!("{name} {kind} {labels:?}");
                let (embeddings, heads) = batch(x.clone(), x.clone(), 8);
                finite(&what, &build(name, classes), &embeddings, &labels, &heads);
            }
        }
        let (embeddings, heads) = batch(one.clone(), one.clone(), 1);
        finite(
            &format!("{name} alone"),
            &build(name, 4),
            &embeddings,
            &[2],
            &heads,
        );
        for factor in [0.0, 1e-6, 1e6] {
            let loss = build(name, 4).map(&mut Scaled(factor));
            let (embeddings, heads) = batch(spread.clone(), spread.clone(), 8);
            let value = loss.forward(&embeddings, &mixed, &mut rng()).unwrap();
            assert!(scalar(&value).is_finite(), "{name} {factor}");
            let gradients = value.backward();
            for head in heads {
                let slope = gradient(&head, &gradients);
                assert!(slope.iter().all(|g| g.is_finite()), "{name} {factor}");
            }
        }
    }
}

#[test]
fn distances_of_equal_and_border_points_are_finite_with_their_gradients() {
    for dtype in [DType::F32, DType::F64] {
        for c in [0.1f64, 1.0] {
            // At the origin, inside, at the border and beyond it.
            for size in [0.0, 0.3, 1.0 - 1e-9, 1.0, 1.5] {
                let size: f64 = size;
                let x = vec![size / c.sqrt(), 0.0, 0.0];
                let x = leaf(x, [1, 3], dtype);
                for d in [
                    paired_distances(x.clone(), x.clone(), c),
                    distances(x.clone(), x.clone(), c),
                    distances(x.clone(), x.clone().mul_scalar(0.5), c),
                ] {
                    let value = values(d.clone());
                    assert!(value[0].is_finite(), "{dtype:?} {c} {size} {value:?}");
                    let slope = gradient(&x, &d.sum().backward());
                    assert!(
                        slope.iter().all(|g| g.is_finite()),
                        "{dtype:?} {c} {size} {slope:?}"
                    );
                }
            }
        }
    }
}
