//! What a loss is made of, as it stands in a configuration file.

use super::chest::ChestSettings;
use super::hier::HierSettings;
use super::pairs::PairSettings;
use super::pooling::Pooling;
use super::proxies::ProxySettings;
use super::reducer::{Reducer, Side};
use super::regulariser::Regulariser;
use super::similarity::Distance;
use super::{AnyLoss, Term};
use crate::LearnError;
use burn::tensor::Device;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// A loss and its settings.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use oboro_learn::losses::Settings;
/// let chosen = Settings::named("soft-triple")?;
/// let text = serde_json::to_string(&chosen)?;
/// assert!(text.contains(r#""loss":"proxies""#), "{text}");
/// let read: Settings = serde_json::from_str(&text)?;
/// assert_eq!(read, chosen);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loss", rename_all = "kebab-case")]
pub enum Settings {
    /// Proxies: a distance, a pooling, a reducer and regularisers.
    Proxies(ProxySettings),
    /// Pairs within the batch: Multi-Similarity.
    Pairs(PairSettings),
    /// Ancestors in the ball, in the style of HIER.
    Hier(HierSettings),
    /// CHEST: Euclidean and hyperbolic proxies with a tree over them.
    Chest(ChestSettings),
    /// A weighted sum of losses.
    Sum {
        /// The losses with their weights.
        terms: Vec<Weighted>,
    },
}

/// A loss in a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// What the loss is multiplied with.
    pub weight: f64,
    /// The loss.
    pub of: Settings,
}

/// Lengths of the embeddings that a loss is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimensions {
    /// Of the Euclidean embedding.
    pub euclidean: usize,
    /// Of the hyperbolic embedding, where the network makes one.
    pub hyperbolic: Option<usize>,
}

impl Settings {
    /// The names that [`Self::named`] knows.
    pub const NAMES: [&'static str; 17] = [
        "proxy-anchor",
        "proxy-nca++",
        "soft-triple",
        "sparse-soft-triple",
        "multi-similarity",
        "mpa-class-class",
        "mpa-class-data",
        "mpa-data-class",
        "mpa-data-data",
        "hyperbolic-soft-triple",
        "tangent-soft-triple",
        "hier",
        "chest",
        "chest-without-euclidean",
        "chest-without-hyperbolic",
        "chest-without-tree",
        "chest-control",
    ];

    /// The loss of that name with the values its paper (or the documentation
    /// of [`super`], where none is published) starts from.
    ///
    /// # Errors
    /// When the name is none of [`Self::NAMES`].
    pub fn named(name: &str) -> Result<Self, LearnError> {
        use Side::{Class, Data};
        Ok(match name {
            "proxy-anchor" => Self::proxy_anchor(),
            "proxy-nca++" => Self::proxy_nca(),
            "soft-triple" => Self::soft_triple(),
            "sparse-soft-triple" => Self::sparse_soft_triple(),
            "multi-similarity" => Self::Pairs(PairSettings::default()),
            "mpa-class-class" => Self::mpa(Class, Class),
            "mpa-class-data" => Self::mpa(Class, Data),
            "mpa-data-class" => Self::mpa(Data, Class),
            "mpa-data-data" => Self::mpa(Data, Data),
            "hyperbolic-soft-triple" => Self::hyperbolic_soft_triple(),
            "tangent-soft-triple" => Self::tangent_soft_triple(),
            "hier" => Self::Hier(HierSettings::default()),
            "chest" => Self::Chest(ChestSettings::default()),
            "chest-without-euclidean" => Self::Chest(ChestSettings::without_euclidean()),
            "chest-without-hyperbolic" => Self::Chest(ChestSettings::without_hyperbolic()),
            "chest-without-tree" => Self::Chest(ChestSettings::without_tree()),
            "chest-control" => Self::chest_control(),
            _ => {
                return Err(LearnError::Setting {
                    what: "the name of the loss",
                    actual: format!("{name:?}"),
                    wanted: "choose proxy-anchor, proxy-nca++, soft-triple, sparse-soft-triple, multi-similarity, mpa-{class|data}-{class|data}, hyperbolic-soft-triple, tangent-soft-triple, hier, chest, chest-without-{euclidean|hyperbolic|tree} or chest-control",
                });
            }
        })
    }

