//! One generation at the keeper, and the table of those that are open.

use super::shape::Shape;
use crate::shared::malformed;
use crate::state::KeyPair;
use oboro_ckks::{
    BatchPacking, BatchScale, BatchTableShare, CkksError, DerivedRandomness, Labels, MaskedBatch,
    MaskedOffsets, MeanShares, PreparedBatchCodebook, SampleShares, TableScale,
};
use oboro_protocol::generation::{IDLE_LIFETIME, SESSION_LIFETIME};
use oboro_protocol::{Failure, Reason};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use zeroize::Zeroizing;

/// Generations open at the same time.
const MAX_SESSIONS: usize = 4;

/// Codebooks of earlier trainings in use at the same time; each holds some 20 MB.
const MAX_INSTALLED: usize = 8;

pub(super) type Token = [u8; 16];

/// The generations that are open, and the codebooks of earlier ones that are in use.
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

    /// Opens a generation, or finds the one that this owner opened for the same index
    /// and shape: what it has brought is still there, and may be asked for anew.
    pub(super) fn begin(
        &self,
        token: Token,
        session: Session,
        now: Instant,
    ) -> Result<Token, Failure> {
        self.expire(now);
        let mut table = self.table();
        let of_owner =
            |open: &Open| open.session.training.is_some() && open.session.owner == session.owner;
        let again = |open: &Open| of_owner(open) && open.session.index_id == session.index_id;
        let known = table.iter_mut().find(|(_, open)| again(open));
        if let Some((token, open)) = known {
            if open.session.is_alike(&session) {
                open.session.renew();
                open.used = now;
                return Ok(*token);
            }
            let token = *token;
            table.remove(&token);
        }
        let trainings = |table: &HashMap<Token, Open>| {
            let trains = |open: &&Open| open.session.training.is_some();
            table.values().filter(trains).count()
        };
        if trainings(&table) >= MAX_SESSIONS {
            // An owner that begins yet another one has most likely lost the oldest.
            let oldest = table
                .iter()
                .filter(|(_, open)| of_owner(open))
                .min_by_key(|(_, open)| open.used)
                .map(|(token, _)| *token);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        if trainings(&table) >= MAX_SESSIONS {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{MAX_SESSIONS} generations of other owners are open at this keeper; try again later"
                ),
            ));
        }
        table.insert(token, Open::new(session, now));
        Ok(token)
    }

    /// Keeps a codebook of an earlier training for the searcher that showed it. The one
    /// that was not used for longest goes where there are too many: its searcher shows
    /// it again.
    pub(super) fn install(&self, token: Token, session: Session, now: Instant) {
        self.expire(now);
        let mut table = self.table();
        let searcher = session.work().searcher;
        // One of the same index and searcher is what it goes on from.
        table.retain(|_, open| {
            open.session.training.is_some()
                || open.session.index_id != session.index_id
                || open.session.work().searcher != searcher
        });
        let installed = |open: &Open| open.session.training.is_none();
        if table.values().filter(|open| installed(open)).count() >= MAX_INSTALLED {
            let oldest = table
                .iter()
                .filter(|(_, open)| installed(open))
                .min_by_key(|(_, open)| open.used)
                .map(|(token, _)| *token);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        table.insert(token, Open::new(session, now));
    }

    fn find(&self, token: &Token, now: Instant) -> Result<Arc<Session>, Failure> {
        self.expire(now);
        let mut table = self.table();
        let open = table.get_mut(token).ok_or_else(unknown)?;
        open.used = now;
        Ok(Arc::clone(&open.session))
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// The generation of this owner.
    pub(super) fn of_owner(
        &self,
        token: &Token,
        owner: &[u8; 32],
        now: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.find(token, now)?;
        if session.owner == Some(*owner) {
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

impl Open {
    fn new(session: Session, now: Instant) -> Self {
        Self {
            session: Arc::new(session),
            began: now,
            used: now,
        }
    }
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

    fn training(&self) -> Result<&Training, Failure> {
        self.training
            .as_ref()
            .ok_or_else(|| out_of_order("the training of this codebook is over"))
    }

    /// The same is to be made, under the same key.
    fn is_alike(&self, other: &Self) -> bool {
        let shapes = (&self.training, &other.training);
        let same = matches!(shapes, (Some(one), Some(two)) if one.shape == two.shape);
        same && self.pair.fingerprint == other.pair.fingerprint
    }

    /// The owner begins again where it was: all work may be asked for anew.
    fn renew(&self) {
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

/// The keeper's share of a trained codebook, and the scale to encrypt it with.
pub(super) struct Share {
    scale: BatchScale,
    means: MeanShares,
}

impl Share {
    /// Packing, scale and share: to be sealed.
    fn to_bytes(scale: &BatchScale, means: &MeanShares) -> Zeroizing<Vec<u8>> {
        let means = means.to_bytes();
        let fixed = BatchPacking::ENCODED_LEN + BatchScale::ENCODED_LEN;
        let mut out = Zeroizing::new(Vec::with_capacity(fixed + means.len()));
        out.extend_from_slice(&scale.packing().to_bytes());
        out.extend_from_slice(&scale.to_bytes());
        out.extend_from_slice(&means);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        let short = || CkksError::Value("the share of a codebook");
        let (packing, rest) = bytes
            .split_at_checked(BatchPacking::ENCODED_LEN)
            .ok_or_else(short)?;
        let (scale, means) = rest
            .split_at_checked(BatchScale::ENCODED_LEN)
            .ok_or_else(short)?;
        let packing = BatchPacking::from_bytes(packing)?;
        Ok(Self {
            scale: BatchScale::from_bytes(&packing, scale)?,
            means: MeanShares::from_bytes(&packing, means)?,
        })
    }
}

/// The number of the one codebook of a session without training.
pub(super) const INSTALLED: u32 = 1;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oboro_ckks::{MaskSeed, ParameterSet, SampleBounds, SecretKey, TrainingSample};
    use rand_core::SeedableRng;
    use std::time::Duration;

    const OWNER: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    struct World {
        pair: Arc<KeyPair>,
        packing: BatchPacking,
        bounds: SampleBounds,
        share: Vec<u8>,
        now: Instant,
    }

    fn rng(seed: u8) -> chacha20::ChaCha20Rng {
        chacha20::ChaCha20Rng::from_seed([seed; 32])
    }

    impl World {
        fn new() -> Self {
            let set = ParameterSet::N2048Q50;
            let secret = SecretKey::generate(set, &mut rng(1));
            let public = secret.public_key(&mut rng(2));
            let packing = BatchPacking::new(set, 4, 3, 16).unwrap();
            let values: Vec<f32> = (0..20 * packing.vector_len()).map(|x| x as f32).collect();
            let sample = TrainingSample::new(&packing, &values, &mut rng(3)).unwrap();
            let mut labels = vec![0; 2 * 4 * 20];
            for (index, label) in labels.chunks_exact_mut(2).enumerate() {
                label[0] = (index % 20 % 16) as u8;
            }
            let labels = Labels::from_bytes(&packing, 20, &labels).unwrap();
            let seed = MaskSeed::generate(&mut rng(4));
            let means = seed.means(&packing, &sample.bounds(), &labels).unwrap();
            Self {
                pair: Arc::new(KeyPair::new(secret, public).unwrap()),
                bounds: *&sample.bounds(),
                share: Share::to_bytes(&sample.bounds().scale(&packing).unwrap(), &means).to_vec(),
                packing,
                now: Instant::now(),
            }
        }

        fn session(&self, index: u8, owner: [u8; 32], vectors: u64) -> Session {
            let message = oboro_protocol::generation::v1::Shape {
                index_id: vec![index; 16].into(),
                batch_packing: self.packing.to_bytes().to_vec().into(),
                split: 1,
                bounds: self.bounds.to_bytes().to_vec().into(),
                rounds: 2,
                vectors,
                segments: 1,
            };
            let shape = Shape::parse(Some(&message), self.packing.set()).unwrap();
            Session::new(
                shape,
                Arc::clone(&self.pair),
                owner,
                Zeroizing::new([7; 32]),
            )
        }

        fn installed(&self, index: u8, searcher: u8) -> Session {
            let share = Share::from_bytes(&self.share).unwrap();
            let (pair, seed) = (Arc::clone(&self.pair), Zeroizing::new([7; 32]));
            Session::install([index; 16], pair, [searcher; 32], seed, share, 0.0)
                .unwrap()
                .0
        }
    }

    #[test]
    fn an_owner_that_never_comes_back_is_forgotten() {
        let world = World::new();
        let table = Generations::default();
        table
            .begin([1; 16], world.session(1, OWNER, 9), world.now)
            .unwrap();
        table.install([2; 16], world.installed(2, 8), world.now);
        assert_eq!(table.len(), 2);
        // One that is asked for something stays.
        let early = world.now + IDLE_LIFETIME - Duration::from_secs(1);
        table.of_owner(&[1; 16], &OWNER, early).unwrap();
        table.expire(world.now + IDLE_LIFETIME);
        assert_eq!(table.len(), 1);
        table.expire(early + IDLE_LIFETIME);
        assert_eq!(table.len(), 0);
        // And none stays longer than a day, however busy.
        table
            .begin([1; 16], world.session(1, OWNER, 9), world.now)
            .unwrap();
        let mut now = world.now;
        while now < world.now + SESSION_LIFETIME - IDLE_LIFETIME {
            now += IDLE_LIFETIME / 2;
            table.of_owner(&[1; 16], &OWNER, now).unwrap();
        }
        let end = world.now + SESSION_LIFETIME;
        assert!(table.of_owner(&[1; 16], &OWNER, end).is_err());
    }

    #[test]
    fn the_same_owner_finds_what_it_began_and_nobody_else_does() {
        let world = World::new();
        let table = Generations::default();
        let begin = |token, index, owner, vectors| {
            table.begin([token; 16], world.session(index, owner, vectors), world.now)
        };
        assert_eq!(begin(1, 1, OWNER, 9).unwrap(), [1; 16]);
        table
            .of_owner(&[1; 16], &OWNER, world.now)
            .unwrap()
            .append(0, &[5; 13])
            .unwrap();
        assert_eq!(begin(2, 1, OWNER, 9).unwrap(), [1; 16]);
        let found = table.of_owner(&[1; 16], &OWNER, world.now).unwrap();
        assert_eq!(found.append(0, &[]).unwrap(), 13);
        // Of another shape it is another one, and another owner has its own.
        assert_eq!(begin(3, 1, OWNER, 10).unwrap(), [3; 16]);
        assert!(table.of_owner(&[1; 16], &OWNER, world.now).is_err());
        assert_eq!(begin(4, 1, OTHER, 10).unwrap(), [4; 16]);
        assert!(table.of_owner(&[3; 16], &OTHER, world.now).is_err());
        // An owner gives its own up for a fifth, and none of another's.
        for index in 2..8 {
            begin(10 + index, index, OWNER, 9).unwrap();
        }
        assert!(table.of_owner(&[4; 16], &OTHER, world.now).is_ok());
    }

    #[test]
    fn fail_shares_cut_or_longer() {
        let world = World::new();
        assert!(Share::from_bytes(&world.share).is_ok());
        for length in 0..world.share.len() {
            assert!(Share::from_bytes(&world.share[..length]).is_err());
        }
        let mut long = world.share.clone();
        long.push(0);
        assert!(Share::from_bytes(&long).is_err());
        let (pair, seed) = (Arc::clone(&world.pair), Zeroizing::new([7; 32]));
        let share = Share::from_bytes(&world.share).unwrap();
        assert!(Session::install([1; 16], pair, [8; 32], seed, share, 99.0).is_err());
    }

    #[test]
    fn fail_installed_codebooks_beyond_what_a_keeper_holds() {
        let world = World::new();
        let table = Generations::default();
        for index in 0..=MAX_INSTALLED as u8 {
            let now = world.now + Duration::from_secs(index.into());
            table.install([index; 16], world.installed(index, 8), now);
        }
        assert_eq!(table.len(), MAX_INSTALLED);
        let later = world.now + Duration::from_secs(20);
        assert!(table.of_searcher(&[0; 16], &[8; 32], later).is_err());
        assert!(table.of_searcher(&[1; 16], &[9; 32], later).is_err());
        let session = table.of_searcher(&[1; 16], &[8; 32], later).unwrap();
        assert!(session.append(0, &[1]).is_err());
        assert!(session.means(&[], &[], 0.0).is_err());
        assert!(session.codebook(&[], &[], 0.0).is_err());
        // Shown again, it takes the place of the one before.
        table.install([99; 16], world.installed(1, 8), later);
        assert_eq!(table.len(), MAX_INSTALLED);
        assert!(table.of_searcher(&[1; 16], &[8; 32], later).is_err());
    }
}
