//! Two dimensions that show most: principal components by power iteration.

use oboro_vectors::Matrix;

/// Rounds of the power iteration; each brings at least the ratio of the two
/// largest variances.
const ROUNDS: usize = 300;
/// Where a round changes the axis less than this, it is found.
const SETTLED: f64 = 1e-12;

/// Rows seen from the direction that spreads them most.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    centre: Vec<f64>,
    axes: [Vec<f64>; 2],
    /// The share of the variance (or of the squared length, without a centre)
    /// that the plane shows.
    pub(super) share: f64,
}

impl Plane {
    /// The plane of the two principal components; through the origin where
    /// `centred` is false.
    pub(super) fn of(rows: &Matrix<f32>, centred: bool) -> Self {
        let width = rows.dimension();
        let mut centre = vec![0.0; width];
        if centred {
            for row in rows {
                for (sum, &value) in centre.iter_mut().zip(row) {
                    *sum += f64::from(value);
                }
            }
            for sum in &mut centre {
                *sum /= rows.rows().max(1) as f64;
            }
        }
        let mut moved: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let pairs = row.iter().zip(&centre);
                pairs
                    .map(|(&value, &mean)| f64::from(value) - mean)
                    .collect()
            })
            .collect();
        let total: f64 = moved.iter().map(|row| dot(row, row)).sum();
        let mut axes = [Vec::new(), Vec::new()];
        let mut shown = 0.0;
        for axis in &mut axes {
            *axis = principal(&moved, width);
            for row in &mut moved {
                let along = dot(row, axis);
                shown += along * along;
                for (value, &direction) in row.iter_mut().zip(&*axis) {
                    *value -= along * direction;
                }
            }
        }
        Self {
            centre,
            axes,
            share: if total > 0.0 { shown / total } else { 1.0 },
        }
    }

    /// Where a row lies in the plane.
    pub(super) fn place(&self, row: &[f32]) -> [f64; 2] {
        let moved: Vec<f64> = row
            .iter()
            .zip(&self.centre)
            .map(|(&value, &mean)| f64::from(value) - mean)
            .collect();
        [dot(&moved, &self.axes[0]), dot(&moved, &self.axes[1])]
    }
}

/// The direction of the largest second moment; zeros where all rows are.
fn principal(rows: &[Vec<f64>], width: usize) -> Vec<f64> {
    // The longest row is seldom at a right angle to the direction.
    let longest = rows
        .iter()
        .max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)))
        .cloned();
    let Some(mut axis) = longest.and_then(unit) else {
        return vec![0.0; width];
    };
    for _ in 0..ROUNDS {
        let mut next = vec![0.0; width];
        for row in rows {
            let along = dot(row, &axis);
            for (sum, &value) in next.iter_mut().zip(row) {
                *sum += along * value;
            }
        }
        let Some(next) = unit(next) else { break };
        let change = 1.0 - dot(&axis, &next).abs();
        axis = next;
        if change < SETTLED {
            break;
        }
    }
    // Of the two signs the one whose largest coordinate is positive, so that
    // pictures of two runs can be compared.
    let largest = axis
        .iter()
        .copied()
        .fold(0.0, |a: f64, b: f64| if b.abs() > a.abs() { b } else { a });
    if largest < 0.0 {
        for value in &mut axis {
            *value = -*value;
        }
    }
    axis
}

fn unit(mut row: Vec<f64>) -> Option<Vec<f64>> {
    let length = dot(&row, &row).sqrt();
    if !(length > 0.0 && length.is_finite()) {
        return None;
    }
    for value in &mut row {
        *value /= length;
    }
    Some(row)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_in_space_is_found() {
        // Points of a plane, at a right angle to (1, -2, 2) / 3, off the origin.
        let (u, v) = ([2.0, 2.0, 1.0], [-2.0, 1.0, 2.0]);
        let mut values: Vec<f32> = Vec::new();
        for i in -6..=6 {
            for j in -2..=2 {
                let point = |at: usize| f64::from(i) * u[at] + f64::from(j) * v[at] + 5.0;
                values.extend((0..3).map(|at| point(at) as f32));
            }
        }
        let rows = Matrix::new(3, values).unwrap();
        let plane = Plane::of(&rows, true);
        assert!((plane.share - 1.0).abs() < 1e-9);
        let place = plane.place(&[5.0 + 2.0, 5.0 + 2.0, 5.0 + 1.0]);
        assert!((place[0] - 3.0).abs() < 1e-6 && place[1].abs() < 1e-6);
        // Distances within the plane are kept.
        let other = plane.place(&[5.0 - 2.0, 5.0 + 1.0, 5.0 + 2.0]);
        assert!((other[1].abs() - 3.0).abs() < 1e-6);
    }

    #[test]
    fn equal_rows_lie_in_one_place() {
        let rows = Matrix::new(2, vec![0.5; 8]).unwrap();
        let plane = Plane::of(&rows, true);
        assert_eq!(plane.place(rows.row(1)), [0.0, 0.0]);
        assert_eq!(plane.share, 1.0);
    }
}
