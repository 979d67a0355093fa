#![allow(clippy::unwrap_used)]

use super::*;
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;
use std::os::unix::fs::{PermissionsExt, symlink};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn file(name: &str, content: &[u8]) -> BackupFile {
    BackupFile::new(name, Zeroizing::new(content.to_vec())).unwrap()
}

fn sample() -> Vec<BackupFile> {
    vec![
        file("owner.key", b"OBORO-OWNER-KEY-1...\n"),
        file("keeper/keeper.key", &[0xff, 0, b'\n', b'\n']),
        file("empty", b""),
    ]
}

fn text(passphrase: Option<&str>) -> Zeroizing<String> {
    seal(&sample(), passphrase, 3, &mut rng()).unwrap()
}

fn same(a: &[BackupFile], b: &[BackupFile]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.name == b.name && a.content == b.content)
}

fn refusal(text: &str, passphrase: Option<&str>) -> String {
    let error = restore(text, passphrase).err().unwrap().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_was_backed_up_comes_back() {
    for passphrase in [None, Some("correct horse")] {
        let text = text(passphrase);
        assert!(text.is_ascii());
        assert_eq!(is_protected(&text), passphrase.is_some());
        assert!(same(&restore(&text, passphrase).unwrap(), &sample()));
        // As mail programs leave it.
        let mailed = format!("\n{}\n\n", text.replace('\n', "\r\n"));
        assert!(same(&restore(&mailed, passphrase).unwrap(), &sample()));
    }
    assert!(text(None).starts_with("# Oboro backup WITHOUT a passphrase"));
    assert!(text(Some("x")).starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"));
}

/// With the real work factor, once.
#[test]
fn the_passphrase_is_stretched() {
    let text = backup_owner(&sample(), Some("correct horse"), &mut rng()).unwrap();
    assert!(same(
        &restore(&text, Some("correct horse")).unwrap(),
        &sample()
    ));
}

#[test]
fn fail_wrong_or_missing_passphrases() {
    let protected = text(Some("correct horse"));
    assert!(refusal(&protected, None).contains("give the passphrase"));
    assert!(refusal(&protected, Some("Correct horse")).contains("with this passphrase"));
    assert!(refusal(&text(None), Some("x")).contains("leave it out"));
    let error = seal(&sample(), Some(""), 3, &mut rng()).err().unwrap();
    assert!(error.to_string().contains("is empty"), "{error}");
}

#[test]
fn fail_every_character_changed_or_cut() {
    for passphrase in [None, Some("x")] {
        let text = text(passphrase);
        let start = text.find("-----BEGIN").unwrap();
        for at in start..text.trim_end().len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bytes).unwrap();
            refusal(&bad, passphrase);
            refusal(&text[..at], passphrase);
        }
        refusal(&format!("{0}{0}", *text), passphrase);
        refusal(&format!("{}more", *text), passphrase);
    }
}

#[test]
fn fail_foreign_texts() {
    for foreign in [
        "",
        "# nothing\n",
        "hello",
        "OBORO-OWNER-KEY-1QQQQ",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(
            refusal(foreign, None).contains("holds no backup"),
            "{foreign}"
        );
    }
    assert!(refusal(&"x".repeat(MAX_TEXT + 1), None).contains("at most"));
    // Something else in the same armour and under the same passphrase.
    let other = age::encrypt(b"hello", "x", 3, &mut rng());
    refusal(&other, Some("x"));
}

#[test]
fn fail_containers_that_nobody_packs() {
    let good = pack(&sample()).unwrap();
    assert!(unpack(&good).is_some());
    for cut in 0..good.len() {
        assert!(unpack(&good[..cut]).is_none(), "{cut}");
    }
    assert!(unpack(&[&good[..], b"\n"].concat()).is_none());
    for bad in [
        &b"OBORO-BACKUP-1\nend\n"[..],
        b"OBORO-BACKUP-2\na 0\n\nend\n",
        b"OBORO-BACKUP-1\na 00\n\nend\n",
        b"OBORO-BACKUP-1\na +0\n\nend\n",
        b"OBORO-BACKUP-1\na -1\n\nend\n",
        b"OBORO-BACKUP-1\na 0\n\na 0\n\nend\n",
        b"OBORO-BACKUP-1\na 18446744073709551615\n\nend\n",
        b"OBORO-BACKUP-1\na 99999999999999999999\n\nend\n",
        b"OBORO-BACKUP-1\na  0\n\nend\n",
        b"OBORO-BACKUP-1\n../a 0\n\nend\n",
        b"OBORO-BACKUP-1\n/a 0\n\nend\n",
        b"OBORO-BACKUP-1\n.a 0\n\nend\n",
        b"OBORO-BACKUP-1\na/b/c 0\n\nend\n",
        b"OBORO-BACKUP-1\na/../b 0\n\nend\n",
        b"OBORO-BACKUP-1\na\0 0\n\nend\n",
    ] {
        assert!(unpack(bad).is_none(), "{}", bad.escape_ascii());
    }
    let mut many = MAGIC.to_vec();
    for i in 0..=MAX_FILES {
        many.extend_from_slice(format!("f{i} 0\n\n").as_bytes());
    }
    many.extend_from_slice(END);
    assert!(unpack(&many).is_none());
}

