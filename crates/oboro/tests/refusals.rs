//! Bad input, each with its exit code and one sentence, and nothing lost.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Place, fails, json, oboro, vectors};

fn build_fails(place: &Place, code: i32, file: &str, more: &[&str]) -> String {
    let (keys, out) = (place.at("keys"), place.at("index"));
    let before = place.names();
    let mut arguments = vec!["build", file, "--keys", &keys, "--out", &out];
    arguments.extend(more);
    let message = fails(code, &arguments);
    assert_eq!(place.names(), before, "{message}");
    message
}

#[test]
fn vectors_that_cannot_be_indexed() {
    let place = Place::with_keys();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(place.path(name), bytes).unwrap();
        place.at(name)
    };
    let good = vectors(300, 8, 1);
    let bytes = support::fvecs(&good);
    let with = |row: usize, value: f32| {
        let mut rows = good.clone();
        rows[row][3] = value;
        rows
    };
    let nan = place.write_fvecs("nan.fvecs", &with(7, f32::NAN));
    let infinite = place.write_fvecs("infinite.fvecs", &with(8, f32::INFINITY));
    let mut ragged = good.clone();
    ragged[5].push(1.0);
    ragged[6].pop();
    let cases = [
        (nan, "row 7"),
        (infinite, "row 8"),
        (place.write_fvecs("ragged.fvecs", &ragged), "dimension 9"),
        (
            write("truncated.fvecs", &bytes[..bytes.len() - 5]),
            "ends early",
        ),
        (write("empty.fvecs", &[]), "holds no vectors"),
        (write("zero.fvecs", &[0; 40]), "dimension 0"),
        (write("vectors.csv", b"1,2,3"), "unknown kind of file"),
        (place.at("missing.fvecs"), "missing.fvecs"),
        // Rows of ids are no vectors; where they go is said.
        (write("ids.ivecs", &[1, 0, 0, 0, 7, 0, 0, 0]), "--ids"),
        (
            place.write_fvecs("short.fvecs", &vec![vec![1e-25; 8]; 300]),
            "scale them up",
        ),
    ];
    for (file, expected) in &cases {
        let message = build_fails(&place, 3, file, &["--centroids", "16"]);
        assert!(message.contains(expected), "{file}: {message}");
    }

    let file = place.write_fvecs("good.fvecs", &good);
    let message = build_fails(&place, 2, &file, &["--sample", "100"]);
    assert!(
        message.contains("sample of 100") && message.contains("--centroids"),
        "{message}"
    );
    let message = build_fails(&place, 3, &file, &["--subquantizers", "9"]);
    assert!(
        message.contains("9 sub-quantizers") && message.contains("8 dimensions"),
        "{message}"
    );
    let nowhere = place.at("nowhere/x/index");
    let keys = place.at("keys");
    let message = fails(3, &["build", &file, "--keys", &keys, "--out", &nowhere]);
    assert!(
        message.contains("nowhere/x") && message.contains("make it first"),
        "{message}"
    );
    let ids: String = (0..299).chain([17]).map(|id| format!("{id}\n")).collect();
    let ids = write("ids.txt", ids.as_bytes());
    let message = build_fails(&place, 3, &file, &["--ids", &ids]);
    assert!(message.contains("rows 17 and 299"), "{message}");
    for (option, value) in [
        ("--metric", "hamming"),
        ("--rotation", "left"),
        ("--originals", "f8"),
        ("--format", "csv"),
        ("--centroids", "many"),
    ] {
        let output = oboro()
            .args([
                "build",
                &file,
                "--keys",
                &place.at("keys"),
                "--out",
                &place.at("x"),
            ])
            .args([option, value])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}");
    }
}

#[test]
fn outputs_are_not_overwritten() {
    let place = Place::with_keys();
    let first = place.write_fvecs("first.fvecs", &vectors(300, 8, 1));
    let second = place.write_fvecs("second.fvecs", &vectors(200, 8, 2));
    place.build("index", &first, &["--centroids", "16"]);
    let message = build_fails(&place, 4, &second, &["--centroids", "16"]);
    assert!(message.contains("--force"), "{message}");
    let index = place.at("index");
    assert_eq!(json(&["inspect", &index])["vectors"], 300);
    place.build("index", &second, &["--centroids", "16", "--force"]);
    assert_eq!(json(&["inspect", &index])["vectors"], 200);

    // Somebody's folder is no index and stays.
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/letter.txt"), "dear").unwrap();
    let (keys, mine) = (place.at("keys"), place.at("mine"));
    let arguments = ["build", &first, "--keys", &keys, "--out", &mine, "--force"];
    fails(4, &[&arguments[..], &["--centroids", "16"]].concat());
    assert!(place.path("mine/letter.txt").exists());

    // Neither are keys.
    let message = fails(4, &["keygen", "--out", &keys]);
    assert!(message.contains("never overwritten"), "{message}");
}

