//! An instruction and address tracer: runs a probe one instruction at a time
//! and records where it executes and what memory it touches.
//!
//! Valgrind knows no AVX-512; the processor itself does. The probe stops on
//! its standard input just before the region, is attached to, and steps from
//! there. Addresses are recorded relative to their mapping (stack addresses
//! relative to the stack pointer at the start), so that address-space layout
//! randomization does not make two equal runs look different.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use iced_x86::{
    Code, Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpKind, Register, UsedMemory,
};
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, regset::NT_PRFPREG};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Failure;

/// The codes of the trace marks; they equal those in `oboro_simd::taint`.
const TRACE_BEGIN: u64 = 0x4f42_0001;
const TRACE_END: u64 = 0x4f42_0002;

/// Instructions between attaching and the mark, and in a region, at most.
const APPROACH_LIMIT: u64 = 2_000_000;
const REGION_LIMIT: usize = 40_000_000;

/// One executed instruction: where, and a digest of what it touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Offset in the mapping of the code, with the mapping's number above it.
    at: u64,
    /// Addresses and, for a division, operands.
    touched: u64,
}

/// What a region did.
pub(crate) struct Trace {
    steps: Vec<Step>,
    /// Offsets in the executable of the instructions executed.
    executed: BTreeSet<u64>,
    /// Instructions that the rule forbids on any data.
    forbidden: BTreeSet<String>,
    memory_accesses: u64,
    vector_width: u32,
}

