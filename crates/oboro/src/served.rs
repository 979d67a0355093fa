//! Changes that go to the searcher that serves an index.

use chacha20::ChaCha20Rng;
use oboro_client::ClientError;
use oboro_client::blind::BlindWriter;
use oboro_client::writer::{Change, StageToken, Writer, WriterConfig};
use oboro_index::{NewSegment, OnExisting, WriterKey};
use oboro_owner::{
    BlindEncoder, BlindEncryptor, Changed, EncodedSegment, Encoder, Encodes, OwnerError, Target,
    Unencoded,
};
use oboro_protocol::Reason;
use rayon::ThreadPool;
use tokio::runtime::Runtime;

use crate::failure::{Failure, Outcome};
use crate::keys;
use crate::or_failure::{IntoFailure, OrFailure};
use crate::place::{Merged, Standing};

/// A searcher that takes changes.
pub(crate) struct Served {
    runtime: Runtime,
    writer: Writer,
    config: WriterConfig,
    /// Where the index was made blindly.
    blind: Option<Blind>,
    /// The keeper could not be told of the newest state.
    unrecorded: bool,
}

/// What has searcher and keeper encode vectors.
struct Blind {
    writer: BlindWriter,
    encryptor: BlindEncryptor,
    rng: ChaCha20Rng,
    /// For encrypting; all cores where nothing else is asked for.
    pool: Option<ThreadPool>,
}

impl Served {
    pub(crate) const fn new(runtime: Runtime, writer: Writer, config: WriterConfig) -> Self {
        Self {
            runtime,
            writer,
            config,
            blind: None,
            unrecorded: false,
        }
    }

    /// What encodes new vectors: the owner's model, or searcher and keeper.
    pub(crate) fn encoder(&mut self, key: WriterKey) -> Outcome<Box<dyn Encodes>> {
        let descriptor = self.writer.descriptor();
        match self.runtime.block_on(self.writer.model()) {
            Ok(model) => Ok(Box::new(
                Encoder::open(key, &model, descriptor).or_failure()?,
            )),
            // There is no model.
            Err(error) if error.reason() == Some(Reason::BadRequest) => {
                let encoder = BlindEncoder::new(key, descriptor).or_failure()?;
                let (writer, encryptor) = self.encryptor(&self.writer).or_failure()?;
                self.blind = Some(Blind {
                    writer,
                    encryptor,
                    rng: keys::os_rng()?,
                    pool: None,
                });
                Ok(Box::new(encoder))
            }
            Err(error) => Err(error.into_failure()),
        }
    }

