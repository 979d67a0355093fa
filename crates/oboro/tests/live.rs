//! An index that changes while it is searched, from the command line.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use support::{Place, Served, fails, fvecs, json, oboro, vectors};

const DIMENSION: usize = 12;

/// What an index should hold.
type Expected = BTreeMap<u64, Vec<f32>>;

fn rows(first: u64, vectors: &[Vec<f32>]) -> Expected {
    (first..).zip(vectors.iter().cloned()).collect()
}

/// Ids of the nearest.
fn nearest(expected: &Expected, query: &[f32], k: usize) -> Vec<u64> {
    let mut order: Vec<(f32, u64)> = expected
        .iter()
        .map(|(&id, vector)| {
            let distance = vector
                .iter()
                .zip(query)
                .map(|(a, b)| (a - b) * (a - b))
                .sum();
            (distance, id)
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.into_iter().take(k).map(|(_, id)| id).collect()
}

fn found(results: &Value) -> Vec<Vec<u64>> {
    results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let row = row.as_array().unwrap().iter();
            row.map(|found| found["id"].as_u64().unwrap()).collect()
        })
        .collect()
}

fn numbers(place: &Place, name: &str, range: std::ops::Range<u64>) -> String {
    let lines: String = range.map(|id| format!("{id}\n")).collect();
    std::fs::write(place.path(name), lines).unwrap();
    place.at(name)
}

/// A built index that is searched with all of it re-ranked.
struct World {
    place: Place,
    base: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    query_file: String,
}

impl World {
    fn build() -> Self {
        let place = Place::with_keys();
        let (base, queries) = (vectors(400, DIMENSION, 1), vectors(12, DIMENSION, 2));
        let base_file = place.write_fvecs("base.fvecs", &base);
        let query_file = place.write_fvecs("query.fvecs", &queries);
        let options = ["--centroids", "64", "--originals", "f32"];
        let more = ["--candidates-max", "1000"];
        place.build("index", &base_file, &[&options[..], &more].concat());
        Self {
            place,
            base,
            queries,
            query_file,
        }
    }

    fn serve(&self) -> Served {
        Served::start(&self.place.at("keys"), &self.place.path("index"))
    }

    fn search(&self, served: &Served, more: &[&str]) -> Value {
        let keys = self.place.at("keys");
        let arguments = [
            "search",
            "--queries",
            &self.query_file,
            "--server",
            &served.address,
            "--keys",
            &keys,
            "--allow-simulated",
            "--rerank",
            "1000",
        ];
        json(&[&arguments[..], more].concat())
    }

    fn check(&self, served: &Served, expected: &Expected) {
        let results = found(&self.search(served, &["-k", "10"]));
        for (query, ids) in self.queries.iter().zip(results) {
            assert_eq!(ids, nearest(expected, query, 10));
        }
    }

    /// The arguments of a verb that changes the served index.
    fn changing<'a>(&self, served: &'a Served, keys: &'a str) -> [&'a str; 5] {
        [
            "--connect",
            &served.address,
            "--keys",
            keys,
            "--allow-simulated",
        ]
    }

    fn generation(&self) -> u64 {
        let inspected = json(&["inspect", &self.place.at("index")]);
        inspected["generation"].as_u64().unwrap()
    }
}

