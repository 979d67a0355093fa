//! What a build will take, before it is begun.
//!
//! The first rows of the source are really built, with one round of training, in a
//! hidden folder beside the output, and some sub-spaces are really trained. What depends
//! on the number of rows is then scaled to all of them; what does not is taken as it is.
//! Memory follows from what a build holds at its two widest points.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use oboro_index::Rotation;
use oboro_quant::{BlockedCodes, Codebook, Subspaces, TrainOptions, code_bits};
use oboro_vectors::{Records, Refusal, VectorsError};
use rand_core::CryptoRng;

use crate::build::{ROTATION_ITERATIONS, ROTATION_SAMPLE};
use crate::shape::Shape;
use crate::survey::CHUNK;
use crate::{BuildOptions, BuildReport, Owner, OwnerError, StageSeconds, VectorSource};

/// Rows that are built, or as many as are trained on if that is more.
const ROWS: usize = 4 * CHUNK;

/// What a build takes beside what it holds: pages of code that it is the first to touch,
/// stacks of threads, room of allocators.
const AROUND: usize = 4 << 20;

/// Records files up to this size are put together in memory.
const MEMORY_BYTES: u64 = 512 << 20;
/// What writing a record at its place costs more than copying it there, in seconds.
const PLACING: f64 = 1e-6;

/// Bytes that measure how fast the disk takes them.
const DISK_BYTES: usize = 64 << 20;

/// What a build will take.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Vectors of the source.
    pub vectors: usize,
    /// Seconds of each stage.
    pub seconds: StageSeconds,
    /// Most bytes of memory that the build holds at a time, on top of what the process
    /// has already.
    pub memory_bytes: u64,
    /// Kinds of files and their bytes.
    pub files: Vec<(String, u64)>,
    /// Seconds that the estimate itself took.
    pub took: f64,
}

impl Estimate {
    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Owner {
    /// Estimates what [`build`](Self::build) with the same arguments will take on this
    /// machine, from short runs on the first rows. Nothing is left behind; the source is
    /// at its first row afterwards.
    ///
    /// # Errors
    /// As [`build`](Self::build) for the rows that are looked at, and if the folder of
    /// `out` cannot be written to.
    pub fn estimate(
        &self,
        source: &mut dyn VectorSource,
        out: &Path,
        options: &BuildOptions,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Estimate, OwnerError> {
        let begin = Instant::now();
        let shape = Shape::of(source, self.parameter_set(), options)?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let unwritable = |error| OwnerError::Unwritable {
            folder: parent.to_owned(),
            source: error,
        };
        let folder = tempfile::Builder::new()
            .prefix(".oboro-estimate-")
            .tempdir_in(parent)
            .map_err(unwritable)?;
        let quick = BuildOptions {
            iterations: 1,
            sample: Some(shape.sample),
            force: false,
            progress: None,
            ..options.clone()
        };
        let mut head = Head::of(source, ROWS.max(shape.sample).min(shape.rows))?;
        let built = self.build(&mut head, &folder.path().join("index"), &quick, rng)?;
        let training = training_seconds(&mut head, &shape, options)?;
        // Matrix and lists were learned as they will be; codes in one round of many.
        let learning = match options.opq.is_some() || options.lists > 0 {
            true => {
                let one = training * 2.0 / (options.iterations + 1) as f64;
                (built.seconds.train - one).max(0.0)
            }
            false => 0.0,
        };
        let disk = bytes_per_second(folder.path()).map_err(unwritable)?;
        head.rewind()?;
        let scale = shape.rows as f64 / built.vectors as f64;
        let files = files(&built, scale);
        let records = records_bytes(&files);
        let growth = files.iter().map(|(_, bytes)| bytes).sum::<u64>()
            - built.files.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let placing = if records > MEMORY_BYTES {
            PLACING * shape.rows as f64
        } else {
            0.0
        };
        let mut seconds = StageSeconds {
            read: built.seconds.read * scale,
            train: training + learning,
            encode: built.seconds.encode * scale + placing,
            trial: built.seconds.trial + scan_seconds(&shape, built.vectors, options)?,
            write: built.seconds.write + growth as f64 / disk,
            total: 0.0,
        };
        seconds.total =
            seconds.read + seconds.train + seconds.encode + seconds.trial + seconds.write;
        Ok(Estimate {
            vectors: shape.rows,
            seconds,
            memory_bytes: memory(&shape, &built, records, options),
            files,
            took: begin.elapsed().as_secs_f64(),
        })
    }
}

/// The first rows of a source.
struct Head<'a> {
    source: &'a mut dyn VectorSource,
    rows: usize,
    next: usize,
}

impl<'a> Head<'a> {
    fn of(source: &'a mut dyn VectorSource, rows: usize) -> Result<Self, OwnerError> {
        source.rewind()?;
        Ok(Self {
            source,
            rows,
            next: 0,
        })
    }
}

impl VectorSource for Head<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn dimension(&self) -> usize {
        self.source.dimension()
    }

