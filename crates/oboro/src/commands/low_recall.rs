//! What a build remarks where its trial queries find too few of their true neighbours.

use oboro_owner::BuildReport;

use crate::output;

/// Recall after re-ranking below which something does not fit: the shape, or the vectors.
const LOW: f64 = 0.8;

/// A vector so many times as long as the median one is out of the ordinary.
const OUTLIER: f32 = 20.0;

/// Centroids of a code of a byte.
const CENTROIDS: usize = 256;

/// What was seen and what to try, a sentence each; nothing where recall is as it should be.
pub(super) fn remarks(report: &BuildReport) -> Vec<String> {
    let trial = &report.trial;
    let Some(recall) = trial.recall_10_at_10.filter(|&recall| recall < LOW) else {
        return Vec::new();
    };
    let mut tries = Vec::new();
    if report.subquantizers < report.dimension {
        tries.push(format!(
            "more sub-quantizers (-M, here {})",
            report.subquantizers
        ));
    }
    if report.centroids < CENTROIDS {
        tries.push(format!(
            "more centroids (-K {CENTROIDS}, here {})",
            report.centroids
        ));
    }
    tries.push(match report.candidates_max > trial.candidates {
        true => format!(
            "searches with more candidates (--rerank, up to {})",
            report.candidates_max
        ),
        false => "an index that allows more candidates (--candidates-max)".to_owned(),
    });
    let mut remarks = vec![format!(
        "recall is low: of ten true neighbours {:.1} are among {} candidates; try {}",
        10.0 * recall,
        trial.candidates,
        listed(&tries)
    )];
    let lengths = &report.lengths;
    let compared = matches!(report.metric, "l2" | "ip");
    if compared && lengths.longest > OUTLIER * lengths.median {
        let times = match lengths.median > 0.0 {
            true => format!(
                "{} times as long as",
                output::count((lengths.longest / lengths.median).round() as u64)
            ),
            false => "far longer than".to_owned(),
        };
        remarks.push(format!(
            "the longest vector is {times} the median one, and tables have room for queries of that length, which leaves little precision for the others; leave such vectors out or shorten them, or, where lengths mean nothing, build with --metric cosine"
        ));
    }
    remarks
}

fn listed(tries: &[String]) -> String {
    match tries {
        [one] => one.clone(),
        [first @ .., last] => format!("{}, or {last}", first.join(", ")),
        [] => String::new(),
    }
}
