//! The owner has searcher and keeper make an index of vectors that neither sees.
//!
//! 1. The keeper opens a generation, whose session goes to the searcher as well
//!    ([`GenerationSession::begin`]).
//! 2. Shares of a training sample go to the keeper, its encryption to the searcher
//!    ([`shares`](GenerationSession::shares), [`sample`](GenerationSession::sample)); they
//!    train ([`train`](GenerationSession::train)).
//! 3. The owner's descriptor follows from what that gave
//!    ([`describe`](GenerationSession::describe)).
//! 4. Encrypted vectors and sealed records, segment by segment
//!    ([`encode`](GenerationSession::encode), [`segment`](GenerationSession::segment)).
//! 5. The index is made visible, and the keeper records it
//!    ([`commit`](GenerationSession::commit)).
//!
//! Every request is made again where a connection breaks or a role is busy; each may be
//! repeated. Whoever stops before step 5 has made nothing that anybody sees, and may begin
//! with the same plan again: [`begin`](GenerationSession::begin) tells what is there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oboro_attest::{AttestedRole, Verifier};
use oboro_channel::{Identity, Role, Trust};
use oboro_ckks::GenerationPlan;
use oboro_protocol::{
    generation::{
        self,
        v1::{
            self, generator_client::GeneratorClient,
            keeper_generation_client::KeeperGenerationClient,
        },
    },
    v1::keeper_client::KeeperClient,
    validate,
};
use tokio::task::JoinSet;
use tonic::{Response, Status, transport::Channel};

use crate::{
    ClientError, rotation,
    transport::{Peer, failure},
};

/// Requests that bring vectors and may be under way at the same time: one is encoded
/// while another one travels.
const IN_FLIGHT: usize = 3;

/// How often a request is made.
const ATTEMPTS: u32 = 6;

/// The first pause between two of them; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// How often the training is asked how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// What the owner needs to have an index made.
pub struct GenerationConfig {
    /// The searcher's `host:port`; it has no index yet.
    pub searcher: String,
    /// The keeper's `host:port`.
    pub keeper: String,
    /// The owner's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Appraises the evidence of searcher and keeper.
    pub verifier: Arc<dyn Verifier>,
    /// Longest time for connecting.
    pub connect_timeout: Duration,
}

/// How far a generation is when it is begun: what an interrupted one has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The roles have the whole sample, and train.
    pub training: bool,
    /// The training is over.
    pub trained: bool,
    /// Segments that are on disk, the first ones.
    pub segments: u32,
}

/// What a training gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// [`oboro_ckks::BatchScale::to_bytes`].
    pub batch_scale: Vec<u8>,
    /// [`oboro_ckks::TableScale::to_bytes`].
    pub table_scale: Vec<u8>,
    /// Digest of the encrypted codebook's masks.
    pub codebook_digest: [u8; 32],
    /// Mean score of the sample after each round.
    pub gains: Vec<f64>,
}

/// How far a training is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// Steps in all, 0 while that is unknown.
    pub steps: u32,
    /// What it gave, at its end.
    pub trained: Option<Trained>,
}

/// Everything of a segment but its codes, by position.
#[derive(Clone, Debug)]
pub struct SegmentParts {
    /// Its random id, which the records are bound to.
    pub segment_id: [u8; 16],
    /// Ids.
    pub ids: Vec<u64>,
    /// Tags; empty where the index has none.
    pub tags: Vec<u64>,
    /// Sealed originals.
    pub records: Vec<u8>,
}

/// What a generation made.
#[derive(Clone, Debug)]
pub struct GenerationReport {
    /// The index's generation.
    pub generation: u64,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
    /// Vectors in it.
    pub vectors: u64,
    /// Files and their bytes.
    pub files: Vec<(String, u64)>,
    /// The keeper could not be told yet; it is when the index is first served.
    pub unrecorded: bool,
}

/// Connections of the owner to a searcher without an index and to a keeper, both of which
/// have proved what they are.
pub struct GenerationSession {
    searcher: GeneratorClient<Channel>,
    keeper: KeeperGenerationClient<Channel>,
    /// Fingerprints of the keys that the keeper holds.
    keys: Vec<[u8; 32]>,
    session: Bytes,
    /// Batches on their way.
    encoding: JoinSet<Result<(), ClientError>>,
    simulated: bool,
    remarks: Vec<String>,
}

