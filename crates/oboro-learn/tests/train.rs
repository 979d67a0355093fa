//! Runs of the trainer: they learn, resume to the byte, and survive what goes
//! wrong.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Toy, bytes_of};
use oboro_learn::LearnError;
use oboro_learn::data::{Augmentation, Crop};
use oboro_learn::evaluation::Score;
use oboro_learn::train::{
    Checkpoint, Config, End, Group, Groups, Line, METRICS, Metric, Observer, Outcome, Progress,
    Schedule, Validated, Validation, Watched, read_metrics,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn stepped(&mut self, progress: &Progress) {
        if progress.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn validation(toy: &Toy) -> Validation<'_> {
    Validation {
        dataset: &toy.test,
        score: Score::Cosine,
        metric: Metric::MapAtR,
        watched: Watched::Validation,
    }
}

/// A run with all that draws random numbers.
fn lively() -> Config {
    Config {
        seed: 11,
        epochs: 3,
        augmentation: Augmentation {
            crop: Crop::Shifted { pixels: 1 },
            flip: true,
            turn: 5.0,
            zoom: 0.05,
        },
        warm_up: 3,
        schedule: Schedule::Cosine { last: 0.1 },
        log_every: 2,
        ..common::config()
    }
}

fn run(toy: &Toy, config: Config, folder: &Path, loss: &str, stop: Option<u64>) -> Outcome {
    let cancel = AtomicBool::new(false);
    let mut observer = StopAt(stop.unwrap_or(u64::MAX), &cancel);
    common::trainer(config, loss, 1)
        .into_folder(folder)
        .unwrap()
        .run(&toy.train, Some(&validation(toy)), &cancel, &mut observer)
        .unwrap()
}

fn resume(toy: &Toy, config: Config, folder: &Path, loss: &str, stop: Option<u64>) -> Outcome {
    let cancel = AtomicBool::new(false);
    let mut observer = StopAt(stop.unwrap_or(u64::MAX), &cancel);
    // Other first weights: everything has to come from the checkpoint.
    common::trainer(config, loss, 2)
        .resume(folder)
        .unwrap()
        .run(&toy.train, Some(&validation(toy)), &cancel, &mut observer)
        .unwrap()
}

#[test]
fn it_learns() {
    struct Watch(Vec<f64>, Vec<Validated>);
    impl Observer for Watch {
        fn stepped(&mut self, progress: &Progress) {
            assert!(progress.loss.is_finite() && progress.gradient_norm > 0.0);
            self.0.push(progress.loss);
        }
        fn validated(&mut self, validated: &Validated) {
            self.1.push(*validated);
        }
    }
    let toy = Toy::new();
    let config = Config {
        epochs: 6,
        rate: 3e-3,
        ..common::config()
    };
    let mut watch = Watch(Vec::new(), Vec::new());
    let outcome = common::trainer(config, "proxy-anchor", 1)
        .run(
            &toy.train,
            Some(&validation(&toy)),
            &AtomicBool::new(false),
            &mut watch,
        )
        .unwrap();
    assert_eq!(outcome.end, End::Finished);
    assert_eq!(outcome.step, watch.0.len() as u64);
    assert_eq!(outcome.checkpoint, None);
    let (first, last) = (watch.0[0], watch.0[watch.0.len() - 1]);
    assert!(last < 0.5 * first, "loss {first} to {last}");
    assert_eq!(watch.1.len(), 6);
    let best = outcome.best.unwrap().figure;
    assert!(best > 0.9, "MAP@R {best}");
}

#[test]
fn an_interrupted_run_resumes_to_the_byte() {
    let toy = Toy::new();
    for loss in ["chest", "multi-similarity"] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let uninterrupted = run(&toy, lively(), &whole, loss, None);
        assert_eq!(uninterrupted.end, End::Finished);

        // Within an epoch, at its end, and once more.
        let first = run(&toy, lively(), &parts, loss, Some(3));
        assert_eq!((first.end, first.step), (End::Interrupted, 3));
        assert_eq!(
            Checkpoint::latest(&parts).unwrap(),
            Some(parts.join("step-00000003"))
        );
        let epoch = uninterrupted.step / 3;
        let second = resume(&toy, lively(), &parts, loss, Some(epoch));
        assert_eq!((second.end, second.step), (End::Interrupted, epoch));
        let third = resume(&toy, lively(), &parts, loss, None);
        assert_eq!(third.end, End::Finished);
        assert_eq!(third.best, uninterrupted.best);

        let last = format!("step-{:08}", uninterrupted.step);
        assert_eq!(bytes_of(&whole.join(&last)), bytes_of(&parts.join(&last)));
        // The record has every line once.
        let lines = |run: &Path| -> Vec<(u64, bool)> {
            let lines = read_metrics(&run.join(METRICS)).unwrap();
            let kind = |line: &Line| matches!(line, Line::Validation { .. });
            lines.iter().map(|line| (line.step(), kind(line))).collect()
        };
        assert_eq!(lines(&whole), lines(&parts));
        // Resuming what is finished does nothing.
        let again = resume(&toy, lively(), &parts, loss, None);
        assert_eq!((again.end, again.step), (End::Finished, uninterrupted.step));
    }
}

