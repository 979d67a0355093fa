//! What the losses promise: the identities behind them, what the MPA family is
//! for, and that the same seed gives the same bits.

use crate::common::*;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use oboro_learn::backend::cpu_autodiff;
use oboro_learn::losses::hier::HierSettings;
use oboro_learn::losses::pooling::Pooling;
use oboro_learn::losses::proxies::{ProxyLoss, ProxySettings};
use oboro_learn::losses::reducer::{Reducer, Side};
use oboro_learn::losses::similarity::Distance;
use oboro_learn::losses::{Dimensions, Loss, Settings};

const GAMMA: f64 = 0.1;
const POOLINGS: [Pooling; 3] = [
    Pooling::SoftTriple { gamma: GAMMA },
    Pooling::LogSumExp { gamma: GAMMA },
    Pooling::Max,
];
const MEMBERS: [(Side, Side); 4] = [
    (Side::Class, Side::Class),
    (Side::Class, Side::Data),
    (Side::Data, Side::Class),
    (Side::Data, Side::Data),
];

fn mpa(member: (Side, Side), pooling: Pooling, per_class: usize) -> ProxySettings {
    ProxySettings {
        distance: Distance::Cosine,
        per_class,
        pooling,
        reducer: Reducer::anchor(member.0, member.1),
        regularisers: Vec::new(),
    }
}

/// Value, and gradients of the embeddings (of length 1 already) and proxies.
fn of(
    settings: &ProxySettings,
    x: &[f64],
    labels: &[usize],
    proxies: &[f64],
    classes: usize,
) -> (f64, Vec<f64>, Vec<f64>) {
    let length = x.len() / labels.len();
    let x = leaf(x.to_vec(), [labels.len(), length], DType::F64);
    let w = leaf(
        proxies.to_vec(),
        [settings.per_class, classes, length],
        DType::F64,
    );
    let loss = ProxyLoss::with_proxies(settings.clone(), w, &mut rng()).unwrap();
    let value = loss
        .forward(&euclidean(x.clone()), labels, &mut rng())
        .unwrap();
    let gradients = value.backward();
    (
        scalar(&value),
        gradient(&x, &gradients),
        gradient(&loss.proxies(), &gradients),
    )
}

