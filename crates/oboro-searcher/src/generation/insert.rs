//! New vectors for a blindly made index that is served.
//!
//! Whoever may write sends encrypted batches and gets their codes, which then go into a
//! segment as those of any other insert do. Nothing is kept of a batch, so that a request
//! may be made again at any time.
//!
//! Batches are encrypted under the key of one epoch of the index, which the request names:
//! under any other key they decrypt to noise, and noise has codes, too. While an epoch is
//! served beside a newer one, its batches are encoded under its own key; codes are the same
//! in all epochs. Afterwards the writer is told to encrypt them for the newest.
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

use super::{
    begin::FIRST_EPOCH, blocking, codebook::Codebook, keeper::GenerationKeeper, pass::Workbench,
    refused,
};
use crate::{SearcherError, epoch::Epoch, gate, searcher::Searcher};

/// Largest request: batches as a writer sends them, and some.
const REQUEST_LIMIT: usize = 2 * USUAL_PAYLOAD_BYTES;

/// Epochs for which codebooks are at hand: the newest, and the one before while writers
/// move over. Each takes some 20 MB, here and at the keeper.
const MOST_AT_WORK: usize = 2;

/// What encodes for one epoch of the index.
struct AtWork {
    epoch: u64,
    codebook: Codebook,
    bench: Arc<Workbench>,
}

/// Implements the generated trait over a [`Searcher`] that serves.
pub(crate) struct EncoderService {
    searcher: Arc<Searcher>,
    /// The one that was used last is at the end.
    at_work: Mutex<Vec<Arc<AtWork>>>,
}

impl EncoderService {
    /// The epoch that the batches of a request are encrypted for.
    fn epoch(&self, request: &v1::EncodeBatchesRequest) -> Result<Arc<Epoch>, SearcherError> {
        let newest = self.searcher.newest()?;
        validate::changed_index(&request.index_id, newest.id())?;
        let (asked, newest) = (request.epoch, newest.number());
        let wrong = |sentence: String| refused(Reason::WrongEpoch, sentence);
        if asked == 0 && newest != FIRST_EPOCH {
            return Err(wrong(format!(
                "the request does not say for which epoch of the index its vectors are encrypted, and epoch {newest} is served; use a newer program"
            )));
        }
        self.searcher
            .epoch(&request.index_id, asked.max(FIRST_EPOCH))
            .map_err(|error| match error.reason() {
                Reason::WrongEpoch => wrong(format!(
                    "the vectors are encrypted for epoch {asked} of the index, and epoch {newest} is served; encrypt them for that one"
                )),
                _ => error,
            })
    }

    /// The codebook of an epoch, shown to the keeper first.
    async fn codebook(&self, epoch: &Arc<Epoch>) -> Result<Arc<AtWork>, SearcherError> {
        let mut place = self.at_work.lock().await;
        let known = place.iter().position(|one| one.epoch == epoch.number());
        if let Some(known) = known {
            let at_work = place.remove(known);
            place.push(Arc::clone(&at_work));
            return Ok(at_work);
        }
        let at_work = Arc::new(self.begin(epoch).await?);
        place.retain(|one| self.searcher.epoch(epoch.id(), one.epoch).is_ok());
        if place.len() >= MOST_AT_WORK {
            place.remove(0);
        }
        place.push(Arc::clone(&at_work));
        Ok(at_work)
    }

    async fn begin(&self, epoch: &Arc<Epoch>) -> Result<AtWork, SearcherError> {
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
        let public_key = epoch.shape().public_key.clone();
        let again = Codebook::again(sealed, &self.searcher.key, public_key, &keeper).await;
        let (codebook, _) = again.map_err(|error| link.or_over(epoch, error))?;
        Ok(AtWork {
            epoch: epoch.number(),
            bench: Arc::new(Workbench::new(
                *codebook.scale().packing(),
                self.searcher.key.generation_seed(epoch.id()),
                self.searcher.workshop.scan_threads,
            )),
            codebook,
        })
    }

    /// Forgets a codebook whose connection to the keeper is of no use, or whose epoch is
    /// over.
    async fn forget(&self, at_work: &Arc<AtWork>) {
        let mut place = self.at_work.lock().await;
        place.retain(|one| !Arc::ptr_eq(one, at_work));
    }

    async fn codes(
        &self,
        request: v1::EncodeBatchesRequest,
    ) -> Result<v1::EncodeBatchesReply, SearcherError> {
        let epoch = self.epoch(&request)?;
        let at_work = self.codebook(&epoch).await?;
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
                    let error = match &self.searcher.link {
                        Some(link) => link.or_over(&epoch, error),
                        None => error,
                    };
                    let reason = error.reason();
                    if matches!(reason, Reason::KeeperUnreachable | Reason::WrongEpoch) {
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
        let open = async {
            let newest = self.searcher.newest()?;
            validate::changed_index(&request.get_ref().index_id, newest.id())?;
            let at_work = self.codebook(&newest).await?;
            Ok::<_, SearcherError>(v1::OpenReply {
                scale: at_work.codebook.scale().to_bytes().to_vec().into(),
            })
        };
        answer(open.await)
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
            at_work: Mutex::default(),
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
