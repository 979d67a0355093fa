//! Writing one segment's originals, in any order.

use crate::record::{RecordLayout, RecordSealer};
use crate::segment::origin_len;
use crate::{Extra, IndexError, layout};
use rayon::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"OBORORCD";
pub(crate) const VERSION: u16 = 2;
/// Bytes before the first record.
pub(crate) const HEADER: usize = 64;
/// Records sealed into one buffer.
const BATCH: usize = 1024;
/// Segments up to this size are put together in memory and written front to
/// back; larger ones are written record by record as they come, for which a
/// million records of 150 bytes take a second more.
const MEMORY_BYTES: u64 = 512 << 20;

/// The first bytes of a file of records; everything in it is known from
/// elsewhere, so a reader compares it whole.
pub(crate) fn header(
    index_id: &[u8; 16],
    segment_id: &[u8; 16],
    layout: &RecordLayout,
    origins: bool,
    vectors: u32,
) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[10..19].copy_from_slice(&layout.encoding.to_bytes());
    out[19] = u8::from(origins);
    out[20..24].copy_from_slice(&(layout.dimension as u32).to_le_bytes());
    out[24..28].copy_from_slice(&vectors.to_le_bytes());
    out[28..32].copy_from_slice(&layout.extra_bytes.to_le_bytes());
    out[32..48].copy_from_slice(index_id);
    out[48..].copy_from_slice(segment_id);
    out
}

/// Bytes of one record in a file.
pub(crate) const fn slot_len(layout: &RecordLayout, origins: bool) -> usize {
    origin_len(origins) + layout.stored_len()
}

/// Bytes of a file of records.
pub(crate) fn file_len(layout: &RecordLayout, origins: bool, vectors: u32) -> u64 {
    HEADER as u64 + u64::from(vectors) * slot_len(layout, origins) as u64
}

/// Takes the originals and ids of one segment, in whatever order they come.
///
/// Vectors are stored in random order ([`crate::permutation`]); the owner reads
/// its source front to back and says for each vector at which position it
/// belongs, so that no more than a chunk of originals is ever in memory.
pub struct SegmentWriter {
    sealer: RecordSealer,
    path: PathBuf,
    file: File,
    /// The whole file, while it is small enough.
    memory: Option<Vec<u8>>,
    ids: Vec<u64>,
    placed: Vec<bool>,
    missing: usize,
}

impl SegmentWriter {
    pub(crate) fn create(
        folder: &Path,
        sealer: RecordSealer,
        vectors: usize,
    ) -> Result<Self, IndexError> {
        Self::create_within(folder, sealer, vectors, MEMORY_BYTES)
    }

