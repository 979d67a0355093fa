//! `oboro inspect`: what an index holds, costs and protects.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use oboro_index::{Index, Segment, SegmentSummary, Summary};
use oboro_owner::{EncryptionReport, displacement};
use serde::Serialize;

use super::verify;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::passphrase::KeyPassphrase;
use crate::roles;

/// Options of `oboro inspect`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder of the index
    #[arg(value_name = "INDEX")]
    pub(crate) index: PathBuf,
    /// Keys of the owner; without them only what anybody can see is shown
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
}

/// What there is to say of an index.
#[derive(Serialize)]
struct Inspected {
    index_id: String,
    epoch: u64,
    generation: u64,
    /// Digest of the manifest: what a keeper remembers of this state.
    manifest_digest: String,
    /// Whether the keeper's part is needed to open it.
    released: bool,
    vectors: u64,
    /// Deleted vectors that are still on the disk.
    deleted: u64,
    /// Whether there is a model, with which new vectors are encoded.
    model: bool,
    segments: usize,
    /// Vectors of each segment and how many of them are deleted.
    segment_list: Vec<OneSegment>,
    total_bytes: u64,
    /// Bytes of codes, ids and tags, which a searcher keeps in memory; of an index with lists,
    /// without keys, as if all lists were of one length.
    resident_bytes: u64,
    /// Whether vectors are in lists, which have codes and tags once more.
    #[serde(skip)]
    in_lists: bool,
    files: Vec<File>,
    /// What only the holder of a key can see.
    #[serde(flatten)]
    sealed: Option<Sealed>,
}

#[derive(Serialize)]
struct File {
    name: String,
    bytes: u64,
}

#[derive(Serialize)]
struct OneSegment {
    vectors: u32,
    deleted: u32,
    /// Whether a merge made it.
    compacted: bool,
}

#[derive(Serialize)]
struct Sealed {
    dimension: u32,
    metric: &'static str,
    subquantizers: usize,
    centroids: usize,
    split: usize,
    rotation: &'static str,
    /// Whether a learned matrix turns queries and vectors.
    opq: bool,
    /// Lists that vectors are in, and most of them that a search looks at.
    lists: usize,
    probes_max: u32,
    originals: &'static str,
    /// Bytes of each record for text id and payload.
    extra_bytes: u32,
    /// Tags that vectors may have; their names are nowhere.
    tags: usize,
    candidates_max: u32,
    keeper_fingerprint: String,
    parameter_set: &'static str,
    security_bits: u32,
    public_key_bytes: usize,
    query_bytes: usize,
    products_bytes: usize,
    share_bytes: usize,
    record_bytes: usize,
    margin_bits: f64,
    noise_bits: f64,
    dropped_bits: u32,
    flooding_bits: f64,
    table_error: f64,
    query_norm_bound: f64,
    displacement_probability_100: f64,
    displacement_probability_most: f64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    roles::check_index(&options.index)?;
    let summary = Summary::read(&options.index)?;
    let index = options
        .keys
        .as_deref()
        .map(|keys| -> Outcome<_> {
            let (key, _) = verify::keys(keys, &options.index, &options.passphrase)?;
            Ok(Index::open(&options.index, &key)?)
        })
        .transpose()?;
    let resident_bytes = match &index {
        Some(index) => index.segments().iter().map(Segment::resident_bytes).sum(),
        None => {
            let segments = summary.segments.iter();
            segments.map(SegmentSummary::resident_bytes).sum()
        }
    };
    let sealed = index.as_ref().map(sealed).transpose()?;
    let files: Vec<File> = summary
        .files
        .iter()
        .map(|(name, bytes)| File {
            name: name.clone(),
            bytes: *bytes,
        })
        .collect();
    output::print(
        &Inspected {
            index_id: output::hex(&summary.index_id),
            epoch: summary.epoch,
            generation: summary.generation,
            manifest_digest: output::hex(&summary.manifest_digest),
            released: summary.released,
            vectors: summary.vectors,
            deleted: summary.deleted,
            model: summary.model,
            segments: summary.segments.len(),
            segment_list: summary
                .segments
                .iter()
                .map(|segment| OneSegment {
                    vectors: segment.vectors,
                    deleted: segment.deleted,
                    compacted: segment.compacted,
                })
                .collect(),
            total_bytes: files.iter().map(|file| file.bytes).sum(),
            resident_bytes,
            in_lists: summary.segments.iter().any(|segment| segment.lists),
            files,
            sealed,
        },
        global.json,
    )
}

