//! What every request passes before its body is read: role, grant, rate, size.
//!
//! A body may hold megabytes; who may not send it must not make the searcher
//! collect it first.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use oboro_channel::{Access, PeerInfo, Role};
use oboro_protocol::{Failure, Reason, limits, v1::searcher_server::SearcherServer};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderValue, Request, Response, header},
    },
    server::NamedService,
};

use crate::{metrics::Metrics, searcher::Searcher, service::SearcherService};

/// What only the owner may do.
const OWNERS: [&str; 2] = [
    "/oboro.v1.Searcher/BeginRotation",
    "/oboro.v1.Searcher/CommitRotation",
];

/// What writers may do beside searching.
const WRITERS: [&str; 4] = [
    "/oboro.v1.Searcher/Model",
    STAGE,
    "/oboro.v1.Searcher/Commit",
    COMPACT,
];

const STAGE: &str = "/oboro.v1.Searcher/Stage";
const COMPACT: &str = "/oboro.v1.Searcher/Compact";

/// Largest request of the owner: a key or a descriptor that holds one.
const OWNERS_LIMIT: usize = 1 << 20;

/// Room for what stands around the largest honest request: what is a little too
/// large is told its size, what is much larger is refused before it is read.
const ROOM: usize = 4_096;

/// Largest request while the index is not open and no size is known.
const UNOPENED_LIMIT: usize = 64 << 10;

/// All replies carry the same date. The transport would send the time of day,
/// in a length that changes with its digits and disappears when it repeats.
const DATE: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");

/// The service behind its gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<SearcherService>);

impl Gate {
    pub(crate) fn new(searcher: Arc<Searcher>) -> Self {
        Self(Arc::new(SearcherService(searcher)))
    }

    // A tonic status is large; so is every error of every service method.
    #[allow(clippy::result_large_err)]
    fn check<B>(&self, request: &Request<B>) -> Result<Bounds, Status> {
        let searcher = &self.0.0;
        let path = request.uri().path();
        let peer = request.extensions().get::<PeerInfo>().ok_or_else(|| {
            Status::new(Code::Unauthenticated, "the channel is not authenticated")
        })?;
        let wanted = if OWNERS.contains(&path) {
            Access::Owner
        } else if WRITERS.contains(&path) {
            Access::Writer
        } else {
            Access::Reader
        };
        admit(searcher, peer, wanted)?;
        let time = match path {
            COMPACT => limits::MAX_COMPACTION_TIME,
            _ => limits::MAX_REQUEST_TIME,
        };
        let bytes = match (wanted, searcher.shelf.newest()) {
            (Access::Owner, _) => OWNERS_LIMIT,
            (_, None) => UNOPENED_LIMIT,
            (Access::Writer, Some(_)) if path == STAGE => limits::MAX_STAGE_MESSAGE_BYTES,
            (Access::Writer, Some(_)) => limits::MAX_COMMIT_MESSAGE_BYTES,
            (_, Some(epoch)) => {
                (epoch.sizes.largest_request() + ROOM).min(limits::SEARCHER_REQUEST_LIMIT)
            }
        };
        Ok(Bounds { bytes, time })
    }
}

/// Checks role, grant and rate.
// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
pub(crate) fn admit(searcher: &Searcher, peer: &PeerInfo, wanted: Access) -> Result<(), Status> {
    permitted(peer, wanted, &searcher.index_id()).inspect_err(|_| {
        tracing::info!(peer = peer.short_key(), "request refused by role or grant");
    })?;
    let now = searcher.started.elapsed().as_secs_f64();
    if searcher.rates.admit(&peer.spki_sha256, now) {
        return Ok(());
    }
    Metrics::add(&searcher.metrics().rate_limited, 1);
    Err(Failure::new(
        Reason::RateLimited,
        format!(
            "this client has used up its {} requests per second; pause before the next one",
            searcher.rates.limit().per_second
        ),
    )
    .into())
}

/// How large a request may be, and how long it may take.
struct Bounds {
    bytes: usize,
    time: Duration,
}

/// Checks role and grant.
fn permitted(peer: &PeerInfo, wanted: Access, index_id: &[u8; 16]) -> Result<(), Failure> {
    let forbidden = |sentence: &str| Err(Failure::new(Reason::Forbidden, sentence));
    match (peer.role, wanted) {
        (Role::Owner, _) => Ok(()),
        (Role::Client, Access::Owner) => {
            forbidden("only the owner may rotate keys; use the owner's identity")
        }
        (Role::Client, wanted) if peer.grant.permits(wanted, index_id) => Ok(()),
        (Role::Client, Access::Writer) => forbidden(
            "this client's certificate does not allow it to change this index; ask the owner for one with writer access",
        ),
        (Role::Client, _) => forbidden(
            "this client's certificate does not allow it to search this index; ask the owner for one that does",
        ),
        (Role::Searcher | Role::Keeper | Role::Generator, _) => {
            forbidden("this role may not search; use the identity of a client or the owner")
        }
    }
}

impl NamedService for Gate {
    const NAME: &'static str = <SearcherServer<SearcherService> as NamedService>::NAME;
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let bounds = match self.check(&request) {
            Ok(bounds) => bounds,
            Err(status) => return Box::pin(std::future::ready(Ok(dated(status.into_http())))),
        };
        // The limit follows from the index, which may not be open when the
        // server starts.
        let mut service = SearcherServer::from_arc(Arc::clone(&self.0))
            .max_decoding_message_size(bounds.bytes)
            .max_encoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES);
        Box::pin(async move {
            let answer = tokio::time::timeout(bounds.time, service.call(request)).await;
            let late = || {
                let failure = Failure::new(
                    Reason::Deadline,
                    format!(
                        "the request took longer than {} seconds; ask again later",
                        bounds.time.as_secs()
                    ),
                );
                Ok(Status::from(failure).into_http())
            };
            answer.unwrap_or_else(|_| late()).map(dated)
        })
    }
}

fn dated(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::DATE, DATE);
    response
}
