//! What losses refuse, each in one sentence.

use crate::common::*;
use burn::tensor::{DType, Tensor};
use oboro_learn::LearnError;
use oboro_learn::backend::cpu_autodiff;
use oboro_learn::losses::{AnyLoss, Dimensions, Embeddings, Loss, Settings};

const BOTH: Dimensions = Dimensions {
    euclidean: 4,
    hyperbolic: Some(3),
};

fn build(
    settings: &Settings,
    classes: usize,
    dimensions: Dimensions,
) -> Result<AnyLoss, LearnError> {
    settings.build(classes, dimensions, &cpu_autodiff(), &mut rng())
}

fn refused(embeddings: &Embeddings, labels: &[usize], expected: &str) {
    for name in [
        "soft-triple",
        "hyperbolic-soft-triple",
        "chest",
        "tangent-soft-triple",
    ] {
        let loss = build(&Settings::named(name).unwrap(), 3, BOTH).unwrap();
        let error = loss.forward(embeddings, labels, &mut rng()).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

fn good() -> Embeddings {
    batch(draw(8, 1), draw(6, 2), 2).0
}

#[test]
fn fail_labels_that_the_loss_does_not_know() {
    refused(
        &good(),
        &[0, 3],
        "item 1 of the batch is of class 3, but the loss was built for 3 classes",
    );
    refused(&good(), &[usize::MAX, 0], "item 0 of the batch");
}

/// Allocating them would end the process.
#[test]
fn fail_more_proxies_than_there_is_memory_for() {
    for many in [
        r#"{"loss": "chest", "per_class": 9000000000}"#,
        r#"{"loss": "hier", "ancestors": 18446744073709551615}"#,
    ] {
        let settings: Settings = serde_json::from_str(many).unwrap();
        let error = build(&settings, 3, BOTH).unwrap_err().to_string();
        assert!(error.contains("choose fewer"), "{many}: {error}");
    }
    let Settings::Proxies(mut proxies) = Settings::named("soft-triple").unwrap() else {
        panic!("a loss over proxies");
    };
    proxies.per_class = usize::MAX / 2;
    let Settings::Chest(mut chest) = Settings::named("chest").unwrap() else {
        panic!("CHEST");
    };
    chest.tree.triples = usize::MAX;
    for settings in [Settings::Proxies(proxies), Settings::Chest(chest)] {
        let error = build(&settings, 3, BOTH).unwrap_err();
        assert!(error.to_string().contains("choose fewer"), "{error}");
    }
}

#[test]
fn fail_labels_that_are_not_as_many_as_embeddings() {
    for labels in [&[][..], &[0], &[0, 1, 2]] {
        refused(&good(), labels, "the labels of a batch has");
    }
}

#[test]
fn fail_embeddings_of_another_length() {
    let (embeddings, _) = batch(draw(10, 1), draw(10, 2), 2);
    refused(&embeddings, &[0, 1], "has 5 values where");
}

#[test]
fn fail_values_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let spoil = |mut values: Vec<f64>| {
            values[5] = bad;
            let length = values.len() / 2;
            leaf(values, [2, length], DType::F32)
        };
        let embeddings = Embeddings {
            euclidean: spoil(draw(8, 1)),
            hyperbolic: Some(spoil(draw(6, 2))),
        };
        refused(&embeddings, &[0, 1], "row 1 of the");
        let pairs = build(&Settings::named("multi-similarity").unwrap(), 3, BOTH).unwrap();
        let error = pairs.forward(&embeddings, &[0, 1], &mut rng()).unwrap_err();
        assert!(matches!(error, LearnError::NotFinite { row: 1, .. }));
    }
}

#[test]
fn fail_a_hyperbolic_loss_without_its_head() {
    let x: Tensor<2> = good().euclidean;
    for name in Settings::NAMES {
        let settings = Settings::named(name).unwrap();
        let alone = Dimensions {
            hyperbolic: None,
            ..BOTH
        };
        assert_eq!(
            build(&settings, 3, alone).is_err(),
            settings.needs_hyperbolic(),
            "{name}"
        );
        let loss = build(&settings, 3, BOTH).unwrap();
        let result = loss.forward(&Embeddings::euclidean(x.clone()), &[0, 1], &mut rng());
        assert_eq!(result.is_err(), settings.needs_hyperbolic(), "{name}");
    }
}

#[test]
fn fail_settings_outside_their_range() {
    for text in [
        r#"{"loss":"proxies","per_class":0}"#,
        r#"{"loss":"proxies","per_class":1}"#,
        r#"{"loss":"proxies","pooling":{"kind":"soft-triple","gamma":0}}"#,
        r#"{"loss":"proxies","pooling":{"kind":"log-sum-exp","gamma":-1}}"#,
        r#"{"loss":"proxies","reducer":{"kind":"softmax","scale":0,"margin":0}}"#,
        r#"{"loss":"proxies","reducer":{"kind":"anchor","alpha":-32,"delta":0.1,"positive":"class","negative":"data"}}"#,
        r#"{"loss":"proxies","distance":{"kind":"poincare","c":0.1,"r":2.3}}"#,
        r#"{"loss":"proxies","distance":{"kind":"poincare","c":0,"r":2.3},"regularisers":[]}"#,
        r#"{"loss":"proxies","distance":{"kind":"poincare","c":1,"r":7},"regularisers":[]}"#,
        r#"{"loss":"proxies","distance":{"kind":"tangent","c":0.1,"r":-1},"regularisers":[]}"#,
        r#"{"loss":"proxies","regularisers":[{"kind":"tree","weight":1,"temperature":0.05,"triples":9}]}"#,
        r#"{"loss":"pairs","alpha":0}"#,
        r#"{"loss":"hier","ancestors":0}"#,
        r#"{"loss":"hier","neighbours":0}"#,
        r#"{"loss":"chest","c":-0.1}"#,
        r#"{"loss":"chest","per_class":0}"#,
        r#"{"loss":"chest","euclidean":{"weight":0,"scale":20,"gamma":0.1,"margin":0},"hyperbolic":{"weight":0,"scale":4,"gamma":0.4,"margin":0}}"#,
        r#"{"loss":"sum","terms":[]}"#,
    ] {
        let settings: Settings = serde_json::from_str(text).unwrap();
        let error = build(&settings, 3, BOTH).err();
        assert!(error.is_some(), "{text}");
        // One sentence, without a full stop.
        assert!(!error.unwrap().to_string().contains(". "), "{text}");
    }
    assert!(build(&Settings::soft_triple(), 0, BOTH).is_err());
    let empty = Dimensions {
        euclidean: 0,
        hyperbolic: None,
    };
    assert!(build(&Settings::soft_triple(), 3, empty).is_err());
}

#[test]
fn fail_names_and_fields_that_there_are_not() {
    assert!(Settings::named("soft-tripel").is_err());
    for text in [
        r#"{"loss":"soft"}"#,
        r#"{"loss":"proxies","gamma":0.1}"#,
        r#"{"loss":"chest","mu":1}"#,
        r#"{"loss":"pairs","alpha":"two"}"#,
        r#"{"per_class":3}"#,
    ] {
        assert!(serde_json::from_str::<Settings>(text).is_err(), "{text}");
    }
}
