//! One search, stage by stage.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use oboro_ckks::{EncryptedQuery, SearcherShare, TableShare};
use oboro_protocol::{Failure, Reason, v1, validate};
use oboro_quant::Filter;
use zeroize::Zeroizing;

use crate::{
    SearcherError,
    engine::Ranked,
    epoch::Epoch,
    merge::Key,
    metrics::{Metrics, Stage},
    pass::{self, Similarities},
    searcher::Searcher,
    service::micros,
    snapshot::Snapshot,
};

/// Collecting candidates slower than this means that records come from disk:
/// the next collection moves off the threads that serve the network.
const SLOW_GATHER: Duration = Duration::from_millis(5);

/// What the client wants back.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    candidates: usize,
    with_records: bool,
    with_ids: bool,
    with_scores: bool,
    filter: Filter,
}

/// A search between its two halves.
pub(crate) struct Begun {
    /// The epoch it was asked of, which may end before the search does.
    epoch: Arc<Epoch>,
    share: SearcherShare,
    asked: Asked,
    /// The lists to look at, where the index has lists.
    lists: Vec<u32>,
    /// Time spent in this process so far.
    spent: Duration,
    timings: v1::SearchTimings,
}

impl Searcher {
    /// One query from request to reply, with the keeper's help.
    pub(crate) async fn whole(
        &self,
        request: v1::SearchRequest,
        deadline: Instant,
    ) -> Result<v1::SearchReply, SearcherError> {
        let link = self.link.as_ref().ok_or(SearcherError::NoKeeper)?;
        let epoch = self.epoch(&request.index_id, request.epoch)?;
        epoch.sizes.check_search(&request)?;
        let (mut begun, products) = self.begin(&epoch, &request)?;
        let sent = Instant::now();
        Metrics::add(&self.metrics().keeper_bytes_up, products.len());
        let share = link.decrypt(&epoch, products, deadline).await?;
        let keeper = sent.elapsed();
        self.metrics().stage(Stage::Keeper).record(keeper);
        begun.timings.keeper_us = micros(keeper);
        self.finish(begun, &share, deadline).await
    }

    /// The first half of a query of a client that holds the key.
    pub(crate) fn first_half(
        &self,
        request: &v1::SearchRequest,
    ) -> Result<(Begun, Bytes), SearcherError> {
        let epoch = self.epoch(&request.index_id, request.epoch)?;
        epoch.sizes.check_begin(request)?;
        self.begin(&epoch, request)
    }

    /// The second half.
    pub(crate) async fn second_half(
        &self,
        begun: Begun,
        request: &v1::FinishSearchRequest,
        deadline: Instant,
    ) -> Result<v1::SearchReply, SearcherError> {
        begun.epoch.sizes.check_finish(request)?;
        self.finish(begun, &request.share, deadline).await
    }

