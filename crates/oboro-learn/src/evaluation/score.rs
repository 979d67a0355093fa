//! Scores, their lower bounds by single-precision products, and their exact
//! values.

use super::Items;
use crate::LearnError;
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, products};
use oboro_vectors::Matrix;
use rayon::prelude::*;

/// Rows of the gallery whose bounds are computed together: half a megabyte of
/// 512 values each, which stays in the second-level cache.
const TILE: usize = 256;

/// The unit roundoff of single precision.
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// How items are compared.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "score")]
pub enum Score {
    /// The cosine of the angle between the Euclidean embeddings; a zero
    /// vector has cosine 0 with everything.
    Cosine,
    /// The distance between the Euclidean embeddings.
    Euclidean,
    /// The hyperbolic distance in the ball of curvature `-curvature`.
    Hyperbolic {
        /// The curvature's magnitude.
        curvature: f64,
    },
    /// `cosine / euclidean_temperature - lambda * distance /
    /// hyperbolic_temperature`, larger is nearer.
    Fused {
        /// The curvature's magnitude.
        curvature: f64,
        /// What the cosine is divided by.
        euclidean_temperature: f64,
        /// What the hyperbolic distance is divided by.
        hyperbolic_temperature: f64,
        /// The weight of the hyperbolic part.
        lambda: f64,
    },
}

impl Score {
    /// The name in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
            Self::Hyperbolic { .. } => "hyperbolic",
            Self::Fused { .. } => "fused",
        }
    }

    fn check(&self) -> Result<(), LearnError> {
        let positive = |what, value: f64| {
            if value > 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(LearnError::Setting {
                what,
                actual: value.to_string(),
                wanted: "give a positive number",
            })
        };
        match *self {
            Self::Cosine | Self::Euclidean => Ok(()),
            Self::Hyperbolic { curvature } => positive("the curvature's magnitude", curvature),
            Self::Fused {
                curvature,
                euclidean_temperature,
                hyperbolic_temperature,
                lambda,
            } => {
                positive("the curvature's magnitude", curvature)?;
                positive("the Euclidean temperature", euclidean_temperature)?;
                positive("the hyperbolic temperature", hyperbolic_temperature)?;
                positive("the weight lambda", lambda)
            }
        }
    }
}

/// One space's part of a score: a key that is smaller for nearer items, whose
/// lower bound is an inner product plus an offset.
struct Part<'a> {
    kind: Kind,
    queries: &'a Matrix<f32>,
    gallery: &'a Matrix<f32>,
    /// `|x|` for cosine, `|x|^2` for Euclidean, `1 - c|x|^2` for hyperbolic.
    query_values: Vec<f64>,
    gallery_values: Vec<f64>,
    /// Queries as the kernel takes them.
    prepared: Vec<f32>,
    width: usize,
    tiles: Vec<Transposed>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Key: the negated cosine.
    Cosine,
    /// Key: the squared distance.
    Euclidean,
    /// Key: `|x - y|^2 / (1 - c|y|^2)`.
    Hyperbolic { c: f64 },
}

impl<'a> Part<'a> {
    fn new(
        kind: Kind,
        queries: &'a Matrix<f32>,
        gallery: &'a Matrix<f32>,
    ) -> Result<Self, LearnError> {
        if queries.dimension() != gallery.dimension() {
            return Err(LearnError::Length {
                what: "a query's embedding",
                actual: queries.dimension(),
                expected: gallery.dimension(),
            });
        }
        let query_values = kind.values(queries, "the queries")?;
        let gallery_values = kind.values(gallery, "the gallery")?;
        let width = gallery.dimension() + kind.extra();
        let mut prepared = Vec::with_capacity(queries.rows() * width);
        for (row, &value) in queries.iter().zip(&query_values) {
            kind.prepare_query(row, value, &mut prepared);
        }
        let longest = queries.iter().map(|x| dot(x, x)).fold(0.0, f64::max).sqrt();
        let tiles = gallery
            .data()
            .par_chunks(TILE * gallery.dimension())
            .zip(gallery_values.par_chunks(TILE))
            .map(|(rows, values)| {
                let mut laid = Vec::with_capacity(values.len() * width);
                let mut offsets = Vec::with_capacity(values.len());
                for (row, &value) in rows.chunks_exact(gallery.dimension()).zip(values) {
                    kind.prepare_row(row, value, &mut laid);
                    offsets.push(kind.offset(row, value, longest));
                }
                Transposed::new(&laid, values.len(), width, width, &offsets)
            })
            .collect();
        Ok(Self {
            kind,
            queries,
            gallery,
            query_values,
            gallery_values,
            prepared,
            width,
            tiles,
        })
    }

