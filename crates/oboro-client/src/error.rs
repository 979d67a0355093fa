//! What can go wrong in a client.

use oboro_channel::Role;
use oboro_protocol::Reason;

/// Why a client could not connect or a search failed. Each message is one
/// sentence with numbers, never content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A peer cannot be reached.
    #[error("the {role} at {address} cannot be reached: {cause}")]
    Unreachable {
        /// The peer.
        role: Role,
        /// Its address.
        address: String,
        /// What the transport said.
        cause: String,
    },
    /// A peer did not prove what the policy demands.
    #[error("the {role} is not trusted: {cause}")]
    Untrusted {
        /// The peer.
        role: Role,
        /// What was found wrong.
        cause: String,
    },
    /// The searcher's evidence is about another index or epoch than the one that it
    /// describes.
    #[error(
        "the searcher is not trusted: its evidence is about {attested}, and it serves {served}; connect again"
    )]
    Subject {
        /// What the evidence names.
        attested: String,
        /// What the descriptor names.
        served: String,
    },
    /// The descriptor is not the owner's, or not of this version.
    #[error("the index descriptor is refused: {0}")]
    Descriptor(String),
    /// The client's decryption key is not the one the index was built for.
    #[error(
        "the decryption key does not belong to this index; use the keeper key it was built with"
    )]
    ForeignKey,
    /// The keeper does not hold the key of the index.
    #[error(
        "the keeper does not hold the key that the index is encrypted for; give the address of the keeper of this index"
    )]
    ForeignKeeper,
    /// The key is that of the epoch in use.
    #[error("the index is encrypted under this key now; rotate first, then retire the key before")]
    KeyInUse,
    /// A peer speaks another protocol.
    #[error(
        "the {role} speaks protocol version {theirs} and this client {ours}; update the older one"
    )]
    ProtocolVersion {
        /// The peer.
        role: Role,
        /// Its version.
        theirs: u32,
        /// This client's.
        ours: u32,
    },
    /// The query has another dimension than the index.
    #[error(
        "dimension {found} does not match the index's {expected}; search with vectors of {expected} values"
    )]
    Dimension {
        /// Of the query.
        found: usize,
        /// Of the index.
        expected: usize,
    },
    /// The query holds NaN or an infinity.
    #[error("value {position} of the query is not finite; search with finite values")]
    NotFinite {
        /// Position of the first such value.
        position: usize,
    },
    /// More neighbours than candidates.
    #[error(
        "{k} neighbours cannot come from {candidates} candidates; ask for more candidates or fewer neighbours"
    )]
    MoreThanCandidates {
        /// Neighbours asked for.
        k: usize,
        /// Candidates asked for.
        candidates: usize,
    },
    /// More neighbours or candidates than the index gives.
    #[error("{asked} {what} are asked for and the index gives at most {most}; ask for fewer")]
    MoreThanIndex {
        /// `neighbours` or `candidates`.
        what: &'static str,
        /// Asked for.
        asked: usize,
        /// The most it gives.
        most: usize,
    },
    /// The index has no tag of that name.
    #[error("the index has no tag \"{0}\"; use one that it was built with")]
    UnknownTag(String),
    /// A filter for an index without tags.
    #[error("the index has no tags; search without a filter, or build it again with tags")]
    NoTags,
    /// Lists were asked for in an index without lists.
    #[error("the index has no lists; search without --probes, or build it again with lists")]
    NoLists,
    /// Another number of lists than the index allows.
    #[error(
        "{probes} lists are to be looked at and this index allows 1 to {most}; ask for as many"
    )]
    Probes {
        /// How many were asked for.
        probes: u32,
        /// The most.
        most: u32,
    },
    /// No neighbour was asked for.
    #[error("0 neighbours are asked for; ask for at least 1")]
    NoNeighbours,
    /// The query cannot be encrypted.
    #[error("the query cannot be encrypted: {0}")]
    Encrypt(String),
    /// The searcher refused or failed, with a stable reason.
    #[error("{message}")]
    Refused {
        /// The stable reason.
        reason: Reason,
        /// The searcher's sentence.
        message: String,
    },
    /// The server has another task than the request is for.
    #[error(
        "the server does not take such requests: a searcher makes an index or serves one; connect to one that was started for this"
    )]
    NotOffered,
    /// The connection broke during the search.
    #[error("the connection to the searcher broke: {0}")]
    Broken(String),
    /// The search took longer than allowed.
    #[error("the search took longer than {allowed_ms} ms; allow more time or ask later")]
    Deadline {
        /// Milliseconds allowed.
        allowed_ms: u64,
    },
    /// The reply is not one an honest searcher gives.
    #[error("the reply is refused: {0}")]
    Reply(String),
    /// The system failed.
    #[error("the system refused: {0}")]
    System(String),
}

impl ClientError {
    /// The stable reason a server gave, if it was a server.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } => Some(*reason),
            Self::Deadline { .. } => Some(Reason::Deadline),
            _ => None,
        }
    }

    /// The peer or the keeper behind it could not be reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken(_))
            || self.reason() == Some(Reason::KeeperUnreachable)
    }

    /// Evidence, descriptor or identity was refused by policy.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(
            self,
            Self::Untrusted { .. }
                | Self::Subject { .. }
                | Self::Descriptor(_)
                | Self::ForeignKey
                | Self::ForeignKeeper
        ) || self.reason() == Some(Reason::Forbidden)
    }

    /// The caller's input is at fault.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        matches!(
            self,
            Self::Dimension { .. }
                | Self::NotFinite { .. }
                | Self::MoreThanCandidates { .. }
                | Self::MoreThanIndex { .. }
                | Self::UnknownTag(_)
                | Self::NoTags
                | Self::NoLists
                | Self::Probes { .. }
                | Self::NoNeighbours
                | Self::KeyInUse
                | Self::Encrypt(_)
        ) || matches!(
            self.reason(),
            Some(Reason::BadRequest | Reason::Limit | Reason::Conflict)
        )
    }
}
