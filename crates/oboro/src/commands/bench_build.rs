//! The index that `oboro bench` makes, in any of the three modes. Each role that takes part is
//! a process of its own, so that its processor time and its memory can be told apart; the
//! owner is this process.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use oboro_channel::Role;
use serde::Serialize;

use super::bench::Options;
use super::build::{self, Mode};
use super::serve::{Pair, PairOptions, arguments};
use super::{blind, enclave, keygen};
use crate::failure::{Failure, Outcome, usage_of};
use crate::figures::round;
use crate::output;
use crate::processes::RoleProcess;
use crate::progress::Progress;
use crate::roles::{GENERATOR_ADDRESS, SEARCHER_ADDRESS};
use crate::usage;

/// How the index was made, and what that took. The names are a contract.
#[derive(Serialize)]
pub(super) struct Generated {
    mode: &'static str,
    /// Further options of the build.
    options: Vec<String>,
    #[serde(skip)]
    pub(super) seconds: f64,
    roles: Vec<RoleUsage>,
}

/// What one role took for it.
#[derive(Serialize)]
struct RoleUsage {
    role: &'static str,
    processor_seconds: f64,
    /// The most memory that the process had.
    peak_bytes: u64,
}

impl RoleUsage {
    /// So far, of a process that is called by its number; `before` is what it had run then.
    fn of(role: Role, process: &str, before: f64) -> Outcome<Self> {
        let seconds = usage::processor_seconds(process);
        let (Some(seconds), Some(peak_bytes)) = (seconds, usage::peak_bytes(process)) else {
            return Err(Failure::failed(format_args!(
                "the system does not say what the {} has used; bench needs the figures of /proc",
                role.name()
            )));
        };
        Ok(Self {
            role: role.name(),
            processor_seconds: round(seconds - before, 4),
            peak_bytes,
        })
    }
}

/// An index and the keys that were made for it.
pub(super) struct Made {
    pub(super) index: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) generated: Generated,
}

/// Makes keys and an index of `base` in the folder `work`.
pub(super) fn make(
    options: &Options,
    base: &Path,
    work: &Path,
    progress: &Progress,
) -> Outcome<Made> {
    let keys = work.join("keys");
    let mut settings = settings(options, base, &keys)?;
    let mut index = work.join("index");
    // With the usual addresses until the roles say theirs: what cannot be is refused before
    // one of them runs.
    match settings.mode.as_str() {
        build::BLIND => settings.searcher = Some(SEARCHER_ADDRESS.to_owned()),
        build::ENCLAVE => settings.generator = Some(GENERATOR_ADDRESS.to_owned()),
        _ => {}
    }
    if settings.mode != build::BLIND {
        settings.out = Some(index.clone());
    }
    let mode = settings.mode()?;
    keygen::make(&keys, keygen::parameter_set(&options.set)?, 1, None)?;
    let before = usage::processor_seconds(usage::OWN).unwrap_or(0.0);
    let cancel = Arc::<AtomicBool>::default();
    let (name, seconds, others) = match mode {
        Mode::Local => {
            let built = build::build(&settings, progress, &cancel)?;
            (build::LOCAL, built.seconds, Vec::new())
        }
        Mode::Enclave => {
            let generator = generator(options, &keys, &work.join("generator"))?;
            settings.generator = Some(generator.ready.address.to_string());
            let built = enclave::build(&settings, progress, &cancel)?;
            let others = vec![RoleUsage::of(Role::Generator, &generator.process(), 0.0)?];
            // It has no last words.
            drop(generator);
            (build::ENCLAVE, built.seconds, others)
        }
        Mode::Blind => {
            // A searcher may write to the folder around its index, and only this lies there.
            index = work.join("served").join("index");
            fs::create_dir(work.join("served")).map_err(Failure::failed)?;
            let mut pair = PairOptions::local(&index, &keys, options.threads);
            pair.policy = options.policy.policy.as_deref();
            pair.allow_simulated = options.policy.policy.is_none();
            pair.generate = true;
            // It listens a second time when the index is there, for which the port must have
            // been named at its start.
            pair.listen = free_address().map_err(Failure::failed)?;
            let pair = Pair::start(&pair)?;
            settings.searcher = Some(pair.address());
            settings.keeper = Some(pair.keeper.ready.address.to_string());
            let built = blind::build(&settings, progress, &cancel)?;
            let others = vec![
                RoleUsage::of(Role::Searcher, &pair.searcher.process(), 0.0)?,
                RoleUsage::of(Role::Keeper, &pair.keeper.process(), 0.0)?,
            ];
            // The searcher may be about to serve what it made.
            drop(pair);
            (build::BLIND, built.seconds(), others)
        }
    };
    let mut roles = vec![RoleUsage::of(Role::Owner, usage::OWN, before)?];
    roles.extend(others);
    progress.remark(format_args!("built in {seconds:.1} s"));
    Ok(Made {
        index,
        keys,
        generated: Generated {
            mode: name,
            options: options.build.clone(),
            seconds,
            roles,
        },
    })
}

