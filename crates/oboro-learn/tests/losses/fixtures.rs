//! Values and gradients against the fixtures, in both precisions, and against
//! finite differences where there is no fixture.

use crate::common::*;
use burn::tensor::{DType, Tensor};
use oboro_learn::geometry::tensor::{exp0_clipped, normalize};
use oboro_learn::losses::chest::{Branch, ChestLoss, ChestSettings, Similarity, Tree};
use oboro_learn::losses::hier::hier;
use oboro_learn::losses::pairs::PairSettings;
use oboro_learn::losses::pooling::Pooling;
use oboro_learn::losses::proxies::{ProxyLoss, ProxySettings};
use oboro_learn::losses::reducer::{Reducer, Side};
use oboro_learn::losses::regulariser::{Regulariser, centres, sparse};
use oboro_learn::losses::similarity::Distance;
use oboro_learn::losses::tree::hyphc;
use oboro_learn::losses::{Embeddings, Loss};
use serde_json::Value;

/// A loss over proxies, on embeddings that are normalised first.
fn proxy_case(case: &Value, settings: &ProxySettings, dtype: DType, tolerance: f64) {
    let x = input(case, "x", dtype);
    let w = proxies(case, "w", dtype);
    let mut settings = settings.clone();
    settings.per_class = w.dims()[0];
    let loss = ProxyLoss::with_proxies(settings, w, &mut rng()).unwrap();
    let value = loss
        .forward(&euclidean(normalize(x.clone())), &labels(case), &mut rng())
        .unwrap();
    let gradients = value.backward();
    let found = [
        ("x", gradient(&x, &gradients)),
        ("w", proxy_gradient(&loss.proxies(), &gradients)),
    ];
    matches(case, scalar(&value), &found, tolerance);
}

fn plain(distance: Distance, pooling: Pooling, reducer: Reducer) -> ProxySettings {
    ProxySettings {
        distance,
        per_class: 1,
        pooling,
        reducer,
        regularisers: Vec::new(),
    }
}

#[test]
fn proxy_anchor_and_proxy_nca_are_the_oracles() {
    for case in list(&fixture("proxy_losses")) {
        let name = case["name"].as_str().unwrap();
        let settings = if name.starts_with("proxy-anchor") {
            let reducer = Reducer::Anchor {
                alpha: number(case, "alpha"),
                delta: number(case, "delta"),
                positive: Side::Class,
                negative: Side::Class,
            };
            plain(Distance::Cosine, Pooling::Max, reducer)
        } else {
            let reducer = Reducer::Softmax {
                scale: number(case, "scale"),
                margin: 0.0,
            };
            plain(Distance::SquaredEuclidean, Pooling::Max, reducer)
        };
        for (dtype, tolerance) in PRECISIONS {
            proxy_case(case, &settings, dtype, tolerance);
        }
    }
}

#[test]
fn soft_triple_is_the_oracles() {
    for case in list(&fixture("softtriple")) {
        let name = case["name"].as_str().unwrap();
        for (dtype, tolerance) in PRECISIONS {
            if name.starts_with("softtriple/") {
                let settings = plain(
                    Distance::Cosine,
                    Pooling::SoftTriple {
                        gamma: number(case, "gamma"),
                    },
                    Reducer::Softmax {
                        scale: number(case, "la"),
                        margin: number(case, "delta"),
                    },
                );
                proxy_case(case, &settings, dtype, tolerance);
                continue;
            }
            let w = proxies(case, "w", dtype);
            let value = if name == "sparse-regulariser" {
                sparse(w.clone())
            } else {
                centres(w.clone(), number(case, "epsilon"))
            };
            let found = [("w", proxy_gradient(&w, &value.backward()))];
            matches(case, scalar(&value), &found, tolerance);
        }
    }
}

