//! What a searcher counts, and its Prometheus text.
//!
//! Everything here is a count, a number of bytes or a duration of public work.
//! No content, identifier or key ever reaches a metric.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use oboro_telemetry::{Exposition, Histogram};

/// The stages of a search, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Checking and decoding the query ciphertext.
    Decode,
    /// The encrypted table and its re-randomization.
    Evaluate,
    /// The round trip to the keeper, its work included.
    Keeper,
    /// Adding the shares, decoding and quantizing the table.
    Unmask,
    /// Waiting for a pass over the codes to begin.
    Queue,
    /// The pass over the codes, selection included.
    Scan,
    /// Collecting records or ids of the candidates.
    Gather,
    /// All of it.
    Total,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 8] = [
        Self::Decode,
        Self::Evaluate,
        Self::Keeper,
        Self::Unmask,
        Self::Queue,
        Self::Scan,
        Self::Gather,
        Self::Total,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Evaluate => "evaluate",
            Self::Keeper => "keeper",
            Self::Unmask => "unmask",
            Self::Queue => "queue",
            Self::Scan => "scan",
            Self::Gather => "gather",
            Self::Total => "total",
        }
    }
}

/// All figures of a running searcher.
#[derive(Debug, Default)]
pub struct Metrics {
    stages: [Histogram; Stage::ALL.len()],
    /// Searches answered.
    pub answered: AtomicU64,
    /// Searches refused or failed, any reason.
    pub failed: AtomicU64,
    /// Searches refused because the queue or the sessions were full.
    pub busy: AtomicU64,
    /// Requests refused by the rate limit of their client.
    pub rate_limited: AtomicU64,
    /// Searches that met no keeper.
    pub keeper_unreachable: AtomicU64,
    /// Times the codebook was registered with a keeper.
    pub registrations: AtomicU64,
    /// Passes over the codes.
    pub passes: AtomicU64,
    /// Tables served by those passes; divided by `passes` it is the sharing.
    pub tables: AtomicU64,
    /// Encryptions of zero taken from the pool.
    pub zeros_pooled: AtomicU64,
    /// Encryptions of zero made while a query waited.
    pub zeros_inline: AtomicU64,
    /// Query ciphertext received, bytes.
    pub query_bytes: AtomicU64,
    /// Replies sent to clients, padding included, bytes.
    pub reply_bytes: AtomicU64,
    /// Masked products sent to the keeper, bytes.
    pub keeper_bytes_up: AtomicU64,
    /// Table shares received from the keeper, bytes.
    pub keeper_bytes_down: AtomicU64,
    /// Candidates whose id or record was asked for. How many there were is not
    /// counted: it would say how many vectors pass a filter.
    pub ids_touched: AtomicU64,
    /// Bytes of segments brought by writers.
    pub staged_bytes: AtomicU64,
    /// Commits of changes.
    pub commits: AtomicU64,
    /// Vectors that became visible.
    pub inserted: AtomicU64,
    /// Vectors deleted or replaced.
    pub deleted: AtomicU64,
    /// Compactions completed.
    pub compactions: AtomicU64,
    /// Compactions that failed.
    pub failed_compactions: AtomicU64,
    /// Segments of the index now.
    pub segments: AtomicU64,
}

impl Metrics {
    /// The histogram of a stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }

    /// Adds `amount` to one of the counters.
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Relaxed);
    }

    /// The Prometheus exposition text, format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Exposition::new("oboro_searcher");
        text.histograms(
            "stage_seconds",
            "Time per stage of a search.",
            "stage",
            Stage::ALL.map(|stage| (stage.name(), self.stage(stage))),
        );
        text.counters([
            ("answered_total", "Searches answered.", &self.answered),
            ("failed_total", "Searches refused or failed.", &self.failed),
            (
                "busy_total",
                "Searches refused because a queue was full.",
                &self.busy,
            ),
            (
                "rate_limited_total",
                "Requests refused by the rate limit.",
                &self.rate_limited,
            ),
            (
                "keeper_unreachable_total",
                "Searches that met no keeper.",
                &self.keeper_unreachable,
            ),
            (
                "registrations_total",
                "Codebook registrations with the keeper.",
                &self.registrations,
            ),
            ("passes_total", "Passes over the codes.", &self.passes),
            (
                "tables_total",
                "Tables served by those passes.",
                &self.tables,
            ),
            (
                "zeros_pooled_total",
                "Encryptions of zero taken from the pool.",
                &self.zeros_pooled,
            ),
            (
                "zeros_inline_total",
                "Encryptions of zero made inline.",
                &self.zeros_inline,
            ),
            (
                "query_bytes_total",
                "Query ciphertext received.",
                &self.query_bytes,
            ),
            (
                "reply_bytes_total",
                "Reply bytes sent to clients.",
                &self.reply_bytes,
            ),
            (
                "keeper_sent_bytes_total",
                "Masked products sent.",
                &self.keeper_bytes_up,
            ),
            (
                "keeper_received_bytes_total",
                "Table shares received.",
                &self.keeper_bytes_down,
            ),
            (
                "ids_touched_total",
                "Candidates whose record or id was asked for.",
                &self.ids_touched,
            ),
            (
                "staged_bytes_total",
                "Bytes of segments brought by writers.",
                &self.staged_bytes,
            ),
            ("commits_total", "Commits of changes.", &self.commits),
            (
                "inserted_total",
                "Vectors that became visible.",
                &self.inserted,
            ),
            (
                "deleted_total",
                "Vectors deleted or replaced.",
                &self.deleted,
            ),
            (
                "compactions_total",
                "Compactions completed.",
                &self.compactions,
            ),
            (
                "failed_compactions_total",
                "Compactions that failed.",
                &self.failed_compactions,
            ),
        ]);
        text.gauges([("segments", "Segments of the index.", &self.segments)]);
        text.finish()
    }

    /// What this searcher saw so far, for people.
    #[must_use]
    pub fn view(&self) -> SearcherView {
        SearcherView {
            ciphertext_bytes: self.query_bytes.load(Relaxed),
            share_bytes: self.keeper_bytes_down.load(Relaxed),
            tables_decoded: self.stage(Stage::Unmask).durations().count,
            ids_touched: self.ids_touched.load(Relaxed),
            searches: self.answered.load(Relaxed),
        }
    }
}

/// What the searcher saw: counts only, because counts are all that may be
/// shown. The searcher does see plain distance tables and result ids (see
/// SECURITY.md); it never sees a query, a centroid or an original.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearcherView {
    /// Bytes of query ciphertext received.
    pub ciphertext_bytes: u64,
    /// Bytes of table shares received from the keeper.
    pub share_bytes: u64,
    /// Distance tables decoded.
    pub tables_decoded: u64,
    /// Candidates whose record or id was touched.
    pub ids_touched: u64,
    /// Searches answered.
    pub searches: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_names_every_stage_and_counter_once() {
        let metrics = Metrics::default();
        metrics
            .stage(Stage::Scan)
            .record(Duration::from_micros(700));
        Metrics::add(&metrics.answered, 3);
        let text = metrics.render();
        for stage in Stage::ALL {
            let line = format!(
                "oboro_searcher_stage_seconds_count{{stage=\"{}\"}}",
                stage.name()
            );
            assert_eq!(text.matches(&line).count(), 1, "{line}");
        }
        assert!(text.contains("\noboro_searcher_answered_total 3\n"));
        assert!(text.ends_with('\n'));
    }
}
