//! Changes of an index that a searcher serves.

use chacha20::ChaCha20Rng;
use oboro_client::ClientError;
use oboro_client::blind::BlindWriter;
use oboro_client::writer::{
    Change, CompactionReport, StageToken, Writer, WriterConfig, WriterStatus,
};
use oboro_index::{NewSegment, OnExisting, WriterKey};
use oboro_owner::{
    BlindEncoder, BlindEncryptor, Changed, EncodedSegment, Encoder, Encodes, OwnerError, Target,
    Unencoded,
};
use oboro_protocol::Reason;
use rayon::ThreadPool;
use tokio::runtime::Handle;

use crate::SessionError;

/// A searcher that serves an index and takes changes.
///
/// ```no_run
/// use oboro_client::writer::WriterConfig;
/// use oboro_owner::{Ids, InsertOptions, Rows, delete, insert};
/// use oboro_session::ServedIndex;
///
/// # fn change(
/// #     config: WriterConfig,
/// #     key: oboro_index::WriterKey,
/// #     values: &[f32],
/// #     (mut rng, of_batches): (chacha20::ChaCha20Rng, chacha20::ChaCha20Rng),
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// // In `config` are the address, a writer's certificate, and who is trusted.
/// let runtime = tokio::runtime::Runtime::new()?;
/// let mut index = ServedIndex::connect(config, runtime.handle().clone())?;
/// let encoder = index.encoder(key, of_batches)?;
///
/// let ids = (1_000..1_010).collect();
/// let mut source = Rows::new(values, 128)?.with_ids(Ids::Numbers(ids))?;
/// let options = InsertOptions::default();
/// let report = insert(&*encoder, &mut source, &mut index, &options, &mut rng)?;
/// println!("{} inserted", report.changed.inserted);
/// let changed = delete(&mut index, &[1_003, 1_004], false)?;
/// println!("{} deleted, {} left", changed.deleted, changed.vectors);
/// # Ok(())
/// # }
/// ```
pub struct ServedIndex {
    runtime: Handle,
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

impl ServedIndex {
    /// Connects, appraises the searcher's evidence, checks the descriptor of the index.
    ///
    /// # Errors
    /// When the searcher cannot be reached or does not prove what it must, or the
    /// descriptor is not the owner's; so for all that follow.
    pub fn connect(config: WriterConfig, runtime: Handle) -> Result<Self, SessionError> {
        let writer = runtime.block_on(Writer::connect(&config))?;
        Ok(Self {
            runtime,
            writer,
            config,
            blind: None,
            unrecorded: false,
        })
    }

    /// The connection.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// What encodes new vectors: the owner's model, or where the index was made blindly,
    /// searcher and keeper.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), or when the model is not of this index and key.
    ///
    /// # Security
    /// In a blindly made index, vectors are encrypted with randomness of `rng`, which must be
    /// fresh.
    pub fn encoder(
        &mut self,
        key: WriterKey,
        rng: ChaCha20Rng,
    ) -> Result<Box<dyn Encodes>, SessionError> {
        let descriptor = self.writer.descriptor();
        match self.runtime.block_on(self.writer.model()) {
            Ok(model) => Ok(Box::new(Encoder::open(key, &model, descriptor)?)),
            // There is no model.
            Err(error) if error.reason() == Some(Reason::BadRequest) => {
                let encoder = BlindEncoder::new(key, descriptor)?;
                let (writer, encryptor) = self.encryptor(&self.writer)?;
                self.blind = Some(Blind {
                    writer,
                    encryptor,
                    rng,
                    pool: None,
                });
                Ok(Box::new(encoder))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// From now on encrypts with so many threads, where the index was made blindly; with all
    /// cores when this is not called.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn encrypt_with(&mut self, threads: usize) -> Result<(), SessionError> {
        if let Some(blind) = &mut self.blind {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            blind.pool = Some(pool.map_err(|_| OwnerError::Threads { threads })?);
        }
        Ok(())
    }

    /// How the index stands now.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn status(&self) -> Result<WriterStatus, SessionError> {
        Ok(self.runtime.block_on(self.writer.status())?)
    }

    /// Has all segments merged.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn compact(&self) -> Result<CompactionReport, SessionError> {
        Ok(self.runtime.block_on(self.writer.compact())?)
    }

    /// Whether the keeper could not be told of the state that the last commit made: until it
    /// is, nobody would notice an older copy of the index.
    #[must_use]
    pub const fn is_unrecorded(&self) -> bool {
        self.unrecorded
    }

    /// A connection for blind encoding, and what encrypts for the epoch of `writer`.
    fn encryptor(&self, writer: &Writer) -> Result<(BlindWriter, BlindEncryptor), SessionError> {
        let descriptor = writer.descriptor();
        let connecting = BlindWriter::connect(&self.config, descriptor.index_id);
        let blind = self.runtime.block_on(connecting)?;
        let encryptor = BlindEncryptor::new(blind.scale(), descriptor)?;
        Ok((blind, encryptor))
    }

    /// The codes of a segment whose vectors searcher and keeper encode.
    fn codes(&mut self, vectors: &Unencoded, count: usize) -> Result<Vec<u8>, SessionError> {
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
                result => return Ok(result?),
            }
        }
    }

    /// The key of the index was rotated, which `error` says: from now on vectors are
    /// encrypted under the one that is in use. Never back to one before.
    fn move_over(&mut self, error: ClientError) -> Result<(), SessionError> {
        let writer = self.runtime.block_on(Writer::connect(&self.config))?;
        let (before, now) = (self.writer.descriptor(), writer.descriptor());
        if now.index_id != before.index_id || now.epoch <= before.epoch {
            return Err(error.into());
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

impl Target for ServedIndex {
    type Stage = StageToken;
    type Error = SessionError;

    fn stage(&mut self, segment: &EncodedSegment) -> Result<StageToken, SessionError> {
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
        Ok(self.runtime.block_on(self.writer.stage(&segment))?)
    }

    fn commit(
        &mut self,
        stages: Vec<StageToken>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<Changed, SessionError> {
        let change = Change {
            stages,
            deletes,
            on_existing,
            strict,
        };
        let report = self
            .runtime
            .block_on(self.writer.commit(change))
            .map_err(|error| explained(error, strict))?;
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

    fn is_unstaged(&self, error: &SessionError) -> bool {
        error.reason() == Some(Reason::UnknownSession)
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
