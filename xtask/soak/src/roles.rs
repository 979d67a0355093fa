//! Keeper and searcher as processes of the command, and the owner's verbs.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oboro_vectors::{Matrix, write_fvecs};

use crate::Outcome;
use crate::data::{DIMENSION, Data};
use crate::expected::Ended;
use crate::usage::Usage;

/// How long a role may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(20);

/// Which of the two roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Keeper,
    Searcher,
}

impl Which {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::Searcher => "searcher",
        }
    }
}

/// Both roles, with what they need to start again.
pub(crate) struct Roles {
    program: PathBuf,
    folder: PathBuf,
    keeper_address: String,
    searcher_address: String,
    keeper: Option<Child>,
    searcher: Option<Child>,
}

impl Roles {
    /// Makes keys and an index in `folder`.
    pub(crate) fn prepare(folder: &Path, data: &Data) -> Outcome<Self> {
        let roles = Self {
            program: program()?,
            folder: folder.to_owned(),
            keeper_address: free_address()?,
            searcher_address: free_address()?,
            keeper: None,
            searcher: None,
        };
        let base = folder.join("base.fvecs");
        let rows = Matrix::new(DIMENSION, data.base.clone()).map_err(|error| error.to_string())?;
        write_fvecs(&base, &rows).map_err(|error| error.to_string())?;
        roles.verb(&["keygen", "--out", &roles.path("keys")])?;
        roles.verb(&[
            "build",
            &roles.path("base.fvecs"),
            "--keys",
            &roles.path("keys"),
            "--out",
            &roles.path("index"),
            "--subquantizers",
            "16",
        ])?;
        Ok(roles)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(crate) fn keys(&self, role: &str) -> PathBuf {
        self.folder.join("keys").join(role)
    }

    pub(crate) fn searcher_address(&self) -> &str {
        &self.searcher_address
    }

    /// Runs a verb of the command to its end; what it printed.
    fn verb(&self, arguments: &[&str]) -> Outcome<String> {
        verb(&self.program, arguments).map_err(|ended| ended.said)
    }

    /// For whoever changes the index.
    pub(crate) fn verbs(&self) -> Verbs {
        Verbs {
            program: self.program.clone(),
            folder: self.folder.clone(),
            keys: self.path("keys"),
            searcher: self.searcher_address.clone(),
        }
    }

    pub(crate) fn start_both(&mut self) -> Outcome<()> {
        self.start(Which::Keeper)?;
        self.start(Which::Searcher)
    }

    pub(crate) fn restart_missing(&mut self) -> Outcome<()> {
        for which in [Which::Keeper, Which::Searcher] {
            if self.slot(which).is_none() {
                self.start(which)?;
            }
        }
        Ok(())
    }

    fn slot(&mut self, which: Which) -> &mut Option<Child> {
        match which {
            Which::Keeper => &mut self.keeper,
            Which::Searcher => &mut self.searcher,
        }
    }

    /// Starts a role; it need not be ready when this returns.
    pub(crate) fn start(&mut self, which: Which) -> Outcome<()> {
        let keys = self.path("keys");
        let index = self.path("index");
        let mut arguments = vec![
            which.name(),
            "--keys",
            &keys,
            "--allow-simulated",
            "--listen",
        ];
        match which {
            Which::Keeper => {
                arguments.push(&self.keeper_address);
                if !self.keys("keeper").join("state").exists() {
                    arguments.push("--new-state");
                }
            }
            Which::Searcher => arguments.extend([
                self.searcher_address.as_str(),
                "--index",
                &index,
                "--keeper",
                &self.keeper_address,
            ]),
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{}.log", which.name())))
            .map_err(|error| error.to_string())?;
        let child = Command::new(&self.program)
            .args(["--json", "--quiet"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start the {}: {error}", which.name()))?;
        *self.slot(which) = Some(child);
        Ok(())
    }

    /// Sends a signal; the role goes on or ends as the signal has it.
    pub(crate) fn signal(&mut self, which: Which, signal: Signal) -> Outcome<()> {
        let Some(child) = self.slot(which) else {
            return Ok(());
        };
        kill(Pid::from_raw(child.id() as i32), signal).map_err(|error| error.to_string())
    }

    /// Ends a role by a signal and waits for its end.
    pub(crate) fn end(&mut self, which: Which, signal: Signal) -> Outcome<()> {
        self.signal(which, signal)?;
        let Some(mut child) = self.slot(which).take() else {
            return Ok(());
        };
        let deadline = Instant::now() + GRACE;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if signal == Signal::SIGKILL || status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!(
                        "the {} ended with {status} when it was asked to stop: {}",
                        which.name(),
                        self.last_words(which)
                    ));
                }
                Ok(None) if Instant::now() > deadline => {
                    let _ = child.kill();
                    return Err(format!(
                        "the {} did not stop within {} s",
                        which.name(),
                        GRACE.as_secs()
                    ));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    pub(crate) fn stop_both(&mut self) -> Outcome<()> {
        self.end(Which::Searcher, Signal::SIGTERM)?;
        self.end(Which::Keeper, Signal::SIGTERM)
    }

    /// Fails where a role has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Outcome<()> {
        for which in [Which::Keeper, Which::Searcher] {
            let ended = self
                .slot(which)
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(format!(
                    "the {} ended by itself with {status}: {}",
                    which.name(),
                    self.last_words(which)
                ));
            }
        }
        Ok(())
    }

    fn last_words(&self, which: Which) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.log", which.name())))
            .ok()
            .and_then(|log| log.lines().last().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Rotates the key; fails where a role is away, which the caller may expect.
    pub(crate) fn rotate(&self) -> Result<(), Ended> {
        let arguments = [
            "rotate",
            "--keys",
            &self.path("keys"),
            "--searcher",
            &self.searcher_address,
            "--keeper",
            &self.keeper_address,
            "--overlap",
            "2",
            "--allow-simulated",
        ];
        verb(&self.program, &arguments).map(drop)
    }

    /// Checks every byte of the index.
    pub(crate) fn verify(&self) -> Outcome<()> {
        self.verb(&["verify", &self.path("index"), "--keys", &self.path("keys")])
            .map(drop)
    }

    /// Vectors in the index's folder.
    pub(crate) fn vectors(&self) -> Outcome<u64> {
        let printed = self.verb(&["inspect", &self.path("index")])?;
        let inspected: serde_json::Value =
            serde_json::from_str(&printed).map_err(|error| error.to_string())?;
        inspected["vectors"]
            .as_u64()
            .ok_or_else(|| "`oboro inspect` tells no number of vectors".to_owned())
    }

    pub(crate) fn keeper_usage(&self) -> Outcome<Usage> {
        self.keeper
            .as_ref()
            .map_or(Err("there is no keeper".to_owned()), |child| {
                Usage::of(child.id())
            })
    }

    pub(crate) fn searcher_usage(&self) -> Outcome<Usage> {
        self.searcher
            .as_ref()
            .map_or(Err("there is no searcher".to_owned()), |child| {
                Usage::of(child.id())
            })
    }
}

/// The verbs that change the served index.
pub(crate) struct Verbs {
    program: PathBuf,
    folder: PathBuf,
    keys: String,
    searcher: String,
}

impl Verbs {
    /// Runs such a verb to its end; what it printed.
    pub(crate) fn changing(&self, arguments: &[&str]) -> Result<String, Ended> {
        let at = [
            "--connect",
            &self.searcher,
            "--keys",
            &self.keys,
            "--allow-simulated",
        ];
        verb(&self.program, &[arguments, &at].concat())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn verb(program: &Path, arguments: &[&str]) -> Result<String, Ended> {
    let output = Command::new(program)
        .args(["--json", "--quiet"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Ended {
            code: None,
            said: format!("cannot run the command: {error}"),
        })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    Err(Ended {
        code: output.status.code(),
        said: format!(
            "`oboro {}` ended with {}: {printed}{}",
            arguments[0],
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    })
}

impl Drop for Roles {
    fn drop(&mut self) {
        for which in [Which::Keeper, Which::Searcher] {
            if let Some(mut child) = self.slot(which).take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The command, beside this program.
fn program() -> Outcome<PathBuf> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = here.with_file_name("oboro");
    if program.is_file() {
        return Ok(program);
    }
    Err(format!(
        "{} is not there; run `cargo build --release` first",
        program.display()
    ))
}

fn free_address() -> Outcome<String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.to_string())
        .map_err(|error| error.to_string())
}

/// Temporary files anywhere below `folder`.
pub(crate) fn leftovers(folder: &Path) -> Outcome<Vec<String>> {
    let mut left = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(".tmp") || name.contains(".partial") || name.starts_with('.') {
                left.push(name);
            }
        }
    }
    Ok(left)
}
