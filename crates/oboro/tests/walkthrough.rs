//! The whole way of the documentation: keygen, build, serve, search, eval,
//! inspect, verify; and Ctrl-C at the end.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Place, Served, fails, json, nearest, oboro, vectors};

#[test]
fn from_keys_to_neighbours() {
    let place = Place::with_keys();
    let base = vectors(1_500, 24, 1);
    let queries = vectors(30, 24, 2);
    let base_file = place.write_fvecs("base.fvecs", &base);
    let query_file = place.write_fvecs("query.fvecs", &queries);
    let built = place.build(
        "index",
        &base_file,
        &[
            "--centroids",
            "64",
            "--originals",
            "f32",
            "--candidates-max",
            "400",
        ],
    );
    assert_eq!(built["vectors"], 1_500);
    assert_eq!(built["security_bits"], 139);
    assert!(built["seconds"].as_f64().unwrap() > 0.0);
    assert!(built["files"][0]["bytes"].as_u64().unwrap() > 0);
    assert!(built["trial"]["recall_10_at_10"].as_f64().unwrap() > 0.9);

    let (keys, index) = (place.at("keys"), place.path("index"));
    let index_name = place.at("index");
    let served = Served::start(&keys, &index);
    assert_eq!(served.ready["platform"], "simulated");
    let server = [
        "--server",
        &served.address,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let search = |more: &[&str]| {
        let mut arguments = vec!["search", "--queries", &query_file];
        arguments.extend(server);
        arguments.extend(more);
        json(&arguments)
    };

    // Exact neighbours, by way of a re-ranking that reaches all of them.
    let found = search(&["-k", "5", "--rerank", "400"]);
    assert_eq!(found["platform"], "simulated");
    for (query, row) in queries.iter().zip(found["results"].as_array().unwrap()) {
        let ids: Vec<u64> = row
            .as_array()
            .unwrap()
            .iter()
            .map(|neighbour| neighbour["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, nearest(&base, query, 5));
    }

    // The client as the keeper gives the same.
    let keeper_key = format!("{keys}/keeper/keeper.key");
    let own = search(&[
        "-k",
        "5",
        "--rerank",
        "400",
        "--keyholder",
        "client",
        "--keeper-key",
        &keeper_key,
    ]);
    assert_eq!(own["results"], found["results"]);

    // Without re-ranking.
    let unranked = search(&["-k", "5", "--rerank", "off"]);
    assert_eq!(unranked["results"][0].as_array().unwrap().len(), 5);

    // Files, and standard input.
    let out = place.at("found.ivecs");
    let to_file = search(&["-k", "3", "--out", &out]);
    assert_eq!(to_file["out"], out.as_str());
    assert!(to_file.get("results").is_none());
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 30 * (4 + 3 * 4));
    let text = oboro()
        .args(["search", "--queries", "-", "-k", "2"])
        .args(server)
        .write_stdin(support::fvecs(&queries[..1]))
        .output()
        .unwrap();
    assert!(text.status.success());
    assert_eq!(String::from_utf8(text.stdout).unwrap().lines().count(), 2);
    assert!(
        String::from_utf8(text.stderr)
            .unwrap()
            .contains("SIMULATED")
    );

    // Recall, against a ground truth and against exact search.
    let truth: Vec<u8> = queries
        .iter()
        .flat_map(|query| {
            let ids = nearest(&base, query, 100).into_iter().map(|id| id as u32);
            std::iter::once(100)
                .chain(ids)
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<u8>>()
        })
        .collect();
    std::fs::write(place.path("truth.ivecs"), truth).unwrap();
    let truth_file = place.at("truth.ivecs");
    let (by_truth, by_base) = (["--groundtruth", &truth_file], ["--base", &base_file]);
    for (source, counted_by) in [
        (by_truth.to_vec(), "ids"),
        (by_base.to_vec(), "distances"),
        ([by_truth, by_base].concat(), "distances"),
    ] {
        let mut arguments = vec!["eval", "--queries", &query_file];
        arguments.extend(source);
        arguments.extend(server);
        let recall = json(&arguments);
        assert_eq!(recall["queries"], 30);
        assert_eq!(recall["counted_by"], counted_by);
        for key in [
            "recall_10_at_10",
            "recall_1_at_1",
            "recall_1_at_10",
            "recall_1_at_100",
        ] {
            assert!(recall[key].as_f64().unwrap() > 0.95, "{key}: {recall}");
        }
    }

    // Questions that have no answer.
    let ask = |code, more: &[&str]| {
        let mut arguments = vec!["search", "--queries", &query_file];
        arguments.extend(server);
        arguments.extend(more);
        fails(code, &arguments)
    };
    assert!(ask(3, &["-k", "101"]).contains("101"));
    assert!(ask(3, &["-k", "2000", "--rerank", "2000"]).contains("2000"));
    assert!(ask(4, &["--out", &out]).contains("--force"));
    assert!(ask(2, &["--out", "found.txt"]).contains(".ivecs"));
    let wrong = place.write_fvecs("wrong.fvecs", &vectors(2, 23, 1));
    let mut arguments = vec!["search", "--queries", &wrong];
    arguments.extend(server);
    let message = fails(3, &arguments);
    assert!(
        message.contains("23") && message.contains("24"),
        "{message}"
    );
    let unwilling = &server[..4];
    let mut arguments = vec!["search", "--queries", &query_file];
    arguments.extend(unwilling);
    let message = fails(4, &arguments);
    assert!(message.contains("oboro attest policy"), "{message}");

    // Another owner's client.
    let other = place.at("other");
    json(&["keygen", "--out", &other]);
    let mut arguments = vec!["search", "--queries", &query_file, "--allow-simulated"];
    arguments.extend(["--server", &served.address, "--keys", &other]);
    let code = oboro()
        .arg("--json")
        .args(&arguments)
        .output()
        .unwrap()
        .status
        .code();
    assert!(matches!(code, Some(4 | 5)), "{code:?}");

    let address = served.address.clone();
    assert_eq!(served.interrupt(), Some(0));
    let arguments = [
        "search",
        "--queries",
        &query_file,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let message = fails(5, &[&arguments[..], &["--server", &address]].concat());
    assert!(message.contains("cannot be reached"), "{message}");

    let public = json(&["inspect", &index_name]);
    assert_eq!(public["vectors"], 1_500);
    assert!(public.get("security_bits").is_none());
    let inspected = json(&["inspect", &index_name, "--keys", &keys]);
    assert_eq!(inspected["security_bits"], 139);
    assert_eq!(inspected["centroids"], 64);
    let verified = json(&["verify", &index_name, "--keys", &keys]);
    assert_eq!(verified["sound"], true);
    assert_eq!(verified["originals_opened"], 1_500);
    // Searcher and keeper together open what the searcher needs, and no original.
    std::fs::rename(place.path("keys/owner"), place.path("owner")).unwrap();
    assert_eq!(
        json(&["verify", &index_name, "--keys", &keys])["originals_opened"],
        0
    );
}

#[test]
fn roles_end_with_the_process_that_started_them() {
    let place = Place::with_keys();
    let file = place.write_fvecs("v.fvecs", &vectors(100, 8, 1));
    place.build("index", &file, &["--centroids", "16"]);
    let served = Served::start(&place.at("keys"), &place.path("index"));
    let address = served.address.clone();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    served.kill();
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::net::TcpStream::connect(&address).is_err()
    });
    assert!(gone, "the searcher outlived the process that started it");
}

#[test]
fn doctor_tells_what_is_here() {
    let findings = json(&["doctor"]);
    assert!(findings["cores"].as_u64().unwrap() >= 1);
    assert!(findings["instructions"].is_string());
    let names = findings["platforms"].to_string();
    for name in ["sev-snp", "tdx", "nitro", "tpm", "simulated"] {
        assert!(names.contains(name), "{names}");
    }
    assert!(findings["kernel"]["core_pattern"].is_string());
    assert!(findings["kernel"]["lockdown"].as_array().unwrap().len() >= 5);
}

#[test]
fn vectors_of_no_hyperboloid_are_remarked_upon() {
    let place = Place::with_keys();
    let plain = vectors(60, 4, 1);
    let raised: Vec<Vec<f32>> = plain
        .iter()
        .map(|row| {
            let time = (1.0 + row.iter().map(|x| x * x).sum::<f32>()).sqrt();
            [&[time][..], row].concat()
        })
        .collect();
    for (name, rows, told) in [("plain", &plain, true), ("raised", &raised, false)] {
        let file = place.write_fvecs(&format!("{name}.fvecs"), rows);
        let (keys, out) = (place.at("keys"), place.at(name));
        let output = oboro()
            .args(["build", &file, "--keys", &keys, "--out", &out])
            .args(["--metric", "lorentz", "--centroids", "16"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.matches("hyperboloid").count(),
            usize::from(told),
            "{said}"
        );
    }
}

#[test]
fn a_bench_fills_its_contract() {
    let place = Place::new();
    let base = vectors(800, 16, 1);
    std::fs::create_dir(place.path("set")).unwrap();
    place.write_fvecs("set/tiny_base.fvecs", &base);
    place.write_fvecs("set/tiny_query.fvecs", &vectors(20, 16, 2));
    let (set, out) = (place.at("set"), place.at("figures.json"));
    let arguments = [
        "bench",
        "--data",
        &set,
        "--out",
        &out,
        "--repeat",
        "1",
        "--clients",
        "2",
    ];
    let measured = json(&arguments);
    for key in [
        "table_evaluate_us",
        "table_decrypt_us",
        "scan_ms",
        "memory_read_ms",
        "select_ms",
        "sequential_qps",
        "concurrent_qps",
        "query_bytes_up",
        "reply_bytes_down",
        "keeper_bytes",
        "build_seconds",
        "vectors",
        "dimension",
        "subquantizers",
        "centroids",
        "threads",
        "recall_10_at_10",
    ] {
        assert!(measured[key].is_number(), "{key}: {measured}");
    }
    assert_eq!(measured["vectors"], 800);
    for key in ["date", "executable", "processor", "platform"] {
        assert!(measured[key].is_string(), "{key}: {measured}");
    }
    let stored: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(stored, measured);
    assert!(fails(4, &arguments).contains("--force"));
}

#[test]
fn a_bench_makes_its_index_in_every_mode() {
    let place = Place::new();
    std::fs::create_dir(place.path("set")).unwrap();
    place.write_fvecs("set/base.fvecs", &vectors(600, 16, 1));
    place.write_fvecs("set/query.fvecs", &vectors(20, 16, 2));
    let set = place.at("set");
    let bench = |mode| {
        let quick = ["--repeat", "1", "--clients", "1", "--queries", "20"];
        let mut line = vec!["bench", "--data", &set, "--mode", mode, "-K", "16"];
        line.extend(quick);
        line
    };
    for (mode, roles) in [
        ("local", vec!["owner"]),
        ("enclave", vec!["owner", "generator"]),
        ("blind", vec!["owner", "searcher", "keeper"]),
    ] {
        let mut line = bench(mode);
        line.extend(["--", "--iterations", "3", "--originals", "f32"]);
        let measured = json(&line);
        let generation = &measured["generation"];
        assert_eq!(generation["mode"], mode);
        assert_eq!(generation["options"].as_array().unwrap().len(), 4);
        let used = generation["roles"].as_array().unwrap();
        assert_eq!(used.len(), roles.len(), "{measured}");
        for (used, role) in used.iter().zip(roles) {
            assert_eq!(used["role"], role);
            assert!(used["peak_bytes"].as_u64().unwrap() > 1_000_000, "{used}");
            assert!(used["processor_seconds"].is_number(), "{used}");
        }
        assert_eq!(measured["vectors"], 600);
        // Originals of four bytes a value lie there, and more.
        assert!(measured["index_bytes"].as_u64().unwrap() > 600 * 16 * 4);
        assert!(measured["build_seconds"].as_f64().unwrap() > 0.0);
        assert!(
            measured["recall_10_at_10"].as_f64().unwrap() > 0.9,
            "{measured}"
        );
    }
}

#[test]
fn fail_a_bench_whose_build_cannot_be() {
    let place = Place::new();
    std::fs::create_dir(place.path("set")).unwrap();
    place.write_fvecs("set/base.fvecs", &vectors(300, 16, 1));
    place.write_fvecs("set/query.fvecs", &vectors(20, 16, 2));
    let set = place.at("set");
    for (more, word) in [
        (vec!["--mode", "open"], "open"),
        (vec!["--mode", "blind", "--", "--opq"], "--opq"),
        (
            vec!["--mode", "enclave", "--", "--threads", "1"],
            "--threads",
        ),
        (vec!["--", "--out", "elsewhere"], "bench's own"),
        (vec!["--", "--mode", "blind"], "bench's own"),
        (vec!["--", "--dry-run"], "bench's own"),
        (vec!["--", "--nothing"], "--nothing"),
    ] {
        let mut line = vec!["bench", "--data", &set];
        line.extend(more);
        let message = fails(2, &line);
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(place.names(), ["set"]);
}

#[test]
fn the_demo_runs() {
    let shown = json(&["demo", "--queries", "40", "paris"]);
    assert!(shown["recall_10_at_10"].as_f64().unwrap() >= 0.9, "{shown}");
    assert!(shown["sequential_qps"].as_f64().unwrap() > 0.0);
    assert!(shown["query_bytes_up"].as_u64().unwrap() > 10_000);
    assert_eq!(shown["platform"], "simulated");
    assert_eq!(shown["trust"]["epoch"], 1);
    assert_eq!(shown["neighbours"][0]["word"], "paris");
    assert_eq!(shown["saw"]["searcher"]["tables_decoded"], 41);
    assert!(shown["saw"]["keeper"]["uniformity"].as_f64().unwrap().abs() < 6.0);
    assert!(fails(3, &["demo", "xyzzyx"]).contains("xyzzyx"));
}
