//! The owner's key under a passphrase, through every verb that opens it.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Place, Served, fails, json, oboro, vectors};

/// Keys with the owner's under a passphrase, in the file `passphrase`; another in `wrong`.
fn place() -> Place {
    let place = Place::new();
    std::fs::write(place.path("passphrase"), "correct horse\n").unwrap();
    std::fs::write(place.path("wrong"), "battery staple\n").unwrap();
    let (keys, passphrase) = (place.at("keys"), place.at("passphrase"));
    let made = json(&["keygen", "--out", &keys, "--passphrase-file", &passphrase]);
    assert_eq!(made["owner_key_protected"], true);
    place.write_fvecs("base.fvecs", &vectors(300, 8, 1));
    place
}

/// `build` of a small index, to be followed by where the passphrase is.
fn build(place: &Place) -> Vec<String> {
    let (base, keys, index) = (place.at("base.fvecs"), place.at("keys"), place.at("index"));
    ["build", &base, "--keys", &keys, "--out", &index, "-K", "16"]
        .map(str::to_owned)
        .to_vec()
}

fn with<'a>(arguments: &[&'a str], passphrase: &'a str) -> Vec<&'a str> {
    [arguments, &["--passphrase-file", passphrase]].concat()
}

#[test]
fn an_owners_key_under_a_passphrase_builds_rotates_and_grants() {
    let place = place();
    let (keys, index, passphrase) = (place.at("keys"), place.at("index"), place.at("passphrase"));
    let text = std::fs::read_to_string(place.path("keys/owner/owner.key")).unwrap();
    assert!(text.contains("BEGIN AGE ENCRYPTED FILE"));
    assert!(!text.contains("OBORO-OWNER-KEY"));

    let build = build(&place);
    let build: Vec<&str> = build.iter().map(String::as_str).collect();
    json(&with(&build, &passphrase));
    let verified = json(&with(&["verify", &index, "--keys", &keys], &passphrase));
    assert_eq!(verified["originals_opened"], 300);
    let inspect = ["inspect", &index, "--keys", &keys];
    assert_eq!(json(&with(&inspect, &passphrase))["epoch"], 1);

    // Servers and clients never need it.
    let served = Served::start(&keys, &place.path("index"));
    let alice = place.at("alice");
    let grant = ["grant", "alice", "--keys", &keys, "--out", &alice];
    json(&with(&grant, &passphrase));
    let query = place.write_fvecs("query.fvecs", &vectors(2, 8, 2));
    let search = ["search", "--queries", &query, "--keys", &alice];
    let there = ["--server", &served.address, "--allow-simulated"];
    json(&[&search[..], &there].concat());
    let keeper = served.ready["keeper_address"].as_str().unwrap();
    let rotate = ["rotate", "--keys", &keys, "--searcher", &served.address];
    let there = ["--keeper", keeper, "--overlap", "0", "--allow-simulated"];
    let rotated = json(&with(&[&rotate[..], &there].concat(), &passphrase));
    assert_eq!(rotated["epoch"], 2);
    json(&with(&["verify", &index, "--keys", &keys], &passphrase));
    json(&["revoke", "alice", "--keys", &keys]);
}

