//! A build in an enclave, without the network between: the same bytes as a local build.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::Path;

use chacha20::ChaCha20Rng;
use oboro_ckks::{ParameterSet, PublicKey, SecretKey};
use oboro_index::{BuildKeys, EncodingChoice, OwnerKey, Rotation};
use oboro_owner::enclave::{Batch, Built, Job, Link, Piece, Told, generate};
use oboro_owner::{BuildOptions, BuildReport, Ids, Owner, OwnerError, Rows, VectorSource};
use oboro_quant::Metric;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

const ROWS: usize = 700;
const DIMENSION: usize = 12;

fn values(whole: bool) -> Vec<f32> {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    (0..ROWS * DIMENSION)
        .map(|at| {
            let value = ((rng.next_u64() >> 56) + (at as u64 / DIMENSION as u64 % 7) * 8) / 2;
            if whole {
                value as f32
            } else {
                value as f32 / 9.0 - 3.0
            }
        })
        .collect()
}

fn keeper() -> PublicKey {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    SecretKey::generate(ParameterSet::N2048Q50, &mut rng).public_key(&mut rng)
}

fn owner() -> Owner {
    Owner::new(
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([5; 32])),
        keeper(),
    )
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([6; 32])
}

fn options() -> BuildOptions {
    BuildOptions {
        centroids: 16,
        seed: [7; 32],
        trials: 20,
        ..BuildOptions::default()
    }
}

/// What an enclave may do wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    FlipsAByte(usize),
    SendsTooMuch,
    SendsTooLittle,
    ForgetsARow,
    TakesAnotherMetric,
}

/// A generator in the same process. What it is told and sent is packed and unpacked.
struct Beside {
    wrong: Wrong,
    job: Option<Job>,
    early: Vec<u8>,
    batches: VecDeque<Batch<Vec<u8>>>,
    pieces: VecDeque<Vec<u8>>,
    done: bool,
    aborted: bool,
    most: usize,
    /// Everything that the generator had on its disk.
    on_disk: Vec<u8>,
}

impl Beside {
    fn new(wrong: Wrong) -> Self {
        Self {
            wrong,
            job: None,
            early: Vec::new(),
            batches: VecDeque::new(),
            pieces: VecDeque::new(),
            done: false,
            aborted: false,
            most: 0,
            on_disk: Vec::new(),
        }
    }
}

impl Link for Beside {
    type Error = OwnerError;

    fn begin(&mut self, job: &Job, _: Told<'_>) -> Result<(), OwnerError> {
        let mut options = job.options.clone();
        options.threads = Some(1);
        options.force = false;
        if self.wrong == Wrong::TakesAnotherMetric {
            options.metric = Metric::InnerProduct;
        }
        self.job = Some(Job {
            keys: BuildKeys::from_bytes(&job.keys.to_bytes()[..])?,
            keeper: PublicKey::from_bytes(&job.keeper.to_bytes())?,
            seed: Zeroizing::new(*job.seed),
            options,
            tags: job.tags.clone(),
            trial_rows: job.trial_rows.clone(),
            ..*job
        });
        Ok(())
    }

    fn early(&mut self, vectors: Vec<u8>, _: Told<'_>) -> Result<(), OwnerError> {
        self.early.extend(vectors);
        Ok(())
    }

    fn records(&mut self, batch: Batch<Vec<u8>>, _: Told<'_>) -> Result<(), OwnerError> {
        self.most = self.most.max(batch.vectors.len());
        self.batches.push_back(batch);
        Ok(())
    }

    fn built(&mut self, _: Told<'_>) -> Result<Built, OwnerError> {
        let job = self.job.take().unwrap();
        let early = job.form.unpack(&self.early).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("index");
        let mut first = 0;
        let mut batches = std::mem::take(&mut self.batches);
        if self.wrong == Wrong::ForgetsARow {
            batches.pop_back();
        }
        let mut next = || {
            let records = batches.pop_front()?.into_records(&job, first).unwrap();
            first += records.len();
            Some(records)
        };
        let report = generate(&job, early, &mut next, &out)?;
        self.on_disk = files_below(folder.path());
        let mut all = Vec::new();
        for (name, _) in &report.files[1..] {
            all.extend(std::fs::read(out.join(name)).unwrap());
        }
        match self.wrong {
            Wrong::FlipsAByte(at) => {
                let at = at * all.len() / 100;
                all[at] ^= 1;
            }
            Wrong::SendsTooMuch => all.push(0),
            Wrong::SendsTooLittle => drop(all.pop()),
            _ => {}
        }
        // Pieces that end wherever they do.
        self.pieces = all.chunks(9_999).map(<[u8]>::to_vec).collect();
        Ok(Built {
            manifest: std::fs::read(out.join("MANIFEST")).unwrap(),
            rotation_cost: report.rotation_cost,
            opq: report.opq,
            lists: report.lists,
            trial: report.trial,
            seconds: report.seconds,
        })
    }

