//! The hyperbolic proxies of a loss, for the disk.

use crate::LearnError;
use crate::geometry::Ball;
use crate::losses::similarity::Distance;
use crate::losses::{AnyLoss, Settings, Term};
use oboro_vectors::Matrix;

/// Proxies as points of the Poincaré ball.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxies {
    /// The points, class after class.
    pub points: Matrix<f32>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// The curvature's magnitude.
    pub curvature: f64,
}

impl Proxies {
    /// The hyperbolic proxies of a loss that was built with these settings;
    /// those of the first term that has some, `None` where none has.
    ///
    /// # Errors
    /// When the curvature is out of range.
    pub fn of(loss: &AnyLoss, settings: &Settings) -> Result<Option<Self>, LearnError> {
        let mut leaves = Vec::new();
        collect(settings, &mut leaves);
        for (term, settings) in loss.terms().iter().zip(leaves) {
            let (tangents, c, r) = match (term, settings) {
                (Term::Chest(loss), Settings::Chest(of)) => match loss.hyperbolic() {
                    Some(proxies) => (proxies, of.c, of.r),
                    None => continue,
                },
                (Term::Proxies(loss), Settings::Proxies(of)) => match of.distance {
                    Distance::Poincare { c, r } => (loss.proxies(), c, r),
                    _ => continue,
                },
                _ => continue,
            };
            let [local, classes, length] = tangents.dims();
            let ball = Ball::<f64>::new(c)?;
            let values: Vec<f64> = tangents.into_data().iter::<f64>().collect();
            let mut points = Vec::with_capacity(values.len());
            let mut labels = Vec::with_capacity(local * classes);
            for class in 0..classes {
                for number in 0..local {
                    let tangent = &values[(number * classes + class) * length..][..length];
                    let point = ball.exp0(&Ball::clip(tangent, r));
                    points.extend(point.iter().map(|&value| value as f32));
                    labels.push(class as u32);
                }
            }
            return Ok(Some(Self {
                points: Matrix::new(length, points)?,
                labels,
                curvature: c,
            }));
        }
        Ok(None)
    }
}

/// The losses of nested sums, in the order of the terms that they become.
fn collect<'a>(settings: &'a Settings, leaves: &mut Vec<&'a Settings>) {
    match settings {
        Settings::Sum { terms } => {
            for part in terms {
                collect(&part.of, leaves);
            }
        }
        leaf => leaves.push(leaf),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::cpu;
    use crate::losses::{Dimensions, Weighted};
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn proxies(settings: &Settings) -> Option<Proxies> {
        let dimensions = Dimensions {
            euclidean: 8,
            hyperbolic: Some(5),
        };
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let loss = settings.build(3, dimensions, &cpu(), &mut rng).unwrap();
        Proxies::of(&loss, settings).unwrap()
    }

    #[test]
    fn hyperbolic_losses_have_proxies_in_the_ball() {
        let named = |name| Settings::named(name).unwrap();
        let weighted = |of| Weighted { weight: 1.0, of };
        let sum = Settings::Sum {
            terms: vec![weighted(named("proxy-anchor")), weighted(named("chest"))],
        };
        for settings in [named("chest"), named("hyperbolic-soft-triple"), sum] {
            let found = proxies(&settings).unwrap();
            assert_eq!((found.points.rows(), found.points.dimension()), (30, 5));
            assert_eq!(found.labels[..11], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            let ball = Ball::new(found.curvature as f32).unwrap();
            assert!(found.points.iter().all(|point| ball.contains(point)));
        }
        for name in ["proxy-anchor", "multi-similarity", "tangent-soft-triple"] {
            assert!(proxies(&named(name)).is_none(), "{name}");
        }
    }
}
