//! A pass over the machine code of one function that follows data out of
//! vector registers.
//!
//! The kernels hold codes, tables and scores in vector and mask registers, and
//! lengths and addresses in general ones. So a conditional jump, an address or
//! a divisor must not come from a vector register. The pass goes once through
//! the code from top to bottom; it knows nothing of data that the scalar code
//! loads from memory, which is the business of memcheck and of the traces.

use std::collections::HashSet;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use super::rules::{
    holds_data, is_compressing_store, is_conditional_jump, is_integer_division,
    is_packed_division_or_root, is_scalar_division, text,
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
    let mut pass = Pass::default();
    let mut findings = Findings::default();
    let mut factory = InstructionInfoFactory::new();
    for instruction in Decoder::with_ip(64, code, offset, DecoderOptions::NONE).iter() {
        if is_conditional_jump(&instruction) {
            findings.conditional_jumps += 1;
        }
        let reason = pass.judge(&instruction).or_else(|| {
            let divides =
                is_scalar_division(&instruction) || is_packed_division_or_root(&instruction);
            divides.then_some("the time of a division or a root depends on data")
        });
        if let Some(reason) = reason {
            findings.violations.push((
                instruction.ip(),
                format!("{}: {reason}", text(&instruction)),
            ));
        }
        pass.advance(&instruction, &mut factory);
    }
    findings
}

#[derive(Default)]
struct Pass {
    /// General registers whose value came out of a vector register.
    data: HashSet<Register>,
    /// Whether the flags came from data.
    flags: bool,
    /// Vector registers that hold constants or public numbers.
    public: HashSet<Register>,
}

impl Pass {
    fn is_data(&self, register: Register) -> bool {
        self.data.contains(&register.full_register())
    }

    /// Why an instruction is not allowed here.
    fn judge(&self, i: &Instruction) -> Option<&'static str> {
        if is_conditional_jump(i) && self.flags {
            return Some("a conditional jump on data from a vector");
        }
        if is_compressing_store(i) {
            return Some("the length of a compressing store depends on data");
        }
        if i.is_vsib() && !self.public.contains(&i.memory_index().full_register()) {
            return Some("a gather or scatter by data");
        }
        if self.masked_by_data(i) {
            return Some("which bytes of memory are touched depends on data");
        }
        let addressed = (0..i.op_count()).any(|o| i.op_kind(o) == OpKind::Memory)
            && i.mnemonic() != Mnemonic::Lea;
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
            Mnemonic::Vpmaskmovd | Mnemonic::Vpmaskmovq | Mnemonic::Vmaskmovps | Mnemonic::Vmaskmovpd
        ) {
            i.op_register(if memory == 0 { 1 } else { memory - 1 })
        } else {
            return false;
        };
        // Arithmetic under a mask reads memory whole; only moves skip bytes.
        let moves = format!("{:?}", i.mnemonic()).to_ascii_lowercase().contains("mov");
        moves && !self.public.contains(&mask.full_register())
    }

    /// Carries marks from what an instruction reads to what it writes.
    fn advance(&mut self, i: &Instruction, factory: &mut InstructionInfoFactory) {
        let registers: Vec<_> = factory.info(i).used_registers().to_vec();
        let zeroing = i.op_count() >= 2
            && i.op_kind(i.op_count() - 1) == OpKind::Register
            && i.op_kind(i.op_count() - 2) == OpKind::Register
            && i.op_register(i.op_count() - 1) == i.op_register(i.op_count() - 2)
            && {
                let name = format!("{:?}", i.mnemonic()).to_ascii_lowercase();
                name.contains("xor") || name.starts_with("sub") || name.contains("pcmpeq")
            };
        let reads = |access| {
            matches!(
                access,
                OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
        };
        let writes = |access| {
            matches!(
                access,
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
        };
        let mut from_data = i.rflags_read() != 0 && self.flags;
        let mut from_vector = false;
        let mut public = true;
        for used in registers.iter().filter(|r| reads(r.access()) && !zeroing) {
            let register = used.register();
            if holds_data(register) {
                from_vector = true;
                public &= self.public.contains(&register.full_register());
            } else if self.is_data(register) {
                from_data = true;
            }
        }
        from_data |= from_vector && !public;
        let loads = (0..i.op_count())
            .any(|o| i.op_kind(o) == OpKind::Memory && !i.is_ip_rel_memory_operand());
        if i.flow_control() == FlowControl::Call || i.flow_control() == FlowControl::IndirectCall {
            // What a call leaves behind is its result.
            self.data.clear();
            self.public.clear();
            self.flags = false;
            return;
        }
        if i.rflags_modified() != 0 {
            self.flags = from_data;
        }
        for used in registers.iter().filter(|r| writes(r.access())) {
            let register = used.register().full_register();
            if holds_data(register) {
                if from_data || loads || (from_vector && !public) {
                    self.public.remove(&register);
                } else {
                    self.public.insert(register);
                }
            } else if from_data {
                self.data.insert(register);
            } else {
                self.data.remove(&register);
            }
        }
    }
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
        let code = [
            0xc4, 0xe2, 0x55, 0x37, 0xe4, 0xc4, 0xe2, 0xdd, 0x8e, 0x17,
        ];
        assert!(reasons(&code)[0].contains("which bytes of memory"));
        // kmovd k1, eax; vmovdqu64 [rdi] {k1}, zmm0
        let code = [
            0xc5, 0xfb, 0x92, 0xc8, 0x62, 0xf1, 0xfe, 0x49, 0x7f, 0x07,
        ];
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