/// A generator that goes on after the build, so that what it took can be read.
fn generator(options: &Options, keys: &Path, work: &Path) -> Outcome<RoleProcess> {
    let mut line = arguments([
        ("--keys", Some(keys.into())),
        ("--listen", Some("127.0.0.1:0".into())),
        ("--work", Some(work.into())),
        ("--threads", options.threads.map(|n| n.to_string().into())),
    ]);
    line.push("--stay".into());
    if options.policy.policy.is_none() {
        line.push("--allow-simulated".into());
    }
    RoleProcess::start("generator", line)
}

/// One of this machine that nobody listens on.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Options of a build after `--`.
#[derive(Parser)]
#[command(no_binary_name = true, args_override_self = true)]
struct Further {
    #[command(flatten)]
    settings: build::Options,
}

/// What is built: the options of `bench`, and those after `--`, which count more.
fn settings(options: &Options, base: &Path, keys: &Path) -> Outcome<build::Options> {
    let mut line = arguments([
        ("--keys", Some(keys.into())),
        ("--mode", Some(options.mode.clone().into())),
        ("--metric", Some(options.metric.clone().into())),
        ("--centroids", Some(options.centroids.to_string().into())),
        ("--split", options.split.map(|n| n.to_string().into())),
        ("--seed", Some("1".into())),
        (
            "--subquantizers",
            options.subquantizers.map(|m| m.to_string().into()),
        ),
        // In an enclave they are the generator's.
        (
            "--threads",
            options
                .threads
                .filter(|_| options.mode != build::ENCLAVE)
                .map(|n| n.to_string().into()),
        ),
    ]);
    line.push(base.into());
    line.extend(options.build.iter().map(OsString::from));
    let mut settings = Further::try_parse_from(line)
        .map_err(|error| usage_of(&error))?
        .settings;
    let own = build::Options::new(base, keys, Path::new("."));
    let elsewhere = [&settings.searcher, &settings.generator, &settings.keeper];
    if settings.vectors != own.vectors
        || settings.keys != own.keys
        || settings.mode != options.mode
        || settings.keyholder != own.keyholder
        || settings.out.is_some()
        || settings.state.is_some()
        || settings.policy.policy.is_some()
        || elsewhere.into_iter().any(Option::is_some)
        || settings.dry_run
        || settings.estimate
        || settings.resume
    {
        return Err(Failure::usage(
            "after -- come options that say how an index is made, such as --opq or --sample N; files, keys, mode, roles and policy are bench's own",
        ));
    }
    settings.policy.clone_from(&options.policy);
    settings.allow_simulated = options.policy.policy.is_none();
    Ok(settings)
}

/// Bytes of the files of a folder and of those within it.
pub(super) fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += match about.is_dir() {
            true => folder_bytes(&entry.path())?,
            false => about.len(),
        };
    }
    Ok(sum)
}

impl Generated {
    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut line = |what: &str, value: String| writeln!(out, "  {what:44} {value}");
        line(
            &format!("build, {}", self.mode),
            format!("{:.1} s", self.seconds),
        )?;
        for role in &self.roles {
            line(
                &format!("of that, the {}", role.role),
                format!(
                    "{:.1} s of processors, {} at most",
                    role.processor_seconds,
                    output::bytes(role.peak_bytes)
                ),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_folders_within_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), [0; 10]).unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b").join("c"), [0; 7]).unwrap();
        assert_eq!(folder_bytes(folder.path()).unwrap(), 17);
        assert!(folder_bytes(&folder.path().join("d")).is_err());
    }
}
