//! What an instruction is, seen with the constant-time rule in mind.

use iced_x86::{FastFormatter, FlowControl, Instruction, Mnemonic, OpKind};

/// The text of an instruction, for reports.
pub(crate) fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    FastFormatter::new().format(instruction, &mut text);
    text
}

/// `div` and `idiv`.
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

/// A division or root of several floating-point numbers, or any root.
pub(crate) fn is_packed_division_or_root(instruction: &Instruction) -> bool {
    let name = format!("{:?}", instruction.mnemonic()).to_ascii_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    (name.starts_with("div") && name.ends_with(['s', 'd', 'h']) && !is_scalar_division(instruction))
        || name.starts_with("sqrt")
        || name.starts_with("fdiv")
        || name.starts_with("fsqrt")
}

/// A store whose length depends on a mask.
pub(crate) fn is_compressing_store(instruction: &Instruction) -> bool {
    let name = format!("{:?}", instruction.mnemonic()).to_ascii_lowercase();
    name.contains("compress")
        && instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Memory
}

pub(crate) fn is_conditional_jump(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::ConditionalBranch
}

/// Bits that an operand of a division has.
pub(crate) fn operand_mask(division: &Instruction, operand: u32) -> u64 {
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