    pub(crate) fn create_within(
        folder: &Path,
        sealer: RecordSealer,
        vectors: usize,
        memory_bytes: u64,
    ) -> Result<Self, IndexError> {
        let count = u32::try_from(vectors).map_err(|_| IndexError::Mismatch {
            what: "the number of vectors of a segment",
            found: vectors as u64,
            expected: u64::from(u32::MAX),
        })?;
        let path = folder.join(layout::FileKind::Records.file_name(0, sealer.segment_id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(IndexError::io(&path))?;
        let length = file_len(sealer.layout(), false, count);
        reserve(&file, length).map_err(IndexError::io(&path))?;
        let header = header(
            sealer.index_id(),
            sealer.segment_id(),
            sealer.layout(),
            false,
            count,
        );
        let memory = if length <= memory_bytes {
            let mut memory = vec![0; length as usize];
            memory[..HEADER].copy_from_slice(&header);
            Some(memory)
        } else {
            file.write_all_at(&header, 0)
                .map_err(IndexError::io(&path))?;
            None
        };
        Ok(Self {
            sealer,
            path,
            file,
            memory,
            ids: vec![0; vectors],
            placed: vec![false; vectors],
            missing: vectors,
        })
    }

    /// The random id of the segment.
    #[must_use]
    pub const fn segment_id(&self) -> &[u8; 16] {
        self.sealer.segment_id()
    }

    /// Seals `vectors` (row after row) and puts row i, with id `ids[i]`, at
    /// `positions[i]`. Runs on rayon's current pool.
    ///
    /// # Errors
    /// If the lengths disagree, a position does not exist or is taken, or the
    /// file cannot be written.
    pub fn put(
        &mut self,
        positions: &[u32],
        ids: &[u64],
        vectors: &[f32],
    ) -> Result<(), IndexError> {
        self.put_with_extras(positions, ids, vectors, &[])
    }

    /// As [`put`](Self::put); row i comes with `extras[i]`. No extras at all
    /// are as empty ones.
    ///
    /// # Errors
    /// As [`put`](Self::put), or if one does not fit the index's extra bytes.
    pub fn put_with_extras(
        &mut self,
        positions: &[u32],
        ids: &[u64],
        vectors: &[f32],
        extras: &[Extra],
    ) -> Result<(), IndexError> {
        let dimension = self.sealer.layout().dimension;
        let mismatch = |what, found: usize, expected: usize| IndexError::Mismatch {
            what,
            found: found as u64,
            expected: expected as u64,
        };
        if ids.len() != positions.len() {
            return Err(mismatch("the number of ids", ids.len(), positions.len()));
        }
        if vectors.len() != positions.len() * dimension {
            return Err(mismatch(
                "the number of values",
                vectors.len(),
                positions.len() * dimension,
            ));
        }
        if !extras.is_empty() && extras.len() != positions.len() {
            return Err(mismatch(
                "the number of extras",
                extras.len(),
                positions.len(),
            ));
        }
        // Before anything is noted or sealed.
        for extra in extras {
            extra.check(self.sealer.layout().extra_bytes as usize)?;
        }
        for (&position, &id) in positions.iter().zip(ids) {
            match self.placed.get_mut(position as usize) {
                Some(placed) if !*placed => *placed = true,
                Some(_) => {
                    return Err(IndexError::Invalid(format!(
                        "position {position} of a segment was given twice; use a permutation"
                    )));
                }
                None => {
                    return Err(mismatch(
                        "a position plus one",
                        position as usize + 1,
                        self.ids.len(),
                    ));
                }
            }
            self.ids[position as usize] = id;
        }
        self.missing -= positions.len();
        self.seal(positions, ids, vectors, extras)
            .map_err(IndexError::io(&self.path))
    }

    fn seal(
        &mut self,
        positions: &[u32],
        ids: &[u64],
        vectors: &[f32],
        extras: &[Extra],
    ) -> io::Result<()> {
        let record_len = self.sealer.record_len();
        let dimension = self.sealer.layout().dimension;
        let sealer = &self.sealer;
        let batch = |number: usize, sealed: &mut [u8]| {
            let rows = number * BATCH..(number * BATCH + sealed.len() / record_len);
            for (row, out) in rows.zip(sealed.chunks_exact_mut(record_len)) {
                let vector = &vectors[row * dimension..(row + 1) * dimension];
                let (position, id) = (positions[row], ids[row]);
                match extras.get(row) {
                    Some(extra) => sealer
                        .seal_extra_into(position, id, vector, extra, out)
                        .expect("that it fits was checked before"),
                    None => sealer.seal_into(position, id, vector, out),
                }
            }
        };
        if let Some(memory) = &mut self.memory {
            // Sealing takes four fifths of the time and is parallel; putting
            // the records into their places is a copy.
            let mut sealed = vec![0; positions.len() * record_len];
            sealed
                .par_chunks_mut(BATCH * record_len)
                .enumerate()
                .for_each(|(number, out)| batch(number, out));
            for (&position, record) in positions.iter().zip(sealed.chunks_exact(record_len)) {
                let at = HEADER + position as usize * record_len;
                memory[at..at + record_len].copy_from_slice(record);
            }
            return Ok(());
        }
        positions.par_chunks(BATCH).enumerate().try_for_each_init(
            Vec::new,
            |buffer, (number, positions)| {
                buffer.resize(positions.len() * record_len, 0);
                batch(number, buffer);
                self.write(positions, buffer, record_len)
            },
        )
    }

    /// Writes runs of neighbouring positions with one call each.
    fn write(&self, positions: &[u32], sealed: &[u8], record_len: usize) -> io::Result<()> {
        let mut start = 0;
        for run in positions.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let bytes = &sealed[start * record_len..(start + run.len()) * record_len];
            let offset = HEADER as u64 + u64::from(run[0]) * record_len as u64;
            self.file.write_all_at(bytes, offset)?;
            start += run.len();
        }
        Ok(())
    }

    /// Checks that all is there, makes the file durable, and hands out
    /// (segment id, ids, hash and length of the file).
    pub(crate) fn finish(mut self) -> Result<Finished, IndexError> {
        if self.missing != 0 {
            return Err(IndexError::Mismatch {
                what: "the number of vectors put into a segment",
                found: (self.ids.len() - self.missing) as u64,
                expected: self.ids.len() as u64,
            });
        }
        refuse_duplicates(&self.ids)?;
        let (hash, bytes) = match self.memory.take() {
            Some(memory) => {
                self.file
                    .write_all_at(&memory, 0)
                    .map_err(IndexError::io(&self.path))?;
                (*blake3::hash(&memory).as_bytes(), memory.len() as u64)
            }
            None => hash(&mut self.file).map_err(IndexError::io(&self.path))?,
        };
        self.file.sync_all().map_err(IndexError::io(&self.path))?;
        Ok(Finished {
            segment_id: *self.sealer.segment_id(),
            ids: self.ids,
            layout: *self.sealer.layout(),
            hash,
            bytes,
        })
    }
}

/// A segment whose originals are complete.
pub(crate) struct Finished {
    pub(crate) segment_id: [u8; 16],
    pub(crate) ids: Vec<u64>,
    pub(crate) layout: RecordLayout,
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: u64,
}

/// Asks for all the space at once, so that a full disk is found before the
/// work and not after it.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        other => return other.map_err(Into::into),
    }
    file.set_len(length)
}

