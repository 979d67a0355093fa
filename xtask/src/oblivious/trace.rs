//! An instruction and address tracer: runs a probe one instruction at a time
//! and records where it executes and what memory it touches.
//!
//! Valgrind knows no AVX-512; the processor itself does. The probe waits on
//! its standard input just before the region, is attached to there, and steps
//! from mark to mark. Its address space is not randomized, so that two runs
//! that do the same touch the same addresses.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
    UsedMemory,
};
use nix::libc::user_regs_struct;
use nix::sys::personality::{self, Persona};
use nix::sys::ptrace::{self, regset::NT_PRFPREG};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::rules::{
    is_compressing_store, is_integer_division, is_packed_division_or_root, is_scalar_division,
    operand_mask, text,
};
use crate::Failure;

/// The codes of the trace marks; they equal those in `oboro_simd::taint`.
const TRACE_BEGIN: u64 = 0x4f42_0001;
const TRACE_END: u64 = 0x4f42_0002;

/// Instructions between attaching and the mark, and in a region, at most.
const APPROACH_LIMIT: u64 = 2_000_000;
const REGION_LIMIT: usize = 40_000_000;

/// One executed instruction: where, and a digest of what it touched.
#[derive(Clone, Copy)]
struct Step {
    at: u64,
    /// Addresses and, for a division, operands.
    touched: u64,
}

/// What a region did.
pub(crate) struct Trace {
    steps: Vec<Step>,
    /// First address of the executable minus its offset in the file.
    program_base: u64,
    /// Offsets in the executable of the instructions executed.
    executed: BTreeSet<u64>,
    /// Offsets of gathers and scatters among them.
    gathers: BTreeSet<u64>,
    /// Instructions that the rule forbids on any data.
    forbidden: BTreeSet<String>,
    memory_accesses: u64,
    vector_bytes: usize,
}

impl Trace {
    pub(crate) fn instructions(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn memory_accesses(&self) -> u64 {
        self.memory_accesses
    }

    /// Bytes of the widest vector register used: shows which kernels ran.
    pub(crate) fn vector_bytes(&self) -> usize {
        self.vector_bytes
    }

    pub(crate) fn forbidden(&self) -> &BTreeSet<String> {
        &self.forbidden
    }

    pub(crate) fn gathers(&self) -> &BTreeSet<u64> {
        &self.gathers
    }

    /// Where two traces first differ, as an offset in the executable (of the
    /// last instruction inside it before), and what differs.
    pub(crate) fn divergence(&self, other: &Self) -> Option<(u64, &'static str)> {
        let mut last = 0;
        for (a, b) in self.steps.iter().zip(&other.steps) {
            if a.at != b.at {
                return Some((last, "the next instruction depends on the secret"));
            }
            let offset = a.at.wrapping_sub(self.program_base);
            if self.executed.contains(&offset) {
                last = offset;
            }
            if a.touched != b.touched {
                return Some((last, "an address or a divisor depends on the secret"));
            }
        }
        (self.steps.len() != other.steps.len())
            .then_some((last, "the number of instructions depends on the secret"))
    }
}

/// Runs `program` with `arguments` and traces its marked region.
pub(crate) fn record(program: &Path, arguments: &[&str], arch: &str) -> Result<Trace, Failure> {
    fix_addresses()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("OBORO_ARCH", arch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::new(format!("cannot start {}: {e}", program.display())))?;
    let trace = follow(&mut child, program, &format!("{arguments:?} on {arch}"));
    if trace.is_err() {
        // The probe may still wait for its line.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|e| Failure::new(format!("cannot wait for the probe: {e}")))?;
    match trace {
        Ok(_) if !status.success() => Err(Failure::new(format!(
            "the probe {arguments:?} ended with {status}"
        ))),
        other => other,
    }
}

/// Switches address space randomization off for the processes started here.
fn fix_addresses() -> Result<(), Failure> {
    let fail = |e| {
        Failure::new(format!(
            "cannot switch address randomization off ({e}); allow the personality system call to run this check"
        ))
    };
    let persona = personality::get().map_err(fail)?;
    if !persona.contains(Persona::ADDR_NO_RANDOMIZE) {
        personality::set(persona | Persona::ADDR_NO_RANDOMIZE).map_err(fail)?;
    }
    Ok(())
}

fn follow(child: &mut Child, program: &Path, name: &str) -> Result<Trace, Failure> {
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| Failure::new("the probe has no output"))?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(|e| Failure::new(format!("cannot read from the probe: {e}")))?;
    if line.trim() != "ready" {
        return Err(Failure::new(format!("the probe {name} did not get ready")));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Failure::new("odd process id"))?);
    ptrace::attach(pid).map_err(|e| {
        Failure::new(format!(
            "cannot trace a child process ({e}); allow ptrace to run this check"
        ))
    })?;
    expect_stop(pid)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(b"go\n")
            .map_err(|e| Failure::new(format!("cannot talk to the probe: {e}")))?;
    }
    let trace = Tracer::new(pid, program)?.run()?;
    ptrace::detach(pid, None).map_err(|e| Failure::new(format!("cannot detach: {e}")))?;
    Ok(trace)
}

