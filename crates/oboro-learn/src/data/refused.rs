use serde::Serialize;
use std::fmt;

/// What to do about a record that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// Leave it out and count it.
    #[default]
    Skip,
    /// Fail, after all have been counted.
    Fail,
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The image is missing, truncated, of an unknown kind or too large.
    UnreadableImage,
    /// The label is not one of the set's classes.
    LabelOutOfRange,
    /// A line of a list does not parse, or leaves the set's folder.
    BadLine,
    /// The record's class has no other item.
    OneItemClass,
}

impl Reason {
    const ALL: [Self; 4] = [
        Self::UnreadableImage,
        Self::LabelOutOfRange,
        Self::BadLine,
        Self::OneItemClass,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::UnreadableImage => "unreadable images",
            Self::LabelOutOfRange => "labels out of range",
            Self::BadLine => "lines that do not parse",
            Self::OneItemClass => "items alone in their class",
        }
    }
}

/// How many records were refused, and the first few of each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    counts: [usize; 4],
    examples: Vec<(Reason, String)>,
}

impl Refused {
    /// Examples that are kept of each reason.
    const EXAMPLES: usize = 3;

    pub(crate) fn add(&mut self, reason: Reason, example: impl FnOnce() -> String) {
        if self.counts[reason as usize] < Self::EXAMPLES {
            self.examples.push((reason, example()));
        }
        self.counts[reason as usize] += 1;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (reason, example) in other.examples {
            let kept = self.examples.iter().filter(|(r, _)| *r == reason).count();
            if kept < Self::EXAMPLES {
                self.examples.push((reason, example));
            }
        }
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    /// Records refused for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> usize {
        self.counts[reason as usize]
    }

    /// Records refused in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The first few refused records of each reason, by name or line.
    #[must_use]
    pub fn examples(&self) -> &[(Reason, String)] {
        &self.examples
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records refused", self.total())?;
        let mut separator = ": ";
        for reason in Reason::ALL.into_iter().filter(|&r| self.count(r) > 0) {
            write!(f, "{separator}{} {}", self.count(reason), reason.name())?;
            if let Some((_, example)) = self.examples.iter().find(|(r, _)| *r == reason) {
                write!(f, " (such as {example})")?;
            }
            separator = ", ";
        }
        Ok(())
    }
}