#[test]
fn threads_do_not_matter() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for threads in [1, 2, 4] {
        let run = folder.path().join(threads.to_string());
        let config = Config {
            parts: 4,
            epochs: 1,
            ..lively()
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outcome = pool.install(|| {
            common::trainer(config, "chest", 1)
                .with_threads(threads)
                .unwrap()
                .into_folder(&run)
                .unwrap()
                .run(
                    &toy.train,
                    Some(&validation(&toy)),
                    &AtomicBool::new(false),
                    &mut (),
                )
                .unwrap()
        });
        seen.push(bytes_of(&outcome.checkpoint.unwrap()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[test]
fn a_frozen_backbone_stays() {
    let toy = Toy::new();
    let frozen = Group {
        rate: 0.0,
        weight_decay: 0.0,
    };
    let config = Config {
        epochs: 1,
        groups: Groups {
            backbone: frozen,
            ..Groups::default()
        },
        ..common::config()
    };
    let mut trainer = common::trainer(config, "soft-triple", 1);
    let tensors = |bytes: Vec<u8>| -> Vec<(String, Vec<u8>)> {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let all = tensors.iter();
        let mut all: Vec<_> = all
            .map(|(n, t)| (n.to_owned(), t.data().to_vec()))
            .collect();
        all.sort();
        all
    };
    let before = tensors(trainer.network().to_bytes().unwrap());
    trainer
        .run(&toy.train, None, &AtomicBool::new(false), &mut ())
        .unwrap();
    let after = tensors(trainer.network().to_bytes().unwrap());
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        // Running statistics are no parameters and follow the data; the loss
        // has no use for the other head.
        let follows = name.starts_with("heads.euclidean") || name.contains("running");
        assert_eq!(before != after, follows, "{name}");
    }
}

#[test]
fn it_stops_when_validation_gets_no_better() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        epochs: 50,
        rate: 1e-12,
        patience: Some(2),
        ..common::config()
    };
    let outcome = run(&toy, config.clone(), folder.path(), "proxy-anchor", None);
    assert_eq!(outcome.end, End::Stopped);
    let best = outcome.best.unwrap();
    assert!(outcome.step < 50 * best.step);
    // The best one stays beside the newest.
    let best_folder = Checkpoint::best_of(folder.path()).unwrap().unwrap();
    assert_eq!(Checkpoint::read(&best_folder).unwrap().step(), best.step);
    // Patience is part of what is resumed.
    let again = resume(&toy, config, folder.path(), "proxy-anchor", None);
    assert_eq!((again.end, again.step), (End::Stopped, outcome.step));
}

#[test]
fn the_test_part_decides_nothing() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        epochs: 4,
        rate: 1e-12,
        patience: Some(1),
        ..common::config()
    };
    let test = Validation {
        watched: Watched::Test,
        ..validation(&toy)
    };
    let outcome = common::trainer(config, "proxy-anchor", 1)
        .into_folder(folder.path())
        .unwrap()
        .run(&toy.train, Some(&test), &AtomicBool::new(false), &mut ())
        .unwrap();
    assert_eq!((outcome.end, outcome.best), (End::Finished, None));
    let lines = read_metrics(&folder.path().join(METRICS)).unwrap();
    let measured = lines.iter().filter(|line| {
        matches!(
            line,
            Line::Validation {
                part: Watched::Test,
                best: false,
                ..
            }
        )
    });
    assert_eq!(measured.count(), 4);
    // Records of versions that knew the test part alone.
    let old =
        r#"{"kind":"validation","step":1,"epoch":1,"recall_at_1":0.5,"map_at_r":0.5,"best":true}"#;
    let old: Line = serde_json::from_str(old).unwrap();
    assert!(matches!(
        old,
        Line::Validation {
            part: Watched::Test,
            ..
        }
    ));
}

