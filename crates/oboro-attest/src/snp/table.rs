//! The certificate table that hypervisors hand to guests (GHCB specification, section
//! "SNP Extended Guest Request") and Linux to programs as `auxblob`.
//!
//! Entries of 24 bytes, each a GUID, an offset and a length as 32-bit little-endian
//! numbers; an entry of zeros ends them; contents follow. The same format carries the
//! endorsements of SNP evidence.

use crate::{AttestError, MAX_ENDORSEMENT_BYTES};

const ENTRY_BYTES: usize = 24;
const MAX_ENTRIES: usize = 16;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The certificate of the chip's key.
    Vcek,
    /// The certificate of a cloud provider's key.
    Vlek,
    /// The certificate of the authority in between, ASK or ASVK.
    Intermediate,
    /// AMD's root certificate, which verifiers have already.
    Root,
    /// A revocation list.
    RevocationList,
}

impl EntryKind {
    const ALL: [Self; 5] = [
        Self::Vcek,
        Self::Vlek,
        Self::Intermediate,
        Self::Root,
        Self::RevocationList,
    ];

    /// The GUID in the byte order of the table: as it is written.
    const fn guid(self) -> [u8; 16] {
        let number: u128 = match self {
            Self::Vcek => 0x63da758d_e664_4564_adc5_f4b93be8accd,
            Self::Vlek => 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
            Self::Intermediate => 0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
            Self::Root => 0xc0b406a4_a803_4952_9743_3fb6014cd0ae,
            Self::RevocationList => 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
        };
        number.to_be_bytes()
    }
}

/// Reads a table. Entries of unknown kinds are skipped. No bytes at all are a table
/// without entries.
///
/// # Errors
/// [`AttestError::Malformed`] for one that has no end, more than 16 entries, or contents
/// that are empty, lie outside, or overlap the entries.
pub fn parse(bytes: &[u8]) -> Result<Vec<(EntryKind, &[u8])>, AttestError> {
    let mut entries = Vec::new();
    if bytes.is_empty() {
        return Ok(entries);
    }
    if bytes.len() > MAX_ENDORSEMENT_BYTES {
        return Err(AttestError::Malformed("the certificate table is too long"));
    }
    let endless = AttestError::Malformed("the certificate table has no end or too many entries");
    let (heads, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let count = heads
        .iter()
        .take(MAX_ENTRIES + 1)
        .position(|head| *head == [0; ENTRY_BYTES])
        .ok_or(endless)?;
    let first = (count + 1) * ENTRY_BYTES;
    for head in &heads[..count] {
        let number = |at: usize| {
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
        };
        let (offset, length) = (number(16), number(20));
        let content = offset
            .checked_add(length)
            .filter(|_| offset >= first && length > 0)
            .and_then(|end| bytes.get(offset..end))
            .ok_or(AttestError::Malformed(
                "an entry of the certificate table lies outside of it",
            ))?;
        let kind = EntryKind::ALL
            .into_iter()
            .find(|kind| kind.guid() == head[..16]);
        if let Some(kind) = kind {
            entries.push((kind, content));
        }
    }
    Ok(entries)
}

/// Writes a table of at most 16 entries.
///
/// # Errors
/// [`AttestError::Malformed`] for more entries, for an empty one, and for a table above
/// [`MAX_ENDORSEMENT_BYTES`].
pub fn encode(entries: &[(EntryKind, &[u8])]) -> Result<Vec<u8>, AttestError> {
    let mut offset = (entries.len() + 1) * ENTRY_BYTES;
    let total = entries.iter().fold(offset, |total, (_, content)| {
        total.saturating_add(content.len())
    });
    if entries.len() > MAX_ENTRIES
        || total > MAX_ENDORSEMENT_BYTES
        || entries.iter().any(|(_, content)| content.is_empty())
    {
        return Err(AttestError::Malformed(
            "the certificate table is too long or has an empty entry",
        ));
    }
    let mut bytes = Vec::with_capacity(total);
    for (kind, content) in entries {
        bytes.extend_from_slice(&kind.guid());
        bytes.extend_from_slice(&(offset as u32).to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        offset += content.len();
    }
    bytes.extend_from_slice(&[0; ENTRY_BYTES]);
    for (_, content) in entries {
        bytes.extend_from_slice(content);
    }
    Ok(bytes)
}
