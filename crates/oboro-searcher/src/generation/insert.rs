//! New vectors for a blindly made index that is served.
//!
//! Whoever may write sends encrypted batches and gets their codes, which then go into a
//! segment as those of any other insert do. Nothing is kept of a batch, so that a request
//! may be made again at any time.
//!
//! # Security
//! As in a blind build, the searcher sees a table of every new vector, and the keeper
//! uniform numbers. A writer learns the codes of the vectors that it brings: in which cells
//! of the codebook they lie. A local build gives writers the codebook itself.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use oboro_channel::{Access, PeerInfo};
use oboro_index::SealedBlind;
use oboro_protocol::{
    Failure, Reason,
    generation::{
        MAX_MESSAGE_BYTES, MAX_REQUEST_TIME, MAX_SEGMENT_VECTORS, USUAL_PAYLOAD_BYTES,
        v1::{
            self,
            encoder_server::{Encoder, EncoderServer},
        },
    },
    validate,
};
use tokio::{sync::Mutex, task::JoinSet};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::{blocking, codebook::Codebook, keeper::GenerationKeeper, pass::Workbench, refused};
use crate::{SearcherError, gate, searcher::Searcher};

/// Largest request: batches as a writer sends them, and some.
const REQUEST_LIMIT: usize = 2 * USUAL_PAYLOAD_BYTES;

/// What encodes for one epoch of the index.
struct AtWork {
    epoch: u64,
    codebook: Codebook,
    bench: Arc<Workbench>,
}

/// Implements the generated trait over a [`Searcher`] that serves.
pub(crate) struct EncoderService {
    searcher: Arc<Searcher>,
    at_work: Mutex<Option<Arc<AtWork>>>,
}

impl EncoderService {
    /// The codebook of the newest epoch, shown to the keeper first.
    async fn codebook(&self, index_id: &[u8]) -> Result<Arc<AtWork>, SearcherError> {
        let epoch = self.searcher.newest()?;
        validate::changed_index(index_id, epoch.id())?;
        let mut place = self.at_work.lock().await;
        if let Some(at_work) = &*place
            && at_work.epoch == epoch.number()
        {
            return Ok(Arc::clone(at_work));
        }
        let folder = self.searcher.folder.clone();
        let sealed = blocking(move || Ok(SealedBlind::read(&folder)?)).await?;
        let Some(sealed) = sealed.filter(|sealed| sealed.head().index_id == *epoch.id()) else {
            return Err(refused(
                Reason::BadRequest,
                "this index was not made blindly by this version, so nothing can be encoded for it blindly; encode with its model, or build it again",
            ));
        };
        let link = self.searcher.link.as_ref().ok_or(SearcherError::NoKeeper)?;
        let keeper = GenerationKeeper::new(&*link.keeper().await?, bytes::Bytes::new());
        let shape = epoch.shape();
        let (codebook, _) = Codebook::again(
            sealed,
            &self.searcher.key,
            shape.public_key.clone(),
            &keeper,
        )
        .await?;
        let at_work = Arc::new(AtWork {
            epoch: epoch.number(),
            bench: Arc::new(Workbench::new(
                *codebook.scale().packing(),
                self.searcher.key.generation_seed(epoch.id()),
                self.searcher.workshop.scan_threads,
            )),
            codebook,
        });
        *place = Some(Arc::clone(&at_work));
        Ok(at_work)
    }

    /// Forgets a codebook whose connection to the keeper is of no use.
    async fn forget(&self, at_work: &Arc<AtWork>) {
        let mut place = self.at_work.lock().await;
        if place.as_ref().is_some_and(|now| Arc::ptr_eq(now, at_work)) {
            *place = None;
        }
    }

    async fn codes(
        &self,
        request: v1::EncodeBatchesRequest,
    ) -> Result<v1::EncodeBatchesReply, SearcherError> {
        let at_work = self.codebook(&request.index_id).await?;
        let most = at_work.bench.packing.batches(MAX_SEGMENT_VECTORS);
        if request.batches.is_empty() || request.batches.len() > most {
            return Err(refused(
                Reason::Limit,
                format!(
                    "{} batches in one request; send 1 to {most}",
                    request.batches.len()
                ),
            ));
        }
        let mut tasks = JoinSet::new();
        let groups = request.batches.chunks(at_work.bench.group());
        for (number, group) in groups.enumerate() {
            let (at_work, group) = (Arc::clone(&at_work), group.to_vec());
            tasks.spawn(async move {
                let codes = at_work.codebook.encode(&at_work.bench, group).await?;
                Ok::<_, SearcherError>((number, codes))
            });
        }
        let mut all = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done.map_err(|_| SearcherError::Stopping)? {
                Ok(done) => all.push(done),
                Err(error) => {
                    if error.reason() == Reason::KeeperUnreachable {
                        self.forget(&at_work).await;
                    }
                    return Err(error);
                }
            }
        }
        all.sort_unstable_by_key(|(number, _)| *number);
        let codes = all.into_iter().flat_map(|(_, codes)| codes);
        Ok(v1::EncodeBatchesReply {
            codes: codes.map(Into::into).collect(),
        })
    }
}

// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
fn answer<T>(result: Result<T, SearcherError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        tracing::info!(%error, "vectors were not encoded blindly");
        error.into()
    })
}

#[tonic::async_trait]
impl Encoder for EncoderService {
    async fn open(
        &self,
        request: Request<v1::OpenRequest>,
    ) -> Result<Response<v1::OpenReply>, Status> {
        let codebook = self.codebook(&request.get_ref().index_id).await;
        answer(codebook.map(|at_work| v1::OpenReply {
            scale: at_work.codebook.scale().to_bytes().to_vec().into(),
        }))
    }

    async fn encode(
        &self,
        request: Request<v1::EncodeBatchesRequest>,
    ) -> Result<Response<v1::EncodeBatchesReply>, Status> {
        answer(self.codes(request.into_inner()).await)
    }
}

/// The service behind its gate: who may write to the index, within their rate, before a
/// body is read.
#[derive(Clone)]
pub(crate) struct EncoderGate(Arc<EncoderService>);

impl EncoderGate {
    pub(crate) fn new(searcher: Arc<Searcher>) -> Self {
        Self(Arc::new(EncoderService {
            searcher,
            at_work: Mutex::new(None),
        }))
    }

    // A tonic status is large; so is every error of every service method.
    #[allow(clippy::result_large_err)]
    fn check<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let peer = request.extensions().get::<PeerInfo>().ok_or_else(|| {
            Status::new(Code::Unauthenticated, "the channel is not authenticated")
        })?;
        gate::admit(&self.0.searcher, peer, Access::Writer)
    }
}

impl NamedService for EncoderGate {
    const NAME: &'static str = <EncoderServer<EncoderService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for EncoderGate {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Err(status) = self.check(&request) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let mut service = EncoderServer::from_arc(Arc::clone(&self.0))
            .max_decoding_message_size(REQUEST_LIMIT)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Box::pin(async move {
            let answer = tokio::time::timeout(MAX_REQUEST_TIME, service.call(request)).await;
            answer.unwrap_or_else(|_| {
                let failure = Failure::new(
                    Reason::Deadline,
                    format!(
                        "the request took longer than {} seconds; send fewer batches at a time",
                        MAX_REQUEST_TIME.as_secs()
                    ),
                );
                Ok(Status::from(failure).into_http())
            })
        })
    }
}