    /// Proxy Anchor (CVPR 2020): alpha 32, delta 0.1.
    #[must_use]
    pub fn proxy_anchor() -> Self {
        Self::Proxies(ProxySettings {
            per_class: 1,
            reducer: Reducer::anchor(Side::Class, Side::Class),
            regularisers: Vec::new(),
            ..ProxySettings::default()
        })
    }

    /// Proxy-NCA++ (ECCV 2020): scale 9.
    #[must_use]
    pub fn proxy_nca() -> Self {
        Self::Proxies(ProxySettings {
            distance: Distance::SquaredEuclidean,
            per_class: 1,
            reducer: Reducer::Softmax {
                scale: 9.0,
                margin: 0.0,
            },
            regularisers: Vec::new(),
            ..ProxySettings::default()
        })
    }

    /// SoftTriple (ICCV 2019): ten proxies a class, scale 20, gamma 0.1,
    /// margin 0.01, tau 0.2.
    #[must_use]
    pub fn soft_triple() -> Self {
        Self::Proxies(ProxySettings::default())
    }

    /// SoftTriple whose proxies are made sparse by their L1 norm instead of
    /// being drawn together. Reconstructed from the cited building blocks.
    #[must_use]
    pub fn sparse_soft_triple() -> Self {
        Self::Proxies(ProxySettings {
            regularisers: vec![Regulariser::Sparse { weight: 0.01 }],
            ..ProxySettings::default()
        })
    }

    /// A member of the MPA family: `positive` and `negative` say over what
    /// the terms are summed. Four proxies a class, alpha 32, delta 0.1, gamma
    /// 0.1. Reconstructed from the cited building blocks.
    #[must_use]
    pub fn mpa(positive: Side, negative: Side) -> Self {
        Self::Proxies(ProxySettings {
            per_class: 4,
            reducer: Reducer::anchor(positive, negative),
            regularisers: Vec::new(),
            ..ProxySettings::default()
        })
    }

    /// SoftTriple with distances of the Poincaré ball, its scale, gamma and
    /// margin matched to their range.
    #[must_use]
    pub fn hyperbolic_soft_triple() -> Self {
        Self::matched(Distance::Poincare { c: 0.1, r: 2.3 })
    }

    /// The control of [`Self::hyperbolic_soft_triple`]: the same range and
    /// temperatures without curvature.
    #[must_use]
    pub fn tangent_soft_triple() -> Self {
        Self::matched(Distance::Tangent { c: 0.1, r: 2.3 })
    }

    fn matched(distance: Distance) -> Self {
        Self::Proxies(ProxySettings {
            distance,
            pooling: Pooling::SoftTriple { gamma: 0.46 },
            reducer: Reducer::Softmax {
                scale: 4.35,
                margin: 0.046,
            },
            regularisers: Vec::new(),
            ..ProxySettings::default()
        })
    }

    /// CHEST with its hyperbolic branch made flat and without the tree, which
    /// a flat space has no place for: same heads, ranges and temperatures.
    #[must_use]
    pub fn chest_control() -> Self {
        let weighted = |of| Weighted { weight: 1.0, of };
        Self::Sum {
            terms: vec![
                weighted(Self::soft_triple()),
                weighted(Self::tangent_soft_triple()),
            ],
        }
    }

    /// Whether the loss reads the hyperbolic embedding, which the network then
    /// has to make.
    #[must_use]
    pub fn needs_hyperbolic(&self) -> bool {
        match self {
            Self::Proxies(proxies) => proxies.distance.is_hyperbolic(),
            Self::Pairs(_) => false,
            Self::Hier(_) => true,
            Self::Chest(chest) => chest.needs_hyperbolic(),
            Self::Sum { terms } => terms.iter().any(|t| t.of.needs_hyperbolic()),
        }
    }

    /// The curvature's magnitude and the clipping radius of the hyperbolic
    /// embedding that the loss expects; `None` when it reads none.
    #[must_use]
    pub fn curvature(&self) -> Option<(f64, f64)> {
        match self {
            Self::Proxies(proxies) => proxies.distance.curvature(),
            Self::Pairs(_) => None,
            Self::Hier(hier) => Some((hier.c, hier.r)),
            Self::Chest(chest) => chest.needs_hyperbolic().then_some((chest.c, chest.r)),
            Self::Sum { terms } => terms.iter().find_map(|t| t.of.curvature()),
        }
    }

