//! Images as networks take them: against PIL, and what augmentation may do.
#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_learn::LearnError;
use oboro_learn::data::{Augmentation, Crop, ImageLimits, Input, OnBad, Pixels, decode, folders};
use proptest::prelude::*;
use rand_core::SeedableRng;
use serde_json::Value;

fn rng(seed: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    rng.set_stream(seed);
    rng
}

/// Black at 0 and white at 255.
fn plain(channels: usize, side: usize) -> Input {
    Input {
        channels,
        side,
        enlarge: 1.0,
        mean: vec![0.0; channels],
        deviation: vec![1.0 / 255.0; channels],
    }
}

fn pixels(channels: u8, width: u32, height: u32, value: impl Fn(u32, u32, u32) -> u32) -> Pixels {
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            data.extend((0..u32::from(channels)).map(|c| (value(x, y, c) % 256) as u8));
        }
    }
    Pixels {
        width,
        height,
        channels,
        data,
    }
}

#[test]
fn evaluation_is_torchvisions_resize_and_centre_crop() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/networks/networks.json"
    );
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let case = &fixture["resized"];
    let number = |name: &str| case[name].as_u64().unwrap() as u32;
    let image = pixels(3, number("width"), number("height"), |x, y, c| {
        x * x / 3 + 5 * y + 90 * c + 40 * (x * y % 2)
    });
    let input = Input {
        enlarge: case["enlarge"].as_f64().unwrap(),
        ..plain(3, number("side") as usize)
    };
    let made = input.prepare(image);
    let expected = case["expected"].as_array().unwrap();
    assert_eq!(made.len(), expected.len());
    let apart: Vec<f64> = made
        .iter()
        .zip(expected)
        .map(|(&a, e)| (f64::from(a) - e.as_f64().unwrap()).abs())
        .collect();
    let worst = apart.iter().copied().fold(0.0, f64::max);
    // Each of the two rounds to bytes between its passes or does not.
    assert!(worst <= 1.01, "off by {worst}");
}

#[test]
fn an_image_of_the_right_size_is_only_normalised() {
    let image = pixels(1, 5, 5, |x, y, _| 10 * x + 50 * y);
    let input = Input {
        mean: vec![0.25],
        deviation: vec![0.5],
        ..plain(1, 5)
    };
    let made = input.prepare(image.clone());
    for (made, value) in made.iter().zip(&image.data) {
        let expected = (f64::from(*value) / 255.0 - 0.25) / 0.5;
        assert!((f64::from(*made) - expected).abs() < 1e-6);
    }
    // Nothing changed is evaluation.
    let same = Augmentation::default().prepare(&input, image, &mut rng(0));
    assert_eq!(made, same);
}

#[test]
fn channels_are_repeated_or_mixed() {
    let grey = pixels(1, 4, 4, |x, y, _| 10 * x + y);
    let made = plain(3, 4).prepare(grey);
    assert_eq!(made[..16], made[16..32]);
    assert_eq!(made[..16], made[32..]);
    let colour = pixels(3, 4, 4, |_, _, c| [200, 100, 50][c as usize]);
    let made = plain(1, 4).prepare(colour);
    // 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert!(made.iter().all(|&v| (v - 124.0).abs() < 0.51), "{made:?}");
}

#[test]
fn mirroring_and_shifts_are_exact() {
    let image = pixels(1, 6, 6, |x, y, _| 40 * x + y);
    let input = plain(1, 6);
    let whole = input.prepare(image.clone());
    let mirrored: Vec<f32> = whole
        .chunks(6)
        .flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>())
        .collect();
    let flip = Augmentation {
        flip: true,
        ..Augmentation::default()
    };
    let made: Vec<Vec<f32>> = (0..40)
        .map(|n| flip.prepare(&input, image.clone(), &mut rng(n)))
        .collect();
    assert!(made.iter().all(|m| *m == whole || *m == mirrored));
    let times = made.iter().filter(|m| **m == mirrored).count();
    assert!((8..=32).contains(&times), "{times}");

    let shift = Augmentation {
        crop: Crop::Shifted { pixels: 2 },
        ..Augmentation::default()
    };
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..400 {
        let made = shift.prepare(&input, image.clone(), &mut rng(n));
        // Found by the pixel in the middle, then compared as a whole, with
        // the border repeated.
        let (dx, dy) = (-2..=2)
            .flat_map(|dx| (-2..=2).map(move |dy| (dx, dy)))
            .find(|&(dx, dy)| made[3 * 6 + 3] == whole[((3 - dy) * 6 + 3 - dx) as usize])
            .unwrap();
        for y in 0..6i32 {
            for x in 0..6i32 {
                let (from_x, from_y) = ((x - dx).clamp(0, 5), (y - dy).clamp(0, 5));
                let expected = whole[(from_y * 6 + from_x) as usize];
                assert_eq!(made[(y * 6 + x) as usize], expected);
            }
        }
        seen.insert((dx, dy));
    }
    assert_eq!(seen.len(), 25);
}

