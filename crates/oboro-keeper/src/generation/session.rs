//! One generation at the keeper, and the table of those that are open.

use super::shape::Shape;
use crate::shared::malformed;
use crate::state::KeyPair;
use oboro_ckks::{
    BatchScale, BatchTableShare, DerivedRandomness, Labels, MaskedBatch, MaskedOffsets, MeanShares,
    PreparedBatchCodebook, SampleShares, TableScale,
};
use oboro_protocol::generation::{IDLE_LIFETIME, SESSION_LIFETIME};
use oboro_protocol::{Failure, Reason};
use rand_core::CryptoRng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use zeroize::Zeroizing;

/// Generations open at the same time.
const MAX_SESSIONS: usize = 4;

pub(super) type Token = [u8; 16];

/// The generations that are open.
#[derive(Default)]
pub(crate) struct Generations(Mutex<HashMap<Token, Open>>);

struct Open {
    session: Arc<Session>,
    began: Instant,
    used: Instant,
}

impl Generations {
    fn table(&self) -> MutexGuard<'_, HashMap<Token, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets generations whose time is over.
    pub(crate) fn expire(&self, now: Instant) {
        self.table().retain(|_, open| {
            let age = now.saturating_duration_since(open.began);
            let idle = now.saturating_duration_since(open.used);
            age < SESSION_LIFETIME && idle < IDLE_LIFETIME
        });
    }

    /// Opens a generation.
    pub(super) fn begin(
        &self,
        token: Token,
        session: Session,
        now: Instant,
    ) -> Result<(), Failure> {
        self.expire(now);
        let mut table = self.table();
        if table.len() >= MAX_SESSIONS {
            // An owner that begins yet another one has most likely lost the oldest.
            let oldest = table
                .iter()
                .filter(|(_, open)| open.session.owner == session.owner)
                .min_by_key(|(_, open)| open.used)
                .map(|(token, _)| *token);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        if table.len() >= MAX_SESSIONS {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{MAX_SESSIONS} generations of other owners are open at this keeper; try again later"
                ),
            ));
        }
        let open = Open {
            session: Arc::new(session),
            began: now,
            used: now,
        };
        table.insert(token, open);
        Ok(())
    }

    fn find(&self, token: &Token, now: Instant) -> Result<Arc<Session>, Failure> {
        self.expire(now);
        let mut table = self.table();
        let open = table.get_mut(token).ok_or_else(unknown)?;
        open.used = now;
        Ok(Arc::clone(&open.session))
    }

    /// The generation of this owner.
    pub(super) fn of_owner(
        &self,
        token: &Token,
        owner: &[u8; 32],
        now: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.find(token, now)?;
        if session.owner == *owner {
            Ok(session)
        } else {
            Err(unknown())
        }
    }

    /// The generation, for a searcher that shows it: the first, and from then on that
    /// one only.
    pub(super) fn of_searcher(
        &self,
        token: &Token,
        searcher: &[u8; 32],
        now: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.find(token, now)?;
        let mut work = session.work();
        if *work.searcher.get_or_insert(*searcher) != *searcher {
            return Err(unknown());
        }
        drop(work);
        Ok(session)
    }

    /// Forgets a generation of this owner.
    pub(super) fn end(&self, token: &Token, owner: &[u8; 32], now: Instant) -> Result<(), Failure> {
        self.of_owner(token, owner, now)?;
        self.table().remove(token);
        Ok(())
    }
}

/// It is not told which of the reasons holds.
fn unknown() -> Failure {
    Failure::new(
        Reason::UnknownSession,
        "the generation is unknown, over, or another party's; begin it again",
    )
}

fn out_of_order(sentence: &str) -> Failure {
    Failure::new(Reason::BadRequest, sentence)
}

/// One generation.
///
/// # Security
/// Shares, means and prepared codebooks are zeroized when the last request lets go of it.
pub(super) struct Session {
    pub(super) shape: Shape,
    pub(super) pair: Arc<KeyPair>,
    /// The TLS key of the owner.
    owner: [u8; 32],
    randomness: DerivedRandomness,
    work: Mutex<Work>,
}

struct Work {
    /// The TLS key of the searcher, once one has shown the session.
    searcher: Option<[u8; 32]>,
    shares: Arc<Mutex<Received>>,
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
            shares: Arc::new(Mutex::new(received)),
            newest: None,
            codebooks_left: shape.codebooks(),
            blocks_left: shape.table_blocks(),
        };
        Self {
            shape,
            pair,
            owner,
            randomness: DerivedRandomness::new(seed),
            work: Mutex::new(work),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next piece of shares; one that is there already is passed over.
    pub(super) fn append(&self, offset: u64, piece: &[u8]) -> Result<u64, Failure> {
        let shares = Arc::clone(&self.work().shares);
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
        let p = &self.shape.batches;
        let scale = BatchScale::from_bytes(p, scale).map_err(malformed)?;
        check_flooding(scale.flooding_bits(), minimum_flooding_bits)?;
        let samples = self.shape.bounds.samples();
        let labels = Labels::from_bytes(p, samples, labels).map_err(malformed)?;
        let shares = {
            let mut work = self.work();
            work.codebooks_left = spend(work.codebooks_left, 1, "codebooks")?;
            Arc::clone(&work.shares)
        };
        let means = {
            let received = shares.lock().unwrap_or_else(PoisonError::into_inner);
            received.shares.means(&labels).map_err(malformed)?
        };
        let mut rng = self
            .randomness
            .codebook(&self.pair.decryptor, &scale, &labels);
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
        let p = &self.shape.batches;
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

    /// The newest means in the form for searching.
    pub(super) fn codebook(
        &self,
        scale: &[u8],
        offsets: &[u8],
        minimum_flooding_bits: f64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, Failure> {
        let packing = &self.shape.packing;
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
        self.pair
            .decryptor
            .encrypt_search_codebook(&newest.means, packing, &scale, &offsets, rng)
            .map(|codebook| codebook.to_bytes())
            .map_err(malformed)
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
