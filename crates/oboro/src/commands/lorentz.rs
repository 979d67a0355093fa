//! A look at vectors that are to be compared by the Lorentz metric.

use oboro_owner::VectorSource;
use oboro_quant::Metric;
use oboro_vectors::{Records, Refusal, VectorsError};

use super::build::Options;
use crate::output;
use crate::progress::Progress;

/// How far, relatively, rows of one hyperboloid may lie from it.
const TOLERANCE: f64 = 0.01;
/// What single precision leaves of the difference of two large squares, relatively to them.
const ROUNDING: f64 = 1e-6;

/// Vectors of which the first that lie on no common hyperboloid are remarked upon. Any
/// vectors can be indexed, but for others the metric's order means nothing.
pub(super) struct Watched<'a> {
    source: &'a mut dyn VectorSource,
    progress: Progress,
    /// `None` where there is nothing to look for, or no more.
    watch: Option<Hyperboloid>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(
        source: &'a mut dyn VectorSource,
        options: &Options,
        progress: &Progress,
    ) -> Self {
        let lorentz = options.metric == Metric::Lorentz.name();
        Self {
            source,
            progress: progress.clone(),
            watch: lorentz.then(Hyperboloid::default),
        }
    }

    fn look(&mut self, records: &Records) {
        let Some(watch) = &mut self.watch else { return };
        let rows = records.vectors.chunks_exact(records.dimension);
        let mut rows = rows.zip(&records.rows);
        if let Some((_, row)) = rows.find(|(vector, _)| !watch.holds(vector)) {
            self.progress.remark(format_args!(
                "row {} is not on one hyperboloid with the rows before it, where the Lorentz metric makes sense: its first value must be above 0, and the square of that less the squares of the others the same in all rows",
                output::count(*row)
            ));
            self.watch = None;
        }
    }
}

impl VectorSource for Watched<'_> {
    fn rows(&self) -> usize {
        self.source.rows()
    }

    fn dimension(&self) -> usize {
        self.source.dimension()
    }

    fn tag_names(&self) -> &[String] {
        self.source.tag_names()
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let records = self.source.read(most)?;
        match &records {
            Some(records) => self.look(records),
            // Another pass brings nothing new.
            None => self.watch = None,
        }
        Ok(records)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.source.rewind()
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        self.source.error(refusal)
    }
}

/// The hyperboloid that the first row lies on.
#[derive(Default)]
struct Hyperboloid {
    /// x0^2 - |x|^2, which is -1 / curvature, of the row that tells it best, and how far
    /// rounding may have moved it.
    square: Option<(f64, f64)>,
}

impl Hyperboloid {
    /// Whether a row lies on it.
    fn holds(&mut self, row: &[f32]) -> bool {
        let Some((&time, space)) = row.split_first() else {
            return false;
        };
        let time = f64::from(time);
        let space: f64 = space.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let square = time * time - space;
        let rounding = ROUNDING * time * time;
        if time <= 0.0 || square <= -rounding {
            return false;
        }
        let (known, uncertain) = *self.square.get_or_insert((square, rounding));
        if rounding < uncertain {
            self.square = Some((square, rounding));
        }
        (square - known).abs() <= TOLERANCE * known.abs() + rounding + uncertain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The point of curvature -1 / `square` above (x, y).
    fn point(square: f32, x: f32, y: f32) -> [f32; 3] {
        [(square + x * x + y * y).sqrt(), x, y]
    }

    #[test]
    fn points_of_one_hyperboloid_pass() {
        for square in [1.0, 0.1, 30.0] {
            let mut hyperboloid = Hyperboloid::default();
            for (x, y) in [(0.3, 900.0), (1.0, -2.0), (30.0, 4.0), (0.0, 0.0)] {
                assert!(hyperboloid.holds(&point(square, x, y)), "{square} {x} {y}");
            }
        }
    }

    #[test]
    fn fail_points_that_are_none() {
        let mut hyperboloid = Hyperboloid::default();
        assert!(hyperboloid.holds(&point(1.0, 1.0, 1.0)));
        assert!(!hyperboloid.holds(&point(1.05, 1.0, 1.0)));
        assert!(!hyperboloid.holds(&point(1.0, 1.0, 1.0).map(|x| -x)));
        // No time coordinate, as most vectors have none.
        assert!(!Hyperboloid::default().holds(&[0.3, 0.5, 0.1]));
        assert!(!Hyperboloid::default().holds(&[0.0, 0.0, 0.0]));
    }
}
