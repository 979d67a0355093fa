//! How `search` and `eval` reach a searcher.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use oboro_channel::Role;
use oboro_client::{
    Client, ClientConfig, Filter, IndexSummary, Keyholder, Rerank, SearchOptions, SearchResult,
};
use oboro_index::keys::read_keeper_secret;
use oboro_server::policy::PolicyOptions;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::doctor::cores;
use super::filter::FilterNames;
use crate::failure::{Failure, Outcome};
use crate::figures::median;
use crate::input::at_least_one;
use crate::keys::{self, Folder};
use crate::or_failure::OrFailure;
use crate::output;
use crate::progress::Progress;
use crate::roles::{self, SEARCHER_ADDRESS};
use crate::with_simulated::WithSimulated;

/// How to reach a searcher and what to ask of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// Address of the searcher
    #[arg(long, default_value = SEARCHER_ADDRESS, value_name = "ADDRESS")]
    pub(crate) server: String,
    /// Keys of the client: the folder of `oboro keygen` or its client/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Search on servers that no hardware protects
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Who holds the decryption key: keeper, or client for this process
    #[arg(long, default_value = "keeper", value_name = "WHO")]
    pub(crate) keyholder: String,
    /// Decryption key for `--keyholder client`
    #[arg(long, value_name = "FILE")]
    pub(crate) keeper_key: Option<PathBuf>,
    /// Candidates whose originals are compared exactly on the client, or `off`
    #[arg(long, default_value = "100", value_name = "R")]
    pub(crate) rerank: String,
    /// Lists to look at, in an index with lists; as many as it allows when not given
    #[arg(long, value_name = "N")]
    pub(crate) probes: Option<u32>,
    /// Queries in flight at the same time
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// Longest time for one query, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline: u64,
}

/// Queries between two steps of the progress bar.
const BATCH: usize = 256;

impl Connection {
    /// The defaults of the command line, for roles on this machine.
    pub(crate) fn local(server: String, keys: &Path, rerank: usize) -> Self {
        Self {
            server,
            keys: keys.to_owned(),
            policy: PolicyOptions::default(),
            allow_simulated: true,
            keyholder: "keeper".to_owned(),
            keeper_key: None,
            rerank: rerank.to_string(),
            probes: None,
            concurrency: 1,
            deadline: 30,
        }
    }

    /// What the client connects with.
    pub(crate) fn config(&self) -> Outcome<ClientConfig> {
        let folder = Folder::of(&self.keys, Role::Client)?;
        let mut config = ClientConfig::new(
            self.server.clone(),
            folder.identity()?,
            folder.trust()?,
            folder.client_key()?,
            self.policy
                .verifier(&WithSimulated::new(self.allow_simulated))?,
            Zeroizing::new(keys::os_seed()?),
        );
        config.keyholder = match (self.keyholder.as_str(), &self.keeper_key) {
            ("keeper", None) => Keyholder::Keeper,
            ("client", Some(path)) => Keyholder::client(read_keeper_secret(path)?),
            ("client", None) => {
                return Err(Failure::usage(
                    "--keyholder client needs the decryption key; name its file with --keeper-key",
                ));
            }
            ("keeper", Some(_)) => {
                return Err(Failure::usage(
                    "--keeper-key is for --keyholder client; leave it out when the keeper decrypts",
                ));
            }
            (other, _) => {
                return Err(Failure::usage(format_args!(
                    "there is no keyholder \"{other}\"; choose keeper or client"
                )));
            }
        };
        Ok(config)
    }

    /// Connects and says so where nothing protects the servers.
    pub(crate) fn connect(&self) -> Outcome<Connected> {
        let connected = self.connect_quietly()?;
        if connected.index.simulated {
            eprintln!("{}", output::SIMULATED);
        } else {
            for remark in &connected.index.remarks {
                eprintln!("note: {remark}");
            }
        }
        if connected.index.lists > 0 {
            eprintln!("note: {}", output::LISTS_LEAK);
        }
        Ok(connected)
    }

    /// Connects, for verbs that say themselves what protects the servers.
    pub(crate) fn connect_quietly(&self) -> Outcome<Connected> {
        let runtime = roles::runtime(cores())?;
        let client = runtime
            .block_on(Client::connect(self.config()?))
            .or_failure()?;
        let index = client.index();
        Ok(Connected {
            runtime,
            client,
            index,
        })
    }

    pub(crate) fn rerank(&self) -> Outcome<Rerank> {
        rerank(&self.rerank)
    }

    /// The options of a search for `k` neighbours.
    pub(crate) fn search_options(&self, k: usize) -> Outcome<SearchOptions> {
        Ok(SearchOptions {
            k,
            rerank: self.rerank()?,
            probes: self.probes,
            deadline: Duration::from_secs(self.deadline.max(1)),
            ..SearchOptions::default()
        })
    }
}

/// `off` or a number.
fn rerank(text: &str) -> Outcome<Rerank> {
    match (text, text.parse()) {
        ("off", _) => Ok(Rerank::Off),
        (_, Ok(candidates)) if candidates > 0 => Ok(Rerank::Candidates(candidates)),
        _ => Err(Failure::usage(format_args!(
            "--rerank \"{text}\" is neither off nor a number from 1"
        ))),
    }
}

/// A client that is connected, with its runtime.
pub(crate) struct Connected {
    runtime: Runtime,
    client: Client,
    pub(crate) index: IndexSummary,
}

/// All results of a run, in the order of the queries.
pub(crate) struct Run {
    pub(crate) results: Vec<SearchResult>,
    pub(crate) seconds: f64,
}

impl Connected {
    /// The filter of the index's tags that `names` asks for.
    pub(crate) fn filter(&self, names: &FilterNames) -> Outcome<Filter> {
        self.client
            .filter(&names.any, &names.all, &names.none)
            .or_failure()
    }

    /// Searches with rows of the index's dimension.
    pub(crate) fn search(
        &self,
        queries: &oboro_vectors::Matrix<f32>,
        options: &SearchOptions,
        concurrency: usize,
        progress: &Progress,
    ) -> Outcome<Run> {
        let bar = progress.bar("searching", Some(queries.rows() as u64));
        let start = Instant::now();
        let mut results = Vec::with_capacity(queries.rows());
        let rows: Vec<Vec<f32>> = queries.iter().map(<[f32]>::to_vec).collect();
        for batch in rows.chunks(BATCH) {
            let found = self
                .client
                .search_many(batch.to_vec(), options, concurrency);
            results.extend(self.runtime.block_on(found).or_failure()?);
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Run {
            results,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

impl Run {
    /// Bytes of all messages of a query, sent and received: medians.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let median = |pick: fn(&SearchResult) -> u64| {
            median(self.results.iter().map(|r| pick(r) as f64).collect()) as u64
        };
        (median(|r| r.bytes_up), median(|r| r.bytes_down))
    }

    /// The ids of every query, nearest first.
    pub(crate) fn ids(&self) -> Vec<Vec<u64>> {
        self.results
            .iter()
            .map(|result| result.neighbours.iter().map(|n| n.id).collect())
            .collect()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.results.len() as f64 / self.seconds.max(1e-9)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rerank_is_off_or_a_number() {
        assert_eq!(rerank("off").unwrap(), Rerank::Off);
        assert_eq!(rerank("200").unwrap(), Rerank::Candidates(200));
        for bad in ["0", "-1", "on", ""] {
            assert_eq!(rerank(bad).unwrap_err().kind.code(), 2);
        }
    }
}