impl Trace {
    pub(crate) fn instructions(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn memory_accesses(&self) -> u64 {
        self.memory_accesses
    }

    /// Bytes of the widest vector register used: shows that AVX-512 ran.
    pub(crate) fn vector_width(&self) -> u32 {
        self.vector_width
    }

    pub(crate) fn forbidden(&self) -> &BTreeSet<String> {
        &self.forbidden
    }

    pub(crate) fn executed(&self) -> &BTreeSet<u64> {
        &self.executed
    }

    /// The first step in which two traces differ, as an offset in the
    /// executable of the last common instruction, and what differs.
    pub(crate) fn divergence(&self, other: &Self) -> Option<(u64, &'static str)> {
        let mut last = 0;
        for (a, b) in self.steps.iter().zip(&other.steps) {
            if a.at != b.at {
                return Some((last, "the next instruction depends on the secret"));
            }
            if a.touched != b.touched {
                return Some((a.at, "an address or a divisor depends on the secret"));
            }
            last = a.at;
        }
        (self.steps.len() != other.steps.len())
            .then_some((last, "the number of instructions depends on the secret"))
    }
}

/// What is known of one instruction, decoded once.
struct Decoded {
    at: u64,
    /// Offset in the executable's file image, when it lies there.
    in_program: Option<u64>,
    memory: Vec<UsedMemory>,
    /// A division, whose operands must then not depend on a secret.
    division: Option<Instruction>,
    mark: bool,
}

/// Runs `program` with `arguments` and traces its marked region.
pub(crate) fn record(program: &Path, arguments: &[&str], arch: &str) -> Result<Trace, Failure> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("OBORO_ARCH", arch)
        // One heap that only grows: no mapping appears or goes away midway.
        .env("MALLOC_MMAP_THRESHOLD_", "1073741824")
        .env("MALLOC_TOP_PAD_", "67108864")
        .env("MALLOC_TRIM_THRESHOLD_", "1073741824")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::new(format!("cannot start {}: {e}", program.display())))?;
    let result = (|| {
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("the probe has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|e| Failure::new(format!("cannot read from the probe: {e}")))?;
        if line.trim() != "ready" {
            return Err(Failure::new(format!(
                "the probe {arguments:?} did not get ready on {arch} (it said {:?})",
                line.trim()
            )));
        }
        let pid =
            Pid::from_raw(i32::try_from(child.id()).map_err(|_| Failure::new("odd process id"))?);
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
    })();
    if result.is_err() {
        // The probe may still wait for its line; the child handle is ours.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|e| Failure::new(format!("cannot wait for the probe: {e}")))?;
    let trace = result?;
    if !status.success() {
        return Err(Failure::new(format!(
            "the probe {arguments:?} ended with {status}"
        )));
    }
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

/// A line of the process's memory map.
struct Mapping {
    start: u64,
    end: u64,
    /// Stands for the mapping in traces: its name and number among equals.
    label: u64,
    stack: bool,
    /// `start` minus the file offset, for the executable.
    program_base: Option<u64>,
}

struct Tracer {
    pid: Pid,
    memory: File,
    program: String,
    mappings: Vec<Mapping>,
    decoded: HashMap<u64, Decoded>,
    stack_start: u64,
    forbidden: BTreeSet<String>,
    vector_width: u32,
    info: InstructionInfoFactory,
}

impl Tracer {
    fn new(pid: Pid, program: &Path) -> Result<Self, Failure> {
        let memory = File::open(format!("/proc/{pid}/mem"))
            .map_err(|e| Failure::new(format!("cannot read the probe's memory: {e}")))?;
        let program = fs::canonicalize(program)
            .map_err(|e| Failure::new(format!("cannot find {}: {e}", program.display())))?;
        let mut tracer = Self {
            pid,
            memory,
            program: program.to_string_lossy().into_owned(),
            mappings: Vec::new(),
            decoded: HashMap::new(),
            stack_start: 0,
            forbidden: BTreeSet::new(),
            vector_width: 0,
            info: InstructionInfoFactory::new(),
        };
        tracer.read_mappings()?;
        Ok(tracer)
    }

    fn read_mappings(&mut self) -> Result<(), Failure> {
        let text = fs::read_to_string(format!("/proc/{}/maps", self.pid))
            .map_err(|e| Failure::new(format!("cannot read the probe's memory map: {e}")))?;
        let mut seen: HashMap<String, u64> = HashMap::new();
        self.mappings = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                let (start, end) = fields.next()?.split_once('-')?;
                let (start, end) = (hex(start)?, hex(end)?);
                let offset = hex(fields.nth(1)?)?;
                let name = fields.nth(2).unwrap_or("").to_owned();
                let count = seen.entry(name.clone()).or_default();
                *count += 1;
                let program_base = (name == self.program).then(|| start.wrapping_sub(offset));
                Some(Mapping {
                    start,
                    end,
                    label: mix(hash_text(&name), *count),
                    stack: name == "[stack]",
                    program_base,
                })
            })
            .collect();
        Ok(())
    }

    fn find(&self, address: u64) -> Option<&Mapping> {
        self.mappings
            .iter()
            .find(|m| (m.start..m.end).contains(&address))
    }

    /// The address with the randomness of the layout taken out.
    fn relative(&mut self, address: u64) -> Result<u64, Failure> {
        if self.find(address).is_none() {
            self.read_mappings()?;
        }
        let stack_start = self.stack_start;
        Ok(match self.find(address) {
            Some(m) if m.stack => mix(m.label, address.wrapping_sub(stack_start)),
            Some(m) => mix(m.label, address - m.start),
            // Not mapped: `prefetch` and masked-out lanes may name such.
            None => mix(1, 0),
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
        let mut word = [0; 8];
        Ok(self
            .memory
            .read_exact_at(&mut word, registers.rax)
            .ok()
            .map(|()| u64::from_le_bytes(word)))
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
        self.stack_start = registers.rsp;
        self.forbidden.clear();
        self.vector_width = 0;
        self.decoded.clear();
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
            let decoded = self.decode(registers.rip)?;
            let at = decoded.at;
            if let Some(offset) = decoded.in_program {
                executed.insert(offset);
            }
            let memory = decoded.memory.clone();
            let mut touched = match decoded.division {
                Some(division) => self.operands(&division, &registers)?,
                None => 0,
            };
            for used in &memory {
                memory_accesses += 1;
                let address = used
                    .virtual_address(0, |register, _, _| value(&registers, register))
                    .ok_or_else(|| Failure::new(format!("no address for {used:?}")))?;
                touched = mix(touched, self.relative(address)?);
            }
            steps.push(Step { at, touched });
        }
        Ok(Trace {
            steps,
            executed,
            forbidden: self.forbidden,
            memory_accesses,
            vector_width: self.vector_width,
        })
    }

    /// A digest of what a division divides.
    fn operands(
        &self,
        division: &Instruction,
        registers: &user_regs_struct,
    ) -> Result<u64, Failure> {
        let vectors = ptrace::getregset::<NT_PRFPREG>(self.pid)
            .map_err(|e| Failure::new(format!("cannot read vector registers: {e}")))?
            .xmm_space;
        let scalar = is_scalar_division(division);
        let mut digest = 0;
        if !scalar {
            digest = mix(
                digest,
                value(registers, Register::RAX).unwrap_or(0) & mask(division, 0),
            );
            digest = mix(
                digest,
                value(registers, Register::RDX).unwrap_or(0) & mask(division, 0),
            );
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
                let mut bytes = [0; 8];
                self.memory
                    .read_exact_at(&mut bytes, address)
                    .map_err(|e| {
                        Failure::new(format!("cannot read the operand of a division: {e}"))
                    })?;
                u64::from_le_bytes(bytes)
            } else {
                let register = division.op_register(operand);
                if register.is_xmm() && register.number() < 16 {
                    let at = 4 * register.number();
                    u64::from(vectors[at]) | u64::from(vectors[at + 1]) << 32
                } else {
                    value(registers, register)
                        .ok_or_else(|| Failure::new(format!("no value of {register:?}")))?
                }
            };
            digest = mix(digest, raw & mask(division, operand));
        }
        Ok(digest)
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
        let in_program = self
            .find(rip)
            .and_then(|m| m.program_base)
            .map(|base| rip - base);
        let info = self.info.info(&instruction);
        let memory: Vec<UsedMemory> = info
            .used_memory()
            .iter()
            // `lea` and `nop` compute an address without touching it.
            .filter(|_| !matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop))
            .filter(|m| !m.index().is_vector_register())
            .copied()
            .collect();
        self.vector_width = info
            .used_registers()
            .iter()
            // The C library copies with whatever the processor has.
            .filter(|r| in_program.is_some() && r.register().is_vector_register())
            .map(|r| r.register().size() as u32)
            .max()
            .unwrap_or(0)
            .max(self.vector_width);
        if let Some(reason) = forbidden(&instruction) {
            let mut text = String::new();
            FastFormatter::new().format(&instruction, &mut text);
            self.forbidden.insert(match in_program {
                Some(offset) => format!("{offset:#x}: {text}: {reason}"),
                None => format!("{text}: {reason}"),
            });
        }
        Ok(Decoded {
            at: in_program.map_or(self.relative(rip)?, |offset| offset),
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

/// Why an instruction may not run in oblivious code, whatever its data.
pub(crate) fn forbidden(instruction: &Instruction) -> Option<&'static str> {
    let mnemonic = instruction.mnemonic();
    let name = format!("{mnemonic:?}").to_ascii_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    if instruction.is_vsib() {
        return Some("a gather or scatter takes its addresses from data");
    }
    let to_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    if (name.starts_with("pcompress") || name.starts_with("compress")) && to_memory {
        return Some("the length of a compressing store depends on data");
    }
    let float_division = [
        "divss", "divsd", "divps", "divpd", "sqrtss", "sqrtsd", "sqrtps", "sqrtpd",
    ];
    if float_division.contains(&name) || name.starts_with("fdiv") || name.starts_with("fsqrt") {
        return Some("the time of a division or a root depends on data");
    }
    None
}

pub(crate) fn is_integer_division(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
}

/// A division of one floating-point number, whose operands can be compared.
pub(crate) fn is_scalar_division(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Divss | Mnemonic::Divsd | Mnemonic::Vdivss | Mnemonic::Vdivsd
    )
}

/// The bits that an operand of a division has.
fn mask(division: &Instruction, operand: u32) -> u64 {
    let bytes = match division.mnemonic() {
        Mnemonic::Divss | Mnemonic::Vdivss => 4,
        Mnemonic::Divsd | Mnemonic::Vdivsd => 8,
        _ if division.op_kind(operand) == OpKind::Memory => division.memory_size().size(),
        _ => division.op_register(operand).size(),
    };
    match bytes {
        0..8 => (1 << (8 * bytes)) - 1,
        _ => u64::MAX,
    }
}

pub(crate) fn is_conditional_jump(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::ConditionalBranch
}

pub(crate) fn is_indirect(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::IndirectBranch
}

fn value(r: &user_regs_struct, register: Register) -> Option<u64> {
    Some(match register {
        Register::FS => r.fs_base,
        Register::GS => r.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => {
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
                _ => return None,
            };
            match register.size() {
                4 => full & 0xffff_ffff,
                _ => full,
            }
        }
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Folds `value` into `state` (the finalizer of splitmix64).
fn mix(state: u64, value: u64) -> u64 {
    let mut z = state.rotate_left(23) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
