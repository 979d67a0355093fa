//! The searcher as a program: the role that holds the index.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use oboro_attest::Policy;
use oboro_channel::{RateLimit, Role, Trust};
use oboro_index::{Index, SegmentSummary, Summary};
use oboro_searcher::{
    CompactionConfig, GeneratorServer, KeeperConfig, SearcherConfig, SearcherServer,
};
use serde::Serialize;
use tokio::sync::watch;
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
    /// Most bytes a second that merging segments in the background writes; 0 for no bound
    #[arg(long, default_value_t = CompactionConfig::default().bytes_per_second, value_name = "N")]
    pub compaction_bytes_per_second: u64,
    /// Merge segments only when a writer asks for it
    #[arg(long)]
    pub no_compaction: bool,
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
    /// Have the owner make an index in the folder first, blindly, if there is none
    #[arg(long)]
    pub generate: bool,
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
        let mut configuration = Configuration::new(Role::Searcher.name(), policy, lockdown, trust)?;
        if self.generate {
            configuration = configuration.with("generates", vec![Role::Owner.name()]);
        }
        Ok(configuration
            .with("answers", vec![Role::Client.name(), Role::Owner.name()])
            .with("keyholder", if keeper { "keeper" } else { "client" })
            .with("storage_release", keeper)
            .with("rate_per_second", rate.per_second)
            .with("rate_burst", rate.burst))
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

/// Runs the searcher until it is told to stop. Where it is told to generate and there is
/// no index, it first waits for its owner to have one made.
///
/// # Errors
/// One sentence: keys, policy, platform, lock-down, index, keeper, address.
pub fn run(options: &Options, json: bool, platforms: &dyn Platforms) -> Outcome<()> {
    let verifier = options.set_up.policy.verifier(platforms)?;
    let attester = platforms.attester()?;
    roles::log();
    let generating = options.set_up.generate && Index::peek(&options.index).is_err();
    let mut remarks = Vec::new();
    if !generating {
        roles::check_index(&options.index)?;
        let summary = Summary::read(&options.index)?;
        let resident = summary.segments.iter().map(SegmentSummary::resident_bytes);
        remarks.push(format!(
            "codes, ids and tags are resident: {} of memory",
            output::bytes(resident.sum())
        ));
        if !Index::peek(&options.index)?.released {
            remarks.push(
                "the index opens without a keeper's part: nobody checks that it is the newest state"
                    .to_owned(),
            );
        }
    }
    let folder = Folder::of(&options.keys, Role::Searcher)?;
    let has_keeper = options.keeper != NO_KEEPER;
    let configuration =
        options
            .set_up
            .configuration(verifier.policy(), &folder.trust()?, has_keeper)?;
    let platform = attester.platform();
    let config = || -> Outcome<SearcherConfig> {
        let keeper = has_keeper.then(|| KeeperConfig::new(&options.keeper, verifier.clone()));
        let mut config = SearcherConfig::new(
            folder.identity()?,
            folder.trust()?,
            attester.clone(),
            keeper,
            Zeroizing::new(keys::os_seed()?),
        );
        config.configuration = configuration.digest();
        config.metrics_address = options.metrics;
        config.rate = options
            .set_up
            .rate
            .map_or_else(RateLimit::default, RateLimit::per_second);
        config.compaction = CompactionConfig {
            automatic: !options.no_compaction,
            bytes_per_second: options.compaction_bytes_per_second,
            ..CompactionConfig::default()
        };
        if let Some(threads) = options.threads {
            config.scan_threads = threads.max(1);
        }
        Ok(config)
    };
    let serving = (config()?, folder.storage_key()?);
    let making = generating
        .then(|| Outcome::Ok((config()?, folder.storage_key()?)))
        .transpose()?;
    let workers = serving.0.scan_threads;
    // Before the first thread: what is given up now is given up by all.
    let lockdown = lockdown::apply(
        options.set_up.lockdown.lockdown,
        &needs(options, &folder, platforms, generating)?,
    )?;
    let ready = |remarks| Ready {
        role: Role::Searcher.name().to_owned(),
        address: options.listen,
        platform: platform.name().to_owned(),
        configuration: output::hex(&configuration.digest()),
        lockdown: lockdown.clone(),
        remarks,
    };
    let runtime = roles::runtime(workers)?;
    let metrics = runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let (told, stopped) = watch::channel(false);
        tokio::spawn(async move {
            stop.await;
            let _ = told.send(true);
        });
        let stop = || {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            }
        };
        let mut listener = roles::listen(options.listen).await?;
        if let Some((config, key)) = making {
            let maker = GeneratorServer::new(&options.index, key, config)?;
            let waits = "there is no index yet: it waits for its owner to have one made";
            let ready = ready(vec![waits.to_owned()]).at(&listener)?;
            output::print(&ready, json)?;
            let (first, second) = roles::twice(listener)?;
            if maker.serve(first, stop()).await?.is_none() {
                return Ok(None);
            }
            listener = second;
        }
        let (config, key) = serving;
        let server = SearcherServer::new(&options.index, key, config)?;
        let metrics = server.metrics();
        let ready = ready(remarks).at(&listener)?;
        let opened = server.opened();
        let serving = server.serve(listener, stop());
        tokio::pin!(serving);
        // The keeper may be away, or know a newer state of the index.
        tokio::select! {
            ended = &mut serving => ended?,
            () = opened => {
                output::print(&ready, json)?;
                serving.await?;
            }
        }
        Outcome::Ok(Some(metrics))
    })?;
    if let (true, Some(metrics)) = (options.supervised, metrics) {
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

fn needs(
    options: &Options,
    folder: &Folder,
    platforms: &dyn Platforms,
    generating: bool,
) -> Outcome<Needs> {
    // A new index is made beside its place.
    let index = match options.index.parent() {
        Some(parent) if generating && parent != Path::new("") => parent,
        _ if generating => Path::new("."),
        _ => &options.index,
    };
    let mut needs = Needs {
        read: vec![folder.path().to_owned()],
        // Changes and rotations write beside what is there.
        write: vec![index.to_owned()],
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
