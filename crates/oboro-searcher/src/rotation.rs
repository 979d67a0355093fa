//! Rotation of the decryption key: the codebook under another key, seen by
//! nobody.
//!
//! `BeginRotation` masks the codebook, has the keeper re-encrypt it, and takes
//! the mask off; the result waits in memory for the descriptor that only the
//! owner can make. `CommitRotation` writes the new epoch in one step, registers
//! it with the keeper, and serves it beside the old one until the overlap is
//! over. Whoever is killed in between opens at the old epoch or at the new one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use oboro_ckks::reencrypt::{CodebookMasking, MaskedCodebook};
use oboro_ckks::{EncryptedCodebook, PublicKey};
use oboro_index::{Descriptor, IndexHead};
use oboro_protocol::{Failure, Reason, v1, validate};

use crate::{
    SearcherError,
    epoch::{Epoch, packing_parameters},
    folder::refused,
    searcher::Searcher,
};

/// How long a re-encrypted codebook waits for its descriptor.
const LIFETIME: Duration = Duration::from_secs(600);

/// Longest time for which an old epoch is served beside the new one.
const MOST_OVERLAP: u32 = 7 * 24 * 3_600;

/// The one rotation that may be under way.
#[derive(Default)]
pub(crate) struct Rotations(tokio::sync::Mutex<Option<Begun>>);

/// A codebook under the new key, before the owner has described it.
struct Begun {
    /// SHA-256 of the owner's TLS key: nobody else commits.
    owner: [u8; 32],
    /// The epoch it was made from.
    from: Arc<Epoch>,
    /// Fingerprint of the new key.
    fingerprint: [u8; 32],
    codebook: EncryptedCodebook,
    since: Instant,
}

impl Rotations {
    /// Only one step of one rotation at a time.
    fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Begun>>, Failure> {
        self.0.try_lock().map_err(|_| {
            Failure::new(
                Reason::Busy,
                "another rotation of this index is at work; try again when it is done",
            )
        })
    }

    /// Drops what the owner did not commit in time.
    pub(crate) fn expire(&self, now: Instant) {
        if let Ok(mut begun) = self.0.try_lock() {
            begun.take_if(|begun| now.duration_since(begun.since) >= LIFETIME);
        }
    }
}

impl Searcher {
    /// Re-encrypts the codebook of the newest epoch. An earlier rotation that
    /// was not committed is forgotten.
    pub(crate) async fn begin_rotation(
        &self,
        owner: [u8; 32],
        request: v1::BeginRotationRequest,
    ) -> Result<v1::BeginRotationReply, SearcherError> {
        let mut slot = self.rotations.lock()?;
        *slot = None;
        let epoch = self.newest()?;
        validate::served_index(&request.index_id, request.epoch, epoch.id(), epoch.number())?;
        let link = self
            .link
            .as_ref()
            .filter(|_| epoch.snapshot().head().released);
        let link = link.ok_or(SearcherError::NoRotation)?;
        self.changes.folder.look(|_| ())?;
        let (old, new) = (
            epoch.shape().public_key.fingerprint(),
            new_key(&epoch, &request.public_key)?,
        );

        let masking = {
            let (epoch, mut rng) = (Arc::clone(&epoch), self.workshop.randomness.generator());
            move || {
                let (masked, keep) =
                    CodebookMasking::mask(&epoch.snapshot().index().codebook()?, &mut rng);
                Ok::<_, SearcherError>((masked.to_bytes(), keep))
            }
        };
        let (blocks, keep) = blocking(masking).await?;
        let request = v1::ReencryptRequest {
            index_id: epoch.id().to_vec().into(),
            from_fingerprint: old.to_vec().into(),
            to_fingerprint: new.to_vec().into(),
            packing: Some(packing_parameters(&epoch.shape().packing)),
            blocks: blocks.into(),
        };
        let blocks = link.keeper().await?.reencrypt(request).await?;
        let packing = epoch.shape().packing;
        let codebook = blocking(move || {
            let masked = MaskedCodebook::from_bytes(&packing, &blocks).map_err(bad_answer)?;
            keep.unmask(masked).map_err(bad_answer)
        })
        .await?;

        let reply = v1::BeginRotationReply {
            descriptor: epoch.descriptor(),
            codebook_digest: codebook.masks().digest().to_vec().into(),
        };
        *slot = Some(Begun {
            owner,
            from: epoch,
            fingerprint: new,
            codebook,
            since: Instant::now(),
        });
        tracing::info!("codebook re-encrypted; waiting for its descriptor");
        Ok(reply)
    }

