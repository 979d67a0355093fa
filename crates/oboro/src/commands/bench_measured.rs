//! What `oboro bench` measured, as text and as JSON.

use std::io::{self, Write};

use oboro_client::Stages;
use serde::Serialize;

use super::bench_build::Generated;
use super::bench_insert::Inserting;
use crate::figures::median;
use crate::output::{self, Report};

/// What was measured. The names are a contract.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) date: String,
    pub(super) version: &'static str,
    /// SHA-256 of the program.
    pub(super) executable: String,
    pub(super) platform: String,
    pub(super) processor: String,
    pub(super) instructions: &'static str,
    pub(super) cores: usize,
    pub(super) threads: usize,
    pub(super) data: String,
    pub(super) vectors: usize,
    pub(super) dimension: usize,
    pub(super) metric: &'static str,
    pub(super) subquantizers: usize,
    pub(super) centroids: usize,
    pub(super) split: usize,
    pub(super) parameter_set: &'static str,
    pub(super) security_bits: u32,
    pub(super) flooding_bits: f64,
    pub(super) build_seconds: Option<f64>,
    /// How the index was made, where that was done here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<Generated>,
    /// Bytes of all files of the index.
    pub(super) index_bytes: u64,
    pub(super) query_encrypt_us: f64,
    pub(super) table_evaluate_us: f64,
    pub(super) table_zero_us: f64,
    pub(super) table_decrypt_us: f64,
    pub(super) table_quantize_us: f64,
    pub(super) scan_ms: f64,
    pub(super) select_ms: f64,
    pub(super) memory_read_ms: f64,
    pub(super) queries: usize,
    pub(super) repetitions: usize,
    pub(super) rerank: usize,
    /// Lists that a search looked at, where not as many as the index allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probes: Option<u32>,
    pub(super) clients: usize,
    pub(super) sequential_qps: f64,
    pub(super) latency_p50_ms: f64,
    pub(super) latency_p99_ms: f64,
    pub(super) concurrent_qps: f64,
    pub(super) query_bytes_up: u64,
    pub(super) reply_bytes_down: u64,
    pub(super) keeper_bytes: usize,
    pub(super) recall_10_at_10: Option<f64>,
    pub(super) recall_1_at_1: Option<f64>,
    pub(super) recall_1_at_10: Option<f64>,
    pub(super) recall_1_at_100: Option<f64>,
    pub(super) recall_10_at_10_rerank_200: Option<f64>,
    pub(super) recall_10_at_10_unranked: Option<f64>,
    pub(super) searcher_resident_bytes: Option<u64>,
    pub(super) searcher_own_bytes: Option<u64>,
    pub(super) codes_bytes: usize,
    pub(super) stages: StageMedians,
    /// With `--insert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) insert: Option<Inserting>,
}

/// Medians of the stages of sequential queries, in microseconds.
#[derive(Serialize)]
pub(crate) struct StageMedians {
    pub(crate) encrypt_us: f64,
    pub(crate) request_us: f64,
    pub(crate) rerank_us: f64,
    pub(crate) searcher_us: f64,
    pub(crate) decode_us: f64,
    pub(crate) evaluate_us: f64,
    pub(crate) keeper_us: f64,
    pub(crate) unmask_us: f64,
    pub(crate) queue_us: f64,
    pub(crate) scan_us: f64,
    pub(crate) fetch_us: f64,
}

impl StageMedians {
    pub(crate) fn of(stages: &[Stages]) -> Self {
        let of = |pick: fn(&Stages) -> u32| {
            median(stages.iter().map(|stage| f64::from(pick(stage))).collect())
        };
        Self {
            encrypt_us: of(|s| s.encrypt_us),
            request_us: of(|s| s.request_us),
            rerank_us: of(|s| s.rerank_us),
            searcher_us: of(|s| s.searcher_us),
            decode_us: of(|s| s.decode_us),
            evaluate_us: of(|s| s.evaluate_us),
            keeper_us: of(|s| s.keeper_us),
            unmask_us: of(|s| s.unmask_us),
            queue_us: of(|s| s.queue_us),
            scan_us: of(|s| s.scan_us),
            fetch_us: of(|s| s.fetch_us),
        }
    }
}

impl Report for Measured {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        output::platform(out, &self.platform)?;
        writeln!(
            out,
            "{}: {} x {}, {}, M {}, K {}, {} (split {}); {} x {} ({}); oboro {}, {}",
            self.data,
            output::count(self.vectors as u64),
            self.dimension,
            self.metric,
            self.subquantizers,
            self.centroids,
            self.parameter_set,
            self.split,
            self.cores,
            self.processor,
            self.instructions,
            self.version,
            self.executable.get(..12).unwrap_or(&self.executable)
        )?;
        if let Some(generation) = &self.generation {
            generation.text(out)?;
        }
        let mut line = |what: &str, value: String| writeln!(out, "  {what:44} {value}");
        line("index on disk", output::bytes(self.index_bytes))?;
        line(
            "client: encrypt a query",
            format!("{:.0} us", self.query_encrypt_us),
        )?;
        line(
            "searcher: evaluate, re-randomize, mask",
            format!(
                "{:.0} us ({:.0} of them ahead of time)",
                self.table_evaluate_us, self.table_zero_us
            ),
        )?;
        line(
            "decrypt, unmask, decode",
            format!("{:.0} us", self.table_decrypt_us),
        )?;
        line("scan, one core", format!("{:.3} ms", self.scan_ms))?;
        line(
            "plain read of the same bytes",
            format!("{:.3} ms", self.memory_read_ms),
        )?;
        line(
            &format!("select {} candidates", self.rerank),
            format!("{:.3} ms", self.select_ms),
        )?;
        line(
            "one client, one query after the other",
            format!(
                "{:.0} a second (median {:.2} ms, 99 % within {:.2} ms)",
                self.sequential_qps, self.latency_p50_ms, self.latency_p99_ms
            ),
        )?;
        line(
            &format!("{} clients", self.clients),
            format!("{:.0} a second", self.concurrent_qps),
        )?;
        line(
            "bytes of a query: up, down, to the keeper",
            format!(
                "{}, {}, {}",
                output::bytes(self.query_bytes_up),
                output::bytes(self.reply_bytes_down),
                output::bytes(self.keeper_bytes as u64)
            ),
        )?;
        let shown =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
        line(
            "10-recall@10: unranked, re-ranked, of 200",
            format!(
                "{}, {}, {}",
                shown(self.recall_10_at_10_unranked),
                shown(self.recall_10_at_10),
                shown(self.recall_10_at_10_rerank_200)
            ),
        )?;
        line(
            "1-recall@1, @10, @100",
            format!(
                "{}, {}, {}",
                shown(self.recall_1_at_1),
                shown(self.recall_1_at_10),
                shown(self.recall_1_at_100)
            ),
        )?;
        if let Some(own) = self.searcher_own_bytes {
            line(
                "searcher's own memory (codes in it)",
                format!(
                    "{} ({})",
                    output::bytes(own),
                    output::bytes(self.codes_bytes as u64)
                ),
            )?;
        }
        if let Some(insert) = &self.insert {
            insert.text(out)?;
        }
        Ok(())
    }
}
