//! `oboro bench`: build, serve and measure a TEXMEX folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use oboro_channel::Role;
use oboro_client::{Client, Rerank, SearchOptions, blocking};
use oboro_index::Index;
use oboro_server::policy::PolicyOptions;
use oboro_simd::arch::Arch;
use oboro_vectors::Matrix;
use sha2::{Digest as _, Sha256};

use super::bench_build::{self, Generated};
use super::bench_insert::{self, Inserting};
use super::bench_measured::{Measured, StageMedians};
use super::connection::Connection;
use super::eval::{exact_neighbours, first_rows, known};
use super::recalls::{self, Recalls};
use super::serve::{Pair, PairOptions};
use super::{build, doctor, verify};
use crate::failure::{Failure, Outcome};
use crate::figures::{median, round};
use crate::global::Global;
use crate::input::{Input, RecordArgs};
use crate::keys::Folder;
use crate::measure::{self, Scans};
use crate::or_failure::OrFailure;
use crate::output;
use crate::passphrase::KeyPassphrase;
use crate::place::Place;
use crate::progress::Progress;
use crate::{results, roles, shutdown};

/// Options of `oboro bench`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder with base, query and groundtruth (.fvecs or .bvecs, .ivecs)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Store the object in a file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Overwrite that file
    #[arg(long)]
    pub(crate) force: bool,
    /// Index to use; built in a temporary folder when not given
    #[arg(long, value_name = "DIR", requires = "keys")]
    pub(crate) index: Option<PathBuf>,
    /// Folder of `oboro keygen` that the index was built with
    #[arg(long, value_name = "DIR", requires = "index")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    /// Encryption parameters of a new index
    #[arg(long, default_value = "N2048_Q50", value_name = "SET")]
    pub(crate) set: String,
    /// Sub-quantizers of a new index; dimension / 8 when not given
    #[arg(long, short = 'M', value_name = "M")]
    pub(crate) subquantizers: Option<usize>,
    /// Centroids of a new index
    #[arg(long, short = 'K', default_value_t = 256, value_name = "K")]
    pub(crate) centroids: usize,
    /// Ciphertexts a query of a new index; chosen when not given
    #[arg(long, value_name = "N")]
    pub(crate) split: Option<usize>,
    /// Metric of a new index
    #[arg(long, default_value = "l2", value_name = "METRIC")]
    pub(crate) metric: String,
    /// Who makes the codes of a new index: `local`, `enclave` or `blind`, each role in a process
    /// of its own
    #[arg(long, default_value = build::LOCAL, value_name = "MODE", conflicts_with = "index")]
    pub(crate) mode: String,
    /// Lists to look at, in an index with lists; as many as it allows when not given
    #[arg(long, value_name = "N")]
    pub(crate) probes: Option<u32>,
    /// Candidates for re-ranking
    #[arg(long, default_value_t = 100, value_name = "R")]
    pub(crate) rerank: usize,
    /// Queries to use, from the first on
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) queries: usize,
    /// Repetitions of which the median counts
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) repeat: usize,
    /// Clients at the same time
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) clients: usize,
    /// Measure inserts beside searches, too; an index of one's own grows by them
    #[arg(long)]
    pub(crate) insert: bool,
    /// Clients that search meanwhile
    #[arg(long, default_value_t = 4, value_name = "N", requires = "insert")]
    pub(crate) insert_clients: usize,
    /// Seconds of each part of a round of inserts
    #[arg(
        long,
        default_value_t = 10,
        value_name = "SECONDS",
        requires = "insert"
    )]
    pub(crate) insert_seconds: u64,
    /// Vectors of a commit
    #[arg(long, default_value_t = 8_192, value_name = "N", requires = "insert")]
    pub(crate) insert_batch: usize,
    /// Vectors a second that are inserted, and no more; as many as can be when not given
    #[arg(long, value_name = "N", requires = "insert")]
    pub(crate) insert_rate: Option<u32>,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Threads of build and searcher; all cores when not given
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Further options of `oboro build` for a new index
    #[arg(last = true, value_name = "OPTIONS", conflicts_with = "index")]
    pub(crate) build: Vec<String>,
}

/// The parts of a TEXMEX folder.
struct Data {
    base: PathBuf,
    queries: Matrix<f32>,
    truth: Option<Vec<Vec<u64>>>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let progress = Progress::new(global);
    if let Some(out) = options
        .out
        .as_deref()
        .filter(|out| out.exists() && !options.force)
    {
        return Err(Failure::refused(format_args!(
            "{} exists already; choose another name or allow replacing it with --force",
            out.display()
        )));
    }
    let data = data(&options.data, options.queries)?;
    let work = tempfile::tempdir().map_err(Failure::failed)?;
    let left = work.path().to_owned();
    shutdown::on_interrupt(move || {
        let _ = std::fs::remove_dir_all(&left);
        std::process::exit(shutdown::INTERRUPTED);
    })?;

