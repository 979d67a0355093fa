//! Follows data out of vector registers through the machine code of one
//! function.
//!
//! The kernels hold codes, tables and scores in vector and mask registers, and
//! lengths and addresses in general ones. So a conditional jump, an address, a
//! mask of a load or store, or a divisor must not come from a vector register,
//! unless that holds public numbers. The analysis goes along all paths until
//! nothing changes. It knows nothing of data that scalar code loads from
//! memory: that is the business of memcheck and of the traces.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use super::rules::{
    is_compressing_store, is_conditional_jump, is_integer_division, is_packed_division_or_root,
    is_scalar_division, text,
};

/// What one function holds.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) conditional_jumps: usize,
    /// Offset of an instruction and why the rule forbids it.
    pub(crate) violations: Vec<(u64, String)>,
}

/// Goes through the code of a marked function, which begins at `offset`.
pub(crate) fn follow(code: &[u8], offset: u64) -> Findings {
    let instructions: Vec<Instruction> = Decoder::with_ip(64, code, offset, DecoderOptions::NONE)
        .iter()
        .collect();
    let states = settle(&instructions);
    let mut findings = Findings::default();
    for (i, state) in instructions.iter().zip(&states) {
        findings.conditional_jumps += usize::from(is_conditional_jump(i));
        let divides = is_scalar_division(i) || is_packed_division_or_root(i);
        let reason = state
            .as_ref()
            .and_then(|state| state.judge(i))
            .or(divides.then_some("the time of a division or a root depends on data"));
        if let Some(reason) = reason {
            findings
                .violations
                .push((i.ip(), format!("{}: {reason}", text(i))));
        }
    }
    findings
}

/// What is known before each instruction, on any path to it.
fn settle(instructions: &[Instruction]) -> Vec<Option<State>> {
    let at: HashMap<u64, usize> = instructions
        .iter()
        .enumerate()
        .map(|(n, i)| (i.ip(), n))
        .collect();
    let mut factory = InstructionInfoFactory::new();
    let mut states: Vec<Option<State>> = vec![None; instructions.len()];
    // Where an indirect jump leads is not known: to whatever nothing else
    // leads to, with all that holds at such jumps.
    let mut indirect: Option<State> = None;
    let mut next = 0;
    let padding =
        |i: &Instruction| matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Ud2);
    while let Some(entry) =
        (next..instructions.len()).find(|n| states[*n].is_none() && !padding(&instructions[*n]))
    {
        states[entry] = Some(indirect.clone().unwrap_or_default());
        next = entry + 1;
        let mut work = vec![entry];
        while let Some(n) = work.pop() {
            let (Some(i), Some(state)) = (instructions.get(n), states[n].clone()) else {
                continue;
            };
            let after = state.after(i, &mut factory);
            let target = at.get(&i.near_branch_target()).copied();
            let successors = match i.flow_control() {
                FlowControl::ConditionalBranch => [Some(n + 1), target],
                FlowControl::UnconditionalBranch => [target, None],
                FlowControl::IndirectBranch => {
                    indirect =
                        Some(indirect.map_or_else(|| after.clone(), |other| other.join(&after)));
                    [None, None]
                }
                FlowControl::Return | FlowControl::Exception => [None, None],
                _ => [Some(n + 1), None],
            };
            for successor in successors
                .into_iter()
                .flatten()
                .filter(|n| *n < instructions.len())
            {
                let joined = match &states[successor] {
                    None => after.clone(),
                    Some(known) => known.join(&after),
                };
                if states[successor].as_ref() != Some(&joined) {
                    states[successor] = Some(joined);
                    work.push(successor);
                }
            }
        }
    }
    states
}

/// A place in the stack frame: base register and displacement.
type Place = (Register, u64);

/// The place in the stack frame that a memory operand names, if it is one.
fn place(i: &Instruction) -> Option<Place> {
    let base = i.memory_base();
    (matches!(base, Register::RSP | Register::RBP) && i.memory_index() == Register::None)
        .then(|| (base, i.memory_displacement64()))
}

/// The bit of a general register.
fn general(register: Register) -> u64 {
    let full = register.full_register();
    if full.is_gpr64() {
        1 << full.number()
    } else {
        0
    }
}

/// The bit of a vector or mask register.
fn vector(register: Register) -> u64 {
    if register.is_vector_register() {
        1 << register.number()
    } else if register.is_k() || register.is_mm() {
        1 << (32 + register.number() + if register.is_mm() { 8 } else { 0 })
    } else {
        0
    }
}

