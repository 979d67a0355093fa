//! The connection to the keeper: evidence, registration, recovery.
//!
//! A link is either up (a channel whose other end has proved what it is, and a
//! registered codebook) or down. The first request after a failure tries to
//! bring it up again, within bounded time and not more often than every
//! [`KeeperConfig::retry_pause`]; everyone else is told at once that the keeper
//! cannot be reached. Nothing else is needed for it to recover by itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use oboro_attest::{AttestedRole, Attester, Claims, Expected, NO_CKKS_KEY, Verifier, unix_seconds};
use oboro_channel::{ConnectOptions, Identity, Role, Trust, explain, within};
use oboro_ckks::Randomness;
use oboro_protocol::{
    PROTOCOL_VERSION, Reason, limits, reason_of,
    v1::{self, keeper_client::KeeperClient},
    validate,
};
use tonic::{Code, Status, transport::Channel};

use crate::{SearcherError, metrics::Metrics};

/// Where the keeper is and what it must prove.
#[derive(Clone)]
pub struct KeeperConfig {
    /// `host:port`.
    pub address: String,
    /// Checks the keeper's evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Longest time for connecting.
    pub connect_timeout: Duration,
    /// Longest time for one table.
    pub decrypt_timeout: Duration,
    /// Shortest time between two attempts to connect.
    pub retry_pause: Duration,
}

impl KeeperConfig {
    /// The keeper at `address` (`host:port`), judged by `verifier`: 2 seconds
    /// to connect, 2 for a table, 250 ms between attempts.
    #[must_use]
    pub fn new(address: impl Into<String>, verifier: Arc<dyn Verifier>) -> Self {
        Self {
            address: address.into(),
            verifier,
            connect_timeout: Duration::from_secs(2),
            decrypt_timeout: limits::KEEPER_DEADLINE,
            retry_pause: Duration::from_millis(250),
        }
    }
}

/// What the keeper must register: the public part of the codebook.
pub(crate) struct Registration {
    pub(crate) request: v1::PrepareRequest,
    pub(crate) public_key_fingerprint: [u8; 32],
}

/// A link that is up.
struct Up {
    client: KeeperClient<Channel>,
    handle: Bytes,
}

#[derive(Default)]
struct State {
    up: Option<Arc<Up>>,
    /// The last failed attempt and what it met.
    failed: Option<(Instant, Arc<str>)>,
}

pub(crate) struct KeeperLink {
    config: KeeperConfig,
    identity: Identity,
    trust: Trust,
    registration: Registration,
    attester: Arc<dyn Attester>,
    randomness: Arc<Randomness>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Held by the one task that connects.
    connecting: tokio::sync::Mutex<()>,
}

/// The keeper's answer and its size.
pub(crate) struct Decrypted {
    pub(crate) share: Bytes,
}

impl KeeperLink {
    pub(crate) fn new(
        config: KeeperConfig,
        identity: Identity,
        trust: Trust,
        registration: Registration,
        attester: Arc<dyn Attester>,
        randomness: Arc<Randomness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            config,
            identity,
            trust,
            registration,
            attester,
            randomness,
            metrics,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    fn with_state<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The link was up when last used.
    pub(crate) fn is_up(&self) -> bool {
        self.with_state(|state| state.up.is_some())
    }

    /// Brings the link up if it is down; used at the start.
    pub(crate) async fn warm_up(&self) -> Result<(), SearcherError> {
        self.up().await.map(drop)
    }

    /// Sends masked products, returns the keeper's share of the table.
    pub(crate) async fn decrypt(
        &self,
        products: Bytes,
        deadline: Instant,
    ) -> Result<Decrypted, SearcherError> {
        // A second attempt repairs a keeper that restarted or evicted the
        // codebook, or a connection that was lost while idle. The products may
        // be sent again: the same bytes tell no more the second time.
        let mut up = self.up().await?;
        for last in [false, true] {
            let status = match self.ask(&up, products.clone(), deadline).await {
                Ok(share) => return Ok(Decrypted { share }),
                Err(status) => status,
            };
            let broken = reason_of(&status).is_none();
            let forgotten = reason_of(&status) == Some(Reason::UnknownHandle);
            if Instant::now() >= deadline {
                return Err(SearcherError::Deadline);
            }
            if !broken && !forgotten {
                return Err(refusal(&status));
            }
            self.lost(&up, broken.then_some(&status));
            if last || status.code() == Code::DeadlineExceeded {
                return Err(SearcherError::KeeperUnreachable(explain(&status)));
            }
            up = self.reconnect().await?;
        }
        Err(SearcherError::KeeperUnreachable(
            "it does not keep the codebook".to_owned(),
        ))
    }

    async fn ask(&self, up: &Up, products: Bytes, deadline: Instant) -> Result<Bytes, Status> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.min(self.config.decrypt_timeout);
        let request = v1::DecryptRequest {
            handle: up.handle.clone(),
            products,
        };
        // A clone of the client is a handle to the same connection.
        let mut client = up.client.clone();
        let reply = within(timeout, client.decrypt(request)).await?;
        Ok(reply.share)
    }

