//! What a vhost is set to beside its policies: limits, description, default queue type, parameters (semantics 9.12, 9.21, 24.3, 24.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::erlang_term::{ErlangProplist, ErlangTerm};
use super::policy::{Policies, QueueType};
use crate::origin::Origin;

/// How much there may be in a vhost; nothing and negative values are no limit, 0 allows none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    /// `max-connections`
    pub max_connections: Option<i64>,
    /// `max-queues`
    pub max_queues: Option<i64>,
}

/// What people say of a vhost, and the type of queues that are declared without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostMetadata {
    /// For people.
    pub description: String,
    /// For people.
    pub tags: Vec<String>,
    /// What queues are that are declared without `x-queue-type`; none leaves them classic.
    pub default_queue_type: Option<QueueType>,
    /// Whether deleting the vhost is refused.
    pub protected_from_deletion: bool,
}

/// The name of a parameter: its component and its own.
pub type ParameterName = (Arc<str>, Arc<str>);

/// Everything that is set in a vhost, with where it comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) policies: Policies,
    pub(super) limits: Option<(VhostLimits, Origin)>,
    pub(super) metadata: Option<(VhostMetadata, Origin)>,
    pub(super) parameters: BTreeMap<ParameterName, Json>,
}

/// A setting that is not taken. It displays as RabbitMQ's reason without its heading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(pub String);

/// Policies of one kind in a vhost: each is searched for in each new name.
pub const POLICIES_MAX: usize = 1000;
/// Parameters in a vhost.
pub const PARAMETERS_MAX: usize = 10_000;
/// A parameter's value, as JSON.
pub const PARAMETER_BYTES_MAX: usize = 64 * 1024;
/// A description; RabbitMQ has no limit.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Tags of a vhost or a user, as in RabbitMQ.
pub const TAGS_MAX: usize = 32;

impl VhostLimits {
    /// Reads RabbitMQ's names.
    ///
    /// # Errors
    /// RabbitMQ's text for an unknown name or a value that is no whole number.
    pub fn from_json(limits: &Map<String, Json>) -> Result<Self, InvalidSetting> {
        let [max_connections, max_queues] = limits_from_json(limits, ["max-connections", "max-queues"], "limits")?;
        Ok(Self { max_connections, max_queues })
    }

    /// With RabbitMQ's names.
    pub fn to_json(self) -> Map<String, Json> {
        limits_to_json([("max-connections", self.max_connections), ("max-queues", self.max_queues)])
    }

    /// Whether so many connections are all that may be; if so, how many may.
    pub fn connections_reached(&self, count: usize) -> Option<u64> {
        reached(self.max_connections, count)
    }

    /// Whether so many queues are all that may be; if so, how many may.
    pub fn queues_reached(&self, count: usize) -> Option<u64> {
        reached(self.max_queues, count)
    }
}

/// Whether a count has reached a limit, and then the limit. Negative limits are none.
pub fn reached(limit: Option<i64>, count: usize) -> Option<u64> {
    let limit = u64::try_from(limit?).ok()?;
    (count as u64 >= limit).then_some(limit)
}

/// Reads limits that have exactly these names; a `null` is no limit.
///
/// # Errors
/// RabbitMQ's text for an unknown name or a value that is no whole number.
pub fn limits_from_json<const N: usize>(
    limits: &Map<String, Json>,
    names: [&str; N],
    what: &str,
) -> Result<[Option<i64>; N], InvalidSetting> {
    let mut unknown: Vec<(&str, &Json)> =
        limits.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| !names.contains(name)).collect();
    if !unknown.is_empty() {
        unknown.sort_unstable_by_key(|(name, _)| *name);
        return Err(InvalidSetting(format!("Unrecognised terms {} in {what}", ErlangProplist(unknown))));
    }
    let mut read = [None; N];
    for (place, name) in read.iter_mut().zip(names) {
        *place = match limits.get(name) {
            None | Some(Json::Null) => None,
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                InvalidSetting(format!("{name} should be a number, actually was {}", ErlangTerm(value)))
            })?),
        };
    }
    Ok(read)
}

/// The limits that are set.
pub fn limits_to_json<const N: usize>(limits: [(&str, Option<i64>); N]) -> Map<String, Json> {
    limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Json::from(value?)))).collect()
}

impl QueueType {
    /// The type that a vhost may have as its default.
    ///
    /// # Errors
    /// RabbitMQ's text for what is no type, and ours for one that this broker does not have.
    pub fn parse_default(name: &str) -> Result<Self, InvalidSetting> {
        match name {
            "classic" | "rabbit_classic_queue" => Ok(Self::Classic),
            "quorum" | "rabbit_quorum_queue" => Ok(Self::Quorum),
            "stream" | "rabbit_stream_queue" => {
                Err(InvalidSetting("queues of type stream are not supported by this version".into()))
            }
            "" => Err(InvalidSetting("default_queue_type must not be an empty string".into())),
            other => Err(InvalidSetting(format!("{other} is not a valid queue type"))),
        }
    }

    /// Its name in arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

impl VhostMetadata {
    /// Judges lengths and counts.
    ///
    /// # Errors
    /// What is too long.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        if self.description.len() > DESCRIPTION_BYTES_MAX {
            return Err(InvalidSetting(format!("the description is longer than {DESCRIPTION_BYTES_MAX} bytes")));
        }
        if self.tags.len() > TAGS_MAX || self.tags.iter().any(|tag| tag.len() > super::policy::NAME_BYTES_MAX) {
            return Err(InvalidSetting(format!("a vhost has at most {TAGS_MAX} tags of at most 255 bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Semantics 24.3.
    #[test]
    fn negative_limits_are_none_and_zero_allows_nothing() {
        assert_eq!(reached(None, 1_000_000), None);
        assert_eq!(reached(Some(-1), 1_000_000), None);
        assert_eq!(reached(Some(0), 0), Some(0));
        assert_eq!((reached(Some(2), 1), reached(Some(2), 2), reached(Some(2), 3)), (None, Some(2), Some(2)));
    }

    #[test]
    fn limits_are_read_by_rabbitmqs_names() {
        let read = |value: Json| VhostLimits::from_json(value.as_object().unwrap());
        let limits = VhostLimits { max_connections: Some(-1), max_queues: Some(10) };
        assert_eq!(read(json!({"max-connections": -1, "max-queues": 10})), Ok(limits));
        assert_eq!(Json::Object(limits.to_json()), json!({"max-connections": -1, "max-queues": 10}));
        assert_eq!(read(json!({})), Ok(VhostLimits::default()));
        let error = read(json!({"max-fun": 1})).unwrap_err();
        assert_eq!(error.to_string(), "Unrecognised terms [{<<\"max-fun\">>,1}] in limits");
        let error = read(json!({"max-queues": "1"})).unwrap_err();
        assert_eq!(error.to_string(), "max-queues should be a number, actually was <<\"1\">>");
    }
}