#[test]
fn keys_are_private_and_checked() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with_keys();
    for role in ["owner", "client", "searcher", "keeper", "generator"] {
        let folder = place.path("keys").join(role);
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !["trust.pem", "keeper.pub"].contains(&name.as_str()) {
                assert_eq!(mode(&path), 0o600, "{name}");
            }
        }
    }
    // Each role has its own secrets and no other's.
    let has = |role: &str, name: &str| place.path("keys").join(role).join(name).exists();
    for (name, holder) in [
        ("owner.key", "owner"),
        ("authority.pem", "owner"),
        ("client.key", "client"),
        ("storage.key", "searcher"),
        ("keeper.key", "keeper"),
        ("release.key", "keeper"),
        ("issued.txt", "owner"),
    ] {
        for role in ["owner", "client", "searcher", "keeper", "generator"] {
            assert_eq!(has(role, name), role == holder, "{role} {name}");
        }
    }

    let file = place.write_fvecs("v.fvecs", &vectors(100, 8, 1));
    let key = place.path("keys/owner/owner.key");
    let text = std::fs::read_to_string(&key).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(build_fails(&place, 3, &file, &[]).contains("chmod 600"));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let typo = text.replace("OBORO-OWNER-KEY-1", "OBORO-OWNER-KEY-1Q");
    std::fs::write(&key, typo).unwrap();
    build_fails(&place, 3, &file, &[]);
    std::fs::remove_file(&key).unwrap();
    assert!(build_fails(&place, 3, &file, &[]).contains("owner.key"));
    let nowhere = place.at("nowhere");
    let message = fails(
        3,
        &["build", &file, "--keys", &nowhere, "--out", &place.at("x")],
    );
    assert!(message.contains("oboro keygen"), "{message}");
}

#[test]
fn damaged_and_foreign_indexes() {
    let place = Place::with_keys();
    let file = place.write_fvecs("v.fvecs", &vectors(200, 8, 1));
    place.build("index", &file, &["--centroids", "16"]);
    let (index, keys) = (place.at("index"), place.at("keys"));
    for entry in place.path("index").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            fails(3, &["verify", &index, "--keys", &keys]);
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    // Of several damaged files all are told.
    let names = ["codes", "records"].map(|kind| {
        let mut files = place.path("index").read_dir().unwrap();
        let named = |path: &std::path::PathBuf| path.extension().is_some_and(|found| found == kind);
        files
            .find_map(|entry| Some(entry.unwrap().path()).filter(named))
            .unwrap()
    });
    let sound = names.clone().map(|path| std::fs::read(path).unwrap());
    for (path, bytes) in names.iter().zip(&sound) {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        std::fs::write(path, flipped).unwrap();
    }
    let output = oboro()
        .args(["--json", "verify", &index, "--keys", &keys])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = object["error"]["problems"].as_array().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    for path in &names {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            told.iter()
                .any(|problem| problem.as_str().unwrap().contains(name)),
            "{told:?}"
        );
        assert!(said.contains(name), "{said}");
    }
    assert_eq!(said.lines().count(), told.len());
    for (path, bytes) in names.iter().zip(&sound) {
        std::fs::write(path, bytes).unwrap();
    }
    json(&["verify", &index, "--keys", &keys]);
    let other = place.at("other");
    json(&["keygen", "--out", &other]);
    let message = fails(3, &["verify", &index, "--keys", &other]);
    assert!(message.contains("another"), "{message}");
    let message = fails(
        3,
        &[
            "serve",
            "--index",
            &index,
            "--keys",
            &other,
            "--allow-simulated",
            "--listen",
            "127.0.0.1:0",
            "--keeper-listen",
            "127.0.0.1:0",
        ],
    );
    assert!(message.contains("another"), "{message}");
    let message = fails(4, &["serve", "--index", &index, "--keys", &keys]);
    assert!(
        message.contains("--allow-simulated") && message.contains("--policy"),
        "{message}"
    );
    fails(3, &["verify", &place.at("keys"), "--keys", &keys]);
    fails(3, &["inspect", &place.at("nowhere")]);
}

#[test]
fn a_killed_build_leaves_nothing_visible() {
    let place = Place::with_keys();
    let file = place.write_fvecs("v.fvecs", &vectors(40_000, 32, 1));
    let (keys, out) = (place.at("keys"), place.at("index"));
    for milliseconds in [150, 400, 900] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .args([
                "build",
                &file,
                "--keys",
                &keys,
                "--out",
                &out,
                "--iterations",
                "50",
            ])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        assert_eq!(
            place.path("index").exists(),
            done,
            "after {milliseconds} ms"
        );
        if done {
            break;
        }
    }
    // The next build works and clears away what was left.
    let small = place.write_fvecs("small.fvecs", &vectors(300, 8, 1));
    place.build("index", &small, &["--centroids", "16", "--force"]);
    assert_eq!(place.names(), ["index", "keys", "small.fvecs", "v.fvecs"]);
}

#[test]
fn usage() {
    for arguments in [&["search"][..], &["fly"], &["build"], &["--nonsense"]] {
        let output = oboro().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    // What may stand instead of an option that is missing is named as well.
    let message = fails(2, &["delete", "--index", "index"]);
    assert!(
        message.contains("--ids ") && message.contains("--ids-file"),
        "{message}"
    );
    fails(
        2,
        &[
            "delete",
            "--index",
            "index",
            "--ids",
            "1",
            "--ids-file",
            "x",
        ],
    );
    let place = Place::new();
    std::fs::write(place.path("oboro.toml"), "[search]\nrerang = 10\n").unwrap();
    let message = fails(2, &["--config", &place.at("oboro.toml"), "doctor"]);
    assert!(message.contains("rerang"), "{message}");
    std::fs::write(
        place.path("oboro.toml"),
        "[keygen]\nout = \"nowhere\"\nset = \"X\"\n",
    )
    .unwrap();
    let message = fails(2, &["keygen", "--config", &place.at("oboro.toml")]);
    assert!(message.contains("N4096_Q100"), "{message}");
    assert!(fails(2, &["keygen", "--set", "N1_Q1", "--out", "x"]).contains("N2048_Q50"));
    assert!(oboro().arg("--help").output().unwrap().status.success());
    for verb in [
        "demo", "keygen", "build", "serve", "keeper", "searcher", "search", "eval", "bench",
        "inspect", "verify", "doctor", "attest", "grant", "renew", "revoke", "rotate", "backup",
        "restore",
    ] {
        let output = oboro().args([verb, "--help"]).output().unwrap();
        assert!(output.status.success(), "{verb}");
    }
}
