//! A blind build from the command line: keys, roles, build, kills, search, inserts.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Place, fails, json, nearest, vectors};

const DIMENSION: usize = 24;

/// A keeper or a searcher in a process of its own.
struct Role {
    child: Child,
    address: String,
    /// Open, so that it can say more.
    _output: BufReader<ChildStdout>,
}

impl Role {
    fn start(arguments: &[&str], address: &str) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .args(["--json", "--quiet"])
            .args(arguments)
            .args(["--allow-simulated", "--listen", address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = ready["address"].as_str().unwrap().to_owned();
        Self {
            child,
            address,
            _output: output,
        }
    }

    /// Kills it with no chance to clean up; its address.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address.clone()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct World {
    place: Place,
    keys: String,
    base: Vec<Vec<f32>>,
    base_file: String,
}

impl World {
    fn new(count: usize) -> Self {
        let place = Place::with_keys();
        let base = vectors(count, DIMENSION, 1);
        std::fs::create_dir(place.path("new")).unwrap();
        Self {
            keys: place.at("keys"),
            base_file: place.write_fvecs("base.fvecs", &base),
            base,
            place,
        }
    }

    fn keeper(&self, address: &str) -> Role {
        let arguments = ["keeper", "--keys", &self.keys];
        if !self.place.path("keys/keeper/state").exists() {
            // One that begins its records has another configuration than later.
            Role::start(&[&arguments[..], &["--new-state"]].concat(), address).kill();
        }
        Role::start(&arguments, address)
    }

    fn searcher(&self, keeper: &Role, address: &str) -> Role {
        let index = self.place.at("new/index");
        let arguments = [
            "searcher",
            "--generate",
            "--keys",
            &self.keys,
            "--index",
            &index,
            "--keeper",
            &keeper.address,
        ];
        Role::start(&arguments, address)
    }

    fn build<'a>(&'a self, searcher: &'a Role, keeper: &'a Role) -> Vec<&'a str> {
        let options = [
            "-M",
            "12",
            "--centroids",
            "16",
            "--iterations",
            "3",
            "--originals",
            "f32",
        ];
        let mut arguments = vec![
            "build",
            &self.base_file,
            "--mode",
            "blind",
            "--searcher",
            &searcher.address,
            "--keeper",
            &keeper.address,
            "--keys",
            &self.keys,
            "--allow-simulated",
        ];
        arguments.extend(options);
        arguments
    }

    /// Ten neighbours of each query are the true ones.
    fn check(&self, searcher: &Role, base: &[Vec<f32>], queries: &[Vec<f32>]) {
        let file = self.place.write_fvecs("query.fvecs", queries);
        let arguments = [
            "search",
            "--queries",
            &file,
            "--server",
            &searcher.address,
            "--keys",
            &self.keys,
            "--allow-simulated",
            "-k",
            "10",
            "--rerank",
            "256",
        ];
        let results = json(&arguments);
        for (query, found) in queries.iter().zip(results["results"].as_array().unwrap()) {
            let found: Vec<u64> = found
                .as_array()
                .unwrap()
                .iter()
                .map(|found| found["id"].as_u64().unwrap())
                .collect();
            let truth = nearest(base, query, 10);
            let right = found.iter().filter(|id| truth.contains(id)).count();
            assert_eq!(found[0], truth[0]);
            assert!(right >= 9, "{right} of 10");
        }
    }
}

