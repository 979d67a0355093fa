//! Refuses requests by role and evidence before their body is read.
//!
//! A body may hold tens of megabytes; who may not send it must not make the keeper
//! collect it first.

use crate::metrics::Metrics;
use oboro_attest::{AttestedRole, Claims};
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

/// Who may make a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Every connected role.
    All,
    /// Searchers whose evidence was accepted when they connected.
    Searchers,
    /// Those, and the owner.
    SearchersAndOwner,
    /// The owner.
    Owner,
}

const METHODS: [(&str, Allowed); 9] = [
    ("Describe", Allowed::All),
    ("Status", Allowed::All),
    ("Release", Allowed::Searchers),
    ("Register", Allowed::SearchersAndOwner),
    ("Prepare", Allowed::Searchers),
    ("Decrypt", Allowed::Searchers),
    ("Reencrypt", Allowed::Searchers),
    ("NewKey", Allowed::Owner),
    ("RetireKey", Allowed::Owner),
];

const GENERATION_METHODS: [(&str, Allowed); 7] = [
    ("Begin", Allowed::Owner),
    ("Shares", Allowed::Owner),
    ("End", Allowed::Owner),
    ("Means", Allowed::Searchers),
    ("Tables", Allowed::Searchers),
    ("Codebook", Allowed::Searchers),
    ("Install", Allowed::Searchers),
];

/// Refuses a request that this peer may not make. What is not in the lists nobody may.
fn check(path: &str, peer: &PeerInfo) -> Result<(), String> {
    let find = |service: &str, methods: &'static [(&str, Allowed)]| {
        let method = path.strip_prefix(service)?;
        methods.iter().find(|(name, _)| *name == method)
    };
    let allowed = find("/oboro.v1.Keeper/", &METHODS).or_else(|| {
        find(
            "/oboro.generation.v1.KeeperGeneration/",
            &GENERATION_METHODS,
        )
    });
    let searcher = peer.role == Role::Searcher;
    let owner = peer.role == Role::Owner;
    let permitted = match allowed.map(|(_, allowed)| *allowed) {
        Some(Allowed::All) => true,
        Some(Allowed::Searchers) => searcher,
        Some(Allowed::SearchersAndOwner) => searcher || owner,
        Some(Allowed::Owner) => owner,
        None => false,
    };
    if !permitted {
        return Err(format!(
            "a keeper does not do this for the role of {}",
            peer.role
        ));
    }
    // The listener demands evidence of searchers; this holds even if it did not.
    if searcher && allowed.is_none_or(|(_, allowed)| *allowed != Allowed::All) {
        let attested = |claims: &Claims| claims.role == AttestedRole::Searcher;
        if !peer
            .appraisal
            .as_ref()
            .is_some_and(|appraisal| attested(&appraisal.claims))
        {
            return Err("this searcher has shown no evidence; connect again with it".to_owned());
        }
    }
    Ok(())
}

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
        check(request.uri().path(), peer).map_err(|sentence| {
            self.metrics.refuse(&peer.spki_sha256);
            Failure::new(Reason::Forbidden, sentence).into()
        })
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