    fn piece(&mut self) -> Result<Option<Piece>, OwnerError> {
        Ok(self.pieces.pop_front())
    }

    fn done(&mut self) {
        self.done = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
    }
}

fn compare(source: impl Fn() -> Box<dyn VectorSource>, options: &BuildOptions) -> BuildReport {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let local = owner()
        .build(&mut *source(), &here, options, &mut rng())
        .unwrap();
    let mut link = Beside::new(Wrong::Nothing);
    let enclave = owner()
        .build_enclave(&mut *source(), &mut link, &there, options, &mut rng())
        .unwrap();
    assert!(link.done && !link.aborted);
    assert_eq!(names(&here), names(&there));
    for name in names(&here) {
        let (here, there) = (here.join(&name), there.join(&name));
        assert!(
            std::fs::read(here).unwrap() == std::fs::read(there).unwrap(),
            "{name}"
        );
    }
    assert_eq!(local.state, enclave.state);
    assert_eq!(local.files, enclave.files);
    assert_eq!(local.trial.recall_10_at_10, enclave.trial.recall_10_at_10);
    assert_eq!(local.lengths, enclave.lengths);
    assert_eq!(local.rotation_cost, enclave.rotation_cost);
    assert_eq!(local.record_bytes, enclave.record_bytes);
    assert_eq!(local.encryption.noise_bits, enclave.encryption.noise_bits);
    enclave
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn plain(whole: bool) -> Box<dyn VectorSource> {
    Box::new(Rows::new(Box::leak(values(whole).into_boxed_slice()), DIMENSION).unwrap())
}

#[test]
fn the_bytes_are_those_of_a_local_build() {
    compare(|| plain(true), &options());
    for metric in [Metric::Cosine, Metric::InnerProduct] {
        let options = BuildOptions {
            metric,
            rotation: Rotation::Full,
            originals: EncodingChoice::F16,
            released: metric == Metric::Cosine,
            ..options()
        };
        let report = compare(|| plain(false), &options);
        assert!(report.rotation_cost.is_some());
    }
    let options = BuildOptions {
        opq: Some(2),
        lists: 5,
        ..options()
    };
    let report = compare(|| plain(false), &options);
    assert!(report.opq.is_some() && report.lists.is_some());
}

fn files_below(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files_below(&path)),
            false => all.extend(std::fs::read(path).unwrap()),
        }
    }
    all
}

/// What lies on the generator's disk is what will lie at the searcher, and sealed.
#[test]
fn nothing_lies_in_clear_on_the_disk_of_the_generator() {
    const MARK: &str = "a name that is not to be read";
    let mut values = values(false);
    // Vectors that no ciphertext holds by chance.
    let marked: Vec<f32> = (0..DIMENSION).map(|at| 1.0 + at as f32 / 64.0).collect();
    for row in 0..ROWS / 2 {
        values[2 * row * DIMENSION..][..DIMENSION].copy_from_slice(&marked);
    }
    let rows = Rows::new(&values, DIMENSION)
        .unwrap()
        .with_ids(Ids::Text(
            (0..ROWS).map(|row| format!("{MARK} {row}")).collect(),
        ))
        .unwrap()
        .with_payloads(vec![MARK.as_bytes().to_vec(); ROWS])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = BuildOptions {
        originals: EncodingChoice::F32,
        rotation: Rotation::None,
        ..options()
    };
    let (mut rows, mut link) = (rows, Beside::new(Wrong::Nothing));
    let out = folder.path().join("index");
    let owner = owner();
    owner
        .build_enclave(&mut rows, &mut link, &out, &options, &mut rng())
        .unwrap();
    assert!(link.on_disk.len() > ROWS * DIMENSION * 4);
    let bytes: Vec<u8> = marked[..2].iter().flat_map(|v| v.to_le_bytes()).collect();
    let here: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let holds = |all: &[u8], what: &[u8]| all.windows(what.len()).any(|window| window == what);
    assert!(holds(&here, &bytes), "the search finds what there is");
    assert!(!holds(&link.on_disk, &bytes));
    assert!(!holds(&link.on_disk, MARK.as_bytes()));
    let mut drawn = rng();
    let mut index_id = [0; 16];
    drawn.fill_bytes(&mut index_id);
    let keys = OwnerKey::generate(&mut ChaCha20Rng::from_seed([5; 32]))
        .build_keys(&index_id, true)
        .to_bytes();
    for key in keys[..160].chunks(32) {
        assert!(!holds(&link.on_disk, key));
    }
}

