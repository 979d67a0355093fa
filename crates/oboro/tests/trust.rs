//! Evidence, policies and the life of keys, through the command: `attest`, `grant`,
//! `revoke`, `rotate`, `backup`, `restore`, and what is refused.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Place, Served, fails, json, nearest, oboro, vectors};

/// Bytes of simulated evidence in front of its endorsements: head, claims, lengths, report.
const SIGNED: usize = 8 + 201 + 8 + 1_184;

/// Real evidence that vendors signed, beside the verifiers.
fn fixture(name: &str) -> String {
    format!(
        "{}/../oboro-attest/tests/fixtures/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// Keys and a small index.
fn place() -> (Place, Vec<Vec<f32>>) {
    let place = Place::with_keys();
    let base = vectors(300, 8, 1);
    let file = place.write_fvecs("base.fvecs", &base);
    place.build("index", &file, &["--centroids", "16"]);
    place.write_fvecs("query.fvecs", &vectors(5, 8, 2));
    (place, base)
}

fn search(place: &Place, address: &str, keys: &str) -> Vec<&'static str> {
    let words: Vec<String> = [
        "search",
        "--queries",
        &place.at("query.fvecs"),
        "--server",
        address,
        "--keys",
        keys,
        "-k",
        "3",
        "--allow-simulated",
    ]
    .map(str::to_owned)
    .to_vec();
    words.into_iter().map(|word| &*word.leak()).collect()
}

#[test]
fn evidence_of_a_server_becomes_a_policy_that_accepts_it() {
    let (place, _) = place();
    let served = Served::start(&place.at("keys"), &place.path("index"));
    let (evidence, policy) = (place.at("evidence"), place.at("policy.toml"));
    let keys = place.at("keys");
    let shown = json(&[
        "attest",
        "show",
        "--address",
        &served.address,
        "--keys",
        &keys,
        "--out",
        &evidence,
    ]);
    assert_eq!(shown["evidence"]["platform"], "simulated");
    assert_eq!(shown["evidence"]["claims"]["role"], "searcher");
    assert_eq!(
        shown["evidence"]["claims"]["configuration"],
        served.ready["searcher_configuration"]
    );
    assert_eq!(shown["evidence"]["claims"]["epoch"], 1);

    // The simulated platform has no place in a policy unless it is asked for.
    let make = ["attest", "policy", &evidence, "--out", &policy];
    let message = fails(4, &make);
    assert!(message.contains("--allow-simulated"), "{message}");
    let pinned = ["--pin-configuration", "--allow-simulated"];
    let made = json(&[&make[..], &pinned].concat());
    assert_eq!(made["accepted"], true, "{made}");
    assert!(fails(4, &[&make[..], &pinned].concat()).contains("policy.toml"));
    let checked = json(&["attest", "policy", "--check", &policy, "--allow-simulated"]);
    assert_eq!(checked["entries"][0]["platform"], "simulated");
    assert_eq!(checked["entries"][0]["configurations"], 1);

    let verify = ["attest", "verify", &evidence, "--policy", &policy];
    let verified = json(&[&verify[..], &["--allow-simulated"]].concat());
    assert_eq!(verified["accepted"], true);
    assert_eq!(
        verified["measurement"], shown["evidence"]["measurement"],
        "{verified}"
    );
    assert!(verified["remarks"][0].is_string());
    assert!(fails(4, &verify).contains("--allow-simulated"));
    // Stored evidence is of its time.
    let late = [&verify[..], &["--allow-simulated", "--at", "4102444800"]].concat();
    assert!(fails(4, &late).contains("seconds old"));
    // A flipped byte of claims or statement is refused. (Of what endorses them, bytes
    // that are not needed may differ.)
    let bytes = std::fs::read(&evidence).unwrap();
    let flipped = place.at("flipped");
    for at in (0..SIGNED).step_by(37) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        std::fs::write(&flipped, wrong).unwrap();
        let output = oboro()
            .args(["attest", "verify", &flipped, "--allow-simulated"])
            .output()
            .unwrap();
        assert!(!output.status.success(), "byte {at}");
    }
}

