//! Runs the oblivious code of Oboro on marked secrets.
//!
//! `cargo xtask oblivious` starts it: `taint CASE` under valgrind with every
//! secret marked, `trace CASE SECRET` under the instruction tracer with one
//! of several secrets. The cases named `planted-*` leak on purpose, so that
//! the checks are seen to fail.

mod batch;
mod planted;
mod run;
mod scan;
mod table;

use std::process::ExitCode;

use oboro_simd::Arch;

use run::Run;

/// A case runs its region through [`Run::region`] exactly once.
type Case = fn(&Run);

const CASES: &[(&str, Case)] = &[
    ("planted-lookup", planted::lookup),
    ("planted-branch", planted::branch),
    ("planted-division", planted::division),
    ("planted-float-division", planted::float_division),
    ("planted-early-stop", planted::early_stop),
    ("zero", table::zero),
    ("evaluate", table::evaluate),
    ("decrypt", table::decrypt),
    ("reencrypt", table::reencrypt),
    ("unmask", table::unmask),
    ("batch-evaluate", batch::evaluate),
    ("batch-decrypt", batch::decrypt),
    ("batch-tables", batch::tables),
    ("batch-assign", batch::assign),
    ("quantize", scan::quantize),
    ("quantize-by-sample", scan::quantize_by_sample),
    ("search-8-bit", scan::search_eight_bits),
    ("search-3-tables", scan::search_several_tables),
    ("search-4-bit", scan::search_four_bits),
    ("search-masked", scan::search_masked),
    ("search-masked-4-bit", scan::search_masked_four_bits),
    ("search-lists", scan::search_lists),
    ("search-deep", scan::search_deep),
    ("whole-query", scan::whole_query),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, run) = match words[..] {
        ["cases"] => {
            for (name, _) in CASES {
                // Long and without a marked function of its own: traced on
                // the best instruction set alone.
                let long = [
                    "zero",
                    "evaluate",
                    "decrypt",
                    "reencrypt",
                    "batch-evaluate",
                    "batch-decrypt",
                    "whole-query",
                ];
                let long = long.contains(name);
                println!("{name} {}", if long { "best" } else { "all" });
            }
            return ExitCode::SUCCESS;
        }
        ["functions"] => {
            let lists = [
                oboro_simd::OBLIVIOUS_FUNCTIONS,
                oboro_quant::OBLIVIOUS_FUNCTIONS,
                oboro_ckks::OBLIVIOUS_FUNCTIONS,
            ];
            for name in lists.into_iter().flatten() {
                println!("{name}");
            }
            return ExitCode::SUCCESS;
        }
        ["archs"] => {
            for arch in Arch::available() {
                println!("{}", arch.name());
            }
            return ExitCode::SUCCESS;
        }
        ["taint", name] => (name, Run::taint()),
        ["trace", name, secret] => match secret.parse() {
            Ok(secret) => (name, Run::trace(secret)),
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    match CASES.iter().find(|(case, _)| *case == name) {
        Some((_, case)) => {
            case(&run);
            ExitCode::SUCCESS
        }
        None => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: xtask-probe cases | archs | taint CASE | trace CASE SECRET");
    ExitCode::from(2)
}
