//! What survives, what is refused, and what a counter finds out.

#![allow(clippy::unwrap_used)]

use super::*;
use chacha20::ChaCha20Rng;
use oboro_ckks::{CodebookMasking, EncryptedCodebook, TableScale};
use oboro_index::OwnerKey;
use oboro_tpm::TpmError;
use proptest::prelude::*;
use rand_core::SeedableRng;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use tempfile::TempDir;

const SET: ParameterSet = ParameterSet::N2048Q50;
const INDEX: [u8; 16] = [5; 16];

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn secrets(seed: u8) -> KeeperSecrets {
    let secret_key = SecretKey::generate(SET, &mut rng(seed));
    KeeperSecrets {
        public_key: secret_key.public_key(&mut rng(seed)),
        secret_key,
        release_key: OwnerKey::generate(&mut rng(seed)).release_key(),
    }
}

fn key(seed: u8) -> StateKey {
    let secrets = secrets(seed);
    StateKey::derived(&secrets.secret_key, &secrets.release_key)
}

fn version(epoch: u64, generation: u64, digest: u8) -> IndexState {
    IndexState {
        index_id: INDEX,
        epoch,
        generation,
        manifest_digest: [digest; 32],
    }
}

fn created(directory: &Path) -> KeeperState {
    KeeperState::create(directory, &key(1), None, secrets(1), &mut rng(2)).unwrap()
}

fn opened(directory: &Path) -> Result<KeeperState, KeeperError> {
    KeeperState::open(directory, &key(1), None, &mut rng(3))
}

/// A counter in memory, as long-lived as a TPM's.
#[derive(Default)]
struct Counter {
    value: AtomicU64,
    broken: AtomicBool,
}

impl MonotonicCounter for Counter {
    fn read(&self) -> Result<u64, TpmError> {
        Ok(self.value.load(SeqCst))
    }

    fn increment(&self) -> Result<u64, TpmError> {
        if self.broken.load(SeqCst) {
            return Err(TpmError::TimedOut { seconds: 1 });
        }
        Ok(self.value.fetch_add(1, SeqCst) + 1)
    }

    fn describe(&self) -> String {
        "a counter in memory".to_owned()
    }
}

/// A protected keeper's directory and counter, and what a host does with them.
struct Host {
    folder: TempDir,
    counter: Arc<Counter>,
}

impl Host {
    fn new() -> (Self, KeeperState) {
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
            counter: Arc::default(),
        };
        host.counter.value.store(41, SeqCst);
        let counter: Arc<dyn MonotonicCounter> = host.counter.clone();
        let directory = host.directory();
        let state =
            KeeperState::create(&directory, &key(1), Some(counter), secrets(1), &mut rng(2));
        (host, state.unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("keeper.state")
    }

    fn open(&self) -> Result<KeeperState, KeeperError> {
        self.open_in(&self.directory())
    }

    fn open_in(&self, directory: &Path) -> Result<KeeperState, KeeperError> {
        let counter: Arc<dyn MonotonicCounter> = self.counter.clone();
        KeeperState::open(directory, &key(1), Some(counter), &mut rng(3))
    }

    fn copy(&self) -> Vec<u8> {
        std::fs::read(self.file()).unwrap()
    }

    fn put_back(&self, copy: &[u8]) {
        std::fs::write(self.file(), copy).unwrap();
    }
}

fn masked(state: &KeeperState) -> MaskedCodebook {
    let packing = Packing::new(SET, 4, 3, 16, 1).unwrap();
    let scale = TableScale::new(&packing, 1.0, 1.0, 0.0).unwrap();
    let codebook = EncryptedCodebook::encrypt(
        packing,
        &scale,
        &state.public_keys()[0],
        &vec![0.1; packing.table_len() * packing.width()],
        None,
        &mut rng(4),
    );
    CodebookMasking::mask(&codebook.unwrap(), &mut rng(5)).0
}

