//! The gRPC service: checks who asks, then lets [`Search`] work.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use oboro_attest::{AttestedRole, Claims, NO_CKKS_KEY, unix_seconds};
use oboro_channel::{PeerInfo, Role};
use oboro_protocol::{
    Failure, PROTOCOL_VERSION, Reason, limits,
    v1::{self, searcher_server},
    validate,
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    SearcherError,
    metrics::{Metrics, Stage},
    search::{Begun, Search},
};

/// The roles that may ask a searcher anything.
pub(crate) const PERMITTED: [Role; 2] = [Role::Client, Role::Owner];

/// Implements the generated trait over a shared [`Search`].
pub(crate) struct SearcherService {
    pub(crate) search: Arc<Search>,
}

#[tonic::async_trait]
impl searcher_server::Searcher for SearcherService {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::SearcherDescription>, Status> {
        permitted(&request)?;
        let nonce = validate::nonce(&request.get_ref().nonce)?;
        let search = &self.search;
        let claims = Claims {
            role: AttestedRole::Searcher,
            channel_key: search.channel_key,
            ckks_key: NO_CKKS_KEY,
            nonce,
            issued_at: unix_seconds(SystemTime::now()),
        };
        let evidence = search.attester.attest(&claims).map_err(|error| {
            tracing::error!(%error, "evidence could not be made");
            Failure::new(
                Reason::Internal,
                "the searcher could not make its evidence; see its log",
            )
        })?;
        Ok(Response::new(v1::SearcherDescription {
            protocol_version: PROTOCOL_VERSION,
            descriptor: search.index.descriptor(),
            evidence: evidence.into(),
        }))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchReply>, Status> {
        permitted(&request)?;
        let deadline = deadline(request.metadata());
        let result = self.search.whole(request.into_inner(), deadline).await;
        self.answer(result)
    }

    async fn begin_search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::BeginSearchReply>, Status> {
        let peer = permitted(&request)?;
        let result = self
            .search
            .begin(request.into_inner())
            .and_then(|(begun, products)| {
                let session = self.search.randomness.bytes::<{ limits::SESSION_BYTES }>();
                self.search
                    .sessions
                    .begin(session, peer.spki_sha256, begun, Instant::now())?;
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
        let peer = permitted(&request)?;
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let result = async {
            let session = validate::session(&request.session)?;
            let begun: Begun =
                self.search
                    .sessions
                    .finish(&session, &peer.spki_sha256, Instant::now())?;
            self.search.finish(begun, &request.share, deadline).await
        };
        let result = result.await;
        self.answer(result)
    }

    async fn codebook_masks(
        &self,
        request: Request<v1::CodebookMasksRequest>,
    ) -> Result<Response<v1::CodebookMasksReply>, Status> {
        permitted(&request)?;
        let request = request.get_ref();
        let index = &self.search.index;
        validate::served_index(&request.index_id, request.epoch, index.id(), index.epoch())?;
        Ok(Response::new(v1::CodebookMasksReply {
            masks: self.search.masks.clone(),
        }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::SearcherStatus>, Status> {
        permitted(&request)?;
        let search = &self.search;
        let keeper_reachable = search.link.as_ref().is_some_and(|link| link.is_up());
        Ok(Response::new(v1::SearcherStatus {
            ready: search.link.is_none() || keeper_reachable,
            keeper_reachable,
            index_id: search.index.id().to_vec().into(),
            epoch: search.index.epoch(),
            vectors: search.index.vectors(),
            queries: search.metrics.answered.load(Relaxed),
            failures: search.metrics.failed.load(Relaxed),
            uptime_seconds: search.started.elapsed().as_secs(),
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
                let metrics = &self.search.metrics;
                Metrics::add(&metrics.answered, 1);
                let bytes = reply.records.len() + reply.ids.len() * 8 + reply.scores.len();
                Metrics::add(&metrics.reply_bytes, bytes);
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
        let metrics = &self.search.metrics;
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

impl Search {
    /// One query from request to reply, with the keeper's help.
    async fn whole(
        self: &Arc<Self>,
        request: v1::SearchRequest,
        deadline: Instant,
    ) -> Result<v1::SearchReply, SearcherError> {
        let link = self.link.as_ref().ok_or(SearcherError::NoKeeper)?;
        let (mut begun, products) = self.begin(request)?;
        let sent = Instant::now();
        Metrics::add(&self.metrics.keeper_bytes_up, products.len());
        let share = link.decrypt(products, deadline).await?.share;
        let keeper = sent.elapsed();
        self.metrics.stage(Stage::Keeper).record(keeper);
        begun.timings.keeper_us = micros(keeper);
        self.finish(begun, &share, deadline).await
    }
}

/// The peer, if its role may ask.
fn permitted<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    match oboro_channel::peer(request) {
        Ok(peer) if PERMITTED.contains(&peer.role) => Ok(peer),
        _ => Err(Failure::new(
            Reason::Forbidden,
            "this role may not search; use the identity of a client or the owner",
        )
        .into()),
    }
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
