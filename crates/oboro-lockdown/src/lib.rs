//! What a process may no longer do once it serves.
//!
//! [`Lockdown`] names what a server still needs: files, folders and ports. Everything else
//! is given up for good: core dumps, being traced by its own user, memory in the page
//! file, new privileges, other files and TCP ports (Landlock), and system calls outside a
//! list (seccomp). [`Report`] says how far each measure goes on this kernel.
//!
//! # Security
//! It limits what somebody can do who has taken over the process, and keeps other
//! programs of the same user out of its memory. It does not keep out the machine's
//! administrator or the host of a virtual machine; that is what trusted execution
//! environments are for. A program that was let in by an open file, socket or port stays.

mod error;
mod report;

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod process;

pub use error::LockdownError;
pub use report::{Extent, Measure, Report};

use std::path::PathBuf;

/// What a process still needs; everything else is to be given up.
#[derive(Clone, Debug, Default)]
pub struct Lockdown {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    bind: Vec<u16>,
    connect: Vec<u16>,
    forbidden: Forbidden,
}

/// What is demanded of the measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degree {
    /// All in full.
    Require,
    /// Each as far as this kernel offers it.
    BestEffort,
}

/// What becomes of a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forbidden {
    /// It fails with EPERM.
    #[default]
    Fails,
    /// As that, and those that a server never makes, such as `execve`, `ptrace` or
    /// `mount`, end the process with SIGSYS.
    Kills,
}

impl Lockdown {
    /// A process that needs no files, folders or ports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Files, and folders with all below, that may be read. Those that do not exist are
    /// passed over.
    #[must_use]
    pub fn read<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.read.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Files and devices that may be read and written, and folders below which files and
    /// folders may also be made, renamed and removed. Only where a socket of this machine
    /// is among them may the process connect to such sockets, and then to all: Landlock
    /// does not tell them apart.
    #[must_use]
    pub fn write<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.write.extend(paths.into_iter().map(Into::into));
        self
    }

    /// TCP ports to listen on; 0 for one that the system chooses.
    #[must_use]
    pub fn bind(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.bind.extend(ports);
        self
    }

    /// TCP ports to connect to, on any machine.
    #[must_use]
    pub fn connect(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.connect.extend(ports);
        self
    }

    /// What becomes of other system calls.
    #[must_use]
    pub fn forbidden(mut self, forbidden: Forbidden) -> Self {
        self.forbidden = forbidden;
        self
    }

    /// Gives up everything else, for good, for this thread and all that start from now
    /// on. Call it before others start: they would keep files and ports on kernels before
    /// 7.0, which the report says.
    ///
    /// # Errors
    /// [`LockdownError::Incomplete`] for a measure that is not taken in full under
    /// [`Degree::Require`]; those that were taken stay.
    /// [`LockdownError::Missing`] for a path to write to that does not exist; nothing has
    /// been done then.
    pub fn apply(&self, degree: Degree) -> Result<Report, LockdownError> {
        for path in &self.write {
            if !path.exists() {
                return Err(LockdownError::Missing(path.display().to_string()));
            }
        }
        let report = Report {
            measures: self.measures(),
        };
        if degree == Degree::Require && !report.is_complete() {
            return Err(LockdownError::Incomplete(report));
        }
        Ok(report)
    }

    #[cfg(target_os = "linux")]
    fn measures(&self) -> Vec<Measure> {
        // System calls last: the others make some that no server needs later.
        vec![
            process::no_core_dumps(),
            process::not_traceable(),
            process::not_swapped(),
            process::no_new_privileges(),
            files::restrict(self),
            calls::restrict(self.forbidden, self.names_socket()),
        ]
    }

    #[cfg(target_os = "linux")]
    fn names_socket(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;
        self.write
            .iter()
            .any(|path| std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()))
    }

    #[cfg(not(target_os = "linux"))]
    fn measures(&self) -> Vec<Measure> {
        vec![Measure::none(
            "lock-down",
            "this system is not Linux; nothing has been given up",
        )]
    }
}
