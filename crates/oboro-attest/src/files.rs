//! Files that a policy names: certificates, revocation lists, collateral.

use crate::AttestError;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Component, Path};

/// Most bytes of one such file.
pub const MAX_POLICY_FILE_BYTES: u64 = 1 << 20;

/// A file that a policy names by a path relative to its own folder, and its content.
///
/// In a policy it is the path alone; [`load`](Self::load) reads the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct PolicyFile {
    /// The path as the policy writes it.
    pub path: String,
    /// What the file holds; empty before it is loaded.
    pub content: Vec<u8>,
}

impl From<String> for PolicyFile {
    fn from(path: String) -> Self {
        Self {
            path,
            content: Vec::new(),
        }
    }
}

impl From<PolicyFile> for String {
    fn from(file: PolicyFile) -> Self {
        file.path
    }
}

impl PolicyFile {
    /// Reads the file below `folder`.
    ///
    /// # Errors
    /// [`AttestError::Policy`] for a path that leaves the folder, and for a file that is
    /// missing, empty or too long.
    pub fn load(&mut self, folder: &Path) -> Result<(), AttestError> {
        let path = &self.path;
        let unusable = |what: String| AttestError::Policy(format!("the file '{path}' {what}"));
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_empty() || !inside {
            return Err(unusable(
                "does not lie in the policy's folder; give a relative path without '..'".to_owned(),
            ));
        }
        let mut content = Vec::new();
        std::fs::File::open(folder.join(path))
            .and_then(|file| {
                file.take(MAX_POLICY_FILE_BYTES + 1)
                    .read_to_end(&mut content)
            })
            .map_err(|error| unusable(format!("cannot be read: {error}")))?;
        if content.is_empty() || content.len() as u64 > MAX_POLICY_FILE_BYTES {
            return Err(unusable(format!(
                "must hold between 1 and {MAX_POLICY_FILE_BYTES} bytes"
            )));
        }
        self.content = content;
        Ok(())
    }
}
