//! One policy: how it is put, whether it is valid, and which names it is for (semantics 23.1, 23.7).

use std::fmt;

use plugin_api::value::Table;
use serde_json::{Map, Value as Json};

use super::keys::{self, Effect};
use crate::access::{PATTERN_BYTES_MAX, Pattern};
use crate::origin::Origin;
use crate::vhost::erlang_term::{ErlangProplist, ErlangTerm};

/// A policy as people put and see it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// Unique among the policies of its kind in the vhost.
    pub name: String,
    /// A regular expression that is searched in names of queues and exchanges; the empty one is found in every name.
    pub pattern: String,
    /// What it is for.
    pub apply_to: ApplyTo,
    /// Of several that match, the one with the highest applies.
    pub priority: i64,
    /// What it says, by RabbitMQ's keys.
    pub definition: Map<String, Json>,
}

/// Who speaks: policies are for those who run applications, operator policies for those who run the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `policy`.
    User,
    /// `operator_policy`: few keys, for queues alone, merged into the policy (semantics 23.3).
    Operator,
}

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// `all`
    #[default]
    All,
    /// `exchanges`
    Exchanges,
    /// `queues`: of any type.
    Queues,
    /// `classic_queues`
    ClassicQueues,
    /// `quorum_queues`
    QuorumQueues,
    /// `streams`
    Streams,
}

/// The types of queues that policies tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// `classic`
    #[default]
    Classic,
    /// `quorum`
    Quorum,
    /// `stream`
    Stream,
}

/// A policy that is not taken. It displays as RabbitMQ's reason without its heading; see [`Self::validation_text`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidPolicy {
    /// The part of the policy that is wrong: `name`, `pattern`, `definition`.
    pub part: &'static str,
    /// The key of the definition that is wrong, if it is one.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
}

/// A policy that is in force.
#[derive(Debug)]
pub struct Policy {
    spec: PolicySpec,
    pattern: Pattern,
    origin: Origin,
}

/// Names are short strings everywhere else, too.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest text in a definition. Names of exchanges and keys are shorter.
const VALUE_BYTES_MAX: usize = 4096;

impl ApplyTo {
    /// The names in files and requests.
    pub const NAMES: &[(&str, Self)] = &[
        ("all", Self::All),
        ("exchanges", Self::Exchanges),
        ("queues", Self::Queues),
        ("classic_queues", Self::ClassicQueues),
        ("quorum_queues", Self::QuorumQueues),
        ("streams", Self::Streams),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exchanges => "exchanges",
            Self::Queues => "queues",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }

    /// The one of that name.
    ///
    /// # Errors
    /// RabbitMQ's text for a name that is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
            format!(
                "apply-to '{name}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'"
            )
        })
    }

    fn includes_exchanges(self) -> bool {
        matches!(self, Self::All | Self::Exchanges)
    }

    fn includes_queues(self, kind: QueueType) -> bool {
        match self {
            Self::All | Self::Queues => true,
            Self::Exchanges => false,
            Self::ClassicQueues => kind == QueueType::Classic,
            Self::QuorumQueues => kind == QueueType::Quorum,
            Self::Streams => kind == QueueType::Stream,
        }
    }
}

impl QueueType {
    /// The type that a queue's arguments ask for.
    pub fn of(arguments: &Table) -> Self {
        match arguments.get("x-queue-type").and_then(|value| value.as_str()) {
            Some("quorum") => Self::Quorum,
            Some("stream") => Self::Stream,
            _ => Self::Classic,
        }
    }
}

impl PolicyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::Operator];
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "policy",
            Self::Operator => "operator policy",
        })
    }
}

impl InvalidPolicy {
    fn new(part: &'static str, reason: impl Into<String>) -> Self {
        Self { part, key: None, reason: reason.into() }
    }

    /// There are as many as there may be.
    pub(in crate::vhost) fn too_many(kind: PolicyKind, max: usize) -> Self {
        let component = if kind == PolicyKind::User { "policy" } else { "operator_policy" };
        Self::new("name", format!("component {component} is limited to {max}"))
    }

    /// The vhost has gone meanwhile.
    pub(in crate::vhost) fn vhost_deleted(vhost: &str) -> Self {
        Self::new("vhost", format!("vhost '{vhost}' is deleted"))
    }

