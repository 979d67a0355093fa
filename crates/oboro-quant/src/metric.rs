//! Distances, and how each becomes an inner product plus an offset.

/// How nearness is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// Negated inner product.
    InnerProduct,
    /// One minus the cosine of the angle.
    Cosine,
    /// Negated Lorentz inner product `x0 y0 - sum xi yi` of points on the
    /// hyperboloid; monotone in hyperbolic distance.
    Lorentz,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 4] = [Self::L2, Self::InnerProduct, Self::Cosine, Self::Lorentz];

    /// `l2`, `ip`, `cosine` or `lorentz`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::InnerProduct => "ip",
            Self::Cosine => "cosine",
            Self::Lorentz => "lorentz",
        }
    }

    /// The metric of this [`Self::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Distance of two vectors of the caller's space; smaller is nearer.
    ///
    /// Values beyond the shorter vector are ignored.
    #[must_use]
    pub fn distance(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::L2 => sum_by(a, b, |x, y| (x - y) * (x - y)),
            Self::InnerProduct => -dot(a, b),
            Self::Cosine => {
                let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
                if norms > 0.0 {
                    1.0 - dot(a, b) / norms
                } else {
                    1.0
                }
            }
            Self::Lorentz => match (a.split_first(), b.split_first()) {
                (Some((a0, a)), Some((b0, b))) => a0 * b0 - dot(a, b),
                _ => 0.0,
            },
        }
    }

    /// Turns a vector to be indexed into the form that is quantized: cosine
    /// normalises (a zero vector stays), the others change nothing.
    pub fn prepare_base(self, vector: &mut [f32]) {
        if self == Self::Cosine {
            normalise(vector);
        }
    }

    /// Turns a query into the form whose inner product with indexed vectors
    /// (plus the offset of [`Self::has_offsets`]) is a similarity: cosine
    /// normalises, Lorentz flips the sign of the time coordinate.
    pub fn prepare_query(self, vector: &mut [f32]) {
        match self {
            Self::Cosine => normalise(vector),
            Self::Lorentz => {
                if let Some(time) = vector.first_mut() {
                    *time = -*time;
                }
            }
            Self::L2 | Self::InnerProduct => {}
        }
    }

    /// Whether a table needs `-|c|^2 / 2` added to the inner products.
    ///
    /// Unit vectors order alike with and without it, what codes stand for does not: it is
    /// shorter than the vector by what quantization lost, and without the term a vector
    /// that lost much seems far. (Word vectors in 200 dimensions, M = 40: 10-recall@10
    /// .94 instead of .42.)
    #[must_use]
    pub const fn has_offsets(self) -> bool {
        matches!(self, Self::L2 | Self::Cosine)
    }
}

fn normalise(vector: &mut [f32]) {
    let norm = dot(vector, vector).sqrt();
    if norm > 0.0 {
        for value in vector {
            *value /= norm;
        }
    }
}

/// Inner product in a fixed order, 16 sums side by side.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_by(a, b, |x, y| x * y)
}

#[inline(always)]
fn sum_by(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let mut sums = [0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest = length - length % LANES;
    for (lane, (&x, &y)) in a[rest..].iter().zip(&b[rest..]).enumerate() {
        sums[lane] += term(x, y);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::from_name("L2 "), None);
    }

    #[test]
    fn distances_of_known_vectors() {
        let (a, b) = ([3.0, 4.0], [1.0, 0.5]);
        assert_eq!(Metric::L2.distance(&a, &b), 16.25);
        assert_eq!(Metric::InnerProduct.distance(&a, &b), -5.0);
        assert_eq!(Metric::Cosine.distance(&a, &[6.0, 8.0]), 0.0);
        assert_eq!(Metric::Cosine.distance(&a, &[0.0, 0.0]), 1.0);
        assert_eq!(Metric::Lorentz.distance(&a, &b), 1.0);
    }

    #[test]
    fn prepared_inner_products_order_as_distances_do() {
        let mut state = 1u32;
        let mut vector = |n: usize| -> Vec<f32> {
            (0..n)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 24) as f32 - 0.5
                })
                .collect()
        };
        for metric in Metric::ALL {
            for dimension in [1, 2, 17, 128] {
                let query = vector(dimension);
                let mut prepared = query.clone();
                metric.prepare_query(&mut prepared);
                let bases: Vec<_> = (0..8).map(|_| vector(dimension)).collect();
                for pair in bases.windows(2) {
                    let similarity = |base: &Vec<f32>| {
                        let mut base = base.clone();
                        metric.prepare_base(&mut base);
                        let offset = if metric.has_offsets() {
                            -dot(&base, &base) / 2.0
                        } else {
                            0.0
                        };
                        dot(&prepared, &base) + offset
                    };
                    let distances =
                        metric.distance(&query, &pair[0]) - metric.distance(&query, &pair[1]);
                    let similarities = similarity(&pair[1]) - similarity(&pair[0]);
                    let scale = if metric == Metric::L2 { 2.0 } else { 1.0 };
                    assert!(
                        (distances - scale * similarities).abs() < 1e-4,
                        "{} {dimension}: {distances} {similarities}",
                        metric.name()
                    );
                }
            }
        }
    }
}