#[test]
fn multi_similarity_and_its_miner_are_the_oracles() {
    for case in list(&fixture("multi_similarity")) {
        let settings = PairSettings {
            alpha: number(case, "alpha"),
            beta: number(case, "beta"),
            base: number(case, "base"),
            mining: case["parameters"]["epsilon"].as_f64().unwrap_or(-1.0),
        };
        for (dtype, tolerance) in PRECISIONS {
            let x = input(case, "x", dtype);
            let value = settings
                .build()
                .unwrap()
                .forward(&euclidean(normalize(x.clone())), &labels(case), &mut rng())
                .unwrap();
            let found = [("x", gradient(&x, &value.backward()))];
            matches(case, scalar(&value), &found, tolerance);
        }
    }
}

#[test]
fn the_mpa_family_is_the_reconstruction() {
    let side = |case: &Value, name: &str| match case["parameters"][name].as_str().unwrap() {
        "class" => Side::Class,
        _ => Side::Data,
    };
    let cases = fixture("mpa");
    assert_eq!(list(&cases).len(), 28);
    for case in list(&cases) {
        let gamma = number(case, "gamma");
        let pooling = match case["parameters"]["pooling"].as_str().unwrap() {
            "softtriple" => Pooling::SoftTriple { gamma },
            "lse" => Pooling::LogSumExp { gamma },
            _ => Pooling::Max,
        };
        let reducer = Reducer::Anchor {
            alpha: number(case, "alpha"),
            delta: number(case, "delta"),
            positive: side(case, "positive"),
            negative: side(case, "negative"),
        };
        for (dtype, tolerance) in PRECISIONS {
            proxy_case(
                case,
                &plain(Distance::Cosine, pooling, reducer),
                dtype,
                tolerance,
            );
        }
    }
}

#[test]
fn hyperbolic_soft_triple_is_the_reconstruction() {
    for case in list(&fixture("hyperbolic")) {
        if !case["name"]
            .as_str()
            .unwrap()
            .starts_with("hyperbolic-softtriple")
        {
            continue;
        }
        let (c, r) = (number(case, "c"), number(case, "r"));
        for (dtype, tolerance) in PRECISIONS {
            let u = input(case, "u", dtype);
            let v = proxies(case, "v", dtype);
            let mut settings = plain(
                Distance::Poincare { c, r },
                Pooling::SoftTriple {
                    gamma: number(case, "gamma"),
                },
                Reducer::Softmax {
                    scale: number(case, "la"),
                    margin: number(case, "delta"),
                },
            );
            settings.per_class = v.dims()[0];
            let loss = ProxyLoss::with_proxies(settings, v, &mut rng()).unwrap();
            let z = exp0_clipped(u.clone(), c, r);
            let value = loss
                .forward(&hyperbolic(z), &labels(case), &mut rng())
                .unwrap();
            let gradients = value.backward();
            let found = [
                ("u", gradient(&u, &gradients)),
                ("v", proxy_gradient(&loss.proxies(), &gradients)),
            ];
            matches(case, scalar(&value), &found, tolerance);
        }
    }
}

