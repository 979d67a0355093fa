//! What `oboro build` says at its end.

use std::io::{self, Write};

use oboro_index::IndexHead;
use oboro_owner::{BuildReport, ListsReport, OpqReport};
use serde::Serialize;

use super::build::Options;
use super::estimate::Estimated;
use super::low_recall;
use crate::figures::round;
use crate::output::{self, Report};

/// What was built.
#[derive(Serialize)]
pub(crate) struct Built {
    pub(super) index: String,
    pub(super) index_id: String,
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) manifest_digest: String,
    /// Whether a keeper's part is needed to open it.
    pub(super) released: bool,
    /// Whether a keeper has recorded this state as the newest.
    pub(super) registered: bool,
    pub(crate) vectors: usize,
    pub(crate) dimension: usize,
    pub(super) metric: &'static str,
    pub(crate) subquantizers: usize,
    pub(crate) centroids: usize,
    pub(super) split: usize,
    pub(super) rotation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rotation_cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opq: Option<Opq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lists: Option<Lists>,
    pub(super) originals: &'static str,
    /// Bytes of each record for text id and payload.
    pub(super) extra_bytes: u32,
    /// Tags that vectors may have.
    pub(super) tags: usize,
    pub(super) parameter_set: &'static str,
    pub(super) security_bits: u32,
    #[serde(skip)]
    pub(super) state: IndexHead,
    pub(crate) seconds: f64,
    pub(super) stages: Stages,
    pub(super) files: Vec<File>,
    pub(super) total_bytes: u64,
    pub(super) public_key_bytes: usize,
    pub(super) query_bytes: usize,
    pub(super) products_bytes: usize,
    pub(super) share_bytes: usize,
    pub(super) record_bytes: usize,
    pub(super) margin_bits: f64,
    pub(super) noise_bits: f64,
    pub(super) dropped_bits: u32,
    pub(super) flooding_bits: f64,
    pub(super) table_error: f64,
    pub(super) query_norm_bound: f64,
    pub(super) displacement_probability_100: f64,
    pub(super) displacement_probability_most: f64,
    pub(super) candidates_max: usize,
    pub(super) trial: Trial,
    /// What to look at, a sentence each.
    pub(super) remarks: Vec<String>,
    /// Where it was made, if not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generator: Option<Generator>,
    /// The most memory that this process had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_bytes: Option<u64>,
    /// What was expected, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) estimate: Option<Estimated>,
}

fn digits(value: Option<f64>) -> Option<f64> {
    value.map(|value| round(value, 4))
}

/// What the learned matrix gains on the sample.
#[derive(Serialize)]
pub(super) struct Opq {
    turns: usize,
    distortion_without: f64,
    distortion_with: f64,
    recall_10_at_10_unranked_without: f64,
    recall_10_at_10_unranked_with: f64,
    helps: bool,
}

impl Opq {
    fn new(report: &OpqReport) -> Self {
        Self {
            turns: report.turns,
            distortion_without: round(report.distortion_without, 4),
            distortion_with: round(report.distortion_with, 4),
            recall_10_at_10_unranked_without: round(report.recall_without, 4),
            recall_10_at_10_unranked_with: round(report.recall_with, 4),
            helps: report.helps(),
        }
    }
}

/// The lists, of which a search looks at some.
#[derive(Serialize)]
pub(super) struct Lists {
    lists: usize,
    probes_max: u32,
    /// Vectors of a list, fillers included.
    places: usize,
    /// Of the trial queries, after re-ranking.
    recall_10_at_10: Option<f64>,
}