    /// Writes, registers and serves the new epoch; returns its number.
    pub(crate) async fn commit_rotation(
        self: Arc<Self>,
        owner: [u8; 32],
        request: v1::CommitRotationRequest,
    ) -> Result<u64, SearcherError> {
        if request.overlap_seconds > MOST_OVERLAP {
            return Err(Failure::new(
                Reason::Limit,
                format!(
                    "the old epoch would be served for {} more seconds; at most {MOST_OVERLAP} are allowed",
                    request.overlap_seconds
                ),
            )
            .into());
        }
        let overlap = Duration::from_secs(request.overlap_seconds.into());
        let mut slot = self.rotations.lock()?;
        let of_this_owner = |begun: &Begun| begun.owner == owner;
        let unknown = || {
            Failure::new(
                Reason::UnknownSession,
                "no rotation was begun here by this owner, or it has expired; begin it again",
            )
        };
        let begun = slot.as_ref().filter(|begun| of_this_owner(begun));
        let begun = begun.ok_or_else(unknown)?;
        let link = self.link.as_ref().ok_or(SearcherError::NoRotation)?;
        described(begun, &request.descriptor)?;

        // No commit comes between the state that is looked at here and the next.
        let _one = self.changes.one.lock().await;
        // The state of the new epoch does not exist yet; that it is newer than
        // the present one is what the keeper checks.
        let head = begun.from.snapshot().head();
        let share = link
            .keeper()
            .await?
            .release(&IndexHead {
                epoch: head.epoch.saturating_add(1),
                generation: head.generation.saturating_add(1),
                manifest_digest: [0; 32],
                ..head
            })
            .await?;
        // Up to here the owner may send the same once more.
        let begun = slot.take().ok_or_else(unknown)?;
        let writing = Arc::clone(&self);
        // Sealed under the key of the epoch that ends: they have to come again.
        self.changes.stages.clear();
        let epoch = blocking(move || {
            let next = head.epoch.saturating_add(1);
            let key = writing.key.for_epoch(Some(&share), &head.index_id, next);
            let mut rng = writing.workshop.randomness.generator();
            let folder = &writing.changes.folder;
            // Most of the work, beside which segments can be staged.
            let epoch = folder
                .look(|live| {
                    live.begin_epoch(&key, &request.descriptor, &begun.codebook, &mut rng)
                })?
                .map_err(refused)?;
            let index = folder.change(|live| live.commit_epoch(epoch, key))?;
            begun.from.next(index, &writing.workshop)
        })
        .await?;
        let epoch = Arc::new(epoch);
        tracing::info!(epoch = epoch.number(), "new epoch written");

        // On disk it is the newest state: it is served whether or not the
        // keeper can be told now, and told when that is possible again.
        let recorded = link.serve(Arc::clone(&epoch)).await;
        if let Err(error @ SearcherError::Stale(_)) = recorded {
            link.forget(&epoch);
            return Err(error);
        }
        self.attest(&epoch);
        let number = epoch.number();
        self.shelf.serve(epoch, overlap, Instant::now());
        match recorded {
            Ok(()) => Ok(number),
            Err(error) => Err(SearcherError::Unrecorded {
                epoch: number,
                cause: error.to_string(),
            }),
        }
    }
}

/// The fingerprint of a key to which `epoch` can be re-encrypted.
fn new_key(epoch: &Epoch, bytes: &[u8]) -> Result<[u8; 32], Failure> {
    let bad = |sentence: String| Failure::new(Reason::BadRequest, sentence);
    let key = PublicKey::from_bytes(bytes).map_err(|error| bad(error.to_string()))?;
    let (new, set) = (key.parameter_set(), epoch.shape().packing.set());
    if new != set {
        return Err(bad(format!(
            "the new key is of the set {} and the index of {}; make a key of the same set",
            new.name(),
            set.name()
        )));
    }
    let fingerprint = key.fingerprint();
    if fingerprint == epoch.shape().public_key.fingerprint() {
        return Err(bad(
            "the index is encrypted under this key already; make a new one".to_owned(),
        ));
    }
    Ok(fingerprint)
}

/// Checks that the owner describes what was begun; `oboro-index` compares all
/// else with the present descriptor.
fn described(begun: &Begun, descriptor: &[u8]) -> Result<(), Failure> {
    let bad = |sentence: String| Failure::new(Reason::BadRequest, sentence);
    let next =
        Descriptor::from_trusted_bytes(descriptor).map_err(|error| bad(error.to_string()))?;
    begun
        .from
        .shape()
        .check_next(&next)
        .map_err(|error| bad(error.to_string()))?;
    if next.public_key.fingerprint() != begun.fingerprint
        || next.codebook_digest != begun.codebook.masks().digest()
    {
        return Err(bad(
            "the new descriptor is of another key or codebook than the rotation that was begun; begin it again"
                .to_owned(),
        ));
    }
    Ok(())
}

fn bad_answer(error: oboro_ckks::CkksError) -> SearcherError {
    SearcherError::KeeperRefused(format!("its re-encrypted codebook is malformed: {error}"))
}

/// Runs `work` where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearcherError> + Send + 'static,
) -> Result<T, SearcherError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| SearcherError::Stopping)?
}
