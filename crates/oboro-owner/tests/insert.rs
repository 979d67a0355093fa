//! Inserts and deletes in a folder: what is found, what is refused, what stays.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chacha20::ChaCha20Rng;
use oboro_ckks::{ParameterSet, SecretKey};
use oboro_index::{
    EncodingChoice, EpochKey, Extra, Index, LiveIndex, OnExisting, OwnerKey, RecordOpener, verify,
};
use oboro_owner::{
    BuildOptions, Changed, EncodedSegment, Encoder, FolderTarget, Ids, InsertOptions, InsertReport,
    Owner, OwnerError, Reason, Rows, Target, VectorSource, delete, insert,
};
use oboro_quant::{Metric, exact};
use oboro_vectors::{Records, Refusal, VectorsError, Why};
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use tempfile::TempDir;

const DIMENSION: usize = 8;

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Another one each time, as the ids of segments must be.
fn fresh() -> ChaCha20Rng {
    static NEXT: AtomicU64 = AtomicU64::new(100);
    let mut rng = rng(0);
    rng.set_stream(NEXT.fetch_add(1, Ordering::Relaxed));
    rng
}

fn owner_key() -> OwnerKey {
    OwnerKey::generate(&mut rng(1))
}

fn vectors(seed: u8, count: usize) -> Vec<f32> {
    let mut rng = rng(seed);
    let mut uniform = move || (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5;
    (0..count)
        .flat_map(|row| (0..DIMENSION).map(move |at| (row * 7 % 40, at)))
        .map(|(centre, at)| ((centre * 31 + at * 17) % 13) as f32 + uniform())
        .collect()
}

fn rows(values: &[f32]) -> Rows<'_> {
    Rows::new(values, DIMENSION).unwrap()
}

fn numbered(values: &[f32], first: u64) -> Rows<'_> {
    let count = (values.len() / DIMENSION) as u64;
    rows(values)
        .with_ids(Ids::Numbers((first..first + count).collect()))
        .unwrap()
}

fn options() -> BuildOptions {
    BuildOptions {
        centroids: 16,
        subquantizers: Some(8),
        iterations: 5,
        trials: 4,
        originals: EncodingChoice::F32,
        ..BuildOptions::default()
    }
}

/// A built index with its folder.
struct Built {
    folder: TempDir,
}

