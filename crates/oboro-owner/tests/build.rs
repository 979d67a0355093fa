//! Builds small indexes and looks at what lies on disk.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chacha20::ChaCha20Rng;
use oboro_ckks::{ParameterSet, PublicKey, SecretKey};
use oboro_index::{
    EpochKey, Index, IndexError, OwnerKey, RecordEncoding, RecordOpener, Rotation, verify,
};
use oboro_owner::{BuildOptions, BuildReport, Owner, OwnerError, Rows, Stage};
use oboro_quant::Metric;
use oboro_vectors::Ids;
use rand_core::{Rng, SeedableRng};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn keys(set: ParameterSet) -> (OwnerKey, PublicKey) {
    let mut rng = rng(1);
    let owner = OwnerKey::generate(&mut rng);
    let secret = SecretKey::generate(set, &mut rng);
    (owner, secret.public_key(&mut rng))
}

/// As the owner opens its own index.
fn epoch_key(owner: &OwnerKey, out: &Path) -> EpochKey {
    let head = Index::peek(out).unwrap();
    owner.epoch_key(&head.index_id, head.epoch, head.released)
}

/// Clustered vectors: `count` around 40 centres.
fn vectors(count: usize, dimension: usize) -> Vec<f32> {
    let mut rng = rng(2);
    let mut uniform = move || (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5;
    let centres: Vec<f32> = (0..40 * dimension).map(|_| 8.0 * uniform()).collect();
    (0..count)
        .flat_map(|row| (0..dimension).map(move |at| (row % 40, at)))
        .map(|(centre, at)| centres[centre * dimension + at] + uniform())
        .collect()
}

fn options(metric: Metric) -> BuildOptions {
    BuildOptions {
        metric,
        centroids: 16,
        iterations: 5,
        trials: 16,
        ..BuildOptions::default()
    }
}

fn build(
    values: &[f32],
    dimension: usize,
    out: &Path,
    options: &BuildOptions,
) -> Result<BuildReport, OwnerError> {
    let (owner, keeper) = keys(ParameterSet::N2048Q50);
    let mut source = Rows::new(values, dimension).unwrap();
    Owner::new(owner, keeper).build(&mut source, out, options, &mut rng(3))
}

fn fails(values: &[f32], dimension: usize, options: &BuildOptions) -> OwnerError {
    let folder = tempfile::tempdir().unwrap();
    let error = build(values, dimension, &folder.path().join("index"), options).unwrap_err();
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "a failed build leaves nothing: {error}");
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    error
}

#[test]
fn the_keepers_part_is_in_the_key_unless_there_is_no_keeper() {
    let values = vectors(200, 8);
    for released in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("index");
        let mut options = options(Metric::L2);
        assert!(options.released);
        options.released = released;
        let report = build(&values, 8, &out, &options).unwrap();
        assert_eq!(report.state, Index::peek(&out).unwrap());
        assert_eq!((report.state.epoch, report.state.generation), (1, 1));
        assert_eq!(report.state.released, released);
        let storage = keys(ParameterSet::N2048Q50).0.storage_key();
        let alone = storage.for_epoch(None, &report.state.index_id, 1);
        match Index::open(&out, &alone) {
            Ok(index) => {
                assert!(!released);
                assert_eq!(index.head(), report.state);
            }
            Err(error) => {
                assert!(released);
                assert!(matches!(error, IndexError::ShareMissing), "{error}");
            }
        }
    }
}

/// Vectors of which every coordinate depends on one far away: what a matrix can part.
fn entangled(count: usize, dimension: usize) -> Vec<f32> {
    let mut rng = rng(5);
    let mut uniform = move || (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5;
    let mut values = Vec::with_capacity(count * dimension);
    for _ in 0..count {
        let half: Vec<f32> = (0..dimension / 2).map(|_| uniform()).collect();
        values.extend(&half);
        values.extend(half.iter().map(|v| v + 0.05 * uniform()));
    }
    values
}

#[test]
fn a_learned_matrix_helps_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(Metric::L2);
    options.opq = Some(8);
    let report = build(&entangled(1500, 16), 16, &folder.path().join("a"), &options).unwrap();
    let opq = report.opq.unwrap();
    assert!(opq.helps(), "{opq:?}");
    // So few vectors say little about neighbours: no worse, up to chance.
    assert!(opq.recall_with > opq.recall_without - 0.02, "{opq:?}");
    assert!(report.lists.is_none());
    assert!(
        report.trial.recall_10_at_10.unwrap() > 0.9,
        "{:?}",
        report.trial
    );
    // Noise has nothing to be parted.
    let mut rng = rng(6);
    let noise: Vec<f32> = (0..1500 * 15)
        .map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5)
        .collect();
    options.opq = Some(1);
    let report = build(&noise, 15, &folder.path().join("b"), &options).unwrap();
    assert!(!report.opq.unwrap().helps(), "{:?}", report.opq);
}

