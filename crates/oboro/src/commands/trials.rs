//! Trial queries of `oboro verify`: vectors of the index, searched as a client would, in
//! this one process.

use std::path::Path;

use oboro_channel::Role;
use oboro_ckks::{MaskedDecryptor, PreparedCodebook, QueryEncryptor, SecretKey, TableEvaluator};
use oboro_index::{Index, Model, RecordOpener, RotationMatrix, Segment, WriterKey};
use oboro_quant::{Candidate, Metric, QuantizedTable, Scanner, SelectionPlan};
use serde::Serialize;

use crate::failure::{Failure, Named, Outcome};
use crate::keys::{self, Folder, KEEPER_KEY};
use crate::or_failure::OrFailure;

/// Most vectors that are searched for.
const QUERIES: u64 = 32;
/// Why nothing is tried with the searcher's keys.
pub(super) const NO_OWNER: &str = "the owner's key is not at hand, without which no original opens";
/// Candidates that a vector must be among.
const CANDIDATES: usize = 100;

/// What the trial queries gave.
#[derive(Serialize)]
pub(super) struct Tried {
    /// How many there were.
    pub(super) queries: usize,
    /// How many found the vector that they are, among 100 candidates.
    pub(super) found: usize,
    /// Whether their tables came by the encrypted path, for which the keeper's key must be
    /// at hand.
    pub(super) encrypted: bool,
    /// Why they did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_the_clear: Option<&'static str>,
    /// Whether a vector is its own nearest neighbour, so that it must be found.
    #[serde(skip)]
    pub(super) own_nearest: bool,
}

/// The encrypted path, with both roles' parts.
struct Encrypted {
    encryptor: QueryEncryptor,
    evaluator: TableEvaluator,
    decryptor: MaskedDecryptor,
    prepared: PreparedCodebook,
}

impl Encrypted {
    /// Why not, where the folder of keys has not the keeper's present one.
    fn of(keys: &Path, index: &Index) -> Outcome<Result<Self, &'static str>> {
        let keeper = keys.join(Role::Keeper.name());
        if !keeper.join(KEEPER_KEY).is_file() {
            return Ok(Err("the keeper's key is not among the keys given"));
        }
        let secret: SecretKey = Folder::of(&keeper, Role::Keeper)?.keeper_secret()?;
        let descriptor = index.descriptor();
        let first = Folder::of(&keeper, Role::Keeper)?.keeper_public()?;
        if first.fingerprint() != descriptor.public_key_fingerprint() {
            return Ok(Err(
                "the key was rotated, and the keeper alone has the present one",
            ));
        }
        let (packing, scale) = (descriptor.packing, descriptor.scale);
        let public = descriptor.public_key.clone();
        let evaluator = TableEvaluator::new(packing, scale, public.clone(), index.codebook()?)?;
        let decryptor = MaskedDecryptor::new(secret);
        let prepared = decryptor.prepare(packing, scale, &evaluator.masks())?;
        Ok(Ok(Self {
            encryptor: QueryEncryptor::new(packing, scale, public)?,
            evaluator,
            decryptor,
            prepared,
        }))
    }

    fn table(&self, padded: &[f32]) -> Outcome<Vec<f32>> {
        let mut rng = keys::os_rng()?;
        let query = self.encryptor.encrypt(padded, &mut rng)?;
        let zero = self.evaluator.zero(&mut rng);
        let (share, products) = self.evaluator.evaluate(&query, zero)?;
        let answer = self
            .decryptor
            .decrypt(&self.prepared, &products, &mut rng)?;
        Ok(self.evaluator.unmask(&share, &answer)?)
    }
}

