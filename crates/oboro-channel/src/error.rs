//! What can go wrong.

use crate::Role;
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
}
