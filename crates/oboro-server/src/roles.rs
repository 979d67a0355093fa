//! What keeper and searcher have in common as programs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Outcome};

/// Where the searcher listens when nothing else is said.
pub const SEARCHER_ADDRESS: &str = "127.0.0.1:7600";
/// Where the keeper listens when nothing else is said.
pub const KEEPER_ADDRESS: &str = "127.0.0.1:7601";
/// Where the generator listens when nothing else is said.
pub const GENERATOR_ADDRESS: &str = "127.0.0.1:7602";

/// An asynchronous runtime.
///
/// # Errors
/// If its threads cannot be started.
pub fn runtime(threads: usize) -> Outcome<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start {threads} threads: {error}")))
}

/// Binds the address of a role.
///
/// # Errors
/// If the address is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format_args!(
            "cannot listen on {address}: {error}; choose another address with --listen"
        ))
    })
}

/// The same listener twice, for two servers one after the other: what connects in
/// between waits, and a process that is locked down could not bind a port of the
/// system's choice again.
///
/// # Errors
/// If the system has no descriptor left.
pub fn twice(listener: TcpListener) -> Outcome<(TcpListener, TcpListener)> {
    let double = || {
        let first = listener.into_std()?;
        let second = first.try_clone()?;
        Ok((
            TcpListener::from_std(first)?,
            TcpListener::from_std(second)?,
        ))
    };
    double().map_err(|error: io::Error| {
        Failure::failed(format_args!("cannot keep the address: {error}"))
    })
}

/// Raises the limit of open files as far as the system lets this process: each segment
/// of an index takes one, and so does each connection. Where it cannot be raised, the
/// limit stays, and a searcher keeps within it.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// Log lines on standard error: warnings, or what `OBORO_LOG` asks for; as JSON
/// where `OBORO_LOG_FORMAT` is `json`.
pub fn log() {
    let json = std::env::var_os("OBORO_LOG_FORMAT").is_some_and(|format| format == "json");
    let filter = tracing_subscriber::EnvFilter::try_from_env("OBORO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // A second subscriber is refused; the first one stays.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.compact().try_init()
    };
}

/// Whether a path names an index, for a clear sentence before anything else.
///
/// # Errors
/// If it is no folder.
pub fn check_index(path: &Path) -> Outcome<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(Failure::input(format_args!(
        "{} is no folder; give the index that `oboro build` made",
        path.display()
    )))
}
