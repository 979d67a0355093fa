//! Where changes of an index go: into its folder, or to the searcher that serves it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use oboro_channel::Role;
use oboro_client::ClientError;
use oboro_client::blind::BlindWriter;
use oboro_client::writer::{Change, StageToken, Writer, WriterConfig};
use oboro_index::{
    CompactionPolicy, Index, IndexError, LiveIndex, NewSegment, OnExisting, OwnerKey, Throttle,
    WriterKey,
};
use oboro_owner::{
    BlindEncoder, Changed, EncodedSegment, Encoder, Encodes, FolderTarget, InsertOptions,
    InsertReport, OwnerError, Target, VectorSource, delete, insert,
};
use oboro_protocol::Reason;
use oboro_server::policy::PolicyOptions;
use tokio::runtime::Runtime;

use crate::failure::{Failure, Outcome};
use crate::keys::{self, Folder, OWNER_KEY};
use crate::or_failure::{IntoFailure, OrFailure};
use crate::output;
use crate::passphrase::KeyPassphrase;
use crate::roles;
use crate::with_simulated::WithSimulated;

/// The key of clients that may change indexes.
pub(crate) const WRITER_KEY: &str = "writer.key";

/// Longest time for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// Which index, and with whose keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Folder of an index that nobody serves now
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    pub(crate) index: Option<PathBuf>,
    /// Address of the searcher that serves the index
    #[arg(long, value_name = "ADDRESS", required_unless_present = "index")]
    pub(crate) connect: Option<String>,
    /// Keys of the owner, or of a client that `oboro grant --access writer` made a folder for
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Connect to a searcher that no hardware protects
    #[arg(long)]
    pub(crate) allow_simulated: bool,
}

/// An index that can be changed.
pub(crate) enum Opened {
    /// The only writer of a folder.
    Folder(Box<LiveIndex>),
    /// A connection to a searcher.
    Served(Box<Served>),
}

/// A searcher that takes changes.
pub(crate) struct Served {
    runtime: Runtime,
    writer: Writer,
    config: WriterConfig,
    /// Where the index was made blindly.
    blind: Option<BlindWriter>,
    /// The keeper could not be told of the newest state.
    unrecorded: bool,
}

/// What merging did.
pub(crate) struct Merged {
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) dropped: u64,
    pub(crate) generation: u64,
}

impl Place {
    /// The options for a searcher on this machine, for `bench`.
    pub(crate) fn local(address: &str, keys: &Path) -> Self {
        Self {
            index: None,
            connect: Some(address.to_owned()),
            keys: keys.to_owned(),
            passphrase: KeyPassphrase::default(),
            policy: PolicyOptions::default(),
            allow_simulated: true,
        }
    }

    /// Opens the folder, which nobody else may write to then, or connects.
    pub(crate) fn open(&self) -> Outcome<(Opened, WriterKey)> {
        match (&self.index, &self.connect) {
            (Some(index), _) => self.open_folder(index),
            (None, Some(address)) => self.connect_to(address),
            (None, None) => Err(Failure::usage(
                "say which index: --index DIR for one that nobody serves, --connect ADDRESS for one that is served",
            )),
        }
    }

    fn open_folder(&self, index: &Path) -> Outcome<(Opened, WriterKey)> {
        roles::check_index(index)?;
        let Some((_, key)) = self.owner()? else {
            return Err(Failure::input(format_args!(
                "{} holds no {OWNER_KEY}, which a folder is changed with; give the owner's keys with --keys, or change the index at its searcher with --connect",
                self.keys.display()
            )));
        };
        let head = Index::peek(index)?;
        let epoch = key.epoch_key(&head.index_id, head.epoch, head.released);
        let live = LiveIndex::open(index, epoch).map_err(|error| match error {
            IndexError::Locked { .. } => Failure::refused(format_args!(
                "{error}; if that is a searcher, change the index there with --connect"
            )),
            error => error.into(),
        })?;
        Ok((Opened::Folder(Box::new(live)), key.writer_key()))
    }

    fn connect_to(&self, address: &str) -> Outcome<(Opened, WriterKey)> {
        let (folder, key) = match self.owner()? {
            Some((folder, key)) => (folder, key.writer_key()),
            None => {
                let folder = Folder::of(&self.keys, Role::Client)?;
                let path = folder.path().join(WRITER_KEY);
                if !path.is_file() {
                    return Err(Failure::input(format_args!(
                        "{} holds neither {OWNER_KEY} nor {WRITER_KEY}; have the owner make a folder with `oboro grant NAME --access writer`",
                        folder.path().display()
                    )));
                }
                (folder, WriterKey::read(path)?)
            }
        };
        let runtime = roles::runtime(1)?;
        let config = WriterConfig {
            address: address.to_owned(),
            identity: folder.identity()?,
            trust: folder.trust()?,
            descriptor_key: key.descriptor_key(),
            verifier: self
                .policy
                .verifier(&WithSimulated::new(self.allow_simulated))?,
            connect_timeout: CONNECT,
        };
        let writer = runtime.block_on(Writer::connect(&config)).or_failure()?;
        if writer.is_simulated() {
            eprintln!("{}", output::SIMULATED);
        } else {
            for remark in writer.remarks() {
                eprintln!("note: {remark}");
            }
        }
        let served = Served {
            runtime,
            writer,
            config,
            blind: None,
            unrecorded: false,
        };
        Ok((Opened::Served(Box::new(served)), key))
    }

    /// The owner's folder and key, if these are the owner's keys.
    fn owner(&self) -> Outcome<Option<(Folder, OwnerKey)>> {
        let own = [
            self.keys.join(Role::Owner.name()).join(OWNER_KEY),
            self.keys.join(OWNER_KEY),
        ];
        if !own.iter().any(|path| path.is_file()) {
            return Ok(None);
        }
        let folder = Folder::of(&self.keys, Role::Owner)?;
        let key = self.passphrase.owner_key(&folder)?;
        Ok(Some((folder, key)))
    }
}

