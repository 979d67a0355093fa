//! What rests on the keeper's state: newest states of indexes, and the life of keys.

use crate::shared::{Shared, check_subject, malformed, packing_of};
use crate::state::{Descent, IndexState};
use bytes::Bytes;
use oboro_channel::PeerInfo;
use oboro_ckks::MaskedCodebook;
use oboro_protocol::{Failure, Reason, v1, validate};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Shared {
    pub(crate) async fn release(
        self: &Arc<Self>,
        request: v1::ReleaseRequest,
        peer: &PeerInfo,
    ) -> Result<Bytes, Failure> {
        let state = IndexState::parse(request.state.as_ref())?;
        check_subject(peer, &state.index_id)?;
        let share = self
            .with_state(move |shared| shared.stale(shared.state.release(&state)))
            .await?;
        Ok(Bytes::copy_from_slice(&*share.to_bytes()))
    }

    pub(crate) async fn register(
        self: &Arc<Self>,
        request: v1::RegisterRequest,
        peer: &PeerInfo,
    ) -> Result<v1::IndexState, Failure> {
        let state = IndexState::parse(request.state.as_ref())?;
        let ancestors = validate::ancestors(&request.ancestors)?;
        check_subject(peer, &state.index_id)?;
        let descent = self
            .with_state(move |shared| {
                let rng = &mut shared.randomness.generator();
                shared.stale(shared.state.register(&state, &ancestors, rng))
            })
            .await?;
        tracing::info!(
            peer = peer.short_key(),
            role = %peer.role,
            epoch = state.epoch,
            generation = state.generation,
            "state registered"
        );
        if descent == Descent::Unknown {
            self.metrics.undescended.fetch_add(1, Relaxed);
            tracing::warn!(
                generation = state.generation,
                "the state is so much later than the one before it that it does not name that any more; it is believed by its number"
            );
        }
        Ok(state.message())
    }

    /// Counts states that are refused as older or forked, and tells the operator.
    fn stale<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result
            && failure.reason == Reason::Stale
        {
            self.metrics.stale.fetch_add(1, Relaxed);
            tracing::warn!(reason = %failure, "state of an index refused");
        }
        result
    }

    pub(crate) async fn new_key(
        self: &Arc<Self>,
        request: v1::NewKeyRequest,
        peer: &PeerInfo,
    ) -> Result<Bytes, Failure> {
        let index_id = validate::index_id(&request.index_id)?;
        let from = validate::digest(&request.from_fingerprint, "key's fingerprint")?;
        let pair = self
            .with_state(move |shared| {
                let rng = &mut shared.randomness.generator();
                let set = &request.parameter_set;
                let pair = shared.state.new_key(set, &index_id, &from, rng)?;
                shared.attest_keys();
                Ok(pair)
            })
            .await?;
        tracing::info!(peer = peer.short_key(), "rotation opened");
        Ok(pair.public_bytes.clone())
    }

    pub(crate) async fn reencrypt(
        self: &Arc<Self>,
        request: v1::ReencryptRequest,
        peer: &PeerInfo,
    ) -> Result<Bytes, Failure> {
        let index_id = validate::index_id(&request.index_id)?;
        let from = validate::digest(&request.from_fingerprint, "old key's fingerprint")?;
        let to = validate::digest(&request.to_fingerprint, "new key's fingerprint")?;
        check_subject(peer, &index_id)?;
        // Before the blocks are looked at: without a rotation they are nobody's concern.
        self.state.check_open(&index_id, &from, &to)?;
        let set = self.state.key(&from)?.parameter_set();
        let packing = packing_of(request.packing.as_ref(), set)?;
        let permit = self.turn().await?;
        let blocks = self
            .with_state(move |shared| {
                let _permit = permit;
                let masked =
                    MaskedCodebook::from_bytes(&packing, &request.blocks).map_err(malformed)?;
                let rng = &mut shared.randomness.generator();
                let reencrypted = shared
                    .state
                    .reencrypt(&index_id, &from, &to, &masked, rng)?;
                Ok(Bytes::from(reencrypted.to_bytes()))
            })
            .await?;
        self.metrics.reencrypted.fetch_add(1, Relaxed);
        tracing::info!(
            searcher = peer.short_key(),
            bytes = blocks.len(),
            "codebook re-encrypted"
        );
        Ok(blocks)
    }

    pub(crate) async fn retire(
        self: &Arc<Self>,
        request: v1::RetireKeyRequest,
        peer: &PeerInfo,
    ) -> Result<(), Failure> {
        let fingerprint = validate::digest(&request.fingerprint, "key's fingerprint")?;
        self.with_state(move |shared| {
            shared.refuse_served(&fingerprint)?;
            let rng = &mut shared.randomness.generator();
            shared.state.retire(&fingerprint, rng)?;
            shared.attest_keys();
            shared.prepared.forget(&fingerprint);
            shared.generations.forget(&fingerprint);
            Ok(())
        })
        .await?;
        tracing::info!(peer = peer.short_key(), "key retired");
        Ok(())
    }

    /// A key goes for ever, and with it every index under it. Several may be: all those of
    /// an owner begin under one key. What was prepared since the start is known here.
    fn refuse_served(&self, fingerprint: &[u8; 32]) -> Result<(), Failure> {
        let newest = |index: &[u8; 16]| self.state.newest(index).map(|state| state.epoch);
        let served = self.prepared.served_under(fingerprint);
        if served
            .iter()
            .any(|(index, epoch)| newest(index) == Some(*epoch))
        {
            return Err(Failure::new(
                Reason::BadRequest,
                "an index that this keeper serves is encrypted under this key; rotate that one first, or start the keeper anew if it is no longer in use",
            ));
        }
        Ok(())
    }
}
