//! Why a keeper does not start or stops.

use oboro_telemetry::TelemetryError;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// Secret and public key are not of one pair.
    #[error(
        "the secret key ({secret}) and the public key ({public}) are not of one pair; use the two files that one `oboro keygen` wrote"
    )]
    KeyMismatch {
        /// Set of the secret key.
        secret: &'static str,
        /// Set of the public key.
        public: &'static str,
    },
    /// The identity names another role.
    #[error("the identity is a {0}'s; a keeper needs one issued for the keeper role")]
    Role(&'static str),
    /// There is no state.
    #[error("{0} holds no keeper's state; begin one there, or name the folder that holds it")]
    StateMissing(PathBuf),
    /// There is a state already.
    #[error("{0} holds a keeper's state already; it is never overwritten")]
    StateExists(PathBuf),
    /// Another keeper runs on the same state.
    #[error(
        "another keeper runs on the state in {0}; stop it, or give each keeper a folder of its own"
    )]
    StateLocked(PathBuf),
    /// The state does not open.
    #[error(
        "the keeper's state does not open: it was altered, or sealed under other keys or by another program"
    )]
    StateForeign,
    /// The state is damaged or of another version.
    #[error("the keeper's state cannot be read: {0}")]
    StateFormat(&'static str),
    /// The state is an older copy.
    #[error(
        "the keeper's state is write {written}, but its counter stands at {counter}: somebody put back an older copy; put back the newest one"
    )]
    RolledBack {
        /// The state's write number.
        written: u64,
        /// The counter's value.
        counter: u64,
    },
    /// A state that was begun with a counter.
    #[error(
        "the keeper's state was begun with a counter that tells old copies, and does not open without; name the TPM that holds it"
    )]
    CounterMissing,
    /// A state that was begun without a counter.
    #[error(
        "the keeper's state was begun without a counter, and no counter can tell its old copies any more; open it without, or begin a new state with it"
    )]
    CounterUnknown,
    /// The counter is not the one that the state was written with.
    #[error(
        "the keeper's state is write {written}, but {place} stands at {counter} only: it is another counter than the state's; use the one it was begun with"
    )]
    AnotherCounter {
        /// The state's write number.
        written: u64,
        /// The counter's value.
        counter: u64,
        /// What and where the counter is.
        place: String,
    },
    /// Somebody else moved the counter.
    #[error(
        "the counter stands at {counter} where this keeper's write {written} needs it: another keeper has gone on from a copy of its state; run one only, on the newest state"
    )]
    Superseded {
        /// This keeper's write number.
        written: u64,
        /// The counter's value.
        counter: u64,
    },
    /// A write of the state failed half-way.
    #[error(
        "a write of the keeper's state failed; restart the keeper, which then finds the old or the new one"
    )]
    StateUnsure,
    /// The state's folder cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The platform gives no sealing key.
    #[error(transparent)]
    Attest(#[from] oboro_attest::AttestError),
    /// The counter fails.
    #[error(transparent)]
    Counter(#[from] oboro_tpm::TpmError),
    /// A key in the state is damaged.
    #[error(transparent)]
    Ckks(#[from] oboro_ckks::CkksError),
    /// A key in the state is damaged.
    #[error(transparent)]
    Index(#[from] oboro_index::IndexError),
    /// The metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] TelemetryError),
    /// The channel could not be set up.
    #[error(transparent)]
    Channel(#[from] oboro_channel::ChannelError),
    /// The transport failed.
    #[error("the keeper's server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl KeeperError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
