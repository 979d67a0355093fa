//! `oboro demo`: everything at once on real word vectors.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use oboro_ckks::ParameterSet;
use oboro_client::{SearchOptions, blocking};
use oboro_owner::Rows;
use oboro_quant::{Metric, exact};
use oboro_server::ready::Measure;
use rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::bench_measured::StageMedians;
use super::connection::Connection;
use super::doctor::cores;
use super::recalls::Recalls;
use super::serve::{Pair, PairOptions};
use super::{build, keygen, saved_words};
use crate::failure::{Failure, Outcome};
use crate::figures::{median, round};
use crate::global::Global;
use crate::or_failure::{IntoFailure, OrFailure};
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::{shutdown, words};

/// Options of `oboro demo`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Words to search for; some well-known ones when none is given
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// How many random words measure recall and speed
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub(crate) queries: u32,
    /// Write words and vectors into this new folder, to try the other verbs on, and end
    #[arg(long, value_name = "DIR", conflicts_with_all = ["words", "queries"])]
    pub(crate) save: Option<PathBuf>,
}

const USUAL_WORDS: [&str; 5] = ["paris", "king", "cancer", "guitar", "monday"];

/// Neighbours that are shown.
const SHOWN: usize = 8;
/// Neighbours that recall counts.
const COUNTED: usize = 10;
/// Candidates that the client re-ranks.
const CANDIDATES: u32 = 100;
/// Sub-quantizers for 50 dimensions: five values each.
const SUBQUANTIZERS: usize = 10;
/// Seed of the choice of random words.
const SEED: u64 = 1;

/// What the demo showed.
#[derive(Serialize)]
struct Shown {
    platform: String,
    trust: Trust,
    words: usize,
    dimension: usize,
    parameter_set: &'static str,
    security_bits: u32,
    neighbours: Vec<Word>,
    queries: usize,
    recall_10_at_10: f64,
    sequential_qps: f64,
    latency_p50_ms: f64,
    query_bytes_up: u64,
    reply_bytes_down: u64,
    keeper_bytes: usize,
    build_seconds: f64,
    seconds: f64,
    stages: StageMedians,
    saw: Saw,
}

/// Who proved what before the first query, and what the roles gave up.
#[derive(Serialize)]
struct Trust {
    searcher_configuration: String,
    keeper_configuration: String,
    index_id: String,
    epoch: u64,
    remarks: Vec<String>,
    lockdown: Vec<Measure>,
}

/// The neighbours of one word, the word itself left out.
#[derive(Serialize)]
struct Word {
    word: String,
    private: Vec<&'static str>,
    exact: Vec<&'static str>,
}

/// What each role saw.
#[derive(Serialize)]
struct Saw {
    host: Host,
    searcher: serde_json::Value,
    keeper: serde_json::Value,
}

/// The host sees files and traffic.
#[derive(Serialize)]
struct Host {
    index_bytes: u64,
    /// Of 8: what random bytes have.
    index_bits_per_byte: f64,
    requests: u64,
    bytes_up: u64,
    bytes_down: u64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let begin = Instant::now();
    let progress = Progress::new(global);
    if let Some(folder) = &options.save {
        return output::print(&saved_words::save(folder)?, global.json);
    }
    let all = Words::load();
    let asked: Vec<usize> = if options.words.is_empty() {
        USUAL_WORDS
            .iter()
            .map(|word| all.row(word))
            .collect::<Outcome<_>>()?
    } else {
        options
            .words
            .iter()
            .map(|word| all.row(word))
            .collect::<Outcome<_>>()?
    };

    let work = tempfile::tempdir().map_err(Failure::failed)?;
    let left = work.path().to_owned();
    shutdown::on_interrupt(move || {
        let _ = std::fs::remove_dir_all(&left);
        std::process::exit(shutdown::INTERRUPTED);
    })?;
    progress.remark(format_args!(
        "{} words, {} dimensions; everything happens in a temporary folder on this machine",
        output::count(all.words.len() as u64),
        words::DIMENSION
    ));
    progress.remark(output::SIMULATED);
    let (index, keys) = (work.path().join("index"), work.path().join("keys"));
    let set = ParameterSet::N2048Q50;
    progress.remark("keygen: keys of owner, client, searcher and keeper");
    keygen::make(&keys, set, 1, None)?;
    progress.remark("build: train, encode, seal, encrypt");
    let mut settings = build::Options::new(Path::new("words"), &keys, &index);
    settings.metric = Metric::Cosine.name().to_owned();
    settings.subquantizers = Some(SUBQUANTIZERS);
    settings.seed = Some(SEED);
    let mut source = Rows::new(&all.vectors, words::DIMENSION).or_failure()?;
    let built = build::build_from(
        &mut source,
        &settings,
        &progress,
        &Arc::default(),
        IntoFailure::into_failure,
    )?;
    progress.remark("serve: searcher and keeper, two processes; TLS 1.3 between all, evidence on every connection to a role");
    let mut pair_options = PairOptions::local(&index, &keys, None);
    pair_options.record_view = true;
    let pair = Pair::start(&pair_options)?;
    progress.remark("search: encrypted queries, exact re-ranking on the client\n");

