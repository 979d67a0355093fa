//! Why a keeper does not start or stops.

use oboro_telemetry::TelemetryError;

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
