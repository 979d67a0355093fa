//! The first pass: checks every vector, measures the range, takes a sample.

use oboro_index::{EncodingSurvey, RecordKey};
use oboro_quant::Metric;
use oboro_vectors::{Ids, Records};
use rand_core::Rng;

use crate::ids::{check_unique, extras_and_ids};
use crate::prepare::{LARGEST_NORM, norm};
use crate::{BuildOptions, Lengths, OwnerError, Stage, VectorSource};

/// Rows that are read at once.
pub(crate) const CHUNK: usize = 32_768;

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
    /// The id of every row, where ids are not row numbers.
    pub(crate) ids: Option<Vec<u64>>,
    /// The most bytes that a text id and a payload need together.
    pub(crate) extra_needed: usize,
}

/// Reads every row once. The sample and the trial rows depend on `rng` and
/// the number of rows only.
pub(crate) fn survey(
    source: &mut dyn VectorSource,
    sample: usize,
    key: &RecordKey,
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
        ids: None,
        extra_needed: 0,
    };
    let mut row = 0;
    // A value that is not 0 may have a square that is.
    let mut blank = true;
    loop {
        options.check_cancelled()?;
        options.report(Stage::Read, row as u64, rows as u64);
        let Some(records) = source.read(CHUNK)? else {
            break;
        };
        // An index is built of all rows or not at all.
        if let Some(refusal) = records.refused.first() {
            return Err(source.error(refusal).into());
        }
        found.encoding.observe(&records.vectors);
        blank = blank && records.vectors.iter().all(|&value| value == 0.0);
        for (vector, &number) in records.vectors.chunks_exact(dimension).zip(&records.rows) {
            let norm = look(vector, number, options.metric)?;
            found.largest_norm = found.largest_norm.max(norm);
            if sampled.take(rng) {
                found.sample.extend_from_slice(vector);
            }
            if tried.take(rng) {
                found.trials.extend_from_slice(vector);
                found.trial_rows.push(row);
            }
            row += 1;
        }
        found.belongings(records, key);
    }
    // What comes next has been sized after what was announced.
    if row != rows {
        return Err(OwnerError::SourceChanged);
    }
    options.report(Stage::Read, rows as u64, rows as u64);
    if found.largest_norm == 0.0 {
        return Err(match blank {
            true => OwnerError::AllZero { vectors: rows },
            false => OwnerError::AllTooShort { vectors: rows },
        });
    }
    if let Some(ids) = &found.ids {
        check_unique(ids, |at| at as u64)?;
    }
    Ok(found)
}

impl Survey {
    /// How long vectors are; of the sample as it was taken.
    pub(crate) fn lengths(&self, dimension: usize) -> Lengths {
        let mut norms: Vec<f32> = self.sample.chunks_exact(dimension).map(norm).collect();
        let middle = norms.len() / 2;
        let median = match norms.is_empty() {
            true => 0.0,
            false => *norms.select_nth_unstable_by(middle, f32::total_cmp).1,
        };
        Lengths {
            longest: self.largest_norm,
            median,
        }
    }

    /// Takes in ids, and how much room they and the payloads need.
    fn belongings(&mut self, mut records: Records, key: &RecordKey) {
        if records.ids == Ids::Rows && records.payloads.is_empty() {
            return;
        }
        let with_ids = records.ids != Ids::Rows;
        let rows = std::mem::take(&mut records.rows);
        for (id, extra) in extras_and_ids(records, &rows, key) {
            self.extra_needed = self.extra_needed.max(extra.needed());
            if with_ids {
                self.ids.get_or_insert_default().push(id);
            }
        }
    }
}

/// Checks one vector and returns its norm.
fn look(vector: &[f32], row: u64, metric: Metric) -> Result<f32, OwnerError> {
    let norm = norm(vector);
    let row = row as usize;
    if norm.is_nan() || norm > LARGEST_NORM {
        return Err(OwnerError::TooLong {
            row,
            maximum: LARGEST_NORM,
        });
    }
    if norm == 0.0 && metric == Metric::Cosine {
        return Err(match vector.iter().all(|&value| value == 0.0) {
            true => OwnerError::NoDirection { row },
            false => OwnerError::TooShort { row },
        });
    }
    Ok(norm)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Rows;
    use chacha20::ChaCha20Rng;
    use oboro_index::{EncodingChoice, OwnerKey, RecordEncoding};
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
            &OwnerKey::generate(&mut rng).record_key(),
            &options,
            &mut ChaCha20Rng::from_seed([1; 32]),
        )
    }

    #[test]
    fn range_norm_and_samples() {
        let values: Vec<f32> = (0..60).map(|v| v as f32).collect();
        let found = look_at(&values, 10, Metric::L2).unwrap();
        assert_eq!(
            found
                .encoding
                .choose(EncodingChoice::Auto, Metric::L2)
                .unwrap(),
            RecordEncoding::INTEGERS
        );
        assert_eq!(found.sample.len(), 30);
        assert_eq!(found.trials.len(), 20);
        let expected = (50..60).map(|v| (v * v) as f32).sum::<f32>().sqrt();
        assert!((found.largest_norm - expected).abs() < 1e-3);
        let lengths = found.lengths(10);
        assert_eq!(lengths.longest, found.largest_norm);
        assert!(lengths.median > 16.0 && lengths.median < lengths.longest);
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
        // Their squares are below what single precision holds.
        assert!(matches!(
            look_at(&[0.0, 1e-25, 1e-25, 0.0], 2, Metric::L2),
            Err(OwnerError::AllTooShort { vectors: 2 })
        ));
        assert!(matches!(
            look_at(&[1.0, 0.0, 0.0, 1e-25], 2, Metric::Cosine),
            Err(OwnerError::TooShort { row: 1 })
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
}
