//! The gRPC service: [`Gate`](crate::gate) has checked who asks, the
//! [`Searcher`] works.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use oboro_protocol::{
    Failure, PROTOCOL_VERSION, Reason, limits,
    v1::{self, searcher_server},
    validate,
};
use prost::Message;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    SearcherError,
    link::KeeperLink,
    metrics::{Metrics, Stage},
    searcher::Searcher,
};

/// Implements the generated trait over a shared [`Searcher`].
pub(crate) struct SearcherService(pub(crate) Arc<Searcher>);

#[tonic::async_trait]
impl searcher_server::Searcher for SearcherService {
    async fn describe(
        &self,
        _request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::SearcherDescription>, Status> {
        let epoch = self.0.newest()?;
        Ok(Response::new(v1::SearcherDescription {
            protocol_version: PROTOCOL_VERSION,
            descriptor: epoch.descriptor(),
            vectors: epoch.snapshot().vectors(),
        }))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchReply>, Status> {
        let deadline = deadline(request.metadata());
        let result = self.0.whole(request.into_inner(), deadline).await;
        self.answer(result)
    }

    async fn begin_search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::BeginSearchReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        let searcher = &self.0;
        let result = searcher
            .first_half(request.get_ref())
            .and_then(|(begun, products)| {
                let session = searcher
                    .workshop
                    .randomness
                    .bytes::<{ limits::SESSION_BYTES }>();
                searcher
                    .sessions
                    .begin(session, peer, begun, Instant::now())?;
                Ok(v1::BeginSearchReply {
                    session: session.to_vec().into(),
                    products,
                })
            });
        match result {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => Err(self.failure(error)),
        }
    }

    async fn finish_search(
        &self,
        request: Request<v1::FinishSearchRequest>,
    ) -> Result<Response<v1::SearchReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let result = async {
            let session = validate::session(&request.session)?;
            let begun = self.0.sessions.finish(&session, &peer, Instant::now())?;
            self.0.second_half(begun, &request, deadline).await
        };
        let result = result.await;
        self.answer(result)
    }

    async fn codebook_masks(
        &self,
        request: Request<v1::CodebookMasksRequest>,
    ) -> Result<Response<v1::CodebookMasksReply>, Status> {
        let request = request.get_ref();
        let epoch = self.0.epoch(&request.index_id, request.epoch)?;
        Ok(Response::new(v1::CodebookMasksReply {
            masks: epoch.masks.clone(),
        }))
    }

    async fn query_model(
        &self,
        request: Request<v1::QueryModelRequest>,
    ) -> Result<Response<v1::QueryModelReply>, Status> {
        let epoch = self.0.newest()?;
        validate::changed_index(&request.get_ref().index_id, epoch.id())?;
        let query_model = epoch.query_model.clone().ok_or_else(|| {
            Failure::new(
                Reason::BadRequest,
                "this index has no query model; search without one",
            )
        })?;
        Ok(Response::new(v1::QueryModelReply { query_model }))
    }

