//! The first pass: checks every vector, measures the range, takes a sample.

use oboro_index::EncodingSurvey;
use oboro_quant::Metric;
use rand_core::Rng;

use crate::{BuildOptions, OwnerError, Stage, VectorSource};

/// Rows that are read at once.
pub(crate) const CHUNK: usize = 32_768;

/// Norms beyond this overflow single precision when they are multiplied.
const LARGEST_NORM: f32 = 1e15;

/// What the first pass found.
pub(crate) struct Survey {
    /// Rows to train on, as they stand in the source.
    pub(crate) sample: Vec<f32>,
    /// Rows for trial queries and their row numbers.
    pub(crate) trials: Vec<f32>,
    pub(crate) trial_rows: Vec<usize>,
    /// The largest Euclidean norm.
    pub(crate) largest_norm: f32,
    /// What originals can be stored as.
    pub(crate) encoding: EncodingSurvey,
}

/// Reads every row once. The sample and the trial rows depend on `rng` and
/// the number of rows only.
pub(crate) fn survey(
    source: &mut dyn VectorSource,
    sample: usize,
    options: &BuildOptions,
    rng: &mut impl Rng,
) -> Result<Survey, OwnerError> {
    let (rows, dimension) = (source.rows(), source.dimension());
    let mut sampled = Chooser::new(rows, sample);
    let mut tried = Chooser::new(rows, options.trials);
    let mut found = Survey {
        sample: Vec::with_capacity(sample.min(rows) * dimension),
        trials: Vec::with_capacity(options.trials.min(rows) * dimension),
        trial_rows: Vec::with_capacity(options.trials.min(rows)),
        largest_norm: 0.0,
        encoding: EncodingSurvey::new(),
    };
    let mut chunk = Vec::new();
    let mut row = 0;
    loop {
        options.check_cancelled()?;
        options.report(Stage::Read, row as u64, rows as u64);
        chunk.clear();
        if source.read(CHUNK, &mut chunk)? == 0 {
            break;
        }
        found.encoding.observe(&chunk);
        for vector in chunk.chunks_exact(dimension) {
            look(vector, row, options.metric, &mut found)?;
            if sampled.take(rng) {
                found.sample.extend_from_slice(vector);
            }
            if tried.take(rng) {
                found.trials.extend_from_slice(vector);
                found.trial_rows.push(row);
            }
            row += 1;
        }
    }
    options.report(Stage::Read, rows as u64, rows as u64);
    if found.largest_norm == 0.0 {
        return Err(OwnerError::AllZero { vectors: rows });
    }
    Ok(found)
}

fn look(vector: &[f32], row: usize, metric: Metric, found: &mut Survey) -> Result<(), OwnerError> {
    // Eight running sums let the compiler use wide registers.
    let mut squares = [0.0_f32; 8];
    let (parts, rest) = vector.as_chunks::<8>();
    for part in parts {
        for (sum, value) in squares.iter_mut().zip(part) {
            *sum += value * value;
        }
    }
    for (sum, value) in squares.iter_mut().zip(rest) {
        *sum += value * value;
    }
    let norm = squares.iter().sum::<f32>().sqrt();
    if norm.is_nan() || norm > LARGEST_NORM {
        return Err(OwnerError::TooLong {
            row,
            maximum: LARGEST_NORM,
        });
    }
    if norm == 0.0 && metric == Metric::Cosine {
        return Err(OwnerError::NoDirection { row });
    }
    found.largest_norm = found.largest_norm.max(norm);
    Ok(())
}

/// Chooses exactly `wanted` of `total` in one pass, every set equally likely.
struct Chooser {
    left: u64,
    wanted: u64,
}

impl Chooser {
    fn new(total: usize, wanted: usize) -> Self {
        Self {
            left: total as u64,
            wanted: wanted.min(total) as u64,
        }
    }

