//! Against a real software TPM.

#![allow(clippy::unwrap_used)]

mod swtpm;

use oboro_tpm::{
    Address, AttestationKey, AttestationPublic, CounterAuth, KeyChoice, MonotonicCounter,
    NvCounter, PcrSelection, PublicKey, QuoteSignature, QuoteStatement, SealingRoot, Tpm, TpmError,
};
use sha2::{Digest, Sha256};
use swtpm::Swtpm;
use zeroize::Zeroizing;

#[test]
fn pcrs_are_extended_and_read() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let tpm = machine.open();
    let all = PcrSelection::new(0..24).unwrap();
    let before = tpm.read_pcrs(all).unwrap();
    assert_eq!(before.value(0).unwrap(), &[0; 32]);
    assert_eq!(before.value(17).unwrap(), &[0xff; 32]);
    tpm.extend_pcr(11, &[7; 32]).unwrap();
    let after = tpm.read_pcrs(all).unwrap();
    let expected: [u8; 32] = Sha256::new()
        .chain_update([0; 32])
        .chain_update([7; 32])
        .finalize()
        .into();
    assert_eq!(after.value(11).unwrap(), &expected);
    for number in (0..24).filter(|number| *number != 11) {
        assert_eq!(before.value(number), after.value(number), "PCR {number}");
    }
    assert_eq!(
        tpm.read_pcrs(PcrSelection::new([11]).unwrap())
            .unwrap()
            .value(11),
        Some(&expected)
    );
}