#[test]
fn everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("deep/state");
    let state = created(&directory);
    assert!(!state.is_rollback_protected());
    assert!(state.protection().contains("no monotonic counter"));
    assert_eq!(state.newest(&INDEX), None);
    let newest = version(3, 7, 1);
    state.register(&newest, &[], &mut rng(6)).unwrap();
    assert_eq!(state.newest(&newest.index_id), Some(newest));
    let from = state.fingerprints()[0];
    let to = state
        .new_key(SET.name(), &INDEX, &from, &mut rng(7))
        .unwrap()
        .fingerprint;
    let share = *state.release(&newest).unwrap().to_bytes();
    let keys = state.fingerprints();
    assert_eq!(keys, [from, to]);
    drop(state);

    let state = opened(&directory).unwrap();
    assert_eq!(state.fingerprints(), keys);
    assert_eq!(state.newest(&INDEX), Some(newest));
    assert_eq!(*state.release(&newest).unwrap().to_bytes(), share);
    assert_eq!(
        state.release(&version(3, 6, 1)).err().unwrap().reason,
        Reason::Stale
    );
    // The rotation is still open, and what is used of it is remembered as well.
    let masked = masked(&state);
    for _ in 0..8 {
        state
            .reencrypt(&INDEX, &from, &to, &masked, &mut rng(8))
            .unwrap();
    }
    drop(state);
    let state = opened(&directory).unwrap();
    let refused = state.reencrypt(&INDEX, &from, &to, &masked, &mut rng(8));
    assert_eq!(refused.err().unwrap().reason, Reason::Limit);
    state.retire(&from, &mut rng(9)).unwrap();
    drop(state);
    assert_eq!(opened(&directory).unwrap().fingerprints(), [to]);
}

#[test]
fn what_is_answered_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let state = created(folder.path());
    for (seed, answered) in [(6, version(1, 1, 1)), (7, version(1, 2, 2))] {
        state.register(&answered, &[], &mut rng(seed)).unwrap();
        // As a machine finds it that lost its power at this moment.
        let elsewhere = tempfile::tempdir().unwrap();
        let name = "keeper.state";
        std::fs::copy(folder.path().join(name), elsewhere.path().join(name)).unwrap();
        let found = opened(elsewhere.path()).unwrap();
        assert_eq!(found.newest(&INDEX), Some(answered));
    }
}

#[test]
fn a_kill_while_writing_leaves_the_old_or_the_new_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let state = created(folder.path());
    let (old, new) = (version(1, 1, 1), version(1, 2, 2));
    state.register(&old, &[], &mut rng(6)).unwrap();
    let before = std::fs::read(path("keeper.state")).unwrap();
    state.register(&new, &[], &mut rng(7)).unwrap();
    let after = std::fs::read(path("keeper.state")).unwrap();
    drop(state);
    // Before the rename: any part of the new file lies beside the old one.
    for written in [0, 1, 100, after.len() - 1, after.len()] {
        std::fs::write(path("keeper.state"), &before).unwrap();
        std::fs::write(path("keeper.state.next"), &after[..written]).unwrap();
        assert_eq!(opened(folder.path()).unwrap().newest(&INDEX), Some(old));
        assert!(!path("keeper.state.next").exists());
    }
    std::fs::write(path("keeper.state"), &after).unwrap();
    assert_eq!(opened(folder.path()).unwrap().newest(&INDEX), Some(new));
}

#[test]
fn fail_two_keepers_on_one_state() {
    let folder = tempfile::tempdir().unwrap();
    let state = created(folder.path());
    assert!(matches!(
        opened(folder.path()),
        Err(KeeperError::StateLocked(_))
    ));
    drop(state);
    assert!(opened(folder.path()).is_ok());
}