    let connection = Connection::local(pair.address(), &keys, CANDIDATES as usize);
    let client = blocking::Client::connect(connection.config()?).or_failure()?;
    let (index_bytes, index_bits_per_byte) = entropy(&index)?;
    let mut host = Host {
        index_bytes,
        index_bits_per_byte: round(index_bits_per_byte, 5),
        requests: 0,
        bytes_up: 0,
        bytes_down: 0,
    };
    let settings = connection.search_options(SHOWN + 1)?;
    let neighbours = asked
        .iter()
        .map(|&row| word(&all, row, &client, &settings, &mut host))
        .collect::<Outcome<_>>()?;
    let settings = connection.search_options(COUNTED + 1)?;
    let measured = measure(
        &all,
        options.queries as usize,
        &client,
        &settings,
        &progress,
        &mut host,
    )?;
    let proved = client.index();
    drop(client);
    let platform = pair.searcher.ready.platform.clone();
    let trust = Trust {
        searcher_configuration: pair.searcher.ready.configuration.clone(),
        keeper_configuration: pair.keeper.ready.configuration.clone(),
        index_id: output::hex(&proved.index_id),
        epoch: proved.epoch,
        remarks: proved.remarks,
        lockdown: pair.searcher.ready.lockdown.clone(),
    };
    let (searcher, keeper) = pair.stop()?;
    let shown = Shown {
        platform,
        trust,
        words: all.words.len(),
        dimension: words::DIMENSION,
        parameter_set: set.name(),
        security_bits: set.security_bits(),
        neighbours,
        queries: options.queries as usize,
        recall_10_at_10: round(measured.recall, 4),
        sequential_qps: round(measured.per_second, 4),
        latency_p50_ms: round(measured.p50_ms, 3),
        query_bytes_up: measured.bytes_up,
        reply_bytes_down: measured.bytes_down,
        keeper_bytes: built.keeper_bytes(),
        build_seconds: built.seconds,
        seconds: round(begin.elapsed().as_secs_f64(), 3),
        stages: measured.stages,
        saw: Saw {
            host,
            searcher,
            keeper,
        },
    };
    output::print(&shown, global.json)
}

/// The words and their vectors.
struct Words {
    words: Vec<&'static str>,
    vectors: Vec<f32>,
}

impl Words {
    fn load() -> Self {
        Self {
            words: words::words(),
            vectors: words::vectors(),
        }
    }

    fn row(&self, word: &str) -> Outcome<usize> {
        let lower = word.to_lowercase();
        self.words
            .iter()
            .position(|known| *known == lower)
            .ok_or_else(|| {
                Failure::input(format_args!(
                    "\"{word}\" is not among the {} most frequent English words; try another one",
                    output::count(self.words.len() as u64)
                ))
            })
    }

    fn vector(&self, row: usize) -> &[f32] {
        &self.vectors[row * words::DIMENSION..][..words::DIMENSION]
    }

    /// How far some rows are from one.
    fn distances(&self, row: usize, ids: &[u64]) -> Vec<f32> {
        let from = self.vector(row);
        ids.iter()
            .map(|&id| Metric::Cosine.distance(from, self.vector(id as usize)))
            .collect()
    }

    /// The `k` nearest rows of some rows, themselves left out.
    fn exact(&self, rows: &[usize], k: usize) -> Outcome<Vec<Vec<u64>>> {
        let queries: Vec<f32> = rows
            .iter()
            .flat_map(|&row| self.vector(row))
            .copied()
            .collect();
        let (_, ids) = exact::search(
            &self.vectors,
            words::DIMENSION,
            &queries,
            k + 1,
            Metric::Cosine,
            cores(),
        )
        .or_failure()?;
        Ok(ids
            .chunks(k + 1)
            .zip(rows)
            .map(|(ids, &row)| without(ids.iter().copied(), row, k))
            .collect())
    }
}

