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
    #[error("the evidence has format version {0}; this release knows version 2")]
    Version(u8),
    /// A platform number nobody knows.
    #[error("the evidence comes from an unknown platform (number {0})")]
    UnknownPlatform(u8),
    /// A platform this program has no verifier for.
    #[error("this program cannot verify evidence of {0}")]
    Unsupported(Platform),
    /// A platform the policy does not accept.
    #[error("the policy accepts no evidence of {0}; add an [[accept]] entry for it")]
    PlatformNotAccepted(Platform),
    /// Simulated evidence under a policy that does not allow it.
    #[error(
        "the peer runs on the simulated platform, which protects nothing; give --allow-simulated to accept it for trials"
    )]
    SimulatedRefused,
    /// A signature does not verify.
    #[error("a signature of the evidence is wrong: {0}")]
    Signature(&'static str),
    /// A certificate, revocation list or collateral is wrong, missing or out of date.
    #[error("the evidence's endorsements do not hold: {0}")]
    Endorsement(String),
    /// The platform signed other data than the claims.
    #[error("the claims are not those that the platform signed")]
    Binding,
    /// Evidence of another role.
    #[error("the evidence is for another role than the one expected")]
    Role,
    /// Evidence of another TLS session: relayed from elsewhere.
    #[error("the evidence belongs to another session than this one")]
    Session,
    /// Evidence about another TLS key than the channel's: relayed from elsewhere.
    #[error("the evidence names another channel key than the one this channel uses")]
    ChannelKey,
    /// Evidence that repeats another nonce: replayed.
    #[error("the evidence does not repeat the nonce it was asked for with")]
    Nonce,
    /// The right program, set up otherwise.
    #[error("the program's configuration is not among those the policy lists")]
    Configuration,
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
    /// The platform's own state does not satisfy the policy: debug mode, privilege
    /// level, migration, TCB version.
    #[error("the platform's state is not acceptable: {0}")]
    State(String),
    /// A policy file that cannot be used.
    #[error("the policy is unusable: {0}")]
    Policy(String),
    /// No platform that was asked is there.
    #[error("this machine offers no platform for it: {0}")]
    NoPlatform(String),
    /// The platform is not there or failed.
    #[error("{platform} gives no evidence here: {reason}")]
    Platform {
        /// Which platform was asked.
        platform: Platform,
        /// What is missing or went wrong.
        reason: String,
    },
}