impl Lists {
    fn new(report: &ListsReport) -> Self {
        Self {
            lists: report.lists,
            probes_max: report.probes_max,
            places: report.places,
            recall_10_at_10: digits(report.recall_10_at_10),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Stages {
    pub(super) read: f64,
    pub(super) train: f64,
    pub(super) encode: f64,
    pub(super) trial: f64,
    pub(super) write: f64,
}

/// The program that made the index.
#[derive(Serialize)]
pub(super) struct Generator {
    pub(super) address: String,
    pub(super) simulated: bool,
}

#[derive(Serialize)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Trial {
    pub(super) queries: usize,
    pub(super) candidates: usize,
    pub(super) table_error: f64,
    pub(super) table_error_bound: f64,
    /// `None` where nothing was to be found.
    pub(super) recall_10_at_10: Option<f64>,
    pub(super) recall_10_at_10_unranked: Option<f64>,
}

impl Built {
    /// Bytes between searcher and keeper for a query.
    pub(crate) fn keeper_bytes(&self) -> usize {
        self.products_bytes + self.share_bytes
    }

    pub(super) fn new(options: &Options, report: &BuildReport) -> Self {
        let encryption = &report.encryption;
        let seconds = &report.seconds;
        let files: Vec<File> = report
            .files
            .iter()
            .map(|(name, bytes)| File {
                name: name.clone(),
                bytes: *bytes,
            })
            .collect();
        Self {
            index: options.folder().display().to_string(),
            index_id: output::hex(&report.state.index_id),
            epoch: report.state.epoch,
            generation: report.state.generation,
            manifest_digest: output::hex(&report.state.manifest_digest),
            released: report.state.released,
            registered: false,
            state: report.state,
            vectors: report.vectors,
            dimension: report.dimension,
            metric: report.metric,
            subquantizers: report.subquantizers,
            centroids: report.centroids,
            split: report.split,
            rotation: report.rotation,
            rotation_cost: report.rotation_cost.map(|cost| round(cost, 4)),
            opq: report.opq.as_ref().map(Opq::new),
            lists: report.lists.as_ref().map(Lists::new),
            originals: report.originals,
            extra_bytes: report.extra_bytes,
            tags: report.tags,
            parameter_set: encryption.parameter_set,
            security_bits: encryption.security_bits,
            seconds: round(seconds.total, 4),
            stages: Stages {
                read: round(seconds.read, 3),
                train: round(seconds.train, 3),
                encode: round(seconds.encode, 3),
                trial: round(seconds.trial, 3),
                write: round(seconds.write, 3),
            },
            total_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            public_key_bytes: encryption.public_key_bytes,
            query_bytes: encryption.query_bytes,
            products_bytes: encryption.products_bytes,
            share_bytes: encryption.share_bytes,
            record_bytes: report.record_bytes,
            margin_bits: round(encryption.margin_bits, 3),
            noise_bits: round(encryption.noise_bits, 3),
            dropped_bits: encryption.dropped_bits,
            flooding_bits: round(encryption.flooding_bits, 3),
            table_error: round(encryption.table_error, 3),
            query_norm_bound: round(encryption.query_norm_bound, 5),
            displacement_probability_100: round(report.displacement_probability.0, 2),
            displacement_probability_most: round(report.displacement_probability.1, 2),
            candidates_max: report.candidates_max,
            trial: Trial {
                queries: report.trial.queries,
                candidates: report.trial.candidates,
                table_error: round(report.trial.table_error, 3),
                table_error_bound: round(report.trial.table_error_bound, 3),
                recall_10_at_10: digits(report.trial.recall_10_at_10),
                recall_10_at_10_unranked: digits(report.trial.recall_10_at_10_unranked),
            },
            remarks: low_recall::remarks(report),
            generator: None,
            peak_bytes: None,
            estimate: None,
        }
    }
}

impl Report for Built {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let bytes = |value: usize| output::bytes(value as u64);
        writeln!(
            out,
            "{}: {} vectors x {}, {}, {} sub-quantizers of {} centroids, rotation {}, originals {}",
            self.index,
            output::count(self.vectors as u64),
            self.dimension,
            self.metric,
            self.subquantizers,
            self.centroids,
            self.rotation,
            self.originals
        )?;
        writeln!(
            out,
            "built in {:.1} s: reading {:.1}, training {:.1}, encoding and sealing {:.1}, trial {:.1}, writing {:.1}",
            self.seconds,
            self.stages.read,
            self.stages.train,
            self.stages.encode,
            self.stages.trial,
            self.stages.write
        )?;
        if let Some(generator) = &self.generator {
            writeln!(
                out,
                "made by the generator at {}, which saw the vectors and has forgotten them",
                generator.address
            )?;
        }
        if let (Some(estimate), Some(peak)) = (&self.estimate, self.peak_bytes) {
            writeln!(
                out,
                "expected were {:.1} s and {} of memory; it had {}",
                estimate.seconds,
                output::bytes(estimate.memory_bytes),
                output::bytes(peak)
            )?;
        }
        if let Some(cost) = self.rotation_cost {
            writeln!(
                out,
                "the full rotation multiplies the quantization error by {cost:.2}; --rotation subspace costs nothing"
            )?;
        }
        if let Some(opq) = &self.opq {
            writeln!(
                out,
                "the learned matrix takes the error of codes from {:.4} to {:.4} and 10-recall@10 without re-ranking from {:.3} to {:.3}, on the sample{}",
                opq.distortion_without,
                opq.distortion_with,
                opq.recall_10_at_10_unranked_without,
                opq.recall_10_at_10_unranked_with,
                if opq.helps {
                    ""
                } else {
                    "; it does not help here, so build without --opq"
                }
            )?;
        }
        if let Some(lists) = &self.lists {
            match lists.places {
                0 => writeln!(
                    out,
                    "{} lists are too many for so few vectors: every search looks at all of them",
                    lists.lists
                )?,
                places => writeln!(
                    out,
                    "{} lists of {places} places; a search looks at {}, {:.1} % of the vectors{}",
                    lists.lists,
                    lists.probes_max,
                    100.0 * f64::from(lists.probes_max) / lists.lists as f64,
                    lists
                        .recall_10_at_10
                        .map_or_else(String::new, |recall| format!(
                            ", at 10-recall@10 {recall:.3} after re-ranking"
                        ))
                )?,
            }
            writeln!(out, "{}", output::LISTS_LEAK)?;
        }
        writeln!(out, "\nfiles")?;
        for file in &self.files {
            writeln!(out, "  {:12} {}", output::bytes(file.bytes), file.name)?;
        }
        writeln!(out, "  {:12} in all", output::bytes(self.total_bytes))?;
        writeln!(
            out,
            "\nstate {} of index {}, epoch {}, generation {}",
            self.manifest_digest, self.index_id, self.epoch, self.generation
        )?;
        writeln!(
            out,
            "  {}",
            match (self.released, self.registered) {
                (false, _) => "opens with the searcher's key alone; no keeper takes part",
                (true, true) =>
                    "the keeper has recorded it: no older copy of the index is served from now on",
                (true, false) =>
                    "the keeper records it when a searcher first serves it; --keeper does so now",
            }
        )?;
        writeln!(out, "\nmessages of one query")?;
        writeln!(
            out,
            "  {:12} encrypted query, client to searcher",
            bytes(self.query_bytes)
        )?;
        writeln!(
            out,
            "  {:12} masked products, searcher to keeper",
            bytes(self.products_bytes)
        )?;
        writeln!(
            out,
            "  {:12} table share, keeper to searcher",
            bytes(self.share_bytes)
        )?;
        writeln!(
            out,
            "  {:12} 100 sealed originals, searcher to client",
            bytes(100 * self.record_bytes)
        )?;
        writeln!(out, "\nencryption")?;
        writeln!(
            out,
            "  {}: {} bits of security; public key {}, no evaluation keys",
            self.parameter_set,
            self.security_bits,
            bytes(self.public_key_bytes)
        )?;
        writeln!(
            out,
            "  noise margin {:.1} bits; error of a table entry {:.1e}; noise drowned by {:.1} bits ({} low bits dropped)",
            self.margin_bits, self.table_error, self.flooding_bits, self.dropped_bits
        )?;
        writeln!(
            out,
            "  queries up to norm {:.4} are searched as they are; longer ones are shortened to it",
            self.query_norm_bound
        )?;
        writeln!(
            out,
            "  a best code is displaced with probability below {:.0e} (100 candidates), {:.0e} ({} candidates)",
            self.displacement_probability_100,
            self.displacement_probability_most,
            self.candidates_max
        )?;
        writeln!(
            out,
            "\n{} trial queries through the encrypted path",
            self.trial.queries
        )?;
        writeln!(
            out,
            "  largest table error {:.1e} (bound {:.1e})",
            self.trial.table_error, self.trial.table_error_bound
        )?;
        let trial = &self.trial;
        if let (Some(ranked), Some(unranked)) =
            (trial.recall_10_at_10, trial.recall_10_at_10_unranked)
        {
            writeln!(
                out,
                "  10-recall@10 {ranked:.3} after re-ranking {} candidates, {unranked:.3} without",
                trial.candidates
            )?;
        }
        for remark in &self.remarks {
            writeln!(out, "  note: {remark}")?;
        }
        Ok(())
    }
}