#[test]
fn a_blind_index_from_keys_to_inserts() {
    let world = World::new(600);
    let keeper = world.keeper("127.0.0.1:0");
    let searcher = world.searcher(&keeper, "127.0.0.1:0");
    let built = json(&world.build(&searcher, &keeper));
    assert_eq!(
        (&built["vectors"], &built["registered"]),
        (&600.into(), &true.into())
    );
    assert!(!world.place.path("keys/owner/blind.build").exists());
    let queries = vectors(8, DIMENSION, 2);
    world.check(&searcher, &world.base, &queries);

    // New vectors, by numbers that follow.
    let new = vectors(80, DIMENSION, 3);
    let file = world.place.write_fvecs("new.fvecs", &new);
    let ids: String = (600..680).map(|id| format!("{id}\n")).collect();
    std::fs::write(world.place.path("new.ids"), ids).unwrap();
    let ids = world.place.at("new.ids");
    let changing = [
        "--connect",
        &searcher.address,
        "--keys",
        &world.keys,
        "--allow-simulated",
    ];
    let insert = [&["insert", &file, "--ids", &ids][..], &changing].concat();
    let inserted = json(&insert);
    assert_eq!(inserted["inserted"], 80, "{inserted}");
    let again = json(&[&["upsert", &file, "--ids", &ids][..], &changing].concat());
    assert_eq!(
        (&again["inserted"], &again["replaced"]),
        (&0.into(), &80.into())
    );
    let all: Vec<Vec<f32>> = world.base.iter().chain(&new).cloned().collect();
    world.check(&searcher, &all, &new[..6]);
    let deleted = json(&[&["delete", "--ids", "600"][..], &changing].concat());
    assert_eq!(deleted["deleted"], 1);
    let index = world.place.at("new/index");
    drop(searcher);
    let kept = world.place.path("new/index/blind.oboro");
    let verify = ["verify", &index, "--keys", &world.keys];
    let verified = json(&verify);
    // By the encrypted path, for nobody has the codebook in the clear.
    let trials = &verified["trials"];
    assert_eq!(trials["encrypted"], true, "{verified}");
    assert_eq!(trials["queries"], trials["found"]);
    assert_eq!(verified["unlisted"], Value::Array(Vec::new()));
    let files = verified["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["name"] == "blind.oboro"));
    let good = std::fs::read(&kept).unwrap();
    for at in [20, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&kept, bad).unwrap();
        let problem = fails(3, &verify);
        assert!(problem.contains("blind.oboro"), "{problem}");
    }
    std::fs::write(&kept, good).unwrap();
    // In a folder nobody encodes them.
    let folder = ["insert", &file, "--index", &index, "--keys", &world.keys];
    assert!(fails(3, &folder).contains("--connect"));
}

#[test]
fn a_blind_insert_goes_on_while_the_key_is_rotated() {
    let world = World::new(600);
    let keeper = world.keeper("127.0.0.1:0");
    let searcher = world.searcher(&keeper, "127.0.0.1:0");
    json(&world.build(&searcher, &keeper));
    // The one that served the build has ended; this one serves the index.
    world.check(&searcher, &world.base, &vectors(1, DIMENSION, 2));
    let new = vectors(2_000, DIMENSION, 3);
    let file = world.place.write_fvecs("new.fvecs", &new);
    let ids: String = (600..2_600).map(|id| format!("{id}\n")).collect();
    std::fs::write(world.place.path("new.ids"), ids).unwrap();
    let inserting = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
        .args(["--json", "--quiet", "insert", &file, "--batch", "64"])
        .args(["--ids", &world.place.at("new.ids")])
        .args(["--connect", &searcher.address, "--keys", &world.keys])
        .arg("--allow-simulated")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // At whatever moments of it.
    for epoch in [2, 3] {
        let rotate = [
            "rotate",
            "--searcher",
            &searcher.address,
            "--keeper",
            &keeper.address,
            "--keys",
            &world.keys,
            "--allow-simulated",
            "--overlap",
            "0",
        ];
        assert_eq!(json(&[&rotate[..], &["--retire"]].concat())["epoch"], epoch);
    }
    let output = inserting.wait_with_output().unwrap();
    let inserted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(inserted["inserted"], 2_000, "{inserted}");
    assert_eq!(inserted["vectors"], 2_600);
    let all: Vec<Vec<f32>> = world.base.iter().chain(&new).cloned().collect();
    world.check(&searcher, &all, &new[..6]);
    // After the rotations, too.
    let arguments = ["upsert", &file, "--ids", &world.place.at("new.ids")];
    let at = ["--connect", &searcher.address, "--keys", &world.keys];
    let again = json(&[&arguments[..], &at, &["--allow-simulated"]].concat());
    assert_eq!(again["replaced"], 2_000);
}