#[test]
fn the_newest_checkpoints_and_the_best_stay() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        epochs: 5,
        keep: 2,
        ..common::config()
    };
    let outcome = run(&toy, config, folder.path(), "proxy-anchor", None);
    let epoch = outcome.step / 5;
    let mut expected = vec![outcome.best.unwrap().step, 4 * epoch, 5 * epoch];
    expected.sort_unstable();
    expected.dedup();
    let found = Checkpoint::list(folder.path()).unwrap();
    let steps: Vec<u64> = found
        .iter()
        .map(|f| Checkpoint::read(f).unwrap().step())
        .collect();
    assert_eq!(steps, expected);
    // The network alone can be read from a checkpoint, and what was said.
    let read = Checkpoint::read(&found[0]).unwrap();
    let device = oboro_learn::backend::cpu();
    oboro_learn::model::Network::from_bytes(read.network(), &device).unwrap();
    assert_eq!(read.about()["loss"], "proxy-anchor");
}

#[test]
fn fail_a_loss_that_is_not_finite_names_step_rate_and_checkpoint() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let steady = Config {
        epochs: 1,
        ..common::config()
    };
    let good = run(&toy, steady.clone(), folder.path(), "proxy-anchor", None);
    let wild = Config {
        epochs: 40,
        rate: 1e30,
        ..steady
    };
    let mut trainer = common::trainer(wild.clone(), "proxy-anchor", 1)
        .resume(folder.path())
        .unwrap();
    let error = trainer
        .run(&toy.train, None, &AtomicBool::new(false), &mut ())
        .unwrap_err();
    let LearnError::Diverged {
        step,
        rate,
        checkpoint,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(*step > good.step);
    assert_eq!(*rate, 1e30);
    // One from before the weights were thrown out of range.
    let last = checkpoint.clone().unwrap();
    assert!(
        error.to_string().contains(last.to_str().unwrap()),
        "{error}"
    );
    Checkpoint::read(&last).unwrap();

    let error = common::trainer(wild, "proxy-anchor", 1)
        .run(&toy.train, None, &AtomicBool::new(false), &mut ())
        .unwrap_err();
    assert!(error.to_string().contains("start again"), "{error}");
}

#[test]
fn fail_resuming_with_something_else() {
    let toy = Toy::new();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        epochs: 1,
        ..common::config()
    };
    run(&toy, config.clone(), folder.path(), "proxy-anchor", None);
    let refused = |config: &Config, loss: &str| {
        common::trainer(config.clone(), loss, 1)
            .resume(folder.path())
            .err()
            .unwrap()
            .to_string()
    };
    let other_seed = Config {
        seed: 99,
        ..config.clone()
    };
    assert!(refused(&other_seed, "proxy-anchor").contains("99"));
    let other_parts = Config {
        parts: 4,
        ..config.clone()
    };
    refused(&other_parts, "proxy-anchor");
    // Ten proxies a class, not one.
    refused(&config, "soft-triple");
    // No proxies.
    refused(&config, "multi-similarity");
    // Nothing to resume.
    let empty = tempfile::tempdir().unwrap();
    assert!(
        common::trainer(config.clone(), "proxy-anchor", 1)
            .resume(empty.path())
            .is_err()
    );
    // A new run beside old checkpoints.
    assert!(
        common::trainer(config.clone(), "proxy-anchor", 1)
            .into_folder(folder.path())
            .is_err()
    );
    // Other images.
    let error = common::trainer(config, "proxy-anchor", 1)
        .resume(folder.path())
        .unwrap()
        .run(&toy.test, None, &AtomicBool::new(false), &mut ())
        .unwrap_err();
    assert!(error.to_string().contains("labels"), "{error}");
}

#[test]
fn fail_labels_that_the_loss_does_not_know() {
    let toy = Toy::new();
    let error = common::trainer_of(common::config(), "proxy-anchor", 1, 3)
        .run(&toy.train, None, &AtomicBool::new(false), &mut ())
        .unwrap_err();
    assert!(!matches!(error, LearnError::Diverged { .. }), "{error}");
}
