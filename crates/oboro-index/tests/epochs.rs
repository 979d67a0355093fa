//! From one epoch to the next: whole at every moment, and refused when anything
//! does not fit.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_ckks::{CodebookMasking, EncryptedCodebook, PublicKey, SecretKey, reencrypt};
use oboro_index::*;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with an index of 90 vectors, and what one rotation of it needs.
struct Rotation {
    _dir: tempfile::TempDir,
    path: PathBuf,
    seed: u8,
    built: Built,
    index: Index,
    public: PublicKey,
    secret: SecretKey,
}

fn reencrypted(index: &Index, from: &SecretKey, to: &SecretKey, seed: u8) -> EncryptedCodebook {
    let mut rng = rng(seed);
    let (masked, keep) = CodebookMasking::mask(&index.codebook().unwrap(), &mut rng);
    let packing = &index.descriptor().packing;
    keep.unmask(reencrypt(from, to, packing, &masked, &mut rng).unwrap())
        .unwrap()
}

impl Rotation {
    fn new(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let built = build(&path, seed, 90, false).unwrap();
        let index = Index::open(&path, &built.key).unwrap();
        let mut rng = rng(seed ^ 0xf0);
        let secret = SecretKey::generate(index.descriptor().packing.set(), &mut rng);
        let public = secret.public_key(&mut rng);
        Self {
            _dir: dir,
            path,
            seed,
            built,
            index,
            public,
            secret,
        }
    }

    fn key(&self, epoch: u64) -> EpochKey {
        let id = index_id(self.seed);
        self.built.owner.epoch_key(&id, epoch, released(self.seed))
    }

    fn descriptor(&self, index: &Index, codebook: &EncryptedCodebook) -> Vec<u8> {
        // As the owner does it: from what it authenticated itself.
        let key = self.built.owner.descriptor_key();
        Descriptor::from_bytes(&key, index.descriptor_bytes())
            .unwrap()
            .next_epoch(self.public.clone(), codebook.masks().digest())
            .unwrap()
            .to_bytes(&key)
    }

    fn begin_at(
        &self,
        folder: &Path,
        index: &Index,
        epoch: u64,
    ) -> Result<EpochWriter, IndexError> {
        let from = if epoch == 2 {
            &self.built.keeper
        } else {
            &self.secret
        };
        let codebook = reencrypted(index, from, &self.secret, epoch as u8);
        let descriptor = self.descriptor(index, &codebook);
        let key = self.key(epoch);
        index.begin_epoch(folder, &key, &descriptor, &codebook, &mut rng(epoch as u8))
    }

    fn begin(&self) -> EpochWriter {
        self.begin_at(&self.path, &self.index, 2).unwrap()
    }

    fn sound(&self, folder: &Path, epoch: u64) -> bool {
        let client = self.built.owner.client_key();
        verify(folder, &self.key(epoch), Some(&client))
            .is_ok_and(|report| report.is_sound() && report.records_opened == 90)
    }
}

type Files = Vec<(String, Vec<u8>)>;

fn files(folder: &Path) -> Files {
    let mut files: Files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        // Is there from the first change on, and stays.
        .filter(|(name, _)| name != "LOCK")
        .collect();
    files.sort();
    files
}

fn names(files: &Files) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