    let (index, keys, generated) = match (&options.index, &options.keys) {
        (Some(index), Some(keys)) => (index.clone(), keys.clone(), None),
        _ => {
            let made = bench_build::make(options, &data.base, work.path(), &progress)?;
            (made.index, made.keys, Some(made.generated))
        }
    };
    let measured = measure(options, &data, &index, &keys, generated, &progress)?;
    if let Some(out) = &options.out {
        results::write_whole(out, |file| {
            serde_json::to_writer_pretty(&mut *file, &measured).map_err(io::Error::from)?;
            file.write_all(b"\n")
        })?;
    }
    output::print(&measured, global.json)
}

fn data(folder: &Path, queries: usize) -> Outcome<Data> {
    let base = part(folder, "base", &["fvecs", "bvecs"])?.ok_or_else(|| missing(folder, "base"))?;
    let query =
        part(folder, "query", &["fvecs", "bvecs"])?.ok_or_else(|| missing(folder, "query"))?;
    let queries = first_rows(Input::open(&query, None)?.read()?, queries)?;
    let truth = match part(folder, "groundtruth", &["ivecs"])? {
        Some(path) => Some(known(&path, queries.rows())?),
        None => None,
    };
    if let Some(truth) = &truth {
        let rows = Input::open(&base, None)?.records(&RecordArgs::default(), None)?;
        recalls::check_rows(truth, rows.rows())?;
    }
    Ok(Data {
        base,
        queries,
        truth,
    })
}

fn missing(folder: &Path, what: &str) -> Failure {
    Failure::input(format_args!(
        "{} holds no {what}.fvecs or {what}.bvecs; make a folder with scripts/bench-data.sh",
        folder.display()
    ))
}

