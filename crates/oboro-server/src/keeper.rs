//! The keeper as a program: the role that holds the decryption key.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser};
use oboro_attest::{Attester, Policy, Verifier};
use oboro_channel::{RateLimit, Role, Trust};
use oboro_keeper::{KeeperConfig, KeeperSecrets, KeeperServer, KeeperState, StateKey};
use oboro_tpm::{Address, CounterAuth, MonotonicCounter, NvCounter, Tpm};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::configuration::Configuration;
use crate::failure::{Failure, Outcome, usage_of};
use crate::keys::{self, Folder, STATE};
use crate::lockdown::{self, LockdownOptions, Needs};
use crate::output::{self, Report};
use crate::platforms::Platforms;
use crate::policy::PolicyOptions;
use crate::ready::Ready;
use crate::roles::{self, KEEPER_ADDRESS};
use crate::shutdown;

/// Options of the keeper.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Keys of the keeper: the folder of `oboro keygen` or its keeper/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Folder of the keeper's own records, sealed; state/ among its keys when not given
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Loopback address for Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How the keeper is set up, as its evidence states it
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
    /// Whom the keeper trusts.
    #[command(flatten)]
    pub policy: PolicyOptions,
    /// How far it is locked down.
    #[command(flatten)]
    pub lockdown: LockdownOptions,
    /// TPM whose counter tells old copies of the records: /dev/tpmrm0, or tcp:HOST:PORT
    #[arg(long, value_name = "TPM")]
    pub tpm: Option<Address>,
    /// Tables a second that each searcher may have decrypted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Refuse indexes whose noise is drowned by fewer bits than this
    #[arg(long, default_value_t = 0.0, value_name = "BITS")]
    pub flooding_bits: f64,
    /// Begin new records, at the very first start; a later start without its records is refused
    #[arg(long)]
    pub new_state: bool,
    /// Count the values of received bytes, to show that they look random
    #[arg(long, hide = true)]
    pub record_view: bool,
}

/// What the keeper saw, said when a supervised one stops.
#[derive(Serialize)]
struct Seen {
    role: &'static str,
    tables: u64,
    bytes_received: u64,
    bytes_sent: u64,
    /// Standard deviations of the received bytes from uniform ones.
    uniformity: Option<f64>,
}

impl SetUp {
    fn configuration(&self, policy: &Policy, trust: &Trust) -> Outcome<Configuration> {
        let rate = self
            .rate
            .map_or_else(RateLimit::default, RateLimit::per_second);
        let lockdown = self.lockdown.lockdown.name();
        Ok(
            Configuration::new(Role::Keeper.name(), policy, lockdown, trust)?
                .with("answers", vec![Role::Owner.name(), Role::Searcher.name()])
                .with("storage_release", true)
                // A policy that pins the usual set-up so refuses a keeper that remembers nothing.
                .with("begins_records", self.new_state)
                .with("rollback_counter", self.tpm.is_some())
                .with("minimum_flooding_bits", self.flooding_bits)
                .with("rate_per_second", rate.per_second)
                .with("rate_burst", rate.burst)
                .with("record_view", self.record_view),
        )
    }
}

/// The options, as `show --configuration` takes them.
#[derive(Parser)]
#[command(no_binary_name = true, args_override_self = true)]
struct Alone {
    #[command(flatten)]
    set_up: SetUp,
}

/// What a keeper with these options and the authority in `keys` would state about its
/// set-up.
///
/// # Errors
/// If the options are wrong, or the policy or the authority cannot be read.
pub fn configuration_of(
    options: &[String],
    keys: &Path,
    platforms: &dyn Platforms,
) -> Outcome<Configuration> {
    let trust = Folder::of(keys, Role::Keeper)?.trust()?;
    let alone = Alone::try_parse_from(options).map_err(|error| usage_of(&error))?;
    let policy = alone.set_up.policy.policy(platforms)?;
    alone.set_up.configuration(&policy, &trust)
}

