//! Whole indexes: built, opened, damaged, replaced.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("words.index");
    (dir, path)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_read() {
    let (dir, path) = folder();
    let built = build(&path, 1, 300, false).unwrap();
    assert_eq!(names(dir.path()), ["words.index"]);
    let index = Index::open(&path, &built.key).unwrap();
    assert_eq!(index.files(), built.files);
    for (name, bytes) in &built.files {
        assert_eq!(fs::metadata(path.join(name)).unwrap().len(), *bytes);
    }
    assert_eq!(names(&path).len(), built.files.len());
    let client = built.owner.client_key();
    let descriptor =
        Descriptor::from_bytes(client.descriptor_key(), index.descriptor_bytes()).unwrap();
    assert_eq!(index.vectors(), 300);
    let opener = RecordOpener::new(
        client.record_key(),
        descriptor.index_id,
        descriptor.record_layout(),
    );
    let codebook = codebook();
    let mut row = 0;
    assert_eq!(index.segments().len(), 2);
    for segment in index.segments() {
        assert_eq!(segment.codes().as_bytes().as_ptr() as usize % 64, 0);
        for _ in 0..segment.len() {
            let place = built.order[row];
            assert_eq!(segment.ids()[place as usize], id(row));
            let code = codebook.encode(&vector(row)).unwrap();
            assert_eq!(segment.codes().row(place as usize), code);
            let mut wire = Vec::new();
            segment.append_record(place, &mut wire).unwrap();
            assert_eq!(wire.len(), descriptor.record_bytes());
            assert_eq!(wire.len(), segment.wire_len());
            let record = opener.open(&wire).unwrap();
            assert_eq!((record.id, record.position), (id(row), place));
            assert_eq!(&record.segment_id, segment.id());
            assert_eq!(record.vector, vector(row));
            row += 1;
        }
    }
    assert_eq!(row, 300);
    assert_eq!(
        index.codebook().unwrap().masks().digest(),
        descriptor.codebook_digest
    );
    let report = verify(&path, &built.key, Some(&client)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.vectors, report.records_opened), (300, 300));
    assert!(report.unlisted.is_empty());
    let summary = Summary::read(&path).unwrap();
    assert_eq!((summary.vectors, summary.files), (300, built.files));
}

#[test]
fn an_empty_index_and_tiny_segments_work() {
    for vectors in [0, 1, 2, 64, 65] {
        let (_dir, path) = folder();
        let built = build(&path, 2, vectors, false).unwrap();
        let report = verify(&path, &built.key, Some(&built.owner.client_key())).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.records_opened, vectors as u64);
    }
}

/// Whether something is wrong with the index, as far as open and verify say.
fn found(path: &Path, built: &Built) -> bool {
    match verify(path, &built.key, Some(&built.owner.client_key())) {
        Ok(report) => {
            assert!(
                report
                    .all_problems()
                    .all(|p| !p.is_empty() && !p.contains('\n'))
            );
            !report.is_sound()
        }
        Err(_) => true,
    }
}

#[test]
fn fail_a_byte_flipped_anywhere_is_detected() {
    for seed in [3, 40] {
        let (_dir, path) = folder();
        let built = match seed {
            3 => build(&path, seed, 90, false).unwrap(),
            // With tags, a model, deleted vectors and a merged segment.
            _ => build_lived(&path, seed),
        };
        flip_everywhere(&path, &built);
    }
}