#[test]
fn fail_states_that_are_there_or_are_not() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!KeeperState::exists(folder.path()));
    assert!(matches!(
        opened(folder.path()),
        Err(KeeperError::StateMissing(_))
    ));
    drop(created(folder.path()));
    assert!(KeeperState::exists(folder.path()));
    let again = KeeperState::create(folder.path(), &key(1), None, secrets(1), &mut rng(2));
    assert!(matches!(again, Err(KeeperError::StateExists(_))));
    let mut mixed = secrets(1);
    mixed.public_key = secrets(2).public_key;
    let other = tempfile::tempdir().unwrap();
    let refused = KeeperState::create(other.path(), &key(1), None, mixed, &mut rng(2));
    assert!(matches!(refused, Err(KeeperError::KeyMismatch { .. })));
    assert!(!KeeperState::exists(other.path()));
}

#[test]
fn fail_a_state_under_another_key() {
    let folder = tempfile::tempdir().unwrap();
    drop(created(folder.path()));
    let refused = KeeperState::open(folder.path(), &key(2), None, &mut rng(3));
    assert!(matches!(refused, Err(KeeperError::StateForeign)));
    let sealer = |program: &[u8]| {
        let sealer = oboro_simulated::SimulatedSealer::new(oboro_simulated::measure(program));
        StateKey::sealed(&sealer).unwrap()
    };
    let sealed = tempfile::tempdir().unwrap();
    let keeper = sealer(b"keeper");
    drop(KeeperState::create(sealed.path(), &keeper, None, secrets(1), &mut rng(2)).unwrap());
    assert!(KeeperState::open(sealed.path(), &keeper, None, &mut rng(3)).is_ok());
    let refused = KeeperState::open(sealed.path(), &sealer(b"another"), None, &mut rng(3));
    assert!(matches!(refused, Err(KeeperError::StateForeign)));
}

#[test]
fn fail_every_flipped_byte_and_every_other_length() {
    let folder = tempfile::tempdir().unwrap();
    let state = created(folder.path());
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    drop(state);
    let path = folder.path().join("keeper.state");
    let whole = std::fs::read(&path).unwrap();
    let key = key(1);
    file::opens(&key, &whole).unwrap();
    let refused = |bytes: &[u8]| {
        let error = file::opens(&key, bytes).unwrap_err();
        let plain = matches!(
            error,
            KeeperError::StateForeign | KeeperError::StateFormat(_)
        );
        assert!(plain, "{error}");
    };
    for position in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        refused(&flipped);
    }
    for length in 0..whole.len() {
        refused(&whole[..length]);
    }
    let mut longer = whole.clone();
    longer.push(0);
    refused(&longer);
    refused(&vec![0xff; 17 << 20]);
    // And as a keeper finds it at its start.
    for position in [0, 9, 20, 35, 45, 60, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[position] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(opened(folder.path()).is_err());
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(opened(folder.path()).is_ok());
}

#[test]
fn no_secret_lies_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    drop(created(folder.path()));
    let file = std::fs::read(folder.path().join("keeper.state")).unwrap();
    let secrets = secrets(1);
    let secret = secrets.secret_key.to_bytes();
    let text = secrets.release_key.to_text();
    let public = secrets.public_key.to_bytes();
    for clear in [&secret[6..38], text[20..].as_bytes(), &public[6..38]] {
        assert!(!file.windows(clear.len()).any(|window| window == clear));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().mode();
        assert_eq!(mode("keeper.state") & 0o777, 0o600);
    }
}

#[test]
fn fail_a_state_put_back() {
    let (host, state) = Host::new();
    assert!(state.is_rollback_protected());
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    let old = host.copy();
    state.register(&version(1, 2, 2), &[], &mut rng(7)).unwrap();
    let newest = host.copy();
    drop(state);
    host.put_back(&old);
    let refused = host.open().err().unwrap();
    assert!(
        matches!(refused, KeeperError::RolledBack { .. }),
        "{refused}"
    );
    // Nothing is lost: the newest is accepted afterwards.
    host.put_back(&newest);
    let state = host.open().unwrap();
    assert_eq!(state.newest(&INDEX), Some(version(1, 2, 2)));
    // Even the copy from before this start is an old one now.
    drop(state);
    host.put_back(&newest);
    assert!(matches!(host.open(), Err(KeeperError::RolledBack { .. })));
}

