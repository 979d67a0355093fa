//! Refuses requests by role before their body is read.
//!
//! A body may hold tens of megabytes; who may not send it must not make the keeper
//! collect it first.

use crate::metrics::Metrics;
use oboro_channel::{PeerInfo, Role};
use oboro_protocol::{Failure, Reason};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Requests that any connected role may make; all others are for searchers.
const OPEN: [&str; 2] = ["/oboro.v1.Keeper/Describe", "/oboro.v1.Keeper/Status"];

#[derive(Clone)]
pub(crate) struct RoleGateLayer(pub(crate) Arc<Metrics>);

impl<S> Layer<S> for RoleGateLayer {
    type Service = RoleGate<S>;

    fn layer(&self, inner: S) -> RoleGate<S> {
        RoleGate {
            inner,
            metrics: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct RoleGate<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> RoleGate<S> {
    fn check<B>(&self, request: &Request<B>) -> Result<(), Status> {
        let Some(peer) = request.extensions().get::<PeerInfo>() else {
            return Err(Status::new(
                Code::Unauthenticated,
                "the channel is not authenticated",
            ));
        };
        if peer.role == Role::Searcher || OPEN.contains(&request.uri().path()) {
            return Ok(());
        }
        self.metrics.refuse(&peer.spki_sha256);
        Err(Failure::new(
            Reason::Forbidden,
            format!("a keeper does not do this for the role of {}", peer.role),
        )
        .into())
    }
}

impl<S, B> Service<Request<B>> for RoleGate<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.check(&request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