#[test]
fn fail_an_owners_key_without_its_passphrase() {
    let place = place();
    let (keys, index, passphrase) = (place.at("keys"), place.at("index"), place.at("passphrase"));
    let (wrong, alice) = (place.at("wrong"), place.at("alice"));
    let build = build(&place);
    let build: Vec<&str> = build.iter().map(String::as_str).collect();
    // Without a terminal nobody can be asked, and a wrong one opens nothing.
    let refused = |arguments: &[&str]| {
        for prompt in [arguments.to_vec(), with(arguments, "prompt")] {
            let message = fails(2, &prompt);
            assert!(message.contains("--passphrase-file"), "{message}");
            assert!(message.contains("no terminal"), "{message}");
        }
        let message = fails(3, &with(arguments, &wrong));
        assert!(message.contains("owner.key"), "{message}");
        assert!(message.contains("with this passphrase"), "{message}");
    };
    refused(&build);
    assert!(!place.path("index").exists());
    json(&with(&build, &passphrase));
    refused(&["verify", &index, "--keys", &keys]);
    refused(&["inspect", &index, "--keys", &keys]);
    refused(&["rotate", "--keys", &keys, "--allow-simulated"]);
    let issued = std::fs::read(place.path("keys/owner/issued.txt")).unwrap();
    refused(&["grant", "alice", "--keys", &keys, "--out", &alice]);
    assert!(!place.path("alice").exists());
    let after = std::fs::read(place.path("keys/owner/issued.txt")).unwrap();
    assert_eq!(issued, after, "no certificate is listed that there is not");

    // It is never taken from an argument or the environment.
    let output = oboro()
        .args(["verify", &index, "--keys", &keys])
        .env("OBORO_PASSPHRASE", "correct horse")
        .env("OBORO_PASSPHRASE_FILE", &passphrase)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let verify = ["verify", &index, "--keys", &keys];
    fails(
        2,
        &[&verify[..], &["--passphrase", "correct horse"]].concat(),
    );
}

#[test]
fn fail_keys_under_no_passphrase() {
    let place = Place::new();
    let keys = place.at("keys");
    let empty = place.at("empty");
    std::fs::write(&empty, "\n").unwrap();
    let keygen = ["keygen", "--out", &keys];
    let message = fails(2, &[&keygen[..], &["--passphrase"]].concat());
    assert!(message.contains("no terminal"), "{message}");
    fails(2, &with(&[&keygen[..], &["--passphrase"]].concat(), &empty));
    assert!(fails(3, &with(&keygen, &empty)).contains("empty"));
    assert!(fails(3, &with(&keygen, &place.at("none"))).contains("none"));
    assert_eq!(place.names(), ["empty"]);

    // One that is given for a key without one is likely meant for another key.
    let made = json(&keygen);
    assert_eq!(made["owner_key_protected"], false);
    std::fs::write(&empty, "correct horse\n").unwrap();
    let alice = place.at("alice");
    let grant = ["grant", "alice", "--keys", &keys, "--out", &alice];
    let message = fails(3, &with(&grant, &empty));
    assert!(message.contains("leave --passphrase-file out"), "{message}");
}

#[test]
fn a_protected_key_stays_so_in_a_backup() {
    let place = place();
    let (keys, passphrase, wrong) = (place.at("keys"), place.at("passphrase"), place.at("wrong"));
    let (plain, locked) = (place.at("plain.txt"), place.at("locked.txt"));
    // The backup has a passphrase of its own, or none; the key's is not asked for.
    let written = json(&["backup", "--keys", &keys, "--out", &plain]);
    assert_eq!(written["encrypted"], false);
    assert_eq!(written["owner_key_protected"], true);
    json(&with(
        &["backup", "--keys", &keys, "--out", &locked],
        &wrong,
    ));
    let restored = place.at("restored");
    let restore = ["restore", &locked, "--out", &restored];
    assert!(fails(2, &restore).contains("no terminal"));
    json(&with(&restore, &wrong));
    let key = |keys: &str| std::fs::read(place.path(keys).join("owner/owner.key")).unwrap();
    assert_eq!(key("keys"), key("restored"));
    let alice = place.at("alice");
    let grant = ["grant", "alice", "--keys", &restored, "--out", &alice];
    fails(3, &with(&grant, &wrong));
    json(&with(&grant, &passphrase));
}

#[test]
fn a_grant_goes_into_a_folder_of_the_clients_name() {
    let place = Place::with_keys();
    let output = oboro()
        .current_dir(place.path(""))
        .args(["--json", "grant", "alice", "--keys", "keys"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(place.path("alice/identity.pem").is_file());
    assert!(place.path("alice/client.key").is_file());
}
