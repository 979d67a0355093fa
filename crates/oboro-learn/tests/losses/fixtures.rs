//! Values and gradients against the fixtures, in the precisions of the device.

use crate::common::*;
use crate::precisions;
use burn::tensor::{DType, Tensor};
use oboro_learn::geometry::tensor::{exp0_clipped, normalize};
use oboro_learn::losses::chest::{Branch, ChestLoss, ChestSettings, Similarity, Tree};
use oboro_learn::losses::hier::hier;
use oboro_learn::losses::pairs::PairSettings;
use oboro_learn::losses::pooling::Pooling;
use oboro_learn::losses::proxies::{ProxyLoss, ProxySettings};
use oboro_learn::losses::reducer::{Reducer, Side};
use oboro_learn::losses::regulariser::{centres, sparse};
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

pub(crate) fn plain(distance: Distance, pooling: Pooling, reducer: Reducer) -> ProxySettings {
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
        for &(dtype, tolerance) in precisions() {
            proxy_case(case, &settings, dtype, tolerance);
        }
    }
}

#[test]
fn soft_triple_is_the_oracles() {
    for case in list(&fixture("softtriple")) {
        let name = case["name"].as_str().unwrap();
        for &(dtype, tolerance) in precisions() {
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
        for &(dtype, tolerance) in precisions() {
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
        for &(dtype, tolerance) in precisions() {
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
        for &(dtype, tolerance) in precisions() {
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
        for &(dtype, tolerance) in precisions() {
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
            } else if let Some(of) = name.strip_prefix("hier/") {
                let rho = input(case, "rho", dtype);
                let mut leaves = vec![("rho", rho.clone())];
                if of != "ancestors" {
                    leaves.push(("z", input(case, "z", dtype)));
                }
                // Items, or the ancestors once more.
                let items = leaves[leaves.len() - 1].1.clone();
                let (c, margin) = (number(case, "c"), number(case, "delta"));
                let value = hier(items, rho, &triples(case), c, margin);
                let gradients = value.backward();
                let of = |(name, leaf): (_, Tensor<2>)| (name, gradient(&leaf, &gradients));
                let found: Vec<_> = leaves.into_iter().map(of).collect();
                matches(case, scalar(&value), &found, tolerance);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 5 * precisions().len());
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
        for &(dtype, tolerance) in precisions() {
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
