//! One verified connection and everything derived from its index.

use std::sync::Arc;

use oboro_ckks::{
    CodebookMasks, EncryptedQuery, MaskedDecryptor, PreparedCodebook, QueryEncryptor, TableShare,
};
use oboro_index::{Descriptor, QueryModel, record::RecordOpener, rotation::RotationMatrix};
use oboro_protocol::{
    limits,
    sizes::{IndexShape, Sizes},
    v1::{self, searcher_client::SearcherClient},
};
use oboro_quant::Subspaces;
use tonic::transport::Channel;
use zeroize::Zeroizing;

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
    /// Shared with the session before, if it is the same.
    query_model: Arc<QueryModel>,
}

impl Session {
    /// Connects, verifies evidence and descriptor, derives what queries need. What does not
    /// change with a connection is taken from the session `before`.
    pub(crate) async fn open(
        config: &ClientConfig,
        before: Option<&Self>,
    ) -> Result<Self, ClientError> {
        match Self::attempt(config, before).await {
            // A new epoch came between the evidence and the description.
            Err(ClientError::Subject { .. }) => Self::attempt(config, before).await,
            result => result,
        }
    }

    async fn attempt(config: &ClientConfig, before: Option<&Self>) -> Result<Self, ClientError> {
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
        let query_model = match before.and_then(|before| before.kept_query_model(&descriptor)) {
            Some(kept) => kept,
            None => Arc::new(query_model(&mut client, &descriptor, config).await?),
        };
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
            opq: descriptor.query_model.is_some_and(|shape| shape.opq),
            lists: descriptor.lists() as u32,
            probes_max: descriptor.probes_max(),
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
            probes_max: descriptor.probes_max(),
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
            query_model,
        })
    }

    /// The query model, if it is the one that `descriptor` names: of the same index, and with
    /// the digest that the owner put there.
    fn kept_query_model(&self, descriptor: &Descriptor) -> Option<Arc<QueryModel>> {
        let named = |of: &Descriptor| (of.index_id, of.dimension, of.query_model);
        (named(&self.descriptor) == named(descriptor)).then(|| Arc::clone(&self.query_model))
    }

    /// The query in the form that is encrypted: prepared for the metric, rotated, turned
    /// by the learned matrix, cut into padded sub-vectors. And the lists to look at, as
    /// many as asked for.
    pub(crate) fn prepare(
        &self,
        query: &[f32],
        probes: u32,
    ) -> Result<(Vec<f32>, Vec<u32>), ClientError> {
        let mut vector = Zeroizing::new(query.to_vec());
        self.descriptor.metric.prepare_query(&mut vector);
        let metric = self.descriptor.metric;
        let lists = self
            .rotation
            .apply(&mut vector)
            .and_then(|()| self.query_model.apply(&mut vector))
            .and_then(|()| self.query_model.probes(&vector, metric, probes as usize))
            .map_err(|error| ClientError::Encrypt(error.to_string()))?;
        Ok((self.subspaces.pad(&vector), lists))
    }
}

/// Fetches what is done to queries beside the rotation, where the descriptor names
/// something: it must be what the owner sealed.
async fn query_model(
    client: &mut SearcherClient<Channel>,
    descriptor: &Descriptor,
    config: &ClientConfig,
) -> Result<QueryModel, ClientError> {
    let Some(shape) = &descriptor.query_model else {
        return Ok(QueryModel::default());
    };
    let mut client = client
        .clone()
        .max_decoding_message_size(limits::MAX_QUERY_MODEL_MESSAGE_BYTES);
    let request = v1::QueryModelRequest {
        index_id: descriptor.index_id.to_vec().into(),
    };
    // It may have megabytes.
    let reply = within(limits::MAX_REQUEST_TIME, client.query_model(request)).await?;
    config
        .client_key
        .descriptor_key()
        .open_query_model(
            &descriptor.index_id,
            descriptor.dimension as usize,
            shape,
            &reply.query_model,
        )
        .map_err(|error| ClientError::Reply(error.to_string()))
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
