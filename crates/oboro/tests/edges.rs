//! The smallest sets, and orders of which nothing can come.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Place, Served, fails, json, vectors};

const DIMENSION: usize = 12;

#[test]
fn sets_of_a_few_vectors_are_built_verified_and_grow() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    let more = place.write_fvecs("more.fvecs", &vectors(5, DIMENSION, 2));
    let ids = place.at("ids");
    std::fs::write(&ids, "900\n901\n902\n903\n904\n").unwrap();
    for count in [1, 2, 15, 16, 255] {
        let name = format!("index-{count}");
        let file = place.write_fvecs("few.fvecs", &vectors(count, DIMENSION, 1));
        let built = place.build(&name, &file, &[]);
        assert_eq!(built["centroids"], 256);
        // Beside a single vector there is nothing to find.
        let recall = &built["trial"]["recall_10_at_10"];
        assert_eq!(recall.as_f64(), (count > 1).then_some(1.0), "{built}");
        assert_eq!(built["remarks"], serde_json::json!([]));
        let index = place.at(&name);
        let arguments = ["insert", &more, "--ids", &ids, "--index", &index];
        let inserted = json(&[&arguments[..], &["--keys", &keys]].concat());
        assert_eq!(inserted["inserted"], 5);
        let verified = json(&["verify", &index, "--keys", &keys]);
        assert_eq!(verified["vectors"], count + 5);
        assert_eq!(verified["trials"]["encrypted"], true);
        assert_eq!(verified["trials"]["queries"], verified["trials"]["found"]);
    }
    // A searcher serves the smallest, too.
    let served = Served::start(&keys, &place.path("index-1"));
    let query = place.write_fvecs("query.fvecs", &vectors(1, DIMENSION, 1));
    let arguments = ["search", "--queries", &query, "--server", &served.address];
    let results = json(&[&arguments[..], &["--keys", &keys, "--allow-simulated"]].concat());
    assert_eq!(results["results"][0][0]["id"], 0);
    assert_eq!(results["results"][0].as_array().unwrap().len(), 6);
}

#[test]
fn one_of_equal_vectors_is_as_right_as_another() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    // 100 of each of ten.
    let base: Vec<Vec<f32>> = vectors(10, DIMENSION, 1)
        .into_iter()
        .cycle()
        .take(1_000)
        .collect();
    let file = place.write_fvecs("base.fvecs", &base);
    let query = place.write_fvecs("query.fvecs", &base[..10]);
    // The truth names the last of them, which a search has no reason to prefer.
    let truth: Vec<u8> = (0..10_u32)
        .flat_map(|query| {
            let last = (90..100).map(move |turn| turn * 10 + query);
            std::iter::once(10).chain(last).flat_map(u32::to_le_bytes)
        })
        .collect();
    std::fs::write(place.path("truth.ivecs"), truth).unwrap();
    let truth = place.at("truth.ivecs");
    let built = place.build("index", &file, &["--metric", "cosine"]);
    assert_eq!(built["trial"]["recall_10_at_10"], 1.0, "{built}");
    let served = Served::start(&keys, &place.path("index"));
    let at = [
        "--server",
        &served.address,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let eval = |more: &[&str]| json(&[&["eval", "--queries", &query], more, &at].concat());
    let by_ids = eval(&["--groundtruth", &truth]);
    assert!(
        by_ids["recall_10_at_10"].as_f64().unwrap() < 0.5,
        "{by_ids}"
    );
    for more in [
        &["--base", &file][..],
        &["--base", &file, "--groundtruth", &truth],
    ] {
        let found = eval(more);
        assert_eq!(found["recall_10_at_10"], 1.0, "{found}");
        assert_eq!(found["recall_1_at_1"], 1.0, "{found}");
    }
    // A cosine may be rounded to more than 1, and no distance is shown below 0.
    let results = json(&[&["search", "--queries", &query][..], &at].concat());
    for found in results["results"].as_array().unwrap() {
        let distance = found[0]["distance"].as_f64().unwrap();
        assert!((0.0..1e-5).contains(&distance), "{found}");
    }
    // A truth of more rows than there are is of another base.
    let few = place.write_fvecs("few.fvecs", &base[..500]);
    let arguments = [
        "eval",
        "--queries",
        &query,
        "--groundtruth",
        &truth,
        "--base",
        &few,
    ];
    let message = fails(3, &[&arguments[..], &at].concat());
    assert!(
        message.contains("999") && message.contains("500 rows"),
        "{message}"
    );
}

#[test]
fn low_recall_is_remarked_on() {
    let place = Place::with_keys();
    let mut base = vectors(3_000, DIMENSION, 1);
    let file = place.write_fvecs("base.fvecs", &base);
    let built = place.build("index", &file, &[]);
    assert_eq!(built["remarks"], serde_json::json!([]));
    // One vector 10,000 times as long as it was, of 3,000.
    base[7].iter_mut().for_each(|value| *value *= 1e4);
    let file = place.write_fvecs("longer.fvecs", &base);
    let built = place.build("longer", &file, &[]);
    let recall = built["trial"]["recall_10_at_10"].as_f64().unwrap();
    assert!(recall < 0.8, "{built}");
    let remarks: Vec<&str> = built["remarks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|remark| remark.as_str().unwrap())
        .collect();
    let [low, long] = remarks[..] else {
        panic!("{remarks:?}");
    };
    for word in ["-M, here 8", "--rerank, up to 256", "100 candidates"] {
        assert!(low.contains(word), "{low}");
    }
    assert!(long.contains("times as long as the median"), "{long}");
    assert!(!low.contains("-K"), "{low}");
    // The text says the same.
    let (keys, out) = (place.at("keys"), place.at("text"));
    let line = [
        "build", &file, "--keys", &keys, "--out", &out, "--seed", "1",
    ];
    let output = support::oboro().args(line).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("  note: recall is low"), "{text}");
    assert!(text.contains(&format!("  note: {long}")), "{text}");
    // Directions are what they were.
    let built = place.build("directions", &file, &["--metric", "cosine"]);
    assert_eq!(built["remarks"], serde_json::json!([]));
}

