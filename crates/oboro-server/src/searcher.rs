//! `oboro searcher`: the role that holds the index.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use oboro_channel::Role;
use oboro_index::Index;
use oboro_searcher::{KeeperConfig, SearcherConfig, SearcherServer};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::{Global, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::failure::Outcome;
use crate::keys::{self, Folder};
use crate::output::{self, Report};
use crate::processes::Ready;
use crate::{roles, shutdown};

/// Options of `oboro searcher`.
#[derive(Args, Debug)]
pub struct Options {
    /// Folder of the index
    #[arg(long, value_name = "DIR")]
    pub index: PathBuf,
    /// Keys of the searcher: the folder of `oboro keygen` or its searcher/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Address of the keeper, or `none` where every client holds the key itself
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub keeper: String,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = SEARCHER_ADDRESS, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Work with a keeper that no hardware protects, and run without such hardware
    #[arg(long)]
    pub allow_simulated: bool,
    /// Loopback address for Prometheus figures
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Threads that scan; all cores when not given
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Stop when standard input closes, and say at the end what was seen
    #[arg(long, hide = true)]
    pub supervised: bool,
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

/// Runs the verb.
pub fn run(options: &Options, global: &Global) -> Outcome<()> {
    roles::check_platform(options.allow_simulated, "searcher")?;
    roles::log();
    roles::check_index(&options.index)?;
    let folder = Folder::of(&options.keys, Role::Searcher)?;
    let index = Index::open(&options.index, &folder.storage_key()?)?;
    let keeper = (options.keeper != "none")
        .then(|| KeeperConfig::new(&options.keeper, roles::verifier(options.allow_simulated)));
    let mut config = SearcherConfig::new(
        folder.identity()?,
        folder.trust()?,
        roles::attester()?,
        keeper,
        Zeroizing::new(keys::os_seed()?),
    );
    config.metrics_address = options.metrics;
    if let Some(threads) = options.threads {
        config.scan_threads = threads.max(1);
    }
    let workers = config.scan_threads;
    let server = SearcherServer::new(index, config)?;
    let metrics = server.metrics();
    let runtime = super::runtime(workers)?;
    runtime.block_on(async {
        let stop = shutdown::requested(options.supervised)?;
        let listener = roles::listen(options.listen).await?;
        let ready = Ready::new("searcher", &listener)?;
        output::print(&ready, global.json)?;
        server.serve(listener, stop).await?;
        Outcome::Ok(())
    })?;
    if options.supervised {
        let view = metrics.view();
        output::print(
            &Seen {
                role: "searcher",
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

impl Report for Seen {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} searches", self.searches)
    }
}
