//! The files of a finished index on their way to its owner.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oboro_owner::BuildReport;
use oboro_protocol::build::PIECE_BYTES;
use oboro_protocol::build::v1::{self, build_reply::Part};

/// The file that names the others.
const MANIFEST: &str = "MANIFEST";

/// What goes before the files.
pub(super) fn built(index: &Path, report: &BuildReport) -> std::io::Result<Part> {
    let (trial, seconds) = (&report.trial, &report.seconds);
    Ok(Part::Built(v1::Built {
        manifest: std::fs::read(index.join(MANIFEST))?.into(),
        rotation_cost: report.rotation_cost,
        trial: Some(v1::Trial {
            queries: trial.queries as u32,
            candidates: trial.candidates as u32,
            table_error: trial.table_error,
            table_error_bound: trial.table_error_bound,
            recall_10_at_10: trial.recall_10_at_10,
            recall_10_at_10_unranked: trial.recall_10_at_10_unranked,
            recall_in_lists: trial.recall_in_lists,
        }),
        seconds: vec![seconds.train, seconds.encode, seconds.trial, seconds.write],
        opq: report.opq.as_ref().map(|opq| v1::Opq {
            turns: opq.turns as u32,
            distortion_without: opq.distortion_without,
            distortion_with: opq.distortion_with,
            recall_without: opq.recall_without,
            recall_with: opq.recall_with,
        }),
        lists: report.lists.as_ref().map(|lists| v1::Lists {
            lists: lists.lists as u32,
            probes_max: lists.probes_max,
            places: lists.places as u64,
            recall_10_at_10: lists.recall_10_at_10,
        }),
    }))
}

/// Reads the files in the order of the manifest and gives them to `send`, a piece at a
/// time, until that says that nobody wants more.
pub(super) fn pieces(
    index: &Path,
    report: &BuildReport,
    send: &mut dyn FnMut(Part) -> bool,
) -> std::io::Result<()> {
    for (name, bytes) in report.files.iter().filter(|(name, _)| name != MANIFEST) {
        let mut file = File::open(index.join(name))?.take(*bytes);
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            file.by_ref()
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            let piece = v1::Piece {
                bytes: piece.into(),
            };
            if !send(Part::Piece(piece)) {
                return Ok(());
            }
        }
    }
    Ok(())
}