fn without(ids: impl Iterator<Item = u64>, row: usize, most: usize) -> Vec<u64> {
    ids.filter(|&id| id != row as u64).take(most).collect()
}

/// One search, counted as the host can count it.
fn search(
    all: &Words,
    row: usize,
    client: &blocking::Client,
    settings: &SearchOptions,
    host: &mut Host,
) -> Outcome<(Vec<u64>, oboro_client::SearchResult)> {
    let result = client.search(all.vector(row), settings).or_failure()?;
    host.requests += 1;
    host.bytes_up += result.bytes_up;
    host.bytes_down += result.bytes_down;
    let ids = result.neighbours.iter().map(|neighbour| neighbour.id);
    Ok((without(ids, row, settings.k - 1), result))
}

fn word(
    all: &Words,
    row: usize,
    client: &blocking::Client,
    settings: &SearchOptions,
    host: &mut Host,
) -> Outcome<Word> {
    let (private, _) = search(all, row, client, settings, host)?;
    let exact = all.exact(&[row], SHOWN)?.remove(0);
    let names = |ids: Vec<u64>| ids.iter().map(|&id| all.words[id as usize]).collect();
    Ok(Word {
        word: all.words[row].to_owned(),
        private: names(private),
        exact: names(exact),
    })
}

struct Figures {
    recall: f64,
    per_second: f64,
    p50_ms: f64,
    bytes_up: u64,
    bytes_down: u64,
    stages: StageMedians,
}

/// Recall and speed over random words.
fn measure(
    all: &Words,
    count: usize,
    client: &blocking::Client,
    settings: &SearchOptions,
    progress: &Progress,
    host: &mut Host,
) -> Outcome<Figures> {
    let mut rng = chacha20::ChaCha20Rng::seed_from_u64(SEED);
    let rows: Vec<usize> = (0..count)
        .map(|_| (rng.next_u64() % all.words.len() as u64) as usize)
        .collect();
    let truth = all.exact(&rows, COUNTED)?;
    let bar = progress.bar("random words", Some(count as u64));
    let mut found = Vec::with_capacity(count);
    let (mut latencies, mut stages) = (Vec::new(), Vec::new());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for &row in &rows {
        let start = Instant::now();
        let (ids, result) = search(all, row, client, settings, host)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
        stages.push(result.stages);
        up.push(result.bytes_up as f64);
        down.push(result.bytes_down as f64);
        found.push(ids);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let distances = |lists: &[Vec<u64>]| -> Vec<Vec<f32>> {
        let lists = lists.iter().zip(&rows);
        lists.map(|(ids, &row)| all.distances(row, ids)).collect()
    };
    let recalls = Recalls::by_distances(
        &distances(&found),
        &distances(&truth),
        Metric::Cosine,
        COUNTED,
    );
    Ok(Figures {
        recall: recalls.ten_at_ten.unwrap_or_default(),
        per_second: count as f64 * 1e3 / latencies.iter().sum::<f64>(),
        p50_ms: median(latencies),
        bytes_up: median(up) as u64,
        bytes_down: median(down) as u64,
        stages: StageMedians::of(&stages),
    })
}

/// Bytes of a folder's files and the entropy of a byte of them.
fn entropy(folder: &Path) -> Outcome<(u64, f64)> {
    let mut counts = [0_u64; 256];
    let mut count = || -> io::Result<()> {
        for entry in folder.read_dir()? {
            for byte in std::fs::read(entry?.path())? {
                counts[usize::from(byte)] += 1;
            }
        }
        Ok(())
    };
    count().map_err(|error| Failure::failed(format_args!("cannot read the index: {error}")))?;
    let total: u64 = counts.iter().sum();
    let bits = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f64 / total as f64;
            -share * share.log2()
        })
        .sum();
    Ok((total, bits))
}

/// The first digits of an identifier.
fn short(hexadecimal: &str) -> &str {
    hexadecimal.get(..8).unwrap_or(hexadecimal)
}

