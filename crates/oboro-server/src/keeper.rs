//! `oboro keeper`: the role that holds the decryption key.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use oboro_channel::Role;
use oboro_keeper::{KeeperConfig, KeeperServer, RateLimit};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::{Global, KEEPER_ADDRESS};
use crate::failure::Outcome;
use crate::keys::{self, Folder};
use crate::output::{self, Report};
use crate::processes::Ready;
use crate::{roles, shutdown};

/// Options of `oboro keeper`.
#[derive(Args, Debug)]
pub struct Options {
    /// Keys of the keeper: the folder of `oboro keygen` or its keeper/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Answer searchers that no hardware protects, and run without such hardware
    #[arg(long)]
    pub allow_simulated: bool,
    /// Loopback address for Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Tables a second that each searcher may have decrypted
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Refuse indexes whose noise is drowned by fewer bits than this
    #[arg(long, default_value_t = 0.0, value_name = "BITS")]
    pub flooding_bits: f64,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Stop when standard input closes, and say at the end what was seen
    #[arg(long, hide = true)]
    pub supervised: bool,
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

/// Runs the verb.
pub fn run(options: &Options, global: &Global) -> Outcome<()> {
    roles::check_platform(options.allow_simulated, "keeper")?;
    roles::log();
    let folder = Folder::of(&options.keys, Role::Keeper)?;
    let mut config = KeeperConfig::new(
        folder.identity()?,
        folder.trust()?,
        roles::attester()?,
        Zeroizing::new(keys::os_seed()?),
    );
    config.searcher_verifier = Some(roles::verifier(options.allow_simulated));
    config.metrics_address = options.metrics;
    config.record_view = options.record_view;
    config.minimum_flooding_bits = options.flooding_bits;
    if let Some(threads) = options.threads {
        config.workers = threads.max(1);
    }
    if let Some(rate) = options.rate {
        config.rate = RateLimit {
            per_second: f64::from(rate),
            burst: f64::from(rate).max(1.0),
        };
    }
    let server = KeeperServer::new(folder.keeper_secret()?, &folder.keeper_public()?, &config)?;
    let runtime = super::runtime(config.workers)?;
    runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let listener = roles::listen(options.listen).await?;
        let ready = Ready::new("keeper", &listener)?;
        output::print(&ready, global.json)?;
        server.serve(listener, stop).await?;
        Outcome::Ok(())
    })?;
    if options.supervised {
        let view = server.view();
        output::print(
            &Seen {
                role: "keeper",
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

impl Report for Seen {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} tables", self.tables)
    }
}