impl Built {
    fn of(source: &mut dyn VectorSource, options: &BuildOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = SecretKey::generate(ParameterSet::N2048Q50, &mut rng(2));
        let keeper = secret.public_key(&mut rng(2));
        Owner::new(owner_key(), keeper)
            .build(source, &folder.path().join("index"), options, &mut rng(3))
            .unwrap();
        Self { folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("index")
    }

    fn key(&self) -> EpochKey {
        let head = Index::peek(self.path()).unwrap();
        owner_key().epoch_key(&head.index_id, head.epoch, head.released)
    }

    fn open(&self) -> Index {
        Index::open(self.path(), &self.key()).unwrap()
    }

    fn live(&self) -> LiveIndex {
        LiveIndex::open(self.path(), self.key()).unwrap()
    }

    fn encoder(&self) -> Encoder {
        let index = self.open();
        let model = index.model_bytes().unwrap();
        Encoder::open(owner_key().writer_key(), model, index.descriptor()).unwrap()
    }

    fn insert(
        &self,
        source: &mut dyn VectorSource,
        options: &InsertOptions<'_>,
    ) -> Result<InsertReport, OwnerError> {
        let encoder = self.encoder();
        let mut live = self.live();
        let mut target = FolderTarget::new(&mut live, fresh());
        insert(&encoder, source, &mut target, options, &mut fresh())
    }

    fn delete(&self, ids: &[u64], strict: bool) -> Result<Changed, OwnerError> {
        let mut live = self.live();
        delete(&mut FolderTarget::new(&mut live, fresh()), ids, strict)
    }

    /// Every vector that is there, with its tags and what came along.
    fn contents(&self) -> BTreeMap<u64, (Vec<f32>, u64, Extra)> {
        let index = self.open();
        let descriptor = index.descriptor();
        let client = owner_key().client_key();
        let opener = RecordOpener::new(
            client.record_key(),
            descriptor.index_id,
            descriptor.record_layout(),
        );
        let mut all = BTreeMap::new();
        for segment in index.segments() {
            for position in 0..segment.len() as u32 {
                let alive = segment
                    .alive()
                    .is_none_or(|bits| bits[position as usize / 64] >> (position % 64) & 1 == 1);
                if !alive {
                    continue;
                }
                let mut bytes = Vec::new();
                segment.append_record(position, &mut bytes).unwrap();
                let record = opener.open(&bytes).unwrap();
                assert_eq!(segment.ids()[position as usize], record.id);
                let tags = segment.tags().map_or(0, |tags| tags[position as usize]);
                let content = (record.vector, tags, record.extra);
                assert!(all.insert(record.id, content).is_none(), "an id twice");
            }
        }
        assert_eq!(all.len() as u64, index.vectors());
        let report = verify(self.path(), &self.key(), Some(&client)).unwrap();
        assert!(report.is_sound(), "{report:?}");
        all
    }
}

fn vector_of(values: &[f32], row: usize) -> Vec<f32> {
    values[row * DIMENSION..][..DIMENSION].to_vec()
}

#[test]
fn what_was_inserted_is_there_and_what_was_deleted_is_not() {
    let (base, more) = (vectors(1, 300), vectors(2, 500));
    let built = Built::of(&mut rows(&base), &options());
    let settings = InsertOptions {
        batch: 128,
        ..InsertOptions::default()
    };
    let report = built
        .insert(&mut numbered(&more, 1_000), &settings)
        .unwrap();
    assert_eq!((report.changed.inserted, report.rows), (500, 500));
    assert_eq!((report.commits, report.refused.total()), (4, 0));
    assert_eq!(report.changed.vectors, 800);
    assert!(!report.stopped);
    let all = built.contents();
    assert_eq!(all[&7].0, vector_of(&base, 7));
    assert_eq!(all[&1_499].0, vector_of(&more, 499));

    let gone: Vec<u64> = (0..300).step_by(2).chain([1_400, 5_000]).collect();
    let changed = built.delete(&gone, false).unwrap();
    assert_eq!((changed.deleted, changed.unknown), (151, 1));
    let all = built.contents();
    assert_eq!(all.len(), 649);
    assert!(!all.contains_key(&1_400) && all.contains_key(&1));
    // Again is no harm, and with strict it is refused whole.
    assert_eq!(built.delete(&gone, false).unwrap().unknown, 152);
    let error = built.delete(&[1, 2], true).unwrap_err();
    assert!(
        error.to_string().starts_with("nothing was changed"),
        "{error}"
    );
    assert!(built.contents().contains_key(&1));
}

#[test]
fn existing_ids_are_refused_or_replaced() {
    let (base, more) = (vectors(1, 300), vectors(2, 100));
    let built = Built::of(&mut rows(&base), &options());
    let report = built
        .insert(&mut numbered(&more, 250), &InsertOptions::default())
        .unwrap();
    assert_eq!((report.changed.inserted, report.changed.refused), (50, 50));
    assert_eq!(built.contents()[&250].0, vector_of(&base, 250));

    let upsert = InsertOptions {
        on_existing: OnExisting::Replace,
        ..InsertOptions::default()
    };
    for _ in 0..2 {
        let report = built.insert(&mut numbered(&more, 250), &upsert).unwrap();
        assert_eq!((report.changed.inserted, report.changed.replaced), (0, 100));
        let all = built.contents();
        assert_eq!(all.len(), 350);
        assert_eq!(all[&250].0, vector_of(&more, 0));
    }
}

#[test]
fn insertion_finds_what_a_build_of_all_finds() {
    // The same codebook: both builds train on the rows of A, one knows those of B, too.
    let (a, b) = (vectors(1, 600), vectors(2, 400));
    let mut settings = options();
    settings.rotation = oboro_index::Rotation::Subspace;
    let grown = Built::of(&mut rows(&a), &settings);
    let small = InsertOptions {
        batch: 100,
        ..InsertOptions::default()
    };
    grown.insert(&mut numbered(&b, 600), &small).unwrap();

    // Codes of B as the encoder gives them are those that A's codebook gives to all rows.
    let index = grown.open();
    let model = owner_key()
        .model_key()
        .open(&index.head().index_id, index.model_bytes().unwrap())
        .unwrap();
    let both = [a.clone(), b.clone()].concat();
    let rotation = oboro_index::RotationMatrix::derive(
        owner_key().client_key().rotation_seed(),
        model.codebook.subspaces(),
        model.rotation,
        model.metric,
    );
    let mut prepared = both.clone();
    rotation.apply_rows(&mut prepared).unwrap();
    let expected = model.codebook.encode(&prepared).unwrap();
    let width = model.codebook.subspaces().count();
    let mut found = 0;
    for segment in index.segments() {
        for (position, &id) in segment.ids().iter().enumerate() {
            let row = &expected[id as usize * width..][..width];
            assert_eq!(segment.codes().row(position), row, "id {id}");
            found += 1;
        }
    }
    assert_eq!(found, 1_000);
    // And the originals rank as the vectors themselves do.
    let all = grown.contents();
    let stored: Vec<f32> = all.values().flat_map(|(v, ..)| v.clone()).collect();
    let queries = vectors(3, 20);
    let search =
        |base: &[f32]| exact::search(base, DIMENSION, &queries, 10, Metric::L2, 0).unwrap();
    assert_eq!(search(&stored), search(&both));
}

#[test]
fn text_ids_tags_and_payloads_come_along() {
    let (base, more) = (vectors(1, 200), vectors(2, 50));
    let text = |prefix: &str, count: usize| {
        Ids::Text((0..count).map(|row| format!("{prefix}-{row}")).collect())
    };
    let names = vec!["red".to_owned(), "green".to_owned()];
    let mut source = rows(&base)
        .with_ids(text("base", 200))
        .unwrap()
        .with_tags(names, (0..200).map(|row| vec![row % 2]).collect())
        .unwrap()
        .with_payloads((0..200_u8).map(|row| vec![row; 3]).collect())
        .unwrap();
    let mut settings = options();
    settings.extra_bytes = Some(64);
    let built = Built::of(&mut source, &settings);
    let encoder = built.encoder();
    let mut source = rows(&more)
        .with_ids(text("more", 50))
        .unwrap()
        // The source numbers its tags as it likes.
        .with_tags(
            vec!["green".to_owned(), "red".to_owned()],
            vec![vec![0, 1]; 50],
        )
        .unwrap();
    built
        .insert(&mut source, &InsertOptions::default())
        .unwrap();
    let all = built.contents();
    assert_eq!(all.len(), 250);
    let (_, tags, extra) = &all[&encoder.id_of("base-7")];
    assert_eq!(extra.id.as_deref(), Some("base-7"));
    assert_eq!(extra.payload, [7; 3]);
    let descriptor = encoder.descriptor();
    let client = owner_key().client_key();
    let bit = |name| descriptor.tag_bit(client.descriptor_key(), name).unwrap();
    assert_eq!(*tags, 1 << bit("green"));
    let (_, tags, extra) = &all[&encoder.id_of("more-3")];
    assert_eq!(*tags, 1 << bit("green") | 1 << bit("red"));
    assert!(extra.payload.is_empty());
    assert!(
        descriptor
            .tag_bit(client.descriptor_key(), "blue")
            .is_none()
    );
    // Deleted by its text.
    built.delete(&[encoder.id_of("base-7")], true).unwrap();
    assert!(!built.contents().contains_key(&encoder.id_of("base-7")));
}

/// Rows of which some are wrong, as a file would give them.
struct Faulty {
    values: Vec<f32>,
    given: bool,
}

impl VectorSource for Faulty {
    fn rows(&self) -> usize {
        self.values.len() / DIMENSION + 2
    }
    fn dimension(&self) -> usize {
        DIMENSION
    }
    fn tag_names(&self) -> &[String] {
        &[]
    }
    fn read(&mut self, _: usize) -> Result<Option<Records>, VectorsError> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(None);
        }
        let count = self.values.len() / DIMENSION;
        let refused = |row, why| Refusal { row, why };
        Ok(Some(Records {
            dimension: DIMENSION,
            rows: (0..count as u64).map(|row| row + 2).collect(),
            vectors: self.values.clone(),
            ids: Ids::Numbers((0..count as u64).map(|row| 2_000 + row % 30).collect()),
            tags: Vec::new(),
            payloads: Vec::new(),
            refused: vec![
                refused(
                    0,
                    Why::Dimension {
                        found: 9,
                        expected: DIMENSION,
                    },
                ),
                refused(1, Why::NotFinite),
            ],
        }))
    }
    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.given = false;
        Ok(())
    }
    fn error(&self, refusal: &Refusal) -> VectorsError {
        VectorsError::Refused {
            path: "faulty".into(),
            row: refusal.row,
            why: refusal.why.clone(),
        }
    }
}