#[test]
fn an_index_lives() {
    let world = World::build();
    let place = &world.place;
    let served = world.serve();
    let keys = place.at("keys");
    let at = world.changing(&served, &keys);
    let mut expected = rows(0, &world.base);
    world.check(&served, &expected);

    // Inserts in many commits, while others search: every answer is of some commit.
    let more = vectors(600, DIMENSION, 3);
    let file = place.write_fvecs("more.fvecs", &more);
    let ids = numbers(place, "more.txt", 1_000..1_600);
    let (stop, searches) = (AtomicBool::new(false), AtomicUsize::new(0));
    let inserted = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for ids in found(&world.search(&served, &["-k", "10"])) {
                    assert_eq!(ids.len(), 10);
                    assert!(
                        ids.iter()
                            .all(|id| *id < 400 || (1_000..1_600).contains(id))
                    );
                }
                searches.fetch_add(1, Ordering::Relaxed);
            }
        });
        let arguments = ["insert", &file, "--ids", &ids, "--batch", "50"];
        let inserted = json(&[&arguments[..], &at].concat());
        stop.store(true, Ordering::Relaxed);
        inserted
    });
    assert!(searches.load(Ordering::Relaxed) > 0);
    assert_eq!(inserted["inserted"], 600);
    assert_eq!(inserted["commits"], 12);
    assert_eq!(inserted["vectors"], 1_000);
    assert_eq!(inserted["stopped"], false);
    assert_eq!(inserted["unrecorded"], false);
    expected.extend(rows(1_000, &more));
    world.check(&served, &expected);

    // A delete is there at once.
    let gone = nearest(&expected, &world.queries[0], 5);
    let list: Vec<String> = gone.iter().map(u64::to_string).collect();
    let arguments = ["delete", "--ids", &list.join(","), "--strict"];
    let deleted = json(&[&arguments[..], &at].concat());
    assert_eq!(
        (&deleted["deleted"], &deleted["vectors"]),
        (&5.into(), &995.into())
    );
    for id in &gone {
        expected.remove(id);
    }
    world.check(&served, &expected);

    // An upsert takes the place of what was there; twice is as once.
    let other = vectors(40, DIMENSION, 4);
    let file = place.write_fvecs("other.fvecs", &other);
    let ids = numbers(place, "other.txt", 1_200..1_240);
    let (verb, option) = (
        ["upsert", &file, "--ids", &ids],
        ["insert", &file, "--ids", &ids, "--upsert"],
    );
    for arguments in [&verb[..], &option[..]] {
        let upserted = json(&[arguments, &at].concat());
        assert_eq!(upserted["existing"], 0);
    }
    fails(2, &[&verb[..], &["--resume"], &at].concat());
    // Without ids, rows would replace what has their numbers.
    let message = fails(2, &[&verb[..2], &at].concat());
    assert!(message.contains("--ids"), "{message}");
    expected.extend(rows(1_200, &other));
    world.check(&served, &expected);

    // Merging changes no answer, and takes what was deleted off the disk.
    let compacted = json(&[&["compact"][..], &at].concat());
    assert_eq!(compacted["segments_after"], 1);
    world.check(&served, &expected);
    assert_eq!(served.interrupt(), Some(0));
    let inspected = json(&["inspect", &place.at("index"), "--keys", &keys]);
    assert_eq!(inspected["deleted"], 0);
    assert_eq!(inspected["segment_list"].as_array().unwrap().len(), 1);
    assert_eq!(inspected["vectors"], expected.len());
    let verified = json(&["verify", &place.at("index"), "--keys", &keys]);
    assert_eq!(verified["sound"], true);
    assert_eq!(verified["originals_opened"], expected.len());
    assert_eq!(verified["trials"]["encrypted"], true);
    assert_eq!(verified["trials"]["queries"], verified["trials"]["found"]);
    assert!(verified.get("trials_skipped").is_none());

    // And a searcher that starts anew answers the same.
    let served = world.serve();
    world.check(&served, &expected);
}