#[test]
fn fail_evidence_of_another_configuration() {
    let (place, _) = place();
    let served = Served::start(&place.at("keys"), &place.path("index"));
    let (policy, keys) = (place.at("policy.toml"), place.at("keys"));
    json(&[
        "attest",
        "policy",
        "--address",
        &served.address,
        "--keys",
        &keys,
        "--pin-configuration",
        "--allow-simulated",
        "--out",
        &policy,
    ]);
    let text = std::fs::read_to_string(&policy).unwrap();
    let digest = served.ready["searcher_configuration"].as_str().unwrap();
    assert!(text.contains(digest), "{text}");
    // What `show --configuration` prints is what the server states.
    let computed = json(&[
        "attest",
        "show",
        "--allow-simulated",
        "--keys",
        &keys,
        "--configuration",
        "searcher",
    ]);
    assert_eq!(computed["configuration"], digest);
    let other = json(&[
        "attest",
        "show",
        "--allow-simulated",
        "--keys",
        &keys,
        "--configuration",
        "searcher",
        "--",
        "--rate",
        "7",
    ]);
    assert_ne!(other["configuration"], digest);
    let wrong = text.replace(digest, other["configuration"].as_str().unwrap());
    std::fs::write(&policy, wrong).unwrap();
    let evidence = place.at("evidence");
    json(&[
        "attest",
        "show",
        "--address",
        &served.address,
        "--keys",
        &keys,
        "--out",
        &evidence,
    ]);
    let trial = ["--policy", &policy, "--allow-simulated"];
    let message = fails(4, &[&["attest", "verify", &evidence][..], &trial].concat());
    assert!(message.contains("configuration"), "{message}");
    // A client under that policy sends nothing.
    let query = search(&place, &served.address, &keys);
    let message = fails(4, &[&query[..], &trial[..2]].concat());
    assert!(message.contains("configuration"), "{message}");
    // Under the right one it does.
    std::fs::write(&policy, text).unwrap();
    json(&[&query[..], &trial[..2]].concat());
}

#[test]
fn vendor_evidence_verifies_offline() {
    let place = Place::new();
    let check = |name: &str, platform: &str, endorsements: &str, at: &str| {
        let policy = place.at(&format!("{platform}.toml"));
        let statement = fixture(name);
        let endorsements = fixture(endorsements);
        let common = [
            statement.as_str(),
            "--platform",
            platform,
            "--endorsements",
            &endorsements,
            "--at",
            at,
        ];
        let made = json(
            &[
                &["attest", "policy"][..],
                &common,
                &["--out", policy.as_str()],
            ]
            .concat(),
        );
        (
            made,
            [
                vec!["attest".to_owned(), "verify".to_owned()],
                common.map(str::to_owned).to_vec(),
                vec!["--policy".to_owned(), policy],
            ]
            .concat(),
        )
    };
    let (made, verify) = check(
        "dcap/tdx-v5-ex.quote",
        "tdx",
        "dcap/tdx-v5-ex.collateral.json",
        "2026-11-01Z",
    );
    // A draft is strict, and says what this platform falls short of.
    let reason = made["reason"].as_str().unwrap();
    assert!(reason.contains("allow-dynamic-platform"), "{made}");
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    assert_eq!(fails(4, &verify), reason);
    allow(
        &place,
        "tdx.toml",
        "allow-dynamic-platform = true\nallow-cached-keys = true\nallow-smt = true",
    );
    let verified = json(&verify);
    assert_eq!(verified["platform"], "tdx");
    assert!(verified["claims"].is_null());
    assert_eq!(verified["measurement"].as_str().unwrap().len(), 96);
    // The same quote long after its collateral has expired.
    let late: Vec<&str> = verify
        .iter()
        .map(|word| {
            if *word == "2026-11-01Z" {
                "2036-11-01Z"
            } else {
                word
            }
        })
        .collect();
    fails(4, &late);

    // AMD: the draft demands a revocation list, and says so.
    let (made, verify) = check(
        "snp/milan.report",
        "sev-snp",
        "snp/milan.vcek.der",
        "2025-07-01Z",
    );
    assert_eq!(made["accepted"], false, "{made}");
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    fails(4, &verify);
    allow(&place, "sev-snp.toml", "revocation = \"unchecked\"");
    let verified = json(&verify);
    assert_eq!(verified["facts"]["product"], "Milan", "{verified}");
    assert!(verified["remarks"].as_array().unwrap().len() >= 2);
}

/// Adds a key to the one entry of a policy.
fn allow(place: &Place, policy: &str, key: &str) {
    let path = place.path(policy);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once("[[accept]]\n").unwrap();
    std::fs::write(&path, format!("{head}[[accept]]\n{key}\n{tail}")).unwrap();
}

