//! The keeper's part in a generation, asked over one connection.

use std::time::Duration;

use bytes::Bytes;
use oboro_channel::within;
use oboro_protocol::{
    Failure, Reason, generation,
    generation::v1::{self, keeper_generation_client::KeeperGenerationClient},
    reason_of, validate,
};
use tonic::{Response, Status, transport::Channel};
use zeroize::Zeroizing;

use crate::{
    SearcherError,
    keeper::{Keeper, refused},
};

/// How often a request is made, where the keeper is away or busy.
const ATTEMPTS: u32 = 6;

/// The first pause between two of them; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// What the keeper is shown to go on with a codebook that was trained.
pub(super) struct InstallPlan {
    pub(super) index_id: [u8; 16],
    /// The keeper's share, sealed by itself.
    pub(super) share: Bytes,
    pub(super) key_fingerprint: [u8; 32],
}

/// A codebook of an earlier training at the keeper.
pub(super) struct Installed {
    pub(super) keeper: GenerationKeeper,
    pub(super) number: u32,
    /// Masked, encrypted, in the form for batches.
    pub(super) codebook: Bytes,
    /// The keeper's part in the key of what the searcher keeps.
    pub(super) part: Zeroizing<[u8; 32]>,
}

/// One generation at the keeper.
#[derive(Clone)]
pub(super) struct GenerationKeeper {
    client: KeeperGenerationClient<Channel>,
    session: Bytes,
}

impl GenerationKeeper {
    pub(super) fn new(keeper: &Keeper, session: Bytes) -> Self {
        Self {
            client: KeeperGenerationClient::new(keeper.channel())
                .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
                .max_encoding_message_size(generation::MAX_MESSAGE_BYTES),
            session,
        }
    }

    /// The encrypted means of labelled samples, and their number.
    pub(super) async fn means(
        &self,
        scale: Bytes,
        labels: Bytes,
    ) -> Result<v1::MeansReply, SearcherError> {
        let request = v1::MeansRequest {
            session: self.session.clone(),
            scale,
            labels,
        };
        persist(|| {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.means(request).await }
        })
        .await
    }

    /// The keeper's shares of the tables of masked batches.
    pub(super) async fn tables(
        &self,
        number: u32,
        blocks: &std::ops::Range<usize>,
        batches: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, SearcherError> {
        let count = batches.len();
        let request = v1::TablesRequest {
            session: self.session.clone(),
            number,
            first_block: blocks.start as u32,
            end_block: blocks.end as u32,
            batches,
        };
        let reply = persist(|| {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.tables(request).await }
        })
        .await?;
        if reply.shares.len() == count {
            Ok(reply.shares)
        } else {
            Err(SearcherError::KeeperRefused(format!(
                "it gave {} shares for {count} batches",
                reply.shares.len()
            )))
        }
    }

    /// Both are one session at the keeper.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.session == other.session
    }

    /// Shows the keeper its share of a codebook; from then on it answers for its tables,
    /// in a session of their own.
    pub(super) async fn install(&self, plan: &InstallPlan) -> Result<Installed, SearcherError> {
        let request = v1::InstallRequest {
            index_id: plan.index_id.to_vec().into(),
            share: plan.share.clone(),
            key_fingerprint: plan.key_fingerprint.to_vec().into(),
        };
        let reply = persist(|| {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.install(request).await }
        })
        .await?;
        Ok(Installed {
            keeper: Self {
                client: self.client.clone(),
                session: reply.session,
            },
            number: reply.number,
            codebook: reply.codebook,
            part: part(&reply.part)?,
        })
    }

    /// The newest means in the form for searching, and what the searcher keeps of the
    /// training: the keeper's share and its part of the key.
    pub(super) async fn codebook(
        &self,
        scale: Bytes,
        offsets: Bytes,
    ) -> Result<(Bytes, Bytes, Zeroizing<[u8; 32]>), SearcherError> {
        let request = v1::CodebookRequest {
            session: self.session.clone(),
            scale,
            offsets,
        };
        let reply = persist(|| {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.codebook(request).await }
        })
        .await?;
        let part = part(&reply.part)?;
        Ok((reply.codebook, reply.share, part))
    }
}

fn part(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, SearcherError> {
    validate::digest(bytes, "keeper's part of a key")
        .map(Zeroizing::new)
        .map_err(|failure| SearcherError::KeeperRefused(failure.message))
}

/// As for other requests; but that the keeper knows the session no more, others can mend.
fn refusal(status: Status) -> SearcherError {
    match reason_of(&status) {
        Some(reason @ Reason::UnknownSession) => {
            Failure::new(reason, format!("the keeper: {}", status.message())).into()
        }
        _ => refused(status),
    }
}

/// Asks until there is an answer: the keeper gives the same one to the same request.
async fn persist<T, Answer>(ask: impl Fn() -> Answer) -> Result<T, SearcherError>
where
    Answer: Future<Output = Result<Response<T>, Status>>,
{
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        let status = match within(generation::MAX_REQUEST_TIME, ask()).await {
            Ok(reply) => return Ok(reply),
            Err(status) => status,
        };
        let passing = reason_of(&status).is_none_or(Reason::is_transient);
        if !passing || attempt == ATTEMPTS {
            return Err(refusal(status));
        }
        attempt += 1;
        tracing::info!(code = ?status.code(), "the keeper is asked again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
