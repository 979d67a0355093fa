//! `oboro serve`: searcher and keeper on this machine, as two processes.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use oboro_channel::Role;
use oboro_keeper::KeeperState;
use oboro_server::lockdown::LockdownOptions;
use oboro_server::platforms::Platforms;
use oboro_server::policy::PolicyOptions;
use oboro_server::ready::Measure;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::keys::{Folder, STATE};
use crate::output::{self, Report};
use crate::processes::RoleProcess;
use crate::progress::Progress;
use crate::roles::{self, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::shutdown;
use crate::with_simulated::WithSimulated;

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
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Run without hardware that protects the roles
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Folder of the keeper's own records; state/ among its keys when not given
    #[arg(long, value_name = "DIR")]
    pub(crate) keeper_state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) lockdown: LockdownOptions,
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
    pub(crate) keeper_state: Option<&'a Path>,
    pub(crate) policy: Option<&'a Path>,
    pub(crate) allow_simulated: bool,
    pub(crate) lockdown: LockdownOptions,
    pub(crate) record_view: bool,
    /// The searcher takes part in a blind build instead of serving what is there.
    pub(crate) generate: bool,
}

impl<'a> PairOptions<'a> {
    /// On free ports of this machine and on the simulated platform, for `bench` and `demo`.
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
            keeper_state: None,
            policy: None,
            allow_simulated: true,
            lockdown: LockdownOptions::default(),
            record_view: false,
            generate: false,
        }
    }
}

impl PairOptions<'_> {
    /// Where the keeper keeps its records. Both roles share this machine, so there is no
    /// first start to be asked for: records are begun where there are none.
    fn state(&self) -> Outcome<PathBuf> {
        match self.keeper_state {
            Some(state) => Ok(state.to_owned()),
            None => Ok(Folder::of(self.keys, Role::Keeper)?.path().join(STATE)),
        }
    }

    /// Options that both roles have.
    fn common(&self) -> Vec<OsString> {
        let mut all = arguments([
            ("--policy", self.policy.map(Into::into)),
            ("--lockdown", Some(self.lockdown.lockdown.name().into())),
        ]);
        if self.allow_simulated {
            all.push("--allow-simulated".into());
        }
        all
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
            ("--state", options.keeper_state.map(Into::into)),
        ]);
        keeper_arguments.extend(options.common());
        if !KeeperState::exists(&options.state()?) {
            keeper_arguments.push("--new-state".into());
        }
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
        searcher_arguments.extend(options.common());
        if options.generate {
            searcher_arguments.push("--generate".into());
        }
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

/// Options that are given, as one argument each.
pub(super) fn arguments<const N: usize>(pairs: [(&str, Option<OsString>); N]) -> Vec<OsString> {
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
    searcher_configuration: String,
    keeper_configuration: String,
    lockdown: Vec<Measure>,
    remarks: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    // Before two processes start to say the same.
    let platforms = WithSimulated::new(options.allow_simulated);
    options.policy.policy(&platforms)?;
    platforms.attester()?;
    roles::check_index(&options.index)?;
    let runtime = roles::runtime(1)?;
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
        keeper_state: options.keeper_state.as_deref(),
        policy: options.policy.policy.as_deref(),
        allow_simulated: options.allow_simulated,
        lockdown: options.lockdown,
        record_view: false,
        generate: false,
    })?;
    output::print(
        &Serving {
            address: pair.searcher.ready.address,
            keeper_address: pair.keeper.ready.address,
            platform: pair.searcher.ready.platform.clone(),
            index: options.index.display().to_string(),
            searcher_configuration: pair.searcher.ready.configuration.clone(),
            keeper_configuration: pair.keeper.ready.configuration.clone(),
            lockdown: pair.searcher.ready.lockdown.clone(),
            remarks: remarks(&pair),
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

/// The remarks of both roles, each once.
fn remarks(pair: &Pair) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for ready in [&pair.keeper.ready, &pair.searcher.ready] {
        for remark in &ready.remarks {
            if !all.contains(remark) {
                all.push(remark.clone());
            }
        }
    }
    all
}

impl Report for Serving {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        output::platform(out, &self.platform)?;
        writeln!(out, "index      {}", self.index)?;
        writeln!(out, "searcher   {}", self.address)?;
        writeln!(out, "keeper     {}", self.keeper_address)?;
        for measure in &self.lockdown {
            writeln!(out, "lock-down  {measure}")?;
        }
        for remark in &self.remarks {
            writeln!(out, "note       {remark}")?;
        }
        writeln!(out, "Ready; stop with Ctrl-C.")
    }
}
