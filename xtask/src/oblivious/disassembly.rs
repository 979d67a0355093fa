//! Reads the machine code of the marked functions out of an executable.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::trace::{
    forbidden, is_conditional_jump, is_indirect, is_integer_division, is_scalar_division,
};
use crate::Failure;

/// Functions whose name carries this word are held to the rule.
const MARK: &str = "oblivious_";

/// An executable file with its functions.
pub(crate) struct Program {
    functions: Vec<Function>,
}

/// One function of the executable.
pub(crate) struct Function {
    pub(crate) name: String,
    /// Where its code begins in the file.
    offset: u64,
    code: Vec<u8>,
}

/// What the machine code of the marked functions holds.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) functions: usize,
    pub(crate) conditional_jumps: usize,
    pub(crate) violations: Vec<String>,
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

    /// The marked functions and the closures inside them.
    fn marked(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|f| f.name.contains(MARK))
    }

    /// Holds every marked function that `wanted` accepts to the rule: no
    /// division, no root, no gather, no indirect jump; and every conditional
    /// jump is one of `executed`, which were seen to go the same way on
    /// different secrets.
    pub(crate) fn check(
        &self,
        executed: &BTreeSet<u64>,
        wanted: impl Fn(&str) -> bool,
    ) -> Findings {
        let mut findings = Findings::default();
        for function in self.marked().filter(|f| wanted(&f.name)) {
            findings.functions += 1;
            for instruction in
                Decoder::with_ip(64, &function.code, function.offset, DecoderOptions::NONE).iter()
            {
                let mut reason = forbidden(&instruction);
                if is_integer_division(&instruction) || is_scalar_division(&instruction) {
                    reason = Some("the time of a division depends on data");
                }
                if is_indirect(&instruction) {
                    reason = Some("the target of an indirect jump may depend on data");
                }
                if is_conditional_jump(&instruction) {
                    findings.conditional_jumps += 1;
                    if !executed.contains(&instruction.ip()) {
                        reason = Some("no traced run reached this conditional jump");
                    }
                }
                if let Some(reason) = reason {
                    let mut text = String::new();
                    FastFormatter::new().format(&instruction, &mut text);
                    findings.violations.push(format!(
                        "{}: {text}: {reason}",
                        self.locate(instruction.ip())
                    ));
                }
            }
        }
        findings
    }
}