    /// Builds the loss; proxies are drawn from `rng`.
    ///
    /// # Errors
    /// When a setting is outside its range, when there is no class, or when
    /// the loss needs a hyperbolic embedding and `dimensions` has none.
    pub fn build(
        &self,
        classes: usize,
        dimensions: Dimensions,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<AnyLoss, LearnError> {
        let mut terms = Vec::new();
        self.collect(1.0, classes, dimensions, device, rng, &mut terms)?;
        let (weights, terms): (Vec<f64>, Vec<Term>) = terms.into_iter().unzip();
        AnyLoss::new(terms, weights)
    }

    fn collect(
        &self,
        weight: f64,
        classes: usize,
        dimensions: Dimensions,
        device: &Device,
        rng: &mut impl Rng,
        terms: &mut Vec<(f64, Term)>,
    ) -> Result<(), LearnError> {
        let term = match self {
            Self::Proxies(settings) => {
                Term::Proxies(settings.build(classes, dimensions, device, rng)?)
            }
            Self::Pairs(settings) => Term::Pairs(settings.build()?),
            Self::Hier(settings) => Term::Hier(settings.build(dimensions, device, rng)?),
            Self::Chest(settings) => Term::Chest(settings.build(classes, dimensions, device, rng)?),
            Self::Sum { terms: parts } => {
                for part in parts {
                    let weight = weight * part.weight;
                    part.of
                        .collect(weight, classes, dimensions, device, rng, terms)?;
                }
                return Ok(());
            }
        };
        terms.push((weight, term));
        Ok(())
    }
}

impl Dimensions {
    /// The length of the hyperbolic embedding.
    pub(super) fn hyperbolic(self) -> Result<usize, LearnError> {
        self.hyperbolic.ok_or(LearnError::Setting {
            what: "the length of the hyperbolic embedding",
            actual: "none".to_owned(),
            wanted: "give the network a hyperbolic head or choose a Euclidean loss",
        })
    }
}

/// Refuses a number that is not finite and positive.
pub(super) fn positive(what: &'static str, value: f64) -> Result<(), LearnError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(LearnError::Setting {
        what,
        actual: value.to_string(),
        wanted: "give a positive number",
    })
}

/// Refuses a number that is not finite.
pub(super) fn finite(what: &'static str, value: f64) -> Result<(), LearnError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(LearnError::Setting {
        what,
        actual: value.to_string(),
        wanted: "give a finite number",
    })
}

/// Refuses zero.
pub(super) fn at_least_one(what: &'static str, value: usize) -> Result<(), LearnError> {
    if value > 0 {
        return Ok(());
    }
    Err(LearnError::Setting {
        what,
        actual: value.to_string(),
        wanted: "give 1 or more",
    })
}

/// What the proxies of a loss are called where they are too many.
pub(super) const VALUES: &str = "the values of all proxies";

/// Refuses parameters that would only fail to be allocated.
pub(super) fn sized<const D: usize>(
    what: &'static str,
    shape: [usize; D],
) -> Result<(), LearnError> {
    let values = shape
        .iter()
        .try_fold(1usize, |all, &size| all.checked_mul(size));
    if values.is_some_and(|values| values as u64 <= 1 << 32) {
        return Ok(());
    }
    Err(LearnError::Setting {
        what,
        actual: shape.map(|size| size.to_string()).join(" x "),
        wanted: "choose fewer: together at most 4,294,967,296",
    })
}

/// Refuses a curvature and a clipping radius under which points of the ball
/// would come so near the border that single precision loses them.
pub(super) fn ball(c: f64, r: f64) -> Result<(), LearnError> {
    positive("the curvature's magnitude", c)?;
    positive("the clipping radius", r)?;
    if c.sqrt() * r > 6.0 {
        return Err(LearnError::Setting {
            what: "the root of the curvature's magnitude times the clipping radius",
            actual: format!("{:.3}", c.sqrt() * r),
            wanted: "keep it at 6 or less, or points touch the border of the ball",
        });
    }
    Ok(())
}