    fn tag_names(&self) -> &[String] {
        self.source.tag_names()
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let most = most.min(self.rows - self.next);
        if most == 0 {
            return Ok(None);
        }
        let records = self.source.read(most)?;
        self.next += records
            .as_ref()
            .map_or(0, |records| records.len() + records.refused.len());
        Ok(records)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.next = 0;
        self.source.rewind()
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        self.source.error(refusal)
    }
}

/// Seconds of the whole training, from that of as many sub-spaces as there are threads.
/// Rotation and metric change how far points lie apart, hardly how long this takes.
fn training_seconds(
    head: &mut Head<'_>,
    shape: &Shape,
    options: &BuildOptions,
) -> Result<f64, OwnerError> {
    let subquantizers = shape.packing.subquantizers();
    let threads = options.threads.unwrap_or_else(rayon::current_num_threads);
    let measured = threads.clamp(1, subquantizers);
    let columns = shape.subspaces.range(measured - 1).end;
    let mut points = Vec::with_capacity(shape.sample * columns);
    head.rewind()?;
    while points.len() < shape.sample * columns {
        let Some(records) = head.read(CHUNK.min(shape.sample - points.len() / columns))? else {
            break;
        };
        for vector in records.vectors.chunks_exact(shape.dimension) {
            points.extend_from_slice(&vector[..columns]);
        }
    }
    let mut training = TrainOptions::new(measured, shape.packing.centroids(), options.seed);
    training.iterations = options.iterations;
    training.sample = Some(points.len() / columns);
    training.threads = threads;
    training.cancel = std::sync::Arc::clone(&options.cancel);
    let begin = Instant::now();
    match Codebook::train(&points, columns, &training) {
        Err(oboro_quant::QuantError::Cancelled) => return Err(OwnerError::Cancelled),
        result => drop(result?),
    }
    let seconds = begin.elapsed().as_secs_f64() * subquantizers as f64 / measured as f64;
    // The full rotation is compared with none on a smaller sample, in fewer rounds.
    let compared = if options.rotation == Rotation::Full {
        let share = ROTATION_SAMPLE.min(shape.sample) as f64 / shape.sample as f64;
        2.0 * share * (ROTATION_ITERATIONS + 1) as f64 / (options.iterations + 1) as f64
    } else {
        0.0
    };
    Ok(seconds * (1.0 + compared))
}

