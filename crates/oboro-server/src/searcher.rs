//! The searcher as a program: the role that holds the index.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use oboro_attest::Policy;
use oboro_channel::{RateLimit, Role, Trust};
use oboro_index::Index;
use oboro_searcher::{KeeperConfig, SearcherConfig, SearcherServer};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::configuration::Configuration;
use crate::failure::{Failure, Outcome, usage_of};
use crate::keys::{self, Folder};
use crate::lockdown::{self, LockdownOptions, Needs};
use crate::output::{self, Report};
use crate::platforms::Platforms;
use crate::policy::PolicyOptions;
use crate::ready::Ready;
use crate::roles::{self, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::shutdown;

/// The value of `--keeper` for indexes without one.
const NO_KEEPER: &str = "none";

/// Options of the searcher.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Folder of the index
    #[arg(long, value_name = "DIR")]
    pub index: PathBuf,
    /// Keys of the searcher: the folder of `oboro keygen` or its searcher/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Address of the keeper, or `none` for an index whose clients hold the key themselves
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub keeper: String,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = SEARCHER_ADDRESS, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Loopback address for Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Threads that scan; all cores when not given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How the searcher is set up, as its evidence states it
    #[command(flatten)]
    pub set_up: SetUp,
    /// Stop when standard input closes, and say at the end what was seen
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// Options that the configuration digest covers.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct SetUp {
    /// Whom the searcher trusts.
    #[command(flatten)]
    pub policy: PolicyOptions,
    /// How far it is locked down.
    #[command(flatten)]
    pub lockdown: LockdownOptions,
    /// Searches a second that each client may make
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
}

/// What the searcher saw, said when a supervised one stops.
#[derive(Serialize)]
struct Seen {
    role: &'static str,
    searches: u64,
    ciphertext_bytes: u64,
    share_bytes: u64,
    tables_decoded: u64,
    ids_touched: u64,
}

impl SetUp {
    fn configuration(
        &self,
        policy: &Policy,
        trust: &Trust,
        keeper: bool,
    ) -> Outcome<Configuration> {
        let rate = self
            .rate
            .map_or_else(RateLimit::default, RateLimit::per_second);
        let lockdown = self.lockdown.lockdown.name();
        Ok(
            Configuration::new(Role::Searcher.name(), policy, lockdown, trust)?
                .with("answers", vec![Role::Client.name(), Role::Owner.name()])
                .with("keyholder", if keeper { "keeper" } else { "client" })
                .with("storage_release", keeper)
                .with("rate_per_second", rate.per_second)
                .with("rate_burst", rate.burst),
        )
    }
}

/// The options, as `show --configuration` takes them.
#[derive(Parser)]
#[command(no_binary_name = true, args_override_self = true)]
struct Alone {
    #[command(flatten)]
    set_up: SetUp,
    #[arg(long, default_value = KEEPER_ADDRESS)]
    keeper: String,
}

/// What a searcher with these options and the authority in `keys` would state about its
/// set-up.
///
/// # Errors
/// If the options are wrong, or the policy or the authority cannot be read.
pub fn configuration_of(
    options: &[String],
    keys: &Path,
    platforms: &dyn Platforms,
) -> Outcome<Configuration> {
    let trust = Folder::of(keys, Role::Searcher)?.trust()?;
    let alone = Alone::try_parse_from(options).map_err(|error| usage_of(&error))?;
    let policy = alone.set_up.policy.policy(platforms)?;
    alone
        .set_up
        .configuration(&policy, &trust, alone.keeper != NO_KEEPER)
}

/// Runs the searcher until it is told to stop.
///
/// # Errors
/// One sentence: keys, policy, platform, lock-down, index, keeper, address.
pub fn run(options: &Options, json: bool, platforms: &dyn Platforms) -> Outcome<()> {
    let verifier = options.set_up.policy.verifier(platforms)?;
    let attester = platforms.attester()?;
    roles::log();
    roles::check_index(&options.index)?;
    let head = Index::peek(&options.index)?;
    let folder = Folder::of(&options.keys, Role::Searcher)?;
    let trust = folder.trust()?;
    let has_keeper = options.keeper != NO_KEEPER;
    let configuration = options
        .set_up
        .configuration(verifier.policy(), &trust, has_keeper)?;
    let platform = attester.platform();
    let mut remarks = Vec::new();
    if !head.released {
        remarks.push(
            "the index opens without a keeper's part: nobody checks that it is the newest state"
                .to_owned(),
        );
    }
    let keeper = has_keeper.then(|| KeeperConfig::new(&options.keeper, verifier));
    let mut config = SearcherConfig::new(
        folder.identity()?,
        trust,
        attester,
        keeper,
        Zeroizing::new(keys::os_seed()?),
    );
    config.configuration = configuration.digest();
    config.metrics_address = options.metrics;
    config.rate = options
        .set_up
        .rate
        .map_or_else(RateLimit::default, RateLimit::per_second);
    if let Some(threads) = options.threads {
        config.scan_threads = threads.max(1);
    }
    let workers = config.scan_threads;
    let storage_key = folder.storage_key()?;
    // Before the first thread: what is given up now is given up by all.
    let lockdown = lockdown::apply(
        options.set_up.lockdown.lockdown,
        &needs(options, &folder, platforms)?,
    )?;
    let server = SearcherServer::new(&options.index, storage_key, config)?;
    let metrics = server.metrics();
    let runtime = roles::runtime(workers)?;
    runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let listener = roles::listen(options.listen).await?;
        let ready = Ready {
            role: Role::Searcher.name().to_owned(),
            address: options.listen,
            platform: platform.name().to_owned(),
            configuration: output::hex(&configuration.digest()),
            lockdown,
            remarks,
        };
        let ready = ready.at(&listener)?;
        let opened = server.opened();
        let serving = server.serve(listener, stop);
        tokio::pin!(serving);
        // The keeper may be away, or know a newer state of the index.
        tokio::select! {
            ended = &mut serving => ended?,
            () = opened => {
                output::print(&ready, json)?;
                serving.await?;
            }
        }
        Outcome::Ok(())
    })?;
    if options.supervised {
        let view = metrics.view();
        output::print(
            &Seen {
                role: Role::Searcher.name(),
                searches: view.searches,
                ciphertext_bytes: view.ciphertext_bytes,
                share_bytes: view.share_bytes,
                tables_decoded: view.tables_decoded,
                ids_touched: view.ids_touched,
            },
            true,
        )?;
    }
    Ok(())
}

fn needs(options: &Options, folder: &Folder, platforms: &dyn Platforms) -> Outcome<Needs> {
    let mut needs = Needs {
        read: vec![folder.path().to_owned()],
        // A rotation writes the next epoch beside the present one.
        write: vec![options.index.clone()],
        bind: vec![options.listen.port()],
        connect: Vec::new(),
    };
    needs.write.extend(platforms.paths());
    needs
        .bind
        .extend(options.metrics.map(|address| address.port()));
    if options.keeper != NO_KEEPER {
        let port = options
            .keeper
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .ok_or_else(|| {
                Failure::usage(format_args!(
                    "\"{}\" is not an address of the form host:port; name the keeper's with --keeper",
                    options.keeper
                ))
            })?;
        needs.connect.push(port);
    }
    Ok(needs)
}

impl Report for Seen {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} searches", self.searches)
    }
}