impl GenerationSession {
    /// Connects to both and appraises their evidence.
    ///
    /// # Errors
    /// When one cannot be reached or does not prove what it must.
    pub async fn connect(config: &GenerationConfig) -> Result<Self, ClientError> {
        let peer = |address| Peer {
            address,
            identity: &config.identity,
            trust: &config.trust,
            verifier: &config.verifier,
            timeout: config.connect_timeout,
        };
        let (searcher, searcher_is) = peer(&config.searcher)
            .connect(Role::Searcher, AttestedRole::Searcher)
            .await?;
        let (keeper, keeper_is) = peer(&config.keeper)
            .connect(Role::Keeper, AttestedRole::Keeper)
            .await?;
        let mut describing = KeeperClient::new(keeper.clone());
        let keys = rotation::keys(&mut describing, &keeper_is, config.connect_timeout).await?;
        let mut remarks = searcher_is.remarks.clone();
        remarks.extend(keeper_is.remarks.iter().cloned());
        remarks.dedup();
        Ok(Self {
            searcher: GeneratorClient::new(searcher)
                .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
                .max_encoding_message_size(generation::MAX_MESSAGE_BYTES),
            keeper: KeeperGenerationClient::new(keeper)
                .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
                .max_encoding_message_size(generation::MAX_MESSAGE_BYTES),
            keys,
            session: Bytes::new(),
            encoding: JoinSet::new(),
            simulated: searcher_is.is_simulated() || keeper_is.is_simulated(),
            remarks,
        })
    }

