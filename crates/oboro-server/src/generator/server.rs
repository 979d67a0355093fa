//! Letting the owner in, one build at a time.

use std::sync::Arc;
use std::time::Duration;

use oboro_attest::{AttestedRole, Attester, Subject};
use oboro_channel::{
    AcceptOptions, Identity, Offer, Role, Trust, peer, serve_incoming, tuned_server,
};
use oboro_protocol::build::v1::build_request::Part;
use oboro_protocol::build::v1::builder_server::{Builder, BuilderServer};
use oboro_protocol::build::{self, v1};
use oboro_protocol::{Failure as Refusal, Reason};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::driver::{self, Replies};
use super::work::Work;
use crate::failure::{Failure, Outcome};

/// Replies that wait to be sent.
const REPLIES: usize = 4;

/// How long an owner may take over its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// How long what is being sent may take once the generator ends.
const GRACE: Duration = Duration::from_secs(10);

/// What a generator is made of.
pub(super) struct GeneratorConfig {
    pub(super) identity: Identity,
    pub(super) trust: Trust,
    pub(super) attester: Arc<dyn Attester>,
    pub(super) configuration: [u8; 32],
    pub(super) threads: Option<usize>,
    pub(super) work: Work,
    pub(super) stay: bool,
}

/// How the last build ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// Its owner has the index.
    Delivered,
    /// It has not; why, in one sentence.
    Failed(String),
}

/// What requests share.
struct Shared {
    work: Work,
    threads: Option<usize>,
    /// One build at a time.
    slot: Arc<Semaphore>,
    ended: watch::Sender<Option<Ended>>,
    stay: bool,
}

/// A generator.
pub(super) struct GeneratorServer {
    shared: Arc<Shared>,
    offer: Offer,
    identity: Identity,
    trust: Trust,
}

impl GeneratorServer {
    pub(super) fn new(config: GeneratorConfig) -> Self {
        let subject = Subject::new(config.configuration);
        Self {
            shared: Arc::new(Shared {
                work: config.work,
                threads: config.threads,
                slot: Arc::new(Semaphore::new(1)),
                ended: watch::Sender::new(None),
                stay: config.stay,
            }),
            offer: Offer::new(config.attester, AttestedRole::Generator, subject),
            identity: config.identity,
            trust: config.trust,
        }
    }

    /// Serves owners until a build has ended (or, with `stay`, on) or `shutdown`
    /// completes. How the last build ended, if there was one.
    ///
    /// # Errors
    /// When the transport fails.
    pub(super) async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Outcome<Option<Ended>> {
        let options = AcceptOptions {
            allowed: vec![Role::Owner],
            offer: Some(self.offer),
            ..AcceptOptions::default()
        };
        let incoming = serve_incoming(listener, &self.identity, &self.trust, options)?;
        let service = BuilderServer::new(BuilderService(Arc::clone(&self.shared)))
            .max_decoding_message_size(build::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(build::MAX_MESSAGE_BYTES);
        let (began, stopping) = tokio::sync::oneshot::channel();
        let (mut ended, stay) = (self.shared.ended.subscribe(), self.shared.stay);
        let server = tuned_server()
            .concurrency_limit_per_connection(4)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move {
                tokio::select! {
                    () = shutdown => {}
                    _ = ended.wait_for(Option::is_some), if !stay => {}
                }
                let _ = began.send(());
            });
        let grace = async {
            // An error means that the server ended first; then it decides.
            if stopping.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(GRACE).await;
        };
        let result = tokio::select! {
            result = server => result,
            () = grace => Ok(()),
        };
        result.map_err(|error| Failure::failed(format_args!("cannot serve: {error}")))?;
        let ended = self.shared.ended.borrow().clone();
        Ok(if stay { None } else { ended })
    }
}

/// Implements the generated trait.
struct BuilderService(Arc<Shared>);

impl Shared {
    /// One build, to its end and beyond: nothing is left of it afterwards.
    async fn build(
        &self,
        begin: v1::Begin,
        incoming: Streaming<v1::BuildRequest>,
        replies: Replies,
    ) {
        let index = self.work.index();
        let result = driver::drive(begin, incoming, &replies, index, self.threads).await;
        self.work.clear();
        let ended = match result {
            Ok(()) => {
                tracing::info!("index delivered");
                Ended::Delivered
            }
            Err(failure) => {
                tracing::warn!(reason = %failure.reason, "no index: {}", failure.message);
                let why = failure.message.clone();
                let _ = replies.send_timeout(Err(failure.into()), GRACE).await;
                Ended::Failed(why)
            }
        };
        drop(replies);
        self.ended.send_replace(Some(ended));
    }
}

#[tonic::async_trait]
impl Builder for BuilderService {
    type BuildStream = ReceiverStream<Result<v1::BuildReply, Status>>;

    async fn build(
        &self,
        request: Request<Streaming<v1::BuildRequest>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        let owner = peer(&request)?;
        // Only owners get through the listener; this holds even if it let others in.
        if owner.role != Role::Owner {
            return Err(Refusal::new(
                Reason::Forbidden,
                "only the owner may have an index built; use the owner's identity",
            )
            .into());
        }
        let slot: OwnedSemaphorePermit = Arc::clone(&self.0.slot)
            .try_acquire_owned()
            .ok()
            .filter(|_| self.0.stay || self.0.ended.borrow().is_none())
            .ok_or_else(|| {
                Status::from(Refusal::new(
                    Reason::Busy,
                    "the generator has another build, or had one and ends; start another generator",
                ))
            })?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE, incoming.message()).await;
        let Ok(Ok(Some(v1::BuildRequest {
            part: Some(Part::Begin(begin)),
        }))) = first
        else {
            return Err(
                Refusal::new(Reason::BadRequest, "the owner did not say what to build").into(),
            );
        };
        tracing::info!(owner = owner.short_key(), "build begun");
        let (replies, stream) = mpsc::channel(REPLIES);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            shared.build(begin, incoming, replies).await;
            drop(slot);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
