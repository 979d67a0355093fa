//! What a role says when it listens.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::failure::{Failure, Outcome};
use crate::output::{self, Report};

/// The line with which a role says that it is ready, and what protects it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ready {
    /// `keeper` or `searcher`.
    pub role: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What protects its memory, such as `sev-snp`.
    pub platform: String,
    /// Digest of its set-up, which its evidence carries.
    pub configuration: String,
    /// What it gave up at the start.
    pub lockdown: Vec<Measure>,
    /// What an operator should know, one sentence each.
    pub remarks: Vec<String>,
}

/// One measure of the lock-down.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Measure {
    /// What it is about, such as `no core dumps`.
    pub name: String,
    /// `yes`, `partly` or `no`.
    pub degree: String,
    /// How far it goes here.
    pub detail: String,
}

impl Ready {
    /// Fills in the address.
    ///
    /// # Errors
    /// If the listener has none.
    pub fn at(mut self, listener: &TcpListener) -> Outcome<Self> {
        self.address = listener
            .local_addr()
            .map_err(|error| Failure::failed(format_args!("cannot tell the address: {error}")))?;
        Ok(self)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {} ({})",
            self.name, self.degree, self.detail
        )
    }
}

impl Report for Ready {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        output::platform(out, &self.platform)?;
        writeln!(out, "configuration  {}", self.configuration)?;
        for measure in &self.lockdown {
            writeln!(out, "lock-down      {measure}")?;
        }
        for remark in &self.remarks {
            writeln!(out, "note           {remark}")?;
        }
        writeln!(
            out,
            "{} ready on {}; stop with Ctrl-C.",
            self.role, self.address
        )
    }
}