/// The file whose name ends in `base` or `_base`, and the like.
fn part(folder: &Path, what: &str, extensions: &[&str]) -> Outcome<Option<PathBuf>> {
    let mut names: Vec<PathBuf> = folder
        .read_dir()
        .map_err(|error| Failure::input(format_args!("cannot read {}: {error}", folder.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("");
            stem == what
                || stem
                    .strip_suffix(what)
                    .is_some_and(|rest| rest.ends_with('_'))
        })
        .collect();
    names.sort();
    Ok(extensions.iter().find_map(|extension| {
        names
            .iter()
            .find(|path| path.extension().is_some_and(|e| e == *extension))
            .cloned()
    }))
}

fn measure(
    options: &Options,
    data: &Data,
    index_path: &Path,
    keys: &Path,
    generation: Option<Generated>,
    progress: &Progress,
) -> Outcome<Measured> {
    let queries: Vec<Vec<f32>> = data.queries.iter().map(<[f32]>::to_vec).collect();

    progress.remark("measuring the parts in one process");
    let (key, _) = verify::keys(keys, index_path, &options.passphrase)?;
    let index = Index::open(index_path, &key)?;
    drop(key);
    let descriptor = index.descriptor().clone();
    let vectors = index.vectors() as usize;
    let secret = Folder::of(keys, Role::Keeper)?.keeper_secret()?;
    let tables = measure::tables(&index, secret, &queries[..queries.len().min(200)])?;
    let codes = index.segments().iter().map(oboro_index::Segment::codes);
    let codes_bytes = codes.clone().map(|codes| codes.as_bytes().len()).sum();
    let mut scans = Scans::default();
    for codes in codes {
        scans += measure::scans(codes, descriptor.centroids(), options.rerank)?;
    }
    let index_bytes = bench_build::folder_bytes(index_path).map_err(Failure::failed)?;
    drop(index);

    progress.remark("starting both roles");
    let mut pair_options = PairOptions::local(index_path, keys, options.threads);
    pair_options.policy = options.policy.policy.as_deref();
    pair_options.allow_simulated = options.policy.policy.is_none();
    let pair = Pair::start(&pair_options)?;
    let mut connection = Connection::local(pair.address(), keys, options.rerank);
    connection.allow_simulated = pair_options.allow_simulated;
    connection.policy.clone_from(&options.policy);
    connection.probes = options.probes;
    let sequential = sequential(&connection, &queries, options, progress)?;
    let concurrent = concurrent(&connection, &queries, options, progress)?;

    let base = Input::open(&data.base, None)?;
    let truth = match &data.truth {
        Some(truth) => truth.clone(),
        None => exact_neighbours(&base.read()?, &data.queries, descriptor.metric, progress)?.1,
    };
    let found = |rerank: &str| -> Outcome<(Vec<Vec<u64>>, usize)> {
        let mut connection = connection.clone();
        connection.rerank = rerank.to_owned();
        let connected = connection.connect_quietly()?;
        let candidates = match connection.rerank()? {
            Rerank::Candidates(candidates) => candidates as usize,
            Rerank::Off => 100,
        };
        let depth = candidates.min(100).min(vectors);
        let settings = connection.search_options(depth)?;
        let run = connected.search(&data.queries, &settings, options.clients, progress)?;
        Ok((run.ids(), depth))
    };
    let ranked = found(&options.rerank.to_string())?;
    let ranked_200 = (descriptor.candidates_max >= 200)
        .then(|| found("200"))
        .transpose()?;
    let unranked = found("off")?;
    // All are rows of the base, and counted by their distances.
    let of_200 = ranked_200.as_ref().map_or(&[][..], |(ids, _)| ids);
    let sets = [&ranked.0[..], of_200, &unranked.0];
    let metric = descriptor.metric;
    let (distances, truth) = recalls::distances(sets, &truth, &base, &data.queries, metric)?;
    let [of_ranked, of_200, of_unranked] = distances;
    let recall = |found: &[Vec<f32>], depth| Recalls::by_distances(found, &truth, metric, depth);
    let recalls = recall(&of_ranked, ranked.1);
    let recalls_200 = ranked_200.map(|(_, depth)| recall(&of_200, depth));
    let unranked = recall(&of_unranked, unranked.1);
    let memory = pair.searcher.memory();
    // Last, since the index is another one afterwards.
    let inserting = options
        .insert
        .then(|| inserts(options, data, &pair, keys, &connection, &queries, progress))
        .transpose()?;
    let platform = pair.searcher.ready.platform.clone();
    pair.stop()?;

    let encryption = oboro_owner::EncryptionReport::new(&descriptor.packing, &descriptor.scale);
    let digits = |value: Option<f64>| value.map(|value| round(value, 5));
    Ok(Measured {
        date: output::utc(output::now()),
        version: env!("CARGO_PKG_VERSION"),
        executable: executable(),
        platform,
        processor: doctor::processor(),
        instructions: Arch::detect().name(),
        cores: doctor::cores(),
        threads: options.threads.unwrap_or_else(doctor::cores),
        data: options
            .data
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        vectors,
        dimension: descriptor.dimension as usize,
        metric: descriptor.metric.name(),
        subquantizers: descriptor.subquantizers(),
        centroids: descriptor.centroids(),
        split: descriptor.packing.split(),
        parameter_set: encryption.parameter_set,
        security_bits: encryption.security_bits,
        flooding_bits: round(encryption.flooding_bits, 3),
        build_seconds: generation.as_ref().map(|made| round(made.seconds, 4)),
        generation,
        index_bytes,
        query_encrypt_us: round(tables.encrypt_us, 4),
        table_evaluate_us: round(tables.evaluate_us, 4),
        table_zero_us: round(tables.zero_us, 4),
        table_decrypt_us: round(tables.decrypt_us, 4),
        table_quantize_us: round(tables.quantize_us, 4),
        scan_ms: round(scans.scan_ms, 4),
        select_ms: round(scans.select_ms, 4),
        memory_read_ms: round(scans.memory_read_ms, 4),
        queries: queries.len(),
        repetitions: options.repeat,
        rerank: options.rerank,
        probes: options.probes,
        clients: options.clients,
        sequential_qps: round(sequential.per_second, 4),
        latency_p50_ms: round(sequential.p50_ms, 4),
        latency_p99_ms: round(sequential.p99_ms, 4),
        concurrent_qps: round(concurrent, 4),
        query_bytes_up: sequential.bytes_up,
        reply_bytes_down: sequential.bytes_down,
        keeper_bytes: encryption.products_bytes + encryption.share_bytes,
        recall_10_at_10: digits(recalls.ten_at_ten),
        recall_1_at_1: digits(recalls.one_at_1),
        recall_1_at_10: digits(recalls.one_at_10),
        recall_1_at_100: digits(recalls.one_at_100),
        recall_10_at_10_rerank_200: digits(recalls_200.and_then(|r| r.ten_at_ten)),
        recall_10_at_10_unranked: digits(unranked.ten_at_ten),
        searcher_resident_bytes: memory.map(|m| m.0),
        searcher_own_bytes: memory.map(|m| m.1),
        codes_bytes,
        stages: sequential.stages,
        insert: inserting,
    })
}

fn inserts(
    options: &Options,
    data: &Data,
    pair: &Pair,
    keys: &Path,
    connection: &Connection,
    queries: &[Vec<f32>],
    progress: &Progress,
) -> Outcome<Inserting> {
    let mut place = Place::local(&pair.address(), keys);
    place.passphrase = options.passphrase.clone();
    place.policy.clone_from(&connection.policy);
    place.allow_simulated = connection.allow_simulated;
    let base = Input::open(&data.base, None)?.read()?;
    let settings = bench_insert::Settings {
        clients: options.insert_clients,
        seconds: options.insert_seconds,
        rounds: options.repeat,
        batch: options.insert_batch,
        rate: options.insert_rate,
    };
    bench_insert::run(&place, connection, &base, queries, &settings, progress)
}

/// One query after the other from one client.
pub(crate) struct Sequential {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) stages: StageMedians,
}

