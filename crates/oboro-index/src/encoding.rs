//! How the numbers of an original are stored.

use crate::IndexError;
use crate::cursor::Cursor;
use half::f16;
use half::slice::HalfFloatSliceExt;
use oboro_quant::Metric;

/// The form of an original inside its sealed record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RecordEncoding {
    /// One byte a value: `offset + scale * byte`, clamped to the range.
    U8 {
        /// The step.
        scale: f32,
        /// The value of byte 0.
        offset: f32,
    },
    /// Half precision: relative error at most 2^-11 down to 6.1e-5 in
    /// magnitude, values up to 65,504.
    F16,
    /// Single precision, exact.
    F32,
}

impl RecordEncoding {
    /// Bytes and exact for integers from 0 to 255 (SIFT and other 8-bit
    /// descriptors).
    pub const INTEGERS: Self = Self::U8 {
        scale: 1.0,
        offset: 0.0,
    };

    /// Length of [`to_bytes`](Self::to_bytes).
    pub const ENCODED_LEN: usize = 9;

    /// Bytes a value takes.
    #[must_use]
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::U8 { .. } => 1,
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// `u8`, `f16` or `f32`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 { .. } => "u8",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// One byte for the kind, then scale and offset (zero unless `U8`).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::ENCODED_LEN] {
        let (kind, scale, offset) = match self {
            Self::U8 { scale, offset } => (0, scale, offset),
            Self::F16 => (1, 0.0, 0.0),
            Self::F32 => (2, 0.0, 0.0),
        };
        let mut out = [kind; Self::ENCODED_LEN];
        out[1..5].copy_from_slice(&scale.to_le_bytes());
        out[5..].copy_from_slice(&offset.to_le_bytes());
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// On another length, an unknown kind, or a scale that is not positive.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        const NAME: &str = "the record encoding";
        let mut cursor = Cursor::new(NAME, bytes);
        let kind = cursor.u8()?;
        let (scale, offset) = (cursor.f32()?, cursor.f32()?);
        cursor.end()?;
        let unused = scale.to_bits() == 0 && offset.to_bits() == 0;
        match kind {
            0 if scale.is_finite() && scale > 0.0 && offset.is_finite() => {
                Ok(Self::U8 { scale, offset })
            }
            1 if unused => Ok(Self::F16),
            2 if unused => Ok(Self::F32),
            _ => Err(IndexError::damaged(NAME, "it is of no known kind")),
        }
    }

    /// Writes `vector` as `vector.len() * value_bytes()` bytes.
    pub(crate) fn encode(self, vector: &[f32], out: &mut [u8]) {
        debug_assert_eq!(out.len(), vector.len() * self.value_bytes());
        match self {
            Self::U8 { scale, offset } => {
                // Rounds by adding a half and cutting off, which vectorizes on
                // every machine; the cast saturates to 0..=255.
                let inverse = 1.0 / scale;
                for (byte, &value) in out.iter_mut().zip(vector) {
                    *byte = ((value - offset) * inverse + 0.5) as u8;
                }
            }
            Self::F16 => {
                let mut halves = [f16::ZERO; 64];
                for (out, vector) in out.chunks_mut(128).zip(vector.chunks(64)) {
                    let halves = &mut halves[..vector.len()];
                    halves.convert_from_f32_slice(vector);
                    for (bytes, half) in out.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                        *bytes = half.to_le_bytes();
                    }
                }
            }
            Self::F32 => {
                for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(vector) {
                    *bytes = value.to_le_bytes();
                }
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(self, bytes: &[u8], vector: &mut [f32]) {
        debug_assert_eq!(bytes.len(), vector.len() * self.value_bytes());
        match self {
            Self::U8 { scale, offset } => {
                for (value, &byte) in vector.iter_mut().zip(bytes) {
                    *value = offset + scale * f32::from(byte);
                }
            }
            Self::F16 => {
                let mut halves = [f16::ZERO; 64];
                for (vector, bytes) in vector.chunks_mut(64).zip(bytes.chunks(128)) {
                    let halves = &mut halves[..vector.len()];
                    for (half, &bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = f16::from_le_bytes(bytes);
                    }
                    halves.convert_to_f32_slice(vector);
                }
            }
            Self::F32 => {
                for (value, &bytes) in vector.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(bytes);
                }
            }
        }
    }
}

/// Which encoding an owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodingChoice {
    /// Bytes where they are exact, otherwise half precision, otherwise (values
    /// that half precision cannot hold well, or the Lorentz metric) single
    /// precision.
    #[default]
    Auto,
    /// Bytes over the range of the values, whatever is lost.
    U8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

/// Looks over the vectors to choose their encoding.
#[derive(Debug, Clone)]
pub struct EncodingSurvey {
    bytes_are_exact: bool,
    least: f32,
    greatest: f32,
}

impl Default for EncodingSurvey {
    fn default() -> Self {
        Self {
            bytes_are_exact: true,
            least: f32::INFINITY,
            greatest: f32::NEG_INFINITY,
        }
    }
}

impl EncodingSurvey {
    /// A survey that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in some finite values.
    pub fn observe(&mut self, values: &[f32]) {
        // Without early exit, so that the compiler can vectorize it.
        let (mut exact, mut least, mut greatest) = (true, self.least, self.greatest);
        for &value in values {
            exact &= f32::from(value as u8) == value;
            least = least.min(value);
            greatest = greatest.max(value);
        }
        self.bytes_are_exact &= exact;
        self.least = least;
        self.greatest = greatest;
    }