    fn take(&mut self, rng: &mut impl Rng) -> bool {
        if self.wanted == 0 {
            return false;
        }
        // The high half of a 128-bit product is uniform below `left` up to
        // 2^-64 of bias, which a sample does not notice.
        let draw = (u128::from(rng.next_u64()) * u128::from(self.left)) >> 64;
        let chosen = (draw as u64) < self.wanted;
        self.left -= 1;
        self.wanted -= u64::from(chosen);
        chosen
    }
}

/// Checks that ids are as many as rows and that none comes twice.
pub(crate) fn check_ids(ids: &[u64], rows: usize) -> Result<(), OwnerError> {
    if ids.len() != rows {
        return Err(OwnerError::IdCount {
            ids: ids.len(),
            vectors: rows,
        });
    }
    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.sort_unstable_by_key(|&row| (ids[row as usize], row));
    match order
        .windows(2)
        .find(|pair| ids[pair[0] as usize] == ids[pair[1] as usize])
    {
        Some(pair) => Err(OwnerError::DuplicateId {
            first: pair[0] as usize,
            second: pair[1] as usize,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Rows;
    use chacha20::ChaCha20Rng;
    use oboro_index::{EncodingChoice, RecordEncoding};
    use rand_core::SeedableRng;

    fn look_at(values: &[f32], dimension: usize, metric: Metric) -> Result<Survey, OwnerError> {
        let options = BuildOptions {
            metric,
            trials: 2,
            ..BuildOptions::default()
        };
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        survey(
            &mut Rows::new(values, dimension).unwrap(),
            3,
            &options,
            &mut rng,
        )
    }

    #[test]
    fn range_norm_and_samples() {
        let values: Vec<f32> = (0..60).map(|v| v as f32).collect();
        let found = look_at(&values, 10, Metric::L2).unwrap();
        assert_eq!(
            found.encoding.choose(EncodingChoice::Auto).unwrap(),
            RecordEncoding::INTEGERS
        );
        assert_eq!(found.sample.len(), 30);
        assert_eq!(found.trials.len(), 20);
        let expected = (50..60).map(|v| (v * v) as f32).sum::<f32>().sqrt();
        assert!((found.largest_norm - expected).abs() < 1e-3);
        for (trial, &row) in found.trials.chunks(10).zip(&found.trial_rows) {
            assert_eq!(trial, &values[row * 10..][..10]);
        }
    }

    #[test]
    fn fail_vectors_without_direction() {
        let values = [1.0, 0.0, 0.0, 0.0];
        assert!(matches!(
            look_at(&values, 2, Metric::Cosine),
            Err(OwnerError::NoDirection { row: 1 })
        ));
        assert!(look_at(&values, 2, Metric::L2).is_ok());
        assert!(matches!(
            look_at(&[0.0; 6], 2, Metric::L2),
            Err(OwnerError::AllZero { vectors: 3 })
        ));
        assert!(matches!(
            look_at(&[1.0, 1e30], 2, Metric::L2),
            Err(OwnerError::TooLong { row: 0, .. })
        ));
    }

    #[test]
    fn a_choice_is_exact_and_fair() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            let mut chooser = Chooser::new(10, 3);
            let chosen: Vec<usize> = (0..10).filter(|_| chooser.take(&mut rng)).collect();
            assert_eq!(chosen.len(), 3);
            chosen.into_iter().for_each(|at| counts[at] += 1);
        }
        // 3,000 each is expected; six standard deviations are about 275.
        assert!(
            counts.iter().all(|&c| (2_725..3_275).contains(&c)),
            "{counts:?}"
        );
    }

    #[test]
    fn fail_ids() {
        assert!(check_ids(&[3, 1, 2], 3).is_ok());
        assert!(matches!(
            check_ids(&[3, 1], 3),
            Err(OwnerError::IdCount { ids: 2, vectors: 3 })
        ));
        assert!(matches!(
            check_ids(&[7, 1, 7], 3),
            Err(OwnerError::DuplicateId {
                first: 0,
                second: 2
            })
        ));
    }
}
