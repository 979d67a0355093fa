//! `build --mode enclave`: through the command, with the generator as a process.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Place, Served, fails, json, nearest, vectors};

const DIMENSION: usize = 24;

/// `oboro generator`, killed when dropped.
struct Generator {
    child: Child,
    /// Open, so that it can say its last words.
    output: BufReader<ChildStdout>,
    address: String,
    ready: Value,
}

impl Generator {
    fn start(place: &Place, more: &[&str]) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .args(["--json", "--quiet", "generator", "--allow-simulated"])
            .args(["--keys", &place.at("keys"), "--work", &place.at("work")])
            .args(["--listen", "127.0.0.1:0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            output,
            address: ready["address"].as_str().unwrap().to_owned(),
            ready,
        }
    }

    /// Waits for its end and returns exit code and last words.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut words = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut words).unwrap();
        let code = self.child.wait().unwrap().code();
        if let Some(mut stderr) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut words).unwrap();
        }
        (code, words)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Arguments of a build at a generator.
fn arguments(place: &Place, file: &str, address: &str, more: &[&str]) -> Vec<String> {
    let (keys, out) = (place.at("keys"), place.at("index"));
    let first = [
        "build",
        file,
        "--mode",
        "enclave",
        "--generator",
        address,
        "--keys",
        &keys,
        "--out",
        &out,
        "--allow-simulated",
        "--centroids",
        "16",
    ];
    first
        .iter()
        .chain(more)
        .map(|&word| word.to_owned())
        .collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_index_of_an_enclave_serves_and_lives() {
    let place = Place::with_keys();
    let base = vectors(1_500, DIMENSION, 1);
    let file = place.write_fvecs("base.fvecs", &base);
    let generator = Generator::start(&place, &[]);
    assert_eq!(generator.ready["role"], "generator");
    assert_eq!(generator.ready["platform"], "simulated");
    let address = generator.address.clone();
    let exact = ["--candidates-max", "400", "--originals", "f32"];
    let build = arguments(&place, &file, &address, &exact);
    let built = json(&words(&build));
    assert_eq!(built["vectors"], 1_500);
    assert_eq!(built["generator"]["simulated"], true);
    assert!(built["trial"]["recall_10_at_10"].as_f64().unwrap() > 0.9);
    // One build, and it is gone: nobody can ask it for anything any more.
    let (code, last) = generator.ended();
    assert_eq!(code, Some(0), "{last}");
    assert!(std::net::TcpStream::connect(&address).is_err());
    assert_eq!(names(&place.path("work")), [""; 0]);

    let (keys, index) = (place.at("keys"), place.path("index"));
    let verified = json(&["verify", &place.at("index"), "--keys", &keys]);
    assert_eq!(verified["sound"], true, "{verified}");
    assert_eq!(verified["originals_opened"], 1_500);
    let queries = vectors(10, DIMENSION, 2);
    let query_file = place.write_fvecs("query.fvecs", &queries);
    let served = Served::start(&keys, &index);
    let server = ["--keys", &keys, "--allow-simulated"];
    let search = [
        &[
            "search",
            "--queries",
            &query_file,
            "--server",
            &served.address,
        ][..],
        &server,
        &["-k", "5", "--rerank", "400"],
    ]
    .concat();
    let found = json(&search);
    for (query, row) in queries.iter().zip(found["results"].as_array().unwrap()) {
        let ids: Vec<u64> = row
            .as_array()
            .unwrap()
            .iter()
            .map(|neighbour| neighbour["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, nearest(&base, query, 5));
    }
    // The owner's model came along.
    let more = place.write_fvecs("more.fvecs", &vectors(50, DIMENSION, 3));
    let ids: String = (9_000..9_050).map(|id| format!("{id}\n")).collect();
    std::fs::write(place.path("more.txt"), ids).unwrap();
    let inserted = json(
        &[
            &["insert", &more, "--ids", &place.at("more.txt")][..],
            &["--connect", &served.address],
            &server,
        ]
        .concat(),
    );
    assert_eq!(inserted["inserted"], 50);
}

#[test]
fn fail_generators_that_do_not_prove_what_they_are() {
    let place = Place::with_keys();
    let file = place.write_fvecs("base.fvecs", &vectors(200, DIMENSION, 1));
    let generator = Generator::start(&place, &[]);
    let address = generator.address.clone();
    let build = arguments(&place, &file, &address, &[]);
    // Without the word that it is a trial.
    let hard: Vec<_> = build
        .iter()
        .filter(|word| *word != "--allow-simulated")
        .cloned()
        .collect();
    assert!(fails(4, &words(&hard)).contains("--policy"));

    // A policy that pins this program accepts it; one that pins another does not.
    let (keys, evidence, policy) = (place.at("keys"), place.at("evidence"), place.at("pol.toml"));
    let shown = json(&[
        "attest",
        "show",
        "--address",
        &address,
        "--role",
        "generator",
        "--keys",
        &keys,
        "--out",
        &evidence,
    ]);
    assert_eq!(shown["evidence"]["claims"]["role"], "generator");
    assert_eq!(
        shown["evidence"]["claims"]["configuration"],
        generator.ready["configuration"]
    );
    json(&[
        "attest",
        "policy",
        &evidence,
        "--out",
        &policy,
        "--pin-configuration",
        "--allow-simulated",
    ]);
    let text = std::fs::read_to_string(&policy).unwrap();
    let measurement = shown["evidence"]["measurement"].as_str().unwrap();
    let configuration = shown["evidence"]["claims"]["configuration"]
        .as_str()
        .unwrap();
    for (name, pinned) in [
        ("measurement", measurement),
        ("configuration", configuration),
    ] {
        assert!(text.contains(pinned), "{text}");
        let other = text.replace(pinned, &"0".repeat(pinned.len()));
        let wrong = place.at(&format!("{name}.toml"));
        std::fs::write(&wrong, other).unwrap();
        let message = fails(
            4,
            &words(&arguments(&place, &file, &address, &["--policy", &wrong])),
        );
        assert!(message.contains(name), "{message}");
    }
    // A generator that goes on after a build is another set-up.
    let computed = json(&[
        "attest",
        "show",
        "--keys",
        &keys,
        "--allow-simulated",
        "--configuration",
        "generator",
        "--",
        "--stay",
    ]);
    assert_ne!(computed["configuration"], generator.ready["configuration"]);

    // Another owner is not let in.
    json(&["keygen", "--out", &place.at("other")]);
    let other = arguments(&place, &file, &address, &["--keys", &place.at("other")]);
    let output = support::oboro().args(&other).output().unwrap();
    assert!(matches!(output.status.code(), Some(4 | 5)));
    // Nor a client with the owner's words.
    std::fs::create_dir(place.path("thief")).unwrap();
    support::copy(&place.path("keys/owner"), &place.path("thief/owner"));
    for name in ["identity.pem", "trust.pem"] {
        std::fs::copy(
            place.path("keys/client").join(name),
            place.path("thief/owner").join(name),
        )
        .unwrap();
    }
    let thief = arguments(&place, &file, &address, &["--keys", &place.at("thief")]);
    assert!(fails(3, &words(&thief)).contains("client"));

    // A searcher is no generator, whatever it can prove.
    let local = place.build("served", &file, &["--centroids", "16"]);
    assert_eq!(local["vectors"], 200);
    let served = Served::start(&keys, &place.path("served"));
    let searcher = arguments(&place, &file, &served.address, &[]);
    let output = support::oboro().args(&searcher).output().unwrap();
    assert!(matches!(output.status.code(), Some(4 | 5)));

    // None of this was a build, and nothing lies where an index would.
    let pinned = arguments(&place, &file, &address, &["--policy", &policy]);
    assert!(!place.path("index").exists());
    assert_eq!(json(&words(&pinned))["vectors"], 200);
    assert_eq!(generator.ended().0, Some(0));
}

#[test]
fn fail_modes_and_options_that_do_not_go_together() {
    let place = Place::with_keys();
    let file = place.write_fvecs("base.fvecs", &vectors(100, DIMENSION, 1));
    let build = |more: &[&str]| {
        let (keys, out) = (place.at("keys"), place.at("index"));
        let first = ["build", &file, "--keys", &keys, "--out", &out];
        fails(2, &[&first[..], more].concat())
    };
    assert!(build(&["--mode", "elsewhere"]).contains("enclave"));
    assert!(build(&["--generator", "127.0.0.1:1"]).contains("--mode enclave"));
    let enclave = ["--mode", "enclave", "--allow-simulated"];
    for option in [&["--dry-run"][..], &["--estimate"], &["--threads", "1"]] {
        assert!(build(&[&enclave[..], option].concat()).contains("generator"));
    }
    assert!(build(&[&enclave[..], &["--searcher", "127.0.0.1:1"]].concat()).contains("blind"));
    // Nobody listens.
    let nobody = arguments(&place, &file, "127.0.0.1:1", &[]);
    fails(5, &words(&nobody));
    // A folder with something else in it is not the generator's.
    std::fs::create_dir(place.path("work")).unwrap();
    std::fs::write(place.path("work/note.txt"), "mine").unwrap();
    let message = fails(
        4,
        &[
            "generator",
            "--allow-simulated",
            "--keys",
            &place.at("keys"),
            "--work",
            &place.at("work"),
            "--listen",
            "127.0.0.1:0",
        ],
    );
    assert!(message.contains("--work"), "{message}");
}

/// Bad rows end a build before the generator hears of it, with the words of a local one.
#[test]
fn fail_rows_that_are_no_vectors() {
    let place = Place::with_keys();
    let mut rows = vectors(100, DIMENSION, 1);
    rows[7][3] = f32::NAN;
    let file = place.write_fvecs("base.fvecs", &rows);
    let generator = Generator::start(&place, &["--stay"]);
    let build = arguments(&place, &file, &generator.address, &[]);
    let message = fails(3, &words(&build));
    assert!(
        message.contains("row 7") || message.contains("7"),
        "{message}"
    );
    let (keys, out) = (place.at("keys"), place.at("local"));
    let local = [
        "build",
        &file,
        "--keys",
        &keys,
        "--out",
        &out,
        "--centroids",
        "16",
    ];
    let local = fails(3, &local);
    assert_eq!(local, message);
    assert!(!place.names().iter().any(|name| name.contains("index")));
}

/// With `--stay` a generator takes one build after another, one at a time.
#[test]
fn a_generator_that_stays_takes_the_next_build() {
    let place = Place::with_keys();
    let file = place.write_fvecs("base.fvecs", &vectors(300, DIMENSION, 1));
    let generator = Generator::start(&place, &["--stay"]);
    for _ in 0..2 {
        let build = arguments(&place, &file, &generator.address, &["--force"]);
        assert_eq!(json(&words(&build))["vectors"], 300);
        assert_eq!(names(&place.path("work")), [""; 0]);
    }
    // A second generator may not have its folder.
    let message = fails(
        4,
        &[
            "generator",
            "--allow-simulated",
            "--keys",
            &place.at("keys"),
            "--work",
            &place.at("work"),
            "--listen",
            "127.0.0.1:0",
        ],
    );
    assert!(message.contains("another generator"), "{message}");
}

/// Enough work that a build can be met at it: seconds of training.
fn long(place: &Place) -> (String, [&'static str; 8]) {
    let file = place.write_fvecs("long.fvecs", &vectors(30_000, DIMENSION, 1));
    let more = [
        "--centroids",
        "256",
        "-M",
        "24",
        "--iterations",
        "400",
        "--sample",
        "30000",
    ];
    (file, more)
}

/// Waits until the generator is at work on an index.
fn wait_for_work(place: &Place) {
    let at_work = (0..2_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        !names(&place.path("work")).is_empty()
    });
    assert!(at_work, "no build began");
}

#[test]
fn fail_no_half_index_when_the_generator_is_killed() {
    let place = Place::with_keys();
    let (file, more) = long(&place);
    let mut generator = Generator::start(&place, &[]);
    let build = arguments(&place, &file, &generator.address, &more);
    let owner = std::thread::spawn(move || fails(5, &words(&build)));
    wait_for_work(&place);
    generator.child.kill().unwrap();
    let message = owner.join().unwrap();
    assert!(message.contains("went away"), "{message}");
    let left = place.names();
    assert!(!left.iter().any(|name| name.contains("index")), "{left:?}");
    // What it left is sealed, and the next one removes it.
    assert!(!names(&place.path("work")).is_empty());
    let next = Generator::start(&place, &[]);
    assert_eq!(names(&place.path("work")), [""; 0]);
    let build = arguments(&place, &file, &next.address, &["--iterations", "2"]);
    assert_eq!(json(&words(&build))["vectors"], 30_000);
}

#[test]
fn fail_no_half_index_when_the_owner_is_killed() {
    let place = Place::with_keys();
    let (file, more) = long(&place);
    let generator = Generator::start(&place, &[]);
    let build = arguments(&place, &file, &generator.address, &more);
    let mut owner = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
        .args(&build)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_work(&place);
    owner.kill().unwrap();
    owner.wait().unwrap();
    // The generator notices by itself, and ends with nothing left.
    let (code, words_of_it) = generator.ended();
    assert_eq!(code, Some(1), "{words_of_it}");
    assert!(
        words_of_it.contains("nothing of it is left"),
        "{words_of_it}"
    );
    assert_eq!(names(&place.path("work")), [""; 0]);
    assert!(!place.path("index").exists());
    // The next build of the same index removes what the killed one left beside it.
    let next = Generator::start(&place, &[]);
    let build = arguments(&place, &file, &next.address, &["--iterations", "2"]);
    assert_eq!(json(&words(&build))["vectors"], 30_000);
    let left = place.names();
    let hidden: Vec<_> = left.iter().filter(|name| name.starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
