//! The encrypted table: encryptions of zero, evaluation, the keeper's
//! decryption, unmasking. Keys, queries and randomness are secret.

use oboro_ckks::{
    CodebookMasking, EncryptedCodebook, EncryptedQuery, MaskedDecryptor, MaskedProducts, Packing,
    ParameterSet, PublicKey, QueryEncryptor, SearcherShare, SecretKey, TableEvaluator, TableScale,
    TableShare,
};
use oboro_simd::taint;

use crate::run::{Run, SecretRng};

const SUBQUANTIZERS: usize = 4;
const WIDTH: usize = 4;
const CENTROIDS: usize = 16;

/// The encryptions of zero that hide a product from the keeper.
pub(crate) fn zero(run: &Run) {
    let setup = Setup::new(run);
    let mut rng = run.rng();
    let zero = run.region(|| setup.evaluator.zero(&mut rng));
    drop(zero);
}

/// Product, re-randomization and the searcher's share.
pub(crate) fn evaluate(run: &Run) {
    let setup = Setup::new(run);
    let query = setup.query(run);
    let zero = setup.evaluator.zero(&mut run.rng());
    let (_, products) = run
        .region(|| setup.evaluator.evaluate(&query, zero))
        .expect("the parts fit");
    run.expect_secret(&products.to_bytes());
}

/// The keeper's decryption of a product, with a marked key and dither.
pub(crate) fn decrypt(run: &Run) {
    let setup = Setup::new(run);
    let (_, products) = setup.products(run, &mut Run::plain_rng(3));
    let masks = setup.evaluator.masks();
    // The key itself is the secret; whose product it decrypts is not.
    let decryptor = MaskedDecryptor::new(SecretKey::generate(setup.packing.set(), &mut run.rng()));
    let mut dither = run.rng();
    let share = run.region(|| {
        let prepared = decryptor.prepare(setup.packing, setup.scale, &masks)?;
        decryptor.decrypt(&prepared, &products, &mut dither)
    });
    run.expect_secret(&share.expect("the parts fit").to_bytes());
}

/// The keeper's re-encryption of a masked codebook, with marked keys and errors.
pub(crate) fn reencrypt(run: &Run) {
    let setup = Setup::new(run);
    // Under the mask the codebook is uniform: the keeper and the wire may see it.
    let codebook = setup.evaluator.codebook();
    let (masked, _) = CodebookMasking::mask(codebook, &mut Run::plain_rng(5));
    let old = SecretKey::generate(setup.packing.set(), &mut run.rng());
    let new = SecretKey::generate(setup.packing.set(), &mut run.rng());
    let mut errors = run.rng();
    let switched = run
        .region(|| oboro_ckks::reencrypt(&old, &new, &setup.packing, &masked, &mut errors))
        .expect("the parts fit");
    // After the byte that tells of offsets comes the first b-part.
    run.expect_secret(&switched.to_bytes()[1..1_000]);
}

/// Adding the shares, centring and decoding.
pub(crate) fn unmask(run: &Run) {
    let (setup, share, keeper) = Setup::shares(run);
    let table = run
        .region(|| setup.evaluator.unmask(&share, &keeper))
        .expect("the shares fit");
    assert_eq!(table.len(), SUBQUANTIZERS * CENTROIDS);
    run.expect_secret(&table);
}

/// An index, its keys and what is public about them.
pub(crate) struct Setup {
    packing: Packing,
    scale: TableScale,
    key: PublicKey,
    pub(crate) evaluator: TableEvaluator,
}

impl Setup {
    /// The same index for every secret: what varies is what a case marks.
    fn new(_: &Run) -> Self {
        let mut rng = Run::plain_rng(1);
        let packing =
            Packing::compact_query(ParameterSet::N2048Q50, SUBQUANTIZERS, WIDTH, CENTROIDS)
                .expect("a small shape fits");
        let scale = TableScale::new(&packing, 2.0, 2.0, 0.0).expect("the bounds are plain");
        let key = Self::secret_key().public_key(&mut rng);
        let centroids: Vec<f32> = (0..SUBQUANTIZERS * CENTROIDS * WIDTH)
            .map(|i| (i as f32 * 0.7).sin() * 0.3)
            .collect();
        let codebook =
            EncryptedCodebook::encrypt(packing, &scale, &key, &centroids, None, &mut rng)
                .expect("the codebook fits");
        let evaluator =
            TableEvaluator::new(packing, scale, key.clone(), codebook).expect("the parts fit");
        Self {
            packing,
            scale,
            key,
            evaluator,
        }
    }

    fn secret_key() -> SecretKey {
        SecretKey::generate(ParameterSet::N2048Q50, &mut Run::plain_rng(2))
    }

    /// A query that differs from secret to secret, encrypted.
    fn query(&self, run: &Run) -> EncryptedQuery {
        let query: Vec<f32> = (0..SUBQUANTIZERS * WIDTH)
            .map(|i| ((i as f32 + 1.0) * (run.number() as f32 + 0.3)).cos() * 0.3)
            .collect();
        QueryEncryptor::new(self.packing, self.scale, self.key.clone())
            .and_then(|encryptor| encryptor.encrypt(&query, &mut Run::plain_rng(run.number())))
            .expect("the query fits")
    }

    fn products(&self, run: &Run, rng: &mut SecretRng) -> (SearcherShare, MaskedProducts) {
        let query = self.query(run);
        let zero = self.evaluator.zero(rng);
        let (share, products) = self
            .evaluator
            .evaluate(&query, zero)
            .expect("the parts fit");
        // The masked products leave the searcher: they are what the keeper and
        // the wire may see.
        let bytes = products.to_bytes();
        taint::public(&bytes);
        (
            share,
            MaskedProducts::from_bytes(&self.packing, &bytes).expect("they were just written"),
        )
    }

    /// A secret searcher's share and the keeper's share that goes with it.
    pub(crate) fn shares(run: &Run) -> (Self, SearcherShare, TableShare) {
        let setup = Self::new(run);
        let (share, products) = setup.products(run, &mut run.rng());
        let decryptor = MaskedDecryptor::new(Self::secret_key());
        let keeper = decryptor
            .prepare(setup.packing, setup.scale, &setup.evaluator.masks())
            .and_then(|prepared| decryptor.decrypt(&prepared, &products, &mut Run::plain_rng(4)))
            .expect("the parts fit");
        (setup, share, keeper)
    }
}