#[test]
fn a_folder_changes_while_nobody_serves_it() {
    let world = World::build();
    let place = &world.place;
    let (keys, index) = (place.at("keys"), place.at("index"));
    let at = ["--index", &index, "--keys", &keys];
    let more = vectors(100, DIMENSION, 3);
    let ids = numbers(place, "more.txt", 500..600);
    // From standard input.
    let output = oboro()
        .args(["--json", "insert", "-", "--ids", &ids, "--batch", "10"])
        .args(at)
        .write_stdin(fvecs(&more))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let inserted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&inserted["inserted"], &inserted["commits"]),
        (&100.into(), &10.into())
    );
    // Small segments were merged at the end, and the state after that is told.
    assert!(inserted["segments"].as_u64().unwrap() < 5, "{inserted}");
    assert_eq!(inserted["generation"], world.generation());
    // What is there already is passed over, or refused and counted.
    let file = place.write_fvecs("more.fvecs", &more);
    let arguments = ["insert", &file, "--ids", &ids];
    for more in [&["--resume"][..], &[]] {
        let again = json(&[&arguments[..], &at, more].concat());
        assert_eq!(
            (&again["inserted"], &again["existing"]),
            (&0.into(), &100.into())
        );
        // Nothing was written.
        assert_eq!(again["commits"], 0);
        assert_eq!(
            (&again["generation"], &again["vectors"]),
            (&inserted["generation"], &500.into())
        );
    }
    let ids = numbers(place, "gone.txt", 590..700);
    let deleted = json(&[&["delete", "--ids-file", &ids][..], &at].concat());
    assert_eq!(
        (&deleted["deleted"], &deleted["unknown"]),
        (&10.into(), &100.into())
    );
    assert_eq!(deleted["on_disk"], 10);
    let compacted = json(&[&["compact"][..], &at].concat());
    assert_eq!(compacted["dropped"], 10);
    let mut expected = rows(0, &world.base);
    expected.extend(rows(500, &more[..90]));
    world.check(&world.serve(), &expected);
}

#[test]
fn fail_a_second_writer_of_a_folder() {
    let world = World::build();
    let place = &world.place;
    let served = world.serve();
    let (keys, index) = (place.at("keys"), place.at("index"));
    let file = place.write_fvecs("more.fvecs", &vectors(10, DIMENSION, 3));
    let ids = numbers(place, "more.txt", 500..510);
    let arguments = [
        "insert", &file, "--ids", &ids, "--index", &index, "--keys", &keys,
    ];
    let message = fails(4, &arguments);
    assert!(
        message.contains("is being written by process") && message.contains("--connect"),
        "{message}"
    );
    fails(4, &["compact", "--index", &index, "--keys", &keys]);
    assert_eq!(world.generation(), 1);
    // Reading takes no lock.
    assert_eq!(json(&["verify", &index, "--keys", &keys])["sound"], true);
    assert_eq!(served.interrupt(), Some(0));
    assert_eq!(json(&arguments)["inserted"], 10);
}

#[test]
fn fail_strict_changes_change_nothing() {
    let world = World::build();
    let place = &world.place;
    let served = world.serve();
    let keys = place.at("keys");
    let at = world.changing(&served, &keys);
    // One id among many is there.
    let file = place.write_fvecs("more.fvecs", &vectors(50, DIMENSION, 3));
    let ids = numbers(place, "more.txt", 399..449);
    let arguments = ["insert", &file, "--ids", &ids, "--strict"];
    let message = fails(3, &[&arguments[..], &at].concat());
    assert!(message.contains("nothing"), "{message}");
    let message = fails(
        3,
        &[&["delete", "--ids", "1,2,5000", "--strict"][..], &at].concat(),
    );
    assert!(message.contains("nothing"), "{message}");
    // A row of another dimension.
    let mut ragged = vectors(50, DIMENSION, 3);
    ragged[30].push(0.0);
    let file = place.write_fvecs("ragged.fvecs", &ragged);
    let ids = numbers(place, "ragged.txt", 500..550);
    let arguments = ["insert", &file, "--ids", &ids];
    let message = fails(3, &[&arguments[..], &["--strict"], &at].concat());
    assert!(message.contains("row 30 has dimension 13"), "{message}");
    assert_eq!(world.generation(), 1);
    world.check(&served, &rows(0, &world.base));

    // Without strict the other rows go in, and the one is told.
    let inserted = json(&[&arguments[..], &at].concat());
    assert_eq!(inserted["inserted"], 49);
    assert_eq!(inserted["refused"]["reasons"]["dimension"], 1);
    assert_eq!(inserted["refused"]["first"][0]["row"], 30);
    let mut expected = rows(0, &world.base);
    expected.extend(rows(500, &ragged).into_iter().filter(|(id, _)| *id != 530));
    world.check(&served, &expected);
}