#[test]
fn with_one_proxy_a_class_the_class_wise_member_is_proxy_anchor() {
    let mut seen = 0;
    for case in list(&fixture("proxy_losses")) {
        if !case["name"].as_str().unwrap().starts_with("proxy-anchor")
            || number(case, "alpha") != 32.0
        {
            continue;
        }
        let unit = |values: Vec<f64>| -> Vec<f64> {
            let rows = values.chunks(5);
            rows.flat_map(|r| {
                let norm = r.iter().map(|v| v * v).sum::<f64>().sqrt();
                r.iter().map(move |v| v / norm).collect::<Vec<_>>()
            })
            .collect()
        };
        let (x, w) = (unit(flat(&case["inputs"]["x"])), flat(&case["inputs"]["w"]));
        let expected = case["value"].as_f64().unwrap();
        for pooling in POOLINGS {
            let settings = mpa((Side::Class, Side::Class), pooling, 1);
            let (value, _, slope) = of(&settings, &x, &labels(case), &w, 4);
            assert!((value - expected).abs() <= 1e-9 * expected);
            let known = flat(&case["gradients"]["w"]);
            assert!(slope.iter().zip(&known).all(|(a, e)| (a - e).abs() < 1e-9));
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}

#[test]
fn the_gradient_of_soft_triple_pooling_changes_its_sign() {
    let [local, classes, items] = [5, 3, 4];
    let s = draw(local * classes * items, 3);
    let leaf = leaf(s.clone(), [local, classes, items], DType::F64);
    let pooled = Pooling::SoftTriple { gamma: GAMMA }.pool(leaf.clone());
    let whole = values(pooled.clone());
    let slope = gradient(&leaf, &pooled.sum().backward());
    let step = classes * items;
    let mut below = 0;
    for (pair, &whole) in whole.iter().enumerate() {
        let own: Vec<f64> = (0..local).map(|k| s[k * step + pair]).collect();
        let sum: f64 = own.iter().map(|v| (v / GAMMA).exp()).sum();
        for (k, &value) in own.iter().enumerate() {
            let q = (value / GAMMA).exp() / sum;
            let expected = q * (1.0 + (value - whole) / GAMMA);
            assert!((slope[k * step + pair] - expected).abs() < 1e-12);
            if value < whole - GAMMA {
                assert!(slope[k * step + pair] < 0.0);
                below += 1;
            }
        }
    }
    assert!(below > 10);
}

/// Items of class 0 at both ends of the first axis, of class 1 at both ends of
/// the second: no single direction is near all of a class.
fn two_ended() -> (Vec<f64>, Vec<usize>) {
    let mut x = vec![0.0; 8 * 4];
    let mut labels = Vec::new();
    for item in 0..8 {
        let class = item / 4;
        x[item * 4 + class] = if item % 2 == 0 { 1.0 } else { -1.0 };
        labels.push(class);
    }
    (x, labels)
}

#[test]
fn proxies_of_a_class_become_its_several_centres() {
    let (x, labels) = two_ended();
    for member in MEMBERS {
        for pooling in POOLINGS {
            let train = |per_class: usize| {
                let settings = mpa(member, pooling, per_class);
                let mut w = draw(per_class * 2 * 4, 5);
                let mut last = 0.0;
                for _ in 0..400 {
                    let (value, _, slope) = of(&settings, &x, &labels, &w, 2);
                    last = value;
                    for (w, s) in w.iter_mut().zip(slope) {
                        *w -= 0.01 * s;
                    }
                }
                (last, w)
            };
            let (one, _) = train(1);
            let (two, w) = train(2);
            // One proxy is at a right angle to its items at best, and so is
            // each to the other class's items, which leaves the rest of both.
            assert!(two < one - 0.5, "{member:?} {pooling:?} {one} {two}");
            // Proxy k of class c is row k * 2 + c: the two look to either end.
            for class in 0..2 {
                let [a, b] = [0, 1].map(|k| w[(k * 2 + class) * 4 + class]);
                assert!(a * b < 0.0, "{member:?} {pooling:?} {w:?}");
            }
        }
    }
}

#[test]
fn a_datum_classified_right_but_far_keeps_its_gradient() {
    // Its own class is the nearest by far, yet at a right angle to it.
    let x = [1.0, 0.0, 0.0, 0.0];
    let w = [
        0.0, 1.0, 0.0, 0.0, -0.9, 0.4, 0.0, 0.0, // first proxies of both classes
        0.0, 0.0, 1.0, 0.0, -0.9, 0.0, 0.4, 0.0, // second ones
    ];
    let size = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    for member in MEMBERS {
        for pooling in &POOLINGS[..2] {
            let settings = mpa(member, *pooling, 2);
            let (_, slope, _) = of(&settings, &x, &[0], &w, 2);
            assert!(size(&slope) > 10.0, "{member:?} {}", size(&slope));
        }
    }
    // SoftTriple is content with it.
    let settings = ProxySettings {
        per_class: 2,
        regularisers: Vec::new(),
        ..ProxySettings::default()
    };
    let (_, slope, _) = of(&settings, &x, &[0], &w, 2);
    assert!(size(&slope) < 1e-5, "{}", size(&slope));
}

#[test]
fn data_wise_gradients_of_an_item_do_not_depend_on_the_batch() {
    // First the three classes' first proxies, then their second ones.
    let w = [
        0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, //
        0.0, 0.0, 0.0, 1.0, 0.9, 0.1, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0,
    ];
    let item = [0.6, 0.8, 0.0, 0.0];
    // A second item of the class, as hard as this one or easy.
    let slope_with = |member, other: [f64; 4]| {
        let x: Vec<f64> = item.into_iter().chain(other).collect();
        let settings = mpa(member, POOLINGS[0], 2);
        let (_, slope, _) = of(&settings, &x, &[0, 0], &w, 3);
        slope[..4].to_vec()
    };
    let (one, other) = (item, [0.0, 0.0, 1.0, 0.0]);
    for member in MEMBERS {
        let (a, b) = (slope_with(member, one), slope_with(member, other));
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f64>();
        if member == (Side::Data, Side::Data) {
            assert!(apart < 1e-12, "{apart}");
        } else {
            // Class-wise, items share a gradient by how hard they are.
            assert!(apart > 1e-2, "{member:?} {apart}");
        }
    }
}

/// All parameters' gradients, in order.
struct Collect<'a> {
    gradients: &'a burn::tensor::Gradients,
    bits: Vec<u32>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let found = gradient(&param.val(), self.gradients);
        self.bits
            .extend(found.iter().map(|&v| (v as f32).to_bits()));
    }
}