fn expect_stop(pid: Pid) -> Result<(), Failure> {
    match waitpid(pid, None) {
        Ok(WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP)) => Ok(()),
        Ok(other) => Err(Failure::new(format!(
            "the probe stopped unexpectedly: {other:?}"
        ))),
        Err(e) => Err(Failure::new(format!("cannot wait for the probe: {e}"))),
    }
}

/// What is known of one instruction, decoded once.
struct Decoded {
    in_program: bool,
    memory: Vec<UsedMemory>,
    /// A division, whose operands must then not depend on a secret.
    division: Option<Instruction>,
    mark: bool,
}

struct Tracer {
    pid: Pid,
    memory: File,
    /// Addresses of the executable, and their first offset in the file.
    program: std::ops::Range<u64>,
    program_base: u64,
    decoded: HashMap<u64, Decoded>,
    gathers: BTreeSet<u64>,
    forbidden: BTreeSet<String>,
    vector_bytes: usize,
    info: InstructionInfoFactory,
}

impl Tracer {
    fn new(pid: Pid, program: &Path) -> Result<Self, Failure> {
        let memory = File::open(format!("/proc/{pid}/mem"))
            .map_err(|e| Failure::new(format!("cannot read the probe's memory: {e}")))?;
        let program = fs::canonicalize(program)
            .map_err(|e| Failure::new(format!("cannot find {}: {e}", program.display())))?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
            .map_err(|e| Failure::new(format!("cannot read the probe's memory map: {e}")))?;
        let (program, program_base) = code_of(&maps, &program.to_string_lossy())
            .ok_or_else(|| Failure::new("the probe's code is not in its memory map"))?;
        Ok(Self {
            pid,
            memory,
            program,
            program_base,
            decoded: HashMap::new(),
            gathers: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            vector_bytes: 0,
            info: InstructionInfoFactory::new(),
        })
    }

    fn step(&self) -> Result<user_regs_struct, Failure> {
        ptrace::step(self.pid, None).map_err(|e| Failure::new(format!("cannot step: {e}")))?;
        expect_stop(self.pid)?;
        self.registers()
    }

    fn registers(&self) -> Result<user_regs_struct, Failure> {
        ptrace::getregs(self.pid).map_err(|e| Failure::new(format!("cannot read registers: {e}")))
    }

    /// The request code, when the instruction at hand is a mark.
    fn mark(&mut self, registers: &user_regs_struct) -> Result<Option<u64>, Failure> {
        if !self.decode(registers.rip)?.mark {
            return Ok(None);
        }
        self.word(registers.rax).map(Some)
    }

