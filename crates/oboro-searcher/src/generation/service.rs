//! The owner's requests as they come over the wire.

use std::sync::Arc;

use oboro_channel::{PeerInfo, Role, peer};
use oboro_protocol::{
    Failure, Reason,
    generation::v1::{self, generator_server::Generator},
};
use tonic::{Request, Response, Status};

use super::{blocking, encoding, shared::Shared};
use crate::SearcherError;

/// Implements the generated trait.
pub(super) struct GeneratorService(pub(super) Arc<Shared>);

/// Only owners get through the listener; this holds even if it let others in.
// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
fn owner<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    let peer = peer(request)?;
    if peer.role == Role::Owner {
        return Ok(peer);
    }
    Err(Failure::new(
        Reason::Forbidden,
        "only the owner may have an index made; use the owner's identity",
    )
    .into())
}

#[allow(clippy::result_large_err)]
fn answer<T>(what: &str, result: Result<T, SearcherError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        tracing::warn!(%error, "{what}");
        error.into()
    })
}

#[tonic::async_trait]
impl Generator for GeneratorService {
    async fn begin(
        &self,
        request: Request<v1::GeneratorBeginRequest>,
    ) -> Result<Response<v1::GeneratorBeginReply>, Status> {
        let owner = owner(&request)?;
        let result = self.0.begin(request.into_inner(), &owner).await;
        answer("a generation was not opened", result)
    }

    async fn sample(
        &self,
        request: Request<v1::SampleRequest>,
    ) -> Result<Response<v1::SampleReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result =
            blocking(move || generation.add_sample(request.first as usize, &request.batches)).await;
        let reply = |received| v1::SampleReply {
            received: received as u32,
        };
        answer("a part of the sample was refused", result.map(reply))
    }

    async fn train(
        &self,
        request: Request<v1::TrainRequest>,
    ) -> Result<Response<v1::TrainReply>, Status> {
        let owner = owner(&request)?;
        let generation = self.0.generation(&request.get_ref().session, &owner)?;
        answer("no training", self.0.train(&generation))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = self.0.describe(&generation, request.descriptor).await;
        answer(
            "the index was not begun",
            result.map(|()| v1::DescribeReply {}),
        )
    }

    async fn encode(
        &self,
        request: Request<v1::EncodeRequest>,
    ) -> Result<Response<v1::EncodeReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = encoding::encode(&generation, request).await;
        answer(
            "batches were not encoded",
            result.map(|()| v1::EncodeReply {}),
        )
    }

    async fn segment(
        &self,
        request: Request<v1::SegmentRequest>,
    ) -> Result<Response<v1::SegmentReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = encoding::complete(&generation, request).await;
        answer(
            "a segment was not completed",
            result.map(|()| v1::SegmentReply {}),
        )
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitReply>, Status> {
        let owner = owner(&request)?;
        let generation = self.0.generation(&request.get_ref().session, &owner)?;
        // A task of its own: an owner that goes away does not stop it in the middle.
        let commit = Arc::clone(&self.0).commit(generation);
        let result = tokio::spawn(commit)
            .await
            .unwrap_or(Err(SearcherError::Stopping));
        answer("the index was not made", result)
    }

    async fn abort(
        &self,
        request: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::AbortReply>, Status> {
        let owner = owner(&request)?;
        self.0.generation(&request.get_ref().session, &owner)?;
        self.0.close();
        self.0.place.discard();
        tracing::info!(owner = owner.short_key(), "generation given up");
        Ok(Response::new(v1::AbortReply {}))
    }
}