#[test]
fn hyphc_and_hier_are_the_reconstructions() {
    let mut seen = 0;
    for case in list(&fixture("hyperbolic")) {
        let name = case["name"].as_str().unwrap();
        for (dtype, tolerance) in PRECISIONS {
            if name.starts_with("hyphc/") {
                let points = ["i", "j", "k"].map(|n| input(case, n, dtype));
                let similar = flat(&case["similarities"]);
                let similar = leaf(similar, [points[0].dims()[0], 3], dtype).detach();
                let value = hyphc(points.clone(), similar, number(case, "temperature"));
                let gradients = value.backward();
                let [i, j, k] = points.map(|p| gradient(&p, &gradients));
                let found = [("i", i), ("j", j), ("k", k)];
                matches(case, scalar(&value), &found, tolerance);
                seen += 1;
            } else if name == "hier" {
                let (z, rho) = (input(case, "z", dtype), input(case, "rho", dtype));
                let triples = triples(case);
                let value = hier(
                    z.clone(),
                    rho.clone(),
                    &triples,
                    number(case, "c"),
                    number(case, "delta"),
                );
                let gradients = value.backward();
                let found = [
                    ("z", gradient(&z, &gradients)),
                    ("rho", gradient(&rho, &gradients)),
                ];
                matches(case, scalar(&value), &found, tolerance);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 6);
}

fn triples(case: &Value) -> Vec<[usize; 3]> {
    let numbers = |t: &Value| flat(t).iter().map(|&n| n as usize).collect::<Vec<_>>();
    list(&case["triples"])
        .iter()
        .map(|t| numbers(t).try_into().unwrap())
        .collect()
}

#[test]
fn chest_and_its_ablations_are_the_reconstruction() {
    let cases = fixture("chest");
    assert_eq!(list(&cases).len(), 6);
    for case in list(&cases) {
        let kept = |part: &str| {
            let switches = list(&case["switches"]);
            f64::from(u8::from(switches.iter().any(|s| s == part)))
        };
        let m = |name: &str| number(case, name);
        for (dtype, tolerance) in PRECISIONS {
            let (e, u) = (input(case, "e", dtype), input(case, "u", dtype));
            let (p, v) = (proxies(case, "p", dtype), proxies(case, "v", dtype));
            let [local, classes, _] = p.dims();
            let triples: Vec<[usize; 3]> = triples(case)
                .into_iter()
                .map(|t| t.map(|n| n % local * classes + n / local))
                .collect();
            let settings = ChestSettings {
                per_class: local,
                c: m("c"),
                r: m("r"),
                euclidean: Branch {
                    weight: kept("e"),
                    scale: m("la_e"),
                    gamma: m("gamma_e"),
                    margin: m("delta_e"),
                },
                hyperbolic: Branch {
                    weight: kept("h") * m("mu_h"),
                    scale: m("la_h"),
                    gamma: m("gamma_h"),
                    margin: m("delta_h"),
                },
                tree: Tree {
                    weight: kept("tree") * m("mu_hc"),
                    temperature: m("temperature"),
                    triples: triples.len(),
                    similarity: match case["similarity"].as_str().unwrap() {
                        "cross" => Similarity::Cross,
                        _ => Similarity::Own,
                    },
                },
                tau: kept("centres") * m("tau"),
            };
            let loss = ChestLoss::with_proxies(settings, p, v, &mut rng()).unwrap();
            let embeddings = Embeddings {
                euclidean: normalize(e.clone()),
                hyperbolic: Some(exp0_clipped(u.clone(), m("c"), m("r"))),
            };
            let value: Tensor<1> = loss
                .forward_with(&embeddings, &labels(case), &triples)
                .unwrap();
            let gradients = value.backward();
            let found = [
                ("e", gradient(&e, &gradients)),
                ("u", gradient(&u, &gradients)),
                ("p", proxy_gradient(&loss.euclidean().unwrap(), &gradients)),
                ("v", proxy_gradient(&loss.hyperbolic().unwrap(), &gradients)),
            ];
            matches(case, scalar(&value), &found, tolerance);
        }
    }
}

/// A slope of `function` in one of its inputs.
fn slope(function: &dyn Fn(&[f64]) -> f64, at: &[f64], n: usize) -> f64 {
    let moved = |by: f64| {
        let mut at = at.to_vec();
        at[n] += by;
        function(&at)
    };
    (moved(1e-6) - moved(-1e-6)) / 2e-6
}

#[test]
fn gradients_without_a_fixture_are_slopes() {
    let (c, r) = (0.1, 2.3);
    let [local, classes, items, length] = [3, 4, 6, 5];
    let labels = [0, 1, 1, 3, 0, 3];
    let softmax = Reducer::Softmax {
        scale: 4.35,
        margin: 0.046,
    };
    let soft = Pooling::SoftTriple { gamma: 0.46 };
    let tangent = plain(Distance::Tangent { c, r }, soft, softmax);
    let anchored = plain(
        Distance::Poincare { c, r },
        Pooling::LogSumExp { gamma: 0.46 },
        Reducer::Anchor {
            alpha: 3.0,
            delta: -2.0,
            positive: Side::Data,
            negative: Side::Class,
        },
    );
    let mut squared = plain(Distance::SquaredEuclidean, Pooling::Max, softmax);
    squared.regularisers = vec![
        Regulariser::Centres { weight: 0.3 },
        Regulariser::Sparse { weight: 0.2 },
    ];
    for mut settings in [tangent, anchored, squared] {
        settings.per_class = local;
        let run = |u: &[f64], v: &[f64]| {
            let u = leaf(u.to_vec(), [items, length], DType::F64);
            let v = leaf(v.to_vec(), [local, classes, length], DType::F64);
            let loss = ProxyLoss::with_proxies(settings.clone(), v, &mut rng()).unwrap();
            let embeddings = Embeddings {
                euclidean: normalize(u.clone()),
                hyperbolic: Some(exp0_clipped(u.clone(), c, r)),
            };
            let value = loss.forward(&embeddings, &labels, &mut rng()).unwrap();
            let gradients = value.backward();
            let found = [
                gradient(&u, &gradients),
                gradient(&loss.proxies(), &gradients),
            ];
            (scalar(&value), found)
        };
        // Some of them beyond the clipping radius.
        let u: Vec<f64> = draw(items * length, 1).iter().map(|v| 2.0 * v).collect();
        let v: Vec<f64> = draw(local * classes * length, 2)
            .iter()
            .map(|v| 2.0 * v)
            .collect();
        let (_, [in_u, in_v]) = run(&u, &v);
        for (n, found) in in_u.iter().enumerate() {
            let slope = slope(&|u| run(u, &v).0, &u, n);
            assert!(
                (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                "{settings:?} {found} {slope}"
            );
        }
        for (n, found) in in_v.iter().enumerate() {
            let slope = slope(&|v| run(&u, v).0, &v, n);
            assert!(
                (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                "{settings:?} {found} {slope}"
            );
        }
    }
}

#[test]
fn the_tree_is_chest_s_as_a_regulariser_of_proxies_too() {
    // CHEST without its Euclidean part and hyperbolic SoftTriple with a tree
    // draw the same triples and are one loss.
    let mut chest = ChestSettings::without_euclidean();
    chest.per_class = 3;
    let proxies = ProxySettings {
        distance: Distance::Poincare { c: 0.1, r: 2.3 },
        per_class: 3,
        pooling: Pooling::SoftTriple { gamma: 0.46 },
        reducer: Reducer::Softmax {
            scale: 4.35,
            margin: 0.046,
        },
        regularisers: vec![Regulariser::Tree {
            weight: 0.5,
            temperature: 0.05,
            triples: 1024,
        }],
    };
    let v = || leaf(draw(3 * 4 * 5, 2), [3, 4, 5], DType::F64);
    let p = leaf(draw(3 * 4 * 5, 3), [3, 4, 5], DType::F64);
    let chest = ChestLoss::with_proxies(chest, p, v(), &mut rng()).unwrap();
    let proxies = ProxyLoss::with_proxies(proxies, v(), &mut rng()).unwrap();
    let z = || {
        hyperbolic(exp0_clipped(
            leaf(draw(30, 1), [6, 5], DType::F64),
            0.1,
            2.3,
        ))
    };
    let labels = [0, 1, 1, 3, 0, 3];
    let one = chest.forward(&z(), &labels, &mut rng()).unwrap();
    let other = proxies.forward(&z(), &labels, &mut rng()).unwrap();
    assert!((scalar(&one) - scalar(&other)).abs() < 1e-12);
    let of_one = gradient(&chest.hyperbolic().unwrap(), &one.backward());
    let of_other = gradient(&proxies.proxies(), &other.backward());
    assert_eq!(of_one, of_other);
    assert!(of_one.iter().any(|&g| g != 0.0));
}
