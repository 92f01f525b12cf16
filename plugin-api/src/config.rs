//! The configuration that a topology file gives a plugin or a storage.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Invalid;

/// What stands under `config:` in the topology file; null when nothing does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config(Value);

impl Config {
    /// Wraps plain JSON.
    #[must_use]
    pub const fn new(value: Value) -> Self {
        Self(value)
    }

    /// The plain JSON.
    #[must_use]
    pub const fn as_json(&self) -> &Value {
        &self.0
    }

    /// Whether nothing was configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Value::Null => true,
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// Reads the configuration into a type of the plugin's own. Nothing configured reads as an empty object, so that
    /// `#[serde(default)]` does what it says; with `#[serde(deny_unknown_fields)]` misspelled keys are refused.
    ///
    /// # Errors
    /// What does not fit, in serde's words.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        let value = if self.0.is_null() { Value::Object(serde_json::Map::new()) } else { self.0.clone() };
        serde_json::from_value(value).map_err(|error| Invalid::new(format!("invalid config: {error}")))
    }

    /// For what takes no configuration.
    ///
    /// # Errors
    /// When there is some all the same.
    pub fn expect_empty(&self) -> Result<(), Invalid> {
        if self.is_empty() { Ok(()) } else { Err(Invalid::new(format!("takes no config, but was given {}", self.0))) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_reads_as_defaults() {
        let entries: std::collections::BTreeMap<String, u32> = Config::default().parse().unwrap();
        assert!(entries.is_empty());
        assert!(Config::new(json!({})).expect_empty().is_ok());
    }

    #[test]
    fn wrong_type_is_named() {
        let error = Config::new(json!({"a": "x"})).parse::<std::collections::BTreeMap<String, u32>>().unwrap_err();
        assert!(error.text.starts_with("invalid config: invalid type: string \"x\""), "{error}");
        assert_eq!(
            Config::new(json!({"a": 1})).expect_empty().unwrap_err().text,
            r#"takes no config, but was given {"a":1}"#
        );
    }
}
