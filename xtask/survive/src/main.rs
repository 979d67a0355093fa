//! What an index, a keeper's state and key files survive: a kill at each system call
//! that writes, a loss of power at each moment, and disks that are full, read-only or
//! broken.
//!
//! `cargo run --release -p xtask-survive -- [--full] [--only NAME]... [--seed N]`
//!
//! Each scenario is run once under strace, which shows every call that writes with its
//! bytes ([`record`]). Then it is run again and killed before each of these calls, and
//! with each of them failing ([`inject`]); two are let run at once ([`rivals`]); and the states that a loss of power may leave
//! are built from the recording ([`crash`]). Every folder that comes of it must open at
//! the last step that was called durable or the one in flight, whole; the scenario must
//! be able to go on from it to its end; and nothing may be left behind ([`check`]).
//! A blind build, which three processes make together, is killed at moments and compared
//! byte by byte ([`blind`]).
//! Without `--full` a part of the cases is looked at, in less than a minute.

mod blind;
mod check;
mod crash;
mod disk;
mod drive;
mod inject;
mod parse;
mod power;
mod record;
mod rivals;
mod scenario;
mod strace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::check::Faults;
use crate::crash::Effort;
use crate::disk::Disk;
use crate::record::Recording;
use crate::scenario::Scenario;

type Outcome<T> = Result<T, String>;

/// How much is looked at.
struct Plan {
    full: bool,
    seed: u64,
    only: Vec<String>,
}

impl Plan {
    /// `share`: a part of the usual only.
    const fn effort(&self, share: usize) -> Effort {
        if self.full {
            Effort {
                exhaustive: 8,
                pairs: 16,
                drawn: 64,
                opened: usize::MAX,
            }
        } else {
            Effort {
                exhaustive: 4,
                pairs: 0,
                drawn: 2,
                opened: 200 / share,
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name, folder] = arguments.as_slice()
        && word == drive::WORD
        && let Some(scenario) = scenario::find(name)
    {
        return drive::run(scenario.as_ref(), Path::new(folder));
    }
    let Some(plan) = plan(&arguments) else {
        eprintln!("usage: xtask-survive [--full] [--only NAME]... [--seed N]");
        eprintln!(
            "scenarios: {}, {}",
            scenario::names().join(", "),
            blind::NAME
        );
        return ExitCode::from(2);
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("survive: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let mut plan = Plan {
        full: false,
        seed: 1,
        only: Vec::new(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => plan.full = true,
            "--seed" => plan.seed = arguments.next()?.parse().ok()?,
            "--only" => plan.only.push(arguments.next()?.clone()),
            _ => return None,
        }
    }
    plan.only
        .iter()
        .all(|name| name == blind::NAME || scenario::find(name).is_some())
        .then_some(plan)
}

fn run(plan: &Plan) -> Outcome<()> {
    if let Err(reason) = strace::available() {
        if std::env::var_os("CI").is_some() {
            return Err(reason);
        }
        println!("survive: SKIPPED: {reason}");
        return Ok(());
    }
    let begin = Instant::now();
    let place = place()?;
    let chosen: Vec<Box<dyn Scenario>> = scenario::all()
        .into_iter()
        .filter(|scenario| {
            if plan.only.is_empty() {
                !scenario.is_planted()
            } else {
                plan.only.contains(&scenario.name())
            }
        })
        .collect();
    let mut faults = 0;
    for scenario in &chosen {
        if let Err(reason) = scenario.available() {
            if std::env::var_os("CI").is_some() {
                return Err(reason);
            }
            println!("survive: {}: SKIPPED: {reason}", scenario.name());
            continue;
        }
        faults += survive(scenario.as_ref(), plan, place.path())
            .map_err(|error| format!("{}: {error}", scenario.name()))?;
    }
    if plan.only.is_empty() || plan.only.iter().any(|name| name == blind::NAME) {
        match scenario::program() {
            Ok(_) => {
                faults += blind::survive(plan, place.path())
                    .map_err(|error| format!("{}: {error}", blind::NAME))?;
            }
            Err(reason) if std::env::var_os("CI").is_some() => return Err(reason),
            Err(reason) => println!("survive: {}: SKIPPED: {reason}", blind::NAME),
        }
    }
    println!("survive: {:.0} s in all", begin.elapsed().as_secs_f64());
    if faults > 0 {
        return Err(format!("{faults} cases with faults"));
    }
    Ok(())
}

/// Memory where there is some, for nothing here has to reach a disk.
fn place() -> Outcome<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("oboro-survive-");
    let made = if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    };
    made.map_err(|error| error.to_string())
}

/// One scenario through everything; the number of cases with faults.
fn survive(scenario: &dyn Scenario, plan: &Plan, place: &Path) -> Outcome<usize> {
    let begin = Instant::now();
    let recording = recorded(scenario, place)?;
    let mut faults = Faults::default();
    let points = recording.operations.len();
    // Starting the command takes longer than all that a scenario in here does.
    let share = if scenario.command(place)?.is_some() {
        4
    } else {
        1
    };
    let stride = |most: usize| {
        if plan.full {
            1
        } else {
            points.div_ceil(most / share).max(1)
        }
    };
    let kills = inject::kills(scenario, &recording, stride(40), place, &mut faults)?;
    let errors = inject::errors(scenario, &recording, stride(20) * 3, place, &mut faults)?;
    let counts = power::losses(
        scenario,
        &recording,
        plan.effort(share),
        plan.seed,
        place,
        &mut faults,
    )?;
    let rounds = if plan.full { 50 } else { 5 };
    let away = rivals::meet(scenario, &recording.before, rounds, place, &mut faults)?;
    println!(
        "survive: {}: {points} operations; {kills} kills, {errors} disk errors, {away} rivals turned away, {} losses of power ({} different folders, {} opened); {} cases with faults; {:.1} s",
        scenario.name(),
        counts.crashes,
        counts.states,
        counts.opened,
        faults.count(),
        begin.elapsed().as_secs_f64()
    );
    faults.print(&scenario.name());
    Ok(faults.count())
}

/// The scenario run undisturbed.
fn recorded(scenario: &dyn Scenario, place: &Path) -> Outcome<Recording> {
    let dir = tempfile::tempdir_in(place).map_err(|error| error.to_string())?;
    let prepared = dir.path().join("prepared");
    std::fs::create_dir(&prepared).map_err(disk::at(&prepared))?;
    scenario.prepare(&prepared)?;
    let before = Disk::read(&prepared)?;
    // Made as the folders of disturbed runs are, so that it lists its files as they do.
    let folder = dir.path().join("folder");
    disk::write(&before.tree(), &folder)?;
    let (text, ended) = strace::trace(scenario, &folder, &dir.path().join("log"))?;
    if ended.code != Some(0) || ended.told != scenario.steps() {
        return Err(format!(
            "undisturbed it ends with {:?} at step {} of {}: {}",
            ended.code,
            ended.told,
            scenario.steps(),
            ended.errors
        ));
    }
    let mut recording = record::record(before, &folder, &parse::calls(&text)?)?;
    if scenario.command(&folder)?.is_some() {
        recording.operations.push(record::Operation {
            act: record::Act::Told(scenario.steps()),
            call: String::new(),
            ordinal: 0,
            words: "end with success".to_owned(),
        });
    }
    let whole = crash::state(&recording, recording.operations.len(), &|_| {
        crash::Fate::Done
    });
    let found = Disk::read(&folder)?;
    if disk::digest(&whole.tree()) != disk::digest(&found.tree()) {
        return Err("the recording does not lead to the folder that is there".to_owned());
    }
    Ok(recording)
}