/// What registers hold at one point.
#[derive(Clone, Default, PartialEq)]
struct State {
    /// General registers whose value came out of a vector register.
    data: u64,
    /// Whether the flags came from data.
    flags: bool,
    /// Vector and mask registers that hold constants or public numbers.
    public: u64,
    /// Places in the stack frame that registers were put aside to, and
    /// whether those held public numbers.
    frame: BTreeMap<Place, bool>,
}

impl State {
    /// What holds when either of two paths was taken.
    fn join(&self, other: &Self) -> Self {
        let frame = self
            .frame
            .iter()
            .filter_map(|(place, public)| Some((*place, *public && *other.frame.get(place)?)))
            .collect();
        Self {
            data: self.data | other.data,
            flags: self.flags || other.flags,
            public: self.public & other.public,
            frame,
        }
    }

    fn is_data(&self, register: Register) -> bool {
        self.data & general(register) != 0
    }

    /// Why an instruction is not allowed here.
    fn judge(&self, i: &Instruction) -> Option<&'static str> {
        if is_conditional_jump(i) && self.flags {
            return Some("a conditional jump on data from a vector");
        }
        if is_compressing_store(i) {
            return Some("the length of a compressing store depends on data");
        }
        if i.is_vsib() && self.public & vector(i.memory_index()) == 0 {
            return Some("a gather or scatter by data");
        }
        if self.masked_by_data(i) {
            return Some("which bytes of memory are touched depends on data");
        }
        let addressed = (0..i.op_count()).any(|o| i.op_kind(o) == OpKind::Memory)
            && !matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
        if addressed && (self.is_data(i.memory_base()) || self.is_data(i.memory_index())) {
            return Some("an address made from data of a vector");
        }
        let operand =
            i.op_count() > 0 && i.op0_kind() == OpKind::Register && self.is_data(i.op0_register());
        if is_integer_division(i)
            && (operand || self.is_data(Register::RAX) || self.is_data(Register::RDX))
        {
            return Some("a division of data from a vector");
        }
        let indirect = matches!(
            i.flow_control(),
            FlowControl::IndirectBranch | FlowControl::IndirectCall
        );
        if indirect && operand {
            return Some("a jump to a place made from data of a vector");
        }
        None
    }

    /// Loads and stores under a mask that came from data: the address is the
    /// same, but whether the line is read or becomes dirty is not.
    fn masked_by_data(&self, i: &Instruction) -> bool {
        let Some(memory) = (0..i.op_count()).find(|o| i.op_kind(*o) == OpKind::Memory) else {
            return false;
        };
        let mask = if i.op_mask() != Register::None {
            i.op_mask()
        } else if matches!(
            i.mnemonic(),
            Mnemonic::Vpmaskmovd
                | Mnemonic::Vpmaskmovq
                | Mnemonic::Vmaskmovps
                | Mnemonic::Vmaskmovpd
        ) {
            i.op_register(if memory == 0 { 1 } else { memory - 1 })
        } else {
            return false;
        };
        // Arithmetic under a mask reads memory whole; only moves skip bytes.
        let moves = format!("{:?}", i.mnemonic())
            .to_ascii_lowercase()
            .contains("mov");
        moves && self.public & vector(mask) == 0
    }

    /// Carries marks from what an instruction reads to what it writes.
    fn after(mut self, i: &Instruction, factory: &mut InstructionInfoFactory) -> Self {
        if matches!(
            i.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            // A call keeps the frame and six registers, and leaves its result.
            let kept = [
                Register::RBX,
                Register::RBP,
                Register::R12,
                Register::R13,
                Register::R14,
                Register::R15,
            ];
            self.data &= kept.into_iter().map(general).sum::<u64>();
            self.public = 0;
            self.flags = false;
            return self;
        }
        let zeroing = gives_a_constant(i);
        let mut from_data = i.rflags_read() != 0 && self.flags;
        let used = factory.info(i).used_registers();
        if !zeroing {
            for register in used
                .iter()
                .filter(|u| reads(u.access()))
                .map(|u| u.register())
            {
                let bit = vector(register);
                from_data |= self.is_data(register) || bit != 0 && self.public & bit == 0;
            }
        }
        let memory = (0..i.op_count()).find(|o| i.op_kind(*o) == OpKind::Memory);
        let place = place(i);
        let public_memory = i.is_ip_rel_memory_operand()
            || place.is_some_and(|place| self.frame.get(&place) == Some(&true));
        let loads = memory.is_some() && !public_memory;
        if i.rflags_modified() != 0 {
            self.flags = from_data;
        }
        if let (Some(0), Some(place)) = (memory, place) {
            self.frame.insert(place, !from_data);
        }
        for register in used
            .iter()
            .filter(|u| writes(u.access()))
            .map(|u| u.register())
        {
            let (general, vector) = (general(register), vector(register));
            if from_data {
                self.data |= general;
            } else {
                self.data &= !general;
            }
            if from_data || loads {
                self.public &= !vector;
            } else {
                self.public |= vector;
            }
        }
        self
    }
}