/// Bits of the value and of all gradients of a loss on a drawn batch.
fn bits(name: &str, classes: usize, items: usize, length: usize) -> Vec<u32> {
    bits_of(&Settings::named(name).unwrap(), classes, items, length)
}

fn bits_of(settings: &Settings, classes: usize, items: usize, length: usize) -> Vec<u32> {
    let mut rng = rng();
    let dimensions = Dimensions {
        euclidean: length,
        hyperbolic: Some(length),
    };
    let loss = settings
        .build(classes, dimensions, &cpu_autodiff(), &mut rng)
        .unwrap();
    let (embeddings, heads) = batch(draw(items * length, 1), draw(items * length, 2), items);
    let labels: Vec<usize> = (0..items).map(|i| i / 2 % classes).collect();
    let value = loss.forward(&embeddings, &labels, &mut rng).unwrap();
    let gradients = value.backward();
    let mut collect = Collect {
        gradients: &gradients,
        bits: vec![(scalar(&value) as f32).to_bits()],
    };
    loss.visit(&mut collect);
    let mut bits = collect.bits;
    for head in heads {
        let found = gradient(&head, &gradients);
        bits.extend(found.iter().map(|&v| (v as f32).to_bits()));
    }
    assert!(
        bits.iter().all(|&b| f32::from_bits(b).is_finite()),
        "{settings:?}"
    );
    assert!(
        bits.iter().skip(1).any(|&b| f32::from_bits(b) != 0.0),
        "{settings:?}"
    );
    bits
}

#[test]
fn every_named_loss_gives_finite_gradients_and_the_same_bits_again() {
    for name in Settings::NAMES {
        assert_eq!(bits(name, 6, 16, 8), bits(name, 6, 16, 8), "{name}");
    }
}

#[test]
fn ancestors_have_ancestors_if_wanted() {
    let run = |over_ancestors: bool| {
        let hier = HierSettings {
            ancestors: 40,
            over_ancestors,
            ..HierSettings::default()
        };
        bits_of(&Settings::Hier(hier), 6, 16, 3)
    };
    let (without, with) = (run(false), run(true));
    assert_eq!(with, run(true));
    // A second term: the value is larger, ancestors move otherwise, and items
    // as before.
    assert!(f32::from_bits(with[0]) > f32::from_bits(without[0]));
    let items = 2 * 16 * 3;
    let split = with.len() - items;
    assert_ne!(with[1..split], without[1..split]);
    assert_eq!(with[split..], without[split..]);
}

#[test]
fn one_thread_or_many_give_the_same_bits() {
    let on = |threads: usize, name: &'static str| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| bits(name, 400, 48, 96))
    };
    for name in ["soft-triple", "tangent-soft-triple", "chest"] {
        let one = on(1, name);
        for threads in [2, 5] {
            assert_eq!(one, on(threads, name), "{name} on {threads}");
        }
    }
}

#[test]
fn settings_are_read_as_they_are_written() {
    for name in Settings::NAMES {
        let settings = Settings::named(name).unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        let read: Settings = serde_json::from_str(&text).unwrap();
        assert_eq!(read, settings, "{text}");
        assert_eq!(settings.needs_hyperbolic(), settings.curvature().is_some());
    }
    let short: Settings = serde_json::from_str(r#"{"loss":"proxies","per_class":3}"#).unwrap();
    let Settings::Proxies(proxies) = short else {
        panic!("proxies");
    };
    assert_eq!(proxies.per_class, 3);
    assert_eq!(proxies.reducer, ProxySettings::default().reducer);
}

#[test]
fn a_sum_is_the_weighted_sum() {
    let value = |settings: &Settings| {
        let mut rng = rng();
        let dimensions = Dimensions {
            euclidean: 5,
            hyperbolic: None,
        };
        let loss = settings
            .build(3, dimensions, &cpu_autodiff(), &mut rng)
            .unwrap();
        let (embeddings, _) = batch(draw(30, 4), draw(30, 6), 6);
        let value = loss.forward(&embeddings, &[0, 0, 1, 1, 2, 2], &mut rng);
        scalar(&value.unwrap())
    };
    let pairs = Settings::named("multi-similarity").unwrap();
    let text = r#"{"loss":"sum","terms":[{"weight":0.5,"of":{"loss":"pairs"}},
        {"weight":2,"of":{"loss":"sum","terms":[{"weight":0.25,"of":{"loss":"pairs"}}]}}]}"#;
    let sum: Settings = serde_json::from_str(text).unwrap();
    assert!((value(&sum) - value(&pairs)).abs() < 1e-6);
}
