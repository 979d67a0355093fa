//! The dependency rule: a crate depends on lower tiers only, and no role
//! depends on another.
//!
//! The separation of client, searcher, keeper and owner is the security
//! argument made visible: code that is not linked into a role cannot run in
//! it. Development dependencies are exempt, since tests bring roles together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::Failure;

/// Every crate of the workspace with its tier.
const TIERS: &[(&str, u8)] = &[
    ("oboro-simd", 0),
    ("oboro-vectors", 1),
    ("oboro-ring", 1),
    ("oboro-ckks", 2),
    ("oboro-quant", 2),
    ("oboro-attest", 2),
    ("oboro-lockdown", 1),
    ("oboro-tpm", 1),
    ("oboro-index", 3),
    ("oboro-simulated", 3),
    ("oboro-protocol", 3),
    ("oboro-channel", 3),
    ("oboro-telemetry", 3),
    ("oboro-client", 4),
    ("oboro-searcher", 4),
    ("oboro-keeper", 4),
    ("oboro-owner", 4),
    ("oboro-learn", 4),
    ("oboro-session", 5),
    ("oboro-server", 5),
    ("oboro", 6),
    ("oboro-fuzz-cases", 6),
    ("xtask-soak", 6),
    ("xtask-survive", 6),
    ("xtask-probe", 6),
    ("xtask", 6),
];

/// The only crate that may lift the ban on `unsafe`.
const UNSAFE_CRATE: &str = "oboro-simd";

/// Checks the workspace and prints what it holds, or lists every violation.
pub(crate) fn run() -> Result<(), Failure> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .map_err(|error| Failure::new(format!("cargo metadata failed: {error}")))?;
    let mut violations = violations(&edges(&metadata), TIERS);
    violations.extend(unsafe_violations(&metadata));
    if violations.is_empty() {
        println!(
            "tiers: {} crates, dependencies go to lower tiers only; `unsafe` is allowed in {UNSAFE_CRATE} alone",
            metadata.workspace_members.len()
        );
        return Ok(());
    }
    Err(Failure::new(violations.join("\n       ")))
}

/// Crate → crates of the workspace that it depends on, development
/// dependencies left out.
type Edges = BTreeMap<String, Vec<String>>;

fn edges(metadata: &Metadata) -> Edges {
    let packages = metadata.workspace_packages();
    let ours: Vec<String> = packages.iter().map(|p| p.name.to_string()).collect();
    packages
        .iter()
        .map(|package| {
            let targets = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development && ours.contains(&d.name))
                .map(|d| d.name.clone())
                .collect();
            (package.name.to_string(), targets)
        })
        .collect()
}

/// Every way in which `edges` break the rule, one sentence each.
fn violations(edges: &Edges, tiers: &[(&str, u8)]) -> Vec<String> {
    let tier = |name: &str| tiers.iter().find(|(n, _)| *n == name).map(|(_, t)| *t);
    let mut found = Vec::new();
    for (name, targets) in edges {
        let Some(own) = tier(name) else {
            found.push(format!(
                "{name} has no tier; add it to TIERS in xtask/src/tiers.rs"
            ));
            continue;
        };
        for target in targets {
            match tier(target) {
                Some(other) if other < own => {}
                Some(other) => found.push(format!(
                    "{name} (tier {own}) depends on {target} (tier {other}); only lower tiers are allowed"
                )),
                None => found.push(format!("{name} depends on {target}, which has no tier")),
            }
        }
    }
    for (name, _) in tiers {
        if !edges.contains_key(*name) {
            found.push(format!("{name} is in TIERS but not in the workspace"));
        }
    }
    found
}

/// Crates other than [`UNSAFE_CRATE`] that do not take the workspace's lints
/// (which forbid `unsafe`) over unchanged.
fn unsafe_violations(metadata: &Metadata) -> Vec<String> {
    let mut found = Vec::new();
    let root = metadata.workspace_root.as_std_path();
    if !forbids_unsafe(&read(&root.join("Cargo.toml"))) {
        found.push("the workspace lints no longer forbid unsafe_code".to_owned());
    }
    for package in metadata.workspace_packages() {
        if package.name != UNSAFE_CRATE
            && !takes_workspace_lints(&read(package.manifest_path.as_std_path()))
        {
            found.push(format!(
                "{} does not inherit the workspace lints and so may contain unsafe code; add [lints] workspace = true",
                package.name
            ));
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The lines of one table of a manifest; enough TOML for our own files.
fn table<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = String> + 'a {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .map(|line| line.replace(' ', ""))
}

fn forbids_unsafe(manifest: &str) -> bool {
    table(manifest, "[workspace.lints.rust]").any(|line| line == "unsafe_code=\"forbid\"")
}

fn takes_workspace_lints(manifest: &str) -> bool {
    table(manifest, "[lints]").any(|line| line == "workspace=true")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn graph(pairs: &[(&str, &[&str])]) -> Edges {
        pairs
            .iter()
            .map(|(name, to)| {
                (
                    (*name).to_owned(),
                    to.iter().map(|t| (*t).to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn the_workspace_keeps_its_tiers() {
        run().unwrap();
    }

    #[test]
    fn a_role_that_depends_on_another_is_found() {
        let tiers = [("low", 0), ("client", 4), ("keeper", 4)];
        let good = graph(&[("low", &[]), ("client", &["low"]), ("keeper", &["low"])]);
        assert!(violations(&good, &tiers).is_empty());
        let bad = graph(&[("low", &[]), ("client", &["keeper"]), ("keeper", &["low"])]);
        let found = violations(&bad, &tiers);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("client (tier 4) depends on keeper (tier 4)"));
    }

    #[test]
    fn upward_unknown_and_missing_crates_are_found() {
        let tiers = [("low", 0), ("high", 1), ("gone", 1)];
        let bad = graph(&[("low", &["high"]), ("high", &["stranger"]), ("new", &[])]);
        let found = violations(&bad, &tiers).join("\n");
        assert!(found.contains("low (tier 0) depends on high (tier 1)"));
        assert!(found.contains("high depends on stranger"));
        assert!(found.contains("new has no tier"));
        assert!(found.contains("gone is in TIERS"));
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert!(takes_workspace_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!takes_workspace_lints(
            "[package]\nname = \"a\"\n\n[lints.rust]\nworkspace = true\n"
        ));
        assert!(forbids_unsafe(
            "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"
        ));
        assert!(!forbids_unsafe(
            "[workspace.lints.rust]\nunsafe_code = \"warn\"\n"
        ));
    }
}
