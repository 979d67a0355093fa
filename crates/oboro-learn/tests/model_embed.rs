//! Embeddings of whole data sets.
#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_learn::LearnError;
use oboro_learn::backend::cpu;
use oboro_learn::data::{Dataset, Input, OnBad, folders};
use oboro_learn::embed::{Format, Options, embed};
use oboro_learn::geometry::{Ball, lorentz_distance};
use oboro_learn::model::{Backbone, Heads, Hyperbolic, Network, Settings};
use oboro_vectors::read_f32;
use rand_core::SeedableRng;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn network(hyperbolic: bool) -> Network {
    let settings = Settings {
        input: Input::colour(16),
        backbone: Backbone::Convolutional {
            channels: [8, 8, 16, 16],
        },
        heads: Heads {
            euclidean: 5,
            hyperbolic: hyperbolic.then(|| Hyperbolic::new(3)),
        },
    };
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    settings.build(&cpu(), &mut rng).unwrap()
}

/// 23 images of three classes.
fn set(place: &Path) -> Dataset {
    for n in 0..23u32 {
        let folder = place.join(["a", "b", "c"][n as usize % 3]);
        std::fs::create_dir_all(&folder).unwrap();
        let image = image::RgbImage::from_fn(20 + n % 3, 18, |x, y| {
            image::Rgb([(x * n) as u8, (y * 13 + n) as u8, (x * y + 7 * n) as u8])
        });
        image.save(folder.join(format!("{n:02}.png"))).unwrap();
    }
    folders(place, OnBad::Fail).unwrap()
}

fn options(batch: usize, threads: usize) -> Options {
    Options {
        batch,
        threads,
        ..Options::default()
    }
}

#[test]
fn threads_change_no_bit_and_batches_only_the_last_digits() {
    let place = tempfile::tempdir().unwrap();
    let set = set(place.path());
    let network = network(true);
    let go = AtomicBool::new(false);
    let mut seen = Vec::new();
    let one = embed(&network, &set, &options(4, 1), &go, |done| seen.push(done)).unwrap();
    assert_eq!(seen, [4, 8, 12, 16, 20, 23]);
    assert_eq!(one.labels, set.labels());
    assert_eq!(one.euclidean.rows(), 23);
    let mut last = 0;
    let four = embed(&network, &set, &options(4, 4), &go, |done| {
        assert!(done > last);
        last = done;
    })
    .unwrap();
    assert_eq!(last, 23);
    assert!(one == four);
    for batch in [1, 7, 23, 100] {
        let other = embed(&network, &set, &options(batch, 2), &go, |_| ()).unwrap();
        let pairs = one.euclidean.data().iter().zip(other.euclidean.data());
        for (a, b) in pairs {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn files_hold_what_was_embedded() {
    let place = tempfile::tempdir().unwrap();
    let set = set(place.path());
    let go = AtomicBool::new(false);
    let made = embed(&network(true), &set, &Options::default(), &go, |_| ()).unwrap();
    let out = place.path().join("out/deeper");
    let names = made.write(&out, Format::Npy).unwrap();
    assert_eq!(
        names,
        [
            "euclidean.npy",
            "hyperbolic.npy",
            "lorentz.npy",
            "labels.npy"
        ]
    );
    assert_eq!(read_f32(out.join("euclidean.npy")).unwrap(), made.euclidean);
    let names = made.write(&out, Format::Vecs).unwrap();
    assert_eq!(
        names,
        [
            "euclidean.fvecs",
            "hyperbolic.fvecs",
            "lorentz.fvecs",
            "labels.ivecs"
        ]
    );
    let hyperbolic = made.hyperbolic.as_ref().unwrap();
    let lorentz = read_f32(out.join("lorentz.fvecs")).unwrap();
    let labels = oboro_vectors::read_ivecs(out.join("labels.ivecs")).unwrap();
    assert_eq!(labels.data()[..3], [0, 0, 0]);
    // Lifted points have the distances of the ball's.
    let ball = Ball::<f64>::new(0.1).unwrap();
    let wide = |row: &[f32]| -> Vec<f64> { row.iter().map(|&v| f64::from(v)).collect() };
    for index in 1..23 {
        let expected = ball.distance(&wide(hyperbolic.row(0)), &wide(hyperbolic.row(index)));
        let lifted = lorentz_distance(&wide(lorentz.row(0)), &wide(lorentz.row(index)));
        let lifted = lifted / 0.1f64.sqrt();
        assert!((lifted - expected).abs() < 5e-3, "{lifted} {expected}");
    }
    // Without a hyperbolic head there are fewer files.
    let made = embed(&network(false), &set, &Options::default(), &go, |_| ()).unwrap();
    assert!(made.hyperbolic.is_none() && made.lorentz().unwrap().is_none());
    let names = made.write(&place.path().join("flat"), Format::Npy).unwrap();
    assert_eq!(names, ["euclidean.npy", "labels.npy"]);
}

#[test]
fn fail_stopped_bad_image_and_no_batch() {
    let place = tempfile::tempdir().unwrap();
    let set = set(place.path());
    let network = network(true);
    let cancel = AtomicBool::new(false);
    let stopped = embed(&network, &set, &options(2, 2), &cancel, |_| {
        cancel.store(true, Ordering::Relaxed);
    });
    assert!(matches!(stopped, Err(LearnError::Cancelled)));
    let go = AtomicBool::new(false);
    let none = embed(&network, &set, &options(0, 1), &go, |_| ());
    assert!(matches!(none, Err(LearnError::Setting { .. })));
    std::fs::write(place.path().join("b/04.png"), b"no image").unwrap();
    std::fs::write(place.path().join("c/05.png"), b"no image").unwrap();
    let Err(error) = embed(&network, &set, &options(2, 3), &go, |_| ()) else {
        panic!("a file is no image");
    };
    assert!(error.to_string().contains("04.png"), "{error}");
}
