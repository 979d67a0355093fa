//! What the tests of the command share: small data, keys, running servers.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) fn oboro() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::cargo_bin("oboro").unwrap();
    command.env_remove("OBORO_CONFIG");
    command
}

/// Runs it and returns its one JSON object.
pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = oboro().arg("--json").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(text.lines().count(), 1, "one object: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs it, expects an exit code, returns the sentence.
pub(crate) fn fails(code: i32, arguments: &[&str]) -> String {
    let output = oboro().arg("--json").args(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {stderr}{stdout}"
    );
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(object["error"]["exit_code"], code);
    let message = object["error"]["message"].as_str().unwrap().to_owned();
    assert!(!message.contains('\n'), "one sentence: {message}");
    assert!(stderr.contains(&message));
    message
}

/// A temporary folder with keys and some files in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn with_keys() -> Self {
        let place = Self::new();
        json(&["keygen", "--out", &place.at("keys")]);
        place
    }

    /// The path of something in the folder.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names of everything in the folder, hidden files too.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn write_fvecs(&self, name: &str, vectors: &[Vec<f32>]) -> String {
        std::fs::write(self.path(name), fvecs(vectors)).unwrap();
        self.at(name)
    }

    /// Builds a small index and returns what the build said.
    pub(crate) fn build(&self, name: &str, vectors: &str, more: &[&str]) -> Value {
        let (keys, out) = (self.at("keys"), self.at(name));
        let mut arguments = vec![
            "build", vectors, "--keys", &keys, "--out", &out, "--seed", "1",
        ];
        arguments.extend(more);
        json(&arguments)
    }
}

/// Copies the files of a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

pub(crate) fn fvecs(vectors: &[Vec<f32>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for vector in vectors {
        bytes.extend((vector.len() as u32).to_le_bytes());
        bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// Clustered vectors, the same for the same seed.
pub(crate) fn vectors(count: usize, dimension: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    // The centres depend on the dimension only, so that queries of another
    // seed fall into the clusters of the base.
    let centre =
        |cluster: usize, at: usize| ((cluster * 31 + at * 17 + cluster * at) % 23) as f32 - 11.0;
    (0..count)
        .map(|row| {
            (0..dimension)
                .map(|at| centre(row % 20, at) + 4.0 * uniform())
                .collect()
        })
        .collect()
}

/// Positions of the k nearest by squared distance, ties by position.
pub(crate) fn nearest(base: &[Vec<f32>], query: &[f32], k: usize) -> Vec<u64> {
    let mut order: Vec<(f32, u64)> = base
        .iter()
        .enumerate()
        .map(|(row, vector)| {
            let distance = vector
                .iter()
                .zip(query)
                .map(|(a, b)| (a - b) * (a - b))
                .sum();
            (distance, row as u64)
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order[..k].iter().map(|(_, row)| *row).collect()
}

/// `oboro serve`, stopped when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    pub(crate) ready: Value,
}

impl Served {
    pub(crate) fn start(keys: &str, index: &Path) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .args(["--json", "--quiet", "serve", "--allow-simulated"])
            .args(["--keys", keys, "--index"])
            .arg(index)
            .args(["--listen", "127.0.0.1:0", "--keeper-listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            address: ready["address"]
                .as_str()
                .unwrap_or_else(|| panic!("{ready}"))
                .to_owned(),
            ready,
        }
    }

    /// Starts it where it must refuse, and returns its sentence.
    pub(crate) fn refused(keys: &str, index: &Path) -> String {
        let output = oboro()
            .args(["--json", "--quiet", "serve", "--allow-simulated"])
            .args(["--keys", keys, "--index"])
            .arg(index)
            .args(["--listen", "127.0.0.1:0", "--keeper-listen", "127.0.0.1:0"])
            .timeout(std::time::Duration::from_secs(60))
            .output()
            .unwrap();
        assert!(!output.status.success(), "it serves");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Asks it to stop as Ctrl-C does and returns its exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Served {
    /// Kills it with no chance to clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}