fn sealed(index: &Index) -> Outcome<Sealed> {
    let descriptor = index.descriptor();
    let encryption = EncryptionReport::new(&descriptor.packing, &descriptor.scale);
    let vectors = usize::try_from(index.vectors())
        .map_err(|_| Failure::input("the index has more vectors than this machine can count"))?;
    // Of an index that lost all its vectors nothing is displaced.
    let (at_100, at_most) = match vectors {
        0 => (0.0, 0.0),
        _ => displacement(vectors, descriptor.candidates_max as usize).or_failure()?,
    };
    Ok(Sealed {
        dimension: descriptor.dimension,
        metric: descriptor.metric.name(),
        subquantizers: descriptor.subquantizers(),
        centroids: descriptor.centroids(),
        split: descriptor.packing.split(),
        rotation: descriptor.rotation.name(),
        opq: descriptor.query_model.is_some_and(|shape| shape.opq),
        lists: descriptor.lists(),
        probes_max: descriptor.probes_max(),
        originals: descriptor.record_encoding.name(),
        extra_bytes: descriptor.extra_bytes,
        tags: descriptor.tags.len(),
        candidates_max: descriptor.candidates_max,
        keeper_fingerprint: output::hex(&descriptor.public_key_fingerprint()),
        parameter_set: encryption.parameter_set,
        security_bits: encryption.security_bits,
        public_key_bytes: encryption.public_key_bytes,
        query_bytes: encryption.query_bytes,
        products_bytes: encryption.products_bytes,
        share_bytes: encryption.share_bytes,
        record_bytes: descriptor.record_bytes(),
        margin_bits: round(encryption.margin_bits, 3),
        noise_bits: round(encryption.noise_bits, 3),
        dropped_bits: encryption.dropped_bits,
        flooding_bits: round(encryption.flooding_bits, 3),
        table_error: round(encryption.table_error, 3),
        query_norm_bound: round(encryption.query_norm_bound, 5),
        displacement_probability_100: round(at_100, 2),
        displacement_probability_most: round(at_most, 2),
    })
}

impl Report for Inspected {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "index        {}", self.index_id)?;
        writeln!(
            out,
            "epoch        {}, generation {} (rotations of the key, commits; both count from 1)",
            self.epoch, self.generation
        )?;
        writeln!(out, "state        {}", self.manifest_digest)?;
        writeln!(
            out,
            "opens with   {}",
            if self.released {
                "the searcher's key and the keeper's part, which it releases for the newest state only"
            } else {
                "the searcher's key alone: no keeper checks that this is the newest state"
            }
        )?;
        writeln!(
            out,
            "vectors      {} in {} segment{}",
            output::count(self.vectors),
            self.segments,
            if self.segments == 1 { "" } else { "s" }
        )?;
        if self.deleted > 0 {
            writeln!(
                out,
                "deleted      {}, on the disk until `oboro compact` or a merge",
                output::count(self.deleted)
            )?;
        }
        if self.segments > 1 {
            for segment in &self.segment_list {
                writeln!(
                    out,
                    "segment      {} vectors, {} deleted{}",
                    output::count(u64::from(segment.vectors)),
                    output::count(u64::from(segment.deleted)),
                    if segment.compacted { ", merged" } else { "" }
                )?;
            }
        }
        if !self.model {
            writeln!(
                out,
                "model        none: made blindly, so new vectors go to the searcher that serves it"
            )?;
        }
        for file in &self.files {
            writeln!(
                out,
                "file         {:12} {}",
                output::bytes(file.bytes),
                file.name
            )?;
        }
        writeln!(out, "in all       {}", output::bytes(self.total_bytes))?;
        writeln!(
            out,
            "in memory    {}: a searcher keeps codes, ids and tags resident{}",
            output::bytes(self.resident_bytes),
            match self.in_lists {
                true => ", those of lists twice",
                false => "",
            }
        )?;
        let Some(sealed) = &self.sealed else {
            return writeln!(
                out,
                "\nThis is all that anybody can see; give --keys to see what is sealed."
            );
        };
        writeln!(
            out,
            "shape        dimension {}, {}, {} sub-quantizers of {} centroids, rotation {}, originals {}",
            sealed.dimension,
            sealed.metric,
            sealed.subquantizers,
            sealed.centroids,
            sealed.rotation,
            sealed.originals
        )?;
        if sealed.opq {
            writeln!(
                out,
                "matrix       a learned one turns queries and vectors (OPQ)"
            )?;
        }
        if sealed.lists > 0 {
            writeln!(
                out,
                "lists        {}, of which a search looks at {} at most",
                sealed.lists, sealed.probes_max
            )?;
            writeln!(out, "             {}", output::LISTS_LEAK)?;
        }
        if sealed.tags > 0 || sealed.extra_bytes > 0 {
            writeln!(
                out,
                "records      {} bytes each for text id and payload; {} tags",
                sealed.extra_bytes, sealed.tags
            )?;
        }
        writeln!(
            out,
            "encryption   {}: {} bits of security, public key {}",
            sealed.parameter_set,
            sealed.security_bits,
            output::bytes(sealed.public_key_bytes as u64)
        )?;
        writeln!(out, "keeper       {}", sealed.keeper_fingerprint)?;
        writeln!(
            out,
            "messages     query {}, products {}, share {}, original {}",
            output::bytes(sealed.query_bytes as u64),
            output::bytes(sealed.products_bytes as u64),
            output::bytes(sealed.share_bytes as u64),
            output::bytes(sealed.record_bytes as u64)
        )?;
        writeln!(
            out,
            "noise        margin {:.1} bits, table error {:.1e}, drowned by {:.1} bits ({} low bits dropped)",
            sealed.margin_bits, sealed.table_error, sealed.flooding_bits, sealed.dropped_bits
        )?;
        writeln!(
            out,
            "selection    a best code is displaced with probability below {:.0e} (100 candidates), {:.0e} ({} candidates)",
            sealed.displacement_probability_100,
            sealed.displacement_probability_most,
            sealed.candidates_max
        )
    }
}
