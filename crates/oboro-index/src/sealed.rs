//! Files sealed under an epoch's key, in chunks of 64 KiB.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROSEA` |
//! | 2 | format version |
//! | 1 | kind of file |
//! | 1 | zero |
//! | 4 | bytes of a chunk |
//! | 8 | bytes of the payload |
//! | 16 | index id |
//! | 8 | epoch |
//! | 16 | file id |
//! | then | per chunk: ciphertext, 16-byte tag |
//!
//! Each file has a key of its own, derived from the epoch's key, index id,
//! epoch, kind and file id, and the chunk number is the nonce: unique by
//! construction.
//! Header and chunk number are authenticated with each chunk, so chunks cannot
//! be dropped, moved, repeated or taken from another file. An empty payload
//! has one empty chunk, so that its header is authenticated as well.

use crate::cursor::Cursor;
use crate::keys::EpochKey;
use crate::layout::FileKind;
use crate::manifest::FileEntry;
use crate::{IndexError, derive};
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use rayon::prelude::*;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"OBOROSEA";
pub(crate) const VERSION: u16 = 2;
pub(crate) const HEADER: usize = 64;
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// Chunks in memory at a time, beside the payload.
const BATCH: usize = 64;

/// What a sealed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) index_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) file_id: [u8; 16],
}

fn chunks(payload: u64) -> u64 {
    payload.div_ceil(CHUNK as u64).max(1)
}

/// Bytes of a file with this payload.
pub(crate) fn sealed_len(payload: u64) -> Option<u64> {
    chunks(payload)
        .checked_mul(TAG as u64)?
        .checked_add(payload)?
        .checked_add(HEADER as u64)
}

impl Header {
    fn to_bytes(self, payload: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind.code();
        out[12..16].copy_from_slice(&(CHUNK as u32).to_le_bytes());
        out[16..24].copy_from_slice(&payload.to_le_bytes());
        out[24..40].copy_from_slice(&self.index_id);
        out[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        out[48..].copy_from_slice(&self.file_id);
        out
    }

    fn cipher(&self, key: &EpochKey) -> Aes256GcmSiv {
        let mut context = [0; 41];
        context[0] = self.kind.code();
        context[1..17].copy_from_slice(&self.index_id);
        context[17..25].copy_from_slice(&self.epoch.to_le_bytes());
        context[25..].copy_from_slice(&self.file_id);
        let key = derive::key(key.secret(), "file-sealing", &context);
        Aes256GcmSiv::new((&*key).into())
    }
}

fn nonce(chunk: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&chunk.to_le_bytes());
    nonce.into()
}

fn associated(header: &[u8; HEADER], chunk: u64) -> [u8; HEADER + 8] {
    let mut out = [0; HEADER + 8];
    out[..HEADER].copy_from_slice(header);
    out[HEADER..].copy_from_slice(&chunk.to_le_bytes());
    out
}