/// Neighbours asked for when speed is measured.
const K: usize = 10;

fn sequential(
    connection: &Connection,
    queries: &[Vec<f32>],
    options: &Options,
    progress: &Progress,
) -> Outcome<Sequential> {
    let client = blocking::Client::connect(connection.config()?).or_failure()?;
    let settings = connection.search_options(K)?;
    for query in queries.iter().take(50) {
        client.search(query, &settings).or_failure()?;
    }
    let bar = progress.bar(
        "one after the other",
        Some((options.repeat * queries.len()) as u64),
    );
    let mut rates = Vec::new();
    let (mut latencies, mut stages) = (Vec::new(), Vec::new());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat.max(1) {
        let start = Instant::now();
        for query in queries {
            let begin = Instant::now();
            let result = client.search(query, &settings).or_failure()?;
            latencies.push(begin.elapsed().as_secs_f64() * 1e3);
            stages.push(result.stages);
            up.push(result.bytes_up as f64);
            down.push(result.bytes_down as f64);
        }
        rates.push(queries.len() as f64 / start.elapsed().as_secs_f64());
        bar.inc(queries.len() as u64);
    }
    bar.finish_and_clear();
    latencies.sort_by(f64::total_cmp);
    Ok(Sequential {
        per_second: median(rates),
        p50_ms: latencies[latencies.len() / 2],
        p99_ms: latencies[latencies.len() * 99 / 100],
        bytes_up: median(up) as u64,
        bytes_down: median(down) as u64,
        stages: StageMedians::of(&stages),
    })
}

/// Many clients, each with a connection of its own; queries a second of all.
fn concurrent(
    connection: &Connection,
    queries: &[Vec<f32>],
    options: &Options,
    progress: &Progress,
) -> Outcome<f64> {
    let runtime = roles::runtime(doctor::cores())?;
    let settings = connection.search_options(K)?;
    let clients = (0..options.clients.max(1))
        .map(|_| {
            runtime
                .block_on(Client::connect(connection.config()?))
                .or_failure()
        })
        .collect::<Outcome<Vec<_>>>()?;
    let queries: Arc<[Vec<f32>]> = queries.into();
    // Long enough that the last, less crowded queries do not count for much.
    let total = queries.len().max(200 * clients.len());
    let bar = progress.bar("all at once", Some((options.repeat * total) as u64));
    let mut rates = Vec::new();
    for round in 0..=options.repeat.max(1) {
        let start = Instant::now();
        runtime.block_on(together(&clients, &queries, &settings, total))?;
        // The first round warms up.
        if round > 0 {
            rates.push(total as f64 / start.elapsed().as_secs_f64());
            bar.inc(total as u64);
        }
    }
    bar.finish_and_clear();
    Ok(median(rates))
}

async fn together(
    clients: &[Client],
    queries: &Arc<[Vec<f32>]>,
    settings: &SearchOptions,
    total: usize,
) -> Outcome<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        let (client, queries, next) = (client.clone(), Arc::clone(queries), Arc::clone(&next));
        let settings = *settings;
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return Ok(());
                }
                client
                    .search(&queries[number % queries.len()], &settings)
                    .await?;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        let result: Result<(), oboro_client::ClientError> = task.map_err(Failure::failed)?;
        result.or_failure()?;
    }
    Ok(())
}

/// Which program measures: the SHA-256 of its file, as `sha256sum` tells it. Its source may
/// be another one than what lies in the working folder.
fn executable() -> String {
    // The file that runs, also where another one has taken its place.
    let read = std::fs::read("/proc/self/exe")
        .or_else(|_| std::env::current_exe().and_then(std::fs::read));
    read.map_or_else(
        |_| "unknown".to_owned(),
        |bytes| output::hex(&Sha256::digest(&bytes)),
    )
}