#[test]
fn fail_policies_that_are_none() {
    let place = Place::new();
    let policy = place.at("policy.toml");
    for (text, expected) in [
        ("", "version"),
        ("version = 1\n", "[[accept]]"),
        ("version = 2\n[[accept]]\nplatform = \"tdx\"\n", "version 2"),
        (
            "version = 1\n[[accept]]\nplatform = \"tdx\"\nmeasurement = []\n",
            "entry 1",
        ),
        (
            "version = 1\n[[accept]]\nplatform = \"simulated\"\n",
            "--allow-simulated",
        ),
    ] {
        std::fs::write(&policy, text).unwrap();
        let output = oboro()
            .args(["--json", "attest", "policy", "--check", &policy])
            .output()
            .unwrap();
        assert!(
            matches!(output.status.code(), Some(3 | 4)),
            "{text}: {output:?}"
        );
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{text}: {message}");
    }
    // Nobody is trusted by default.
    let (place, _) = self::place();
    let (index, keys) = (place.at("index"), place.at("keys"));
    for arguments in [
        &["keeper", "--keys", &keys][..],
        &["searcher", "--index", &index, "--keys", &keys],
        &["serve", "--index", &index, "--keys", &keys],
        &[
            "search",
            "--queries",
            &place.at("query.fvecs"),
            "--keys",
            &keys,
        ],
    ] {
        let message = fails(4, arguments);
        assert!(message.contains("oboro attest policy"), "{message}");
    }
}

#[test]
fn clients_come_and_go() {
    let (place, base) = place();
    let (keys, index) = (place.at("keys"), place.path("index"));
    let index_id = json(&["inspect", &place.at("index")])["index_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let grant = |name: &str, more: &[&str]| {
        let out = place.at(name);
        let made = json(&[&["grant", name, "--keys", &keys, "--out", &out], more].concat());
        (out, made)
    };
    let (alice, made) = grant("alice", &["--index", &index_id]);
    assert_eq!(made["access"], "reader");
    assert_eq!(made["serial"].as_str().unwrap().len(), 40);
    let (bob, bobs) = grant("bob", &["--access", "writer"]);
    let (mallory, _) = grant("mallory", &["--index", "000102030405060708090a0b0c0d0e0f"]);
    let again = place.at("again");
    let message = fails(4, &["grant", "alice", "--keys", &keys, "--out", &again]);
    assert!(message.contains("oboro revoke"), "{message}");
    assert!(!place.path("again").exists());
    fails(
        2,
        &[
            "grant", "eve", "--keys", &keys, "--out", &again, "--access", "owner",
        ],
    );

    let served = Served::start(&keys, &index);
    for client in [&alice, &bob] {
        let found = json(&search(&place, &served.address, client));
        let ids: Vec<u64> = found["results"][0]
            .as_array()
            .unwrap()
            .iter()
            .map(|neighbour| neighbour["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, nearest(&base, &vectors(5, 8, 2)[0], 3));
    }
    // A certificate for another index.
    let message = fails(4, &search(&place, &served.address, &mallory));
    assert!(message.contains("index"), "{message}");

    // Revoked while the searcher runs: it takes the list up by itself.
    let revoked = json(&[
        "revoke",
        "alice",
        bobs["serial"].as_str().unwrap(),
        "--keys",
        &keys,
    ]);
    assert_eq!(revoked["revoked_in_all"], 2);
    assert!(revoked["written"].as_array().unwrap().len() >= 4);
    for client in [&alice, &bob] {
        let gone = (0..150).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let output = oboro()
                .args(search(&place, &served.address, client))
                .output()
                .unwrap();
            !output.status.success()
        });
        assert!(gone, "{client} still searches");
    }
    json(&search(&place, &served.address, &keys));
    assert!(fails(4, &["revoke", "alice", "--keys", &keys]).contains("already"));
    fails(3, &["revoke", "nobody", "--keys", &keys]);
    assert_eq!(json(&["revoke", "--keys", &keys])["revoked_in_all"], 2);
    // A name that is revoked may be used again, and its holder's certificate renewed.
    std::fs::rename(&alice, place.path("former")).unwrap();
    let (alice, _) = grant("alice", &["--days", "1"]);
    let renewed = place.at("renewed");
    let made = json(&["renew", "alice", "--keys", &keys, "--out", &renewed]);
    assert_eq!(made["role"], "client");
    std::fs::rename(
        place.path("renewed/identity.pem"),
        place.path("alice/identity.pem"),
    )
    .unwrap();
    json(&search(&place, &served.address, &alice));
    fails(3, &["renew", "bob", "--keys", &keys, "--out", &renewed]);
    json(&[
        "renew",
        "keeper",
        "--keys",
        &keys,
        "--out",
        &place.at("keeper"),
    ]);
}

