//! One verified connection and everything derived from its index.

use std::sync::Arc;

use oboro_ckks::{
    CodebookMasks, EncryptedQuery, MaskedDecryptor, PreparedCodebook, QueryEncryptor, TableShare,
};
use oboro_index::{Descriptor, record::RecordOpener, rotation::RotationMatrix};
use oboro_protocol::{
    limits,
    sizes::{IndexShape, Sizes},
    v1::{self, searcher_client::SearcherClient},
};
use oboro_quant::Subspaces;
use tonic::transport::Channel;

use crate::{
    ClientConfig, ClientError, IndexSummary, Keyholder,
    transport::{self, within},
};

/// A connection whose other end proved what it is, and the index it serves.
pub(crate) struct Session {
    pub(crate) client: SearcherClient<Channel>,
    pub(crate) descriptor: Descriptor,
    pub(crate) summary: IndexSummary,
    pub(crate) encryptor: QueryEncryptor,
    /// The codebook's public part, for a client that holds the key itself.
    pub(crate) prepared: Option<PreparedCodebook>,
    pub(crate) opener: RecordOpener,
    pub(crate) sizes: Sizes,
    subspaces: Subspaces,
    rotation: RotationMatrix,
}

impl Session {
    /// Connects, verifies evidence and descriptor, derives what queries need.
    pub(crate) async fn open(config: &ClientConfig) -> Result<Self, ClientError> {
        match Self::attempt(config).await {
            // A new epoch came between the evidence and the description.
            Err(ClientError::Subject { .. }) => Self::attempt(config).await,
            result => result,
        }
    }

    async fn attempt(config: &ClientConfig) -> Result<Self, ClientError> {
        let peer = transport::Peer {
            address: &config.address,
            identity: &config.identity,
            trust: &config.trust,
            verifier: &config.verifier,
            timeout: config.connect_timeout,
        };
        let (mut client, appraisal) = peer.searcher().await?;
        let (descriptor, vectors) = transport::describe(
            &mut client,
            &appraisal,
            config.client_key.descriptor_key(),
            config.connect_timeout,
        )
        .await?;
        let unusable = |error: &dyn std::fmt::Display| ClientError::Descriptor(error.to_string());
        let packing = descriptor.packing;
        let encryptor =
            QueryEncryptor::new(packing, descriptor.scale, descriptor.public_key.clone())
                .map_err(|error| unusable(&error))?;
        let subspaces = descriptor.subspaces().map_err(|error| unusable(&error))?;
        if subspaces.width() != packing.width() {
            return Err(unusable(&"its packing does not fit its dimension"));
        }
        let rotation = RotationMatrix::derive(
            config.client_key.rotation_seed(),
            &subspaces,
            descriptor.rotation,
            descriptor.metric,
        );
        let opener = RecordOpener::new(
            config.client_key.record_key(),
            descriptor.index_id,
            descriptor.record_layout(),
        );
        let prepared = match &config.keyholder {
            Keyholder::Keeper => None,
            Keyholder::Client(decryptor) => {
                Some(prepare(&mut client, &descriptor, decryptor, config).await?)
            }
        };
        let summary = IndexSummary {
            index_id: descriptor.index_id,
            epoch: descriptor.epoch,
            vectors,
            tags: descriptor.tags.len(),
            extra_bytes: descriptor.extra_bytes,
            dimension: descriptor.dimension as usize,
            metric: descriptor.metric.name(),
            subquantizers: packing.subquantizers(),
            centroids: packing.centroids(),
            candidates_max: descriptor.candidates_max,
            parameter_set: packing.set().name(),
            security_bits: packing.set().security_bits(),
            platform: appraisal.platform.name(),
            simulated: appraisal.is_simulated(),
            remarks: appraisal.remarks.clone(),
            query_bytes: match &config.keyholder {
                Keyholder::Keeper => EncryptedQuery::encoded_len(&packing),
                Keyholder::Client(_) => EncryptedQuery::seeded_len(&packing),
            },
        };
        let sizes = Sizes::new(&IndexShape {
            query_bytes: EncryptedQuery::encoded_len(&packing),
            seeded_query_bytes: EncryptedQuery::seeded_len(&packing),
            share_bytes: TableShare::encoded_len(&packing),
            record_bytes: descriptor.record_bytes(),
            candidates_max: descriptor.candidates_max,
        });
        Ok(Self {
            client,
            sizes,
            descriptor,
            summary,
            encryptor,
            prepared,
            opener,
            subspaces,
            rotation,
        })
    }

    /// The query in the form that is encrypted: prepared for the metric,
    /// rotated, cut into padded sub-vectors.
    pub(crate) fn padded(&self, query: &[f32]) -> Result<Vec<f32>, ClientError> {
        let mut vector = query.to_vec();
        self.descriptor.metric.prepare_query(&mut vector);
        self.rotation
            .apply(&mut vector)
            .map_err(|error| ClientError::Encrypt(error.to_string()))?;
        Ok(self.subspaces.pad(&vector))
    }
}

/// Fetches the codebook's public part and prepares decryption with it.
async fn prepare(
    client: &mut SearcherClient<Channel>,
    descriptor: &Descriptor,
    decryptor: &Arc<MaskedDecryptor>,
    config: &ClientConfig,
) -> Result<PreparedCodebook, ClientError> {
    if !decryptor.matches(&descriptor.public_key) {
        return Err(ClientError::ForeignKey);
    }
    let mut client = client
        .clone()
        .max_decoding_message_size(limits::MAX_MASKS_MESSAGE_BYTES);
    let request = v1::CodebookMasksRequest {
        index_id: descriptor.index_id.to_vec().into(),
        epoch: descriptor.epoch,
    };
    let reply = within(config.connect_timeout, client.codebook_masks(request)).await?;
    let masks = CodebookMasks::from_bytes(&descriptor.packing, &reply.masks)
        .map_err(|error| ClientError::Reply(error.to_string()))?;
    if masks.digest() != descriptor.codebook_digest {
        return Err(ClientError::Reply(
            "the codebook's public part is not the one the owner built".to_owned(),
        ));
    }
    decryptor
        .prepare(descriptor.packing, descriptor.scale, &masks)
        .map_err(|error| ClientError::Reply(error.to_string()))
}
