//! A small index whose every number follows from a formula.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use chacha20::ChaCha20Rng;
use oboro_ckks::{EncryptedCodebook, Packing, ParameterSet, SecretKey, TableScale};
use oboro_index::*;
use oboro_quant::ivf::CoarseCentroids;
use oboro_quant::{BlockedCodes, Codebook, Metric, OpqTransform, Subspaces, code_bits};
use rand_core::SeedableRng;
use std::path::Path;

pub const DIMENSION: usize = 10;
pub const SUBQUANTIZERS: usize = 4;
pub const CENTROIDS: usize = 16;

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// A generator that no earlier call gave: the names of files come from it.
pub fn fresh() -> ChaCha20Rng {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let mut rng = rng(0xee);
    rng.set_stream(CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    rng
}

pub fn owner(seed: u8) -> OwnerKey {
    OwnerKey::generate(&mut rng(seed))
}

/// A number from 0 to 255 that looks random.
fn mix(i: usize) -> f32 {
    let x = (i as u32).wrapping_mul(0x9e37_79b9);
    ((x ^ (x >> 15)).wrapping_mul(0x85eb_ca6b) >> 24) as f32
}

pub fn vector(row: usize) -> Vec<f32> {
    (0..DIMENSION).map(|j| mix(row * DIMENSION + j)).collect()
}

pub fn id(row: usize) -> u64 {
    row as u64 * 3 + 1000
}

pub fn codebook() -> Codebook {
    let subspaces = Subspaces::new(DIMENSION, SUBQUANTIZERS).unwrap();
    let width = subspaces.width();
    let values = (0..SUBQUANTIZERS * CENTROIDS * width)
        .map(|i| {
            let used = subspaces.range(i / (CENTROIDS * width)).len();
            if i % width < used {
                mix(i + 77_777)
            } else {
                0.0
            }
        })
        .collect();
    Codebook::from_values(subspaces, CENTROIDS, values).unwrap()
}

/// What a build leaves behind besides the index.
pub struct Built {
    pub owner: OwnerKey,
    pub key: EpochKey,
    pub head: IndexHead,
    pub keeper: SecretKey,
    pub order: Vec<u32>,
    pub files: Vec<(String, u64)>,
}

pub fn start(path: &Path, seed: u8, force: bool) -> Result<IndexWriter, IndexError> {
    let owner = owner(seed);
    let release = released(seed).then(|| owner.release_key());
    IndexWriter::create(
        path,
        &owner.storage_key(),
        release.as_ref(),
        index_id(seed),
        force,
    )
}

/// Indexes of odd seeds need the keeper's share.
pub const fn released(seed: u8) -> bool {
    seed % 2 == 1
}

pub const fn index_id(seed: u8) -> [u8; 16] {
    [seed ^ 0x55; 16]
}

/// Indexes of seeds from 40 on have tags, extra bytes and a model.
pub const fn rich(seed: u8) -> bool {
    seed >= 40
}

/// Indexes of seeds from 50 on have a learned matrix and lists, too.
pub const fn listed(seed: u8) -> bool {
    seed >= 50
}

/// Lists of an index that has any.
pub const LISTS: usize = 3;

pub fn list_of(row: usize) -> u16 {
    (row * row % LISTS) as u16
}

/// What clients do to queries: a matrix that changes nothing, and three centres.
pub fn query_model(seed: u8) -> QueryModel {
    if !listed(seed) {
        return QueryModel::default();
    }
    let centres = (0..LISTS).flat_map(vector).collect();
    QueryModel {
        opq: Some(OpqTransform::identity(DIMENSION).unwrap()),
        coarse: Some(CoarseCentroids::from_values(centres, DIMENSION).unwrap()),
    }
}

pub const fn layout(seed: u8) -> RecordLayout {
    RecordLayout {
        extra_bytes: if rich(seed) { 32 } else { 0 },
        ..RecordLayout::plain(RecordEncoding::INTEGERS, DIMENSION)
    }
}

pub const TAGS: [&str; 3] = ["even", "by three", "red"];

pub fn tags_of(row: usize) -> u64 {
    u64::from(row.is_multiple_of(2)) | u64::from(row.is_multiple_of(3)) << 1
}

pub fn tag_hashes(seed: u8) -> Vec<[u8; 8]> {
    let key = owner(seed).descriptor_key();
    let hash = |name| key.tag_hash(&index_id(seed), name);
    TAGS.into_iter().filter(|_| rich(seed)).map(hash).collect()
}

pub fn extra(row: usize) -> Extra {
    Extra {
        id: (!row.is_multiple_of(5)).then(|| format!("row {row}")),
        payload: vec![row as u8; row % 4],
    }
}

/// The row at each place.
pub fn inverse(places: &[u32]) -> Vec<usize> {
    let mut rows = vec![0; places.len()];
    for (row, &place) in places.iter().enumerate() {
        rows[place as usize] = row;
    }
    rows
}

/// The key of the first epoch of what [`build`] makes.
pub fn key(seed: u8) -> EpochKey {
    owner(seed).epoch_key(&index_id(seed), 1, released(seed))
}

/// Builds `vectors` vectors in two segments, under keys that follow from
/// `seed`.
pub fn build(path: &Path, seed: u8, vectors: usize, force: bool) -> Result<Built, IndexError> {
    build_then(path, seed, vectors, force, || ())
}

/// As [`build`]; calls `before_commit` when all is written but the commit.
pub fn build_then(
    path: &Path,
    seed: u8,
    vectors: usize,
    force: bool,
    before_commit: impl FnOnce(),
) -> Result<Built, IndexError> {
    let owner = owner(seed);
    let mut rng = rng(seed ^ 0xaa);
    let keeper = SecretKey::generate(ParameterSet::N2048Q50, &mut rng);
    let public = keeper.public_key(&mut rng);
    let codebook = codebook();
    let metric = Metric::L2;

    let mut writer = start(path, seed, force)?;
    let encoding = RecordEncoding::INTEGERS;
    let first = vectors / 3;
    let mut order = Vec::new();
    for rows in [0..first, first..vectors] {
        let places = permutation(rows.len(), &mut rng);
        let mut segment =
            writer.begin_segment(&owner.record_key(), layout(seed), rows.len(), &mut rng)?;
        let all: Vec<f32> = rows.clone().flat_map(vector).collect();
        // In chunks, as an owner reads its source.
        for (i, chunk) in places.chunks(50).enumerate() {
            let rows = rows.start + 50 * i..rows.start + 50 * i + chunk.len();
            let ids: Vec<u64> = rows.clone().map(id).collect();
            let vectors: Vec<f32> = rows.clone().flat_map(vector).collect();
            if rich(seed) {
                let extras: Vec<Extra> = rows.map(extra).collect();
                segment.put_with_extras(chunk, &ids, &vectors, &extras)?;
            } else {
                segment.put(chunk, &ids, &vectors)?;
            }
        }
        let first_row = rows.start;
        let encoded = codebook.encode(&all)?;
        let mut shuffled = vec![0; encoded.len()];
        for (&place, row) in places.iter().zip(encoded.chunks_exact(SUBQUANTIZERS)) {
            shuffled[place as usize * SUBQUANTIZERS..][..SUBQUANTIZERS].copy_from_slice(row);
        }
        let codes = BlockedCodes::from_rows(&shuffled, SUBQUANTIZERS, code_bits(CENTROIDS))?;
        let mut tags = vec![0; if rich(seed) { rows.len() } else { 0 }];
        for (place, row) in tags.iter_mut().zip(inverse(&places)) {
            *place = tags_of(first_row + row);
        }
        let mut lists = vec![0; if listed(seed) { rows.len() } else { 0 }];
        for (place, row) in lists.iter_mut().zip(inverse(&places)) {
            *place = list_of(first_row + row);
        }
        writer.add_segment_in_lists(segment, &codes, &tags, &lists)?;
        order.extend(places);
    }
    let packing = Packing::compact_query(
        ParameterSet::N2048Q50,
        SUBQUANTIZERS,
        codebook.subspaces().width(),
        CENTROIDS,
    )?;
    let terms = codebook.table_terms(metric);
    let scale = TableScale::new(&packing, 2000.0, terms.norm(), terms.offset_bound())?;
    let encrypted = EncryptedCodebook::encrypt(
        packing,
        &scale,
        &public,
        terms.centroids(),
        terms.offsets(),
        &mut rng,
    )?;
    writer.set_codebook(&encrypted, &mut rng);
    let query_model = match query_model(seed) {
        model if model.is_empty() => None,
        model => {
            let key = owner.descriptor_key();
            let sealed = key.seal_query_model(&index_id(seed), &model, &mut rng)?;
            let shape = QueryShape::of(&model, &sealed, 2);
            writer.set_query_model(sealed);
            Some(shape)
        }
    };
    let descriptor = Descriptor {
        index_id: index_id(seed),
        epoch: 1,
        dimension: DIMENSION as u32,
        metric,
        rotation: Rotation::None,
        candidates_max: 4096,
        record_encoding: encoding,
        extra_bytes: layout(seed).extra_bytes,
        tags: tag_hashes(seed),
        query_model,
        packing,
        scale,
        codebook_digest: encrypted.masks().digest(),
        public_key: public,
    };
    if rich(seed) {
        let model = Model {
            codebook,
            metric,
            rotation: Rotation::None,
            encoding,
            norm_bound: 2000.0,
            query: self::query_model(seed),
        };
        writer.set_model(owner.model_key().seal(&index_id(seed), &model, &mut rng))?;
    }
    before_commit();
    let Committed { head, files } =
        writer.commit(&descriptor, &owner.descriptor_key(), &mut rng)?;
    Ok(Built {
        owner,
        key: key(seed),
        head,
        keeper,
        order,
        files,
    })
}

/// The parts of a new segment, as an owner sends them.
pub struct Parts {
    pub segment_id: [u8; 16],
    pub ids: Vec<u64>,
    pub codes: Vec<u8>,
    pub tags: Vec<u64>,
    pub lists: Vec<u16>,
    pub records: Vec<u8>,
}

impl Parts {
    /// Segment `number` with the vectors of `rows` under other ids, in this
    /// order.
    pub fn new(index: &Index, seed: u8, number: u32, rows: &[(u64, usize)]) -> Self {
        let mut segment_id = [0x5e; 16];
        segment_id[..4].copy_from_slice(&number.to_be_bytes());
        let vectors: Vec<f32> = rows.iter().flat_map(|&(_, row)| vector(row)).collect();
        let ids: Vec<u64> = rows.iter().map(|&(id, _)| id).collect();
        let positions: Vec<u32> = (0..rows.len() as u32).collect();
        let (mut extras, mut tags) = (Vec::new(), Vec::new());
        if rich(seed) {
            extras = rows.iter().map(|&(_, row)| extra(row)).collect();
            tags = rows.iter().map(|&(_, row)| tags_of(row)).collect();
        }
        let mut lists = Vec::new();
        if listed(seed) {
            lists = rows.iter().map(|&(_, row)| list_of(row)).collect();
        }
        let key = owner(seed).record_key();
        let records = SegmentSealer::new(&key, index.descriptor(), segment_id)
            .seal(&positions, &ids, &vectors, &extras)
            .unwrap();
        Self {
            segment_id,
            ids,
            codes: codebook().encode(&vectors).unwrap(),
            tags,
            lists,
            records,
        }
    }

    pub fn new_segment(&self) -> NewSegment<'_> {
        NewSegment {
            segment_id: self.segment_id,
            ids: &self.ids,
            codes: &self.codes,
            tags: &self.tags,
            lists: &self.lists,
            records: &self.records,
        }
    }
}

