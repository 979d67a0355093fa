//! One generation at the keeper.

use super::shape::Shape;
use super::share::Share;
use crate::shared::malformed;
use crate::state::KeyPair;
use oboro_ckks::{
    BatchPacking, BatchScale, BatchTableShare, DerivedRandomness, Labels, MaskedBatch,
    MaskedOffsets, MeanShares, PreparedBatchCodebook, SampleShares, TableScale,
};
use oboro_protocol::{Failure, Reason};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// The number of the one codebook of a session without training.
pub(super) const INSTALLED: u32 = 1;

fn out_of_order(sentence: &str) -> Failure {
    Failure::new(Reason::BadRequest, sentence)
}

/// One generation, or the codebook of an earlier one.
///
/// # Security
/// Shares, means and prepared codebooks are zeroized when the last request lets go of it.
pub(super) struct Session {
    pub(super) index_id: [u8; 16],
    pub(super) batches: BatchPacking,
    pub(super) pair: Arc<KeyPair>,
    /// The TLS key of the owner who trains.
    owner: Option<[u8; 32]>,
    randomness: DerivedRandomness,
    /// What is trained; none for a codebook of an earlier training.
    training: Option<Training>,
    work: Mutex<Work>,
}

struct Training {
    shape: Shape,
    shares: Mutex<Received>,
}

struct Work {
    /// The TLS key of the searcher, once one has shown the session.
    searcher: Option<[u8; 32]>,
    newest: Option<Newest>,
    codebooks_left: u64,
    blocks_left: u64,
}

/// The keeper's shares, as far as they came.
struct Received {
    shares: SampleShares,
    bytes: u64,
}

/// The newest means.
#[derive(Clone)]
struct Newest {
    number: u32,
    means: Arc<MeanShares>,
    prepared: Arc<PreparedBatchCodebook>,
}

impl Session {
    pub(super) fn new(
        shape: Shape,
        pair: Arc<KeyPair>,
        owner: [u8; 32],
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        let received = Received {
            shares: SampleShares::new(&shape.batches, shape.bounds),
            bytes: 0,
        };
        let work = Work {
            searcher: None,
            newest: None,
            codebooks_left: shape.codebooks(),
            blocks_left: shape.table_blocks(),
        };
        Self {
            index_id: shape.index_id,
            batches: shape.batches,
            pair,
            owner: Some(owner),
            randomness: DerivedRandomness::new(seed),
            training: Some(Training {
                shape,
                shares: Mutex::new(received),
            }),
            work: Mutex::new(work),
        }
    }

    /// The codebook of an earlier training of `index_id`, whose share this is, for one
    /// searcher; and the same, encrypted for it.
    pub(super) fn install(
        index_id: [u8; 16],
        pair: Arc<KeyPair>,
        searcher: [u8; 32],
        seed: Zeroizing<[u8; 32]>,
        share: Share,
        minimum_flooding_bits: f64,
    ) -> Result<(Self, Vec<u8>), Failure> {
        let Share { scale, means } = share;
        check_flooding(scale.flooding_bits(), minimum_flooding_bits)?;
        let randomness = DerivedRandomness::new(seed);
        let mut rng = randomness.codebook(&pair.decryptor, &scale, &means);
        let (masked, prepared) = pair
            .decryptor
            .encrypt_batch_codebook(&means, &scale, &mut rng)
            .map_err(malformed)?;
        let work = Work {
            searcher: Some(searcher),
            newest: Some(Newest {
                number: INSTALLED,
                means: Arc::new(means),
                prepared: Arc::new(prepared),
            }),
            // The rate of tables bounds a searcher that serves.
            codebooks_left: 0,
            blocks_left: u64::MAX,
        };
        let session = Self {
            index_id,
            batches: *scale.packing(),
            pair,
            owner: None,
            randomness,
            training: None,
            work: Mutex::new(work),
        };
        Ok((session, masked.to_bytes()))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a codebook is trained, and not one of an earlier training in use.
    pub(super) const fn trains(&self) -> bool {
        self.training.is_some()
    }

    /// The TLS key of the owner who trains.
    pub(super) const fn owner(&self) -> Option<&[u8; 32]> {
        self.owner.as_ref()
    }

    /// The TLS key of the searcher, once one has shown the session.
    pub(super) fn searcher(&self) -> Option<[u8; 32]> {
        self.work().searcher
    }

    /// Whether the searcher that shows it is the first, or the one that was.
    pub(super) fn is_shown_by(&self, searcher: &[u8; 32]) -> bool {
        self.work().searcher.get_or_insert(*searcher) == searcher
    }

    fn training(&self) -> Result<&Training, Failure> {
        self.training
            .as_ref()
            .ok_or_else(|| out_of_order("the training of this codebook is over"))
    }

    /// The same is to be made, under the same key.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let shapes = (&self.training, &other.training);
        let same = matches!(shapes, (Some(one), Some(two)) if one.shape == two.shape);
        same && self.pair.fingerprint == other.pair.fingerprint
    }

    /// The owner begins again where it was: all work may be asked for anew.
    pub(super) fn renew(&self) {
        let Some(Training { shape, .. }) = &self.training else {
            return;
        };
        let mut work = self.work();
        work.codebooks_left = shape.codebooks();
        work.blocks_left = shape.table_blocks();
    }

