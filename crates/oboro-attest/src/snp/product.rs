//! Product lines of processors.

use serde::{Deserialize, Serialize};

/// A product line; each has a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, 97x4 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// The name that AMD gives it in certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Whether this line's root issues for the product name in a certificate's extension:
    /// the line, and a stepping after a hyphen where there is one.
    pub(crate) fn issues_for(self, product_name: &str) -> bool {
        let line = product_name
            .split_once('-')
            .map_or(product_name, |(line, _)| line);
        match self {
            Self::Milan => line == "Milan",
            // AMD issues for these two under the Genoa root.
            Self::Genoa => matches!(line, "Genoa" | "Bergamo" | "Siena"),
            Self::Turin => line == "Turin",
        }
    }
}