    /// The encoding for the values seen, which will be compared by `metric`.
    ///
    /// # Errors
    /// If half precision is asked for and cannot hold the values.
    pub fn choose(
        &self,
        choice: EncodingChoice,
        metric: Metric,
    ) -> Result<RecordEncoding, IndexError> {
        let largest = self.greatest.abs().max(self.least.abs());
        // Half precision keeps 11 bits down to 2^-14; below, they fade. Data
        // whose largest value is above 1/64 loses nothing that matters beside
        // that value.
        let half_fits = largest <= 65_504.0 && (largest >= 1.0 / 64.0 || largest == 0.0);
        match choice {
            EncodingChoice::Auto if self.bytes_are_exact => Ok(RecordEncoding::INTEGERS),
            // Neighbours on the hyperboloid differ in digits that half precision lacks.
            EncodingChoice::Auto if half_fits && metric != Metric::Lorentz => {
                Ok(RecordEncoding::F16)
            }
            EncodingChoice::Auto | EncodingChoice::F32 => Ok(RecordEncoding::F32),
            EncodingChoice::U8 if self.bytes_are_exact => Ok(RecordEncoding::INTEGERS),
            EncodingChoice::U8 => {
                let scale = self.greatest / 255.0 - self.least / 255.0;
                Ok(RecordEncoding::U8 {
                    scale: if scale.is_normal() { scale } else { 1.0 },
                    offset: if self.least.is_finite() { self.least } else { 0.0 },
                })
            }
            EncodingChoice::F16 if largest <= 65_504.0 => Ok(RecordEncoding::F16),
            EncodingChoice::F16 => Err(IndexError::Invalid(
                "the vectors hold values beyond 65504, the largest of half precision; store the originals as f32".into(),
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(encoding: RecordEncoding, vector: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; vector.len() * encoding.value_bytes()];
        encoding.encode(vector, &mut bytes);
        let mut out = vec![0.0; vector.len()];
        encoding.decode(&bytes, &mut out);
        out
    }

    #[test]
    fn points_of_the_hyperboloid_keep_their_digits() {
        let chosen = |values: &[f32], choice| {
            let mut survey = EncodingSurvey::new();
            survey.observe(values);
            survey.choose(choice, Metric::Lorentz).unwrap()
        };
        let point = [1.25, 0.75, 0.1];
        assert_eq!(chosen(&point, EncodingChoice::Auto), RecordEncoding::F32);
        // Who asks for less, and bytes that lose nothing, are let be.
        assert_eq!(chosen(&point, EncodingChoice::F16), RecordEncoding::F16);
        assert_eq!(
            chosen(&[3.0, 2.0, 2.0], EncodingChoice::Auto),
            RecordEncoding::INTEGERS
        );
    }

    fn chosen(values: &[f32], choice: EncodingChoice) -> RecordEncoding {
        let mut survey = EncodingSurvey::new();
        survey.observe(values);
        survey.choose(choice, Metric::L2).unwrap()
    }

    #[test]
    fn integers_are_exact_bytes() {
        let all: Vec<f32> = (0..=255).map(|v| v as f32).collect();
        assert_eq!(chosen(&all, EncodingChoice::Auto), RecordEncoding::INTEGERS);
        assert_eq!(round_trip(RecordEncoding::INTEGERS, &all), all);
        for bad in [0.5, -1.0, 256.0, -0.25] {
            assert_eq!(
                chosen(&[1.0, bad], EncodingChoice::Auto),
                RecordEncoding::F16
            );
        }
    }

    #[test]
    fn values_beyond_half_precision_stay_single() {
        for big in [70_000.5, -1e6, 1e-3] {
            assert_eq!(chosen(&[big], EncodingChoice::Auto), RecordEncoding::F32);
        }
        let mut survey = EncodingSurvey::new();
        survey.observe(&[1e6]);
        assert!(survey.choose(EncodingChoice::F16, Metric::L2).is_err());
    }

    proptest! {
        #[test]
        fn half_precision_keeps_eleven_bits(values in proptest::collection::vec(-2.0_f32..2.0, 1..200)) {
            for (a, b) in values.iter().zip(round_trip(RecordEncoding::F16, &values)) {
                prop_assert!((a - b).abs() <= a.abs() / 2048.0 + 6e-8);
            }
            prop_assert_eq!(round_trip(RecordEncoding::F32, &values), values);
        }

        #[test]
        fn affine_bytes_are_within_half_a_step(values in proptest::collection::vec(-900.0_f32..2.5, 1..200)) {
            let encoding = chosen(&values, EncodingChoice::U8);
            let RecordEncoding::U8 { scale, .. } = encoding else { panic!() };
            for (a, b) in values.iter().zip(round_trip(encoding, &values)) {
                prop_assert!((a - b).abs() <= 0.501 * scale + 1e-3);
            }
            prop_assert_eq!(RecordEncoding::from_bytes(&encoding.to_bytes()).unwrap(), encoding);
        }

        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(encoding) = RecordEncoding::from_bytes(&bytes) {
                prop_assert_eq!(&encoding.to_bytes()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn fail_unknown_kind_and_scale() {
        assert!(RecordEncoding::from_bytes(&[3, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(RecordEncoding::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        assert!(RecordEncoding::from_bytes(&[0; 9]).is_err());
        assert!(RecordEncoding::from_bytes(&RecordEncoding::F16.to_bytes()[..8]).is_err());
    }
}
