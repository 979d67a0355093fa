//! `oboro rotate`: a new decryption key for an index in use.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use oboro_channel::Role;
use oboro_client::rotation::{OwnerConfig, OwnerSession};
use oboro_index::keys::keeper_public_to_text;
use oboro_server::policy::PolicyOptions;
use serde::Serialize;

use crate::durable;
use crate::failure::Outcome;
use crate::global::Global;
use crate::keys::{Folder, KEEPER_PUBLIC};
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::passphrase::KeyPassphrase;
use crate::progress::Progress;
use crate::roles::{self, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::with_simulated::WithSimulated;

/// Options of `oboro rotate`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    /// Address of the searcher
    #[arg(long, default_value = SEARCHER_ADDRESS, value_name = "ADDRESS")]
    pub(crate) searcher: String,
    /// Address of the keeper
    #[arg(long, default_value = KEEPER_ADDRESS, value_name = "ADDRESS")]
    pub(crate) keeper: String,
    /// For how long queries under the old key are still answered, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) overlap: u32,
    /// Wait for that time, then have the keeper forget the old key for ever
    #[arg(long)]
    pub(crate) retire: bool,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Rotate on servers that no hardware protects
    #[arg(long)]
    pub(crate) allow_simulated: bool,
}

/// What was done.
#[derive(Serialize)]
struct Rotated {
    index_id: String,
    from_epoch: u64,
    epoch: u64,
    from_fingerprint: String,
    fingerprint: String,
    overlap_seconds: u64,
    retired: bool,
    simulated: bool,
    remarks: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let folder = Folder::of(&options.keys, Role::Owner)?;
    let platforms = WithSimulated::new(options.allow_simulated);
    let config = OwnerConfig {
        searcher: options.searcher.clone(),
        keeper: options.keeper.clone(),
        identity: folder.identity()?,
        trust: folder.trust()?,
        descriptor_key: options.passphrase.owner_key(&folder)?.descriptor_key(),
        verifier: options.policy.verifier(&platforms)?,
        connect_timeout: Duration::from_secs(10),
    };
    let progress = Progress::new(global);
    let overlap = Duration::from_secs(u64::from(options.overlap));
    let runtime = roles::runtime(1)?;
    let public = folder.file(KEEPER_PUBLIC)?;
    let report = runtime.block_on(async {
        let mut session = OwnerSession::connect(config).await.or_failure()?;
        let report = session.rotate(overlap).await.or_failure()?;
        // New indexes are for the new key: the old one may be retired.
        let text = keeper_public_to_text(&session.descriptor().public_key);
        durable::replace(&public, text.as_bytes())?;
        if options.retire {
            progress.remark(format_args!(
                "epoch {} is served; waiting {} s before the old key goes",
                report.epoch, options.overlap
            ));
            tokio::time::sleep(overlap).await;
            session
                .retire(&report.from_fingerprint)
                .await
                .or_failure()?;
        }
        Outcome::Ok(report)
    })?;
    output::print(
        &Rotated {
            index_id: output::hex(&report.index_id),
            from_epoch: report.from_epoch,
            epoch: report.epoch,
            from_fingerprint: output::hex(&report.from_fingerprint),
            fingerprint: output::hex(&report.fingerprint),
            overlap_seconds: report.overlap.as_secs(),
            retired: options.retire,
            simulated: report.simulated,
            remarks: report.remarks,
        },
        global.json,
    )
}

impl Report for Rotated {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.simulated {
            writeln!(out, "{}", output::SIMULATED)?;
        }
        writeln!(out, "index    {}", self.index_id)?;
        writeln!(out, "epoch    {} -> {}", self.from_epoch, self.epoch)?;
        writeln!(out, "old key  {}", self.from_fingerprint)?;
        writeln!(out, "new key  {}", self.fingerprint)?;
        for remark in &self.remarks {
            writeln!(out, "note     {remark}")?;
        }
        if self.retired {
            return writeln!(out, "The keeper has forgotten the old key.");
        }
        writeln!(
            out,
            "Queries under the old key are answered for {} s more; the keeper still holds it: --retire makes it forget.",
            self.overlap_seconds
        )
    }
}
