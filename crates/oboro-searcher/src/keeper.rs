//! One connection to a keeper that has proved what it is.

use std::time::Duration;

use bytes::Bytes;
use oboro_attest::key_set_digest;
use oboro_channel::{
    ChannelError, ConnectOptions, Demand, Identity, Offer, Role, Trust, explain, within,
};
use oboro_ckks::PublicKey;
use oboro_index::{IndexHead, keys::ReleaseShare};
use oboro_protocol::{
    PROTOCOL_VERSION, Reason, limits, reason_of,
    v1::{self, keeper_client::KeeperClient},
};
use tonic::{Status, transport::Channel};

use crate::{KeeperConfig, SearcherError};

/// A keeper takes as many ancestors as a manifest names.
const _: () = assert!(oboro_index::MAX_ANCESTORS <= limits::MAX_ANCESTORS);

/// What a searcher needs to connect to its keeper.
pub(crate) struct KeeperAccess {
    pub(crate) config: KeeperConfig,
    pub(crate) identity: Identity,
    pub(crate) trust: Trust,
    /// This searcher's evidence.
    pub(crate) offer: Offer,
    /// The keeper's evidence.
    pub(crate) demand: Demand,
}

/// A connection with evidence both ways, and the keys the keeper holds.
///
/// The channel connects again by itself, with fresh evidence and only to the
/// same TLS key.
pub(crate) struct Keeper {
    client: KeeperClient<Channel>,
    channel: Channel,
    keys: Vec<[u8; 32]>,
}

impl Keeper {
    /// Connects and asks what keys the keeper holds; its evidence must name them.
    pub(crate) async fn connect(access: &KeeperAccess) -> Result<Self, SearcherError> {
        let timeout = access.config.connect_timeout;
        let options = ConnectOptions {
            timeout,
            offer: Some(access.offer.clone()),
            demand: Some(access.demand.clone()),
            ..ConnectOptions::default()
        };
        let connection = oboro_channel::connect(
            &access.config.address,
            &access.identity,
            &access.trust,
            Role::Keeper,
            options,
        )
        .await
        .map_err(refused_channel)?;
        let attested = connection
            .peer()
            .appraisal
            .map(|appraisal| appraisal.claims.subject.ckks_keys);
        let mut client = KeeperClient::new(connection.channel.clone())
            .max_decoding_message_size(limits::MAX_MASKS_MESSAGE_BYTES)
            .max_encoding_message_size(limits::KEEPER_REQUEST_LIMIT);
        let describe = client.describe(v1::DescribeRequest {});
        let description = within(timeout, describe).await.map_err(refused)?;
        if description.protocol_version != PROTOCOL_VERSION {
            return Err(SearcherError::KeeperUntrusted(format!(
                "it speaks protocol version {} and this searcher {PROTOCOL_VERSION}",
                description.protocol_version
            )));
        }
        let keys = description
            .public_keys
            .iter()
            .map(|key| PublicKey::from_bytes(key).map(|key| key.fingerprint()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| SearcherError::KeeperUntrusted(error.to_string()))?;
        if attested != Some(key_set_digest(&keys)) {
            return Err(SearcherError::KeeperUntrusted(
                "its evidence names other decryption keys than it says to hold".to_owned(),
            ));
        }
        if !description.rollback_protected {
            tracing::info!("the keeper's own record of versions is not protected by hardware");
        }
        Ok(Self {
            client,
            channel: connection.channel,
            keys,
        })
    }

    /// The connection, for requests of another service.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The keeper holds the key with this fingerprint.
    pub(crate) fn holds(&self, fingerprint: &[u8; 32]) -> bool {
        self.keys.contains(fingerprint)
    }

    /// The keeper's share of the storage key of a state.
    pub(crate) async fn release(&self, state: &IndexHead) -> Result<ReleaseShare, SearcherError> {
        let request = v1::ReleaseRequest {
            state: Some(message(state)),
        };
        // A clone of the client is a handle to the same connection.
        let mut client = self.client.clone();
        let reply = within(limits::PREPARE_DEADLINE, client.release(request))
            .await
            .map_err(refused)?;
        ReleaseShare::from_bytes(&reply.share)
            .map_err(|error| SearcherError::KeeperRefused(error.to_string()))
    }

    /// Has a state recorded as the newest; `ancestors` are the manifests of the
    /// generations before it, the newest first.
    pub(crate) async fn register(
        &self,
        state: &IndexHead,
        ancestors: &[[u8; 32]],
    ) -> Result<(), SearcherError> {
        let request = v1::RegisterRequest {
            state: Some(message(state)),
            ancestors: ancestors.concat().into(),
        };
        let mut client = self.client.clone();
        within(limits::PREPARE_DEADLINE, client.register(request))
            .await
            .map(drop)
            .map_err(refused)
    }

    /// Has a codebook prepared; returns its handle.
    pub(crate) async fn prepare(
        &self,
        request: v1::PrepareRequest,
    ) -> Result<Bytes, SearcherError> {
        let mut client = self.client.clone();
        within(limits::PREPARE_DEADLINE, client.prepare(request))
            .await
            .map(|reply| reply.handle)
            .map_err(refused)
    }

    /// The keeper's share of one table.
    pub(crate) async fn decrypt(
        &self,
        handle: Bytes,
        products: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Status> {
        let mut client = self.client.clone();
        let request = v1::DecryptRequest { handle, products };
        within(timeout, client.decrypt(request))
            .await
            .map(|reply| reply.share)
    }

    /// Masked codebook blocks under another key.
    pub(crate) async fn reencrypt(
        &self,
        request: v1::ReencryptRequest,
    ) -> Result<Bytes, SearcherError> {
        let mut client = self.client.clone();
        within(limits::PREPARE_DEADLINE, client.reencrypt(request))
            .await
            .map(|reply| reply.blocks)
            .map_err(refused)
    }
}

fn message(state: &IndexHead) -> v1::IndexState {
    v1::IndexState {
        index_id: state.index_id.to_vec().into(),
        epoch: state.epoch,
        generation: state.generation,
        manifest_digest: state.manifest_digest.to_vec().into(),
    }
}

/// No channel came about.
fn refused_channel(error: ChannelError) -> SearcherError {
    match error {
        ChannelError::Untrusted(cause) => SearcherError::KeeperUntrusted(cause.to_string()),
        error @ (ChannelError::NoEvidence(_) | ChannelError::AnotherIndex(_)) => {
            SearcherError::KeeperUntrusted(error.to_string())
        }
        other => SearcherError::KeeperUnreachable(other.to_string()),
    }
}

/// A request failed: at the keeper, or on the way.
pub(crate) fn refused(status: Status) -> SearcherError {
    match reason_of(&status) {
        Some(Reason::Stale) => SearcherError::Stale(status.message().to_owned()),
        Some(reason @ (Reason::Busy | Reason::RateLimited)) => {
            SearcherError::Request(oboro_protocol::Failure::new(
                reason,
                format!("the keeper is busy: {}", status.message()),
            ))
        }
        Some(_) => SearcherError::KeeperRefused(status.message().to_owned()),
        None => SearcherError::KeeperUnreachable(explain(&status)),
    }
}