fn faulty() -> Faulty {
    let mut values = vectors(2, 32);
    values[3 * DIMENSION] = 70_000.0;
    values[4 * DIMENSION..5 * DIMENSION].fill(0.0);
    Faulty {
        values,
        given: false,
    }
}

#[test]
fn rows_are_refused_one_by_one_with_counts() {
    let mut settings = options();
    settings.originals = EncodingChoice::F16;
    settings.metric = Metric::Cosine;
    let built = Built::of(&mut rows(&vectors(1, 300)), &settings);
    let report = built
        .insert(&mut faulty(), &InsertOptions::default())
        .unwrap();
    // 32 rows: one beyond half precision, one without direction, two ids twice; and two
    // that are no records.
    assert_eq!((report.changed.inserted, report.rows), (28, 34));
    let counts: Vec<_> = report.refused.counts().collect();
    assert_eq!(
        counts,
        [
            ("beyond_encoding", 1),
            ("dimension", 1),
            ("duplicate_id", 2),
            ("no_direction", 1),
            ("not_finite", 1),
        ]
    );
    assert_eq!(report.refused.first()[2], (5, Reason::BeyondEncoding));
    assert_eq!(built.contents().len(), 328);
}

#[test]
fn fail_others_than_whole_numbers_where_originals_are_bytes() {
    let whole = |seed, count| -> Vec<f32> {
        vectors(seed, count)
            .iter()
            .map(|value| value.abs().round())
            .collect()
    };
    let mut settings = options();
    settings.originals = EncodingChoice::Auto;
    let built = Built::of(&mut rows(&whole(1, 300)), &settings);
    let mut more = whole(2, 20);
    more[3 * DIMENSION] = 1.25;
    let report = built
        .insert(&mut numbered(&more, 1_000), &InsertOptions::default())
        .unwrap();
    assert_eq!(report.changed.inserted, 19);
    assert_eq!(report.refused.first(), [(3, Reason::BeyondEncoding)]);
}