fn flip_everywhere(path: &Path, built: &Built) {
    assert!(!found(path, built));
    for (name, bytes) in &built.files {
        let file = path.join(name);
        let good = fs::read(&file).unwrap();
        let bytes = *bytes as usize;
        // The beginning and the end byte by byte, the rest in steps.
        let step = (bytes / 12).max(1);
        let offsets = (0..bytes.min(24))
            .chain((0..bytes).step_by(step))
            .chain(bytes.saturating_sub(8)..bytes);
        for at in offsets {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            assert!(found(path, built), "{name} byte {at}");
            // All but the originals' content is noticed when opening.
            if !name.ends_with("records") || at < 64 {
                assert!(Index::open(path, &built.key).is_err(), "{name} byte {at}");
            }
        }
        for cut in [0, 1, bytes / 2, bytes - 1] {
            fs::write(&file, &good[..cut]).unwrap();
            assert!(found(path, built), "{name} cut to {cut}");
            assert!(Index::open(path, &built.key).is_err());
        }
        fs::write(&file, [&good[..], &[0]].concat()).unwrap();
        assert!(found(path, built), "{name} with a byte more");
        assert!(Index::open(path, &built.key).is_err());
        fs::remove_file(&file).unwrap();
        assert!(found(path, built), "{name} missing");
        assert!(Index::open(path, &built.key).is_err());
        fs::write(&file, good).unwrap();
    }
    assert!(!found(path, built));
    fs::write(path.join("note.txt"), "mine").unwrap();
    let report = verify(path, &built.key, None).unwrap();
    assert_eq!(report.unlisted, ["note.txt"]);
    assert!(report.is_sound());
}

#[test]
fn fail_files_of_another_index() {
    let (_dir, path) = folder();
    let (_other_dir, other) = folder();
    let built = build(&path, 4, 90, false).unwrap();
    let foreign = build(&other, 5, 90, false).unwrap();
    // Each of the other index's files in place of ours of the same kind.
    for (ours, theirs) in built.files.iter().zip(&foreign.files) {
        let file = path.join(&ours.0);
        let good = fs::read(&file).unwrap();
        fs::copy(other.join(&theirs.0), &file).unwrap();
        assert!(found(&path, &built), "{}", ours.0);
        assert!(Index::open(&path, &built.key).is_err());
        fs::write(&file, good).unwrap();
    }
    // The two segments' files exchanged.
    for kind in ["codes", "ids", "records"] {
        let of_kind: Vec<_> = built
            .files
            .iter()
            .filter(|f| f.0.ends_with(kind))
            .map(|f| path.join(&f.0))
            .collect();
        let swap = || {
            fs::rename(&of_kind[0], path.join("x")).unwrap();
            fs::rename(&of_kind[1], &of_kind[0]).unwrap();
            fs::rename(path.join("x"), &of_kind[1]).unwrap();
        };
        swap();
        assert!(Index::open(&path, &built.key).is_err());
        swap();
    }
    assert!(!found(&path, &built));
}

#[test]
fn fail_foreign_keys_say_so() {
    let (dir, path) = folder();
    let built = build(&path, 6, 30, false).unwrap();
    let stranger = owner(7);
    let foreign = stranger.epoch_key(&index_id(6), 1, false);
    let error = Index::open(&path, &foreign).err().unwrap();
    assert_eq!(
        error.to_string(),
        "MANIFEST was made under another storage key; use the storage key of this index's owner"
    );
    let index = Index::open(&path, &built.key).unwrap();
    let error = Descriptor::from_bytes(&stranger.descriptor_key(), index.descriptor_bytes())
        .err()
        .unwrap();
    assert!(matches!(error, IndexError::ForeignKey { .. }), "{error}");
    let report = verify(&path, &built.key, Some(&stranger.client_key())).unwrap();
    assert!(report.problems[0].contains("another client key"));
    let error = Index::open(dir.path(), &built.key).err().unwrap();
    assert!(error.to_string().contains("is no index"), "{error}");
    assert!(Summary::read(dir.path().join("nowhere")).is_err());
}