/// Runs the keeper until it is told to stop.
///
/// # Errors
/// One sentence: keys, policy, platform, lock-down, state, address.
pub fn run(options: &Options, json: bool, platforms: &dyn Platforms) -> Outcome<()> {
    let verifier = options.set_up.policy.verifier(platforms)?;
    let attester = platforms.attester()?;
    roles::log();
    let folder = Folder::of(&options.keys, Role::Keeper)?;
    let trust = folder.trust()?;
    let configuration = options.set_up.configuration(verifier.policy(), &trust)?;
    let platform = attester.platform();
    let config = config(options, &folder, trust, attester, verifier, &configuration)?;
    let workers = config.workers;
    let directory = make_state_folder(options, &folder)?;
    let sealer = platforms.sealer();
    // Before the first thread: what is given up now is given up by all.
    let lockdown = lockdown::apply(
        options.set_up.lockdown.lockdown,
        &needs(options, &folder, directory.clone(), platforms),
    )?;
    let state_key = match &sealer {
        Some(sealer) => StateKey::sealed(sealer.as_ref())?,
        None => StateKey::derived(&folder.keeper_secret()?, &folder.release_key()?),
    };
    let state = state(options, &folder, &directory, &state_key)?;
    let mut remarks = vec![state.protection()];
    if sealer.is_none() {
        remarks.push(
            "the records are sealed under the keeper's own key files: this platform derives no keys"
                .to_owned(),
        );
    }
    let server = KeeperServer::new(state, config)?;
    let runtime = roles::runtime(workers)?;
    runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let listener = roles::listen(options.listen).await?;
        let ready = Ready {
            role: Role::Keeper.name().to_owned(),
            address: options.listen,
            platform: platform.name().to_owned(),
            configuration: output::hex(&configuration.digest()),
            lockdown,
            remarks,
        };
        output::print(&ready.at(&listener)?, json)?;
        server.serve(listener, stop).await?;
        Outcome::Ok(())
    })?;
    if options.supervised {
        let view = server.view();
        output::print(
            &Seen {
                role: Role::Keeper.name(),
                tables: view.tables,
                bytes_received: view.bytes_received,
                bytes_sent: view.bytes_sent,
                uniformity: view.uniformity,
            },
            true,
        )?;
    }
    Ok(())
}

fn config(
    options: &Options,
    folder: &Folder,
    trust: Trust,
    attester: Arc<dyn Attester>,
    verifier: Arc<dyn Verifier>,
    configuration: &Configuration,
) -> Outcome<KeeperConfig> {
    let mut config = KeeperConfig::new(
        folder.identity()?,
        trust,
        attester,
        verifier,
        configuration.digest(),
        Zeroizing::new(keys::os_seed()?),
    );
    config.metrics_address = options.metrics;
    config.record_view = options.set_up.record_view;
    config.minimum_flooding_bits = options.set_up.flooding_bits;
    config.rate = options
        .set_up
        .rate
        .map_or_else(RateLimit::default, RateLimit::per_second);
    if let Some(threads) = options.threads {
        config.workers = threads.max(1);
    }
    Ok(config)
}

/// The folder of the records. It must be there before the process is locked down, and hold
/// records unless this is to be the first start.
fn make_state_folder(options: &Options, folder: &Folder) -> Outcome<PathBuf> {
    let directory = options
        .state
        .clone()
        .unwrap_or_else(|| folder.path().join(STATE));
    if !options.set_up.new_state && !KeeperState::exists(&directory) {
        return Err(Failure::input(format_args!(
            "{} holds no records of this keeper; begin them with --new-state at the very first start, and never again: without them an old copy of an index would pass for the newest",
            directory.display()
        )));
    }
    if options.set_up.new_state {
        KeeperState::make_directory(&directory)?;
    }
    Ok(directory)
}

fn state(
    options: &Options,
    folder: &Folder,
    directory: &Path,
    key: &StateKey,
) -> Outcome<KeeperState> {
    let counter = options.set_up.tpm.as_ref().map(counter).transpose()?;
    let mut rng = keys::os_rng()?;
    if !options.set_up.new_state {
        return Ok(KeeperState::open(directory, key, counter, &mut rng)?);
    }
    let secrets = KeeperSecrets {
        secret_key: folder.keeper_secret()?,
        public_key: folder.keeper_public()?,
        release_key: folder.release_key()?,
    };
    Ok(KeeperState::create(
        directory, key, counter, secrets, &mut rng,
    )?)
}

fn counter(address: &Address) -> Outcome<Arc<dyn MonotonicCounter>> {
    let tpm = Arc::new(Tpm::open(address.clone())?);
    let counter = NvCounter::open(tpm, NvCounter::DEFAULT_INDEX, CounterAuth::default())?;
    Ok(Arc::new(counter))
}

fn needs(options: &Options, folder: &Folder, state: PathBuf, platforms: &dyn Platforms) -> Needs {
    let mut needs = Needs {
        read: vec![folder.path().to_owned()],
        write: vec![state],
        bind: vec![options.listen.port()],
        connect: Vec::new(),
    };
    needs.write.extend(platforms.paths());
    needs
        .bind
        .extend(options.metrics.map(|address| address.port()));
    match &options.set_up.tpm {
        Some(Address::Device(path) | Address::Unix(path)) => needs.write.push(path.clone()),
        Some(Address::Tcp(address)) => {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            needs.connect.extend(port.and_then(Result::ok));
        }
        None => {}
    }
    needs
}

impl Report for Seen {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} tables", self.tables)
    }
}
