//! A blind build whose owner, searcher and keeper are killed: it goes on, and the index
//! has the same bytes as one that was made in one go.
//!
//! Three processes that talk to one another make no two runs with the same system calls,
//! so they are killed at moments, spread over the time that the build takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand_core::{Rng as _, SeedableRng as _};

use crate::disk::at;
use crate::scenario::program;
use crate::{Outcome, Plan};

/// Its name on the command line.
pub(crate) const NAME: &str = "blind-build";

const VECTORS: usize = 3_000;
const DIMENSION: usize = 32;
/// Vectors of a segment: some five of them.
const SEGMENT: &str = "640";

/// Moments in the life of one build.
const USUAL: usize = 4;
const FULL: usize = 40;

/// Everything lasts longer than this only where it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom a kill meets.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Owner,
    Searcher,
    Keeper,
    All,
}

/// A process, killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A keeper or searcher that has said its address.
struct Role {
    _process: Process,
    address: String,
}

impl Role {
    fn start(arguments: &[&str], address: &str) -> Outcome<Self> {
        let mut child = Command::new(program()?)
            .args(["--json", "--quiet"])
            .args(arguments)
            .args(["--allow-simulated", "--listen", address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| error.to_string())?;
        let address = line
            .split_once("\"address\":\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .ok_or_else(|| format!("a role did not start: {line}"))?
            .0
            .to_owned();
        Ok(Self {
            _process: process,
            address,
        })
    }
}

/// Everything of one build.
struct World {
    folder: PathBuf,
    keeper: Option<Role>,
    searcher: Option<Role>,
}

impl World {
    /// Fresh keepers and searchers with the same keys.
    fn start(keys: &Path, folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder.join("new")).map_err(at(folder))?;
        copy(keys, &folder.join("keys"))?;
        let mut world = Self {
            folder: folder.to_owned(),
            keeper: None,
            searcher: None,
        };
        world.revive("127.0.0.1:0", "127.0.0.1:0")?;
        Ok(world)
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Starts whoever does not run.
    fn revive(&mut self, keeper: &str, searcher: &str) -> Outcome<()> {
        let keys = self.at("keys");
        if self.keeper.is_none() {
            let arguments = ["keeper", "--keys", &keys];
            if !self.folder.join("keys/keeper/state").exists() {
                // One that begins its records has another configuration than later.
                Role::start(&[&arguments[..], &["--new-state"]].concat(), keeper)?;
            }
            self.keeper = Some(Role::start(&arguments, keeper)?);
        }
        let address = self.keeper.as_ref().map(|role| role.address.clone());
        let (index, address) = (self.at("new/index"), address.unwrap_or_default());
        if self.searcher.is_none() {
            let arguments = [
                "searcher",
                "--generate",
                "--keys",
                &keys,
                "--index",
                &index,
                "--keeper",
                &address,
            ];
            self.searcher = Some(Role::start(&arguments, searcher)?);
        }
        Ok(())
    }

    fn addresses(&self) -> (String, String) {
        let of = |role: &Option<Role>| {
            role.as_ref()
                .map_or_else(String::new, |role| role.address.clone())
        };
        (of(&self.keeper), of(&self.searcher))
    }

    fn kill(&mut self, victim: Victim, owner: &mut Process) -> Outcome<()> {
        let (keeper, searcher) = self.addresses();
        if matches!(victim, Victim::Searcher | Victim::All) {
            self.searcher = None;
        }
        if matches!(victim, Victim::Keeper | Victim::All) {
            self.keeper = None;
        }
        if matches!(victim, Victim::Owner | Victim::All) {
            let _ = owner.0.kill();
        }
        self.revive(&keeper, &searcher)
    }

    fn build(&self, vectors: &Path, resume: bool) -> Outcome<Process> {
        let (keeper, searcher) = self.addresses();
        let mut command = Command::new(program()?);
        command
            .args(["--json", "--quiet", "build"])
            .arg(vectors)
            .args(["--mode", "blind", "--allow-simulated", "--centroids", "16"])
            .args(["--iterations", "3", "--segment-vectors", SEGMENT])
            .args(["--keys", &self.at("keys"), "--state", &self.at("state")])
            .args(["--searcher", &searcher, "--keeper", &keeper]);
        if resume {
            command.arg("--resume");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn();
        child.map(Process).map_err(|error| error.to_string())
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Every file of the index.
    fn index(&self) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let folder = self.folder.join("new/index");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "LOCK" {
                let bytes = fs::read(entry.path()).map_err(at(&entry.path()))?;
                files.insert(name, bytes);
            }
        }
        Ok(files)
    }
}

/// How a build ended.
fn end(mut owner: Process) -> Outcome<bool> {
    let begin = Instant::now();
    loop {
        if let Some(status) = owner.0.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.success());
        }
        if begin.elapsed() > PATIENCE {
            return Err("a build hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn vectors(seed: u64) -> Vec<u8> {
    let mut rng = chacha20::ChaCha20Rng::seed_from_u64(seed);
    let mut bytes = Vec::with_capacity(VECTORS * (4 + 4 * DIMENSION));
    for _ in 0..VECTORS {
        bytes.extend((DIMENSION as u32).to_le_bytes());
        for _ in 0..DIMENSION {
            let value = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

/// One build in one go, then some that are killed; the number of cases with faults.
pub(crate) fn survive(plan: &Plan, place: &Path) -> Outcome<usize> {
    let begin = Instant::now();
    let place = tempfile::tempdir_in(place).map_err(|error| error.to_string())?;
    let (keys, file) = (place.path().join("keys"), place.path().join("base.fvecs"));
    fs::write(&file, vectors(plan.seed)).map_err(at(&file))?;
    let made = Command::new(program()?)
        .args(["--json", "--quiet", "keygen", "--out"])
        .arg(&keys)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if !made.success() {
        return Err(format!("keygen ends with {made}"));
    }
    let whole = World::start(&keys, &place.path().join("whole"))?;
    let owner = whole.build(&file, false)?;
    let state = loop {
        if let Ok(bytes) = fs::read(whole.state()) {
            break bytes;
        }
        if begin.elapsed() > PATIENCE {
            return Err("the undisturbed build kept no state".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let started = Instant::now();
    if !end(owner)? {
        return Err("the undisturbed build failed".to_owned());
    }
    let time = started.elapsed();
    let expected = whole.index()?;
    drop(whole);
    let moments = if plan.full { FULL } else { USUAL };
    let mut faults = 0;
    for number in 0..moments {
        let victims = [Victim::All, Victim::Searcher, Victim::Owner, Victim::Keeper];
        let victim = victims[number % victims.len()];
        let moment = time.mul_f64((number as f64 + 0.5) / moments as f64);
        let folder = place.path().join(format!("killed-{number}"));
        let mut world = World::start(&keys, &folder)?;
        fs::write(world.state(), &state).map_err(at(&folder))?;
        let mut owner = world.build(&file, true)?;
        std::thread::sleep(moment);
        world.kill(victim, &mut owner)?;
        let mut done = end(owner)?;
        for _ in 0..3 {
            if !done {
                done = end(world.build(&file, true)?)?;
            }
        }
        let same = done && world.index().is_ok_and(|index| index == expected);
        if !same || world.state().exists() {
            faults += 1;
            println!(
                "survive: {NAME}: FAULT: {victim:?} killed after {} ms: {}",
                moment.as_millis(),
                if done {
                    "other bytes"
                } else {
                    "it does not go on"
                }
            );
        }
        drop(world);
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    println!(
        "survive: {NAME}: {moments} kills in a build of {} ms and {} files; {faults} cases with faults; {:.1} s",
        time.as_millis(),
        expected.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(faults)
}
