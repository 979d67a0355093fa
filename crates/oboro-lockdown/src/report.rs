//! What was done, one line for each measure.

use std::fmt;

/// How far a measure goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As far as meant.
    Full,
    /// Not for everything; the detail says for what.
    Partly,
    /// Not at all.
    None,
}

impl Extent {
    /// A word for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "yes",
            Self::Partly => "partly",
            Self::None => "no",
        }
    }
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What it is about, always the same words.
    pub name: &'static str,
    /// How far it goes.
    pub degree: Extent,
    /// What was found and done, a phrase.
    pub detail: String,
}

impl Measure {
    #[cfg(target_os = "linux")]
    pub(crate) fn full(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Extent::Full, detail)
    }

    pub(crate) fn none(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Extent::None, detail)
    }

    pub(crate) fn new(name: &'static str, degree: Extent, detail: impl Into<String>) -> Self {
        Self {
            name,
            degree,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {} ({})",
            self.name,
            self.degree.name(),
            self.detail
        )
    }
}

/// All measures, in the order in which they were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The measures.
    pub measures: Vec<Measure>,
}

impl Report {
    /// Every measure goes as far as meant.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.measures
            .iter()
            .all(|measure| measure.degree == Extent::Full)
    }

    pub(crate) fn shortcomings(&self) -> String {
        self.measures
            .iter()
            .filter(|measure| measure.degree != Extent::Full)
            .map(Measure::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// One line for each measure.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, measure) in self.measures.iter().enumerate() {
            if position > 0 {
                formatter.write_str("\n")?;
            }
            measure.fmt(formatter)?;
        }
        Ok(())
    }
}