    /// The key in double precision, in one fixed order of operations.
    fn exact(&self, query: usize, item: usize) -> f64 {
        let (x, y) = (self.queries.row(query), self.gallery.row(item));
        match self.kind {
            Kind::Cosine => {
                let norms = self.query_values[query] * self.gallery_values[item];
                if norms > 0.0 { -dot(x, y) / norms } else { 0.0 }
            }
            Kind::Euclidean => squared_distance(x, y),
            Kind::Hyperbolic { .. } => squared_distance(x, y) / self.gallery_values[item],
        }
    }
}

impl Kind {
    /// Coordinates that the kernel's vectors have beyond the embedding's.
    fn extra(self) -> usize {
        match self {
            Self::Cosine => 0,
            Self::Euclidean | Self::Hyperbolic { .. } => 1,
        }
    }

    fn values(self, rows: &Matrix<f32>, what: &'static str) -> Result<Vec<f64>, LearnError> {
        let values: Vec<f64> = rows
            .data()
            .par_chunks(rows.dimension())
            .map(|row| match self {
                Self::Cosine => dot(row, row).sqrt(),
                Self::Euclidean => dot(row, row),
                Self::Hyperbolic { c } => 1.0 - c * dot(row, row),
            })
            .collect();
        if let Self::Hyperbolic { c } = self
            && let Some(row) = values.iter().position(|&gap| gap <= 0.0)
        {
            return Err(LearnError::OutsideBall {
                what,
                row,
                curvature: c,
            });
        }
        Ok(values)
    }

    /// Appends the query so that its product with [`Self::prepare_row`],
    /// taken from the offset, is the key.
    fn prepare_query(self, row: &[f32], value: f64, out: &mut Vec<f32>) {
        match self {
            Self::Cosine => out.extend(row.iter().map(|&v| unit(v, value))),
            Self::Euclidean => {
                out.extend_from_slice(row);
                out.push(value as f32);
            }
            Self::Hyperbolic { c } => {
                out.extend_from_slice(row);
                out.push(((1.0 - value) / c) as f32);
            }
        }
    }

    fn prepare_row(self, row: &[f32], value: f64, out: &mut Vec<f32>) {
        match self {
            Self::Cosine => out.extend(row.iter().map(|&v| unit(v, value))),
            Self::Euclidean => {
                out.extend(row.iter().map(|&v| 2.0 * v));
                out.push(-1.0);
            }
            Self::Hyperbolic { .. } => {
                out.extend(row.iter().map(|&v| (2.0 * f64::from(v) / value) as f32));
                out.push((-1.0 / value) as f32);
            }
        }
    }

    /// The key's part of the row alone, less the most that rounding can add:
    /// a sum of n products in single precision is off by at most n + 1
    /// roundings of the sum of their magnitudes, and every input carries a
    /// few roundings of its own.
    fn offset(self, row: &[f32], value: f64, longest_query: f64) -> f32 {
        let roundings = (row.len() + 16) as f64 * UNIT * 1.02;
        let squared = dot(row, row);
        let magnitude = (longest_query + squared.sqrt()).powi(2);
        match self {
            Self::Cosine => (-roundings) as f32,
            Self::Euclidean => {
                (squared - roundings * magnitude - f64::from(f32::MIN_POSITIVE)) as f32
            }
            Self::Hyperbolic { .. } => {
                ((squared - roundings * magnitude) / value - f64::from(f32::MIN_POSITIVE)) as f32
            }
        }
    }
}

