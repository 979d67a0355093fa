//! The release binary of the servers holds no simulated platform.
//!
//! Its root certificate carries a marker in clear ASCII. `oboro`, which can run the
//! simulated platform, must hold the marker, which shows that the search finds it;
//! `oboro-server` must not.

use std::fs;
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::{Failure, claims};

/// The crate that only trials may contain.
const SIMULATED: &str = "oboro-simulated";
/// The servers' crate and binary.
const SERVER: &str = "oboro-server";
/// The command's crate and binary.
const COMMAND: &str = "oboro";

/// Builds both binaries as they are released and searches them.
pub(crate) fn run() -> Result<(), Failure> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .map_err(|error| Failure::new(format!("cargo metadata failed: {error}")))?;
    if let Some(path) = way(&metadata, SERVER, SIMULATED) {
        return Err(Failure::new(format!(
            "{SERVER} depends on {SIMULATED}: {}",
            path.join(" -> ")
        )));
    }
    let marker = marker(metadata.workspace_root.as_std_path())?;
    let folder = metadata.target_directory.as_std_path().join("release");
    let mut sizes = Vec::new();
    // One after the other: built together, features of one could reach the other.
    for package in [SERVER, COMMAND] {
        build(package)?;
        let path = folder.join(package);
        let bytes = fs::read(&path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        let found = contains(&bytes, marker.as_bytes());
        match (package, found) {
            (SERVER, true) => {
                return Err(Failure::new(format!(
                    "{} contains the development root of the simulated platform",
                    path.display()
                )));
            }
            (COMMAND, false) => {
                return Err(Failure::new(format!(
                    "{} does not contain \"{marker}\", so this check finds nothing",
                    path.display()
                )));
            }
            _ => sizes.push(format!("{package} {:.1} MB", bytes.len() as f64 / 1e6)),
        }
    }
    println!(
        "release: the development root is in {COMMAND} and not in {SERVER} ({})",
        sizes.join(", ")
    );
    Ok(())
}

fn build(package: &str) -> Result<(), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", package])
        .status()
        .map_err(|error| Failure::new(format!("cannot start cargo: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{package} does not build")))
}

/// The value of `DEVELOPMENT_MARKER` in the sources of the simulated platform.
fn marker(root: &Path) -> Result<String, Failure> {
    let mut sources = String::new();
    claims::collect(
        &root.join("crates").join(SIMULATED).join("src"),
        &mut sources,
    )?;
    marker_in(&sources)
        .ok_or_else(|| Failure::new(format!("{SIMULATED} defines no DEVELOPMENT_MARKER")))
}

fn marker_in(sources: &str) -> Option<String> {
    let rest = sources.split("const DEVELOPMENT_MARKER: &str =").nth(1)?;
    let (_, rest) = rest.split_once('"')?;
    let (value, _) = rest.split_once('"')?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// The crates of the workspace on the way from one to another, where there is a way.
fn way(metadata: &Metadata, from: &str, to: &str) -> Option<Vec<String>> {
    if from == to {
        return Some(vec![to.to_owned()]);
    }
    let packages = metadata.workspace_packages();
    let package = packages.iter().find(|package| package.name == from)?;
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .find_map(|dependency| {
            let mut path = way(metadata, &dependency.name, to)?;
            path.insert(0, from.to_owned());
            Some(path)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_read_from_the_source() {
        let source =
            "/// x\npub const DEVELOPMENT_MARKER: &str =\n    \"A ROOT\";\nconst B: &str = \"C\";";
        assert_eq!(marker_in(source).unwrap(), "A ROOT");
        assert_eq!(marker_in("const OTHER: &str = \"x\";"), None);
    }

    #[test]
    fn a_marker_is_found_anywhere() {
        assert!(contains(b"xxA ROOT", b"A ROOT"));
        assert!(!contains(b"xxA ROO", b"A ROOT"));
    }

    #[test]
    fn the_servers_do_not_depend_on_the_simulated_platform() {
        let metadata = MetadataCommand::new().no_deps().exec().unwrap();
        assert_eq!(way(&metadata, SERVER, SIMULATED), None);
        assert!(way(&metadata, COMMAND, SIMULATED).is_some());
    }
}
