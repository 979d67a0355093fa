//! Hexadecimal text in policy files, for `#[serde(with = "crate::hex::...")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Lower-case hexadecimal text.
pub(crate) fn encode(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}

fn decode<E: Error>(text: &str) -> Result<Vec<u8>, E> {
    ::hex::decode(text).map_err(|_| {
        E::custom("expected hexadecimal digits, two for each byte, without prefix or separators")
    })
}

fn decode_exactly<const N: usize, E: Error>(text: &str) -> Result<[u8; N], E> {
    let bytes: Vec<u8> = decode(text)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| {
        E::custom(format_args!(
            "expected {N} bytes in hexadecimal, got {length}"
        ))
    })
}

/// A list of byte strings of any length.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        values: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| encode(value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| decode(text))
            .collect()
    }
}

/// A list of byte strings of `N` bytes each.
pub(crate) mod arrays {
    use super::*;

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        values: &[[u8; N]],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| encode(value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Vec<[u8; N]>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| decode_exactly(text))
            .collect()
    }
}