/// Stages the vectors of `rows` under these ids.
pub fn stage(live: &LiveIndex, seed: u8, number: u32, rows: &[(u64, usize)]) -> Staged {
    let parts = Parts::new(live.index(), seed, number, rows);
    live.stage(&parts.new_segment()).unwrap()
}

/// Ids and the rows whose vectors they have, after checking that everything
/// that belongs to a vector is with it.
pub fn contents(index: &Index, seed: u8) -> std::collections::BTreeMap<u64, usize> {
    let descriptor = index.descriptor();
    let opener = RecordOpener::new(
        &owner(seed).record_key(),
        descriptor.index_id,
        descriptor.record_layout(),
    );
    let rows: std::collections::HashMap<Vec<u32>, usize> = (0..ROWS)
        .map(|row| (vector(row).iter().map(|v| v.to_bits()).collect(), row))
        .collect();
    let codebook = codebook();
    let mut out = std::collections::BTreeMap::new();
    for segment in index.segments() {
        let (mut alive, bits) = (0, segment.alive());
        assert_eq!(bits.is_some(), segment.deleted() > 0);
        assert!(bits.is_none_or(|bits| bits.len() == segment.len().div_ceil(64)));
        assert_eq!(segment.tags().is_some(), rich(seed));
        assert_eq!(segment.lists().is_some(), listed(seed));
        for position in 0..segment.len() as u32 {
            let mut wire = Vec::new();
            segment.append_record(position, &mut wire).unwrap();
            assert_eq!(wire.len(), segment.wire_len());
            let record = opener.open(&wire).unwrap();
            let place = position as usize;
            assert_eq!(record.id, segment.ids()[place]);
            let bits: Vec<u32> = record.vector.iter().map(|v| v.to_bits()).collect();
            let row = rows[&bits];
            assert_eq!(
                segment.codes().row(place),
                codebook.encode(&record.vector).unwrap()
            );
            if rich(seed) {
                assert_eq!(segment.tags().unwrap()[place], tags_of(row));
                assert_eq!(record.extra, extra(row));
            }
            if listed(seed) {
                assert_eq!(segment.lists().unwrap()[place], list_of(row));
            }
            if segment.is_alive(position) {
                alive += 1;
                assert_eq!(out.insert(record.id, row), None, "an id twice");
            }
        }
        assert_eq!(alive, segment.alive_len());
    }
    assert_eq!(out.len() as u64, index.vectors());
    out
}

