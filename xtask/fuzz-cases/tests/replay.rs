//! Replays the seeds and the stored corpus, and inputs once found to break a decoder.
//!
//! `OBORO_WRITE_SEEDS=1 cargo test -p oboro-fuzz-cases` writes the seeds into the corpus.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use oboro_attest::Platform;
use oboro_fuzz_cases::{CASES, attest, seeds};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Run by hand when the form of certificates changes.
#[test]
#[ignore = "writes new certificates into the sources"]
fn write_certificates() {
    seeds::write_certificates(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
}

#[test]
fn every_case_has_a_seed_and_a_target() {
    let all = seeds::all();
    for (name, _) in CASES {
        let target = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        assert!(target.is_file(), "{name} has no fuzz target");
        // A state is sealed under keys that the seeds do not have.
        assert!(
            *name == "keeper_state" || all.iter().any(|(case, _)| case == name),
            "{name} has no seed"
        );
    }
}

/// Otherwise nothing of the evidence would be read.
#[test]
fn rules_of_the_cases_are_complete() {
    attest::snp_rules().check().unwrap();
    attest::dcap_rules(48).check(Platform::Tdx).unwrap();
    attest::dcap_rules(32).check(Platform::Sgx).unwrap();
    attest::nitro_rules().check().unwrap();
    attest::tpm_rules().check().unwrap();
}

#[test]
fn seeds_and_corpus_break_nothing() {
    let write = std::env::var_os("OBORO_WRITE_SEEDS").is_some();
    let mut replayed = 0;
    for (number, (name, bytes)) in seeds::all().into_iter().enumerate() {
        let (_, case) = CASES.iter().find(|(case, _)| *case == name).unwrap();
        case(&bytes);
        replayed += 1;
        if write {
            let folder = fuzz().join("corpus").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("seed-{number:02}")), &bytes).unwrap();
        }
    }
    for (name, case) in CASES {
        for folder in ["corpus", "regressions"] {
            let Ok(files) = fs::read_dir(fuzz().join(folder).join(name)) else {
                continue;
            };
            for file in files {
                case(&fs::read(file.unwrap().path()).unwrap());
                replayed += 1;
            }
        }
    }
    println!("{replayed} inputs replayed");
}

/// Cut, lengthened, and flipped in places: cheap mutations of every seed.
#[test]
fn mutated_seeds_break_nothing() {
    for (name, bytes) in seeds::all() {
        let (_, case) = CASES.iter().find(|(case, _)| *case == name).unwrap();
        let steps = bytes.len().min(48);
        for step in 0..steps {
            let at = step * bytes.len() / steps;
            case(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x81;
            case(&flipped);
        }
        let mut longer = bytes;
        longer.push(0);
        case(&longer);
    }
}