    /// Marks the link down, unless another task has replaced it already.
    fn lost(&self, up: &Arc<Up>, status: Option<&Status>) {
        if let Some(status) = status {
            tracing::warn!(code = ?status.code(), "connection to the keeper lost");
        }
        self.with_state(|state| {
            if state
                .up
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, up))
            {
                state.up = None;
            }
        });
    }

    /// The link, brought up first if it is down and the last failure is not
    /// too recent.
    async fn up(&self) -> Result<Arc<Up>, SearcherError> {
        let recent = |state: &State| {
            state
                .failed
                .as_ref()
                .filter(|(when, _)| when.elapsed() < self.config.retry_pause)
                .map(|(_, why)| SearcherError::KeeperUnreachable(why.to_string()))
        };
        let now =
            self.with_state(|state| state.up.clone().map(Ok).or_else(|| recent(state).map(Err)));
        match now {
            Some(known) => known,
            None => self.reconnect().await,
        }
    }

    async fn reconnect(&self) -> Result<Arc<Up>, SearcherError> {
        let asked = Instant::now();
        let _one = self.connecting.lock().await;
        // Another task may have connected, or failed to, while this one waited.
        let now = self.with_state(|state| {
            let failed = state.failed.as_ref().filter(|(when, _)| *when >= asked);
            let failed = failed.map(|(_, why)| SearcherError::KeeperUnreachable(why.to_string()));
            state.up.clone().map(Ok).or_else(|| failed.map(Err))
        });
        if let Some(known) = now {
            return known;
        }
        let result = self.connect().await;
        self.with_state(|state| match &result {
            Ok(up) => {
                *state = State {
                    up: Some(Arc::clone(up)),
                    failed: None,
                }
            }
            Err(error) => {
                let why = match error {
                    SearcherError::KeeperUnreachable(why) => why.clone(),
                    other => other.to_string(),
                };
                state.failed = Some((Instant::now(), why.into()));
            }
        });
        if let Err(error) = &result {
            tracing::warn!(%error, "keeper not usable");
        }
        result
    }

    async fn connect(&self) -> Result<Arc<Up>, SearcherError> {
        let unreachable = |why: String| SearcherError::KeeperUnreachable(why);
        let connecting = oboro_channel::connect(
            &self.config.address,
            &self.identity,
            &self.trust,
            Role::Keeper,
            ConnectOptions {
                timeout: self.config.connect_timeout,
            },
        );
        let connection = connecting
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        // The channel reconnects by itself, but only to the key seen now, so the
        // evidence holds for everything sent on it.
        let channel_key = connection.peer().spki_sha256;
        let mut client = KeeperClient::new(connection.channel)
            .max_decoding_message_size(limits::MAX_PRODUCTS_MESSAGE_BYTES)
            .max_encoding_message_size(limits::KEEPER_REQUEST_LIMIT);

        let nonce = self.randomness.bytes::<32>();
        let describe = client.describe(v1::DescribeRequest {
            nonce: nonce.to_vec().into(),
        });
        let description = within(self.config.connect_timeout, describe)
            .await
            .map_err(failure)?;
        if description.protocol_version != PROTOCOL_VERSION {
            return Err(SearcherError::KeeperUntrusted(format!(
                "it speaks protocol version {} and this searcher {PROTOCOL_VERSION}",
                description.protocol_version
            )));
        }
        let expected = Expected {
            role: AttestedRole::Keeper,
            channel_key,
            ckks_key: self.registration.public_key_fingerprint,
            nonce,
        };
        let now = unix_seconds(SystemTime::now());
        self.config
            .verifier
            .verify(&description.evidence, &expected, now)
            .map_err(|error| SearcherError::KeeperUntrusted(error.to_string()))?;

        let mut request = self.registration.request.clone();
        request.evidence = self.evidence(&description.challenge)?.into();
        let prepare = client.prepare(request);
        let prepared = within(limits::PREPARE_DEADLINE, prepare)
            .await
            .map_err(failure)?;
        Metrics::add(&self.metrics.registrations, 1);
        tracing::info!("codebook registered with the keeper");
        Ok(Arc::new(Up {
            client,
            handle: prepared.handle,
        }))
    }
}

impl KeeperLink {
    /// This searcher's own evidence, where the keeper asks for it.
    fn evidence(&self, challenge: &[u8]) -> Result<Vec<u8>, SearcherError> {
        if challenge.is_empty() {
            return Ok(Vec::new());
        }
        let claims = Claims {
            role: AttestedRole::Searcher,
            channel_key: self.identity.spki_sha256(),
            ckks_key: NO_CKKS_KEY,
            nonce: validate::nonce(challenge)?,
            issued_at: unix_seconds(SystemTime::now()),
        };
        self.attester.attest(&claims).map_err(|error| {
            SearcherError::KeeperRefused(format!("it asks for evidence and {error}"))
        })
    }
}

/// A request while connecting failed.
fn failure(status: Status) -> SearcherError {
    if reason_of(&status).is_some() {
        refusal(&status)
    } else {
        SearcherError::KeeperUnreachable(explain(&status))
    }
}

/// The keeper gave a reason of its own.
fn refusal(status: &Status) -> SearcherError {
    match reason_of(status) {
        Some(reason @ (Reason::Busy | Reason::RateLimited)) => {
            SearcherError::Request(oboro_protocol::Failure::new(
                reason,
                format!("the keeper is busy: {}", status.message()),
            ))
        }
        _ => SearcherError::KeeperRefused(status.message().to_owned()),
    }
}
