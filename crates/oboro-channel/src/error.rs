//! What can go wrong.

use crate::Role;
use oboro_attest::AttestError;
use std::fmt;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file exists and is never overwritten.
    #[error("{} exists already; choose another name or remove it first", .0.display())]
    Exists(PathBuf),
    /// A key file others can read.
    #[error("{} can be read by others (mode {mode:03o}); run chmod 600 on it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Text that is not the expected PEM.
    #[error("this is not a valid {0}; is it the right file?")]
    Malformed(&'static str),
    /// Certificate and private key are of two key pairs.
    #[error("the private key does not belong to the certificate beside it")]
    KeyMismatch,
    /// A certificate that names no role, or several.
    #[error("the certificate does not name exactly one role of Oboro")]
    NoRole,
    /// A key pair or certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Issue(String),
    /// A TLS configuration could not be made.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The address is not `host:port`.
    #[error("{0:?} is not an address of the form host:port")]
    Address(String),
    /// A TLS handshake that failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// No connection within the time allowed, or refused.
    #[error("cannot reach the {role} at {address}: {reason}")]
    Unreachable {
        /// Who was to be reached.
        role: Role,
        /// Where.
        address: String,
        /// Why it failed.
        reason: String,
    },
    /// The peer presented another public key than at the first connection.
    #[error("the {0} presents another key than when it was verified; connect again")]
    PeerKeyChanged(Role),
    /// The peer, known by its key, serves another index or is set up otherwise than at
    /// the first connection.
    #[error(
        "the {0} serves another index or has another configuration than when it was verified; connect again"
    )]
    SubjectChanged(Role),
    /// The peer's evidence is not accepted.
    #[error("the peer's evidence is refused: {0}")]
    Untrusted(AttestError),
    /// The peer gives no evidence although this side demands it.
    #[error("the {0} gives no evidence of the program it runs, and this side demands it")]
    NoEvidence(Role),
    /// The peer demands evidence and this side has none to give.
    #[error("the {0} demands evidence of the program that runs here, and this side has none")]
    EvidenceDemanded(Role),
    /// The evidence is about another index than the one demanded.
    #[error("the {0}'s evidence is about another index than the one demanded")]
    AnotherIndex(Role),
    /// This side's attester failed.
    #[error("this side cannot attest itself: {0}")]
    Attester(AttestError),
    /// The peer refused what this side sent during the attestation exchange.
    #[error("the peer refused the connection: {0}")]
    Refused(Refusal),
    /// The peer's part of the attestation exchange is malformed.
    #[error("the peer does not keep to the attestation exchange: {0}")]
    Exchange(&'static str),
    /// The peer negotiated no protocol that this side speaks.
    #[error("the peer does not speak {0}; it is no party of this release")]
    Protocol(&'static str),
    /// A demand for evidence of another role than the peer's.
    #[error("evidence of a {demanded} is demanded of a {peer}; demand it of the role it is about")]
    DemandRole {
        /// The role in the demand.
        demanded: oboro_attest::AttestedRole,
        /// The role of the peer.
        peer: Role,
    },
    /// This side's own certificate has expired.
    #[error("the {role}'s certificate expired on {date}; let the owner issue a new one")]
    Expired {
        /// The role in the certificate.
        role: Role,
        /// When it expired.
        date: String,
    },
    /// A grant that no client's certificate can carry.
    #[error("a client can be a reader or a writer, not {0}; the owner's own identity is another")]
    Grant(crate::Access),
    /// A name that a certificate cannot carry.
    #[error("a client's name has 1 to 64 characters and no control characters")]
    Name,
    /// A revocation list that another authority signed.
    #[error("the revocation list was not signed by the authority that is trusted here")]
    ForeignRevocations,
    /// A revocation list that is older than the one in use.
    #[error("the revocation list has number {found}, and number {held} is in use already")]
    OlderRevocations {
        /// The number of the list that was refused.
        found: u64,
        /// The number of the list in use.
        held: u64,
    },
}

/// Why a peer refused the attestation exchange; one byte on the wire, which says no more
/// than this, whatever the peer found wrong. The refusing side's own error has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The exchange has another version there.
    Version,
    /// It could not read what was sent.
    Malformed,
    /// It has no evidence to give, or its attester failed.
    NotAttested,
    /// It does not accept the evidence.
    Evidence,
    /// A reason of a later release.
    Other(u8),
}

impl Refusal {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Malformed => 2,
            Self::NotAttested => 3,
            Self::Evidence => 4,
            Self::Other(code) => code,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Malformed,
            3 => Self::NotAttested,
            4 => Self::Evidence,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => {
                formatter.write_str("it speaks another version of the attestation exchange")
            }
            Self::Malformed => formatter.write_str("it could not read this side's messages"),
            Self::NotAttested => formatter.write_str("it has no evidence to give"),
            Self::Evidence => {
                formatter.write_str("it does not accept this side's evidence; its log says why")
            }
            Self::Other(code) => write!(formatter, "its reason has number {code}"),
        }
    }
}
