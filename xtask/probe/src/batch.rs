//! Encoding in private: products of a batch, the keeper's decryption, tables and
//! nearest centroids. Keys, vectors and randomness are secret.

use oboro_ckks::{
    BatchCodebook, BatchEncryptor, BatchEvaluator, BatchPacking, BatchScale, BatchSearcherShare,
    BatchTableShare, CodebookOrigin, EncryptedBatch, MaskedBatch, MaskedDecryptor, ParameterSet,
    PublicKey, SecretKey,
};
use oboro_simd::taint;

use crate::run::{Run, SecretRng};

const SUBQUANTIZERS: usize = 4;
const WIDTH: usize = 2;
const CENTROIDS: usize = 5;

/// Products and re-randomization.
pub(crate) fn evaluate(run: &Run) {
    let setup = Setup::new();
    let batch = setup.batch(run);
    let mut rngs = [run.rng()];
    let blocks = 0..setup.evaluator.packing().blocks();
    let products = run
        .region(|| setup.evaluator.evaluate(&[&batch], blocks, &mut rngs))
        .expect("the parts fit");
    for (_, masked) in products {
        run.expect_secret(&masked.to_bytes());
    }
}

/// The keeper's decryption, with a marked key and dither.
pub(crate) fn decrypt(run: &Run) {
    let setup = Setup::new();
    let (_, masked) = setup.products(run, &mut Run::plain_rng(3));
    let masks = setup.evaluator.codebook().masks();
    let scale = *setup.evaluator.scale();
    let decryptor = MaskedDecryptor::new(SecretKey::generate(scale.set(), &mut run.rng()));
    let prepared = decryptor
        .prepare_batch(scale, &masks)
        .expect("the parts fit");
    let mut dither = [run.rng()];
    let shares = run.region(|| decryptor.decrypt_batches(&prepared, &[masked], &mut dither));
    for share in shares.expect("the parts fit") {
        run.expect_secret(&share.to_bytes());
    }
}

/// Adding the shares and decoding whole tables.
pub(crate) fn tables(run: &Run) {
    let (setup, share, keeper) = Setup::shares(run);
    let tables = run
        .region(|| setup.evaluator.tables(&share, &keeper))
        .expect("the shares fit");
    run.expect_secret(&tables[..SUBQUANTIZERS * CENTROIDS]);
}

/// Adding the shares and keeping the nearest centroids.
pub(crate) fn assign(run: &Run) {
    let (setup, share, keeper) = Setup::shares(run);
    let offsets = vec![-0.01; SUBQUANTIZERS * CENTROIDS];
    let nearest = run
        .region(|| setup.evaluator.assign(&share, &keeper, &offsets))
        .expect("the shares fit");
    run.expect_secret(nearest.codes(0));
}

struct Setup {
    key: PublicKey,
    evaluator: BatchEvaluator,
}

impl Setup {
    fn new() -> Self {
        let mut rng = Run::plain_rng(1);
        let packing = BatchPacking::new(ParameterSet::N2048Q50, SUBQUANTIZERS, WIDTH, CENTROIDS)
            .expect("a small shape fits");
        let scale = BatchScale::new(&packing, 2.0, 2.0, CodebookOrigin::Owner)
            .expect("the bounds are plain");
        let key = Self::secret_key().public_key(&mut rng);
        let centroids: Vec<f32> = (0..packing.codebook_len())
            .map(|i| (i as f32 * 0.7).sin() * 0.3)
            .collect();
        let evaluator = BatchCodebook::encrypt(&scale, &key, &centroids, &mut rng)
            .and_then(|codebook| BatchEvaluator::new(scale, key.clone(), codebook))
            .expect("the parts fit");
        Self { key, evaluator }
    }

    fn secret_key() -> SecretKey {
        SecretKey::generate(ParameterSet::N2048Q50, &mut Run::plain_rng(2))
    }

    /// Vectors that differ from secret to secret, encrypted.
    fn batch(&self, run: &Run) -> EncryptedBatch {
        let vectors: Vec<f32> = (0..SUBQUANTIZERS * WIDTH * self.evaluator.packing().batch())
            .map(|i| ((i as f32 + 1.0) * (run.number() as f32 + 0.3)).cos() * 0.3)
            .collect();
        BatchEncryptor::new(*self.evaluator.scale(), self.key.clone())
            .and_then(|encryptor| encryptor.encrypt(&vectors, &mut Run::plain_rng(run.number())))
            .expect("the vectors fit")
    }

    fn products(&self, run: &Run, rng: &mut SecretRng) -> (BatchSearcherShare, MaskedBatch) {
        let packing = *self.evaluator.packing();
        let batch = self.batch(run);
        let blocks = 0..packing.blocks();
        let (share, masked) = self
            .evaluator
            .evaluate(&[&batch], blocks.clone(), std::slice::from_mut(rng))
            .expect("the parts fit")
            .pop()
            .expect("one batch gives one product");
        // They leave the searcher: keeper and wire may see them.
        let bytes = masked.to_bytes();
        taint::public(&bytes);
        let masked = MaskedBatch::from_bytes(&packing, blocks, bytes);
        (share, masked.expect("they were just written"))
    }

    /// A secret searcher's share and the keeper's share that goes with it.
    fn shares(run: &Run) -> (Self, BatchSearcherShare, BatchTableShare) {
        let setup = Self::new();
        let (share, masked) = setup.products(run, &mut run.rng());
        let decryptor = MaskedDecryptor::new(Self::secret_key());
        let masks = setup.evaluator.codebook().masks();
        let keeper = decryptor
            .prepare_batch(*setup.evaluator.scale(), &masks)
            .and_then(|prepared| {
                decryptor.decrypt_batches(&prepared, &[masked], &mut [Run::plain_rng(4)])
            })
            .expect("the parts fit")
            .pop()
            .expect("one product gives one share");
        (setup, share, keeper)
    }
}
