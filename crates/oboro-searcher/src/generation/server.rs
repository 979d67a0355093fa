//! Starting, serving and stopping a searcher that has no index yet.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use oboro_attest::{AttestedRole, Subject};
use oboro_channel::{
    AcceptLimits, AcceptOptions, Demand, Identity, Offer, Role, Trust, serve_incoming, tuned_server,
};
use oboro_index::{IndexHead, StorageKey};
use oboro_protocol::generation::{self, v1, v1::generator_server};
use tokio::{net::TcpListener, sync::watch};

use super::{draft::Place, service::GeneratorService, shared::Shared};
use crate::{SearcherConfig, SearcherError, keeper::KeeperAccess};

/// An index that was made.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its state.
    pub head: IndexHead,
    pub(super) reply: v1::CommitReply,
}

/// A searcher without an index, which makes one with its owner and a keeper.
pub struct GeneratorServer {
    shared: Arc<Shared>,
    offer: Offer,
    identity: Identity,
    trust: Trust,
    accept: AcceptLimits,
    requests_per_connection: usize,
    grace: Duration,
}

impl GeneratorServer {
    /// A searcher that will make an index in `folder`, which is empty or does not exist.
    /// Of `config` it uses what concerns connections, keeper and threads.
    ///
    /// # Errors
    /// When something lies in the folder, another one makes an index there, it cannot be
    /// written to, or `config` names no keeper.
    pub fn new(
        folder: impl Into<PathBuf>,
        key: StorageKey,
        config: SearcherConfig,
    ) -> Result<Self, SearcherError> {
        let place = Place::claim(&folder.into(), SystemTime::now())?;
        let keeper = config.keeper.ok_or(SearcherError::NoKeeper)?;
        let subject = Subject::new(config.configuration);
        let offer = Offer::new(config.attester, AttestedRole::Searcher, subject);
        let access = KeeperAccess {
            demand: Demand::new(Arc::clone(&keeper.verifier), AttestedRole::Keeper),
            identity: config.identity.clone(),
            trust: config.trust.clone(),
            offer: offer.clone(),
            config: keeper,
        };
        let shared = Shared {
            place,
            key: Arc::new(key),
            access,
            threads: config.scan_threads,
            open: Mutex::new(None),
            finished: watch::Sender::new(None),
            writing: tokio::sync::Mutex::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
            offer,
            identity: config.identity,
            trust: config.trust,
            accept: config.accept,
            requests_per_connection: config.requests_per_connection,
            grace: config.grace,
        })
    }

    /// Serves its owner until an index is made, or `shutdown` completes; then lets
    /// running requests end within the grace time. The index, if one was made.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Option<Generated>, SearcherError> {
        let options = AcceptOptions {
            limits: self.accept,
            allowed: vec![Role::Owner],
            offer: Some(self.offer),
            demands: HashMap::new(),
            ..AcceptOptions::default()
        };
        let incoming = serve_incoming(listener, &self.identity, &self.trust, options)
            .map_err(|error| SearcherError::Serve(error.to_string()))?;
        let service =
            generator_server::GeneratorServer::new(GeneratorService(Arc::clone(&self.shared)))
                .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
                .max_encoding_message_size(generation::MAX_MESSAGE_BYTES);
        let _closing = Closing(Arc::clone(&self.shared));
        let (began, stopping) = tokio::sync::oneshot::channel();
        let mut finished = self.shared.finished.subscribe();
        let server = tuned_server()
            .timeout(generation::MAX_REQUEST_TIME)
            .concurrency_limit_per_connection(self.requests_per_connection)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move {
                tokio::select! {
                    () = shutdown => {}
                    _ = finished.wait_for(Option::is_some) => {}
                }
                let _ = began.send(());
            });
        let grace = async {
            // An error means that the server ended first; then it decides.
            if stopping.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.grace).await;
        };
        let expire = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                self.shared.expire(Instant::now(), SystemTime::now());
            }
        };
        let result = tokio::select! {
            result = server => result.map_err(|error| SearcherError::Serve(error.to_string())),
            () = grace => Ok(()),
            () = expire => Ok(()),
        };
        result?;
        Ok(self.shared.finished.borrow().clone())
    }
}

/// Lets go of the folder when the server ends, however it ends: another one may make an
/// index there then, though connections here may be open still.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        self.0.place.release();
    }
}