fn folder_with(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

#[test]
fn the_next_epoch_has_everything_under_new_keys() {
    for seed in [30, 31] {
        let r = Rotation::new(seed);
        let before = files(&r.path);
        let writer = r.begin();
        let announced = writer.head();
        // Nothing is in force yet.
        assert_eq!(Index::peek(&r.path).unwrap(), r.built.head);
        assert!(r.sound(&r.path, 1));
        let next = writer.commit().unwrap();
        let head = Index::peek(&r.path).unwrap();
        assert_eq!((head, next.head()), (announced, announced));
        assert_eq!((head.epoch, head.generation), (2, 2));
        assert_eq!(head.index_id, r.built.head.index_id);
        assert_eq!(head.released, released(seed));
        assert_ne!(head.manifest_digest, r.built.head.manifest_digest);
        assert!(r.sound(&r.path, 2));
        assert!(!r.sound(&r.path, 1));

        // Opened afresh it is what the commit gave.
        let again = Index::open(&r.path, &r.key(2)).unwrap();
        assert_eq!(again.head(), next.head());
        assert_eq!(again.files(), next.files());
        assert_eq!(again.descriptor_bytes(), next.descriptor_bytes());
        assert_eq!(
            again.codebook().unwrap().to_bytes(),
            next.codebook().unwrap().to_bytes()
        );
        assert_eq!(
            again.descriptor().public_key_fingerprint(),
            r.public.fingerprint()
        );
        let after = files(&r.path);
        assert_eq!(names(&after).len(), again.files().len());
        // Originals are the same bytes; of the rest not even a block is.
        for (name, content) in &after {
            let same = before.iter().any(|(_, old)| old == content);
            assert_eq!(same, name.ends_with(".records"), "{name}");
        }

        // Old and new serve side by side, from the same memory.
        for (old, new) in r.index.segments().iter().zip(next.segments()) {
            assert!(std::ptr::eq(old.codes(), new.codes()));
            assert!(std::ptr::eq(old.ids(), new.ids()));
            let (mut a, mut b) = (Vec::new(), Vec::new());
            old.append_record(0, &mut a).unwrap();
            new.append_record(0, &mut b).unwrap();
            assert_eq!(a, b);
        }
        // And once more.
        let third = r.begin_at(&r.path, &next, 3).unwrap().commit().unwrap();
        assert_eq!((third.head().epoch, third.head().generation), (3, 3));
        assert!(r.sound(&r.path, 3));
        assert_eq!(files(&r.path).len(), third.files().len());
    }
}

/// Every state of the folder that a kill can leave behind, in order: none but
/// the old or the new epoch opens, whole, and the next rotation succeeds and
/// leaves nothing over.
#[test]
fn a_kill_at_any_step_leaves_one_epoch_whole() {
    let r = Rotation::new(33);
    let old = files(&r.path);
    let writer = r.begin();
    let begun = files(&r.path);
    let next = writer.commit().unwrap();
    let new = files(&r.path);
    let added: Files = begun
        .iter()
        .filter(|file| !old.contains(file))
        .cloned()
        .collect();
    assert_eq!(added.len(), 6, "{:?}", names(&added));
    let manifest = new.iter().find(|(name, _)| name == "MANIFEST").unwrap();
    let half = |content: &[u8]| content[..content.len() / 2].to_vec();

    let mut states: Vec<(Files, u64)> = Vec::new();
    // While files are written: some whole, one empty, half or unsynced.
    for count in 0..=added.len() {
        let mut state = old.clone();
        state.extend_from_slice(&added[..count]);
        states.push((state.clone(), 1));
        if let Some((name, content)) = added.get(count) {
            for partial in [Vec::new(), half(content), vec![0; content.len()]] {
                let mut state = state.clone();
                state.push((name.clone(), partial));
                states.push((state, 1));
            }
        }
    }
    // While the manifest is written.
    for content in [Vec::new(), half(&manifest.1), manifest.1.clone()] {
        let mut state = begun.clone();
        state.push(("MANIFEST.next".to_owned(), content));
        states.push((state, 1));
    }
    // After the rename, while old files are removed, in whatever order they
    // reach the disk.
    let removed: Files = old
        .iter()
        .filter(|file| file.0 != "MANIFEST" && !new.contains(file))
        .cloned()
        .collect();
    assert_eq!(removed.len(), 6, "{:?}", names(&removed));
    for left in 0..1_u32 << removed.len() {
        let mut state = new.clone();
        let remaining = removed.iter().enumerate();
        state.extend(
            remaining
                .filter(|(i, _)| left >> i & 1 == 1)
                .map(|(_, file)| file.clone()),
        );
        states.push((state, 2));
    }

    for (number, (mut state, epoch)) in states.into_iter().enumerate() {
        state.push(("note.txt".to_owned(), b"mine".to_vec()));
        let dir = folder_with(&state);
        let folder = dir.path();
        assert_eq!(Index::peek(folder).unwrap().epoch, epoch, "{number}");
        assert!(r.sound(folder, epoch), "{number}");
        assert!(!r.sound(folder, 3 - epoch), "{number}");
        let index = Index::open(folder, &r.key(epoch)).unwrap();
        if number % 2 == 0 {
            let left_over = state.len() - index.files().len() - 1;
            assert_eq!(index.remove_leftovers(folder).unwrap(), left_over);
            assert_eq!(files(folder).len(), index.files().len() + 1);
        }
        let index = r
            .begin_at(folder, &index, epoch + 1)
            .unwrap()
            .commit()
            .unwrap();
        assert!(r.sound(folder, epoch + 1), "{number}");
        let left = files(folder);
        assert_eq!(left.len(), index.files().len() + 1, "{:?}", names(&left));
        assert!(names(&left).contains(&"note.txt"));
    }
    drop(next);
}

#[test]
fn a_rotation_that_is_given_up_leaves_no_trace() {
    let r = Rotation::new(35);
    let before = files(&r.path);
    let writer = r.begin();
    // Two at once would mix their files.
    let error = r.begin_at(&r.path, &r.index, 2).err().unwrap();
    assert!(error.to_string().contains("being written"), "{error}");
    assert!(r.index.remove_leftovers(&r.path).is_err());
    drop(writer);
    assert!(files(&r.path) == before);
    // Files that cannot be written: the folder is gone, or a name is taken.
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(r.begin_at(elsewhere.path(), &r.index, 2).is_err());
    fs::create_dir(r.path.join("codebook-2.oboro")).unwrap();
    assert!(r.begin_at(&r.path, &r.index, 2).is_err());
    fs::remove_dir(r.path.join("codebook-2.oboro")).unwrap();
    assert!(files(&r.path) == before);
    r.begin().commit().unwrap();
}

#[test]
fn fail_to_write_over_another_state() {
    let r = Rotation::new(36);
    let next = r.begin().commit().unwrap();
    // The old index, still open, cannot be continued.
    let error = r.begin_at(&r.path, &r.index, 2).err().unwrap();
    assert!(error.to_string().contains("another state"), "{error}");
    assert!(r.index.remove_leftovers(&r.path).is_err());
    assert!(r.sound(&r.path, 2));
    // Nor does a rotation overwrite what came into the folder after it began.
    let writer = r.begin_at(&r.path, &next, 3).unwrap();
    fs::rename(&r.path, r.path.with_extension("aside")).unwrap();
    build(&r.path, 36, 90, false).unwrap();
    let error = writer.commit().err().unwrap();
    assert!(error.to_string().contains("another state"), "{error}");
    assert!(r.sound(&r.path, 1));
    assert!(!r.path.join("MANIFEST.next").exists());
}

#[test]
fn fail_parts_that_do_not_belong_to_the_next_epoch() {
    let r = Rotation::new(37);
    let before = files(&r.path);
    let codebook = reencrypted(&r.index, &r.built.keeper, &r.secret, 1);
    let descriptor = r.descriptor(&r.index, &codebook);
    let key = r.built.owner.descriptor_key();
    let begin = |epoch_key: &EpochKey, descriptor: &[u8], codebook: &EncryptedCodebook| {
        let folder = &r.path;
        let writer = r
            .index
            .begin_epoch(folder, epoch_key, descriptor, codebook, &mut rng(1));
        let error = writer.err().unwrap().to_string();
        assert!(!error.contains('\n'));
        error
    };
    // Keys of other epochs, of another index, without a share.
    for epoch in [0, 1, 3] {
        let error = begin(&r.key(epoch), &descriptor, &codebook);
        assert!(error.contains("must be 2"), "{error}");
    }
    let id = index_id(37);
    let other = r.built.owner.epoch_key(&[0; 16], 2, true);
    assert!(begin(&other, &descriptor, &codebook).contains("another index"));
    let bare = r.built.owner.epoch_key(&id, 2, false);
    assert!(begin(&bare, &descriptor, &codebook).contains("share is missing"));
    let unreleased = Rotation::new(38);
    let error = unreleased
        .index
        .begin_epoch(
            &unreleased.path,
            &unreleased.built.owner.epoch_key(&index_id(38), 2, true),
            &unreleased.descriptor(&unreleased.index, &codebook),
            &codebook,
            &mut rng(1),
        )
        .err()
        .unwrap();
    assert!(matches!(error, IndexError::ShareUnused), "{error}");

    // Another codebook than the descriptor says: the present one.
    let present = r.index.codebook().unwrap();
    assert!(begin(&r.key(2), &descriptor, &present).contains("another codebook"));

    // Descriptors that change more than keys.
    let parsed = Descriptor::from_bytes(&key, &descriptor).unwrap();
    let altered = |alter: &dyn Fn(&mut Descriptor)| {
        let mut other = parsed.clone();
        alter(&mut other);
        begin(&r.key(2), &other.to_bytes(&key), &codebook)
    };
    assert!(altered(&|d| d.epoch = 1).contains("must be 2"));
    assert!(altered(&|d| d.epoch = 3).contains("must be 2"));
    for (alter, what) in [
        (
            Box::new(|d: &mut Descriptor| d.index_id[0] ^= 1) as Box<dyn Fn(&mut Descriptor)>,
            "another index",
        ),
        (
            Box::new(|d: &mut Descriptor| d.metric = oboro_quant::Metric::InnerProduct),
            "another metric",
        ),
        (
            Box::new(|d: &mut Descriptor| d.rotation = oboro_index::Rotation::Subspace),
            "another rotation",
        ),
        (
            Box::new(|d: &mut Descriptor| d.extra_bytes = 89),
            "another size of extra bytes",
        ),
        (
            Box::new(|d: &mut Descriptor| d.tags = vec![[1; 8]]),
            "another list of tags",
        ),
        (
            Box::new(|d: &mut Descriptor| d.candidates_max = 1),
            "another limit",
        ),
        (
            Box::new(|d: &mut Descriptor| d.record_encoding = RecordEncoding::F32),
            "another encoding",
        ),
        // Another dimension that is cut into as wide sub-vectors.
        (
            Box::new(|d: &mut Descriptor| d.dimension = 9),
            "another dimension",
        ),
        (
            Box::new(|d: &mut Descriptor| {
                d.scale = oboro_ckks::TableScale::new(&d.packing, 1.0, 1.0, 0.0).unwrap();
            }),
            "another scale",
        ),
    ] {
        let error = altered(&*alter);
        assert!(error.contains(what), "{what}: {error}");
    }
    // Bytes that are no descriptor.
    for at in (0..descriptor.len()).step_by(97) {
        let mut bad = descriptor.clone();
        bad[at] ^= 1;
        begin(&r.key(2), &bad, &codebook);
        begin(&r.key(2), &descriptor[..at], &codebook);
    }
    begin(&r.key(2), &[&descriptor[..], &[0]].concat(), &codebook);
    assert!(files(&r.path) == before);
    // A key of another parameter set; the epochs' end.
    let mut rng = rng(1);
    let wide = SecretKey::generate(oboro_ckks::ParameterSet::N4096Q100, &mut rng);
    let error = parsed
        .next_epoch(wide.public_key(&mut rng), [0; 32])
        .err()
        .unwrap();
    assert!(error.to_string().contains("N4096_Q100"), "{error}");
    let mut last = parsed.clone();
    last.epoch = oboro_ckks::MAX_ROTATIONS + 1;
    let error = last.next_epoch(r.public.clone(), [0; 32]).err().unwrap();
    assert!(
        error.to_string().contains("build the index again"),
        "{error}"
    );
    r.begin().commit().unwrap();
}

#[test]
fn fail_files_of_two_generations_mixed() {
    let r = Rotation::new(39);
    let old = files(&r.path);
    r.begin().commit().unwrap();
    let new = files(&r.path);
    let find = |files: &Files, name: &str| files.iter().find(|f| f.0 == name).unwrap().1.clone();
    // The old manifest among the new files, and the other way round.
    let mut mixed = new.clone();
    mixed.retain(|file| file.0 != "MANIFEST");
    mixed.push(("MANIFEST".to_owned(), find(&old, "MANIFEST")));
    let dir = folder_with(&mixed);
    assert!(!r.sound(dir.path(), 1) && !r.sound(dir.path(), 2));
    let mut mixed = old.clone();
    mixed.retain(|file| file.0 != "MANIFEST");
    mixed.push(("MANIFEST".to_owned(), find(&new, "MANIFEST")));
    let dir = folder_with(&mixed);
    assert!(!r.sound(dir.path(), 1) && !r.sound(dir.path(), 2));
    // Each old file under the name of the new one of its kind.
    for (name, content) in &old {
        let renamed = name.replace("-1.", "-2.");
        if name == "MANIFEST" || renamed == *name {
            continue;
        }
        let mut mixed = new.clone();
        mixed.retain(|file| file.0 != renamed);
        assert_eq!(mixed.len() + 1, new.len());
        mixed.push((renamed.clone(), content.clone()));
        let dir = folder_with(&mixed);
        assert!(Index::open(dir.path(), &r.key(2)).is_err(), "{renamed}");
        // Nor with its epoch rewritten.
        let mut content = content.clone();
        content[40..48].copy_from_slice(&2_u64.to_le_bytes());
        fs::write(dir.path().join(&renamed), content).unwrap();
        assert!(Index::open(dir.path(), &r.key(2)).is_err(), "{renamed}");
    }
    // The old state whole opens with the old key: that it is old, the keeper
    // knows, who releases no share for it.
    let dir = folder_with(&old);
    assert!(r.sound(dir.path(), 1));
    let error = Index::open(dir.path(), &r.key(2)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the index is at epoch 1 but the storage key was derived for epoch 2; look at the index again and derive the key anew"
    );
}

#[test]
fn fail_a_byte_flipped_anywhere_after_a_rotation() {
    let r = Rotation::new(40);
    let index = r.begin().commit().unwrap();
    for (name, bytes) in index.files() {
        let file = r.path.join(name);
        let good = fs::read(&file).unwrap();
        let bytes = *bytes as usize;
        let step = (bytes / 12).max(1);
        for at in (0..bytes.min(80)).chain((80..bytes).step_by(step)) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, bad).unwrap();
            assert!(!r.sound(&r.path, 2), "{name} byte {at}");
        }
        fs::write(&file, good).unwrap();
    }
    assert!(r.sound(&r.path, 2));
}

