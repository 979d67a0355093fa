//! Which failures of a verb a storm explains.
//!
//! A role that was killed, stopped, frozen or restarted is not there, or has forgotten
//! what was begun; a rotation makes what was sealed before it useless. All else is a fault.

/// Exit code of a server that is not there.
const UNREACHABLE: i32 = 5;

/// Exit codes of a failure that the program itself reports: failed, a wrong input (such
/// as what was made before a rotation), refused, unreachable.
const REPORTED: [i32; 4] = [1, 3, 4, UNREACHABLE];

/// Parts of the sentences that a change may end with.
const PASSING: [&str; 14] = [
    // A searcher that starts or stops.
    "the index is being opened",
    "shutting down",
    "was cancelled",
    // Until the lock of one that was killed is free.
    "cannot be changed here",
    // A searcher that was started anew does not have what was staged before.
    "stage it again",
    // A rotation came between.
    "make it again",
    "is over before its time",
    "connect again",
    "plan the compaction again",
    // A keeper or searcher that was frozen.
    "the deadline passed",
    "did not answer",
    "try again later",
    "the keeper is busy",
    // A keeper that is away for long.
    "no more are made without it",
];

/// A verb that did not succeed.
pub(crate) struct Ended {
    /// Its exit code, if no signal ended it.
    pub(crate) code: Option<i32>,
    /// What it said.
    pub(crate) said: String,
}

impl Ended {
    /// A storm explains why a change failed.
    pub(crate) fn passing_change(&self) -> bool {
        self.code == Some(UNREACHABLE)
            || (self.is_reported() && PASSING.iter().any(|part| self.said.contains(part)))
    }

    /// A storm explains why a rotation, which asks both roles for several things in turn,
    /// was not finished.
    pub(crate) fn passing_rotation(&self) -> bool {
        self.is_reported()
    }

    fn is_reported(&self) -> bool {
        self.code.is_some_and(|code| REPORTED.contains(&code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, said: &str) -> Ended {
        Ended {
            code,
            said: said.to_owned(),
        }
    }

    #[test]
    fn fail_what_no_storm_explains() {
        for (code, said) in [
            (None, "the index is being opened"),
            (Some(101), "the index is being opened"),
            (Some(3), "the index is damaged"),
            (Some(3), "a change of it"),
            (Some(2), "connect again"),
            (Some(1), "the keeper cannot use its state; see its log"),
            (Some(4), "an older or forked copy of the index lies here"),
            (Some(1), ""),
        ] {
            assert!(!ended(code, said).passing_change(), "{code:?} {said}");
        }
        for code in [None, Some(101), Some(2)] {
            assert!(!ended(code, "the index is being opened").passing_rotation());
        }
        assert!(ended(Some(5), "whatever").passing_change());
        assert!(ended(Some(1), "the searcher is shutting down; connect again").passing_change());
        assert!(ended(Some(4), "refused").passing_rotation());
    }
}