#[test]
fn a_turn_is_about_the_middle() {
    // A spot to the right of the middle moves on a circle.
    let image = pixels(1, 21, 21, |x, y, _| {
        let (dx, dy) = (x as i32 - 16, y as i32 - 10);
        255 * u32::from(dx * dx + dy * dy <= 2)
    });
    let input = plain(1, 21);
    let turn = Augmentation {
        turn: 90.0,
        ..Augmentation::default()
    };
    let mut angles = Vec::new();
    for n in 0..50 {
        let made = turn.prepare(&input, image.clone(), &mut rng(n));
        let total: f32 = made.iter().sum();
        let mean = |along: fn(usize) -> usize| {
            let sum: f32 = (0..21 * 21).map(|i| made[i] * along(i) as f32).sum();
            sum / total - 10.0
        };
        let (x, y) = (mean(|i| i % 21), mean(|i| i / 21));
        assert!((x.hypot(y) - 6.0).abs() < 0.2, "{x} {y}");
        angles.push(y.atan2(x).to_degrees());
    }
    assert!(angles.iter().all(|a| a.abs() <= 91.0));
    assert!(angles.iter().any(|&a| a > 45.0) && angles.iter().any(|&a| a < -45.0));
}

proptest! {
    /// Every value comes from the image, whatever is drawn, and the same
    /// generator gives the same values.
    #[test]
    fn augmentation_stays_within_the_image(
        seed: u64,
        width in 1u32..40,
        height in 1u32..40,
        side in 1usize..20,
        colour: bool,
        which in 0..4usize,
    ) {
        let channels = if colour { 3 } else { 1 };
        let image = pixels(channels, width, height, |x, y, c| 50 + (x * 7 + y * 13 + c * 31) % 100);
        let input = plain(if seed % 2 == 0 { 1 } else { 3 }, side);
        let augmentation = [
            Augmentation::default(),
            Augmentation::things(),
            Augmentation::characters(),
            Augmentation::photographs(),
        ][which];
        augmentation.check().unwrap();
        let made = augmentation.prepare(&input, image.clone(), &mut rng(seed));
        prop_assert_eq!(made.len(), input.values());
        prop_assert!(made.iter().all(|v| (49.0..=150.5).contains(v)));
        let again = augmentation.prepare(&input, image, &mut rng(seed));
        prop_assert_eq!(made, again);
    }

    /// Any shape of image gives a square for evaluation.
    #[test]
    fn evaluation_takes_any_shape(
        width in 1u32..90,
        height in 1u32..90,
        side in 1usize..40,
        enlarge in 1.0f64..2.0,
    ) {
        let image = pixels(1, width, height, |x, y, _| 50 + (x + y) % 100);
        let input = Input { enlarge, ..plain(1, side) };
        let made = input.prepare(image);
        prop_assert_eq!(made.len(), side * side);
        prop_assert!(made.iter().all(|v| (49.0..=150.5).contains(v)));
    }
}

#[test]
fn a_data_set_is_measured_exactly() {
    let place = tempfile::tempdir().unwrap();
    let mut values = Vec::new();
    for class in ["a", "b"] {
        let folder = place.path().join(class);
        std::fs::create_dir(&folder).unwrap();
        for n in 0..3u32 {
            let image = image::RgbImage::from_fn(4, 3, |x, y| {
                image::Rgb([
                    (x * 60 + n) as u8,
                    (y * 80) as u8,
                    (x * y * 20 + n * 5) as u8,
                ])
            });
            values.extend(image.pixels().map(|p| p.0));
            image.save(folder.join(format!("{n}.png"))).unwrap();
        }
    }
    let set = folders(place.path(), OnBad::Fail).unwrap();
    let limits = ImageLimits::default();
    let input = Input::colour(8).measured(&set, &limits).unwrap();
    for channel in 0..3 {
        let count = values.len() as f64;
        let of = |v: &[u8; 3]| f64::from(v[channel]) / 255.0;
        let mean = values.iter().map(of).sum::<f64>() / count;
        let variance = values.iter().map(|v| (of(v) - mean).powi(2)).sum::<f64>() / count;
        assert!((input.mean[channel] - mean).abs() < 1e-12);
        assert!((input.deviation[channel] - variance.sqrt()).abs() < 1e-9);
    }
    // A file that went bad is named.
    let bad = place.path().join("b/1.png");
    std::fs::write(&bad, b"no image").unwrap();
    assert!(decode(&bad, &limits).is_err());
    let error = Input::colour(8).measured(&set, &limits).unwrap_err();
    assert!(error.to_string().contains("1.png"), "{error}");
}

#[test]
fn fail_augmentation_out_of_range() {
    let fine = Augmentation::photographs();
    for wrong in [
        Augmentation {
            turn: 200.0,
            ..fine
        },
        Augmentation {
            zoom: f64::NAN,
            ..fine
        },
        Augmentation {
            crop: Crop::Resized {
                least: 0.0,
                ratio: 1.0,
            },
            ..fine
        },
        Augmentation {
            crop: Crop::Resized {
                least: 0.5,
                ratio: 0.5,
            },
            ..fine
        },
    ] {
        assert!(matches!(wrong.check(), Err(LearnError::Setting { .. })));
    }
    let text = r#"{"crop": {"kind": "shifted", "pixels": 2}, "flip": true}"#;
    let read: Augmentation = serde_json::from_str(text).unwrap();
    assert_eq!(read.crop, Crop::Shifted { pixels: 2 });
    assert!(serde_json::from_str::<Augmentation>(r#"{"flop": true}"#).is_err());
}