    /// Takes the next piece of shares; one that is there already is passed over.
    pub(super) fn append(&self, offset: u64, piece: &[u8]) -> Result<u64, Failure> {
        let shares = &self.training()?.shares;
        let mut received = shares.lock().unwrap_or_else(PoisonError::into_inner);
        if offset > received.bytes {
            return Err(out_of_order(&format!(
                "the shares begin at byte {offset}, and {} are there; bring them in order",
                received.bytes
            )));
        }
        if offset == received.bytes {
            received.shares.append(piece).map_err(malformed)?;
            received.bytes += piece.len() as u64;
        }
        Ok(received.bytes)
    }

    /// The encrypted means of labelled samples, and their number.
    pub(super) fn means(
        &self,
        scale: &[u8],
        labels: &[u8],
        minimum_flooding_bits: f64,
    ) -> Result<(Vec<u8>, u32), Failure> {
        let training = self.training()?;
        let p = &self.batches;
        let scale = BatchScale::from_bytes(p, scale).map_err(malformed)?;
        check_flooding(scale.flooding_bits(), minimum_flooding_bits)?;
        let samples = training.shape.bounds.samples();
        let labels = Labels::from_bytes(p, samples, labels).map_err(malformed)?;
        {
            let mut work = self.work();
            work.codebooks_left = spend(work.codebooks_left, 1, "codebooks")?;
        }
        let means = {
            let received = training
                .shares
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            received.shares.means(&labels).map_err(malformed)?
        };
        let mut rng = self
            .randomness
            .codebook(&self.pair.decryptor, &scale, &means);
        let (masked, prepared) = self
            .pair
            .decryptor
            .encrypt_batch_codebook(&means, &scale, &mut rng)
            .map_err(malformed)?;
        let mut work = self.work();
        let number = match &work.newest {
            // Asked twice, since an answer was lost: the number must stay, for whichever
            // of the two is done last.
            Some(newest) if newest.prepared.id() == prepared.id() => newest.number,
            newest => newest.as_ref().map_or(1, |newest| newest.number + 1),
        };
        work.newest = Some(Newest {
            number,
            means: Arc::new(means),
            prepared: Arc::new(prepared),
        });
        Ok((masked.to_bytes(), number))
    }

    /// The keeper's shares of the tables of some batches.
    pub(super) fn tables(
        &self,
        number: u32,
        blocks: std::ops::Range<usize>,
        batches: &[bytes::Bytes],
    ) -> Result<Vec<BatchTableShare>, Failure> {
        let newest = {
            let mut work = self.work();
            let newest = work
                .newest
                .clone()
                .filter(|newest| newest.number == number)
                .ok_or_else(|| {
                    out_of_order("the batches are about another codebook than the newest one")
                })?;
            let wanted = batches.len() as u64 * blocks.len() as u64;
            work.blocks_left = spend(work.blocks_left, wanted, "tables")?;
            newest
        };
        let p = &self.batches;
        let products = batches
            .iter()
            .map(|bytes| MaskedBatch::from_bytes(p, blocks.clone(), bytes.to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(malformed)?;
        let mut rngs: Vec<_> = products
            .iter()
            .map(|product| self.randomness.decryption(&newest.prepared, product))
            .collect();
        self.pair
            .decryptor
            .decrypt_batches(&newest.prepared, &products, &mut rngs)
            .map_err(malformed)
    }

    /// The newest means in the form for searching, and the keeper's share of them.
    pub(super) fn codebook(
        &self,
        scale: &[u8],
        offsets: &[u8],
        minimum_flooding_bits: f64,
    ) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), Failure> {
        let packing = &self.training()?.shape.packing;
        let scale = TableScale::from_bytes(packing, scale).map_err(malformed)?;
        check_flooding(scale.flooding_bits(), minimum_flooding_bits)?;
        let offsets = MaskedOffsets::from_bytes(packing, offsets).map_err(malformed)?;
        let newest = {
            let mut work = self.work();
            let newest = work
                .newest
                .clone()
                .ok_or_else(|| out_of_order("there are no means yet; send labels first"))?;
            work.codebooks_left = spend(work.codebooks_left, 1, "codebooks")?;
            newest
        };
        let decryptor = &self.pair.decryptor;
        let mut rng = self
            .randomness
            .search_codebook(decryptor, &scale, &newest.means, &offsets);
        let codebook = decryptor
            .encrypt_search_codebook(&newest.means, packing, &scale, &offsets, &mut rng)
            .map_err(malformed)?;
        let kept = Share::to_bytes(newest.prepared.scale(), &newest.means);
        Ok((codebook.to_bytes(), kept))
    }
}

/// What is left of a bounded amount of work.
fn spend(left: u64, wanted: u64, what: &str) -> Result<u64, Failure> {
    left.checked_sub(wanted).ok_or_else(|| {
        Failure::new(
            Reason::Limit,
            format!("the generation has used up its {what}; begin another one"),
        )
    })
}

fn check_flooding(bits: f64, minimum: f64) -> Result<(), Failure> {
    if bits >= minimum {
        return Ok(());
    }
    Err(Failure::new(
        Reason::BadRequest,
        format!(
            "the scale leaves {bits:.1} bits of flooding; this keeper asks for {minimum:.1}, so use keys of N4096_Q100"
        ),
    ))
}
