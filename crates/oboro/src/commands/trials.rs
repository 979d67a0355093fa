//! Trial queries of `oboro verify`: vectors of the index, searched as a client would, in
//! this one process.

use std::path::Path;

use oboro_channel::Role;
use oboro_ckks::{MaskedDecryptor, PreparedCodebook, QueryEncryptor, SecretKey, TableEvaluator};
use oboro_index::{Index, Model, QueryModel, RecordOpener, RotationMatrix, Segment, WriterKey};
use oboro_quant::{Candidate, Metric, Scanner, SelectionPlan, Subspaces};
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

/// Where the tables of queries come from.
enum Tables {
    Encrypted(Box<Encrypted>),
    /// From the codebook in the clear.
    Clear(Box<Model>),
}

impl Tables {
    /// By the encrypted path, where the keeper's key is at hand; where not, why, and from
    /// the model, if there is one.
    fn of(
        index: &Index,
        key: &WriterKey,
        keys: &Path,
    ) -> Outcome<Result<(Self, Option<&'static str>), &'static str>> {
        let why = match Encrypted::of(keys, index)? {
            Ok(path) => return Ok(Ok((Self::Encrypted(Box::new(path)), None))),
            Err(why) => why,
        };
        let Some(model) = index.model_bytes() else {
            return Ok(Err(
                "the index was made blindly and has no codebook in the clear, and the keeper's present key is not among the keys given; search it through its servers",
            ));
        };
        let model = key.model_key().open(&index.descriptor().index_id, model)?;
        Ok(Ok((Self::Clear(Box::new(model)), Some(why))))
    }

    fn table(&self, subspaces: &Subspaces, metric: Metric, query: &[f32]) -> Outcome<Vec<f32>> {
        match self {
            Self::Encrypted(path) => path.table(&subspaces.pad(query)),
            Self::Clear(model) => model.codebook.similarities(query, metric).or_failure(),
        }
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
    let (tables, in_the_clear) = match Tables::of(index, key, keys)? {
        Ok(tables) => tables,
        Err(why) => return Ok(Err(why)),
    };
    let descriptor = index.descriptor();
    let client = key.client_key();
    let query_model = match (&descriptor.query_model, index.query_model_bytes()) {
        (Some(shape), Some(bytes)) => client.descriptor_key().open_query_model(
            &descriptor.index_id,
            descriptor.dimension as usize,
            shape,
            bytes,
        )?,
        _ => QueryModel::default(),
    };
    let opener = RecordOpener::new(
        client.record_key(),
        descriptor.index_id,
        descriptor.record_layout(),
    );
    let (metric, subspaces) = (descriptor.metric, descriptor.subspaces().or_failure()?);
    let rotation = RotationMatrix::derive(
        client.rotation_seed(),
        &subspaces,
        descriptor.rotation,
        metric,
    );
    let mut tried = Tried {
        queries: 0,
        found: 0,
        encrypted: in_the_clear.is_none(),
        in_the_clear,
        own_nearest: matches!(metric, Metric::L2 | Metric::Cosine),
    };
    for (number, position) in spread(index) {
        let mut bytes = Vec::new();
        index.segments()[number]
            .append_record(position, &mut bytes)
            .named("read", "a record")?;
        // As a client prepares it.
        let mut query = opener.open(&bytes)?.vector;
        metric.prepare_query(&mut query);
        rotation.apply(&mut query)?;
        query_model.apply(&mut query)?;
        let table = tables.table(&subspaces, metric, &query)?;
        tried.queries += 1;
        let shape = (subspaces.count(), descriptor.centroids());
        let best = search(index.segments(), &table, shape)?;
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
fn search(
    segments: &[Segment],
    table: &[f32],
    shape: (usize, usize),
) -> Outcome<Vec<(usize, u32)>> {
    let (subquantizers, centroids) = shape;
    let scanner = Scanner::new();
    let Some(largest) = segments.iter().max_by_key(|segment| segment.len()) else {
        return Ok(Vec::new());
    };
    let total = segments.iter().map(Segment::len).sum();
    let sample = SelectionPlan::for_sample(largest.len(), CANDIDATES, total).or_failure()?;
    let (codes, alive) = (largest.codes(), largest.alive());
    let table = scanner
        .quantize(table, subquantizers, centroids, codes, alive, &sample)
        .or_failure()?;
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