/// However many vectors there are, the generator gets them in bounded messages.
#[test]
fn messages_are_bounded() {
    const WIDE: usize = 3_000;
    let values = vec![0.5; 1_000 * WIDE];
    let mut rows = Rows::new(&values, WIDE).unwrap();
    let mut link = Beside::new(Wrong::ForgetsARow);
    let folder = tempfile::tempdir().unwrap();
    let options = BuildOptions {
        sample: Some(16),
        iterations: 1,
        ..options()
    };
    let out = folder.path().join("index");
    let stopped = owner().build_enclave(&mut rows, &mut link, &out, &options, &mut rng());
    assert!(stopped.is_err());
    assert!(link.most > 1 << 20 && link.most <= 4 << 20, "{}", link.most);
}

#[test]
fn ids_tags_and_payloads_come_along() {
    let rich = || -> Box<dyn VectorSource> {
        let values = Box::leak(values(false).into_boxed_slice());
        let rows = Rows::new(values, DIMENSION)
            .unwrap()
            .with_ids(Ids::Text(
                (0..ROWS).map(|row| format!("row {row}")).collect(),
            ))
            .unwrap()
            .with_tags(
                vec!["even".into(), "by three".into()],
                (0..ROWS as u32)
                    .map(|row| (0..2).filter(|tag| row % (tag + 2) == 0).collect())
                    .collect(),
            )
            .unwrap()
            .with_payloads((0..ROWS).map(|row| vec![row as u8; row % 9]).collect())
            .unwrap();
        Box::new(rows)
    };
    let report = compare(rich, &options());
    assert_eq!(report.tags, 2);
    let numbers = || -> Box<dyn VectorSource> {
        let values = Box::leak(values(true).into_boxed_slice());
        let ids = Ids::Numbers((0..ROWS as u64).map(|row| row * row + 5).collect());
        Box::new(Rows::new(values, DIMENSION).unwrap().with_ids(ids).unwrap())
    };
    compare(numbers, &options());
}

fn fails(wrong: Wrong) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("index");
    let mut link = Beside::new(wrong);
    let error = owner()
        .build_enclave(&mut *plain(true), &mut link, &out, &options(), &mut rng())
        .unwrap_err();
    assert!(link.aborted && !link.done);
    assert!(names(folder.path()).is_empty(), "nothing is left");
    error.to_string()
}

#[test]
fn fail_an_index_that_is_not_what_was_asked_for() {
    assert!(fails(Wrong::TakesAnotherMetric).contains("metric"));
    for at in [0, 20, 50, 80, 99] {
        let message = fails(Wrong::FlipsAByte(at));
        assert!(message.contains("hash"), "{message}");
    }
    assert!(fails(Wrong::SendsTooMuch).contains("more"));
    assert!(fails(Wrong::SendsTooLittle).contains("missing"));
    assert!(fails(Wrong::ForgetsARow).contains("changed"));
}