#[test]
fn the_key_of_a_running_index_changes() {
    let (place, base) = place();
    let keys = place.at("keys");
    let served = Served::start(&keys, &place.path("index"));
    let keeper = served.ready["keeper_address"].as_str().unwrap().to_owned();
    let before = json(&search(&place, &served.address, &keys));
    let rotate = [
        "rotate",
        "--keys",
        &keys,
        "--searcher",
        &served.address,
        "--keeper",
        &keeper,
        "--overlap",
        "1",
        "--retire",
    ];
    assert!(fails(4, &rotate).contains("oboro attest policy"));
    let rotated = json(&[&rotate[..], &["--allow-simulated"]].concat());
    assert_eq!(rotated["from_epoch"], 1);
    assert_eq!(rotated["epoch"], 2);
    assert_eq!(rotated["retired"], true);
    assert_ne!(rotated["fingerprint"], rotated["from_fingerprint"]);
    let after = json(&search(&place, &served.address, &keys));
    assert_eq!(before["results"], after["results"]);
    let inspected = json(&["inspect", &place.at("index"), "--keys", &keys]);
    assert_eq!(inspected["epoch"], 2);
    assert_eq!(inspected["generation"], 2);
    assert_eq!(inspected["keeper_fingerprint"], rotated["fingerprint"]);
    json(&["verify", &place.at("index"), "--keys", &keys]);

    // And it lasts: both roles start again at the new epoch.
    assert_eq!(served.interrupt(), Some(0));
    let served = Served::start(&keys, &place.path("index"));
    let found = json(&search(&place, &served.address, &keys));
    let first = found["results"][0][0]["id"].as_u64().unwrap();
    assert_eq!(first, nearest(&base, &vectors(5, 8, 2)[0], 1)[0]);
}

#[test]
fn fail_an_older_copy_of_an_index() {
    let (place, _) = place();
    let keys = place.at("keys");
    support::copy(&place.path("index"), &place.path("old"));
    let served = Served::start(&keys, &place.path("index"));
    let keeper = served.ready["keeper_address"].as_str().unwrap().to_owned();
    json(&[
        "rotate",
        "--keys",
        &keys,
        "--searcher",
        &served.address,
        "--keeper",
        &keeper,
        "--overlap",
        "0",
        "--allow-simulated",
    ]);
    assert_eq!(served.interrupt(), Some(0));

    // Somebody puts the copy from before back.
    let message = Served::refused(&keys, &place.path("old"));
    assert!(message.contains("older"), "{message}");
    // The newest still opens.
    let served = Served::start(&keys, &place.path("index"));
    json(&search(&place, &served.address, &keys));
}

#[test]
fn a_build_registers_with_the_keeper() {
    let (place, _) = place();
    let keys = place.at("keys");
    let served = Served::start(&keys, &place.path("index"));
    let keeper = served.ready["keeper_address"].as_str().unwrap().to_owned();
    let (base, next) = (place.at("base.fvecs"), place.at("next"));
    let build = [
        "build",
        &base,
        "--keys",
        &keys,
        "--out",
        &next,
        "--centroids",
        "16",
    ];
    let message = fails(4, &[&build[..], &["--keeper", &keeper]].concat());
    assert!(message.contains("oboro attest policy"), "{message}");
    assert!(!place.path("next").exists());
    let built = json(&[&build[..], &["--keeper", &keeper, "--allow-simulated"]].concat());
    assert_eq!(built["registered"], true);
    assert_eq!(built["released"], true);
    assert_eq!(
        built["manifest_digest"],
        json(&["inspect", &next])["manifest_digest"]
    );
}

