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

use crate::output;
use crate::policy;

/// Settings of a role, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration(BTreeMap<&'static str, Value>);

impl Configuration {
    /// The settings that both roles have.
    #[must_use]
    pub fn new(role: &'static str, policy: &Policy, lockdown: &str) -> Self {
        Self(BTreeMap::from([
            ("version", Value::from(1)),
            ("role", Value::from(role)),
            ("policy", Value::from(output::hex(&policy::digest(policy)))),
            ("lockdown", Value::from(lockdown)),
        ]))
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
mod tests {
    use super::*;

    #[test]
    fn every_setting_changes_the_digest() {
        let base = Configuration::new("keeper", &Policy::default(), "best-effort");
        let others = [
            Configuration::new("searcher", &Policy::default(), "best-effort"),
            Configuration::new("keeper", &Policy::default(), "off"),
            Configuration::new("keeper", &Policy::default().allowing_simulated(), "best-effort"),
            base.clone().with("rate_per_second", 5.0),
            base.clone().with("rate_per_second", 6.0),
        ];
        let mut digests: Vec<_> = others.iter().map(Configuration::digest).collect();
        digests.push(base.digest());
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }

    #[test]
    fn the_text_has_one_form() {
        let one = Configuration::new("keeper", &Policy::default(), "off")
            .with("b", 1)
            .with("a", "x");
        let other = Configuration::new("keeper", &Policy::default(), "off")
            .with("a", "x")
            .with("b", 1);
        assert_eq!(one.canonical(), other.canonical());
        assert!(one.canonical().starts_with(r#"{"a":"x","b":1,"lockdown":"off","#));
    }
}
