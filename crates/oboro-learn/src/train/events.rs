//! TensorBoard event files: records of protocol buffers, each framed with
//! masked CRC-32C.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | length of the record, little endian |
//! | 4 | masked CRC-32C of the length |
//! | n | the record, an `Event` |
//! | 4 | masked CRC-32C of the record |

use std::io::{self, Write};

/// The messages of TensorFlow's `event.proto` and `summary.proto`, as far as
/// scalars need them.
mod messages {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Event {
        #[prost(double, tag = "1")]
        pub(super) wall_time: f64,
        #[prost(int64, tag = "2")]
        pub(super) step: i64,
        #[prost(oneof = "What", tags = "3, 5")]
        pub(super) what: Option<What>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(Summary),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub(super) value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Value {
        #[prost(string, tag = "1")]
        pub(super) tag: String,
        #[prost(float, tag = "2")]
        pub(super) simple_value: f32,
    }
}

use messages::{Event, Summary, Value, What};
use prost::Message;

/// Writes scalars for TensorBoard.
#[derive(Debug)]
pub struct EventWriter<W: Write> {
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Starts a file; `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// As `out` fails.
    pub fn new(out: W, wall_time: f64) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.record(&Event {
            wall_time,
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".to_owned())),
        })?;
        Ok(writer)
    }

    /// Writes the scalars of a step.
    ///
    /// # Errors
    /// As the output fails.
    pub fn scalars(&mut self, wall_time: f64, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let value = values.iter().map(|&(tag, value)| Value {
            tag: tag.to_owned(),
            simple_value: value as f32,
        });
        self.record(&Event {
            wall_time,
            step: step as i64,
            what: Some(What::Summary(Summary {
                value: value.collect(),
            })),
        })?;
        self.out.flush()
    }

    fn record(&mut self, event: &Event) -> io::Result<()> {
        let body = event.encode_to_vec();
        let length = (body.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(body.len() + 16);
        frame.extend(length);
        frame.extend(masked(&length).to_le_bytes());
        frame.extend(&body);
        frame.extend(masked(&body).to_le_bytes());
        self.out.write_all(&frame)
    }
}

/// TFRecord masks its checksums, so that a checksum over bytes that hold
/// checksums stays a good one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_tensorboards_own_writer() {
        let mut bytes = Vec::new();
        let mut writer = EventWriter::new(&mut bytes, 1.5).unwrap();
        writer
            .scalars(2.5, 7, &[("loss", 0.25), ("rate", 1e-4)])
            .unwrap();
        // scripts/oracles/make_train_fixtures.py says how these were made.
        let expected = include_bytes!("../../tests/fixtures/train/events.bin");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4, and the mask of it.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            masked(b"123456789"),
            0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }
}
