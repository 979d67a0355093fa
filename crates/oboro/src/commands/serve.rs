//! `oboro serve`: searcher and keeper on this machine, as two processes.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::{Global, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::failure::{Failure, Outcome};
use crate::output::{self, Report};
use crate::processes::RoleProcess;
use crate::progress::Progress;
use crate::{roles, shutdown};

/// Options of `oboro serve`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder of the index
    #[arg(long, value_name = "DIR")]
    pub(crate) index: PathBuf,
    /// Folder of `oboro keygen` with searcher/ and keeper/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// Address that clients connect to; port 0 takes a free one
    #[arg(long, default_value = SEARCHER_ADDRESS, value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Address of the keeper, for the searcher only
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub(crate) keeper_listen: SocketAddr,
    /// Run without hardware that protects the roles
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Threads of each role; all cores when not given
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Loopback address for the searcher's Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Loopback address for the keeper's Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) keeper_metrics: Option<SocketAddr>,
}

/// Both roles, running.
pub(crate) struct Pair {
    pub(crate) searcher: RoleProcess,
    pub(crate) keeper: RoleProcess,
}

/// How to start a [`Pair`].
pub(crate) struct PairOptions<'a> {
    pub(crate) index: &'a Path,
    pub(crate) keys: &'a Path,
    pub(crate) listen: SocketAddr,
    pub(crate) keeper_listen: SocketAddr,
    pub(crate) threads: Option<usize>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) keeper_metrics: Option<SocketAddr>,
    pub(crate) record_view: bool,
}

impl<'a> PairOptions<'a> {
    /// On free ports of this machine, for `bench` and `demo`.
    pub(crate) fn local(index: &'a Path, keys: &'a Path, threads: Option<usize>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            index,
            keys,
            listen: free,
            keeper_listen: free,
            threads,
            metrics: None,
            keeper_metrics: None,
            record_view: false,
        }
    }
}

impl Pair {
    /// Starts the keeper, then the searcher, and waits until both are ready.
    pub(crate) fn start(options: &PairOptions<'_>) -> Outcome<Self> {
        let mut keeper_arguments = arguments([
            ("--keys", Some(options.keys.into())),
            ("--listen", Some(options.keeper_listen.to_string().into())),
            (
                "--metrics",
                options.keeper_metrics.map(|a| a.to_string().into()),
            ),
            ("--threads", options.threads.map(|n| n.to_string().into())),
        ]);
        keeper_arguments.push("--allow-simulated".into());
        if options.record_view {
            keeper_arguments.push("--record-view".into());
        }
        let keeper = RoleProcess::start("keeper", keeper_arguments)?;
        let mut searcher_arguments = arguments([
            ("--index", Some(options.index.into())),
            ("--keys", Some(options.keys.into())),
            ("--keeper", Some(keeper.ready.address.to_string().into())),
            ("--listen", Some(options.listen.to_string().into())),
            ("--metrics", options.metrics.map(|a| a.to_string().into())),
            ("--threads", options.threads.map(|n| n.to_string().into())),
        ]);
        searcher_arguments.push("--allow-simulated".into());
        let searcher = RoleProcess::start("searcher", searcher_arguments)?;
        Ok(Self { searcher, keeper })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> String {
        self.searcher.ready.address.to_string()
    }

    /// Stops both; returns the last words of searcher and keeper.
    pub(crate) fn stop(self) -> Outcome<(serde_json::Value, serde_json::Value)> {
        // The searcher first: its last queries still need the keeper.
        let searcher = self.searcher.stop();
        let keeper = self.keeper.stop();
        Ok((searcher?, keeper?))
    }
}

fn arguments<const N: usize>(pairs: [(&str, Option<OsString>); N]) -> Vec<OsString> {
    pairs
        .into_iter()
        .filter_map(|(name, value)| {
            let mut argument = OsString::from(name);
            argument.push("=");
            argument.push(value?);
            Some(argument)
        })
        .collect()
}

/// What is running.
#[derive(Serialize)]
struct Serving {
    address: SocketAddr,
    keeper_address: SocketAddr,
    platform: String,
    index: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    roles::check_platform(options.allow_simulated, "roles")?;
    roles::check_index(&options.index)?;
    let runtime = super::runtime(1)?;
    let _entered = runtime.enter();
    // Signals are caught before the roles start, so that none is left behind.
    let stop = shutdown::requested(false)?;
    let mut pair = Pair::start(&PairOptions {
        index: &options.index,
        keys: &options.keys,
        listen: options.listen,
        keeper_listen: options.keeper_listen,
        threads: options.threads,
        metrics: options.metrics,
        keeper_metrics: options.keeper_metrics,
        record_view: false,
    })?;
    output::print(
        &Serving {
            address: pair.searcher.ready.address,
            keeper_address: pair.keeper.ready.address,
            platform: pair.searcher.ready.platform.clone(),
            index: options.index.display().to_string(),
        },
        global.json,
    )?;
    let ended = runtime.block_on(async {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return None,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            if pair.searcher.has_ended() {
                return Some("searcher");
            }
            if pair.keeper.has_ended() {
                return Some("keeper");
            }
        }
    });
    Progress::new(global).remark("stopping");
    let stopped = pair.stop();
    match ended {
        Some(role) => Err(stopped
            .err()
            .unwrap_or_else(|| Failure::failed(format_args!("the {role} ended by itself")))),
        None => stopped.map(|_| ()),
    }
}

impl Report for Serving {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", output::SIMULATED)?;
        writeln!(out, "index     {}", self.index)?;
        writeln!(out, "searcher  {}", self.address)?;
        writeln!(out, "keeper    {}", self.keeper_address)?;
        writeln!(out, "Ready; stop with Ctrl-C.")
    }
}
