//! Preparing codebooks and decrypting tables.

use crate::metrics::Stage;
use crate::prepared::{Entry, Handle, Served};
use crate::shared::{Shared, blocking, check_subject, malformed, packing_of};
use crate::state::KeyPair;
use bytes::Bytes;
use oboro_channel::PeerInfo;
use oboro_ckks::{CodebookMasks, MaskedProducts, Packing, TableScale, TableShare};
use oboro_protocol::{Failure, Reason, v1, validate};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Decryptions of at most this many ring products (about half a millisecond) run on the
/// task that received them: handing over costs two wake-ups, on busy machines as much
/// time as the usual decryption itself.
const INLINE_PRODUCTS: usize = 512;

impl Shared {
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        request: v1::PrepareRequest,
        peer: PeerInfo,
    ) -> Result<Handle, Failure> {
        let index_id = validate::index_id(&request.index_id)?;
        let fingerprint = validate::digest(&request.key_fingerprint, "key's fingerprint")?;
        check_subject(&peer, &index_id)?;
        let pair = self.state.key(&fingerprint)?;
        let epoch = request.epoch;
        self.with_state(move |shared| shared.state.check_served(&index_id, epoch))
            .await?;
        let permit = self.turn().await?;
        let shared = self.clone();
        blocking(move || {
            let _permit = permit;
            shared.prepare_now(&request, (index_id, epoch), pair, &peer)
        })
        .await
    }

    fn prepare_now(
        &self,
        request: &v1::PrepareRequest,
        served: Served,
        pair: Arc<KeyPair>,
        peer: &PeerInfo,
    ) -> Result<Handle, Failure> {
        let packing = packing_of(request.packing.as_ref(), pair.parameter_set())?;
        let scale = self.scale(&packing, &request.scale)?;
        let fingerprint = pair.fingerprint;
        let handle = handle_of(&fingerprint, &packing, &scale, &request.masks);
        let entry = match self.prepared.prepared(&handle) {
            Some(entry) => entry,
            None => {
                let masks =
                    CodebookMasks::from_bytes(&packing, &request.masks).map_err(malformed)?;
                let codebook = pair
                    .decryptor
                    .prepare(packing, scale, &masks)
                    .map_err(malformed)?;
                Arc::new(Entry {
                    packing,
                    codebook,
                    pair,
                })
            }
        };
        self.prepared
            .insert(handle, peer.spki_sha256, served, entry);
        // The key may have been retired meanwhile: then nothing of it stays.
        if let Err(retired) = self.state.key(&fingerprint) {
            self.prepared.forget(&fingerprint);
            return Err(retired);
        }
        Ok(handle)
    }

    fn scale(&self, packing: &Packing, bytes: &[u8]) -> Result<TableScale, Failure> {
        let scale = TableScale::from_bytes(packing, bytes).map_err(malformed)?;
        if scale.flooding_bits() < self.minimum_flooding_bits {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "the codebook's scale leaves {:.1} bits of flooding; this keeper asks for {:.1}",
                    scale.flooding_bits(),
                    self.minimum_flooding_bits
                ),
            ));
        }
        Ok(scale)
    }

    pub(crate) async fn decrypt(
        self: &Arc<Self>,
        request: v1::DecryptRequest,
        peer: &PeerInfo,
        begin: Instant,
    ) -> Result<v1::DecryptReply, Failure> {
        if !self
            .rate
            .admit(&peer.spki_sha256, self.uptime().as_secs_f64())
        {
            self.metrics.rate_limited.fetch_add(1, Relaxed);
            return Err(Failure::new(
                Reason::RateLimited,
                "this searcher has used up its rate of tables; try again shortly",
            ));
        }
        let handle = validate::handle(&request.handle)?;
        let entry = self
            .prepared
            .find(&handle, &peer.spki_sha256)
            .ok_or_else(|| {
                Failure::new(
                    Reason::UnknownHandle,
                    "the keeper does not hold this codebook; prepare it again",
                )
            })?;
        let received = request.products.len();
        let products =
            MaskedProducts::from_bytes(&entry.packing, &request.products).map_err(malformed)?;
        self.metrics.record(Stage::Receive, begin.elapsed());
        if let Some(counts) = &self.byte_counts {
            counts.record(&request.products);
        }
        let (share, elapsed) = if products_of(&entry.packing) <= INLINE_PRODUCTS {
            self.decrypt_now(&entry, &products)?
        } else {
            let permit = self.turn().await?;
            let shared = self.clone();
            blocking(move || {
                let _permit = permit;
                shared.decrypt_now(&entry, &products)
            })
            .await?
        };
        let share = Bytes::from(share.to_bytes());
        self.metrics.table(&peer.spki_sha256, received, share.len());
        self.metrics.record(Stage::Total, begin.elapsed());
        Ok(v1::DecryptReply {
            share,
            decrypt_us: u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX),
        })
    }

    fn decrypt_now(
        &self,
        entry: &Entry,
        products: &MaskedProducts,
    ) -> Result<(TableShare, Duration), Failure> {
        let begin = Instant::now();
        let rng = &mut self.randomness.generator();
        let share = entry
            .pair
            .decryptor
            .decrypt(&entry.codebook, products, rng)
            .map_err(malformed)?;
        let elapsed = begin.elapsed();
        self.metrics.record(Stage::Decrypt, elapsed);
        Ok((share, elapsed))
    }
}

fn handle_of(key: &[u8; 32], packing: &Packing, scale: &TableScale, masks: &[u8]) -> Handle {
    let mut hasher = blake3::Hasher::new_derive_key("oboro keeper codebook handle v2");
    hasher.update(key);
    hasher.update(&packing.to_bytes());
    hasher.update(&scale.to_bytes());
    hasher.update(masks);
    *hasher.finalize().as_bytes()
}

/// Ring products of one decryption.
fn products_of(packing: &Packing) -> usize {
    let set = packing.set();
    let units = set.degree() * set.primes().len() / 2_048;
    packing.blocks() * (packing.split() + 4) * units
}
