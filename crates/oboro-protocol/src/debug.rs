//! `Debug` for the messages: name and size, never the contents.

use crate::v1;
use prost::Message;
use std::fmt;

macro_rules! sizes_only {
    ($($message:ident),+ $(,)?) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($message), "({} bytes)"), self.encoded_len())
            }
        }
    )+};
}

sizes_only!(
    DescribeRequest,
    SearcherDescription,
    KeeperDescription,
    SearchRequest,
    SearchReply,
    SearchTimings,
    BeginSearchReply,
    FinishSearchRequest,
    CodebookMasksRequest,
    CodebookMasksReply,
    StatusRequest,
    SearcherStatus,
    KeeperStatus,
    PackingParameters,
    PrepareRequest,
    PrepareReply,
    DecryptRequest,
    DecryptReply,
    IndexState,
    ReleaseRequest,
    ReleaseReply,
    RegisterRequest,
    RegisterReply,
    NewKeyRequest,
    NewKeyReply,
    ReencryptRequest,
    ReencryptReply,
    RetireKeyRequest,
    RetireKeyReply,
    BeginRotationRequest,
    BeginRotationReply,
    CommitRotationRequest,
    CommitRotationReply,
    ModelRequest,
    ModelReply,
    StageRequest,
    StageReply,
    CommitRequest,
    CommitReply,
    CompactRequest,
    CompactReply,
);