#[test]
fn writers_write_and_readers_do_not() {
    let world = World::build();
    let place = &world.place;
    let keys = place.at("keys");
    let (writer, reader) = (place.at("writer"), place.at("reader"));
    for (name, access, out) in [("ann", "writer", &writer), ("bob", "reader", &reader)] {
        let arguments = [
            "grant", name, "--access", access, "--keys", &keys, "--out", out,
        ];
        json(&arguments);
    }
    assert!(place.path("writer/writer.key").is_file());
    assert!(!place.path("reader/writer.key").exists());
    let served = world.serve();
    let file = place.write_fvecs("more.fvecs", &vectors(30, DIMENSION, 3));
    let ids = numbers(place, "more.txt", 500..530);
    let arguments = ["insert", &file, "--ids", &ids];
    let inserted = json(&[&arguments[..], &world.changing(&served, &writer)].concat());
    assert_eq!(inserted["inserted"], 30);
    let message = fails(
        3,
        &[&arguments[..], &world.changing(&served, &reader)].concat(),
    );
    assert!(message.contains("writer.key"), "{message}");
    // With the key, but without the right.
    std::fs::copy(
        place.path("writer/writer.key"),
        place.path("reader/writer.key"),
    )
    .unwrap();
    let arguments = ["delete", "--ids", "1"];
    fails(
        4,
        &[&arguments[..], &world.changing(&served, &reader)].concat(),
    );
    assert_eq!(world.generation(), 2);
}