fn unit(value: f32, norm: f64) -> f32 {
    if norm > 0.0 {
        (f64::from(value) / norm) as f32
    } else {
        0.0
    }
}

/// Queries and a gallery made ready for one score.
pub(super) struct Prepared<'a> {
    parts: Vec<Part<'a>>,
    fusion: Option<Fusion>,
    rows: usize,
}

#[derive(Clone, Copy)]
struct Fusion {
    c: f64,
    /// `1 / euclidean_temperature`.
    cosine: f64,
    /// `2 lambda / (sqrt(c) hyperbolic_temperature)`: what an arsinh weighs.
    arsinh: f64,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        score: &Score,
        queries: &Items<'a>,
        gallery: &Items<'a>,
    ) -> Result<Self, LearnError> {
        score.check()?;
        let missing = |space: &'static str| LearnError::Setting {
            what: "the score",
            actual: score.name().to_owned(),
            wanted: space,
        };
        let euclidean = |kind| match (queries.euclidean, gallery.euclidean) {
            (Some(q), Some(g)) => Part::new(kind, q, g),
            _ => Err(missing("it needs the Euclidean embeddings of the items")),
        };
        let hyperbolic = |c| match (queries.hyperbolic, gallery.hyperbolic) {
            (Some(q), Some(g)) => Part::new(Kind::Hyperbolic { c }, q, g),
            _ => Err(missing("it needs the hyperbolic embeddings of the items")),
        };
        let mut fusion = None;
        let parts = match *score {
            Score::Cosine => vec![euclidean(Kind::Cosine)?],
            Score::Euclidean => vec![euclidean(Kind::Euclidean)?],
            Score::Hyperbolic { curvature } => vec![hyperbolic(curvature)?],
            Score::Fused {
                curvature,
                euclidean_temperature,
                hyperbolic_temperature,
                lambda,
            } => {
                fusion = Some(Fusion {
                    c: curvature,
                    cosine: 1.0 / euclidean_temperature,
                    arsinh: 2.0 * lambda / (curvature.sqrt() * hyperbolic_temperature),
                });
                vec![euclidean(Kind::Cosine)?, hyperbolic(curvature)?]
            }
        };
        Ok(Self {
            parts,
            fusion,
            rows: gallery.len(),
        })
    }

    /// Tiles of the gallery.
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// The key of an item, smaller is nearer.
    pub(super) fn exact(&self, query: usize, item: usize) -> f64 {
        let keys = self.parts.iter().map(|part| part.exact(query, item));
        match (self.fusion, self.parts.as_slice()) {
            (Some(fusion), [cosine, hyperbolic]) => {
                let gap = hyperbolic.query_values[query];
                let z = fusion.c * hyperbolic.exact(query, item) / gap;
                fusion.cosine * cosine.exact(query, item) + fusion.arsinh * z.sqrt().asinh()
            }
            _ => keys.sum(),
        }
    }

    /// Lower bounds of the keys of a tile's items for the queries from
    /// `first` on, in rows of [`TILE`]; returns the first item and their
    /// number.
    pub(super) fn bounds(
        &self,
        tile: usize,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
    ) -> (usize, usize) {
        let arch = Arch::detect();
        for (part, out) in self.parts.iter().zip(&mut scratch.keys) {
            let rows = &part.tiles[tile];
            out.clear();
            out.resize(count * rows.count().next_multiple_of(16), 0.0);
            let queries = &part.prepared[first * part.width..][..count * part.width];
            products(arch, queries, rows, out);
        }
        let rows = self.parts[0].tiles[tile].count();
        scratch.stride = rows.next_multiple_of(16);
        if let (Some(fusion), [cosine, hyperbolic]) = (self.fusion, &mut scratch.keys) {
            for (query, (keys, squares)) in cosine
                .chunks_exact_mut(scratch.stride)
                .zip(hyperbolic.chunks_exact(scratch.stride))
                .enumerate()
            {
                let gap = self.parts[1].query_values[first + query];
                arch.vectorize(
                    #[inline(always)]
                    || fusion.bound(keys, squares, gap),
                );
            }
        }
        (tile * TILE, rows)
    }
}

