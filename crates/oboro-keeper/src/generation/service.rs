//! The requests of a generation that a keeper answers.

use super::session::{INSTALLED, Session};
use super::sessions::Token;
use super::shape::Shape;
use super::share::Share;
use crate::shared::{Shared, blocking, check_subject, malformed};
use bytes::Bytes;
use oboro_channel::{PeerInfo, peer};
use oboro_ckks::MaskedBatch;
use oboro_protocol::generation::v1::{self, keeper_generation_server::KeeperGeneration};
use oboro_protocol::{Failure, Reason, validate};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tonic::{Request, Response, Status};

/// Batches of one request: their prepared codebook passes through the caches once.
const MAX_BATCHES: usize = 64;

#[derive(Clone)]
pub(crate) struct GenerationService(pub(crate) Arc<Shared>);

impl GenerationService {
    fn answer<T>(
        &self,
        peer: &PeerInfo,
        result: Result<T, Failure>,
    ) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|failure| {
            self.0.metrics.refuse(&peer.spki_sha256);
            tracing::debug!(
                peer = peer.short_key(),
                reason = failure.reason.name(),
                "request of a generation refused"
            );
            failure.into()
        })
    }
}

fn token(bytes: &[u8]) -> Result<Token, Failure> {
    validate::session(bytes)
}

impl Shared {
    fn begin_generation(
        &self,
        request: &v1::KeeperBeginRequest,
        owner: &PeerInfo,
    ) -> Result<Token, Failure> {
        let fingerprint = validate::digest(&request.key_fingerprint, "key's fingerprint")?;
        let pair = self.state.key(&fingerprint)?;
        let shape = Shape::parse(request.shape.as_ref(), pair.parameter_set())?;
        if self.state.newest(&shape.index_id).is_some() {
            return Err(Failure::new(
                Reason::Conflict,
                "an index with this id is there already; draw a new one, or serve it",
            ));
        }
        let token = self.randomness.bytes();
        let seed = self.state.release_key().generation_seed(&shape.index_id);
        let session = Session::new(shape, pair, owner.spki_sha256, seed);
        self.generations.begin(token, session, Instant::now())
    }

    /// The session that a searcher shows, whose key is held still.
    fn generation(&self, session: &[u8], searcher: &PeerInfo) -> Result<Arc<Session>, Failure> {
        let token = token(session)?;
        let now = Instant::now();
        let session = self
            .generations
            .of_searcher(&token, &searcher.spki_sha256, now)?;
        check_subject(searcher, &session.index_id)?;
        self.state.key(&session.pair.fingerprint)?;
        Ok(session)
    }