    /// From the request to the masked products.
    fn begin(
        &self,
        epoch: &Arc<Epoch>,
        request: &v1::SearchRequest,
    ) -> Result<(Begun, Bytes), SearcherError> {
        let start = Instant::now();
        let metrics = self.metrics();
        let candidates = validate::candidates(request.candidates, epoch.most_candidates())?;
        let [any, all, none] = validate::filter(&request.filter)?;
        let filter = Filter { any, all, none };
        if !epoch.has_tags() && !filter.is_empty() {
            return Err(Failure::new(
                Reason::BadRequest,
                "the query has a filter and this index has no tags; search without one",
            )
            .into());
        }
        let lists = validate::lists(&request.lists, epoch.lists(), epoch.probes_max())?;
        let asked = Asked {
            filter,
            candidates: candidates as usize,
            with_records: request.with_records,
            with_ids: request.with_ids,
            with_scores: request.with_scores,
        };
        let evaluator = &epoch.evaluator;
        let query = EncryptedQuery::from_bytes(evaluator.packing(), &request.query)
            .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))?;
        Metrics::add(&metrics.query_bytes, request.query.len());
        let decoded = Instant::now();

        let (counter, zero) = match epoch.zeros.take() {
            Some(zero) => (&metrics.zeros_pooled, zero),
            None => {
                let zero = evaluator.zero(&mut self.workshop.randomness.generator());
                (&metrics.zeros_inline, zero)
            }
        };
        Metrics::add(counter, 1);
        let (share, products) = evaluator
            .evaluate(&query, zero)
            .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))?;
        let products = Bytes::from(products.to_bytes());
        let evaluated = Instant::now();

        let (decode, evaluate) = (decoded - start, evaluated - decoded);
        metrics.stage(Stage::Decode).record(decode);
        metrics.stage(Stage::Evaluate).record(evaluate);
        let timings = v1::SearchTimings {
            decode_us: micros(decode),
            evaluate_us: micros(evaluate),
            ..Default::default()
        };
        Ok((
            Begun {
                epoch: Arc::clone(epoch),
                share,
                asked,
                lists,
                spent: evaluated - start,
                timings,
            },
            products,
        ))
    }

    /// From the other share of the table to the reply.
    async fn finish(
        &self,
        begun: Begun,
        share: &[u8],
        deadline: Instant,
    ) -> Result<v1::SearchReply, SearcherError> {
        let start = Instant::now();
        let Begun {
            epoch,
            share: own,
            asked,
            lists,
            spent,
            mut timings,
        } = begun;
        let metrics = self.metrics();
        Metrics::add(&metrics.keeper_bytes_down, share.len());
        let similarities = similarities(&epoch, &own, share)?;
        drop(own);
        let unmask = start.elapsed();
        metrics.stage(Stage::Unmask).record(unmask);

        let ask = pass::Asked {
            similarities,
            candidates: asked.candidates,
            filter: asked.filter,
            lists,
        };
        let Ranked {
            keys,
            snapshot,
            queue,
            scan,
            batch,
        } = epoch.engine.scan(ask, deadline).await?;
        metrics.stage(Stage::Queue).record(queue);
        metrics.stage(Stage::Scan).record(scan);

        let collecting = Instant::now();
        let wanted = Wanted {
            snapshot,
            keys,
            asked,
            record_bytes: epoch.record_bytes(),
            spare: u64::from_le_bytes(self.workshop.randomness.bytes()),
        };
        let mut reply = if self.cold.load(Relaxed) {
            tokio::task::spawn_blocking(move || wanted.gather())
                .await
                .map_err(|_| SearcherError::Stopping)?
        } else {
            wanted.gather()
        }?;
        let fetch = collecting.elapsed();
        self.cold.store(fetch > SLOW_GATHER, Relaxed);
        metrics.stage(Stage::Gather).record(fetch);
        if asked.with_records || asked.with_ids {
            Metrics::add(&metrics.ids_touched, asked.candidates);
        }

        timings.unmask_us = micros(unmask);
        timings.queue_us = micros(queue);
        timings.scan_us = micros(scan);
        timings.fetch_us = micros(fetch);
        timings.batch = batch as u32;
        let keeper = Duration::from_micros(timings.keeper_us.into());
        timings.total_us = micros(spent + keeper + start.elapsed());
        reply.timings = Some(timings);
        epoch.sizes.pad_reply(&mut reply);
        Ok(reply)
    }
}

/// Adds the shares of the table.
fn similarities(
    epoch: &Epoch,
    own: &SearcherShare,
    share: &[u8],
) -> Result<Similarities, SearcherError> {
    let evaluator = &epoch.evaluator;
    let packing = evaluator.packing();
    let bad = |error: oboro_ckks::CkksError| Failure::new(Reason::BadRequest, error.to_string());
    let share = TableShare::from_bytes(packing, share).map_err(bad)?;
    Ok(Similarities {
        entries: Zeroizing::new(evaluator.unmask(own, &share).map_err(bad)?),
        subquantizers: packing.subquantizers(),
        centroids: packing.centroids(),
    })
}

/// What is to be collected for a reply.
struct Wanted {
    /// Where the keys belong.
    snapshot: Arc<Snapshot>,
    keys: Vec<Key>,
    asked: Asked,
    record_bytes: usize,
    /// Random: says which records are read in place of missing ones.
    spare: u64,
}

impl Wanted {
    /// Collects what the client asked for, best candidate first.
    ///
    /// # Security
    /// Which records and ids are read depends on the query: this is the leakage
    /// that SECURITY.md states for fetching candidates. How many there are does
    /// not show: in place of a missing candidate another record is read and
    /// dropped, and the reply is padded to its one size.
    fn gather(self) -> Result<v1::SearchReply, SearcherError> {
        let Self {
            snapshot,
            keys,
            asked,
            record_bytes,
            mut spare,
        } = self;
        let mut reply = v1::SearchReply::default();
        // They are sorted, and what is missing comes last.
        let count = keys.partition_point(|key| !key.is_missing());
        let (there, missing) = keys.split_at(count);
        if asked.with_records {
            // Room for all, so that memory does not tell either.
            let mut records = Vec::with_capacity(keys.len() * record_bytes);
            for key in there {
                snapshot
                    .append_candidate(*key, &mut records)
                    .map_err(SearcherError::Records)?;
            }
            let end = records.len();
            for _ in missing {
                if let Some((segment, position)) = snapshot.spare(&mut spare) {
                    snapshot
                        .append_record(segment, position, &mut records)
                        .map_err(SearcherError::Records)?;
                    records.truncate(end);
                }
            }
            reply.record_bytes = record_bytes as u32;
            reply.records = records.into();
        }
        if asked.with_ids {
            reply.ids = there.iter().map(|key| snapshot.id_of(*key)).collect();
        }
        if asked.with_scores {
            reply.scores = validate::pack_scores(there.iter().map(|key| key.score())).into();
        }
        Ok(reply)
    }
}
