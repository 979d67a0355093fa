//! Which instruction set runs, as values that prove it is there.
//!
//! Every kernel of this crate takes an [`Arch`]. An `Arch` can only come from
//! [`Arch::detect`] or [`Arch::available`], both of which ask the processor,
//! so a kernel that holds one may use the instructions it names; callers stay
//! in safe code.

use std::sync::OnceLock;

/// Proof that nothing beyond the baseline of the target is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable(());

/// Proof that the processor has AVX2, FMA, BMI2 and POPCNT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the processor has AVX-512 F, BW, DQ, VL, CD, VBMI, VBMI2, IFMA,
/// VPOPCNTDQ and BITALG (Ice Lake, Zen 4 and later), besides all of [`Avx2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

/// The instruction set a kernel runs on; holding one proves that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arch {
    /// Baseline instructions only; the reference for all others.
    Portable(Portable),
    /// 256-bit kernels.
    Avx2(Avx2),
    /// 512-bit kernels.
    Avx512(Avx512),
}

/// Environment variable that names the instruction set to use.
///
/// `portable`, `avx2` or `avx512`. Continuous integration sets it to `avx512`
/// on machines that are expected to have it, so that a missing instruction
/// set fails instead of passing silently on a slower path.
pub const ARCH_VARIABLE: &str = "OBORO_ARCH";

impl Arch {
    /// The best instruction set of this processor, or the one that
    /// [`ARCH_VARIABLE`] demands.
    ///
    /// # Panics
    /// When the variable names an unknown set or one this processor lacks:
    /// going on with another would make a test or a measurement lie.
    #[must_use]
    pub fn detect() -> Self {
        static CHOICE: OnceLock<Arch> = OnceLock::new();
        *CHOICE.get_or_init(|| match std::env::var(ARCH_VARIABLE) {
            Err(_) => Self::available().pop().unwrap_or(Self::Portable(Portable(()))),
            Ok(wanted) => Self::available()
                .into_iter()
                .find(|arch| arch.name() == wanted)
                .unwrap_or_else(|| {
                    panic!(
                        "{ARCH_VARIABLE}={wanted}, but this processor offers {}; unset it or name one of those",
                        Self::available().iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
                    )
                }),
        })
    }

    /// Every instruction set of this processor, slowest first; tests run each
    /// kernel on all of them and compare with the first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable(Portable(()))];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(Self::Avx2(Avx2(())));
                if has_avx512() {
                    all.push(Self::Avx512(Avx512(())));
                }
            }
        }
        all
    }

    /// `portable`, `avx2` or `avx512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `work` compiled for this instruction set.
    ///
    /// For plain loops that the compiler vectorizes by itself: a closure marked
    /// `#[inline(always)]` (and everything so marked that it calls) is compiled
    /// once per instruction set; one without the mark only once, for the
    /// baseline, which a test of the workspace refuses. Rust never contracts `a * b + c`, so floating-point
    /// results are the same bits on every one.
    #[inline(always)]
    pub fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        match self {
            Self::Portable(_) => work(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2` value exists only where `has_avx2` was true.
            Self::Avx2(_) => unsafe { with_avx2(work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx512` value exists only where `has_avx512` was true.
            Self::Avx512(_) => unsafe { with_avx512(work) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => work(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("bmi2") && has!("popcnt")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f")
        && has!("avx512bw")
        && has!("avx512dq")
        && has!("avx512vl")
        && has!("avx512cd")
        && has!("avx512vbmi")
        && has!("avx512vbmi2")
        && has!("avx512ifma")
        && has!("avx512vpopcntdq")
        && has!("avx512bitalg")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt")]
#[inline]
fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(
    enable = "avx2,fma,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,avx512ifma,avx512vpopcntdq,avx512bitalg"
)]
#[inline]
fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_comes_first_and_names_differ() {
        let all = Arch::available();
        assert_eq!(all[0].name(), "portable");
        let mut names: Vec<_> = all.iter().map(|a| a.name()).collect();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn vectorized_floating_point_has_the_same_bits_everywhere() {
        let x: Vec<f64> = (0..1003).map(|i| (i as f64 * 0.37).sin()).collect();
        let run = |arch: Arch| {
            let mut y = vec![0.1; x.len()];
            arch.vectorize(
                #[inline(always)]
                || {
                    for _ in 0..5 {
                        for (y, x) in y.iter_mut().zip(&x) {
                            *y = *y * 0.9 + *x * *x;
                        }
                    }
                },
            );
            y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let reference = run(Arch::available()[0]);
        for arch in Arch::available() {
            assert_eq!(run(arch), reference, "{}", arch.name());
        }
    }
}
