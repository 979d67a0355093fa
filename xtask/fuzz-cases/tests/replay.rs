//! Replays the seeds and the stored corpus, and inputs once found to break a decoder.
//!
//! `OBORO_WRITE_SEEDS=1 cargo test -p oboro-fuzz-cases` writes the seeds into the corpus.
//!
//! Without a fuzzer, `OBORO_FUZZ_RUNS=10000 OBORO_FUZZ_CASE=learn_ cargo test -p
//! oboro-fuzz-cases -- --ignored random` mutates seeds and corpus at random.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use chacha20::ChaCha20Rng;
use oboro_attest::Platform;
use oboro_fuzz_cases::{CASES, attest, seeds};
use rand_core::{Rng, SeedableRng};

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

/// A few bytes changed, taken out, doubled, or replaced by numbers at the ends of their range.
fn mutated(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.next_u32() % 8 {
        let below = |most: usize, rng: &mut dyn Rng| rng.next_u64() as usize % most.max(1);
        let at = below(bytes.len(), rng);
        let end = bytes.len().min(at + 1 + below(16, rng));
        match rng.next_u32() % 7 {
            0 if at < end => bytes[at] ^= 1 << (rng.next_u32() % 8),
            1 if at < end => bytes[at] = rng.next_u32() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => bytes[at..end].fill([0, 0x7f, 0x80, 0xff][below(4, rng)]),
            // Digits, in what is text.
            5 if at < end => bytes[at] = b'0' + (rng.next_u32() % 10) as u8,
            6 if rng.next_u32().is_multiple_of(16) => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}

#[test]
#[ignore = "as long as OBORO_FUZZ_RUNS says"]
fn random_mutations_break_nothing() {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let (runs, chosen) = (text("OBORO_FUZZ_RUNS"), text("OBORO_FUZZ_CASE"));
    let runs: u64 = runs.parse().unwrap_or(1000);
    for (name, case) in CASES.iter().filter(|(name, _)| name.starts_with(&chosen)) {
        let mut starts: Vec<Vec<u8>> = seeds::all()
            .into_iter()
            .filter_map(|(of, bytes)| (of == *name).then_some(bytes))
            .collect();
        if let Ok(files) = fs::read_dir(fuzz().join("corpus").join(name)) {
            starts.extend(files.map(|file| fs::read(file.unwrap().path()).unwrap()));
        }
        if starts.is_empty() {
            starts.push(Vec::new());
        }
        // The same seed mutates in the same way.
        let seed = text("OBORO_FUZZ_SEED").parse().unwrap_or(0);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for run in 0..runs {
            let input = mutated(&starts[run as usize % starts.len()], &mut rng);
            let kept = std::env::temp_dir().join(format!("{name}.fuzz"));
            fs::write(&kept, &input).unwrap();
            case(&input);
            fs::remove_file(&kept).unwrap();
        }
        println!("{name}: {runs} mutations of {} inputs", starts.len());
    }
}