    /// Searcher or keeper run on the simulated platform, which protects nothing.
    #[must_use]
    pub const fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// What the policy accepted and people should know all the same.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Opens the generation at both, or goes on with one that was interrupted: whoever
    /// names the same plan is told what there is of it.
    ///
    /// # Errors
    /// When the keeper does not hold the key, or one of them refuses; so for all that
    /// follow. [`Reason::Conflict`](oboro_protocol::Reason::Conflict) says that the index
    /// is whole already.
    pub async fn begin(&mut self, generation: &GenerationPlan) -> Result<Standing, ClientError> {
        let fingerprint = generation.public_key.fingerprint();
        if !self.keys.contains(&fingerprint) {
            return Err(ClientError::ForeignKeeper);
        }
        let shape = v1::Shape {
            index_id: generation.index_id.to_vec().into(),
            batch_packing: generation.packing.to_bytes().to_vec().into(),
            split: generation.split,
            bounds: generation.bounds.to_bytes().to_vec().into(),
            rounds: generation.rounds,
            vectors: generation.vectors,
            segments: generation.segments,
        };
        let request = v1::KeeperBeginRequest {
            shape: Some(shape.clone()),
            key_fingerprint: fingerprint.to_vec().into(),
        };
        let keeper = &self.keeper;
        let reply = persist(|| {
            let (mut keeper, request) = (keeper.clone(), request.clone());
            async move { keeper.begin(request).await }
        })
        .await?;
        self.session = reply.session;
        let request = v1::GeneratorBeginRequest {
            session: self.session.clone(),
            shape: Some(shape),
            public_key: generation.public_key.to_bytes().into(),
            mask_seed: generation.mask_seed.as_bytes().to_vec().into(),
            training_seed: generation.training_seed.to_vec().into(),
            vector_norm: generation.vector_norm,
            query_norm: generation.query_norm,
            offsets: generation.offsets,
        };
        let searcher = &self.searcher;
        let reply = persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.begin(request).await }
        })
        .await?;
        Ok(Standing {
            training: reply.training,
            trained: reply.trained,
            segments: reply.segments,
        })
    }

    /// Brings the keeper its shares of the sample.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn shares(&self, shares: &[u8]) -> Result<(), ClientError> {
        let mut offset = 0;
        for piece in shares.chunks(generation::USUAL_PAYLOAD_BYTES) {
            self.shares_at(offset, Bytes::copy_from_slice(piece))
                .await?;
            // The searcher has no part in this, and gives up whom it does not hear.
            self.sample_at(0, Vec::new()).await?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    async fn shares_at(&self, offset: u64, shares: Bytes) -> Result<(), ClientError> {
        let request = v1::SharesRequest {
            session: self.session.clone(),
            offset,
            shares,
        };
        let keeper = &self.keeper;
        persist(|| {
            let (mut keeper, request) = (keeper.clone(), request.clone());
            async move { keeper.shares(request).await }
        })
        .await
        .map(drop)
    }

    /// Brings the searcher batches of the sample.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn sample(&self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), ClientError> {
        let batches = batches.into_iter().map(Bytes::from).collect();
        self.sample_at(first as u32, batches).await?;
        // Now it is the keeper that has no part.
        self.shares_at(0, Bytes::new()).await
    }

    async fn sample_at(&self, first: u32, batches: Vec<Bytes>) -> Result<(), ClientError> {
        let request = v1::SampleRequest {
            session: self.session.clone(),
            first,
            batches,
        };
        let searcher = &self.searcher;
        persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.sample(request).await }
        })
        .await
        .map(drop)
    }

    /// Starts the training, or waits a moment and looks how far it is.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and when the training failed; asked again, it starts
    /// again.
    pub async fn train(&self) -> Result<Progress, ClientError> {
        let request = v1::TrainRequest {
            session: self.session.clone(),
        };
        let searcher = &self.searcher;
        let reply = persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.train(request).await }
        })
        .await?;
        let Some(trained) = reply.trained else {
            tokio::time::sleep(LOOK).await;
            return Ok(Progress {
                done: reply.done,
                steps: reply.steps,
                trained: None,
            });
        };
        Ok(Progress {
            done: reply.steps,
            steps: reply.steps,
            trained: Some(Trained {
                batch_scale: trained.batch_scale.into(),
                table_scale: trained.table_scale.into(),
                codebook_digest: digest(&trained.codebook_digest, "digest of the codebook")?,
                gains: trained.gains,
            }),
        })
    }

    /// Brings the descriptor.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and when it is not of what was made.
    pub async fn describe(&self, descriptor: &[u8]) -> Result<(), ClientError> {
        let request = v1::DescribeRequest {
            session: self.session.clone(),
            descriptor: Bytes::copy_from_slice(descriptor),
        };
        let searcher = &self.searcher;
        persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.describe(request).await }
        })
        .await?;
        Ok(())
    }

    /// Has batches of a segment encoded. Returns as soon as it can take more; errors of
    /// batches under way come with a later call.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn encode(
        &mut self,
        segment: u32,
        first: usize,
        batches: Vec<Vec<u8>>,
    ) -> Result<(), ClientError> {
        while self.encoding.len() >= IN_FLIGHT {
            self.encoded().await?;
        }
        let request = v1::EncodeRequest {
            session: self.session.clone(),
            segment,
            first: first as u32,
            batches: batches.into_iter().map(Bytes::from).collect(),
        };
        let searcher = self.searcher.clone();
        self.encoding.spawn(async move {
            persist(|| {
                let (mut searcher, request) = (searcher.clone(), request.clone());
                async move { searcher.encode(request).await }
            })
            .await
            .map(drop)
        });
        Ok(())
    }

    /// Waits for one request that encodes.
    async fn encoded(&mut self) -> Result<(), ClientError> {
        match self.encoding.join_next().await {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(ClientError::System(error.to_string())),
        }
    }

    /// Completes a segment: waits until all batches are encoded, then has it written.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn segment(&mut self, number: u32, parts: SegmentParts) -> Result<(), ClientError> {
        while !self.encoding.is_empty() {
            self.encoded().await?;
        }
        let request = v1::SegmentRequest {
            session: self.session.clone(),
            segment: number,
            segment_id: parts.segment_id.to_vec().into(),
            ids: parts.ids,
            tags: parts.tags,
            records: parts.records.into(),
        };
        let searcher = &self.searcher;
        persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.segment(request).await }
        })
        .await?;
        Ok(())
    }

    /// Makes the index visible.
    ///
    /// # Errors
    /// As [`begin`](Self::begin). When the connection breaks, the index was made whole or
    /// not at all.
    pub async fn commit(&mut self) -> Result<GenerationReport, ClientError> {
        let request = v1::CommitRequest {
            session: self.session.clone(),
        };
        let searcher = &self.searcher;
        let reply = persist(|| {
            let (mut searcher, request) = (searcher.clone(), request.clone());
            async move { searcher.commit(request).await }
        })
        .await?;
        let report = GenerationReport {
            generation: reply.generation,
            manifest_digest: digest(&reply.manifest_digest, "digest of the manifest")?,
            vectors: reply.vectors,
            files: reply
                .files
                .into_iter()
                .map(|file| (file.name, file.bytes))
                .collect(),
            unrecorded: reply.unrecorded,
        };
        // What the keeper holds it would forget by itself.
        let _ = self.end().await;
        Ok(report)
    }

    async fn end(&self) -> Result<(), ClientError> {
        let request = v1::EndRequest {
            session: self.session.clone(),
        };
        let limit = Duration::from_secs(5);
        crate::transport::within(limit, self.keeper.clone().end(request))
            .await
            .map(drop)
    }

    /// Gives the generation up, as far as that can still be told.
    pub async fn abort(&mut self) {
        self.encoding.abort_all();
        if self.session.is_empty() {
            return;
        }
        let request = v1::AbortRequest {
            session: self.session.clone(),
        };
        let limit = Duration::from_secs(5);
        let _ = crate::transport::within(limit, self.searcher.clone().abort(request)).await;
        let _ = self.end().await;
    }
}

fn digest(bytes: &[u8], what: &str) -> Result<[u8; 32], ClientError> {
    validate::digest(bytes, what).map_err(|failure| ClientError::Reply(failure.message))
}

/// Makes a request until it is answered.
pub(crate) async fn persist<T, Answer>(ask: impl Fn() -> Answer) -> Result<T, ClientError>
where
    Answer: Future<Output = Result<Response<T>, Status>>,
{
    let limit = generation::MAX_REQUEST_TIME;
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        let status = match oboro_channel::within(limit, ask()).await {
            Ok(reply) => return Ok(reply),
            Err(status) => status,
        };
        let error = failure(&status, limit);
        let passing = match error.reason() {
            Some(reason) => reason.is_transient(),
            None => matches!(error, ClientError::Broken(_)),
        };
        if !passing || attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}