    fn word(&self, address: u64) -> Result<u64, Failure> {
        let mut bytes = [0; 8];
        self.memory
            .read_exact_at(&mut bytes, address)
            .map_err(|e| Failure::new(format!("cannot read the probe's memory: {e}")))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn run(mut self) -> Result<Trace, Failure> {
        let mut registers = self.registers()?;
        let mut approach = 0;
        while self.mark(&registers)? != Some(TRACE_BEGIN) {
            approach += 1;
            if approach > APPROACH_LIMIT {
                return Err(Failure::new("the probe never reached its traced region"));
            }
            registers = self.step()?;
        }
        // What was decoded on the way here does not count.
        self.decoded.clear();
        self.gathers.clear();
        self.forbidden.clear();
        self.vector_bytes = 0;
        let mut steps = Vec::new();
        let mut executed = BTreeSet::new();
        let mut memory_accesses = 0;
        loop {
            registers = self.step()?;
            if self.mark(&registers)? == Some(TRACE_END) {
                break;
            }
            if steps.len() > REGION_LIMIT {
                return Err(Failure::new("the traced region is longer than the limit"));
            }
            let at = registers.rip;
            let Decoded {
                in_program,
                ref memory,
                division,
                ..
            } = *self.decode(at)?;
            let mut touched = 0;
            for used in memory {
                let address = used
                    .virtual_address(0, |register, _, _| value(&registers, register))
                    .ok_or_else(|| Failure::new(format!("no address for {used:?}")))?;
                touched = mix(touched, address);
                memory_accesses += 1;
            }
            if let Some(division) = division {
                touched = mix(touched, self.operands(&division, &registers)?);
            }
            if in_program {
                executed.insert(at - self.program_base);
            }
            steps.push(Step { at, touched });
        }
        Ok(Trace {
            steps,
            program_base: self.program_base,
            executed,
            gathers: self.gathers,
            forbidden: self.forbidden,
            memory_accesses,
            vector_bytes: self.vector_bytes,
        })
    }

    /// A digest of what a division divides, and by what.
    fn operands(
        &self,
        division: &Instruction,
        registers: &user_regs_struct,
    ) -> Result<u64, Failure> {
        let scalar = is_scalar_division(division);
        let mut digest = 0;
        if !scalar {
            for register in [Register::RAX, Register::RDX] {
                digest = mix(
                    digest,
                    value(registers, register).unwrap_or(0) & operand_mask(division, 0),
                );
            }
        }
        for operand in 0..division.op_count() {
            // The destination of a three-operand scalar division is not read.
            if scalar && operand == 0 && division.op_count() == 3 {
                continue;
            }
            let raw = if division.op_kind(operand) == OpKind::Memory {
                let address = division
                    .virtual_address(operand, 0, |register, _, _| value(registers, register))
                    .ok_or_else(|| Failure::new("no address for the operand of a division"))?;
                self.word(address)?
            } else {
                self.register(division.op_register(operand), registers)?
            };
            digest = mix(digest, raw & operand_mask(division, operand));
        }
        Ok(digest)
    }

    /// A general register, or the low 64 bits of a vector register.
    fn register(&self, register: Register, registers: &user_regs_struct) -> Result<u64, Failure> {
        if register.is_xmm() && register.number() < 16 {
            let vectors = ptrace::getregset::<NT_PRFPREG>(self.pid)
                .map_err(|e| Failure::new(format!("cannot read vector registers: {e}")))?
                .xmm_space;
            let at = 4 * register.number();
            return Ok(u64::from(vectors[at]) | u64::from(vectors[at + 1]) << 32);
        }
        value(registers, register).ok_or_else(|| Failure::new(format!("no value of {register:?}")))
    }

    fn decode(&mut self, rip: u64) -> Result<&Decoded, Failure> {
        if !self.decoded.contains_key(&rip) {
            let decoded = self.decode_new(rip)?;
            self.decoded.insert(rip, decoded);
        }
        self.decoded
            .get(&rip)
            .ok_or_else(|| Failure::new("an instruction was lost"))
    }

    fn decode_new(&mut self, rip: u64) -> Result<Decoded, Failure> {
        let mut bytes = [0; 15];
        let read = self
            .memory
            .read_at(&mut bytes, rip)
            .map_err(|e| Failure::new(format!("cannot read code: {e}")))?;
        let instruction = Decoder::with_ip(64, &bytes[..read], rip, DecoderOptions::NONE).decode();
        let in_program = self.program.contains(&rip);
        let info = self.info.info(&instruction);
        let touches = !matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        let memory = info
            .used_memory()
            .iter()
            // A gather's addresses are left to the check of the code.
            .filter(|m| touches && !m.index().is_vector_register())
            .copied()
            .collect();
        // The C library copies with the widest registers that there are.
        if in_program {
            let operands = 0..instruction.op_count();
            let widest = operands
                .filter(|o| instruction.op_kind(*o) == OpKind::Register)
                .map(|o| instruction.op_register(o))
                .filter(|r| r.is_vector_register())
                .map(Register::size)
                .max();
            self.vector_bytes = self.vector_bytes.max(widest.unwrap_or(0));
        }
        let reason = if is_packed_division_or_root(&instruction) {
            Some("the time of a division or a root depends on data")
        } else if is_compressing_store(&instruction) {
            Some("the length of a compressing store depends on data")
        } else if instruction.is_vsib() && !in_program {
            Some("a gather or scatter outside the program")
        } else {
            None
        };
        let offset = rip.wrapping_sub(self.program_base);
        if instruction.is_vsib() && in_program {
            self.gathers.insert(offset);
        }
        if let Some(reason) = reason {
            self.forbidden.insert(format!(
                "file offset {offset:#x}: {}: {reason}",
                text(&instruction)
            ));
        }
        Ok(Decoded {
            in_program,
            memory,
            division: (is_integer_division(&instruction) || is_scalar_division(&instruction))
                .then_some(instruction),
            mark: instruction.code() == Code::Xchg_rm64_r64
                && instruction.op0_register() == Register::RBX
                && instruction.op1_register() == Register::RBX,
        })
    }
}

/// Addresses of the executable mapping of `program`, and the first of them
/// minus its offset in the file.
fn code_of(maps: &str, program: &str) -> Option<(std::ops::Range<u64>, u64)> {
    maps.lines()
        .filter(|line| line.ends_with(program))
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let executable = fields.next()?.contains('x');
            let offset = hex(fields.next()?)?;
            let (start, end) = (hex(start)?, hex(end)?);
            executable.then_some((start..end, start.wrapping_sub(offset)))
        })
}