    /// Runs the arithmetic of a request when it is its turn.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = self.turn().await?;
        let shared = Arc::clone(self);
        blocking(move || {
            let _permit = permit;
            work(&shared)
        })
        .await
    }

    async fn means(
        self: &Arc<Self>,
        request: v1::MeansRequest,
        searcher: &PeerInfo,
    ) -> Result<v1::MeansReply, Failure> {
        let session = self.generation(&request.session, searcher)?;
        self.work(move |shared| {
            let minimum = shared.minimum_flooding_bits;
            let (codebook, number) = session.means(&request.scale, &request.labels, minimum)?;
            Ok(v1::MeansReply {
                codebook: codebook.into(),
                number,
            })
        })
        .await
    }

    async fn tables(
        self: &Arc<Self>,
        request: v1::TablesRequest,
        searcher: &PeerInfo,
    ) -> Result<v1::TablesReply, Failure> {
        if !self
            .rate
            .admit(&searcher.spki_sha256, self.uptime().as_secs_f64())
        {
            self.metrics.rate_limited.fetch_add(1, Relaxed);
            return Err(Failure::new(
                Reason::RateLimited,
                "this searcher has used up its rate of tables; try again shortly",
            ));
        }
        let session = self.generation(&request.session, searcher)?;
        let peer = searcher.spki_sha256;
        if request.batches.is_empty() || request.batches.len() > MAX_BATCHES {
            return Err(Failure::new(
                Reason::Limit,
                format!(
                    "{} batches in one request; send 1 to {MAX_BATCHES}",
                    request.batches.len()
                ),
            ));
        }
        self.work(move |shared| {
            if let Some(counts) = &shared.byte_counts {
                // What comes before are public parts of ciphertexts, the same each round.
                let known = MaskedBatch::encoded_len(&session.batches, 0);
                for batch in &request.batches {
                    counts.record(batch.get(known..).unwrap_or_default());
                }
            }
            let blocks = request.first_block as usize..request.end_block as usize;
            let part = blocks.len();
            let shares = session.tables(request.number, blocks, &request.batches)?;
            let (batches, packing) = (request.batches.len(), &session.batches);
            // A request may hold a part of the tables' blocks only.
            let tables = (batches * packing.batch() * part).div_ceil(packing.blocks());
            shared.metrics.batches(&peer, batches as u64, tables as u64);
            let shares = shares.iter().map(|share| Bytes::from(share.to_bytes()));
            Ok(v1::TablesReply {
                shares: shares.collect(),
            })
        })
        .await
    }

    async fn search_codebook(
        self: &Arc<Self>,
        request: v1::CodebookRequest,
        searcher: &PeerInfo,
    ) -> Result<v1::CodebookReply, Failure> {
        let session = self.generation(&request.session, searcher)?;
        self.work(move |shared| {
            let minimum = shared.minimum_flooding_bits;
            let (codebook, share) = session.codebook(&request.scale, &request.offsets, minimum)?;
            let (release, index_id) = (shared.state.release_key(), &session.index_id);
            Ok(v1::CodebookReply {
                codebook: codebook.into(),
                share: release.seal_share(index_id, &share).into(),
                part: release.blind_part(index_id).to_vec().into(),
            })
        })
        .await
    }

    async fn install(
        self: &Arc<Self>,
        request: v1::InstallRequest,
        searcher: &PeerInfo,
    ) -> Result<v1::InstallReply, Failure> {
        let index_id = validate::index_id(&request.index_id)?;
        check_subject(searcher, &index_id)?;
        let fingerprint = validate::digest(&request.key_fingerprint, "key's fingerprint")?;
        let pair = self.state.key(&fingerprint)?;
        let peer = searcher.spki_sha256;
        self.work(move |shared| {
            let release = shared.state.release_key();
            let share = release.open_share(&index_id, &request.share).map_err(|_| {
                Failure::new(
                    Reason::BadRequest,
                    "the share of the codebook is not this keeper's, or of another index",
                )
            })?;
            let share = Share::from_bytes(&share).map_err(malformed)?;
            let (seed, minimum) = (
                release.generation_seed(&index_id),
                shared.minimum_flooding_bits,
            );
            let (session, codebook) = Session::install(index_id, pair, peer, seed, share, minimum)?;
            let token = shared.randomness.bytes();
            shared.generations.install(token, session, Instant::now());
            Ok(v1::InstallReply {
                session: token.to_vec().into(),
                codebook: codebook.into(),
                number: INSTALLED,
                part: release.blind_part(&index_id).to_vec().into(),
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl KeeperGeneration for GenerationService {
    async fn begin(
        &self,
        request: Request<v1::KeeperBeginRequest>,
    ) -> Result<Response<v1::KeeperBeginReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.begin_generation(request.get_ref(), &peer);
        if result.is_ok() {
            tracing::info!(owner = peer.short_key(), "generation opened");
        }
        let reply = |token: Token| v1::KeeperBeginReply {
            session: token.to_vec().into(),
        };
        self.answer(&peer, result.map(reply))
    }

    async fn shares(
        &self,
        request: Request<v1::SharesRequest>,
    ) -> Result<Response<v1::SharesReply>, Status> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let result = token(&request.session)
            .and_then(|token| {
                let now = Instant::now();
                self.0.generations.of_owner(&token, &peer.spki_sha256, now)
            })
            .and_then(|session| session.append(request.offset, &request.shares));
        let reply = |received| v1::SharesReply { received };
        self.answer(&peer, result.map(reply))
    }

    async fn means(
        &self,
        request: Request<v1::MeansRequest>,
    ) -> Result<Response<v1::MeansReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.means(request.into_inner(), &peer).await;
        self.answer(&peer, result)
    }

    async fn tables(
        &self,
        request: Request<v1::TablesRequest>,
    ) -> Result<Response<v1::TablesReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.tables(request.into_inner(), &peer).await;
        self.answer(&peer, result)
    }

    async fn codebook(
        &self,
        request: Request<v1::CodebookRequest>,
    ) -> Result<Response<v1::CodebookReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.search_codebook(request.into_inner(), &peer).await;
        self.answer(&peer, result)
    }

    async fn install(
        &self,
        request: Request<v1::InstallRequest>,
    ) -> Result<Response<v1::InstallReply>, Status> {
        let peer = peer(&request)?;
        let result = self.0.install(request.into_inner(), &peer).await;
        self.answer(&peer, result)
    }

    async fn end(
        &self,
        request: Request<v1::EndRequest>,
    ) -> Result<Response<v1::EndReply>, Status> {
        let peer = peer(&request)?;
        let result = token(&request.get_ref().session).and_then(|token| {
            let now = Instant::now();
            self.0.generations.end(&token, &peer.spki_sha256, now)
        });
        if result.is_ok() {
            tracing::info!(owner = peer.short_key(), "generation ended");
        }
        self.answer(&peer, result.map(|()| v1::EndReply {}))
    }
}