#[test]
fn an_index_without_a_keeper() {
    let (place, _) = place();
    let (keys, base, own) = (place.at("keys"), place.at("base.fvecs"), place.at("own"));
    let built = json(&[
        "build",
        &base,
        "--keys",
        &keys,
        "--out",
        &own,
        "--centroids",
        "16",
        "--keyholder",
        "client",
    ]);
    assert_eq!(built["released"], false);
    // It is for the key that the client is given, whatever the owner's key was rotated to.
    let fingerprint = |index: &str| {
        let inspected = json(&["inspect", index, "--keys", &keys]);
        inspected["keeper_fingerprint"].as_str().unwrap().to_owned()
    };
    let public = "keys/owner/keeper.pub";
    std::fs::copy(Place::with_keys().path(public), place.path(public)).unwrap();
    let (next, other) = (place.at("next"), place.at("other"));
    place.build("next", &base, &["-K", "16", "--keyholder", "client"]);
    assert_eq!(fingerprint(&next), fingerprint(&own));
    place.build("other", &base, &["-K", "16"]);
    assert_ne!(fingerprint(&other), fingerprint(&own));
    json(&["verify", &own, "--keys", &format!("{keys}/searcher")]);
    // One that a keeper takes part in does not open with the searcher's key alone.
    let index = place.at("index");
    let message = fails(
        3,
        &["verify", &index, "--keys", &format!("{keys}/searcher")],
    );
    assert!(message.contains("keeper's part"), "{message}");
    let message = fails(
        3,
        &[
            "searcher",
            "--index",
            &index,
            "--keys",
            &keys,
            "--keeper",
            "none",
            "--listen",
            "127.0.0.1:0",
            "--allow-simulated",
        ],
    );
    assert!(message.contains("keeper"), "{message}");
}

#[test]
fn fail_a_keeper_without_its_records() {
    let place = Place::with_keys();
    let keys = place.at("keys");
    let arguments = [
        "keeper",
        "--keys",
        &keys,
        "--listen",
        "127.0.0.1:0",
        "--allow-simulated",
    ];
    let message = fails(3, &arguments);
    assert!(message.contains("--new-state"), "{message}");
}

#[test]
fn owners_keys_survive_in_a_text_file() {
    let (place, _) = place();
    let keys = place.at("keys");
    let (plain, locked, restored) = (
        place.at("plain.txt"),
        place.at("locked.txt"),
        place.at("new"),
    );
    let written = json(&["backup", "--keys", &keys, "--out", &plain]);
    assert_eq!(written["encrypted"], false);
    fails(4, &["backup", "--keys", &keys, "--out", &plain]);
    let passphrase = place.at("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let written = json(&[
        "backup",
        "--keys",
        &keys,
        "--out",
        &locked,
        "--passphrase-file",
        &passphrase,
    ]);
    assert_eq!(written["encrypted"], true);
    let text = std::fs::read_to_string(&locked).unwrap();
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));

    let restore = ["restore", &locked, "--out", &restored];
    assert!(fails(2, &restore).contains("--passphrase-file"));
    let wrong = place.at("wrong");
    std::fs::write(&wrong, "incorrect\n").unwrap();
    fails(3, &[&restore[..], &["--passphrase-file", &wrong]].concat());
    assert!(!place.path("new").join("owner").exists());
    json(&[&restore[..], &["--passphrase-file", &passphrase]].concat());
    // The restored folder is an owner's, as good as the first.
    for entry in place.path("keys/owner").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let copy = place.path("new/owner").join(name);
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(copy).unwrap());
    }
    json(&["verify", &place.at("index"), "--keys", &restored]);
    json(&["revoke", "client", "--keys", &restored]);
    fails(4, &["restore", &plain, "--out", &restored]);
    let truncated = place.at("truncated.txt");
    let text = std::fs::read_to_string(&plain).unwrap();
    std::fs::write(&truncated, &text[..text.len() / 2]).unwrap();
    fails(3, &["restore", &truncated, "--out", &place.at("none")]);
}

#[test]
fn roles_say_what_protects_them() {
    let (place, _) = place();
    let served = Served::start(&place.at("keys"), &place.path("index"));
    let measures = served.ready["lockdown"].as_array().unwrap();
    assert!(measures.len() >= 5, "{}", served.ready);
    for measure in measures {
        assert!(
            ["yes", "partly", "no"].contains(&measure["degree"].as_str().unwrap()),
            "{measure}"
        );
    }
    let remarks = served.ready["remarks"].to_string();
    assert!(remarks.contains("counter"), "{remarks}");
    let shown = json(&["attest", "show", "--allow-simulated"]);
    assert_eq!(shown["evidence"]["platform"], "simulated");
    let names: Vec<_> = shown["platforms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|platform| platform["name"].as_str().unwrap().to_owned())
        .collect();
    for name in ["sev-snp", "tdx", "nitro", "tpm", "simulated"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}
