//! A software TPM for one test: a real `swtpm` process with its state in a folder of its
//! own.

#![allow(dead_code)]

use oboro_tpm::{Address, Tpm};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A running `swtpm`.
pub(crate) struct Swtpm {
    process: Child,
    state: TempDir,
}

impl Swtpm {
    /// Starts one; `None`, with a line that says so, where `swtpm` is not installed.
    ///
    /// # Panics
    /// In continuous integration (`CI=true`), where a test must not be skipped.
    pub(crate) fn start() -> Option<Self> {
        let installed = Command::new("swtpm")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !installed {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "swtpm is not installed; scripts/install-test-tools.sh installs it"
            );
            // Not `eprintln`, which the test harness keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: swtpm is not installed; scripts/install-test-tools.sh installs it"
            );
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let process = launch(state.path());
        Some(Self { process, state })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.state.path().join(SOCKET))
    }

    /// A new connection to it. It serves one at a time.
    pub(crate) fn open(&self) -> Arc<Tpm> {
        Arc::new(Tpm::open(self.address()).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Switches the machine off and on: PCRs begin anew, seeds and counters stay.
    pub(crate) fn reboot(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = launch(self.state.path());
    }

    /// Where it keeps its state.
    pub(crate) fn folder(&self) -> &Path {
        self.state.path()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In the folder of the state.
const SOCKET: &str = "socket";

fn launch(state: &Path) -> Child {
    let socket = state.join(SOCKET);
    let _ = std::fs::remove_file(&socket);
    let mut process = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..1_000 {
        if UnixStream::connect(&socket).is_ok() {
            return process;
        }
        assert!(
            process.try_wait().unwrap().is_none(),
            "swtpm ended at its start"
        );
        thread::sleep(Duration::from_millis(10));
    }
    let _ = process.kill();
    let _ = process.wait();
    panic!("swtpm does not start");
}
