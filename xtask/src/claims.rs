//! SECURITY.md names the tests behind its claims; they must be there.

use std::fs;
use std::path::Path;

use crate::Failure;

const HEADING: &str = "## Claims and the tests behind them";

/// Checks that every test named in the claims table is a function of ours.
pub(crate) fn run() -> Result<(), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let read = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))
    };
    let named = named_tests(&read(&root.join("SECURITY.md"))?);
    if named.is_empty() {
        return Err(Failure::new("SECURITY.md names no tests"));
    }
    let mut sources = String::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut sources)?;
    }
    let missing = missing(&named, &sources);
    if missing.is_empty() {
        println!(
            "claims: all {} tests that SECURITY.md names are there",
            named.len()
        );
        return Ok(());
    }
    Err(Failure::new(format!(
        "SECURITY.md names tests that are not there: {}",
        missing.join(", ")
    )))
}

/// Names in backticks in the claims table that look like tests.
fn named_tests(page: &str) -> Vec<String> {
    let table = page.split(HEADING).nth(1).unwrap_or("");
    let table = table.split("\n## ").next().unwrap_or("");
    table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .map(str::to_owned)
        .collect()
}

fn missing(named: &[String], sources: &str) -> Vec<String> {
    named
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .cloned()
        .collect()
}

pub(crate) fn collect(folder: &Path, sources: &mut String) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("cannot read {}: {e}", folder.display()));
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            sources.push_str(&fs::read_to_string(&path).map_err(fail)?);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_has_its_tests() {
        run().unwrap();
    }

    #[test]
    fn a_missing_test_is_found() {
        let page = format!(
            "{HEADING}\n| a | `crate/src/a.rs`: `it_holds`, `it_is_gone` |\n## Next\n`not_this`\n"
        );
        let named = named_tests(&page);
        assert_eq!(named, ["it_holds", "it_is_gone"]);
        assert_eq!(missing(&named, "fn it_holds() {}"), ["it_is_gone"]);
    }
}