#[test]
fn quotes_say_what_was_asked() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let tpm = machine.open();
    tpm.extend_pcr(4, &[9; 32]).unwrap();
    for choice in [KeyChoice::EcdsaP256, KeyChoice::RsaPss2048] {
        let key = AttestationKey::new(tpm.clone(), choice).unwrap();
        let selection = PcrSelection::new([0, 4, 7, 11]).unwrap();
        let quote = key.quote(selection, &[3; 32]).unwrap();
        let statement = QuoteStatement::decode(&quote.statement).unwrap();
        assert_eq!(statement.extra_data, [3; 32]);
        assert_eq!(statement.selection, selection);
        assert_eq!(statement.digest, quote.pcrs.digest());
        let public = AttestationPublic::decode(&quote.public).unwrap();
        match (
            public.key(),
            QuoteSignature::decode(&quote.signature).unwrap(),
        ) {
            (PublicKey::EcdsaP256 { .. }, QuoteSignature::EcdsaP256(_)) => {}
            (PublicKey::RsaPss { modulus, exponent }, QuoteSignature::RsaPss(signature)) => {
                assert_eq!(
                    (modulus.len(), *exponent, signature.len()),
                    (256, 65_537, 256)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_attestation_key_is_the_same_after_a_reboot_and_another_on_another_tpm() {
    let (Some(mut machine), Some(other)) = (Swtpm::start(), Swtpm::start()) else {
        return;
    };
    let public = |machine: &Swtpm| {
        AttestationKey::new(machine.open(), KeyChoice::EcdsaP256)
            .unwrap()
            .public()
            .unwrap()
    };
    let first = public(&machine);
    assert_ne!(first, public(&other));
    machine.reboot();
    assert_eq!(first, public(&machine));
}

#[test]
fn objects_are_freed_and_a_lost_connection_is_an_error() {
    let Some(mut machine) = Swtpm::start() else {
        return;
    };
    let tpm = machine.open();
    let key = AttestationKey::new(tpm.clone(), KeyChoice::EcdsaP256).unwrap();
    let selection = PcrSelection::new([0]).unwrap();
    key.quote(selection, &[1; 32]).unwrap();
    // More than a TPM has places for: none of them stays behind.
    for _ in 0..10 {
        AttestationKey::new(tpm.clone(), KeyChoice::EcdsaP256).unwrap();
    }
    key.quote(selection, &[2; 32]).unwrap();
    drop(key);
    machine.reboot();
    assert!(matches!(
        tpm.read_pcrs(selection),
        Err(TpmError::Io(_) | TpmError::Absent { .. })
    ));
}

#[test]
fn sealing_keys_belong_to_purpose_tpm_and_pcrs() {
    let (Some(mut machine), Some(other)) = (Swtpm::start(), Swtpm::start()) else {
        return;
    };
    let selection = PcrSelection::new([0, 11]).unwrap();
    let key = |machine: &Swtpm, purpose: &str| {
        let root = SealingRoot::new(machine.open(), selection).unwrap();
        *root.key(purpose).unwrap()
    };
    let first = key(&machine, "keeper state");
    assert_eq!(first, key(&machine, "keeper state"));
    assert_ne!(first, key(&machine, "another purpose"));
    assert_ne!(first, key(&other, "keeper state"));
    machine.open().extend_pcr(11, &[1; 32]).unwrap();
    assert_ne!(first, key(&machine, "keeper state"));
    // A PCR that is not selected plays no part, and another start with the same PCRs
    // gives the same key.
    machine.reboot();
    machine.open().extend_pcr(5, &[1; 32]).unwrap();
    assert_eq!(first, key(&machine, "keeper state"));
}

#[test]
fn fail_sealing_key_after_the_pcrs_moved_on() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let tpm = machine.open();
    let root = SealingRoot::new(tpm.clone(), PcrSelection::new([11]).unwrap()).unwrap();
    root.key("keeper state").unwrap();
    tpm.extend_pcr(11, &[1; 32]).unwrap();
    // More often than a TPM has places for sessions.
    for _ in 0..10 {
        assert!(matches!(
            root.key("keeper state"),
            Err(TpmError::Refused { .. })
        ));
    }
}

#[test]
fn the_counter_only_goes_up() {
    let Some(mut machine) = Swtpm::start() else {
        return;
    };
    let open = |machine: &Swtpm| {
        NvCounter::open(
            machine.open(),
            NvCounter::DEFAULT_INDEX,
            CounterAuth::default(),
        )
        .unwrap()
    };
    let counter = open(&machine);
    let first = counter.read().unwrap();
    assert_eq!(counter.read().unwrap(), first);
    assert_eq!(counter.increment().unwrap(), first + 1);
    assert_eq!(counter.increment().unwrap(), first + 2);
    drop(counter);
    assert_eq!(open(&machine).read().unwrap(), first + 2);
    machine.reboot();
    let counter = open(&machine);
    assert_eq!(counter.read().unwrap(), first + 2);
    assert_eq!(counter.increment().unwrap(), first + 3);
    assert!(counter.describe().contains("0x01804f42"));
}

/// The protocol of [`MonotonicCounter`] with a file, as a keeper's state is kept.
#[test]
fn fail_a_state_file_put_back() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let counter = NvCounter::open(
        machine.open(),
        NvCounter::DEFAULT_INDEX,
        CounterAuth::default(),
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let write = || {
        let next = counter.read().unwrap() + 1;
        std::fs::write(&file, next.to_be_bytes()).unwrap();
        assert_eq!(counter.increment().unwrap(), next);
    };
    let is_newest = || {
        let bytes = std::fs::read(&file).unwrap();
        u64::from_be_bytes(bytes.try_into().unwrap()) == counter.read().unwrap()
    };
    write();
    assert!(is_newest());
    let old = std::fs::read(&file).unwrap();
    write();
    assert!(is_newest());
    std::fs::write(&file, old).unwrap();
    assert!(!is_newest());
}

#[test]
fn fail_counter_with_another_authorization() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let open = |value: &[u8]| {
        NvCounter::open(
            machine.open(),
            NvCounter::DEFAULT_INDEX,
            CounterAuth {
                index: Zeroizing::new(value.to_vec()),
                ..CounterAuth::default()
            },
        )
    };
    open(b"secret").unwrap().increment().unwrap();
    assert!(matches!(open(b"guess"), Err(TpmError::Refused { .. })));
    assert!(matches!(open(&[1; 33]), Err(TpmError::LongAuth(33))));
    open(b"secret").unwrap().increment().unwrap();
}

#[test]
fn fail_index_that_is_no_counter_of_ours() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    assert!(matches!(
        NvCounter::open(machine.open(), 0x8100_0001, CounterAuth::default()),
        Err(TpmError::Index { .. })
    ));
}

#[test]
fn fail_no_tpm() {
    for text in [
        "/dev/oboro-no-such-tpm",
        "tcp:127.0.0.1:1",
        "unix:/oboro/no-such-socket",
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        let error = Tpm::open(address).unwrap_err();
        assert!(matches!(error, TpmError::Absent { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn fail_addresses() {
    for text in [
        "",
        "tpm",
        "tcp:",
        "tcp:host",
        "tcp::1",
        "tcp:host:port",
        "tcp:host:70000",
        "unix:",
        "unix:relative",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

/// A server that answers every command with the same bytes.
fn answering(answer: &'static [u8]) -> Address {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut command = [0; 4096];
            while stream.read(&mut command).is_ok_and(|length| length > 0) {
                if stream.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    Address::Tcp(address.to_string())
}

#[test]
fn fail_answers_no_tpm_gives() {
    // An answer of success to the first command of all, to begin with.
    assert!(Tpm::open(answering(&[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0])).is_ok());
    for (answer, expected) in [
        // Shorter than its header; longer than any; a code of a vendor; bytes too many.
        (&[0x80, 0x01, 0, 0, 0, 9, 0, 0, 0, 0][..], "malformed"),
        (
            &[0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            "malformed",
        ),
        (
            &[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x05, 0x01],
            "0x501 (of its vendor)",
        ),
        (&[0x80, 0x01, 0, 0, 0, 11, 0, 0, 0, 0, 0], "malformed"),
        (&[0x80, 0x02, 0, 0, 0, 10, 0, 0, 0, 0], "malformed"),
    ] {
        let error = Tpm::open(answering(answer)).unwrap_err().to_string();
        assert!(error.contains(expected), "{answer:?}: {error}");
    }
}

/// A pipe in the place of the device gives back what was written to it: the command,
/// which read as an answer refuses with the command's own number.
#[test]
fn a_device_is_written_to_and_read_from() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tpm");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let address: Address = path.to_str().unwrap().parse().unwrap();
    assert!(address.exists());
    assert!(matches!(
        Tpm::open(address),
        Err(TpmError::Refused { code: 0x143, .. })
    ));
}