#[test]
fn fail_a_foreign_or_missing_release_share() {
    let (_dir, path) = folder();
    let built = build(&path, 17, 30, false).unwrap();
    let head = Index::peek(&path).unwrap();
    assert_eq!(head, built.head);
    assert!(head.released);
    assert_eq!(Index::open(&path, &built.key).unwrap().head(), head);
    let (owner, stranger) = (owner(17), owner(18));
    let (id, storage) = (&head.index_id, owner.storage_key());
    let refusal = |share: Option<&ReleaseShare>| {
        let key = storage.for_epoch(share, id, head.epoch);
        Index::open(&path, &key).err().unwrap()
    };
    let error = refusal(None);
    assert!(matches!(error, IndexError::ShareMissing), "{error}");
    // Shares of another owner, index or epoch.
    for share in [
        stranger.release_key().share(id, 1),
        owner.release_key().share(&[0; 16], 1),
        owner.release_key().share(id, 2),
    ] {
        let error = refusal(Some(&share));
        assert_eq!(
            error.to_string(),
            "MANIFEST was made under another storage key or release key; use the storage key or release key of this index's owner"
        );
    }
    // The keeper's share is not enough, either.
    let share = owner.release_key().share(id, 1);
    let key = stranger.storage_key().for_epoch(Some(&share), id, 1);
    assert!(Index::open(&path, &key).is_err());
    // As it comes from the keeper.
    let share = ReleaseShare::from_bytes(&share.to_bytes()[..]).unwrap();
    Index::open(&path, &storage.for_epoch(Some(&share), id, 1)).unwrap();
    for length in [0, 31, 33] {
        assert!(ReleaseShare::from_bytes(&vec![0; length]).is_err());
    }
}

#[test]
fn a_killed_build_is_invisible_and_cleaned() {
    let (dir, path) = folder();
    // A build in progress: hidden, and left alone by another of the same name.
    let living = start(&path, 8, false).unwrap();
    assert!(!path.exists());
    let second = start(&path, 9, false).unwrap();
    assert_eq!(names(dir.path()).len(), 2);
    drop(second);
    assert_eq!(names(dir.path()).len(), 1);
    drop(living);
    assert!(names(dir.path()).is_empty());
    // One that was killed leaves a folder, which the next removes.
    let killed = dir.path().join(".words.index.building-0123456789abcdef");
    fs::create_dir(&killed).unwrap();
    fs::write(killed.join("segment-x.codes"), "half").unwrap();
    build(&path, 8, 10, false).unwrap();
    assert_eq!(names(dir.path()), ["words.index"]);
}

#[test]
fn existing_output_is_replaced_by_force_only_and_whole() {
    let (dir, path) = folder();
    let first = build(&path, 10, 20, false).unwrap();
    let error = build(&path, 11, 30, false).err().unwrap();
    assert!(error.to_string().contains("--force"), "{error}");
    let open = Index::open(&path, &first.key).unwrap();
    // A forced build that fails leaves the old one.
    drop(start(&path, 11, true).unwrap());
    assert!(!found(&path, &first));
    let second = build(&path, 11, 30, true).unwrap();
    assert_eq!(names(dir.path()), ["words.index"]);
    assert!(!found(&path, &second));
    // A reader of the old one goes on undisturbed.
    let mut wire = Vec::new();
    open.segments()[0].append_record(0, &mut wire).unwrap();
    let client = first.owner.client_key();
    let opener = RecordOpener::new(
        client.record_key(),
        open.descriptor().index_id,
        open.descriptor().record_layout(),
    );
    opener.open(&wire).unwrap();
    // Somebody's files are not replaced, by force or not; an empty folder is.
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    build(&precious, 12, 10, true).unwrap();
    let documents = dir.path().join("documents");
    fs::create_dir(&documents).unwrap();
    fs::write(documents.join("thesis"), "years of work").unwrap();
    let error = build(&documents, 12, 10, true).err().unwrap();
    assert!(matches!(error, IndexError::NotReplaced { .. }), "{error}");
    assert_eq!(names(&documents), ["thesis"]);
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(build(&file, 12, 10, true).is_err());
    let error = build(&dir.path().join("no/such/folder"), 12, 10, false).err();
    assert!(error.is_some());
}