#[test]
fn a_crash_between_write_and_count_locks_nobody_out() {
    let (host, state) = Host::new();
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    for _ in 0..3 {
        host.counter.broken.store(true, SeqCst);
        let state_before = host.copy();
        let failed = state.register(&version(1, 2, 2), &[], &mut rng(7));
        if host.copy() != state_before {
            assert_eq!(failed.err().unwrap().reason, Reason::Internal);
        }
        // Until a restart nothing is answered that rests on what is newest.
        host.counter.broken.store(false, SeqCst);
        let unsure = state.release(&version(1, 2, 2)).err().unwrap();
        assert_eq!(unsure.reason, Reason::Internal);
    }
    drop(state);
    let state = host.open().unwrap();
    assert_eq!(state.newest(&INDEX), Some(version(1, 2, 2)));
    state.register(&version(1, 3, 3), &[], &mut rng(8)).unwrap();
}

/// A host stops the keeper between write and count, keeps that file, lets the keeper go
/// on from the file before, and puts the kept one back once another state was answered.
#[test]
fn fail_a_fork_of_an_unanswered_write() {
    let (host, state) = Host::new();
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    let before = host.copy();
    host.counter.broken.store(true, SeqCst);
    assert!(
        state
            .register(&version(1, 2, 0xaa), &[], &mut rng(7))
            .is_err()
    );
    host.counter.broken.store(false, SeqCst);
    let unanswered = host.copy();
    drop(state);
    host.put_back(&before);
    let state = host.open().unwrap();
    state
        .register(&version(1, 2, 0xbb), &[], &mut rng(8))
        .unwrap();
    drop(state);
    host.put_back(&unanswered);
    let refused = host.open().err().unwrap();
    assert!(
        matches!(refused, KeeperError::RolledBack { .. }),
        "{refused}"
    );
}

#[test]
fn fail_a_keeper_whose_copy_has_gone_on() {
    let (host, first) = Host::new();
    first.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let name = "keeper.state";
    std::fs::copy(host.file(), elsewhere.path().join(name)).unwrap();
    let second = host.open_in(elsewhere.path()).unwrap();
    second
        .register(&version(1, 2, 2), &[], &mut rng(7))
        .unwrap();
    // The first does not know of that; it must not call the older state the newest.
    for refused in [
        first.release(&version(1, 1, 1)).err(),
        first.check_served(&INDEX, 1).err(),
        first.register(&version(1, 2, 3), &[], &mut rng(8)).err(),
    ] {
        assert_eq!(refused.unwrap().reason, Reason::Internal);
    }
    assert!(second.release(&version(1, 2, 2)).is_ok());
}

#[test]
fn fail_another_counter() {
    let (host, state) = Host::new();
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    drop(state);
    host.counter.value.store(7, SeqCst);
    let refused = host.open().err().unwrap();
    assert!(
        matches!(refused, KeeperError::AnotherCounter { .. }),
        "{refused}"
    );
}

#[test]
fn fail_a_counter_left_out_or_brought_later() {
    let (host, state) = Host::new();
    drop(state);
    let without = opened(&host.directory()).err().unwrap();
    assert!(matches!(without, KeeperError::CounterMissing), "{without}");
    assert!(host.open().is_ok());
    let folder = tempfile::tempdir().unwrap();
    drop(created(folder.path()));
    let later = host.open_in(folder.path()).err().unwrap();
    assert!(matches!(later, KeeperError::CounterUnknown), "{later}");
}