#[test]
fn a_blind_build_goes_on_after_kills_of_all_three() {
    let world = World::new(3_000);
    let mut keeper = world.keeper("127.0.0.1:0");
    let mut searcher = world.searcher(&keeper, "127.0.0.1:0");
    let state = world.place.path("keys/owner/blind.build");
    let mut kills = 0;
    for wait in [0, 150, 400, 800] {
        let mut arguments = world.build(&searcher, &keeper);
        if state.exists() {
            arguments.push("--resume");
        }
        let mut build = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .args(["--json", "--quiet"])
            .args(&arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !state.exists() && build.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(wait));
        if build.try_wait().unwrap().is_some() {
            break;
        }
        build.kill().unwrap();
        build.wait().unwrap();
        kills += 1;
        let (at, there) = (searcher.kill(), keeper.kill());
        keeper = world.keeper(&there);
        searcher = world.searcher(&keeper, &at);
        if !state.exists() {
            // It was whole; only its process had not ended yet.
            break;
        }
    }
    assert!(kills > 0);
    if state.exists() {
        // Without a word nothing is begun over what is there.
        let refused = fails(2, &world.build(&searcher, &keeper));
        assert!(refused.contains("--resume"), "{refused}");
        json(&[&world.build(&searcher, &keeper)[..], &["--resume"]].concat());
    }
    assert!(!state.exists());
    world.check(&searcher, &world.base, &vectors(4, DIMENSION, 2));
    // Nothing is left to go on with.
    let refused = fails(
        3,
        &[&world.build(&searcher, &keeper)[..], &["--resume"]].concat(),
    );
    assert!(refused.contains("no interrupted build"), "{refused}");
}

/// An owner that is killed after its index was made and before it heard so.
#[test]
fn a_build_whose_searcher_serves_already_is_whole() {
    let world = World::new(600);
    let keeper = world.keeper("127.0.0.1:0");
    let searcher = world.searcher(&keeper, "127.0.0.1:0");
    let state = world.place.path("keys/owner/blind.build");
    let mut build = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
        .args(["--json", "--quiet"])
        .args(world.build(&searcher, &keeper))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let kept = loop {
        if let Ok(bytes) = std::fs::read(&state) {
            break bytes;
        }
        assert!(build.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(build.wait().unwrap().success());
    world.check(&searcher, &world.base, &vectors(1, DIMENSION, 2));
    std::fs::write(&state, kept).unwrap();
    let again = json(&[&world.build(&searcher, &keeper)[..], &["--resume"]].concat());
    assert_eq!(again["complete"], true, "{again}");
    assert!(!state.exists());
    // Another one is not made there, and leaves nothing to go on with.
    let refused = fails(1, &world.build(&searcher, &keeper));
    assert!(
        refused.contains("makes an index or serves one"),
        "{refused}"
    );
    assert!(!state.exists());
    world.check(&searcher, &world.base, &vectors(1, DIMENSION, 2));
}

#[test]
fn fail_modes_that_do_not_fit_their_options() {
    let world = World::new(40);
    let (base, keys) = (world.base_file.as_str(), world.keys.as_str());
    let out = world.place.at("out");
    let build = |more: &[&str]| fails(2, &[&["build", base, "--keys", keys][..], more].concat());
    assert!(build(&["--mode", "blind"]).contains("--searcher"));
    assert!(build(&["--searcher", "127.0.0.1:1"]).contains("--mode blind"));
    assert!(build(&[]).contains("--out"));
    let both = [
        "--mode",
        "blind",
        "--searcher",
        "127.0.0.1:1",
        "--out",
        &out,
    ];
    assert!(build(&both).contains("leave --out away"));
    assert!(build(&["--out", &out, "--resume"]).contains("--resume"));
    let refused = build(&["--mode", "blinded", "--out", &out]);
    assert!(refused.contains("blind"), "{refused}");
}