#[test]
fn text_ids_tags_and_payloads_come_back() {
    let place = Place::with_keys();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oboro-vectors/tests/data");
    let file = data.join("full-gzip-text.parquet");
    let built = place.build(
        "index",
        file.to_str().unwrap(),
        &["--centroids", "16", "--extra-bytes", "64"],
    );
    assert_eq!((&built["vectors"], &built["tags"]), (&40.into(), &3.into()));
    assert_eq!(built["extra_bytes"], 64);
    let keys = place.at("keys");
    let served = Served::start(&keys, &place.path("index"));
    let row = |row: usize| -> Vec<f32> { (0..6).map(|at| row as f32 + at as f32 / 8.0).collect() };
    let query = place.write_fvecs("query.fvecs", &[row(20)]);
    let server = [
        "--queries",
        &query,
        "--server",
        &served.address,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let search = |more: &[&str]| json(&[&["search"][..], &server, more].concat());
    let texts = |results: &Value| -> Vec<String> {
        let row = results["results"][0].as_array().unwrap();
        let text = |found: &Value| found["text"].as_str().unwrap().to_owned();
        row.iter().map(text).collect()
    };
    let all = search(&["-k", "3"]);
    assert_eq!(texts(&all)[0], "id-20");
    let payloads = place.at("payloads");
    let even = search(&[
        "-k",
        "5",
        "--filter",
        "any=even",
        "--payload-out",
        &payloads,
    ]);
    for text in texts(&even) {
        let number: u32 = text.strip_prefix("id-").unwrap().parse().unwrap();
        assert_eq!(number % 2, 0, "{text}");
    }
    assert_eq!(
        std::fs::read_to_string(place.path("payloads/0-1")).unwrap(),
        "payload of 20payload of 20"
    );
    for (name, mode) in [("payloads", 0o700), ("payloads/0-1", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::metadata(place.path(name)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{name}");
    }
    let third = search(&["-k", "40", "--filter", "all=third;none=even"]);
    let mut ids = texts(&third);
    ids.sort();
    assert_eq!(
        ids,
        ["id-15", "id-21", "id-27", "id-3", "id-33", "id-39", "id-9"]
    );
    let arguments = ["search", "--filter", "any=blue"];
    let message = fails(3, &[&arguments[..], &server].concat());
    assert!(message.contains("blue"), "{message}");
    let arguments = ["search", "--filter", "blue"];
    let output = oboro().args(arguments).args(server).output().unwrap();
    assert_eq!(output.status.code(), Some(2));

    let at = [
        "--connect",
        &served.address,
        "--keys",
        &keys,
        "--allow-simulated",
    ];
    let deleted = json(&[&["delete", "--ids", "id-20,id-99"][..], &at].concat());
    assert_eq!(
        (&deleted["deleted"], &deleted["unknown"]),
        (&1.into(), &1.into())
    );
    assert_ne!(texts(&search(&["-k", "3"]))[0], "id-20");
    // The same file again brings back what is not there.
    let arguments = ["insert", file.to_str().unwrap()];
    let inserted = json(&[&arguments[..], &at].concat());
    assert_eq!(
        (&inserted["inserted"], &inserted["existing"]),
        (&1.into(), &39.into())
    );
    assert_eq!(texts(&search(&["-k", "3"]))[0], "id-20");

    // A number and a text that looks like it are two ids, also in one index.
    let one = place.write_fvecs("one.fvecs", &[row(30)]);
    std::fs::write(place.path("twenty.txt"), "20\n").unwrap();
    std::fs::write(place.path("escape.txt"), "clear\x1b[2J\u{202e}it\n").unwrap();
    let (twenty, escape) = (place.at("twenty.txt"), place.at("escape.txt"));
    let insert = |more: &[&str]| {
        let report = json(&[&["insert", one.as_str()][..], more, &at].concat());
        assert_eq!(report["inserted"], 1);
    };
    insert(&["--ids", &twenty]);
    insert(&["--ids", &twenty, "--text-ids"]);
    let twenties = || -> Vec<bool> {
        let results = search(&["-k", "60"]);
        let row = results["results"][0].as_array().unwrap();
        row.iter()
            .filter(|found| found["text"] == "20" || found["id"] == 20)
            .map(|found| found["text"].is_string())
            .collect()
    };
    let mut both = twenties();
    both.sort_unstable();
    assert_eq!(both, [false, true]);
    let delete = |more: &[&str]| {
        let report = json(&[&["delete", "--ids", "20"][..], more, &at].concat());
        assert_eq!(report["deleted"], 1);
    };
    delete(&[]);
    assert_eq!(twenties(), [true]);
    delete(&["--text-ids"]);
    assert!(twenties().is_empty());

    // What an id holds moves no cursor.
    insert(&["--ids", &escape]);
    let output = oboro()
        .args(["search", "-k", "60"])
        .args(server)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\tclear\\u{1b}[2J\\u{202e}it\t"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
}

#[test]
fn fail_a_file_of_which_no_row_can_be_taken() {
    let place = Place::with_keys();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oboro-vectors/tests/data");
    let file = data.join("full-gzip-text.parquet");
    let file = file.to_str().unwrap();
    let bare = [
        "--ids-column",
        "",
        "--payload-column",
        "",
        "--tags-column",
        "",
    ];
    let built = place.build("index", file, &[&bare[..], &["--centroids", "16"]].concat());
    assert_eq!(built["extra_bytes"], 0);
    let (keys, index) = (place.at("keys"), place.at("index"));
    let at = ["--index", &index, "--keys", &keys];
    let message = fails(3, &[&["insert", file][..], &bare[4..], &at].concat());
    assert!(
        message.contains("nothing was inserted")
            && message.contains("40 rows")
            && message.contains("--extra-bytes"),
        "{message}"
    );
    // Some rows of another dimension are no failure, but counted by reason.
    let mut rows = vectors(5, 6, 1);
    rows[1].push(0.0);
    rows[3].push(0.0);
    let some = place.write_fvecs("some.fvecs", &rows);
    let ids = numbers(&place, "ids.txt", 100..105);
    let output = oboro()
        .args(["insert", &some, "--ids", &ids])
        .args(at)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("3 vectors inserted, 0 replaced, in 1 commit and "),
        "{text}"
    );
    assert!(text.contains("2 rows refused (dimension 2)"), "{text}");
    let inspected = json(&["inspect", &index]);
    assert_eq!(inspected["vectors"], 43);
}

#[test]
fn an_interrupted_insert_says_where_it_is_and_goes_on() {
    use std::io::Read as _;
    use std::process::{Command, Stdio};
    let world = World::build();
    let place = &world.place;
    let (keys, index) = (place.at("keys"), place.at("index"));
    let count = 60_000;
    let more = vectors(count, DIMENSION, 3);
    let file = place.write_fvecs("more.fvecs", &more);
    let ids = numbers(place, "more.txt", 1_000..1_000 + count as u64);
    let arguments = [
        "insert",
        &file,
        "--ids",
        &ids,
        "--batch",
        "50",
        "--no-compact",
    ];
    let at = ["--index", &index, "--keys", &keys];
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
        .arg("--json")
        .args(arguments)
        .args(at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Some commits must have been made.
    while world.generation() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it was too fast");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    let stopped: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(stopped["stopped"], true);
    let rows = stopped["rows"].as_u64().unwrap();
    assert_eq!(stopped["inserted"], rows);
    assert!(
        rows >= 200 && rows < count as u64 && rows.is_multiple_of(50),
        "{rows}"
    );
    assert_eq!(json(&["inspect", &index])["vectors"], 400 + rows);

    let row = rows.to_string();
    let arguments = ["insert", &file, "--ids", &ids, "--from-row", &row];
    let rest = json(&[&arguments[..], &at].concat());
    assert_eq!(rest["inserted"], count as u64 - rows);
    assert_eq!(json(&["inspect", &index])["vectors"], 400 + count);
}

#[test]
fn a_dry_run_builds_nothing() {
    let place = Place::with_keys();
    let file = place.write_fvecs("v.fvecs", &vectors(2_000, DIMENSION, 1));
    let (keys, out) = (place.at("keys"), place.at("index"));
    let before = place.names();
    let arguments = [
        "build",
        &file,
        "--keys",
        &keys,
        "--out",
        &out,
        "--centroids",
        "16",
        "--threads",
        "2",
    ];
    let dry = json(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(place.names(), before);
    assert_eq!(dry["vectors"], 2_000);
    assert!(dry["seconds"].as_f64().unwrap() > 0.0);
    assert!(dry["memory_bytes"].as_u64().unwrap() > 1 << 20);
    let built = json(&[&arguments[..], &["--estimate"]].concat());
    let (expected, total) = (
        built["estimate"]["total_bytes"].as_u64().unwrap(),
        built["total_bytes"].as_u64().unwrap(),
    );
    assert!(expected.abs_diff(total) * 20 < total, "{expected} {total}");
    let (expected, peak) = (
        built["estimate"]["memory_bytes"].as_u64().unwrap(),
        built["peak_bytes"].as_u64().unwrap(),
    );
    assert!(
        expected * 3 > peak * 2 && expected * 2 < peak * 3,
        "{expected} {peak}"
    );
    // Standard input comes once, and an estimate reads it before the build does.
    let input = [&["build", "-", "--estimate"][..], &arguments[2..]].concat();
    let message = fails(2, &input);
    assert!(message.contains("standard input"), "{message}");
    // Both at once make no sense.
    let output = oboro()
        .args(arguments)
        .args(["--dry-run", "--estimate"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