    /// As RabbitMQ's tools show it.
    pub fn validation_text(&self) -> String {
        format!("Validation failed\n\n{}\n", self.reason)
    }
}

impl Policy {
    /// Judges a policy.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub fn new(kind: PolicyKind, spec: PolicySpec, origin: Origin) -> Result<Self, InvalidPolicy> {
        if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
            return Err(InvalidPolicy::new("name", format!("a policy needs a name of 1 to {NAME_BYTES_MAX} bytes")));
        }
        check_definition(kind, &spec.definition)?;
        if spec.pattern.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPolicy::new("pattern", format!("pattern must not exceed {PATTERN_BYTES_MAX} bytes")));
        }
        let pattern = Pattern::anywhere(&spec.pattern).map_err(|error| {
            InvalidPolicy::new("pattern", format!("pattern should be regular expression but is invalid: {error}"))
        })?;
        Ok(Self { spec, pattern, origin })
    }

    /// Who put it.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// As it was put.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The keys of its definition that do nothing here.
    pub fn keys_without_effect(&self) -> Vec<&str> {
        let keys = self.spec.definition.keys().map(String::as_str);
        keys.filter(|key| keys::find(key).is_some_and(|key| key.effect == Effect::Nothing)).collect()
    }

    pub(super) fn matches_exchange(&self, name: &str) -> bool {
        self.spec.apply_to.includes_exchanges() && self.pattern.matches(name)
    }

    pub(super) fn matches_queue(&self, name: &str, kind: QueueType) -> bool {
        self.spec.apply_to.includes_queues(kind) && self.is_known_to(kind) && self.pattern.matches(name)
    }

    /// Whether queues of the type know all of its keys (semantics 23.2).
    fn is_known_to(&self, kind: QueueType) -> bool {
        let mut keys = self.spec.definition.keys();
        keys.all(|key| keys::find(key).is_some_and(|key| !key.unknown_to.contains(&kind)))
    }
}

/// Judges a definition in RabbitMQ's order: values first, then keys.
fn check_definition(kind: PolicyKind, definition: &Map<String, Json>) -> Result<(), InvalidPolicy> {
    if definition.is_empty() {
        return Err(InvalidPolicy::new("definition", "no policy provided"));
    }
    let mut unknown = Vec::new();
    for (name, value) in sorted(definition) {
        let known = keys::find(name).filter(|key| kind == PolicyKind::User || key.for_operators);
        let Some(key) = known else {
            unknown.push((name, value));
            continue;
        };
        let wrong = |reason: String| Err(InvalidPolicy { part: "definition", key: Some(name.to_owned()), reason });
        if !(key.accepts)(value) {
            return wrong(format!("{} {}", ErlangTerm(value), key.complaint));
        }
        if value.as_str().is_some_and(|text| text.len() > VALUE_BYTES_MAX) {
            return wrong(format!("{name} is longer than {VALUE_BYTES_MAX} bytes"));
        }
    }
    match unknown.first() {
        None => Ok(()),
        Some((first, _)) => Err(InvalidPolicy {
            part: "definition",
            key: Some((*first).to_owned()),
            reason: format!("{} are not recognised policy settings", ErlangProplist(unknown)),
        }),
    }
}

