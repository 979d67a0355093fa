//! What a keeper counts, and its Prometheus text. Counts only, no content.

use oboro_telemetry::{Durations, Exposition, Histogram};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Searcher keys counted one by one; further ones share one count.
const MAX_PEERS: usize = 1_024;

/// The stages of a table decryption, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Checking and decoding the request.
    Receive,
    /// The decryption itself.
    Decrypt,
    /// From the whole request received to the reply ready.
    Total,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 3] = [Self::Receive, Self::Decrypt, Self::Total];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decrypt => "decrypt",
            Self::Total => "total",
        }
    }
}

/// One searcher's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCount {
    /// SHA-256 of the searcher's public key; all zeros for the keys not counted one by one.
    pub spki_sha256: [u8; 32],
    /// Tables decrypted for it.
    pub tables: u64,
    /// Requests refused.
    pub refused: u64,
}

/// All figures at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Tables decrypted.
    pub tables: u64,
    /// Requests refused, any reason.
    pub refused: u64,
    /// Requests refused by the rate limit.
    pub rate_limited: u64,
    /// States of indexes refused as older than, or a fork of, the newest.
    pub stale: u64,
    /// States recorded that were too late to name the newest before them.
    pub undescended: u64,
    /// Codebooks prepared.
    pub prepared: u64,
    /// Codebooks re-encrypted to another key.
    pub reencrypted: u64,
    /// Batches of vectors decrypted in blind generations.
    pub batches: u64,
    /// Bytes of masked products received.
    pub bytes_received: u64,
    /// Bytes of shares sent.
    pub bytes_sent: u64,
    /// Durations by stage, in the order of [`Stage::ALL`].
    pub stages: [Durations; Stage::ALL.len()],
    /// Requests by searcher key, in no particular order.
    pub peers: Vec<PeerCount>,
}

#[derive(Default)]
pub(crate) struct Metrics {
    stages: [Histogram; Stage::ALL.len()],
    pub(crate) tables: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) rate_limited: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) undescended: AtomicU64,
    pub(crate) prepared: AtomicU64,
    pub(crate) reencrypted: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    /// Tables and refusals by searcher key.
    peers: Mutex<HashMap<[u8; 32], (u64, u64)>>,
}

impl Metrics {
    pub(crate) fn record(&self, stage: Stage, elapsed: Duration) {
        self.stages[stage as usize].record(elapsed);
    }

    pub(crate) fn table(&self, peer: &[u8; 32], received: usize, sent: usize) {
        self.tables.fetch_add(1, Relaxed);
        self.bytes_received.fetch_add(received as u64, Relaxed);
        self.bytes_sent.fetch_add(sent as u64, Relaxed);
        self.count(peer, |count| count.0 += 1);
    }

    /// Batches of a generation, which hold `tables` tables together.
    pub(crate) fn batches(&self, peer: &[u8; 32], batches: u64, tables: u64) {
        self.batches.fetch_add(batches, Relaxed);
        self.count(peer, |count| count.0 += tables);
    }

    pub(crate) fn refuse(&self, peer: &[u8; 32]) {
        self.refused.fetch_add(1, Relaxed);
        self.count(peer, |count| count.1 += 1);
    }

    fn count(&self, peer: &[u8; 32], add: impl FnOnce(&mut (u64, u64))) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peers.len() < MAX_PEERS || peers.contains_key(peer);
        let key = if known { *peer } else { [0; 32] };
        add(peers.entry(key).or_default());
    }

    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = peers
            .iter()
            .map(|(key, &(tables, refused))| PeerCount {
                spki_sha256: *key,
                tables,
                refused,
            })
            .collect();
        MetricsSnapshot {
            tables: self.tables.load(Relaxed),
            refused: self.refused.load(Relaxed),
            rate_limited: self.rate_limited.load(Relaxed),
            stale: self.stale.load(Relaxed),
            undescended: self.undescended.load(Relaxed),
            prepared: self.prepared.load(Relaxed),
            reencrypted: self.reencrypted.load(Relaxed),
            batches: self.batches.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            stages: self.stages.each_ref().map(Histogram::durations),
            peers,
        }
    }

    /// The Prometheus exposition text, format 0.0.4.
    pub(crate) fn render(&self) -> String {
        let mut text = Exposition::new("oboro_keeper");
        text.histograms(
            "stage_seconds",
            "Time per stage of a table decryption.",
            "stage",
            Stage::ALL.map(|stage| (stage.name(), &self.stages[stage as usize])),
        );
        text.counters([
            ("tables_total", "Tables decrypted.", &self.tables),
            ("refused_total", "Requests refused.", &self.refused),
            (
                "rate_limited_total",
                "Requests refused by the rate limit.",
                &self.rate_limited,
            ),
            (
                "stale_total",
                "States refused as older or forked.",
                &self.stale,
            ),
            (
                "undescended_total",
                "States recorded that do not name the newest before them.",
                &self.undescended,
            ),
            ("prepared_total", "Codebooks prepared.", &self.prepared),
            (
                "reencrypted_total",
                "Codebooks re-encrypted.",
                &self.reencrypted,
            ),
            (
                "batches_total",
                "Batches of vectors decrypted in blind generations.",
                &self.batches,
            ),
            (
                "received_bytes_total",
                "Masked products received.",
                &self.bytes_received,
            ),
            ("sent_bytes_total", "Table shares sent.", &self.bytes_sent),
        ]);
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_appears_once() {
        let metrics = Metrics::default();
        metrics.record(Stage::Decrypt, Duration::from_micros(120));
        metrics.table(&[1; 32], 100, 10);
        metrics.refuse(&[2; 32]);
        let text = metrics.render();
        for stage in Stage::ALL {
            let count = u64::from(stage == Stage::Decrypt);
            let line = format!(
                "\noboro_keeper_stage_seconds_count{{stage=\"{}\"}} {count}\n",
                stage.name()
            );
            assert_eq!(text.matches(&line).count(), 1, "{line}{text}");
        }
        assert!(text.contains("\noboro_keeper_tables_total 1\n"));
        assert!(text.contains("\noboro_keeper_received_bytes_total 100\n"));
        assert_eq!(text.matches("# TYPE").count(), 11);
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.stages[1].count, 1);
        assert_eq!(snapshot.peers.len(), 2);
    }

    #[test]
    fn fail_unbounded_number_of_peers() {
        let metrics = Metrics::default();
        for i in 0..2 * MAX_PEERS {
            let mut key = [9; 32];
            key[..8].copy_from_slice(&i.to_le_bytes());
            metrics.refuse(&key);
        }
        let peers = metrics.snapshot().peers;
        assert_eq!(peers.len(), MAX_PEERS + 1);
        assert_eq!(
            peers.iter().map(|peer| peer.refused).sum::<u64>(),
            2 * MAX_PEERS as u64
        );
    }
}