#[test]
fn lists_are_sealed_measured_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("index");
    let mut options = options(Metric::L2);
    options.lists = 10;
    options.probes_max = Some(4);
    options.opq = Some(2);
    let report = build(&vectors(1500, 12), 12, &out, &options).unwrap();
    let lists = report.lists.unwrap();
    assert_eq!((lists.lists, lists.probes_max), (10, 4));
    // 1.25 times the mean, in whole blocks.
    assert_eq!(lists.places, 192);
    assert!(lists.recall_10_at_10.unwrap() > 0.8, "{lists:?}");
    assert!(lists.recall_10_at_10 <= report.trial.recall_10_at_10);
    for kind in [".lists", "query-model.oboro"] {
        assert!(report.files.iter().any(|(name, _)| name.ends_with(kind)));
    }
    let (owner, _) = keys(ParameterSet::N2048Q50);
    let key = epoch_key(&owner, &out);
    let report = verify(&out, &key, Some(&owner.client_key())).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let index = Index::open(&out, &key).unwrap();
    assert_eq!(index.segments()[0].lists().unwrap().len(), 1500);
    assert!(index.segments()[0].listed().is_some());
}

#[test]
fn fail_matrices_and_lists_that_cannot_be() {
    let values = vectors(300, 8);
    let with = |change: fn(&mut BuildOptions)| {
        let mut options = options(Metric::L2);
        change(&mut options);
        fails(&values, 8, &options).to_string()
    };
    assert!(with(|o| o.lists = 301).contains("300"));
    assert!(with(|o| (o.lists, o.probes_max) = (10, Some(11))).contains("1 to 10"));
    assert!(with(|o| (o.lists, o.probes_max) = (10, Some(0))).contains("1 to 10"));
    assert!(with(|o| o.probes_max = Some(1)).contains("--lists"));
    assert!(with(|o| (o.metric, o.lists) = (Metric::Lorentz, 10)).contains("Lorentz"));
    assert!(with(|o| (o.metric, o.opq) = (Metric::Lorentz, Some(1))).contains("Lorentz"));
}

#[test]
fn every_metric_and_odd_dimension() {
    for (metric, dimension) in [
        (Metric::L2, 24),
        (Metric::InnerProduct, 97),
        (Metric::Cosine, 50),
        (Metric::L2, 1),
    ] {
        let values = vectors(700, dimension);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("index");
        let report = build(&values, dimension, &out, &options(metric)).unwrap();
        assert_eq!((report.vectors, report.dimension), (700, dimension));
        assert_eq!(report.encryption.security_bits, 139);
        assert!(
            report.trial.table_error <= report.trial.table_error_bound,
            "{report:?}"
        );
        assert!(report.encryption.margin_bits > 0.0);
        if dimension > 1 {
            assert!(
                report.trial.recall_10_at_10.unwrap() > 0.9,
                "{metric:?} {dimension} {:?}",
                report.trial
            );
        }

        let owner = keys(ParameterSet::N2048Q50).0;
        let sound = verify(&out, &epoch_key(&owner, &out), Some(&owner.client_key())).unwrap();
        assert!(sound.is_sound(), "{sound:?}");
        assert_eq!(sound.records_opened, 700);
        let listed: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
        let there: u64 = out
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(listed, there);

        // Every id once, each with its own vector.
        let index = Index::open(&out, &epoch_key(&owner, &out)).unwrap();
        let descriptor = index.descriptor();
        assert_eq!(descriptor.record_encoding, RecordEncoding::F16);
        let client = owner.client_key();
        let opener = RecordOpener::new(
            client.record_key(),
            descriptor.index_id,
            descriptor.record_layout(),
        );
        let segment = &index.segments()[0];
        let mut seen = vec![false; 700];
        for position in 0..700 {
            let mut bytes = Vec::new();
            segment.append_record(position, &mut bytes).unwrap();
            let record = opener.open(&bytes).unwrap();
            let id = record.id as usize;
            assert_eq!(segment.ids()[position as usize], record.id);
            assert!(!std::mem::replace(&mut seen[id], true));
            for (a, b) in record
                .vector
                .iter()
                .zip(&values[id * dimension..][..dimension])
            {
                assert!((a - b).abs() <= b.abs() / 1024.0 + 1e-6);
            }
        }
        // Stored in another order than given.
        assert!(
            segment
                .ids()
                .iter()
                .zip(0..)
                .filter(|(id, row)| **id == *row)
                .count()
                < 30
        );
    }
}

