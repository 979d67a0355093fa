//! Marks for the checks of constant-time code: what is secret, what may be
//! told, and where a trace begins and ends.
//!
//! `cargo xtask oblivious` runs the marked code under valgrind's memcheck with
//! every secret declared "uninitialised" ([`secret`]): memcheck then follows
//! each value computed from it and reports every conditional jump and every
//! address that depends on one (A. Langley's ctgrind). [`public`] takes
//! the mark away where a value is meant to leave the oblivious code, and so
//! is also the list, in the source, of everything that leaves it.
//!
//! Outside valgrind each call is six instructions that change nothing: the
//! same machine code that ships is the code that is checked. Bytes are never
//! read or altered.

/// Valgrind's client request "is this valgrind".
const RUNNING_ON_VALGRIND: u64 = 0x1001;
/// Valgrind's client request for the number of errors so far.
const COUNT_ERRORS: u64 = 0x1201;
/// Memcheck's requests start at 'M' 'C' in the upper two bytes.
const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;
const GET_VBITS: u64 = 0x4d43_0008;
/// Request codes of our own ('O' 'B'), which valgrind answers with the
/// default; the instruction tracer of `cargo xtask oblivious` looks for them.
pub const TRACE_BEGIN: u64 = 0x4f42_0001;
/// The end of the traced region; see [`TRACE_BEGIN`].
pub const TRACE_END: u64 = 0x4f42_0002;

/// Sends a client request; gives 0 when nothing listens.
#[inline(always)]
fn request(code: u64, first: u64, second: u64, third: u64) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let arguments = [code, first, second, third, 0, 0];
        let mut answer = 0;
        // SAFETY: the four rotations add up to 128 bits and `xchg rbx, rbx`
        // is a no-operation, so on a processor the sequence only clobbers
        // flags. Under valgrind it reads the six words behind rax, which live
        // on this stack frame, writes rdx and, for `GET_VBITS`, the buffer
        // that `is_secret` owns. No option claims that memory
        // is left alone, so the compiler keeps stores on their side of it.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") arguments.as_ptr(),
                inlateout("rdx") answer,
                options(nostack),
            );
        }
        answer
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        let _ = (code, first, second, third);
        0
    }
}

fn mark<T: Copy>(code: u64, values: &[T]) {
    request(
        code,
        values.as_ptr() as u64,
        std::mem::size_of_val(values) as u64,
        0,
    );
}

/// Marks one value in passing.
#[inline(always)]
fn mark_value<T: Copy>(code: u64, value: T) -> T {
    let mut slot = value;
    // A mutable pointer: through a shared one the compiler may take the value
    // to be unchanged and give back the unmarked copy.
    let pointer = &raw mut slot;
    request(code, pointer as u64, std::mem::size_of::<T>() as u64, 0);
    slot
}

/// Declares the values secret: memcheck reports every branch and address that
/// comes to depend on them.
#[inline]
pub fn secret<T: Copy>(values: &[T]) {
    mark(MAKE_MEM_UNDEFINED, values);
}

/// Declares the values public from here on.
///
/// # Security
/// Each call in library code is a decision that a value may be seen in the
/// timing and the addresses; say why beside it.
#[inline]
pub fn public<T: Copy>(values: &[T]) {
    mark(MAKE_MEM_DEFINED, values);
}

/// Gives a value back as public; see [`public`].
///
/// # Security
/// As for [`public`].
#[inline]
#[must_use]
pub fn declassify<T: Copy>(value: T) -> T {
    mark_value(MAKE_MEM_DEFINED, value)
}

/// Gives a value back as secret; see [`secret`].
#[inline]
#[must_use]
pub fn classify<T: Copy>(value: T) -> T {
    mark_value(MAKE_MEM_UNDEFINED, value)
}

/// Whether any bit of the values is marked secret; `false` outside valgrind.
///
/// Checks use it to see that a mark reached the result: a rule that nothing
/// secret went through would hold trivially.
#[must_use]
pub fn is_secret<T: Copy>(values: &[T]) -> bool {
    let length = std::mem::size_of_val(values);
    let mut bits = vec![0_u8; length];
    let buffer = bits.as_mut_ptr() as u64;
    request(GET_VBITS, values.as_ptr() as u64, buffer, length as u64);
    std::hint::black_box(&mut bits)
        .iter()
        .any(|bits| *bits != 0)
}

/// Whether this process runs under valgrind.
#[must_use]
pub fn running_on_valgrind() -> bool {
    request(RUNNING_ON_VALGRIND, 0, 0, 0) != 0
}

/// Errors that valgrind has counted so far; 0 outside it.
#[must_use]
pub fn errors() -> u64 {
    request(COUNT_ERRORS, 0, 0, 0)
}

/// Runs `work` between the marks of the instruction tracer.
///
/// Never inlined, so that the marks stay around the work.
#[inline(never)]
pub fn traced<R>(work: impl FnOnce() -> R) -> R {
    request(TRACE_BEGIN, 0, 0, 0);
    let result = work();
    request(TRACE_END, 0, 0, 0);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_change_nothing() {
        let values = [1_u32, 2, 3];
        secret(&values);
        assert_eq!(is_secret(&values), running_on_valgrind());
        public(&values);
        assert!(!is_secret(&values));
        assert_eq!(values, [1, 2, 3]);
        assert_eq!(declassify(classify(7_u8)), 7);
        assert_eq!(traced(|| 5), 5);
        if !running_on_valgrind() {
            assert_eq!(errors(), 0);
        }
    }
}