#[test]
fn a_target_that_appears_meanwhile_is_kept() {
    let (dir, path) = folder();
    let appear = || {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("mine"), "x").unwrap();
    };
    // Without force, and with it: somebody's files are never replaced.
    let error = build_then(&path, 13, 20, false, appear).err().unwrap();
    assert!(matches!(error, IndexError::Exists { .. }), "{error}");
    fs::remove_dir_all(&path).unwrap();
    let error = build_then(&path, 13, 20, true, appear).err().unwrap();
    assert!(matches!(error, IndexError::NotReplaced { .. }), "{error}");
    assert_eq!(names(dir.path()), ["words.index"]);
    assert_eq!(names(&path), ["mine"]);
}

#[test]
fn fail_segments_that_do_not_fit() {
    let (_dir, path) = folder();
    let mut writer = start(&path, 14, false).unwrap();
    let key = owner(14).record_key();
    let mut rng = rng(1);
    let mut begin = |writer: &IndexWriter, n| {
        writer
            .begin_segment(
                &key,
                RecordLayout::plain(RecordEncoding::F16, 2),
                n,
                &mut rng,
            )
            .unwrap()
    };
    let codes = oboro_quant::BlockedCodes::from_rows(&[0; 8], 4, 4).unwrap();
    let mut segment = begin(&writer, 2);
    assert!(segment.put(&[0], &[1, 2], &[0.0; 2]).is_err());
    assert!(segment.put(&[0], &[1], &[0.0; 3]).is_err());
    assert!(segment.put(&[2], &[1], &[0.0; 2]).is_err());
    segment.put(&[1], &[1], &[0.0; 2]).unwrap();
    let error = segment.put(&[1], &[2], &[0.0; 2]).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let error = writer.add_segment(segment, &codes, &[]).unwrap_err();
    assert!(error.to_string().contains("is 1 but must be 2"), "{error}");
    let mut segment = begin(&writer, 2);
    segment.put(&[1, 0], &[5, 5], &[0.0; 4]).unwrap();
    let error = writer.add_segment(segment, &codes, &[]).unwrap_err();
    assert!(error.to_string().contains("same id"), "{error}");
    assert!(!error.to_string().contains('5'));
    let mut segment = begin(&writer, 3);
    segment.put(&[1, 0, 2], &[5, 6, 7], &[0.0; 6]).unwrap();
    assert!(writer.add_segment(segment, &codes, &[]).is_err());
    let mut segment = begin(&writer, 2);
    segment.put(&[1, 0], &[5, 6], &[0.0; 4]).unwrap();
    writer.add_segment(segment, &codes, &[]).unwrap();
}

#[test]
fn a_full_disk_is_a_clean_error() {
    let (dir, path) = folder();
    let writer = start(&path, 15, false).unwrap();
    // 4e9 records of 120 KB: more than any disk has, asked for up front.
    let result = writer.begin_segment(
        &owner(15).record_key(),
        RecordLayout::plain(RecordEncoding::F32, 30_000),
        4_000_000_000,
        &mut rng(1),
    );
    assert!(matches!(result.err(), Some(IndexError::Io { .. })));
    drop(writer);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn no_key_and_no_vector_lies_in_the_clear() {
    let (_dir, path) = folder();
    let built = build_lived(&path, 42);
    let codebook = Index::open(&path, &built.key)
        .unwrap()
        .codebook()
        .unwrap()
        .to_bytes();
    let bytes: Vec<u8> = vector(5).iter().map(|&v| v as u8).collect();
    let centroids: Vec<u8> = common::codebook().values()[..4]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let hash = &tag_hashes(42)[0];
    let text = extra(6).id.unwrap();
    let secrets = [
        &bytes[..],
        &id(5).to_le_bytes(),
        &codebook[100..120],
        &centroids,
        hash,
        TAGS[1].as_bytes(),
        text.as_bytes(),
    ];
    for (name, _) in &built.files {
        let content = fs::read(path.join(name)).unwrap();
        for secret in secrets {
            assert!(content.windows(secret.len()).all(|w| w != secret), "{name}");
        }
    }
}
