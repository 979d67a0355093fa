//! Which evidence a party accepts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use oboro_attest::{Policy, PolicyVerifier};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Named, Outcome};
use crate::platforms::Platforms;

/// Larger files are no policy.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The option that names a policy.
#[derive(Args, Clone, Debug, Default)]
pub struct PolicyOptions {
    /// Policy file: which programs on which platforms are accepted; `oboro attest policy` makes one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl PolicyOptions {
    /// The policy of the file, and the simulated platform where `platforms` accept it.
    ///
    /// # Errors
    /// Without a file where nothing else would be accepted either; as [`read`].
    pub fn policy(&self, platforms: &dyn Platforms) -> Outcome<Policy> {
        let policy = match &self.policy {
            Some(path) => read(path)?,
            None if platforms.accepts_simulated() => Policy::default(),
            None => {
                return Err(Failure::refused(
                    "no policy says which programs are to be trusted; make one with `oboro attest policy` and name it with --policy, or for a trial without hardware pass --allow-simulated to `oboro`",
                ));
            }
        };
        Ok(if platforms.accepts_simulated() {
            policy.allowing_simulated()
        } else {
            policy
        })
    }

    /// What appraises evidence under [`policy`](Self::policy).
    ///
    /// # Errors
    /// As [`policy`](Self::policy).
    pub fn verifier(&self, platforms: &dyn Platforms) -> Outcome<Arc<PolicyVerifier>> {
        Ok(Arc::new(PolicyVerifier::new(
            self.policy(platforms)?,
            platforms.verifiers(),
        )))
    }
}

/// Reads a policy file; the files that it names are looked for in its own folder.
///
/// # Errors
/// A file that cannot be read or holds no policy.
pub fn read(path: &Path) -> Outcome<Policy> {
    let metadata = std::fs::metadata(path).named("read", path.display())?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Failure::input(format_args!(
            "{} has {} bytes; a policy has at most {MAX_FILE_BYTES}",
            path.display(),
            metadata.len()
        )));
    }
    let text = std::fs::read_to_string(path).named("read", path.display())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Policy::from_toml(&text, folder)
        .map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))
}

/// SHA-256 of a policy's text: what two machines with the same policy have in common.
#[must_use]
pub fn digest(policy: &Policy) -> [u8; 32] {
    Sha256::digest(policy.to_toml()).into()
}
