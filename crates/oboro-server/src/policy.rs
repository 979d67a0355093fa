//! Which evidence a party accepts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use oboro_attest::{MAX_POLICY_BYTES, Platform, Policy, PolicyVerifier};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Named, Outcome};
use crate::platforms::Platforms;

/// The option that names a policy.
#[derive(Args, Clone, Debug, Default)]
pub struct PolicyOptions {
    /// Policy file: which programs on which platforms are accepted; `oboro attest policy` makes one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

impl PolicyOptions {
    /// The policy of the file. Where `platforms` accept the simulated platform and the file
    /// has no entry for it, any simulated program is accepted as well.
    ///
    /// # Errors
    /// Without a file where nothing else would be accepted either; as [`read`].
    pub fn policy(&self, platforms: &dyn Platforms) -> Outcome<Policy> {
        let policy = match &self.policy {
            Some(path) => read(path, platforms.accepts_simulated())?,
            None if platforms.accepts_simulated() => Policy::default(),
            None => {
                return Err(Failure::refused(
                    "no policy says which programs are to be trusted; make one with `oboro attest policy` and name it with --policy, or for a trial without hardware pass --allow-simulated to `oboro`",
                ));
            }
        };
        let named = policy
            .accept
            .iter()
            .any(|entry| entry.rules.platform() == Platform::Simulated);
        Ok(if platforms.accepts_simulated() && !named {
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

/// Reads a policy file; the files that it names are looked for in its own folder. Entries
/// of the simulated platform are refused unless `simulated`.
///
/// # Errors
/// A file that cannot be read or holds no policy.
pub fn read(path: &Path, simulated: bool) -> Outcome<Policy> {
    let text = bounded(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if simulated {
        Policy::from_toml_with_simulated(&text, folder)
    } else {
        Policy::from_toml(&text, folder)
    }
    .map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(
            failure.kind,
            format_args!("{}: {}", path.display(), failure.message),
        )
    })
}

fn bounded(path: &Path) -> Outcome<String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(MAX_POLICY_BYTES as u64 + 1)
                .read_to_string(&mut text)
        })
        .named("read", path.display())?;
    Ok(text)
}

/// SHA-256 of a policy's text: what two machines with the same policy have in common,
/// whatever its comments. Files that it names count by name only, since revocation lists
/// are replaced from time to time.
///
/// # Errors
/// If the policy cannot be written as text.
pub fn digest(policy: &Policy) -> Outcome<[u8; 32]> {
    Ok(Sha256::digest(policy.to_toml()?).into())
}