impl Fusion {
    /// Turns lower bounds of the two keys into one of the fused key.
    #[inline(always)]
    fn bound(self, keys: &mut [f32], squares: &[f32], gap: f64) {
        let scale = (self.c / gap * (1.0 - 8.0 * UNIT)) as f32;
        let (cosine, arsinh) = (self.cosine as f32, self.arsinh as f32);
        // Each term and the sum are rounded a few times.
        let slack = (16.0 * UNIT * self.cosine + f64::from(f32::MIN_POSITIVE)) as f32;
        for (key, &square) in keys.iter_mut().zip(squares) {
            let z = if square > 0.0 { square * scale } else { 0.0 };
            let far = arsinh * arsinh_below(z.sqrt());
            *key = *key * cosine + far - far * (16.0 * UNIT as f32) - slack;
        }
    }
}

/// A lower bound of `arsinh(w)` for `w >= 0`, within 1e-4 of it.
#[inline(always)]
fn arsinh_below(w: f32) -> f32 {
    /// log2(1 + m) on [0, 1], off by 1.7e-5 at most.
    const COEFFICIENTS: [f32; 6] = [
        1.651_467e-5,
        1.441_492_4,
        -0.706_486_46,
        0.409_470_3,
        -0.187_488_6,
        0.043_004_956,
    ];
    /// More than the polynomial's error and the roundings.
    const SLACK: f32 = 5e-5;
    // ln(v) = ln 2 * (exponent + log2(mantissa)), v = w + sqrt(1 + w^2) >= 1.
    let w = if w < 1e18 { w } else { 1e18 };
    let bits = (w + (1.0 + w * w).sqrt()).to_bits();
    let exponent = ((bits >> 23) as i32 - 127) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000) - 1.0;
    let mut log2 = COEFFICIENTS[5];
    log2 = log2 * m + COEFFICIENTS[4];
    log2 = log2 * m + COEFFICIENTS[3];
    log2 = log2 * m + COEFFICIENTS[2];
    log2 = log2 * m + COEFFICIENTS[1];
    log2 = log2 * m + COEFFICIENTS[0];
    let bound = (exponent + log2) * std::f32::consts::LN_2 - SLACK - exponent * 1e-6;
    if bound > 0.0 { bound } else { 0.0 }
}

/// Bounds on their way from the kernel to the ranking.
#[derive(Default)]
pub(super) struct Scratch {
    keys: [Vec<f32>; 2],
    stride: usize,
}

impl Scratch {
    /// The bounds of one query of the block.
    pub(super) fn of(&self, query: usize, rows: usize) -> &[f32] {
        &self.keys[0][query * self.stride..][..rows]
    }
}

/// Inner product in double precision, eight sums side by side.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    Arch::detect().vectorize(
        #[inline(always)]
        || {
            sum_by(
                a,
                b,
                #[inline(always)]
                |x, y| x * y,
            )
        },
    )
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    Arch::detect().vectorize(
        #[inline(always)]
        || {
            sum_by(
                a,
                b,
                #[inline(always)]
                |x, y| (x - y) * (x - y),
            )
        },
    )
}

#[inline(always)]
fn sum_by(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    for (lane, (&x, &y)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += term(f64::from(x), f64::from(y));
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}
