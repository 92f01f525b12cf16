//! YAML that is no topology: what the program itself writes and reads again, and results that people want in this form.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as YAML.
///
/// # Errors
/// When the value has no form in YAML.
pub(crate) fn write<T: Serialize>(value: &T) -> Result<String, impl Display + use<T>> {
    serde_yaml::to_string(value)
}

/// The value that a text stands for.
///
/// # Errors
/// When it is no YAML, or not of this shape.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, impl Display + use<T>> {
    serde_yaml::from_str(text)
}
