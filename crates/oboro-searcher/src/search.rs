//! One search, stage by stage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use oboro_attest::Attester;
use oboro_ckks::{
    EncryptedQuery, Randomness, SearcherShare, TableEvaluator, TableShare, ZeroEncryption,
};
use oboro_protocol::{Failure, Reason, v1, validate};
use oboro_quant::QuantizedTable;
use zeroize::Zeroizing;

use crate::{
    SearcherError,
    engine::{Ranked, ScanEngine},
    link::KeeperLink,
    merge::Key,
    metrics::{Metrics, Stage},
    pool::Pool,
    served::ServedIndex,
    service::micros,
    sessions::Sessions,
};

/// Collecting candidates slower than this means that records come from disk:
/// the next collection moves off the threads that serve the network.
const SLOW_GATHER: Duration = Duration::from_millis(5);

/// Everything a search needs.
pub(crate) struct Search {
    pub(crate) index: Arc<ServedIndex>,
    pub(crate) evaluator: Arc<TableEvaluator>,
    /// The codebook's public part, encoded.
    pub(crate) masks: Bytes,
    pub(crate) engine: ScanEngine,
    pub(crate) zeros: Pool<ZeroEncryption>,
    pub(crate) link: Option<KeeperLink>,
    pub(crate) sessions: Sessions<Begun>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) randomness: Arc<Randomness>,
    pub(crate) attester: Arc<dyn Attester>,
    /// SHA-256 of this searcher's TLS public key.
    pub(crate) channel_key: [u8; 32],
    pub(crate) started: Instant,
    pub(crate) cold: AtomicBool,
}

/// What the client wants back.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    candidates: usize,
    with_records: bool,
    with_ids: bool,
    with_scores: bool,
}

/// A search between its two halves.
pub(crate) struct Begun {
    share: SearcherShare,
    asked: Asked,
    /// Time spent in this process so far.
    spent: Duration,
    pub(crate) timings: v1::SearchTimings,
}

impl Search {
    /// First half: from the request to the masked products.
    pub(crate) fn begin(
        &self,
        request: v1::SearchRequest,
    ) -> Result<(Begun, Bytes), SearcherError> {
        let start = Instant::now();
        let index = &self.index;
        validate::served_index(&request.index_id, request.epoch, index.id(), index.epoch())?;
        let most = index.vectors().min(index.candidates_max().into());
        let candidates = validate::candidates(request.candidates, most)? as usize;
        let asked = Asked {
            candidates,
            with_records: request.with_records,
            with_ids: request.with_ids,
            with_scores: request.with_scores,
        };
        let query = EncryptedQuery::from_bytes(self.evaluator.packing(), &request.query)
            .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))?;
        Metrics::add(&self.metrics.query_bytes, request.query.len());
        let decoded = Instant::now();

        let (counter, zero) = match self.zeros.take() {
            Some(zero) => (&self.metrics.zeros_pooled, zero),
            None => {
                let zero = self.evaluator.zero(&mut self.randomness.generator());
                (&self.metrics.zeros_inline, zero)
            }
        };
        Metrics::add(counter, 1);
        let (share, products) = self
            .evaluator
            .evaluate(&query, zero)
            .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))?;
        let products = Bytes::from(products.to_bytes());
        let evaluated = Instant::now();

        let (decode, evaluate) = (decoded - start, evaluated - decoded);
        self.metrics.stage(Stage::Decode).record(decode);
        self.metrics.stage(Stage::Evaluate).record(evaluate);
        let timings = v1::SearchTimings {
            decode_us: micros(decode),
            evaluate_us: micros(evaluate),
            ..Default::default()
        };
        Ok((
            Begun {
                share,
                asked,
                spent: evaluated - start,
                timings,
            },
            products,
        ))
    }

    /// Second half: from the other share of the table to the reply.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        begun: Begun,
        share: &[u8],
        deadline: Instant,
    ) -> Result<v1::SearchReply, SearcherError> {
        let start = Instant::now();
        let Begun {
            share: own,
            asked,
            spent,
            mut timings,
        } = begun;
        Metrics::add(&self.metrics.keeper_bytes_down, share.len());
        let table = self.table(&own, share)?;
        drop(own);
        let unmask = start.elapsed();
        self.metrics.stage(Stage::Unmask).record(unmask);

        let Ranked {
            keys,
            queue,
            scan,
            batch,
        } = self.engine.scan(table, asked.candidates, deadline).await?;
        self.metrics.stage(Stage::Queue).record(queue);
        self.metrics.stage(Stage::Scan).record(scan);

        let collecting = Instant::now();
        let mut reply = if self.cold.load(Relaxed) {
            let index = Arc::clone(&self.index);
            tokio::task::spawn_blocking(move || gather(&index, &keys, asked))
                .await
                .map_err(|_| SearcherError::Stopping)?
        } else {
            gather(&self.index, &keys, asked)
        }?;
        let fetch = collecting.elapsed();
        self.cold.store(fetch > SLOW_GATHER, Relaxed);
        self.metrics.stage(Stage::Gather).record(fetch);
        if asked.with_records || asked.with_ids {
            Metrics::add(&self.metrics.ids_touched, asked.candidates);
        }

        timings.unmask_us = micros(unmask);
        timings.queue_us = micros(queue);
        timings.scan_us = micros(scan);
        timings.fetch_us = micros(fetch);
        timings.batch = batch as u32;
        let keeper = Duration::from_micros(timings.keeper_us.into());
        timings.total_us = micros(spent + keeper + start.elapsed());
        reply.timings = Some(timings);
        Ok(reply)
    }

    /// Adds the shares and quantizes the table for the scan.
    fn table(&self, own: &SearcherShare, share: &[u8]) -> Result<QuantizedTable, SearcherError> {
        let packing = self.evaluator.packing();
        let bad =
            |error: oboro_ckks::CkksError| Failure::new(Reason::BadRequest, error.to_string());
        let share = TableShare::from_bytes(packing, share).map_err(bad)?;
        let similarities = Zeroizing::new(self.evaluator.unmask(own, &share).map_err(bad)?);
        QuantizedTable::from_similarities(
            &similarities,
            packing.subquantizers(),
            packing.centroids(),
        )
        .map_err(|error| SearcherError::Scan(error.to_string()))
    }
}

/// Collects what the client asked for, best candidate first.
///
/// # Security
/// Which records and ids are read depends on the query: this is the leakage
/// that SECURITY.md states for fetching candidates.
fn gather(
    index: &ServedIndex,
    keys: &[Key],
    asked: Asked,
) -> Result<v1::SearchReply, SearcherError> {
    let mut reply = v1::SearchReply::default();
    if asked.with_records {
        let record_bytes = index.record_bytes();
        let mut records = Vec::with_capacity(keys.len() * record_bytes);
        for key in keys {
            index
                .append_record(key.segment(), key.position(), &mut records)
                .map_err(SearcherError::Records)?;
        }
        reply.record_bytes = record_bytes as u32;
        reply.records = records.into();
    }
    if asked.with_ids {
        reply.ids = keys
            .iter()
            .map(|key| index.id_of(key.segment(), key.position()))
            .collect();
    }
    if asked.with_scores {
        reply.scores = validate::pack_scores(keys.iter().map(|key| key.score())).into();
    }
    Ok(reply)
}
