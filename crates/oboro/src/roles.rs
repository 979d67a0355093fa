//! What keeper and searcher have in common as programs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use oboro_attest::{Attester, Policy, PolicyVerifier, SimulatedAttester, Verifier, measure};
use tokio::net::TcpListener;

use crate::failure::{Failure, Named, Outcome};

/// The name of the only platform of this version.
pub(crate) const SIMULATED: &str = "simulated";

/// The verifier of a party that may or may not accept the simulated platform.
pub(crate) fn verifier(allow_simulated: bool) -> Arc<dyn Verifier> {
    Arc::new(PolicyVerifier::new(Policy {
        allow_simulated,
        ..Policy::default()
    }))
}

/// The attester of this process.
pub(crate) fn attester() -> Outcome<Arc<dyn Attester>> {
    let program = std::env::current_exe().named("find", "this program")?;
    let bytes = std::fs::read(&program).named("read", program.display())?;
    Ok(Arc::new(SimulatedAttester::new(measure(&bytes))))
}

/// Refuses to run a role without hardware unless that was asked for.
pub(crate) fn check_platform(allow_simulated: bool, role: &str) -> Outcome<()> {
    if allow_simulated {
        return Ok(());
    }
    Err(Failure::refused(format_args!(
        "no enclave hardware that this version supports is here, so nothing would protect the memory of the {role}; pass --allow-simulated to run it all the same"
    )))
}

/// Binds the address of a role.
pub(crate) async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format_args!(
            "cannot listen on {address}: {error}; choose another address with --listen"
        ))
    })
}

/// Log lines on standard error: warnings, or what `OBORO_LOG` asks for; as JSON
/// where `OBORO_LOG_FORMAT` is `json`.
pub(crate) fn log() {
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
pub(crate) fn check_index(path: &Path) -> Outcome<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(Failure::input(format_args!(
        "{} is no folder; give the index that `oboro build` made",
        path.display()
    )))
}