fn value(r: &user_regs_struct, register: Register) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => r.rax,
        Register::RBX => r.rbx,
        Register::RCX => r.rcx,
        Register::RDX => r.rdx,
        Register::RSI => r.rsi,
        Register::RDI => r.rdi,
        Register::RBP => r.rbp,
        Register::RSP => r.rsp,
        Register::R8 => r.r8,
        Register::R9 => r.r9,
        Register::R10 => r.r10,
        Register::R11 => r.r11,
        Register::R12 => r.r12,
        Register::R13 => r.r13,
        Register::R14 => r.r14,
        Register::R15 => r.r15,
        Register::RIP => r.rip,
        Register::FS => r.fs_base,
        Register::GS => r.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => return None,
    };
    Some(if register.is_gpr32() {
        full & 0xffff_ffff
    } else {
        full
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Folds `value` into `state` (the finalizer of splitmix64).
fn mix(state: u64, value: u64) -> u64 {
    let mut z = state.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_in_a_memory_map() {
        let maps = "555000-556000 r--p 00000000 08:01 7 /a/probe\n556000-559000 r-xp 00001000 08:01 7 /a/probe\n";
        let (code, base) = code_of(maps, "/a/probe").unwrap();
        assert_eq!((code, base), (0x556000..0x559000, 0x555000));
        assert!(code_of(maps, "/a/other").is_none());
    }

    #[test]
    fn traces_differ_in_place_touch_or_length() {
        let trace = |steps: &[(u64, u64)]| Trace {
            steps: steps
                .iter()
                .map(|&(at, touched)| Step { at, touched })
                .collect(),
            program_base: 0,
            executed: steps.iter().map(|s| s.0).collect(),
            gathers: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            memory_accesses: 0,
            vector_bytes: 0,
        };
        let base = trace(&[(1, 5), (2, 6)]);
        assert!(base.divergence(&trace(&[(1, 5), (2, 6)])).is_none());
        assert_eq!(base.divergence(&trace(&[(1, 5), (3, 6)])).unwrap().0, 1);
        assert_eq!(base.divergence(&trace(&[(1, 5), (2, 7)])).unwrap().0, 2);
        assert_eq!(base.divergence(&trace(&[(1, 5)])).unwrap().0, 1);
    }
}
