//! Connections whose other end proved what it is; from gRPC statuses to errors of
//! this crate.

use std::{sync::Arc, time::Duration};

use oboro_attest::{Appraisal, AttestedRole, Verifier};
use oboro_channel::{
    ChannelError, ConnectOptions, Demand, Identity, Role, Trust, connect, explain,
};
use oboro_index::{Descriptor, DescriptorKey};
use oboro_protocol::{
    Failure, PROTOCOL_VERSION, Reason, limits,
    v1::{self, keeper_client::KeeperClient, searcher_client::SearcherClient},
};
use tonic::{Code, Response, Status, transport::Channel};

use crate::ClientError;

/// Who is to be reached, and who reaches it.
pub(crate) struct Peer<'a> {
    pub(crate) address: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) trust: &'a Trust,
    /// Appraises the evidence of the other end.
    pub(crate) verifier: &'a Arc<dyn Verifier>,
    pub(crate) timeout: Duration,
}

impl Peer<'_> {
    /// A searcher that has proved what it is.
    pub(crate) async fn searcher(
        &self,
    ) -> Result<(SearcherClient<Channel>, Arc<Appraisal>), ClientError> {
        let (channel, appraisal) = self.connect(Role::Searcher, AttestedRole::Searcher).await?;
        let client = SearcherClient::new(channel)
            .max_decoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES)
            .max_encoding_message_size(limits::SEARCHER_REQUEST_LIMIT);
        Ok((client, appraisal))
    }

    /// A keeper that has proved what it is.
    pub(crate) async fn keeper(
        &self,
    ) -> Result<(KeeperClient<Channel>, Arc<Appraisal>), ClientError> {
        let (channel, appraisal) = self.connect(Role::Keeper, AttestedRole::Keeper).await?;
        Ok((KeeperClient::new(channel), appraisal))
    }

    /// The channel connects again by itself, but only to the same key, and with
    /// fresh evidence of the same index and configuration: what was appraised
    /// stays true for the channel's whole life.
    pub(crate) async fn connect(
        &self,
        role: Role,
        attested: AttestedRole,
    ) -> Result<(Channel, Arc<Appraisal>), ClientError> {
        let options = ConnectOptions {
            timeout: self.timeout,
            demand: Some(Demand::new(Arc::clone(self.verifier), attested)),
            ..ConnectOptions::default()
        };
        let connection = connect(self.address, self.identity, self.trust, role, options)
            .await
            .map_err(|error| unconnected(error, role, self.address))?;
        let appraisal = connection.peer().appraisal.ok_or(ClientError::Untrusted {
            role,
            cause: "it gave no evidence".to_owned(),
        })?;
        Ok((connection.channel, appraisal))
    }
}

/// The owner's description of the index that a searcher serves: authentic, and of
/// the index and epoch that the searcher's evidence names. And how many vectors are
/// in it, which nothing authenticates.
pub(crate) async fn describe(
    client: &mut SearcherClient<Channel>,
    appraisal: &Appraisal,
    key: &DescriptorKey,
    timeout: Duration,
) -> Result<(Descriptor, u64), ClientError> {
    let description = within(timeout, client.describe(v1::DescribeRequest {})).await?;
    check_version(description.protocol_version, Role::Searcher)?;
    let descriptor = Descriptor::from_bytes(key, &description.descriptor)
        .map_err(|error| ClientError::Descriptor(error.to_string()))?;
    let subject = &appraisal.claims.subject;
    let differ = |attested: String, served: String| ClientError::Subject { attested, served };
    if subject.index_id != descriptor.index_id {
        return Err(differ("another index".into(), "this one".into()));
    }
    if subject.epoch != descriptor.epoch {
        let epoch = |epoch: u64| format!("epoch {epoch}");
        return Err(differ(epoch(subject.epoch), epoch(descriptor.epoch)));
    }
    Ok((descriptor, description.vectors))
}

/// Refuses a peer of another protocol.
pub(crate) fn check_version(theirs: u32, role: Role) -> Result<(), ClientError> {
    if theirs == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(ClientError::ProtocolVersion {
        role,
        theirs,
        ours: PROTOCOL_VERSION,
    })
}

fn unconnected(error: ChannelError, role: Role, address: &str) -> ClientError {
    match error {
        ChannelError::Untrusted(cause) => ClientError::Untrusted {
            role,
            cause: cause.to_string(),
        },
        error @ (ChannelError::NoEvidence(_) | ChannelError::AnotherIndex(_)) => {
            ClientError::Untrusted {
                role,
                cause: error.to_string(),
            }
        }
        ChannelError::Unreachable { reason, .. } => ClientError::Unreachable {
            role,
            address: address.to_owned(),
            cause: reason,
        },
        other => ClientError::Unreachable {
            role,
            address: address.to_owned(),
            cause: other.to_string(),
        },
    }
}

/// A call with a bounded time.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    oboro_channel::within(limit, call)
        .await
        .map_err(|status| failure(&status, limit))
}

pub(crate) fn late(limit: Duration) -> ClientError {
    ClientError::Deadline {
        allowed_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What a status means; `limit` is the time that the call was allowed.
pub(crate) fn failure(status: &Status, limit: Duration) -> ClientError {
    match Failure::from_status(status) {
        Some(Failure {
            reason: Reason::Deadline,
            ..
        }) => late(limit),
        Some(Failure { reason, message }) => ClientError::Refused { reason, message },
        None => match status.code() {
            Code::DeadlineExceeded => late(limit),
            // The transport's own limits on sizes, on either side.
            Code::OutOfRange => ClientError::Refused {
                reason: Reason::Limit,
                message: status.message().to_owned(),
            },
            Code::Unimplemented => ClientError::NotOffered,
            _ => ClientError::Broken(explain(status)),
        },
    }
}
