//! Reads the machine code of functions out of an executable.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::flow::follow;
use crate::Failure;

/// Functions whose name carries this word are held to the rule.
const MARK: &str = "oblivious_";
/// Functions of the probe that break it on purpose.
const PLANTED: &str = "oblivious_planted";

/// An executable file with its functions.
pub(crate) struct Program {
    functions: Vec<Function>,
}

/// One function of the executable.
struct Function {
    name: String,
    /// Where its code begins in the file.
    offset: u64,
    code: Vec<u8>,
}

/// What the machine code of the functions holds.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) marked: usize,
    pub(crate) conditional_jumps: usize,
    pub(crate) violations: Vec<String>,
    /// Planted functions, and those in which nothing was found.
    pub(crate) planted: usize,
    pub(crate) overlooked: Vec<String>,
}

impl Program {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let fail = |e: &dyn std::fmt::Display| {
            Failure::new(format!("cannot read {}: {e}", path.display()))
        };
        let bytes = fs::read(path).map_err(|e| fail(&e))?;
        let file = object::File::parse(&*bytes).map_err(|e| fail(&e))?;
        let mut functions = Vec::new();
        for symbol in file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.size() > 0)
        {
            let Some(section) = symbol
                .section_index()
                .and_then(|i| file.section_by_index(i).ok())
            else {
                continue;
            };
            let Some((start, _)) = section.file_range() else {
                continue;
            };
            let Ok(Some(code)) = section.data_range(symbol.address(), symbol.size()) else {
                continue;
            };
            functions.push(Function {
                name: format!(
                    "{:#}",
                    rustc_demangle::demangle(symbol.name().unwrap_or("?"))
                ),
                offset: symbol.address() - section.address() + start,
                code: code.to_vec(),
            });
        }
        functions.sort_by_key(|f| f.offset);
        Ok(Self { functions })
    }

    /// The function that holds a file offset, with the place inside it.
    pub(crate) fn locate(&self, offset: u64) -> String {
        let index = self.functions.partition_point(|f| f.offset <= offset);
        match index.checked_sub(1).map(|i| &self.functions[i]) {
            Some(f) if offset < f.offset + f.code.len() as u64 => {
                format!("{}+{:#x}", f.name, offset - f.offset)
            }
            _ => format!("file offset {offset:#x}"),
        }
    }

    /// Marked functions whose name holds `fragment`.
    pub(crate) fn has(&self, fragment: &str) -> bool {
        self.functions.iter().any(|f| f.name.contains(fragment))
    }

    /// Follows the data through every marked function. Gathers that traces met
    /// must lie in one: the traces do not see their addresses.
    pub(crate) fn check(&self, gathers: &BTreeSet<u64>) -> Checked {
        let mut checked = Checked::default();
        for function in &self.functions {
            let end = function.offset + function.code.len() as u64;
            if !function.name.contains(MARK) {
                for at in gathers.range(function.offset..end) {
                    let place = self.locate(*at);
                    checked
                        .violations
                        .push(format!("{place}: a gather outside the marked functions"));
                }
                continue;
            }
            let found = follow(&function.code, function.offset);
            if function.name.contains(PLANTED) {
                checked.planted += 1;
                if found.violations.is_empty() {
                    checked.overlooked.push(function.name.clone());
                }
                continue;
            }
            checked.marked += 1;
            checked.conditional_jumps += found.conditional_jumps;
            let lines = found.violations.into_iter();
            checked
                .violations
                .extend(lines.map(|(at, what)| format!("{}: {what}", self.locate(at))));
        }
        checked
    }
}
