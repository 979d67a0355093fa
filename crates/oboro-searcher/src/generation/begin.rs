//! How a generation is begun, and one that was interrupted found again.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use oboro_channel::PeerInfo;
use oboro_index::IndexHead;
use oboro_protocol::{
    Reason,
    generation::{IDLE_LIFETIME, v1},
    validate,
};

use super::{
    codebook::Codebook,
    keeper::GenerationKeeper,
    open::{Generation, Phase, Session},
    refused,
    shape::{Plan, Shape},
    shared::Shared,
    training::Trained,
};
use crate::{SearcherError, keeper::Keeper};

/// The epoch of a new index.
pub(super) const FIRST_EPOCH: u64 = 1;

impl Shared {
    pub(super) async fn begin(
        &self,
        request: v1::GeneratorBeginRequest,
        owner: &PeerInfo,
    ) -> Result<v1::GeneratorBeginReply, SearcherError> {
        let token = validate::session(&request.session)?;
        let _one = self.writing.lock().await;
        if self.finished.borrow().is_some() {
            return Err(refused(
                Reason::Busy,
                "the index is made; it is about to be served",
            ));
        }
        let shape = Shape::parse(request.shape.as_ref())?;
        let plan = Plan::parse(&request, &shape)?;
        let present = self.open().clone();
        let again = present
            .as_ref()
            .filter(|open| open.plan.digest == plan.digest);
        if again.is_none() {
            self.refuse_beside(present.as_ref(), &plan, owner)?;
        }
        let keeper = Keeper::connect(&self.access).await?;
        if !keeper.holds(&plan.public_key.fingerprint()) {
            return Err(SearcherError::KeeperUntrusted(
                "it does not hold the key that the index is to be encrypted for".to_owned(),
            ));
        }
        let session = Session {
            token,
            owner: owner.spki_sha256,
            keeper: GenerationKeeper::new(&keeper, Bytes::copy_from_slice(&token)),
        };
        if let Some(open) = again {
            let same = open.session().token == token;
            // A keeper that was started again has no sample: the training begins anew.
            if same || matches!(*open.phase(), Phase::Trained(_)) {
                *open.session() = session;
                open.touch(Instant::now());
                return Ok(open.standing());
            }
        }
        let seed = self.key.generation_seed(&shape.index_id);
        let now = Instant::now();
        let generation = Generation::new(session, shape, plan, seed, self.threads, now);
        if let Some(open) = present {
            // Its lock on the draft goes with it.
            open.bench.cancel();
            *self.open() = None;
            drop(open);
        }
        self.find_draft(&generation, &keeper).await?;
        let standing = generation.standing();
        *self.open() = Some(Arc::new(generation));
        tracing::info!(
            owner = owner.short_key(),
            segments = standing.segments,
            "generation opened"
        );
        Ok(standing)
    }

    /// Another generation is not begun beside one that another owner's certificate began
    /// and may come back to. One's own is given up for it.
    fn refuse_beside(
        &self,
        present: Option<&Arc<Generation>>,
        plan: &Plan,
        owner: &PeerInfo,
    ) -> Result<(), SearcherError> {
        let other = |key: &[u8; 32]| *key != owner.spki_sha256;
        let open = present.is_some_and(|open| {
            other(&open.session().owner) && open.idle(Instant::now()) < IDLE_LIFETIME
        });
        let draft = self.place.draft(SystemTime::now());
        let waiting = draft.is_some_and(|draft| {
            let head = draft.head();
            head.plan != plan.digest && other(&head.owner)
        });
        if !open && !waiting {
            return Ok(());
        }
        Err(refused(
            Reason::Busy,
            "another owner's certificate has a generation open here; let it end or give it up, or wait until it expires",
        ))
    }

    /// Goes on with the draft on disk, if it is of this generation.
    async fn find_draft(
        &self,
        generation: &Generation,
        keeper: &Keeper,
    ) -> Result<(), SearcherError> {
        let Some(sealed) = self.place.draft(SystemTime::now()) else {
            return Ok(());
        };
        if sealed.head().plan != generation.plan.digest {
            return Ok(());
        }
        let index_id = generation.shape.index_id;
        let share = keeper.release(&new_index(index_id)).await?;
        let key = self.key.for_epoch(Some(&share), &index_id, FIRST_EPOCH);
        let draft = match self.place.open(key) {
            Ok(draft) => draft,
            Err(error) => {
                // It is made again from the sample.
                tracing::warn!(%error, "the draft of an interrupted generation does not open");
                return Ok(());
            }
        };
        let public_key = generation.plan.public_key.clone();
        let (codebook, gains) =
            Codebook::again(sealed, &self.key, public_key, &generation.keeper()).await?;
        let index = draft.index();
        let trained = Trained {
            codebook,
            gains,
            table_scale: index.descriptor().scale,
            search_digest: index.descriptor().codebook_digest,
            fresh: None,
        };
        generation.resume(Arc::new(trained), draft);
        Ok(())
    }
}

/// An index that begins to be.
pub(super) const fn new_index(index_id: [u8; 16]) -> IndexHead {
    IndexHead {
        index_id,
        epoch: FIRST_EPOCH,
        generation: 1,
        manifest_digest: [0; 32],
        released: true,
    }
}

impl Generation {
    /// How far it is; a training that failed may be started again.
    fn standing(&self) -> v1::GeneratorBeginReply {
        let (training, trained) = {
            let mut phase = self.phase();
            if matches!(*phase, Phase::Failed(_)) {
                *phase = Phase::Sampling;
            }
            (
                matches!(*phase, Phase::Training),
                matches!(*phase, Phase::Trained(_)),
            )
        };
        v1::GeneratorBeginReply {
            training,
            trained,
            segments: self.staged(),
        }
    }
}
