//! Frames byte by byte; `tests/attacks.rs` has the exchange as a whole.
#![allow(clippy::unwrap_used)]

use super::frame::{Frame, Hello};
use crate::{ChannelError, Refusal};
use oboro_attest::MAX_EVIDENCE_BYTES;

fn frames() -> Vec<(Frame, Vec<u8>)> {
    let hello = Hello {
        wants_evidence: true,
        nonce: [0x5a; 32],
    };
    vec![
        (
            Frame::Hello(hello),
            [&[1, 34, 0, 0, 0, 2, 1][..], &[0x5a; 32]].concat(),
        ),
        (Frame::Evidence(vec![9, 8, 7]), vec![2, 3, 0, 0, 0, 9, 8, 7]),
        (Frame::Accepted, vec![3, 0, 0, 0, 0]),
        (Frame::Refused(Refusal::Evidence), vec![4, 1, 0, 0, 0, 4]),
        (Frame::Refused(Refusal::Other(99)), vec![4, 1, 0, 0, 0, 99]),
    ]
}

async fn read(bytes: &[u8]) -> Result<Frame, ChannelError> {
    let mut rest = bytes;
    let frame = Frame::read(&mut rest).await?;
    assert!(rest.is_empty(), "{} bytes left", rest.len());
    Ok(frame)
}

#[tokio::test]
async fn frames_have_the_documented_bytes() {
    for (frame, bytes) in frames() {
        let mut written = Vec::new();
        frame.write(&mut written).await.unwrap();
        assert_eq!(written, bytes);
        assert_eq!(read(&bytes).await.unwrap(), frame);
    }
}

#[tokio::test]
async fn bytes_after_a_frame_are_left_for_what_follows() {
    for (frame, mut bytes) in frames() {
        bytes.extend_from_slice(b"PRI");
        let mut rest = bytes.as_slice();
        assert_eq!(Frame::read(&mut rest).await.unwrap(), frame);
        assert_eq!(rest, b"PRI");
    }
}

#[tokio::test]
async fn fail_frames_cut_short_at_every_length() {
    for (_, bytes) in frames() {
        for length in 0..bytes.len() {
            assert!(matches!(
                read(&bytes[..length]).await,
                Err(ChannelError::Exchange(_))
            ));
        }
    }
}

#[tokio::test]
async fn fail_every_flipped_bit_of_a_header() {
    for (frame, bytes) in frames() {
        // Kind, length, and the first two bytes of a hello; the rest is opaque.
        let checked = if matches!(frame, Frame::Hello(_)) {
            7
        } else {
            5
        };
        for bit in 0..8 * checked {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let mut rest = altered.as_slice();
            match Frame::read(&mut rest).await {
                Err(ChannelError::Exchange(_)) => {}
                // Another length of evidence is another evidence; another flag is the
                // other flag.
                Ok(other) => assert_ne!(other, frame),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn fail_lengths_beyond_the_limit_before_anything_is_read() {
    for (kind, length) in [
        (1, 33),
        (1, 35),
        (2, 0),
        (2, MAX_EVIDENCE_BYTES as u32 + 1),
        (2, u32::MAX),
        (3, 1),
        (4, 0),
        (4, 2),
        (0, 0),
        (5, 0),
    ] {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::to_le_bytes(length));
        bytes.extend_from_slice(&[0; 64]);
        let mut rest = bytes.as_slice();
        assert!(matches!(
            Frame::read(&mut rest).await,
            Err(ChannelError::Exchange(_))
        ));
        assert_eq!(rest.len(), 64);
    }
    let long = Frame::Evidence(vec![0; MAX_EVIDENCE_BYTES + 1]);
    let mut nothing = Vec::new();
    assert!(long.write(&mut nothing).await.is_err());
    assert!(nothing.is_empty());
    let longest = Frame::Evidence(vec![0; MAX_EVIDENCE_BYTES]);
    let mut bytes = Vec::new();
    longest.write(&mut bytes).await.unwrap();
    assert_eq!(read(&bytes).await.unwrap(), longest);
}

#[test]
fn refusals_have_one_byte_each() {
    for code in 0..=255 {
        assert_eq!(Refusal::from_code(code).code(), code);
    }
}
