//! Vhosts and what they are set to, in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Entry, OTHER_PARTS, VhostDefinitions, json, key, parse};
use crate::vhost::Change;
use crate::vhost::policy::{ApplyTo, PolicyKind, PolicySpec, QueueType};
use crate::vhost::settings::{VhostLimits, VhostMetadata};

/// The first part of a key.
mod kind {
    pub(super) const VHOST: &str = "vhost";
    pub(super) const LIMITS: &str = "limits";
    pub(super) const POLICY: &str = "policy";
    pub(super) const OPERATOR_POLICY: &str = "operator-policy";
    pub(super) const PARAMETER: &str = "parameter";
}

#[derive(Serialize, Deserialize)]
struct VhostValue {
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    default_queue_type: Option<String>,
    #[serde(default)]
    protected_from_deletion: bool,
}

#[derive(Serialize, Deserialize)]
struct LimitsValue {
    max_connections: Option<i64>,
    max_queues: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct PolicyValue {
    pattern: String,
    apply_to: String,
    priority: i64,
    definition: Map<String, Json>,
}

/// What a change of a vhost's settings means for the store; other changes are none of ours and mean that the vhost is gone.
pub(super) fn entry(vhost: &str, change: &Change) -> Entry {
    match change {
        Change::VhostPut(metadata) => {
            let VhostMetadata { description, tags, default_queue_type, protected_from_deletion } = metadata.clone();
            let default_queue_type = default_queue_type.map(|kind| kind.name().to_owned());
            let value = VhostValue { description, tags, default_queue_type, protected_from_deletion };
            (key(&[kind::VHOST, vhost]), Some(json(&value)))
        }
        Change::LimitsPut(limits) => {
            let value = limits
                .map(|VhostLimits { max_connections, max_queues }| json(&LimitsValue { max_connections, max_queues }));
            (key(&[kind::LIMITS, vhost]), value)
        }
        Change::PolicyPut(kind, policy) => {
            let PolicySpec { name, pattern, apply_to, priority, definition } = policy.spec().clone();
            let value = PolicyValue { pattern, apply_to: apply_to.name().to_owned(), priority, definition };
            (key(&[policy_kind(*kind), vhost, &name]), Some(json(&value)))
        }
        Change::PolicyRemoved(kind, name) => (key(&[policy_kind(*kind), vhost, name]), None),
        Change::ParameterPut((component, name), value) => {
            (key(&[kind::PARAMETER, vhost, component, name]), value.as_ref().map(json))
        }
        _ => (key(&[kind::VHOST, vhost]), None),
    }
}

fn policy_kind(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::User => kind::POLICY,
        PolicyKind::Operator => kind::OPERATOR_POLICY,
    }
}

/// Reads an entry; false when it is of another kind.
pub(super) fn read(
    parts: &[&str],
    value: &[u8],
    vhosts: &mut BTreeMap<String, VhostDefinitions>,
) -> Result<bool, String> {
    match *parts {
        [kind::VHOST, name] => {
            let VhostValue { description, tags, default_queue_type, protected_from_deletion } = parse(value)?;
            let default_queue_type = default_queue_type
                .map(|name| QueueType::parse_default(&name))
                .transpose()
                .map_err(|error| error.to_string())?;
            let metadata = VhostMetadata { description, tags, default_queue_type, protected_from_deletion };
            definitions_of(vhosts, name).metadata = Some(metadata);
        }
        [kind::LIMITS, name] => {
            let LimitsValue { max_connections, max_queues } = parse(value)?;
            definitions_of(vhosts, name).limits = Some(VhostLimits { max_connections, max_queues });
        }
        [kind @ (kind::POLICY | kind::OPERATOR_POLICY), of, name] => {
            let PolicyValue { pattern, apply_to, priority, definition } = parse(value)?;
            let apply_to = ApplyTo::parse(&apply_to)?;
            let kind = if kind == kind::POLICY { PolicyKind::User } else { PolicyKind::Operator };
            definitions_of(vhosts, of)
                .policies
                .push((kind, PolicySpec { name: name.into(), pattern, apply_to, priority, definition }));
        }
        [kind::PARAMETER, of, component, name] => {
            definitions_of(vhosts, of).parameters.push(((component.into(), name.into()), parse(value)?));
        }
        [kind::VHOST | kind::LIMITS | kind::POLICY | kind::OPERATOR_POLICY | kind::PARAMETER, ..] => {
            return Err(OTHER_PARTS.into());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn definitions_of<'a>(vhosts: &'a mut BTreeMap<String, VhostDefinitions>, name: &str) -> &'a mut VhostDefinitions {
    vhosts.entry(name.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::read;
    use super::*;
    use crate::origin::Origin;
    use crate::vhost::policy::Policy;

    /// Semantics 27.1.
    #[test]
    fn settings_come_back_as_they_were() {
        let Json::Object(definition) = json!({"max-length": 7, "overflow": "reject-publish"}) else { unreachable!() };
        let spec = PolicySpec {
            name: "p".into(),
            pattern: "^q".into(),
            apply_to: ApplyTo::QuorumQueues,
            priority: -3,
            definition,
        };
        let Json::Object(definition) = json!({"expires": 7}) else { unreachable!() };
        let operator = PolicySpec { name: "p".into(), definition, ..spec.clone() };
        let policy = |kind, spec: &PolicySpec| {
            Change::PolicyPut(kind, Arc::new(Policy::new(kind, spec.clone(), Origin::Runtime).unwrap()))
        };
        let metadata = VhostMetadata {
            description: "orders".into(),
            tags: vec!["a".into()],
            default_queue_type: Some(QueueType::Quorum),
            protected_from_deletion: true,
        };
        let limits = VhostLimits { max_connections: Some(-1), max_queues: None };
        let parameter = (("shovel".into(), "s".into()), json!({"src-uri": "amqp://"}));
        let changes = [
            Change::VhostPut(metadata.clone()),
            Change::LimitsPut(Some(limits)),
            policy(PolicyKind::User, &spec),
            policy(PolicyKind::Operator, &operator),
            Change::ParameterPut(parameter.0.clone(), Some(parameter.1.clone())),
        ];
        let meta: Vec<_> = changes.iter().map(|change| entry("v", change)).collect();
        let stored: Vec<_> = meta.iter().map(|(key, value)| (key.clone(), value.clone().unwrap())).collect();
        let expected = VhostDefinitions {
            metadata: Some(metadata),
            limits: Some(limits),
            policies: vec![(PolicyKind::User, spec), (PolicyKind::Operator, operator)],
            parameters: vec![parameter.clone()],
            ..VhostDefinitions::default()
        };
        assert_eq!(read(&stored).unwrap().vhosts, BTreeMap::from([("v".into(), expected)]));
        let removed = [
            Change::VhostRemoved,
            Change::LimitsPut(None),
            Change::PolicyRemoved(PolicyKind::User, "p".into()),
            Change::PolicyRemoved(PolicyKind::Operator, "p".into()),
            Change::ParameterPut(parameter.0, None),
        ];
        let keys: Vec<_> = removed.iter().map(|change| entry("v", change)).collect();
        assert_eq!(keys, meta.into_iter().map(|(key, _)| (key, None)).collect::<Vec<_>>());
    }
}