fn sorted(definition: &Map<String, Json>) -> Vec<(&str, &Json)> {
    let mut entries: Vec<(&str, &Json)> = definition.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

#[cfg(test)]
pub(in crate::vhost) mod tests {
    use serde_json::json;

    use super::*;

    /// A policy for everything.
    pub(in crate::vhost) fn spec(name: &str, pattern: &str, definition: Json) -> PolicySpec {
        let Json::Object(definition) = definition else { panic!("a definition is an object") };
        let (name, pattern) = (name.to_owned(), pattern.to_owned());
        PolicySpec { name, pattern, apply_to: ApplyTo::All, priority: 0, definition }
    }

    fn check_error(kind: PolicyKind, pattern: &str, definition: Json, expected: &str) {
        let error = Policy::new(kind, spec("p", pattern, definition), Origin::Runtime).unwrap_err();
        assert_eq!(error.validation_text(), format!("Validation failed\n\n{expected}\n"));
    }

    /// Semantics 23.7.
    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        use PolicyKind::{Operator, User};
        check_error(User, "", json!({}), "no policy provided");
        check_error(User, "", json!({"expires": 0}), "0 is not a valid queue expiry");
        check_error(User, "", json!({"message-ttl": "a"}), "<<\"a\">> is not a valid message TTL");
        check_error(User, "", json!({"foo": 1}), "[{<<\"foo\">>,1}] are not recognised policy settings");
        check_error(User, "", json!({"foo": 1, "overflow": "x"}), "<<\"x\">> is not a valid overflow value");
        check_error(
            User,
            "",
            json!({"ha-sync-mode": "manual", "max-length": 1, "ha-mode": "all"}),
            "[{<<\"ha-mode\">>,<<\"all\">>},{<<\"ha-sync-mode\">>,<<\"manual\">>}] are not recognised policy settings",
        );
        check_error(
            Operator,
            "",
            json!({"dead-letter-exchange": "x"}),
            "[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings",
        );
        let error = Policy::new(User, spec("p", "(", json!({"max-length": 1})), Origin::Runtime).unwrap_err();
        assert!(error.reason.starts_with("pattern should be regular expression but is invalid: "), "{error}");
        assert_eq!(error.part, "pattern");
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert!(Policy::new(User, spec("p", "", json!({"dead-letter-exchange": long})), Origin::Runtime).is_err());
        assert!(Policy::new(User, spec("", "", json!({"max-length": 1})), Origin::Runtime).is_err());
    }

    #[test]
    fn apply_to_goes_by_its_names() {
        for (name, value) in ApplyTo::NAMES {
            assert_eq!((value.name(), ApplyTo::parse(name)), (*name, Ok(*value)));
        }
        let error = ApplyTo::parse("nothing").unwrap_err();
        assert!(error.starts_with("apply-to 'nothing' unrecognised; should be one of: 'queues'"), "{error}");
    }

    /// Semantics 23.2.
    #[test]
    fn a_policy_with_a_key_that_a_type_does_not_know_does_not_match_its_queues() {
        let check = |definition: Json, expected: [bool; 3]| {
            let policy = Policy::new(PolicyKind::User, spec("p", "^q", definition), Origin::Runtime).unwrap();
            let matched =
                [QueueType::Classic, QueueType::Quorum, QueueType::Stream].map(|kind| policy.matches_queue("q1", kind));
            assert_eq!(matched, expected, "{:?}", policy.spec().definition);
            assert!(!policy.matches_queue("other", QueueType::Classic));
        };
        check(json!({"max-length-bytes": 1}), [true, true, true]);
        check(json!({"max-length": 1}), [true, true, false]);
        check(json!({"max-length": 1, "delivery-limit": 3}), [false, true, false]);
        check(json!({"max-age": "1D"}), [false, false, true]);
        check(json!({"queue-mode": "lazy", "max-length": 1}), [true, false, false]);
    }

    /// Semantics 23.1.
    #[test]
    fn what_it_is_for_and_an_unanchored_pattern_decide() {
        let check = |apply_to, expected: [bool; 3]| {
            let spec = PolicySpec { apply_to, ..spec("p", "rder", json!({"max-length": 1})) };
            let policy = Policy::new(PolicyKind::User, spec, Origin::Runtime).unwrap();
            let queue = |kind| policy.matches_queue("my-orders", kind);
            assert_eq!(
                [policy.matches_exchange("my-orders"), queue(QueueType::Classic), queue(QueueType::Quorum)],
                expected,
                "{apply_to:?}"
            );
        };
        check(ApplyTo::All, [true, true, true]);
        check(ApplyTo::Exchanges, [true, false, false]);
        check(ApplyTo::Queues, [false, true, true]);
        check(ApplyTo::ClassicQueues, [false, true, false]);
        check(ApplyTo::QuorumQueues, [false, false, true]);
        check(ApplyTo::Streams, [false, false, false]);
        let everything =
            Policy::new(PolicyKind::User, spec("p", "", json!({"max-length": 1})), Origin::Runtime).unwrap();
        assert!(everything.matches_exchange("") && everything.matches_queue("x", QueueType::Classic));
    }
}