/// Writes `payload` sealed; chunks are sealed in parallel.
pub(crate) fn seal(
    key: &EpochKey,
    header: &Header,
    payload: &[u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let cipher = header.cipher(key);
    let header = header.to_bytes(payload.len() as u64);
    out.write_all(&header)?;
    let mut buffer = vec![0; BATCH * (CHUNK + TAG)];
    let empty: [&[u8]; 1] = [&[]];
    let all: Vec<&[u8]> = if payload.is_empty() {
        empty.to_vec()
    } else {
        payload.chunks(CHUNK).collect()
    };
    for (batch, chunks) in all.chunks(BATCH).enumerate() {
        buffer
            .par_chunks_mut(CHUNK + TAG)
            .zip(chunks)
            .enumerate()
            .for_each(|(i, (out, chunk))| {
                let number = (batch * BATCH + i) as u64;
                let (body, tag) = out[..chunk.len() + TAG].split_at_mut(chunk.len());
                body.copy_from_slice(chunk);
                let sealed = cipher
                    .encrypt_inout_detached(
                        &nonce(number),
                        &associated(&header, number),
                        body.into(),
                    )
                    .expect("a chunk is far below the cipher's limit of 64 GiB");
                tag.copy_from_slice(&sealed);
            });
        let bytes: usize = chunks.iter().map(|chunk| chunk.len() + TAG).sum();
        // Only the last chunk is short, so the batch lies without gaps.
        out.write_all(&buffer[..bytes])?;
    }
    Ok(())
}

/// Seals `payload` into a new file of `folder`, durable when this returns.
pub(crate) fn write_file(
    folder: &Path,
    key: &EpochKey,
    kind: FileKind,
    file_id: [u8; 16],
    payload: &[u8],
) -> Result<FileEntry, IndexError> {
    let header = Header {
        kind,
        index_id: *key.index_id(),
        epoch: key.epoch(),
        file_id,
    };
    let path = folder.join(kind.file_name(key.epoch(), &file_id));
    let write = || {
        let mut out = HashingWriter {
            file: File::create_new(&path)?,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        seal(key, &header, payload, &mut out)?;
        out.file.sync_all()?;
        Ok(FileEntry {
            id: file_id,
            bytes: out.bytes,
            hash: *out.hasher.finalize().as_bytes(),
        })
    };
    write().map_err(IndexError::io(&path))
}

/// Hashes what it writes.
struct HashingWriter {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A sealed file whose header has been read and found to be what it should.
pub(crate) struct SealedFile {
    file: File,
    name: String,
    header: Header,
    payload: u64,
}

impl SealedFile {
    /// Opens `path` and checks header and length.
    pub(crate) fn open(path: &Path, name: &str, header: Header) -> Result<Self, IndexError> {
        let mut file = File::open(path).map_err(IndexError::io(path))?;
        let length = file.metadata().map_err(IndexError::io(path))?.len();
        let mut bytes = Vec::with_capacity(HEADER);
        (&mut file)
            .take(HEADER as u64)
            .read_to_end(&mut bytes)
            .map_err(IndexError::io(path))?;
        let payload = parse_header(name, &bytes, &header)?;
        if sealed_len(payload) != Some(length) {
            return Err(IndexError::damaged(name, "its length is wrong"));
        }
        Ok(Self {
            file,
            name: name.to_owned(),
            header,
            payload,
        })
    }

    /// Bytes of the payload. No more than the file has.
    pub(crate) fn payload_len(&self) -> usize {
        usize::try_from(self.payload).unwrap_or(usize::MAX)
    }

    /// Opens the payload into `out`, which must be of its length.
    pub(crate) fn read_into(mut self, key: &EpochKey, out: &mut [u8]) -> Result<(), IndexError> {
        assert_eq!(out.len() as u64, self.payload, "buffer does not fit");
        let cipher = self.header.cipher(key);
        let header = self.header.to_bytes(self.payload);
        let mut buffer = vec![0; BATCH * (CHUNK + TAG)];
        let mut all: Vec<&mut [u8]> = if out.is_empty() {
            vec![out]
        } else {
            out.chunks_mut(CHUNK).collect()
        };
        for (batch, chunks) in all.chunks_mut(BATCH).enumerate() {
            let bytes: usize = chunks.iter().map(|chunk| chunk.len() + TAG).sum();
            self.file
                .read_exact(&mut buffer[..bytes])
                .map_err(|_| IndexError::damaged(&self.name, "it ends early"))?;
            let opened = buffer[..bytes]
                .par_chunks(CHUNK + TAG)
                .zip(chunks)
                .enumerate()
                .all(|(i, (sealed, out))| {
                    let number = (batch * BATCH + i) as u64;
                    let (body, tag) = sealed.split_at(sealed.len() - TAG);
                    let mut tag_bytes = [0; TAG];
                    tag_bytes.copy_from_slice(tag);
                    out.copy_from_slice(body);
                    cipher
                        .decrypt_inout_detached(
                            &nonce(number),
                            &associated(&header, number),
                            (&mut **out).into(),
                            &Tag::from(tag_bytes),
                        )
                        .is_ok()
                });
            if !opened {
                return Err(IndexError::damaged(&self.name, "a seal does not open"));
            }
        }
        Ok(())
    }

    /// Opens the payload.
    pub(crate) fn read(self, key: &EpochKey) -> Result<Vec<u8>, IndexError> {
        let mut out = vec![0; self.payload_len()];
        self.read_into(key, &mut out)?;
        Ok(out)
    }
}

/// Checks a header against what the file should be; the payload's length.
pub(crate) fn parse_header(name: &str, bytes: &[u8], expected: &Header) -> Result<u64, IndexError> {
    let mut cursor = Cursor::new(name, bytes);
    cursor.magic(MAGIC, VERSION)?;
    let kind = cursor.u16()?;
    let chunk = cursor.u32()?;
    let payload = cursor.u64()?;
    let index_id = cursor.array::<16>()?;
    let epoch = cursor.u64()?;
    let file_id = cursor.array::<16>()?;
    cursor.end()?;
    if kind != u16::from(expected.kind.code()) || chunk != CHUNK as u32 {
        return Err(IndexError::damaged(name, "its header is wrong"));
    }
    if index_id != expected.index_id || file_id != expected.file_id {
        return Err(IndexError::damaged(name, "it belongs to another index"));
    }
    if epoch != expected.epoch {
        return Err(IndexError::damaged(name, "it belongs to another epoch"));
    }
    Ok(payload)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::OwnerKey;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn key(seed: u8) -> EpochKey {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([seed; 32])).epoch_key(&[4; 16], 6, true)
    }

    const HEAD: Header = Header {
        kind: FileKind::Codes,
        index_id: [4; 16],
        epoch: 6,
        file_id: [5; 16],
    };

    fn open(bytes: &[u8], key: &EpochKey, header: Header) -> Result<Vec<u8>, IndexError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        SealedFile::open(&path, "x", header)?.read(key)
    }

    fn sealed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(&key(1), &HEAD, payload, &mut out).unwrap();
        assert_eq!(sealed_len(payload.len() as u64), Some(out.len() as u64));
        out
    }

    #[test]
    fn round_trip_around_chunk_and_batch_ends() {
        for length in [
            0,
            1,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            BATCH * CHUNK - 1,
            BATCH * CHUNK,
            BATCH * CHUNK + 1,
            2 * BATCH * CHUNK + 77,
        ] {
            let payload: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8).collect();
            let bytes = sealed(&payload);
            assert!(open(&bytes, &key(1), HEAD).unwrap() == payload, "{length}");
        }
    }

    #[test]
    fn fail_every_flip_and_cut() {
        let bytes = sealed(b"codes");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, &key(1), HEAD).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(open(&bytes[..cut], &key(1), HEAD).is_err());
        }
        assert!(open(&[&bytes[..], &[0]].concat(), &key(1), HEAD).is_err());
        assert!(open(&bytes, &key(2), HEAD).is_err());
        for other in [
            Header {
                kind: FileKind::Ids,
                ..HEAD
            },
            Header {
                index_id: [0; 16],
                ..HEAD
            },
            Header {
                file_id: [0; 16],
                ..HEAD
            },
            Header { epoch: 7, ..HEAD },
        ] {
            assert!(open(&bytes, &key(1), other).is_err());
        }
    }

    #[test]
    fn fail_chunks_moved_dropped_or_repeated() {
        let payload = vec![0; 3 * CHUNK];
        let bytes = sealed(&payload);
        let chunk = |i: usize| &bytes[HEADER + i * (CHUNK + TAG)..][..CHUNK + TAG];
        let with = |order: &[usize]| {
            let mut out = bytes[..HEADER].to_vec();
            order.iter().for_each(|&i| out.extend_from_slice(chunk(i)));
            out
        };
        assert!(open(&with(&[0, 1, 2]), &key(1), HEAD).is_ok());
        for order in [&[1, 0, 2][..], &[0, 0, 2], &[0, 1], &[0, 1, 2, 2]] {
            assert!(open(&with(order), &key(1), HEAD).is_err());
        }
        // A header that promises fewer chunks is caught by the tags.
        let mut short = with(&[0, 1]);
        short[16..24].copy_from_slice(&(2 * CHUNK as u64).to_le_bytes());
        assert!(open(&short, &key(1), HEAD).is_err());
    }

    proptest! {
        #[test]
        fn fail_random_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(parse_header("x", &bytes, &HEAD).is_err());
        }
    }
}