#[test]
fn fail_rows_that_a_local_build_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("index");
    let mut values = values(false);
    values[5 * DIMENSION..6 * DIMENSION].fill(0.0);
    let cosine = BuildOptions {
        metric: Metric::Cosine,
        ..options()
    };
    let mut rows = Rows::new(&values, DIMENSION).unwrap();
    let mut link = Beside::new(Wrong::Nothing);
    let error = owner()
        .build_enclave(&mut rows, &mut link, &out, &cosine, &mut rng())
        .unwrap_err();
    assert!(
        matches!(error, OwnerError::NoDirection { row: 5 }),
        "{error}"
    );
    // The generator has heard nothing.
    assert!(link.job.is_none());
    let twice = Ids::Numbers(vec![1; ROWS]);
    let mut rows = Rows::new(&values, DIMENSION)
        .unwrap()
        .with_ids(twice)
        .unwrap();
    let error = owner()
        .build_enclave(&mut rows, &mut link, &out, &options(), &mut rng())
        .unwrap_err();
    assert!(
        matches!(
            error,
            OwnerError::DuplicateId {
                first: 0,
                second: 1
            }
        ),
        "{error}"
    );
}

/// The generator's own checks, for an owner that lies or errs.
#[test]
fn fail_batches_that_the_job_does_not_announce() {
    let mut link = Beside::new(Wrong::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.trials = 0;
    // Leaves the job and the batches behind.
    struct Stops<'a>(&'a mut Beside);
    impl Link for Stops<'_> {
        type Error = OwnerError;
        fn begin(&mut self, job: &Job, told: Told<'_>) -> Result<(), OwnerError> {
            self.0.begin(job, told)
        }
        fn early(&mut self, vectors: Vec<u8>, told: Told<'_>) -> Result<(), OwnerError> {
            self.0.early(vectors, told)
        }
        fn records(&mut self, batch: Batch<Vec<u8>>, told: Told<'_>) -> Result<(), OwnerError> {
            self.0.records(batch, told)
        }
        fn built(&mut self, _: Told<'_>) -> Result<Built, OwnerError> {
            Err(OwnerError::Cancelled)
        }
        fn piece(&mut self) -> Result<Option<Piece>, OwnerError> {
            Ok(None)
        }
        fn done(&mut self) {}
        fn abort(&mut self) {}
    }
    let out = folder.path().join("index");
    let stopped = owner().build_enclave(
        &mut *plain(false),
        &mut Stops(&mut link),
        &out,
        &options,
        &mut rng(),
    );
    assert!(matches!(stopped, Err(OwnerError::Cancelled)));
    let (job, batch) = (link.job.unwrap(), link.batches.pop_front().unwrap());
    assert_eq!(batch.clone().into_records(&job, 0).unwrap().len(), ROWS);
    assert!(format!("{batch:?}").len() < 60);
    let refuses = |change: &dyn Fn(&mut Batch<Vec<u8>>)| {
        let mut batch = batch.clone();
        change(&mut batch);
        assert!(batch.into_records(&job, 0).is_err());
    };
    assert!(
        batch.clone().into_records(&job, 1).is_err(),
        "one row too many"
    );
    refuses(&|batch| batch.vectors.clear());
    refuses(&|batch| batch.vectors.truncate(batch.vectors.len() - 1));
    refuses(&|batch| batch.vectors.truncate(DIMENSION * 4 - 4));
    refuses(&|batch| batch.vectors[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    refuses(&|batch| batch.vectors[..4].copy_from_slice(&1e30_f32.to_le_bytes()));
    refuses(&|batch| batch.ids = vec![1]);
    refuses(&|batch| batch.tags = vec![1; ROWS]);
    refuses(&|batch| batch.payloads = vec![vec![]; ROWS - 1]);
    refuses(&|batch| batch.text_ids = vec![String::new(); ROWS]);
    refuses(&|batch| {
        batch.ids = vec![1; ROWS];
        batch.text_ids = vec!["a".into(); ROWS];
    });
    let mut wrong = job;
    wrong.largest_norm = f32::NAN;
    assert!(wrong.early_vectors().is_err());
    wrong.largest_norm = 1.0;
    assert!(wrong.early_vectors().is_ok());
    for rows in [vec![3, 3], vec![4, 2], vec![ROWS]] {
        wrong.trial_rows = rows;
        assert!(wrong.early_vectors().is_err());
    }
    // What a generator asks for in vain ends the build.
    wrong.trial_rows = Vec::new();
    let early = vec![1.0; wrong.early_vectors().unwrap() * DIMENSION];
    let result = generate(&wrong, early, &mut || None, &out);
    assert!(matches!(result, Err(OwnerError::SourceChanged)));
    assert!(names(folder.path()).is_empty());
}