#[test]
fn a_stop_before_the_first_commit_goes_on_where_it_was_to_begin() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let stopped = InsertOptions {
        from_row: 40,
        ..InsertOptions::default()
    };
    stopped.cancel.store(true, Ordering::Relaxed);
    let report = built
        .insert(&mut numbered(&vectors(2, 100), 1_000), &stopped)
        .unwrap();
    assert!(report.stopped);
    assert_eq!((report.rows, report.commits), (40, 0));
}

#[test]
fn fail_strict_changes_nothing() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let strict = InsertOptions {
        strict: true,
        ..InsertOptions::default()
    };
    let before = std::fs::read(built.path().join("MANIFEST")).unwrap();
    let names = || {
        let mut names: Vec<_> = built
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "LOCK")
            .collect();
        names.sort();
        names
    };
    let files = names();
    let error = built.insert(&mut faulty(), &strict).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was changed: row 0 has dimension 9 where 8 is needed; correct it or insert without --strict"
    );
    // One id that is there among many that are not.
    let more = vectors(2, 200);
    let error = built
        .insert(&mut numbered(&more, 299), &strict)
        .unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(
        std::fs::read(built.path().join("MANIFEST")).unwrap(),
        before
    );
    assert_eq!(names(), files);
    let report = built.insert(&mut numbered(&more, 300), &strict).unwrap();
    assert_eq!((report.changed.inserted, report.commits), (200, 1));
}

