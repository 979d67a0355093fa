//! `Debug` for the messages: name and size, never the contents.

use crate::build::v1 as build;
use crate::generation::v1 as generation;
use crate::v1;
use prost::Message;
use std::fmt;

macro_rules! sizes_only {
    ($package:ident: $($message:ident),+ $(,)?) => {$(
        impl fmt::Debug for $package::$message {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($message), "({} bytes)"), self.encoded_len())
            }
        }
    )+};
}

sizes_only!(v1:
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
    QueryModelRequest,
    QueryModelReply,
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

sizes_only!(generation:
    Shape,
    KeeperBeginRequest,
    KeeperBeginReply,
    SharesRequest,
    SharesReply,
    MeansRequest,
    MeansReply,
    TablesRequest,
    TablesReply,
    CodebookRequest,
    CodebookReply,
    EndRequest,
    EndReply,
    GeneratorBeginRequest,
    GeneratorBeginReply,
    SampleRequest,
    SampleReply,
    TrainRequest,
    TrainReply,
    Trained,
    DescribeRequest,
    DescribeReply,
    EncodeRequest,
    EncodeReply,
    SegmentRequest,
    SegmentReply,
    CommitRequest,
    CommitReply,
    File,
    AbortRequest,
    AbortReply,
);

sizes_only!(build:
    BuildRequest,
    Begin,
    Options,
    Early,
    Records,
    Done,
    BuildReply,
    Progress,
    Built,
    Trial,
    Opq,
    Lists,
    Piece,
);
