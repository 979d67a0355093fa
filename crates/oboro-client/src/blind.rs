//! New vectors for an index that was made blindly: searcher and keeper encode them.
//!
//! Beside a [`Writer`](crate::writer::Writer), which stages and commits what comes of it
//! as for any other index.

use bytes::Bytes;
use oboro_attest::AttestedRole;
use oboro_channel::Role;
use oboro_protocol::generation::{
    self, USUAL_PAYLOAD_BYTES,
    v1::{self, encoder_client::EncoderClient},
};
use tonic::transport::Channel;

use crate::{ClientError, generation::persist, transport::Peer, writer::WriterConfig};

/// A connection to the searcher of a blindly made index.
#[derive(Clone)]
pub struct BlindWriter {
    client: EncoderClient<Channel>,
    index_id: Bytes,
    scale: Vec<u8>,
}

impl BlindWriter {
    /// Connects, and has the searcher get the index's codebook ready.
    ///
    /// # Errors
    /// When the searcher cannot be reached or does not prove what it must, its keeper
    /// cannot be reached, the identity may only search, or the index was not made
    /// blindly.
    pub async fn connect(config: &WriterConfig, index_id: [u8; 16]) -> Result<Self, ClientError> {
        let peer = Peer {
            address: &config.address,
            identity: &config.identity,
            trust: &config.trust,
            verifier: &config.verifier,
            timeout: config.connect_timeout,
        };
        let (channel, _) = peer.connect(Role::Searcher, AttestedRole::Searcher).await?;
        let client = EncoderClient::new(channel)
            .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(generation::MAX_MESSAGE_BYTES);
        let index_id = Bytes::copy_from_slice(&index_id);
        let reply = persist(|| {
            let mut client = client.clone();
            let request = v1::OpenRequest {
                index_id: index_id.clone(),
            };
            async move { client.open(request).await }
        })
        .await?;
        Ok(Self {
            client,
            index_id,
            scale: reply.scale.into(),
        })
    }

    /// How vectors are to be encrypted: [`oboro_ckks::BatchScale::to_bytes`].
    #[must_use]
    pub fn scale(&self) -> &[u8] {
        &self.scale
    }

    /// The codes of batches that are encrypted for `epoch` of the index, one after the
    /// other, for `vectors` vectors of `width` codes each.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), or when the searcher gives other codes than were
    /// asked for. [`Reason::WrongEpoch`](oboro_protocol::Reason::WrongEpoch) says that the
    /// epoch is over: encrypt the vectors anew, for the one that is served.
    pub async fn encode(
        &self,
        epoch: u64,
        batches: &[Vec<u8>],
        vectors: usize,
        width: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let largest = batches.iter().map(Vec::len).max().unwrap_or_default();
        let piece = (USUAL_PAYLOAD_BYTES / largest.max(1)).max(1);
        let mut codes = Vec::new();
        for part in batches.chunks(piece) {
            let request = v1::EncodeBatchesRequest {
                index_id: self.index_id.clone(),
                batches: part
                    .iter()
                    .map(|batch| Bytes::copy_from_slice(batch))
                    .collect(),
                epoch,
            };
            let reply = persist(|| {
                let (mut client, request) = (self.client.clone(), request.clone());
                async move { client.encode(request).await }
            })
            .await?;
            if reply.codes.len() != part.len() {
                return Err(ClientError::Reply(format!(
                    "the searcher encoded {} batches of {}",
                    reply.codes.len(),
                    part.len()
                )));
            }
            for part in &reply.codes {
                codes.extend_from_slice(part);
            }
        }
        // The last batch is filled up.
        let due = vectors * width;
        if codes.len() < due {
            return Err(ClientError::Reply(format!(
                "the searcher gave {} codes of {due}",
                codes.len()
            )));
        }
        codes.truncate(due);
        Ok(codes)
    }
}
