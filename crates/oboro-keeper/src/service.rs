//! The requests a keeper answers.

use crate::shared::Shared;
use oboro_channel::{PeerInfo, peer};
use oboro_protocol::{Failure, PROTOCOL_VERSION, v1};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Shared>);

impl Service {
    fn answer<T>(
        &self,
        peer: &PeerInfo,
        result: Result<T, Failure>,
    ) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|failure| {
            self.0.metrics.refuse(&peer.spki_sha256);
            tracing::debug!(
                peer = peer.short_key(),
                reason = failure.reason.name(),
                "request refused"
            );
            failure.into()
        })
    }
}

#[tonic::async_trait]
impl v1::keeper_server::Keeper for Service {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::KeeperDescription>, Status> {
        peer(&request)?;
        let state = &self.0.state;
        let keys = state.keys();
        Ok(Response::new(v1::KeeperDescription {
            protocol_version: PROTOCOL_VERSION,
            public_keys: keys.iter().map(|pair| pair.public_bytes.clone()).collect(),
            rollback_protected: state.is_rollback_protected(),
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.release(request.into_inner(), &peer).await;
        self.answer(&peer, result.map(|share| v1::ReleaseReply { share }))
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.register(request.into_inner(), &peer).await;
        let reply = |state| v1::RegisterReply {
            newest: Some(state),
        };
        self.answer(&peer, result.map(reply))
    }

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.prepare(request.into_inner(), peer.clone()).await;
        if result.is_ok() {
            self.0.metrics.prepared.fetch_add(1, Relaxed);
            tracing::info!(searcher = peer.short_key(), "codebook prepared");
        }
        let reply = |handle: [u8; 32]| v1::PrepareReply {
            handle: handle.to_vec().into(),
        };
        self.answer(&peer, result.map(reply))
    }

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptReply>, Status> {
        let begin = Instant::now();
        let peer = peer(&request)?;
        let result = self.0.decrypt(request.into_inner(), &peer, begin).await;
        self.answer(&peer, result)
    }

    async fn new_key(
        &self,
        request: Request<v1::NewKeyRequest>,
    ) -> Result<Response<v1::NewKeyReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.new_key(request.into_inner(), &peer).await;
        self.answer(
            &peer,
            result.map(|public_key| v1::NewKeyReply { public_key }),
        )
    }

    async fn reencrypt(
        &self,
        request: Request<v1::ReencryptRequest>,
    ) -> Result<Response<v1::ReencryptReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.reencrypt(request.into_inner(), &peer).await;
        self.answer(&peer, result.map(|blocks| v1::ReencryptReply { blocks }))
    }

    async fn retire_key(
        &self,
        request: Request<v1::RetireKeyRequest>,
    ) -> Result<Response<v1::RetireKeyReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.retire(request.into_inner(), &peer).await;
        self.answer(&peer, result.map(|()| v1::RetireKeyReply {}))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::KeeperStatus>, Status> {
        peer(&request)?;
        let shared = &self.0;
        Ok(Response::new(v1::KeeperStatus {
            tables: shared.metrics.tables.load(Relaxed),
            refused: shared.metrics.refused.load(Relaxed),
            prepared: u32::try_from(shared.prepared.len()).unwrap_or(u32::MAX),
            uptime_seconds: shared.uptime().as_secs(),
        }))
    }
}
