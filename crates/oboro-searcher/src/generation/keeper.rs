//! The keeper's part in a generation, asked over one connection.

use std::time::Duration;

use bytes::Bytes;
use oboro_channel::within;
use oboro_protocol::{
    Reason, generation,
    generation::v1::{self, keeper_generation_client::KeeperGenerationClient},
    reason_of,
};
use tonic::{Response, Status, transport::Channel};

use crate::{
    SearcherError,
    keeper::{Keeper, refused},
};

/// How often a request is made, where the keeper is away or busy.
const ATTEMPTS: u32 = 6;

/// The first pause between two of them; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(250);

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

    /// The newest means in the form for searching.
    pub(super) async fn codebook(
        &self,
        scale: Bytes,
        offsets: Bytes,
    ) -> Result<Bytes, SearcherError> {
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
        Ok(reply.codebook)
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
            return Err(refused(status));
        }
        attempt += 1;
        tracing::info!(code = ?status.code(), "the keeper is asked again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