/// `xor r, r` and its like.
fn gives_a_constant(i: &Instruction) -> bool {
    let count = i.op_count();
    let register = |o| (i.op_kind(o) == OpKind::Register).then(|| i.op_register(o));
    if count < 2 || register(count - 1).is_none() || register(count - 1) != register(count - 2) {
        return false;
    }
    let name = format!("{:?}", i.mnemonic()).to_ascii_lowercase();
    name.contains("xor") || name.starts_with("sub") || name.contains("pcmpeq")
}

fn reads(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(code: &[u8]) -> Vec<String> {
        follow(code, 0)
            .violations
            .into_iter()
            .map(|v| v.1)
            .collect()
    }

    #[test]
    fn loops_over_lengths_are_allowed() {
        // add rax, 64; cmp rax, rdx; jb -9
        let code = [0x48, 0x83, 0xc0, 0x40, 0x48, 0x39, 0xd0, 0x72, 0xf7];
        assert!(reasons(&code).is_empty());
    }

    #[test]
    fn a_jump_on_a_lane_is_found() {
        // movd eax, xmm0; cmp eax, 7; ja +2
        let code = [0x66, 0x0f, 0x7e, 0xc0, 0x83, 0xf8, 0x07, 0x77, 0x02];
        assert!(reasons(&code)[0].contains("conditional jump on data"));
        // ptest xmm0, xmm0; jne +2
        let code = [0x66, 0x0f, 0x38, 0x17, 0xc0, 0x75, 0x02];
        assert!(reasons(&code)[0].contains("conditional jump on data"));
    }

    #[test]
    fn another_path_does_not_count() {
        // jmp +6; movd ecx, xmm0; jmp -2 (never returns); mov eax, [rdi + rcx]
        let code = [
            0xeb, 0x06, 0x66, 0x0f, 0x7e, 0xc1, 0xeb, 0xfe, 0x8b, 0x04, 0x0f,
        ];
        assert!(reasons(&code).is_empty(), "{:?}", reasons(&code));
        // je +4 instead: both paths meet.
        let code = [0x74, 0x04, 0x66, 0x0f, 0x7e, 0xc1, 0x8b, 0x04, 0x0f];
        assert!(reasons(&code)[0].contains("address made from data"));
    }

    #[test]
    fn an_address_from_a_lane_is_found() {
        // movd eax, xmm0; mov ecx, [rdi + 4 * rax]
        let code = [0x66, 0x0f, 0x7e, 0xc0, 0x8b, 0x0c, 0x87];
        assert!(reasons(&code)[0].contains("address made from data"));
    }

    #[test]
    fn a_gather_by_data_is_found_and_one_by_a_constant_is_not() {
        // vmovdqu ymm1, [rdi]; vpgatherdd ymm0, [rsi + 4 * ymm1], ymm2
        let code = [0xc5, 0xfe, 0x6f, 0x0f, 0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x8e];
        assert!(reasons(&code)[0].contains("gather"));
        // vmovdqu ymm1, [rip + 0]; the same gather
        let code = [
            0xc5, 0xfe, 0x6f, 0x0d, 0, 0, 0, 0, 0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x8e,
        ];
        assert!(reasons(&code).is_empty(), "{:?}", reasons(&code));
    }

    #[test]
    fn a_store_under_a_mask_of_data_is_found() {
        // vpcmpgtq ymm4, ymm5, ymm4; vpmaskmovq [rdi], ymm4, ymm2
        let code = [0xc4, 0xe2, 0x55, 0x37, 0xe4, 0xc4, 0xe2, 0xdd, 0x8e, 0x17];
        assert!(reasons(&code)[0].contains("which bytes of memory"));
        // kmovd k1, eax; vmovdqu64 [rdi] {k1}, zmm0
        let code = [0xc5, 0xfb, 0x92, 0xc8, 0x62, 0xf1, 0xfe, 0x49, 0x7f, 0x07];
        assert!(reasons(&code).is_empty(), "{:?}", reasons(&code));
        // vpcmpud k1, zmm0, zmm1, 1; the same store
        let code = [
            0x62, 0xf3, 0x7d, 0x48, 0x1e, 0xc9, 0x01, 0x62, 0xf1, 0xfe, 0x49, 0x7f, 0x07,
        ];
        assert!(reasons(&code)[0].contains("which bytes of memory"));
    }

    #[test]
    fn a_floating_point_division_in_a_marked_function_is_found() {
        // divps xmm0, xmm1
        assert!(reasons(&[0x0f, 0x5e, 0xc1])[0].contains("division"));
    }
}
