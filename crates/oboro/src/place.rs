//! Where changes of an index go: into its folder, or to the searcher that serves it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use oboro_channel::Role;
use oboro_client::writer::WriterConfig;
use oboro_index::{CompactionPolicy, Index, IndexError, LiveIndex, OwnerKey, Throttle, WriterKey};
use oboro_owner::{
    Changed, Encoder, Encodes, FolderTarget, InsertOptions, InsertReport, OwnerError, VectorSource,
    delete, insert,
};
use oboro_server::policy::PolicyOptions;
use oboro_session::{ServedIndex, SessionError};
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

/// A searcher that takes changes, and the threads of the connection.
pub(crate) struct Served {
    index: ServedIndex,
    _runtime: Runtime,
}

/// How an index stands.
pub(crate) struct Standing {
    /// Vectors that can be found.
    pub(crate) vectors: u64,
    pub(crate) segments: u64,
    /// Vectors that are deleted and still on disk.
    pub(crate) deleted: u64,
    pub(crate) generation: u64,
}

/// What merging did.
pub(crate) struct Merged {
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) dropped: u64,
    pub(crate) generation: u64,
    /// Bytes of originals with which a merge went on that was stopped, and of how many.
    pub(crate) resumed: Option<(u64, u64)>,
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
        let index = ServedIndex::connect(config, runtime.handle().clone()).or_failure()?;
        let writer = index.writer();
        if writer.is_simulated() {
            eprintln!("{}", output::SIMULATED);
        } else {
            for remark in writer.remarks() {
                eprintln!("note: {remark}");
            }
        }
        let served = Served {
            index,
            _runtime: runtime,
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
            Self::Served(served) => served.index.encoder(key, keys::os_rng()?).or_failure(),
        }
    }

    /// How it stands now.
    pub(crate) fn state(&self) -> Outcome<Standing> {
        match self {
            Self::Folder(live) => {
                let index = live.index();
                let segments = index.segments();
                Ok(Standing {
                    vectors: index.vectors(),
                    segments: segments.len() as u64,
                    deleted: segments.iter().map(|s| u64::from(s.deleted())).sum(),
                    generation: index.head().generation,
                })
            }
            Self::Served(served) => {
                let status = served.index.status().or_failure()?;
                Ok(Standing {
                    vectors: status.vectors,
                    segments: u64::from(status.segments),
                    deleted: status.deleted,
                    generation: status.generation,
                })
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
            Self::Served(served) => {
                let index = &mut served.index;
                if let Some(threads) = options.threads {
                    index.encrypt_with(threads).or_failure()?;
                }
                insert(encoder, source, index, options, &mut rng).map_err(|error| match error {
                    SessionError::Owner(error) => failure(error),
                    SessionError::Client(error) => error.into_failure(),
                })
            }
        }
    }

    /// Deletes ids.
    pub(crate) fn delete(&mut self, ids: &[u64], strict: bool) -> Outcome<Changed> {
        match self {
            Self::Folder(live) => {
                let mut target = FolderTarget::new(live, keys::os_rng()?);
                delete(&mut target, ids, strict).or_failure()
            }
            Self::Served(served) => delete(&mut served.index, ids, strict).or_failure(),
        }
    }

    /// Merges segments until `policy` has nothing to merge. A searcher merges everything,
    /// and by itself what the usual policy says. `bar` shows bytes of originals.
    pub(crate) fn compact(
        &mut self,
        policy: &CompactionPolicy,
        cancel: &AtomicBool,
        bar: &ProgressBar,
    ) -> Outcome<Merged> {
        let live = match self {
            Self::Folder(live) => live,
            Self::Served(served) => {
                let report = served.index.compact().or_failure()?;
                return Ok(Merged {
                    before: u64::from(report.segments_before),
                    after: u64::from(report.segments_after),
                    dropped: report.dropped,
                    generation: report.generation,
                    // A searcher goes on by itself, and does not say so here.
                    resumed: None,
                });
            }
        };
        let mut rng = keys::os_rng()?;
        let before = live.index().segments().len() as u64;
        let (mut dropped, mut resumed) = (0, None);
        while let Some(plan) = live.compaction(policy) {
            dropped += plan.dropped();
            let bytes = plan.bytes();
            bar.set_length(bytes);
            let written = bar.clone();
            let plan = plan.observed(move |bytes| written.set_position(bytes));
            let done =
                plan.run(&Throttle::NONE, cancel, &mut rng)
                    .map_err(|error| match error {
                        // Nothing is wrong with the index.
                        IndexError::Cancelled { .. } => Failure::failed(error),
                        error => error.into(),
                    })?;
            if done.resumed_bytes() > 0 {
                resumed = Some((done.resumed_bytes(), bytes));
            }
            live.commit_compaction(done, &mut rng)?;
        }
        Ok(Merged {
            before,
            after: live.index().segments().len() as u64,
            dropped,
            generation: live.index().head().generation,
            resumed,
        })
    }

    /// Whether the keeper could not be told of the newest state.
    pub(crate) const fn unrecorded(&self) -> bool {
        match self {
            // It is told when a searcher serves the index next.
            Self::Folder(_) => false,
            Self::Served(served) => served.index.is_unrecorded(),
        }
    }
}