impl Report for Shown {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for word in &self.neighbours {
            let same = word
                .private
                .iter()
                .filter(|name| word.exact.contains(name))
                .count();
            writeln!(out, "{} ({same} of {} agree)", word.word, word.exact.len())?;
            writeln!(out, "  private  {}", word.private.join(", "))?;
            writeln!(out, "  exact    {}", word.exact.join(", "))?;
        }
        writeln!(out, "\n{} random words", output::count(self.queries as u64))?;
        let mut line = |what: &str, value: String| writeln!(out, "  {what:28} {value}");
        line("10-recall@10", format!("{:.3}", self.recall_10_at_10))?;
        line(
            "one after the other",
            format!(
                "{:.0} queries a second (median {:.2} ms)",
                self.sequential_qps, self.latency_p50_ms
            ),
        )?;
        line(
            "bytes of a query",
            format!(
                "{} up, {} down, {} between searcher and keeper",
                output::bytes(self.query_bytes_up),
                output::bytes(self.reply_bytes_down),
                output::bytes(self.keeper_bytes as u64)
            ),
        )?;
        writeln!(out, "\nwhere the time of a query goes (medians)")?;
        let stages = &self.stages;
        for (what, us) in [
            ("client: encrypt", stages.encrypt_us),
            ("searcher: evaluate", stages.evaluate_us),
            ("keeper, round trip", stages.keeper_us),
            ("searcher: unmask", stages.unmask_us),
            ("searcher: wait for a pass", stages.queue_us),
            ("searcher: scan and select", stages.scan_us),
            ("searcher: fetch originals", stages.fetch_us),
            ("client: open and re-rank", stages.rerank_us),
            ("TLS and network", stages.request_us - stages.searcher_us),
        ] {
            writeln!(out, "  {what:28} {us:5.0} us")?;
        }
        writeln!(
            out,
            "\nwho proved what, on every connection before the first message"
        )?;
        let trust = &self.trust;
        for (who, what) in [
            (
                "searcher to client",
                format!(
                    "evidence ({}) of its program, this TLS session, its key, set-up {}, index {}, epoch {}",
                    self.platform,
                    short(&trust.searcher_configuration),
                    short(&trust.index_id),
                    trust.epoch
                ),
            ),
            (
                "keeper to searcher",
                format!(
                    "evidence ({}) of its program, its CKKS keys, set-up {}",
                    self.platform,
                    short(&trust.keeper_configuration)
                ),
            ),
            (
                "searcher to keeper",
                "evidence as above; then its index is the newest, and the keeper releases its part of the key"
                    .to_owned(),
            ),
            (
                "client to searcher",
                "a certificate of the owner's for a reader".to_owned(),
            ),
        ] {
            writeln!(out, "  {who:20} {what}")?;
        }
        let locked: Vec<String> = trust
            .lockdown
            .iter()
            .map(|measure| format!("{} {}", measure.name, measure.degree))
            .collect();
        writeln!(out, "  {:20} {}", "both roles gave up", locked.join(", "))?;
        let field = |role: &serde_json::Value, name: &str| role[name].as_u64().unwrap_or(0);
        let (host, searcher, keeper) = (&self.saw.host, &self.saw.searcher, &self.saw.keeper);
        writeln!(out, "\nwhat each role saw")?;
        writeln!(
            out,
            "  host      {} of index ({:.4} of 8 bits a byte: random to the eye), {} requests, {} in and {} out, all ciphertext",
            output::bytes(host.index_bytes),
            host.index_bits_per_byte,
            output::count(host.requests),
            output::bytes(host.bytes_up),
            output::bytes(host.bytes_down)
        )?;
        writeln!(
            out,
            "  searcher  codes, {} encrypted queries, {} distance tables in the clear, {} candidates' positions; no query, no centroid, no vector, no key",
            output::bytes(field(searcher, "ciphertext_bytes")),
            output::count(field(searcher, "tables_decoded")),
            output::count(field(searcher, "ids_touched"))
        )?;
        writeln!(
            out,
            "  keeper    the decryption key and {} of masked products for {} tables, {:+.1} standard deviations from uniform bytes; no index, no query, no table",
            output::bytes(field(keeper, "bytes_received")),
            output::count(field(keeper, "tables")),
            keeper["uniformity"].as_f64().unwrap_or(f64::NAN)
        )?;
        writeln!(
            out,
            "  client    its own queries and their results; no other vector, no codebook"
        )?;
        writeln!(
            out,
            "\n{} bits of security ({}). {}",
            self.security_bits,
            self.parameter_set,
            output::SIMULATED
        )?;
        writeln!(
            out,
            "Built in {:.1} s, everything in {:.1} s; nothing is left behind.",
            self.build_seconds, self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_are_not_their_own_neighbours() {
        let all = Words::load();
        let row = all.row("Paris").expect("a frequent word");
        assert_eq!(all.words[row], "paris");
        let neighbours = all.exact(&[row], 5).expect("a valid search").remove(0);
        assert_eq!(neighbours.len(), 5);
        assert!(!neighbours.contains(&(row as u64)));
        assert!(all.row("xyzzyx").is_err());
    }
}
