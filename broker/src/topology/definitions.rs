//! `definitions.json`: everything that a broker has but its messages, as RabbitMQ exports and imports it (semantics 28; RabbitMQ: "Definition Export
//! and Import").
//!
//! [`read`] judges a file and gives [`Definitions`]; [`Import`] carries them out through the same entries as clients and operators, and [`export`]
//! writes them. What RabbitMQ accepts is accepted, also in the forms of old releases, and each mistake has its place as a path in the JSON.

mod convert;
mod export;
mod fields;
mod import;
mod read;

use std::fmt;

use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use serde_json::Value as Json;

pub use self::convert::Topologies;
pub use self::export::{Product, export, parameters as exported_parameters, user as exported_user};
pub use self::import::{Import, Imported};
pub use self::read::{Scope, read};
use super::schema::{PermissionDecl, TopicPermissionDecl, UserLimitsDecl};
use crate::access::PasswordHash;
use crate::vhost::declare::QueueSpec;
use crate::vhost::policy::{PolicyKind, PolicySpec};
use crate::vhost::settings::{ParameterName, VhostLimits, VhostMetadata};

/// The content of a file, typed and judged as far as that is possible without a broker.
#[derive(Debug, Default)]
pub struct Definitions {
    /// Vhosts; the metadata only where the file says anything of it.
    pub vhosts: Vec<Located<(String, Option<VhostMetadata>)>>,
    /// Users without their permissions.
    pub users: Vec<Located<UserDefinition>>,
    /// Permissions with the user's name.
    pub permissions: Vec<Located<(String, PermissionDecl)>>,
    /// Topic permissions with the user's name.
    pub topic_permissions: Vec<Located<(String, TopicPermissionDecl)>>,
    /// Parameters of the broker as a whole.
    pub global_parameters: Vec<Located<(String, Json)>>,
    /// Limits by vhost.
    pub limits: Vec<Located<(String, VhostLimits)>>,
    /// Parameters with their vhost, but for limits and operator policies.
    pub parameters: Vec<Located<(String, ParameterName, Json)>>,
    /// Policies and operator policies with their vhost.
    pub policies: Vec<Located<(String, PolicyKind, PolicySpec)>>,
    /// Exchanges; each knows its vhost.
    pub exchanges: Vec<Located<ExchangeSpec>>,
    /// Queues with their vhost.
    pub queues: Vec<Located<(String, QueueSpec)>>,
    /// Bindings with their vhost and source.
    pub bindings: Vec<Located<(String, String, BindingSpec)>>,
    /// What was left out or has no effect, for whoever imports.
    pub notes: Vec<String>,
}

/// A user as a file has it.
#[derive(Clone, Debug)]
pub struct UserDefinition {
    /// Unique.
    pub name: String,
    /// None: no login with a password.
    pub password: Option<PasswordHash>,
    /// `administrator`, `monitoring`, …
    pub tags: Vec<String>,
    /// Ours: whether logins are accepted from the broker's own machine only, where the file says it.
    pub loopback_only: Option<bool>,
    /// Limits, where the file says them.
    pub limits: Option<UserLimitsDecl>,
}

/// Something with its place in the file.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// Such as `queues[3]`.
    pub path: String,
    /// What stands there.
    pub value: T,
}

/// What is wrong at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Such as `queues[3].name`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub cause: String,
    /// A way out.
    pub help: String,
}

/// More mistakes of a file are not shown.
const MISTAKES_MAX: usize = 100;

impl Mistake {
    fn new(path: impl Into<String>, cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.into(), cause: cause.into(), help: help.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.cause)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

#[cfg(test)]
mod tests;
