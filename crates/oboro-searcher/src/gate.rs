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
    fn check<B>(&self, request: &Request<B>) -> Result<usize, Status> {
        let searcher = &self.0.0;
        let peer = request.extensions().get::<PeerInfo>().ok_or_else(|| {
            Status::new(Code::Unauthenticated, "the channel is not authenticated")
        })?;
        let owners = OWNERS.contains(&request.uri().path());
        permitted(peer, owners, &searcher.index_id()).inspect_err(|_| {
            tracing::info!(peer = peer.short_key(), "request refused by role or grant");
        })?;
        let now = searcher.started.elapsed().as_secs_f64();
        if !searcher.rates.admit(&peer.spki_sha256, now) {
            Metrics::add(&searcher.metrics().rate_limited, 1);
            return Err(Failure::new(
                Reason::RateLimited,
                format!(
                    "this client has used up its {} requests per second; pause before the next one",
                    searcher.rates.limit().per_second
                ),
            )
            .into());
        }
        Ok(match searcher.shelf.newest() {
            _ if owners => OWNERS_LIMIT,
            None => UNOPENED_LIMIT,
            Some(epoch) => {
                (epoch.sizes.largest_request() + ROOM).min(limits::SEARCHER_REQUEST_LIMIT)
            }
        })
    }
}

/// Checks role and grant.
fn permitted(peer: &PeerInfo, owners: bool, index_id: &[u8; 16]) -> Result<(), Failure> {
    let forbidden = |sentence: &str| Err(Failure::new(Reason::Forbidden, sentence));
    match peer.role {
        Role::Owner => Ok(()),
        Role::Client if owners => {
            forbidden("only the owner may rotate keys; use the owner's identity")
        }
        Role::Client if peer.grant.permits(Access::Reader, index_id) => Ok(()),
        Role::Client => forbidden(
            "this client's certificate does not allow it to search this index; ask the owner for one that does",
        ),
        Role::Searcher | Role::Keeper => {
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
        let limit = match self.check(&request) {
            Ok(limit) => limit,
            Err(status) => return Box::pin(std::future::ready(Ok(dated(status.into_http())))),
        };
        // The limit follows from the index, which may not be open when the
        // server starts.
        let mut service = SearcherServer::from_arc(Arc::clone(&self.0))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES);
        Box::pin(async move { service.call(request).await.map(dated) })
    }
}

fn dated(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::DATE, DATE);
    response
}