    /// Encrypts with so many threads.
    pub(crate) fn encrypt_with(&mut self, threads: Option<usize>) -> Outcome<()> {
        if let (Some(blind), Some(threads)) = (&mut self.blind, threads) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            blind.pool = Some(pool.map_err(Failure::failed)?);
        }
        Ok(())
    }

    /// How it stands now.
    pub(crate) fn state(&self) -> Outcome<Standing> {
        let status = self.runtime.block_on(self.writer.status()).or_failure()?;
        Ok(Standing {
            vectors: status.vectors,
            segments: u64::from(status.segments),
            deleted: status.deleted,
            generation: status.generation,
        })
    }

    /// Has everything merged.
    pub(crate) fn compact(&self) -> Outcome<Merged> {
        let report = self.runtime.block_on(self.writer.compact()).or_failure()?;
        Ok(Merged {
            before: u64::from(report.segments_before),
            after: u64::from(report.segments_after),
            dropped: report.dropped,
            generation: report.generation,
            // A searcher goes on by itself, and does not say so here.
            resumed: None,
        })
    }

    /// Whether the keeper could not be told of the newest state.
    pub(crate) const fn is_unrecorded(&self) -> bool {
        self.unrecorded
    }

    /// A connection for blind encoding, and what encrypts for the epoch of `writer`.
    fn encryptor(&self, writer: &Writer) -> Result<(BlindWriter, BlindEncryptor), ChangeError> {
        let descriptor = writer.descriptor();
        let connecting = BlindWriter::connect(&self.config, descriptor.index_id);
        let blind = self
            .runtime
            .block_on(connecting)
            .map_err(ChangeError::Client)?;
        let encryptor = BlindEncryptor::new(blind.scale(), descriptor)?;
        Ok((blind, encryptor))
    }

    /// The codes of a segment whose vectors searcher and keeper encode.
    fn codes(&mut self, vectors: &Unencoded, count: usize) -> Result<Vec<u8>, ChangeError> {
        let width = self.writer.descriptor().subquantizers();
        loop {
            let Some(blind) = &mut self.blind else {
                return Err(OwnerError::Roles(
                    "vectors are to be encoded blindly for an index that has a model".to_owned(),
                )
                .into());
            };
            let Blind {
                encryptor,
                rng,
                pool,
                ..
            } = blind;
            let batches = match pool {
                Some(pool) => pool.install(|| encryptor.encrypt(vectors, rng)),
                None => encryptor.encrypt(vectors, rng),
            }?;
            let encoding = blind
                .writer
                .encode(blind.encryptor.epoch(), &batches, count, width);
            match self.runtime.block_on(encoding) {
                Err(error) if error.reason() == Some(Reason::WrongEpoch) => {
                    self.move_over(error)?
                }
                result => return result.map_err(ChangeError::Client),
            }
        }
    }

    /// The key of the index was rotated, which `error` says: from now on vectors are
    /// encrypted under the one that is in use. Never back to one before.
    fn move_over(&mut self, error: ClientError) -> Result<(), ChangeError> {
        let writer = self
            .runtime
            .block_on(Writer::connect(&self.config))
            .map_err(ChangeError::Client)?;
        let (before, now) = (self.writer.descriptor(), writer.descriptor());
        if now.index_id != before.index_id || now.epoch <= before.epoch {
            return Err(ChangeError::Client(error));
        }
        let (connection, encryptor) = self.encryptor(&writer)?;
        if let Some(blind) = &mut self.blind {
            blind.writer = connection;
            blind.encryptor = encryptor;
        }
        self.writer = writer;
        Ok(())
    }
}

/// What can go wrong with a change at a searcher.
pub(crate) enum ChangeError {
    Owner(OwnerError),
    Client(ClientError),
}

impl From<OwnerError> for ChangeError {
    fn from(error: OwnerError) -> Self {
        Self::Owner(error)
    }
}

impl IntoFailure for ChangeError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Owner(error) => error.into_failure(),
            Self::Client(error) => error.into_failure(),
        }
    }
}

impl Target for Served {
    type Stage = StageToken;
    type Error = ChangeError;

    fn stage(&mut self, segment: &EncodedSegment) -> Result<StageToken, ChangeError> {
        let encoded = match &segment.unencoded {
            Some(vectors) => Some(self.codes(vectors, segment.len())?),
            None => None,
        };
        let segment = NewSegment {
            segment_id: segment.segment_id,
            ids: &segment.ids,
            codes: encoded.as_ref().unwrap_or(&segment.codes),
            tags: &segment.tags,
            lists: &segment.lists,
            records: &segment.records,
        };
        self.runtime
            .block_on(self.writer.stage(&segment))
            .map_err(ChangeError::Client)
    }

    fn commit(
        &mut self,
        stages: Vec<StageToken>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<Changed, ChangeError> {
        let change = Change {
            stages,
            deletes,
            on_existing,
            strict,
        };
        let report = self
            .runtime
            .block_on(self.writer.commit(change))
            .map_err(|error| ChangeError::Client(explained(error, strict)))?;
        self.unrecorded = report.unrecorded;
        Ok(Changed {
            inserted: report.inserted,
            replaced: report.replaced,
            refused: report.refused,
            deleted: report.deleted,
            unknown: report.unknown,
            vectors: report.vectors,
            generation: report.generation,
        })
    }

    fn is_unstaged(&self, error: &ChangeError) -> bool {
        matches!(error, ChangeError::Client(error) if error.reason() == Some(Reason::UnknownSession))
    }
}

/// A strict change is brought in many pieces, which are not at hand to be brought again.
fn explained(error: ClientError, strict: bool) -> ClientError {
    match error.reason() {
        Some(reason @ Reason::UnknownSession) if strict => ClientError::Refused {
            reason,
            message: "what was brought is there no more, since the key of the index was rotated meanwhile or it waited too long; nothing was changed, so do it again".to_owned(),
        },
        _ => error,
    }
}