impl Opened {
    /// What encodes new vectors: the owner's model, or where an index was made blindly,
    /// searcher and keeper.
    pub(crate) fn encoder(&mut self, key: WriterKey) -> Outcome<Box<dyn Encodes>> {
        match self {
            Self::Folder(live) => {
                let index = live.index();
                let model = index.model_bytes().ok_or_else(|| {
                    Failure::input("this index was made blindly and nobody has its model, so searcher and keeper encode new vectors; serve it and insert with --connect")
                })?;
                Ok(Box::new(
                    Encoder::open(key, model, index.descriptor()).or_failure()?,
                ))
            }
            Self::Served(served) => served.encoder(key),
        }
    }

    /// Segments, vectors that are deleted and still on disk.
    pub(crate) fn state(&self) -> Outcome<(u64, u64)> {
        match self {
            Self::Folder(live) => {
                let segments = live.index().segments();
                let deleted = segments.iter().map(|s| u64::from(s.deleted())).sum();
                Ok((segments.len() as u64, deleted))
            }
            Self::Served(served) => {
                let status = served
                    .runtime
                    .block_on(served.writer.status())
                    .or_failure()?;
                Ok((u64::from(status.segments), status.deleted))
            }
        }
    }

    /// Inserts what a source gives.
    pub(crate) fn insert(
        &mut self,
        encoder: &dyn Encodes,
        source: &mut dyn VectorSource,
        options: &InsertOptions<'_>,
        failure: impl Fn(OwnerError) -> Failure,
    ) -> Outcome<InsertReport> {
        let mut rng = keys::os_rng()?;
        match self {
            Self::Folder(live) => {
                let mut target = FolderTarget::new(live, keys::os_rng()?);
                insert(encoder, source, &mut target, options, &mut rng).map_err(failure)
            }
            Self::Served(served) => insert(encoder, source, &mut **served, options, &mut rng)
                .map_err(|error| match error {
                    ChangeError::Owner(error) => failure(error),
                    ChangeError::Client(error) => error.into_failure(),
                }),
        }
    }

    /// Deletes ids.
    pub(crate) fn delete(&mut self, ids: &[u64], strict: bool) -> Outcome<Changed> {
        match self {
            Self::Folder(live) => {
                let mut target = FolderTarget::new(live, keys::os_rng()?);
                delete(&mut target, ids, strict).or_failure()
            }
            Self::Served(served) => delete(&mut **served, ids, strict).or_failure(),
        }
    }

    /// Merges segments until `policy` has nothing to merge. A searcher merges everything,
    /// and by itself what the usual policy says.
    pub(crate) fn compact(
        &mut self,
        policy: &CompactionPolicy,
        cancel: &AtomicBool,
    ) -> Outcome<Merged> {
        let live = match self {
            Self::Folder(live) => live,
            Self::Served(served) => {
                let report = served
                    .runtime
                    .block_on(served.writer.compact())
                    .or_failure()?;
                return Ok(Merged {
                    before: u64::from(report.segments_before),
                    after: u64::from(report.segments_after),
                    dropped: report.dropped,
                    generation: report.generation,
                });
            }
        };
        let mut rng = keys::os_rng()?;
        let before = live.index().segments().len() as u64;
        let mut dropped = 0;
        while let Some(plan) = live.compaction(policy) {
            dropped += plan.dropped();
            let done =
                plan.run(&Throttle::NONE, cancel, &mut rng)
                    .map_err(|error| match error {
                        // Nothing is wrong with the index.
                        IndexError::Cancelled => Failure::failed(error),
                        error => error.into(),
                    })?;
            live.commit_compaction(done, &mut rng)?;
        }
        Ok(Merged {
            before,
            after: live.index().segments().len() as u64,
            dropped,
            generation: live.index().head().generation,
        })
    }

    /// Whether the keeper could not be told of the newest state.
    pub(crate) const fn unrecorded(&self) -> bool {
        match self {
            // It is told when a searcher serves the index next.
            Self::Folder(_) => false,
            Self::Served(served) => served.unrecorded,
        }
    }
}

impl Served {
    fn encoder(&mut self, key: WriterKey) -> Outcome<Box<dyn Encodes>> {
        let descriptor = self.writer.descriptor();
        match self.runtime.block_on(self.writer.model()) {
            Ok(model) => Ok(Box::new(
                Encoder::open(key, &model, descriptor).or_failure()?,
            )),
            // There is no model.
            Err(error) if error.reason() == Some(Reason::BadRequest) => {
                let connecting = BlindWriter::connect(&self.config, descriptor.index_id);
                let blind = self.runtime.block_on(connecting).or_failure()?;
                let encoder = BlindEncoder::new(key, blind.scale(), descriptor).or_failure()?;
                self.blind = Some(blind);
                Ok(Box::new(encoder))
            }
            Err(error) => Err(error.into_failure()),
        }
    }

    /// The codes of a segment whose vectors come encrypted.
    fn codes(&self, segment: &EncodedSegment) -> Result<Option<Vec<u8>>, ChangeError> {
        let Some(blind) = &self.blind else {
            return Ok(None);
        };
        let width = self.writer.descriptor().subquantizers();
        let encoding = blind.encode(&segment.batches, segment.ids.len(), width);
        let codes = self.runtime.block_on(encoding);
        codes.map(Some).map_err(ChangeError::Client)
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
        let encoded = self.codes(segment)?;
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
            .map_err(ChangeError::Client)?;
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
}