#[test]
fn fail_extras_and_tags_that_the_index_cannot_take() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let more = vectors(2, 3);
    let ids = || Ids::Text(vec!["a".into(), "b".into(), "c".into()]);
    let report = built
        .insert(
            &mut rows(&more).with_ids(ids()).unwrap(),
            &InsertOptions::default(),
        )
        .unwrap();
    assert_eq!(report.changed.inserted, 0);
    assert_eq!(
        report.refused.first()[0].1,
        Reason::ExtraTooLong {
            needed: 7,
            available: 0
        }
    );
    let tagged = numbered(&more, 900)
        .with_tags(vec!["blue".into()], vec![vec![], vec![0], vec![]])
        .unwrap();
    let mut tagged = tagged;
    let report = built
        .insert(&mut tagged, &InsertOptions::default())
        .unwrap();
    assert_eq!(report.changed.inserted, 2);
    assert_eq!(report.refused.first(), [(1, Reason::UnknownTag)]);

    // At a build, everything or nothing.
    let mut settings = options();
    settings.extra_bytes = Some(6);
    let folder = tempfile::tempdir().unwrap();
    let secret = SecretKey::generate(ParameterSet::N2048Q50, &mut rng(2));
    let keeper = secret.public_key(&mut rng(2));
    let base = vectors(1, 100);
    let ids = Ids::Text((0..100).map(|row| format!("id {row}")).collect());
    let error = Owner::new(owner_key(), keeper)
        .build(
            &mut rows(&base).with_ids(ids).unwrap(),
            &folder.path().join("index"),
            &settings,
            &mut rng(3),
        )
        .unwrap_err();
    assert!(matches!(
        error,
        OwnerError::ExtraTooLong {
            needed: 11,
            available: 6
        }
    ));
}

#[test]
fn a_stopped_insert_has_committed_whole_batches_and_goes_on() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let more = vectors(2, 1_000);
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&cancel);
    let settings = InsertOptions {
        batch: 100,
        cancel: Arc::clone(&cancel),
        progress: Some(Arc::new(move |_, done, total| {
            assert_eq!(total, 1_000);
            if done >= 300 {
                stop.store(true, Ordering::Relaxed);
            }
        })),
        ..InsertOptions::default()
    };
    let report = built
        .insert(&mut numbered(&more, 5_000), &settings)
        .unwrap();
    assert!(report.stopped);
    assert_eq!((report.rows, report.changed.inserted), (300, 300));
    assert_eq!(built.contents().len(), 600);

    // By the row.
    let settings = InsertOptions {
        batch: 70,
        from_row: report.rows,
        ..InsertOptions::default()
    };
    let rest = built
        .insert(&mut numbered(&more, 5_000), &settings)
        .unwrap();
    assert_eq!((rest.rows, rest.changed.inserted), (1_000, 700));
    assert_eq!(rest.changed.refused, 0);
    assert_eq!(built.contents().len(), 1_300);

    // By the ids that are there.
    let present: HashSet<u64> = built.contents().into_keys().collect();
    let known = |id| present.contains(&id);
    let settings = InsertOptions {
        present: Some(&known),
        ..InsertOptions::default()
    };
    let again = built
        .insert(&mut numbered(&more, 5_500), &settings)
        .unwrap();
    assert_eq!((again.present, again.changed.inserted), (500, 500));
    assert_eq!(again.refused.total(), 0);
    assert_eq!(built.contents().len(), 1_800);
}