#[test]
fn rotations_and_parameter_sets() {
    let values = vectors(500, 32);
    for (rotation, set) in [
        (Rotation::None, ParameterSet::N2048Q50),
        (Rotation::Full, ParameterSet::N4096Q100),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(Metric::L2);
        options.rotation = rotation;
        let (owner, keeper) = keys(set);
        let mut source = Rows::new(&values, 32).unwrap();
        let report = Owner::new(owner, keeper)
            .build(&mut source, &folder.path().join("i"), &options, &mut rng(3))
            .unwrap();
        assert_eq!(report.rotation, rotation.name());
        let cost = report.rotation_cost;
        assert_eq!(cost.is_some(), rotation == Rotation::Full);
        assert!(
            cost.is_none_or(|cost| cost > 0.1 && cost < 10.0),
            "{cost:?}"
        );
        assert_eq!(report.encryption.parameter_set, set.name());
        assert!(
            report.trial.recall_10_at_10.unwrap() > 0.9,
            "{:?}",
            report.trial
        );
    }
}

#[test]
fn the_same_codebook_on_any_number_of_threads() {
    let values = vectors(600, 16);
    let recall = |threads| {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(Metric::L2);
        options.threads = Some(threads);
        let out = folder.path().join("index");
        let report = build(&values, 16, &out, &options).unwrap();
        let owner = keys(ParameterSet::N2048Q50).0;
        let index = Index::open(&out, &epoch_key(&owner, &out)).unwrap();
        let codes = index.segments()[0].codes().as_bytes().to_vec();
        (
            report.trial.recall_10_at_10_unranked,
            report.state.index_id,
            codes,
        )
    };
    assert_eq!(recall(1), recall(2));
}

#[test]
fn whole_numbers_are_stored_as_bytes() {
    let values: Vec<f32> = vectors(300, 8)
        .iter()
        .map(|v| (v * 10.0 + 100.0).round())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let report = build(&values, 8, &folder.path().join("i"), &options(Metric::L2)).unwrap();
    assert_eq!(report.originals, "u8");
}

#[test]
fn progress_comes_in_order() {
    let stages = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut options = options(Metric::L2);
    let seen = Arc::clone(&stages);
    options.progress = Some(Arc::new(move |stage, done, total| {
        assert!(done <= total);
        let mut seen = seen.lock().unwrap();
        if seen.last() != Some(&stage) {
            seen.push(stage);
        }
    }));
    let folder = tempfile::tempdir().unwrap();
    build(&vectors(300, 8), 8, &folder.path().join("i"), &options).unwrap();
    assert_eq!(
        *stages.lock().unwrap(),
        [
            Stage::Read,
            Stage::Train,
            Stage::Encode,
            Stage::Trial,
            Stage::Write
        ]
    );
}

#[test]
fn sets_of_a_few_vectors_are_indexes_too() {
    for rows in [1, 2, 15, 16, 99] {
        let values = vectors(rows, 8);
        for (metric, rotation) in [
            (Metric::L2, Rotation::Full),
            (Metric::Cosine, Rotation::Subspace),
        ] {
            let mut few = options(metric);
            few.centroids = 256;
            few.rotation = rotation;
            let folder = tempfile::tempdir().unwrap();
            let report = build(&values, 8, &folder.path().join("index"), &few).unwrap();
            assert_eq!((report.vectors, report.centroids), (rows, 256));
            let recall = (rows > 1).then_some(1.0);
            assert_eq!(report.trial.recall_10_at_10, recall);
            assert_eq!(report.trial.recall_10_at_10_unranked.is_some(), rows > 1);
            assert_eq!(report.trial.recall_in_lists, None);
        }
    }
}

#[test]
fn of_vectors_at_one_distance_one_is_as_right_as_another() {
    // 1,000 equal ones, and 100 of each of ten.
    for distinct in [1, 10] {
        let some = vectors(distinct, 8);
        let values: Vec<f32> = some.iter().copied().cycle().take(1_000 * 8).collect();
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("index");
            let trial = build(&values, 8, &out, &options(metric)).unwrap().trial;
            assert_eq!(trial.recall_10_at_10, Some(1.0), "{distinct} {metric:?}");
            if metric != Metric::InnerProduct {
                assert_eq!(trial.recall_10_at_10_unranked, Some(1.0), "{metric:?}");
            }
        }
    }
}

#[test]
fn one_vector_much_longer_than_the_rest_is_told_of() {
    let mut values = vectors(2_000, 8);
    let folder = tempfile::tempdir().unwrap();
    let usual = build(&values, 8, &folder.path().join("a"), &options(Metric::L2)).unwrap();
    assert!(usual.lengths.longest < 5.0 * usual.lengths.median);
    for value in &mut values[..8] {
        *value *= 1e4;
    }
    let report = build(&values, 8, &folder.path().join("b"), &options(Metric::L2)).unwrap();
    assert!(report.lengths.longest > 1e3 * report.lengths.median);
    assert!((report.lengths.median / usual.lengths.median - 1.0).abs() < 0.1);
    // Noise and the steps of a table grow with the longest.
    assert!(report.trial.recall_10_at_10 < usual.trial.recall_10_at_10);
}