#[test]
fn fail_files_that_cannot_be_backed_up() {
    for name in [
        "",
        ".",
        "..",
        "a b",
        "a/",
        "/a",
        "a/b/c",
        "ä",
        &"x".repeat(101),
    ] {
        assert!(BackupFile::new(name, Zeroizing::new(Vec::new())).is_err());
    }
    let refused = |files: &[BackupFile]| seal(files, None, 3, &mut rng()).is_err();
    assert!(refused(&[]));
    assert!(refused(&[file("a", b""), file("a", b"")]));
    assert!(refused(&[file("a", &vec![0; MAX_BYTES])]));
    let many: Vec<_> = (0..65).map(|i| file(&format!("f{i}"), b"")).collect();
    assert!(refused(&many));
    assert!(!refused(&many[1..]));
}

#[test]
fn folders_are_read_and_written_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("owner");
    fs::create_dir_all(from.join("state")).unwrap();
    fs::write(from.join("owner.key"), "secret").unwrap();
    fs::write(from.join("authority.pem"), "pem").unwrap();
    let files = BackupFile::all_in(&from, "owner/").unwrap();
    let names: Vec<_> = files.iter().map(BackupFile::name).collect();
    assert_eq!(names, ["owner/authority.pem", "owner/owner.key"]);
    assert_eq!(files[1].content(), b"secret");

    let to = dir.path().join("restored/keys");
    write_files(&files, &to).unwrap();
    for (path, mode) in [("owner", 0o700), ("owner/owner.key", 0o600)] {
        let found = fs::metadata(to.join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    assert_eq!(fs::read(to.join("owner/owner.key")).unwrap(), b"secret");
    // One of them is there: nothing is written, nothing changed.
    fs::remove_file(to.join("owner/authority.pem")).unwrap();
    fs::write(to.join("owner/owner.key"), "mine").unwrap();
    let error = write_files(&files, &to).err().unwrap().to_string();
    assert!(error.contains("never overwritten"), "{error}");
    assert_eq!(fs::read(to.join("owner/owner.key")).unwrap(), b"mine");
    assert!(!to.join("owner/authority.pem").exists());
    // Nor through a link, even one that leads nowhere.
    fs::remove_file(to.join("owner/owner.key")).unwrap();
    symlink(dir.path().join("elsewhere"), to.join("owner/owner.key")).unwrap();
    assert!(write_files(&files, &to).is_err());
    assert!(!dir.path().join("elsewhere").exists());
    // A failure in the middle takes back what was written.
    let blocked = dir.path().join("blocked");
    let files = [file("a", b"1"), file("a2/b", b"2")];
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("a2"), "a file where a folder is needed").unwrap();
    assert!(write_files(&files, &blocked).is_err());
    assert!(!blocked.join("a").exists());

    symlink(from.join("owner.key"), from.join("link")).unwrap();
    let error = BackupFile::all_in(&from, "").err().unwrap().to_string();
    assert!(error.contains("is no plain file"), "{error}");
    fs::remove_file(from.join("link")).unwrap();
    fs::write(from.join("large"), vec![0; MAX_BYTES + 1]).unwrap();
    assert!(BackupFile::all_in(&from, "").is_err());
    assert!(BackupFile::all_in(from.join("nowhere"), "").is_err());
}

proptest! {
    #[test]
    fn fail_random_containers_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..100),
        header in "[a-z./]{0,8} [0-9]{0,4}\n",
    ) {
        let bytes = [MAGIC, header.as_bytes(), &tail].concat();
        if let Some(files) = unpack(&bytes) {
            prop_assert!(*pack(&files).unwrap() == bytes);
        }
    }
}
