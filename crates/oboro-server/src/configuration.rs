//! The digest of how a role is set up: the same program set up otherwise is another.
//!
//! The digest stands in the role's evidence, so a policy can list the set-ups it accepts
//! (`configurations` of an `[[accept]]` entry). It covers settings that decide who learns
//! what, and none that only say where things lie or how fast they go.
//!
//! A searcher's digest covers its policy, and a keeper's covers the keeper's. Two policies
//! that pin each other's configuration can therefore not be made; pin along one direction:
//! the client's policy pins the searcher's configuration, whose policy pins the keeper's.

use std::collections::BTreeMap;

use oboro_attest::Policy;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::failure::Outcome;
use crate::output;
use crate::policy;

/// Settings of a role, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration(BTreeMap<&'static str, Value>);

impl Configuration {
    /// The settings that both roles have.
    ///
    /// # Errors
    /// If the policy cannot be written as text.
    pub fn new(role: &'static str, policy: &Policy, lockdown: &str) -> Outcome<Self> {
        Ok(Self(BTreeMap::from([
            ("version", Value::from(1)),
            ("role", Value::from(role)),
            ("policy", Value::from(output::hex(&policy::digest(policy)?))),
            ("lockdown", Value::from(lockdown)),
        ])))
    }

    /// The same with one setting more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The settings as one JSON object without spaces, names in the order of the alphabet.
    #[must_use]
    pub fn canonical(&self) -> String {
        // Values are scalars and lists of them, so nothing below has an order to lose.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// SHA-256 of [`canonical`](Self::canonical).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical()).into()
    }

    /// Names and values, for people and `--json`.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<&'static str, Value> {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn base(role: &'static str, lockdown: &str) -> Configuration {
        Configuration::new(role, &Policy::default(), lockdown).unwrap()
    }

    #[test]
    fn every_setting_changes_the_digest() {
        let others = [
            base("keeper", "best-effort"),
            base("searcher", "best-effort"),
            base("keeper", "off"),
            Configuration::new(
                "keeper",
                &Policy::default().allowing_simulated(),
                "best-effort",
            )
            .unwrap(),
            base("keeper", "best-effort").with("rate_per_second", 5.0),
            base("keeper", "best-effort").with("rate_per_second", 6.0),
        ];
        let mut digests: Vec<_> = others.iter().map(Configuration::digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }

    #[test]
    fn the_text_has_one_form() {
        let one = base("keeper", "off").with("b", 1).with("a", "x");
        let other = base("keeper", "off").with("a", "x").with("b", 1);
        assert_eq!(one.canonical(), other.canonical());
        assert!(
            one.canonical()
                .starts_with(r#"{"a":"x","b":1,"lockdown":"off","#)
        );
    }
}