/// Seconds that the trial queries take longer on all rows than on `built`.
fn scan_seconds(shape: &Shape, built: usize, options: &BuildOptions) -> Result<f64, OwnerError> {
    use oboro_quant::{QuantizedTable, Scanner, SelectionPlan};
    let (subquantizers, centroids) = (shape.packing.subquantizers(), shape.packing.centroids());
    let rows = built.min(ROWS);
    let codes: Vec<u8> = (0..rows * subquantizers)
        .map(|at| (at * 31 % centroids) as u8)
        .collect();
    let codes = BlockedCodes::from_rows(&codes, subquantizers, code_bits(centroids))?;
    let similarities: Vec<f32> = (0..subquantizers * centroids)
        .map(|at| (at * 37 % 101) as f32)
        .collect();
    let table = QuantizedTable::from_similarities(&similarities, subquantizers, centroids)?;
    let plan = SelectionPlan::new(rows, 100.min(rows))?;
    let scanner = Scanner::new();
    let begin = Instant::now();
    let rounds = 4;
    for _ in 0..rounds {
        scanner.search(&codes, std::slice::from_ref(&table), &plan, 0)?;
    }
    let each = begin.elapsed().as_secs_f64() / f64::from(rounds) / rows as f64;
    Ok(each * (shape.rows - built) as f64 * options.trials.min(shape.rows) as f64)
}

/// How fast the disk takes bytes and makes them durable.
fn bytes_per_second(folder: &Path) -> std::io::Result<f64> {
    let mut file: File = tempfile::tempfile_in(folder)?;
    // Not zeros, which some file systems do not write.
    let block: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251) as u8).collect();
    let begin = Instant::now();
    for _ in 0..DISK_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(DISK_BYTES as f64 / begin.elapsed().as_secs_f64().max(1e-6))
}

/// Whether a file of this name grows with the number of vectors.
fn grows(name: &str) -> bool {
    name.starts_with("segment-")
}

/// Kinds of files, and their bytes when there are `scale` times as many vectors.
fn files(built: &BuildReport, scale: f64) -> Vec<(String, u64)> {
    built
        .files
        .iter()
        .map(|(name, bytes)| {
            if !grows(name) {
                return (name.split('-').next().unwrap_or(name).to_owned(), *bytes);
            }
            let kind = name.rsplit('.').next().unwrap_or(name).to_owned();
            (kind, (*bytes as f64 * scale).round() as u64)
        })
        .collect()
}

fn records_bytes(files: &[(String, u64)]) -> u64 {
    files
        .iter()
        .filter(|(kind, _)| kind == "records")
        .map(|(_, bytes)| bytes)
        .sum()
}

/// What a build holds at its two widest points: while it trains, and while it encodes.
fn memory(shape: &Shape, built: &BuildReport, records: u64, options: &BuildOptions) -> u64 {
    let (rows, dimension) = (shape.rows, shape.dimension);
    let subquantizers = shape.packing.subquantizers();
    let threads = options.threads.unwrap_or_else(rayon::current_num_threads);
    let vector = 4 * dimension;
    let chunk = CHUNK.min(rows);
    let width = Subspaces::width(&shape.subspaces);
    // Each thread has its sub-space's points by row and by column, and four numbers each.
    let training = shape.sample * vector
        + threads.min(subquantizers) * shape.sample * (8 * width + 20)
        + if options.rotation == Rotation::Full {
            2 * ROTATION_SAMPLE.min(shape.sample) * vector
        } else {
            0
        };
    // Of each row: its place, its id, whether it is placed, its codes by row and in blocks.
    let blocked = BlockedCodes::byte_len(rows, subquantizers, code_bits(shape.packing.centroids()));
    let tags = if built.tags > 0 { 8 } else { 0 };
    // With lists: eight choices of eight bytes, who asked and who has what, the result.
    let lists = if options.lists > 0 { 64 + 16 } else { 0 };
    let each = rows * (4 + 8 + 1 + subquantizers + tags + lists) + blocked;
    let kept = if records <= MEMORY_BYTES {
        records as usize
    } else {
        0
    };
    // Two chunks as they were read, one as bytes, one sealed and one coded.
    let chunks = chunk * (3 * vector + 16 + built.record_bytes + subquantizers);
    let encoding = each + kept + chunks;
    (training.max(encoding) + AROUND) as u64
}