#[test]
fn few_dimensions_and_many() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    for dimension in [1, 2, 4_096] {
        let name = format!("index-{dimension}");
        let base = vectors(60, dimension, 1);
        let file = place.write_fvecs("base.fvecs", &base);
        place.build(&name, &file, &[]);
        let served = Served::start(&keys, &place.path(&name));
        let arguments = ["search", "--queries", &file, "--server", &served.address];
        let results = json(&[&arguments[..], &["--keys", &keys, "--allow-simulated"]].concat());
        for (row, found) in results["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(found[0]["id"], row, "{dimension}");
        }
    }
}

#[test]
fn an_index_with_a_learned_matrix_and_lists_verifies() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    let file = place.write_fvecs("base.fvecs", &vectors(1_500, DIMENSION, 1));
    for (name, more) in [
        ("opq", &["--opq=8"][..]),
        ("lists", &["--opq", "--lists", "4"]),
    ] {
        place.build(name, &file, &[&["-K", "16", "-M", "3"], more].concat());
        let verified = json(&["verify", &place.at(name), "--keys", &keys]);
        let trials = &verified["trials"];
        assert_eq!(trials["queries"], trials["found"], "{name}: {verified}");
        assert_eq!(trials["encrypted"], true);
        // In the clear they are prepared alike.
        let owner = ["verify", &place.at(name), "--keys", &place.at("keys/owner")];
        let trials = &json(&owner)["trials"];
        assert_eq!(trials["queries"], trials["found"], "{name}");
        assert_eq!(trials["encrypted"], false);
    }
}

#[test]
fn fail_orders_of_which_nothing_can_come() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    let base = vectors(300, DIMENSION, 1);
    let file = place.write_fvecs("base.fvecs", &base);
    place.build("index", &file, &["-K", "16"]);
    let index = place.at("index");
    let at = ["--index", &index, "--keys", &keys];
    // One id that is none would make text of the others, and nothing would be deleted.
    let message = fails(3, &[&["delete", "--ids", "3,4,foo"][..], &at].concat());
    assert!(
        message.contains("place 3 is none") && message.contains("--text-ids"),
        "{message}"
    );
    let deleted = json(&[&["delete", "--ids", "3,4,99999"][..], &at].concat());
    assert_eq!(
        (&deleted["deleted"], &deleted["unknown"]),
        (&2.into(), &1.into())
    );
    // No row of another dimension fits.
    let other = place.write_fvecs("other.fvecs", &vectors(40, DIMENSION + 1, 1));
    let message = fails(3, &[&["insert", &other][..], &at].concat());
    assert!(message.contains("40 rows"), "{message}");
    // Where all are there, nothing is committed, and the figures are those of the index.
    let inserted = json(&[&["insert", &file][..], &at].concat());
    assert_eq!(
        (&inserted["inserted"], &inserted["existing"]),
        (&2.into(), &298.into())
    );
    let inserted = json(&[&["insert", &file][..], &at].concat());
    assert_eq!(
        (&inserted["commits"], &inserted["existing"]),
        (&0.into(), &300.into())
    );
    let after = json(&["inspect", &index]);
    assert_eq!(inserted["generation"], after["generation"]);
    // Numbers that are none of what there can be.
    let out = place.at("out");
    for (option, value) in [
        ("--candidates-max", "0"),
        ("--candidates-max", "100000"),
        ("--sample", "0"),
        ("--sample", "10"),
        ("--threads", "0"),
        ("--iterations", "0"),
    ] {
        let arguments = ["build", &file, "--out", &out, "--keys", &keys];
        fails(2, &[&arguments[..], &[option, value]].concat());
    }
    fails(2, &[&["insert", &file, "--batch", "0"][..], &at].concat());
}

#[test]
fn fail_recall_of_an_index_with_ids_of_its_own() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    let file = place.write_fvecs("base.fvecs", &vectors(300, DIMENSION, 1));
    let ids: String = (0..300).map(|row| format!("word {row}\n")).collect();
    std::fs::write(place.path("ids"), ids).unwrap();
    place.build("index", &file, &["-K", "16", "--ids", &place.at("ids")]);
    let served = Served::start(&keys, &place.path("index"));
    let message = fails(
        3,
        &[
            "eval",
            "--queries",
            &file,
            "--base",
            &file,
            "--server",
            &served.address,
            "--keys",
            &keys,
            "--allow-simulated",
        ],
    );
    assert!(
        message.contains("row numbers") && message.contains("--ids"),
        "{message}"
    );
    let at = [
        "--server",
        &served.address,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let eval = ["eval", "--queries", &file, "--base", &file, "--ids"];
    let found = json(&[&eval[..], &[&place.at("ids")], &at].concat());
    assert!(found["recall_10_at_10"].as_f64().unwrap() > 0.9, "{found}");
    // Others than those of the build.
    std::fs::write(place.path("other"), "word\n").unwrap();
    let message = fails(3, &[&eval[..], &[&place.at("other")], &at].concat());
    assert!(message.contains("not one of the ids"), "{message}");
}
