//! The generator as a program: it builds one index for its owner, seeing all of it, and
//! forgets it.
//!
//! It has no state and no secret of its own but the key of its certificate. What it holds
//! of a build lives as long as the owner's call; on its disk lie, in a folder that only its
//! user may read, files of the new index, each sealed as it will lie at the searcher. By
//! default it ends after one build: memory of a process that has ended is wiped by the
//! kernel before anybody else gets it, freed memory of one that goes on is not, and no
//! second owner finds anything of the first.

mod delivery;
mod driver;
mod job;
mod progress;
mod server;
mod work;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use oboro_attest::Policy;
use oboro_channel::{Role, Trust};

use crate::configuration::Configuration;
use crate::failure::{Failure, Outcome, usage_of};
use crate::keys::Folder;
use crate::lockdown::{self, LockdownOptions, Needs};
use crate::output;
use crate::platforms::Platforms;
use crate::ready::Ready;
use crate::roles::{self, GENERATOR_ADDRESS};
use crate::shutdown;

pub use job::{from_message, to_message};
pub use progress::{number_of, stage_of};

use server::{Ended, GeneratorConfig, GeneratorServer};
use work::Work;

/// Options of the generator.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Identity of the generator: the folder of `oboro keygen` or its generator/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = GENERATOR_ADDRESS, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Folder of its own for the sealed files of an index while it is made; one in the
    /// system's temporary folder when not given
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How the generator is set up, as its evidence states it
    #[command(flatten)]
    pub set_up: SetUp,
    /// Stop when standard input closes
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// Options that the configuration digest covers.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct SetUp {
    /// How far it is locked down.
    #[command(flatten)]
    pub lockdown: LockdownOptions,
    /// Go on after a build instead of ending; freed memory is then not wiped between builds
    #[arg(long)]
    pub stay: bool,
}

impl SetUp {
    fn configuration(self, trust: &Trust) -> Outcome<Configuration> {
        let lockdown = self.lockdown.lockdown.name();
        // It demands no evidence of anybody.
        let policy = Policy::default();
        Ok(
            Configuration::new(Role::Generator.name(), &policy, lockdown, trust)?
                .with("answers", vec![Role::Owner.name()])
                .with("ends_after_a_build", !self.stay),
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

/// What a generator with these options and the authority in `keys` would state about its
/// set-up.
///
/// # Errors
/// If the options are wrong, or the authority cannot be read.
pub fn configuration_of(options: &[String], keys: &Path) -> Outcome<Configuration> {
    let trust = Folder::of(keys, Role::Generator)?.trust()?;
    let alone = Alone::try_parse_from(options).map_err(|error| usage_of(&error))?;
    alone.set_up.configuration(&trust)
}

/// Runs the generator until a build has ended or, with `--stay`, it is told to stop.
///
/// # Errors
/// One sentence: identity, platform, folder, lock-down, address, or why the build did not
/// succeed.
pub fn run(options: &Options, json: bool, platforms: &dyn Platforms) -> Outcome<()> {
    let attester = platforms.attester()?;
    roles::log();
    let folder = Folder::of(&options.keys, Role::Generator)?;
    let (identity, trust) = (folder.identity()?, folder.trust()?);
    let configuration = options.set_up.configuration(&trust)?;
    let platform = attester.platform();
    let work = Work::claim(options.work.as_deref())?;
    let mut needs = Needs {
        read: vec![folder.path().to_owned()],
        write: vec![work.path().to_owned()],
        bind: vec![options.listen.port()],
        connect: Vec::new(),
    };
    needs.write.extend(platforms.paths());
    // Before the first thread: what is given up now is given up by all.
    let lockdown = lockdown::apply(options.set_up.lockdown.lockdown, &needs)?;
    let stay = options.set_up.stay;
    let remark = match stay {
        true => "it goes on after a build: freed memory is not wiped between builds",
        false => "it builds one index and ends",
    };
    let runtime = roles::runtime(2)?;
    let ended = runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let listener = roles::listen(options.listen).await?;
        let ready = Ready {
            role: Role::Generator.name().to_owned(),
            address: options.listen,
            platform: platform.name().to_owned(),
            configuration: output::hex(&configuration.digest()),
            lockdown,
            remarks: vec![remark.to_owned()],
        };
        let server = GeneratorServer::new(GeneratorConfig {
            identity,
            trust,
            attester,
            configuration: configuration.digest(),
            threads: options.threads,
            work,
            stay,
        });
        output::print(&ready.at(&listener)?, json)?;
        server.serve(listener, stop).await
    })?;
    match ended {
        None | Some(Ended::Delivered) => Ok(()),
        Some(Ended::Failed(why)) => Err(Failure::failed(format_args!(
            "the build did not succeed, and nothing of it is left: {why}"
        ))),
    }
}