#[test]
fn a_target_that_fails_ends_the_insert() {
    struct Full(AtomicU64);
    impl Target for &Full {
        type Stage = ();
        type Error = OwnerError;
        fn stage(&mut self, _: &EncodedSegment) -> Result<(), OwnerError> {
            Ok(())
        }
        fn commit(
            &mut self,
            _: Vec<()>,
            _: Vec<u64>,
            _: OnExisting,
            _: bool,
        ) -> Result<Changed, OwnerError> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 2 {
                return Err(OwnerError::SourceChanged);
            }
            Ok(Changed::default())
        }
    }
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let full = Full(AtomicU64::new(0));
    let settings = InsertOptions {
        batch: 10,
        ..InsertOptions::default()
    };
    let error = insert(
        &built.encoder(),
        &mut rows(&vectors(2, 500)),
        &mut &full,
        &settings,
        &mut rng(8),
    );
    assert!(matches!(error, Err(OwnerError::SourceChanged)));
    assert_eq!(full.0.load(Ordering::Relaxed), 3);
}

#[test]
fn fail_models_of_others() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let other = Built::of(&mut rows(&vectors(1, 300)), &{
        let mut other = options();
        other.metric = Metric::InnerProduct;
        other
    });
    let (index, others) = (built.open(), other.open());
    let model = index.model_bytes().unwrap();
    let open = |key: OwnerKey, model: &[u8], descriptor| {
        Encoder::open(key.writer_key(), model, descriptor).err()
    };
    assert!(open(owner_key(), model, index.descriptor()).is_none());
    assert!(open(OwnerKey::generate(&mut rng(7)), model, index.descriptor()).is_some());
    assert!(open(owner_key(), &model[..model.len() - 1], index.descriptor()).is_some());
    // Both have one id: the generator was the same. The metric tells them apart.
    assert!(open(owner_key(), model, others.descriptor()).is_some());
}

fn segment(encoder: &Encoder, threads: usize) -> EncodedSegment {
    let values = vectors(5, 3_000);
    let records = numbered(&values, 0).read(5_000).unwrap().unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        encoder
            .segment(records, &[], &mut HashSet::new(), &mut rng(4))
            .unwrap()
    })
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let built = Built::of(&mut rows(&vectors(1, 300)), &options());
    let encoder = built.encoder();
    let one = segment(&encoder, 1);
    assert_eq!(one.len(), 3_000);
    assert!(one == segment(&encoder, 3));
}

#[test]
fn an_estimate_leaves_nothing_and_knows_the_sizes() {
    let base = vectors(1, 3_000);
    let folder = tempfile::tempdir().unwrap();
    let secret = SecretKey::generate(ParameterSet::N2048Q50, &mut rng(2));
    let keeper = secret.public_key(&mut rng(2));
    let owner = Owner::new(owner_key(), keeper);
    let out = folder.path().join("index");
    let mut source = rows(&base);
    let estimate = owner
        .estimate(&mut source, &out, &options(), &mut rng(3))
        .unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    assert!(estimate.seconds.total > 0.0 && estimate.memory_bytes > 0);
    let report = owner
        .build(&mut source, &out, &options(), &mut rng(3))
        .unwrap();
    let total: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(estimate.vectors, 3_000);
    assert!(estimate.total_bytes().abs_diff(total) * 50 < total);
    assert!(
        owner
            .estimate(
                &mut source,
                Path::new("/nowhere/x"),
                &options(),
                &mut rng(3)
            )
            .is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However a source is cut into batches, the same vectors are there.
    #[test]
    fn batches_do_not_matter(batch in 1_usize..400, count in 1_usize..300) {
        let base = vectors(1, 64);
        let built = Built::of(&mut rows(&base), &options());
        let more = vectors(2, count);
        let settings = InsertOptions { batch, ..InsertOptions::default() };
        let report = built.insert(&mut numbered(&more, 100), &settings).unwrap();
        prop_assert_eq!(report.changed.inserted, count as u64);
        prop_assert_eq!(report.commits, count.div_ceil(batch) as u64);
        let all = built.contents();
        for row in 0..count {
            prop_assert_eq!(&all[&(100 + row as u64)].0, &vector_of(&more, row));
        }
    }
}
