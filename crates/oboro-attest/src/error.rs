//! Why evidence was not produced or not accepted.

use crate::Platform;

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// Not evidence, cut short or with bytes too many.
    #[error("the evidence is malformed: {0}")]
    Malformed(&'static str),
    /// A format version of another release.
    #[error("the evidence has format version {0}; this release knows version 1")]
    Version(u8),
    /// A platform number nobody knows.
    #[error("the evidence comes from an unknown platform (number {0})")]
    UnknownPlatform(u8),
    /// A platform whose evidence cannot be verified yet.
    #[error("evidence of {0} is not supported by this version of Oboro")]
    Unsupported(Platform),
    /// Simulated evidence under a policy that does not allow it.
    #[error(
        "the peer runs on the simulated platform, which protects nothing; give --allow-simulated to accept it for trials"
    )]
    SimulatedRefused,
    /// The signature does not verify.
    #[error("the evidence's signature is wrong")]
    Signature,
    /// Evidence of another role.
    #[error("the evidence is for another role than the one expected")]
    Role,
    /// Evidence about another TLS key than the channel's: relayed from elsewhere.
    #[error("the evidence names another channel key than the one this channel uses")]
    ChannelKey,
    /// Evidence about another CKKS key.
    #[error("the evidence names another encryption key than the one expected")]
    CkksKey,
    /// Evidence that repeats another nonce: replayed.
    #[error("the evidence does not repeat the nonce it was asked for with")]
    Nonce,
    /// Too old.
    #[error("the evidence is {age} seconds old; at most {limit} are allowed")]
    Expired {
        /// Its age in seconds.
        age: u64,
        /// The policy's limit in seconds.
        limit: u64,
    },
    /// From the future.
    #[error("the evidence is dated {ahead} seconds ahead of this machine's clock")]
    FromTheFuture {
        /// By how many seconds.
        ahead: u64,
    },
    /// A program the policy does not list.
    #[error("the program's measurement is not among those the policy lists")]
    Measurement,
    /// The platform failed.
    #[error("the platform gives no evidence: {0}")]
    Platform(String),
}