    async fn begin_rotation(
        &self,
        request: Request<v1::BeginRotationRequest>,
    ) -> Result<Response<v1::BeginRotationReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        let result = self.0.begin_rotation(peer, request.into_inner()).await;
        result.map(Response::new).map_err(|error| {
            tracing::warn!(%error, "a rotation could not begin");
            error.into()
        })
    }

    async fn commit_rotation(
        &self,
        request: Request<v1::CommitRotationRequest>,
    ) -> Result<Response<v1::CommitRotationReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        // A task of its own: an owner that goes away meanwhile does not leave a
        // commit in the middle.
        let commit = Arc::clone(&self.0).commit_rotation(peer, request.into_inner());
        let result = tokio::spawn(commit)
            .await
            .unwrap_or(Err(SearcherError::Stopping));
        match result {
            Ok(epoch) => Ok(Response::new(v1::CommitRotationReply { epoch })),
            Err(error) => {
                tracing::warn!(%error, "a rotation was not committed");
                Err(error.into())
            }
        }
    }

    async fn model(
        &self,
        request: Request<v1::ModelRequest>,
    ) -> Result<Response<v1::ModelReply>, Status> {
        changed("the model was not given", self.0.model(request.get_ref()))
    }

    async fn stage(
        &self,
        request: Request<v1::StageRequest>,
    ) -> Result<Response<v1::StageReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        let stage = Arc::clone(&self.0).stage(peer, request.into_inner());
        changed("a segment was not staged", stage.await)
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitReply>, Status> {
        let peer = oboro_channel::peer(&request)?.spki_sha256;
        // A task of its own: a writer that goes away meanwhile does not leave a
        // commit without its registration at the keeper.
        let commit = Arc::clone(&self.0).commit(peer, request.into_inner());
        let result = tokio::spawn(commit)
            .await
            .unwrap_or(Err(SearcherError::Stopping));
        changed("a change was not committed", result)
    }

    async fn compact(
        &self,
        request: Request<v1::CompactRequest>,
    ) -> Result<Response<v1::CompactReply>, Status> {
        let result = self.0.compact(request.get_ref()).await;
        changed("a compaction was not completed", result)
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::SearcherStatus>, Status> {
        let searcher = &self.0;
        let newest = searcher.shelf.newest();
        let snapshot = newest.as_ref().map(|epoch| epoch.snapshot());
        let keeper_reachable = searcher.link.as_ref().is_some_and(KeeperLink::is_up);
        Ok(Response::new(v1::SearcherStatus {
            ready: newest.is_some() && (searcher.link.is_none() || keeper_reachable),
            keeper_reachable,
            index_id: searcher.index_id().to_vec().into(),
            epoch: newest.as_ref().map_or(0, |epoch| epoch.number()),
            vectors: snapshot.as_ref().map_or(0, |state| state.vectors()),
            queries: searcher.metrics().answered.load(Relaxed),
            failures: searcher.metrics().failed.load(Relaxed),
            uptime_seconds: searcher.started.elapsed().as_secs(),
            segments: snapshot
                .as_ref()
                .map_or(0, |state| state.segments().len() as u32),
            deleted: snapshot.as_ref().map_or(0, |state| state.deleted()),
            generation: snapshot.as_ref().map_or(0, |state| state.head().generation),
            writing: searcher.changes.folder.refuse_unless_writing().is_ok(),
        }))
    }
}

impl SearcherService {
    fn answer(
        &self,
        result: Result<v1::SearchReply, SearcherError>,
    ) -> Result<Response<v1::SearchReply>, Status> {
        match result {
            Ok(reply) => {
                let metrics = self.0.metrics();
                Metrics::add(&metrics.answered, 1);
                // With its padding: how much of it is content says how many passed a
                // filter, and who reads the counts need not know.
                Metrics::add(&metrics.reply_bytes, reply.encoded_len());
                if let Some(timings) = &reply.timings {
                    let total = Duration::from_micros(timings.total_us.into());
                    metrics.stage(Stage::Total).record(total);
                }
                Ok(Response::new(reply))
            }
            Err(error) => Err(self.failure(error)),
        }
    }

    fn failure(&self, error: SearcherError) -> Status {
        let metrics = self.0.metrics();
        Metrics::add(&metrics.failed, 1);
        match error.reason() {
            Reason::Busy | Reason::RateLimited => Metrics::add(&metrics.busy, 1),
            Reason::KeeperUnreachable => Metrics::add(&metrics.keeper_unreachable, 1),
            Reason::Internal => tracing::error!(%error, "search failed"),
            _ => {}
        }
        tracing::debug!(reason = error.reason().name(), "search refused");
        error.into()
    }
}

// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
fn changed<T>(what: &str, result: Result<T, SearcherError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        match error.reason() {
            Reason::Internal => tracing::error!(%error, "{what}"),
            _ => tracing::info!(%error, "{what}"),
        }
        error.into()
    })
}

/// When the answer must be there: the client's word, within the server's bound.
fn deadline(metadata: &MetadataMap) -> Instant {
    let asked = metadata
        .get("grpc-timeout")
        .and_then(|value| timeout(value.to_str().ok()?));
    let allowed = asked
        .unwrap_or(limits::DEFAULT_SEARCH_DEADLINE)
        .min(limits::MAX_REQUEST_TIME);
    Instant::now() + allowed
}

/// Reads the gRPC form of a timeout: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Whole microseconds, saturating.
pub(crate) fn micros(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeouts() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("3S"), Some(Duration::from_secs(3)));
        assert_eq!(
            timeout("99999999u"),
            Some(Duration::from_micros(99_999_999))
        );
        for bad in ["", "m", "123456789m", "-1S", "1x", "1.5S", "ü"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