#[test]
fn a_rotation_asked_for_again_goes_to_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let state = created(folder.path());
    let from = state.fingerprints()[0];
    let ask = |set: ParameterSet, index: &[u8; 16], from: &[u8; 32]| {
        state.new_key(set.name(), index, from, &mut rng(7))
    };
    let reason = |result: Result<Arc<KeyPair>, Failure>| result.err().unwrap().reason;
    assert_eq!(reason(ask(SET, &INDEX, &from)), Reason::BadRequest);
    state.register(&version(1, 1, 1), &[], &mut rng(6)).unwrap();
    let larger = ParameterSet::N4096Q100;
    assert_eq!(reason(ask(larger, &INDEX, &from)), Reason::BadRequest);
    assert_eq!(reason(ask(SET, &INDEX, &[9; 32])), Reason::BadRequest);
    let to = ask(SET, &INDEX, &from).unwrap().fingerprint;
    assert_eq!(ask(SET, &INDEX, &from).unwrap().fingerprint, to);
    assert_eq!(state.fingerprints(), [from, to]);
    // The new epoch closes it; the next rotation starts from the new key.
    let masked = masked(&state);
    state
        .reencrypt(&INDEX, &from, &to, &masked, &mut rng(8))
        .unwrap();
    state.register(&version(2, 2, 2), &[], &mut rng(9)).unwrap();
    let closed = state.reencrypt(&INDEX, &from, &to, &masked, &mut rng(8));
    assert_eq!(closed.err().unwrap().reason, Reason::Forbidden);
    let next = state
        .new_key(SET.name(), &INDEX, &to, &mut rng(10))
        .unwrap();
    assert_eq!(state.fingerprints(), [from, to, next.fingerprint]);
}

#[test]
fn fail_more_keys_than_are_held() {
    let folder = tempfile::tempdir().unwrap();
    let state = created(folder.path());
    let from = state.fingerprints()[0];
    let only = state.retire(&from, &mut rng(6)).err().unwrap();
    assert_eq!(only.reason, Reason::BadRequest);
    let unknown = state.retire(&[9; 32], &mut rng(6)).err().unwrap();
    assert_eq!(unknown.reason, Reason::BadRequest);
    let ask = |number: u8| {
        let index = IndexState {
            index_id: [number + 1; 16],
            ..version(1, 1, 1)
        };
        state.register(&index, &[], &mut rng(number)).unwrap();
        state.new_key(SET.name(), &index.index_id, &from, &mut rng(100 + number))
    };
    for number in 0..63 {
        ask(number).unwrap();
    }
    let refused = ask(63).err().unwrap();
    assert_eq!(refused.reason, Reason::Limit);
    assert_eq!(state.fingerprints().len(), 64);
    drop(state);
    assert_eq!(opened(folder.path()).unwrap().fingerprints().len(), 64);
}

fn payload() -> Vec<u8> {
    let KeeperSecrets {
        secret_key,
        public_key,
        release_key,
    } = secrets(1);
    let pair = KeyPair::new(secret_key, public_key).unwrap();
    let from = pair.fingerprint;
    let mut contents = Contents::new(pair, release_key);
    contents.versions.record(&version(1, 1, 1), &[]).unwrap();
    contents.rotations.open(&INDEX, &from, &[1; 32]).unwrap();
    contents.encode().to_vec()
}

#[test]
fn fail_payloads_that_no_keeper_writes() {
    let payload = payload();
    assert_eq!(
        Contents::decode(&payload).unwrap().encode().as_slice(),
        payload
    );
    for length in 0..payload.len() {
        assert!(Contents::decode(&payload[..length]).is_err());
    }
    let mut longer = payload.clone();
    longer.push(0);
    assert!(Contents::decode(&longer).is_err());
    // Behind the seal nobody can flip bytes; still, no byte may break the reader.
    for position in (0..payload.len()).step_by(3) {
        let mut flipped = payload.clone();
        flipped[position] ^= 0xff;
        let _ = Contents::decode(&flipped);
    }
}

proptest! {
    #[test]
    fn fail_random_payloads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Contents::decode(&bytes);
    }
}