/// Rows that [`contents`] knows.
pub const ROWS: usize = 2000;

/// An index that has lived: built with 100 vectors, 60 inserted, merged with
/// what was deleted gone, 30 inserted, some of each segment deleted. It has the
/// ids of rows 0 to 189 but for every seventh.
pub fn build_lived(path: &Path, seed: u8) -> Built {
    let built = build(path, seed, 100, false).unwrap();
    let mut rng = rng(seed ^ 0x77);
    let mut live = LiveIndex::open(path, key(seed)).unwrap();
    let rows = |range: std::ops::Range<usize>| -> Vec<(u64, usize)> {
        range.map(|row| (id(row), row)).collect()
    };
    let every = |step: usize, of: std::ops::Range<usize>| -> Vec<u64> {
        of.filter(|row| row % 7 == 0 && row % 2 == step)
            .map(id)
            .collect()
    };
    let first = stage(&live, seed, 1, &rows(100..160));
    let change = Change {
        stages: vec![first],
        deletes: every(0, 0..100),
        ..Change::default()
    };
    live.commit(change, &mut rng).unwrap();
    let all = live.compaction(&CompactionPolicy::FULL).unwrap();
    let done = all.run(&Throttle::NONE, &false.into(), &mut rng).unwrap();
    live.commit_compaction(done, &mut rng).unwrap();
    let second = stage(&live, seed, 2, &rows(160..190));
    let change = Change {
        stages: vec![second],
        ..Change::default()
    };
    live.commit(change, &mut rng).unwrap();
    let mut deletes = every(1, 0..190);
    deletes.extend(every(0, 100..190));
    let change = Change {
        deletes,
        strict: true,
        ..Change::default()
    };
    let outcome = live.commit(change, &mut rng).unwrap();
    let index = outcome.index;
    assert!(index.segments().iter().all(|segment| segment.deleted() > 0));
    Built {
        head: index.head(),
        files: index.files().to_vec(),
        ..built
    }
}

/// What [`build_lived`] leaves.
pub fn lived_contents() -> std::collections::BTreeMap<u64, usize> {
    (0..190)
        .filter(|row| row % 7 != 0)
        .map(|row| (id(row), row))
        .collect()
}