/// BLAKE3 of a file from its beginning, and its length.
pub(crate) fn hash(file: &mut File) -> io::Result<([u8; 32], u64)> {
    io::Seek::rewind(file)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((*hasher.finalize().as_bytes(), total));
        }
        hasher.update(&buffer[..count]);
        total += count as u64;
    }
}

fn refuse_duplicates(ids: &[u64]) -> Result<(), IndexError> {
    let mut sorted: Vec<u64> = ids.to_vec();
    sorted.par_sort_unstable();
    let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) else {
        return Ok(());
    };
    let mut at = ids.iter().enumerate().filter(|(_, id)| **id == pair[0]);
    let mut next = || at.next().map_or(0, |(position, _)| position);
    Err(IndexError::DuplicateId {
        first: next(),
        second: next(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::OwnerKey;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn in_memory_or_not_the_bytes_are_the_same() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = OwnerKey::generate(&mut rng).record_key();
        let order = crate::permutation(3000, &mut rng);
        let vectors: Vec<f32> = (0..9000).map(|v| v as f32 / 7.0).collect();
        let ids: Vec<u64> = (0..3000).collect();
        let file = |memory_bytes, threads, step: usize| {
            let dir = tempfile::tempdir().unwrap();
            let layout = RecordLayout::plain(crate::RecordEncoding::F16, 3);
            let sealer = RecordSealer::new(&key, [1; 16], [2; 16], layout);
            let mut writer =
                SegmentWriter::create_within(dir.path(), sealer, 3000, memory_bytes).unwrap();
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                for ((order, ids), vectors) in order
                    .chunks(step)
                    .zip(ids.chunks(step))
                    .zip(vectors.chunks(3 * step))
                {
                    writer.put(order, ids, vectors).unwrap();
                }
            });
            let path = writer.path.clone();
            let done = writer.finish().unwrap();
            let bytes = std::fs::read(path).unwrap();
            assert_eq!(*blake3::hash(&bytes).as_bytes(), done.hash);
            assert_eq!(bytes.len() as u64, done.bytes);
            bytes
        };
        let first = file(0, 1, 3000);
        assert!(first == file(1 << 20, 1, 700));
        assert!(first == file(1 << 20, 3, 3000));
        assert!(first == file(0, 3, 700));
    }
}
