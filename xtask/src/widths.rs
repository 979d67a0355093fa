//! Closures given to `Arch::vectorize` must be marked `#[inline(always)]`.
//!
//! A closure that is not inlined is compiled once, for the baseline of the
//! target, and the wide instructions that the call asks for are never used:
//! results stay right, kernels and yardsticks silently become slow ones.

#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    const CALL: &str = ".vectorize(";

    /// Calls in `sources` whose closure lacks the mark.
    fn unmarked(sources: &str) -> usize {
        sources
            .split(CALL)
            .skip(1)
            .filter(|rest| !rest.trim_start().starts_with("#[inline(always)]"))
            .count()
    }

    #[test]
    fn every_vectorized_closure_is_inlined() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut sources = String::new();
        crate::claims::collect(&root.join("crates"), &mut sources).unwrap();
        assert!(sources.contains(CALL), "nothing was read");
        assert_eq!(unmarked(&sources), 0, "closures lack #[inline(always)]");
    }

    #[test]
    fn a_closure_without_the_mark_is_found() {
        let sources = "a.vectorize(\n  #[inline(always)]\n  || 1); b.vectorize(|| 2)";
        assert_eq!(unmarked(sources), 1);
    }
}