/// Searches for some of the vectors; why not, where that cannot be.
pub(super) fn run(
    index: &Index,
    key: &WriterKey,
    keys: &Path,
) -> Outcome<Result<Tried, &'static str>> {
    if index.vectors() == 0 {
        return Ok(Err("the index has no vectors"));
    }
    let Some(model) = index.model_bytes() else {
        return Ok(Err(
            "the index has no model, so nobody knows its codebook in the clear; search it through its servers",
        ));
    };
    let descriptor = index.descriptor();
    let model = key.model_key().open(&descriptor.index_id, model)?;
    let encrypted = Encrypted::of(keys, index)?;
    let client = key.client_key();
    let opener = RecordOpener::new(
        client.record_key(),
        descriptor.index_id,
        descriptor.record_layout(),
    );
    let rotation = RotationMatrix::derive(
        client.rotation_seed(),
        model.codebook.subspaces(),
        model.rotation,
        model.metric,
    );
    let mut tried = Tried {
        queries: 0,
        found: 0,
        encrypted: encrypted.is_ok(),
        in_the_clear: encrypted.as_ref().err().copied(),
        own_nearest: matches!(model.metric, Metric::L2 | Metric::Cosine),
    };
    for (number, position) in spread(index) {
        let mut bytes = Vec::new();
        index.segments()[number]
            .append_record(position, &mut bytes)
            .named("read", "a record")?;
        let mut query = opener.open(&bytes)?.vector;
        model.metric.prepare_query(&mut query);
        rotation.apply(&mut query)?;
        let table = match &encrypted {
            Ok(path) => path.table(&model.codebook.subspaces().pad(&query))?,
            Err(_) => model
                .codebook
                .similarities(&query, model.metric)
                .or_failure()?,
        };
        tried.queries += 1;
        let best = search(index.segments(), &table, &model)?;
        tried.found += usize::from(best.contains(&(number, position)));
    }
    Ok(Ok(tried))
}

/// Some vectors that are not deleted, from everywhere.
fn spread(index: &Index) -> Vec<(usize, u32)> {
    let step = index.vectors().div_ceil(QUERIES).max(1) as usize;
    index
        .segments()
        .iter()
        .enumerate()
        .flat_map(|(number, segment)| {
            (0..segment.len() as u32)
                .filter(|&position| segment.is_alive(position))
                .map(move |position| (number, position))
        })
        .step_by(step)
        .collect()
}

/// The best candidates of all segments.
fn search(segments: &[Segment], table: &[f32], model: &Model) -> Outcome<Vec<(usize, u32)>> {
    let (subquantizers, centroids) = (
        model.codebook.subspaces().count(),
        model.codebook.centroids(),
    );
    let table = QuantizedTable::from_similarities(table, subquantizers, centroids).or_failure()?;
    let scanner = Scanner::new();
    let mut all: Vec<(u16, usize, u32)> = Vec::new();
    for (number, segment) in segments.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
        let plan = SelectionPlan::new(segment.len(), CANDIDATES.min(segment.len())).or_failure()?;
        let tables = std::slice::from_ref(&table);
        let found = scanner
            .search_masked(segment.codes(), tables, &[segment.alive()], &plan, 0)
            .or_failure()?;
        let real = found.into_iter().flatten();
        all.extend(
            real.filter(|candidate| *candidate != Candidate::NONE)
                .map(|candidate| (candidate.score, number, candidate.position)),
        );
    }
    all.sort_unstable();
    // Vectors of equal score are equally good.
    let worst = all.get(CANDIDATES - 1).map_or(u16::MAX, |last| last.0);
    Ok(all
        .into_iter()
        .take_while(|candidate| candidate.0 <= worst)
        .map(|(_, number, position)| (number, position))
        .collect())
}

impl Tried {
    /// What is wrong, if it cannot be chance.
    pub(super) fn problem(&self) -> Option<Failure> {
        let wrong = self.own_nearest && self.found * 2 < self.queries;
        wrong.then(|| {
            Failure::input(format_args!(
                "only {} of {} trial queries found the vector that they are; codes and originals do not belong together, build the index again",
                self.found, self.queries
            ))
        })
    }
}