/// Tags, deletes, model and merged segments live on under new keys, and what
/// was begun under the old ones has to be done again.
#[test]
fn a_live_index_is_rotated_with_all_it_has() {
    let mut r = Rotation::new(49);
    let dir = tempfile::tempdir().unwrap();
    r.path = dir.path().join("lived");
    r.built = build_lived(&r.path, 49);
    let mut live = LiveIndex::open(&r.path, r.key(1)).unwrap();
    r.index = live.index().clone();
    let (old, before) = (files(&r.path), r.index.clone());
    let codebook = reencrypted(&r.index, &r.built.keeper, &r.secret, 1);
    let descriptor = r.descriptor(&r.index, &codebook);
    let staged = stage(&live, 49, 30, &[(1, 1)]);
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    let merged = plan
        .run(&Throttle::NONE, &false.into(), &mut fresh())
        .unwrap();
    let begin = |live: &LiveIndex| {
        live.begin_epoch(&r.key(2), &descriptor, &codebook, &mut fresh())
            .unwrap()
    };
    // Given up, then made to lose against a commit, then done.
    drop(begin(&live));
    let late = begin(&live);
    let change = Change {
        deletes: vec![id(3)],
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
    let error = live.commit_epoch(late, r.key(2)).err().unwrap();
    assert!(error.to_string().contains("another state"), "{error}");
    let error = live.commit_epoch(begin(&live), r.key(3)).err().unwrap();
    assert!(matches!(error, IndexError::OtherEpoch { found: 2, key: 3 }));
    let next = live.commit_epoch(begin(&live), r.key(2)).unwrap();

    let mut map = lived_contents();
    map.remove(&id(3));
    assert_eq!(contents(&next, 49), map);
    assert_eq!(contents(&before, 49), lived_contents());
    assert_eq!(next.model_bytes(), before.model_bytes());
    assert_eq!(
        (next.head().epoch, next.generation()),
        (2, before.generation() + 2)
    );
    let client = r.built.owner.client_key();
    let report = verify(&r.path, &r.key(2), Some(&client)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records_opened, map.len() as u64);
    // Of what is sealed under epochs' keys, nothing is as it was.
    for (name, content) in files(&r.path) {
        if next.files().iter().any(|(listed, _)| *listed == name) {
            let same = old.iter().any(|(_, old)| *old == content);
            let outlives = name.ends_with(".records") || name == "model.oboro";
            assert_eq!(same, outlives, "{name}");
        }
    }

    let change = Change {
        stages: vec![staged],
        ..Change::default()
    };
    let error = live.commit(change, &mut fresh()).err().unwrap();
    assert!(error.to_string().contains("key was rotated"), "{error}");
    let error = live.commit_compaction(merged, &mut fresh()).err().unwrap();
    assert!(error.to_string().contains("key was rotated"), "{error}");
    let change = Change {
        stages: vec![stage(&live, 49, 31, &[(1, 1)])],
        deletes: vec![id(4)],
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    let merged = plan.run(&Throttle::NONE, &false.into(), &mut fresh());
    live.commit_compaction(merged.unwrap(), &mut fresh())
        .unwrap();
    map.remove(&id(4));
    map.insert(1, 1);
    assert_eq!(contents(live.index(), 49), map);
    assert_eq!(files(&r.path).len(), live.index().files().len());
}

/// Its journal lies under the key of the epoch that ended.
#[test]
fn a_rotation_ends_a_compaction_that_was_stopped() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let stopped = |folder: &Path, r: &Rotation| {
        let live = LiveIndex::open(folder, r.key(1)).unwrap();
        let (cancel, files) = (Arc::new(AtomicBool::new(false)), files(folder).len());
        let end = Arc::clone(&cancel);
        let plan = live
            .compaction(&CompactionPolicy::FULL)
            .unwrap()
            .checkpoint_every(500)
            .observed(move |written| end.store(written > 1500, Ordering::Relaxed));
        let error = plan
            .run(&Throttle::NONE, &cancel, &mut rng(9))
            .err()
            .unwrap();
        assert!(matches!(error, IndexError::Cancelled { kept } if kept > 0));
        assert_eq!(self::files(folder).len(), files + 2);
        live
    };
    let next = |r: &Rotation, live: &LiveIndex| {
        let codebook = reencrypted(live.index(), &r.built.keeper, &r.secret, 2);
        let descriptor = r.descriptor(live.index(), &codebook);
        live.begin_epoch(&r.key(2), &descriptor, &codebook, &mut rng(2))
            .unwrap()
    };
    // By the one that stopped it, by one that opened it, and by one that only reads.
    for (number, seed) in [30, 31, 34].into_iter().enumerate() {
        let r = Rotation::new(seed);
        let mut live = stopped(&r.path, &r);
        let with_journal = files(&r.path);
        if number == 1 {
            drop(live);
            live = LiveIndex::open(&r.path, r.key(1)).unwrap();
            assert!(files(&r.path) == with_journal);
        }
        if number < 2 {
            let next = next(&r, &live);
            live.commit_epoch(next, r.key(2)).unwrap();
        } else {
            drop(live);
            r.begin().commit().unwrap();
            live = LiveIndex::open(&r.path, r.key(2)).unwrap();
        }
        let rotated = files(&r.path);
        assert_eq!(rotated.len(), live.index().files().len());
        let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
        assert_eq!(plan.resumed_bytes(), 0);
        drop((live, plan));
        // Killed before it was removed.
        let mut killed = rotated.clone();
        let left = with_journal.iter().filter(|(name, _)| {
            name.starts_with("merge-") || !rotated.iter().any(|(other, _)| other == name)
        });
        killed.extend(left.cloned());
        let dir = folder_with(&killed);
        let live = LiveIndex::open(dir.path(), r.key(2)).unwrap();
        assert!(files(dir.path()) == rotated);
        drop(live);
        assert!(r.sound(dir.path(), 2));
    }
}