#[test]
fn fail_shapes() {
    let values = vectors(100, 8);
    let mut wide = options(Metric::L2);
    wide.subquantizers = Some(9);
    assert!(matches!(
        fails(&values, 8, &wide),
        OwnerError::TooManySubquantizers {
            subquantizers: 9,
            dimension: 8
        }
    ));
    let mut none = options(Metric::L2);
    none.subquantizers = Some(0);
    fails(&values, 8, &none);
    let mut zero = values.clone();
    zero[16..24].fill(0.0);
    assert!(matches!(
        fails(&zero, 8, &options(Metric::Cosine)),
        OwnerError::NoDirection { row: 2 }
    ));
}

#[test]
fn fail_ids() {
    let values = vectors(100, 8);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("index");
    let build = |ids: &[u64]| {
        let (owner, keeper) = keys(ParameterSet::N2048Q50);
        let mut source = Rows::new(&values, 8)
            .unwrap()
            .with_ids(Ids::Numbers(ids.to_vec()))
            .unwrap();
        Owner::new(owner, keeper).build(&mut source, &out, &options(Metric::L2), &mut rng(3))
    };
    let mut ids: Vec<u64> = (1_000..1_100).collect();
    ids[70] = ids[30];
    assert!(matches!(
        build(&ids),
        Err(OwnerError::DuplicateId {
            first: 30,
            second: 70
        })
    ));
    assert!(!out.exists());
    ids[70] = 1_070;
    build(&ids).unwrap();
    let owner = keys(ParameterSet::N2048Q50).0;
    let index = Index::open(&out, &epoch_key(&owner, &out)).unwrap();
    let mut stored = index.segments()[0].ids().to_vec();
    stored.sort_unstable();
    assert_eq!(stored, ids);
}

#[test]
fn fail_existing_output_unless_forced() {
    let values = vectors(100, 8);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("index");
    let mut options = options(Metric::L2);
    let first = build(&values, 8, &out, &options).unwrap();
    let again = build(&values, 8, &out, &options).unwrap_err();
    assert!(again.to_string().contains("--force"), "{again}");
    options.force = true;
    let second = build(&values[..400], 8, &out, &options).unwrap();
    assert_eq!((first.vectors, second.vectors), (100, 50));
    let owner = keys(ParameterSet::N2048Q50).0;
    let index = Index::open(&out, &epoch_key(&owner, &out)).unwrap();
    assert_eq!(index.vectors(), 50);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn fail_cancelled_at_every_stage() {
    for stop in [
        Stage::Read,
        Stage::Train,
        Stage::Encode,
        Stage::Trial,
        Stage::Write,
    ] {
        let cancel = Arc::new(AtomicBool::new(false));
        let mut options = options(Metric::L2);
        options.cancel = Arc::clone(&cancel);
        options.progress = Some(Arc::new(move |stage, _, _| {
            if stage == stop {
                cancel.store(true, Ordering::Relaxed);
            }
        }));
        assert!(
            matches!(fails(&vectors(300, 8), 8, &options), OwnerError::Cancelled),
            "{stop:?}"
        );
    }
}

#[test]
fn points_of_the_hyperboloid_are_stored_in_single_precision() {
    let points: Vec<f32> = vectors(1500, 8)
        .chunks_exact(8)
        .flat_map(|space| {
            let space: Vec<f32> = space.iter().map(|value| value / 16.0).collect();
            let time = (1.0 + space.iter().map(|v| v * v).sum::<f32>()).sqrt();
            [vec![time], space].concat()
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    for (metric, originals, bytes) in [(Metric::Lorentz, "f32", 4), (Metric::L2, "f16", 2)] {
        let (owner, keeper) = keys(ParameterSet::N2048Q50);
        let owner = Owner::new(owner, keeper);
        let (out, options) = (dir.path().join(originals), options(metric));
        let mut source = Rows::new(&points, 9).unwrap();
        let expected = owner
            .estimate(&mut source, &out, &options, &mut rng(3))
            .unwrap();
        let report = owner
            .build(&mut source, &out, &options, &mut rng(3))
            .unwrap();
        assert_eq!(report.originals, originals);
        // What is said beforehand counts the same records.
        let written: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
        let ratio = expected.total_bytes() as f64 / written as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
        let records = |files: &[(String, u64)]| {
            let of = files.iter().filter(|(name, _)| name.contains("record"));
            of.map(|(_, bytes)| bytes).sum::<u64>()
        };
        assert!(records(&report.files) >= 1500 * 9 * bytes);
        assert!(records(&report.files) < 1500 * (9 * bytes + 40));
    }
}
