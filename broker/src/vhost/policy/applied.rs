//! Which policies there are, which of them applies, and what the two that apply say together (semantics 23.2 to 23.4).

use std::sync::Arc;

use plugin_api::value::Table;
use serde_json::{Map, Value as Json};

use super::QueuePolicy;
use super::keys::integer;
use super::spec::{Policy, PolicyKind, QueueType};
use crate::queue::Overflow;
use crate::vhost::json_table::table_from_json;

/// All policies of a vhost. Cheap to clone, so that it can be asked without a lock.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    user: Arc<Vec<Arc<Policy>>>,
    operator: Arc<Vec<Arc<Policy>>>,
}

/// The one policy and the one operator policy that a queue or exchange has, if any.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Of those who run applications.
    pub policy: Option<Arc<Policy>>,
    /// Of those who run the broker; exchanges have none.
    pub operator: Option<Arc<Policy>>,
}

impl Policies {
    /// Those of one kind, the first to apply first: by priority, and by name where that is equal.
    pub fn of_kind(&self, kind: PolicyKind) -> &[Arc<Policy>] {
        match kind {
            PolicyKind::User => &self.user,
            PolicyKind::Operator => &self.operator,
        }
    }

    /// The policy of that name.
    pub fn get(&self, kind: PolicyKind, name: &str) -> Option<&Arc<Policy>> {
        self.of_kind(kind).iter().find(|policy| policy.spec().name == name)
    }

    /// Adds a policy, or puts it in the place of the one of its name.
    pub(in crate::vhost) fn put(&mut self, kind: PolicyKind, policy: Arc<Policy>) {
        let list = self.list(kind);
        list.retain(|other| other.spec().name != policy.spec().name);
        list.push(policy);
        list.sort_by(|a, b| {
            let (a, b) = (a.spec(), b.spec());
            b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name))
        });
    }

    /// Removes a policy; false when there is none of that name.
    pub(in crate::vhost) fn remove(&mut self, kind: PolicyKind, name: &str) -> bool {
        let list = self.list(kind);
        let before = list.len();
        list.retain(|policy| policy.spec().name != name);
        list.len() != before
    }

    fn list(&mut self, kind: PolicyKind) -> &mut Vec<Arc<Policy>> {
        Arc::make_mut(match kind {
            PolicyKind::User => &mut self.user,
            PolicyKind::Operator => &mut self.operator,
        })
    }

    /// What applies to a queue.
    pub fn of_queue(&self, name: &str, kind: QueueType) -> Applied {
        let first = |list: &[Arc<Policy>]| list.iter().find(|policy| policy.matches_queue(name, kind)).cloned();
        Applied { policy: first(&self.user), operator: first(&self.operator) }
    }

    /// What applies to an exchange.
    pub fn of_exchange(&self, name: &str) -> Applied {
        let policy = self.user.iter().find(|policy| policy.matches_exchange(name)).cloned();
        Applied { policy, operator: None }
    }
}

impl Applied {
    /// Whether no policy applies.
    pub fn is_none(&self) -> bool {
        self.policy.is_none() && self.operator.is_none()
    }

    /// Whether the very same policies apply.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<Policy>>, b: &Option<Arc<Policy>>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same(&self.policy, &other.policy) && same(&self.operator, &other.operator)
    }

    /// Whether what applies says the same, be it a policy of an earlier change or not.
    pub fn says_same(&self, other: &Self) -> bool {
        let spec = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.spec().clone());
        self.is_same(other)
            || spec(&self.policy) == spec(&other.policy) && spec(&self.operator) == spec(&other.operator)
    }

    /// What both say together, as RabbitMQ's `effective_policy_definition`.
    pub fn effective(&self) -> Map<String, Json> {
        let mut merged = self.policy.as_ref().map(|policy| policy.spec().definition.clone()).unwrap_or_default();
        let of_operator = self.operator.iter().flat_map(|policy| &policy.spec().definition);
        for (key, value) in of_operator {
            let value = match merged.get(key) {
                Some(of_user) => merge(key, of_user, value),
                None => value.clone(),
            };
            merged.insert(key.clone(), value);
        }
        merged
    }

    /// The values for a queue.
    pub fn of_queue(&self) -> QueuePolicy {
        if self.is_none() {
            return QueuePolicy::default();
        }
        let effective = self.effective();
        let number = |key| effective.get(key).and_then(integer).and_then(|value| u64::try_from(value).ok());
        let text = |key| effective.get(key).and_then(Json::as_str);
        let clamped = |value: i128| i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX });
        QueuePolicy {
            message_ttl_ms: number("message-ttl"),
            expires_ms: number("expires"),
            max_length: number("max-length"),
            max_length_bytes: number("max-length-bytes"),
            overflow: text("overflow").and_then(Overflow::from_name),
            dead_letter_exchange: text("dead-letter-exchange").map(Arc::from),
            dead_letter_routing_key: text("dead-letter-routing-key").map(Arc::from),
            delivery_limit: effective.get("delivery-limit").and_then(integer).map(clamped),
            consumer_timeout_ms: number("consumer-timeout"),
        }
    }

    /// Where an exchange's unroutable messages go by policy (semantics 11.14).
    pub fn alternate_exchange(&self) -> Option<&str> {
        self.policy.as_ref()?.spec().definition.get("alternate-exchange")?.as_str()
    }

    /// The definition as exchange types are told of it.
    pub fn as_table(&self) -> Table {
        // Keys are those of a table of ours and values are no tables, so nothing of it is too long or too deep.
        table_from_json(&self.effective()).unwrap_or_default()
    }
}

/// One key that both have. For numbers the smaller one counts, for everything else what the operator says.
fn merge(key: &str, of_user: &Json, of_operator: &Json) -> Json {
    let (Some(user), Some(operator)) = (integer(of_user), integer(of_operator)) else { return of_operator.clone() };
    let is_users = match key {
        "queue-version" => false,
        // A negative one is no limit.
        "delivery-limit" if user < 0 || operator < 0 => user > operator,
        "target-group-size" => user > operator,
        _ => user < operator,
    };
    if is_users { of_user.clone() } else { of_operator.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spec::tests::spec;
    use super::super::spec::{ApplyTo, PolicySpec};
    use super::*;
    use crate::origin::Origin;

    fn policy(kind: PolicyKind, spec: PolicySpec) -> Arc<Policy> {
        Arc::new(Policy::new(kind, spec, Origin::Runtime).unwrap())
    }

    fn name(policy: &Option<Arc<Policy>>) -> Option<&str> {
        policy.as_ref().map(|policy| policy.spec().name.as_str())
    }

    /// Semantics 23.2.
    #[test]
    fn the_one_with_the_highest_priority_applies_and_no_other() {
        let mut policies = Policies::default();
        let mut put = |name: &str, pattern: &str, priority, definition: Json| {
            let spec = PolicySpec { priority, ..spec(name, pattern, definition) };
            policies.put(PolicyKind::User, policy(PolicyKind::User, spec));
        };
        put("low", "", -1, json!({"max-length": 1}));
        put("b", "^q", 5, json!({"max-length": 2}));
        put("a", "^q", 5, json!({"expires": 3}));
        put("quorum", "^q", 9, json!({"delivery-limit": 3}));
        let applied = policies.of_queue("q1", QueueType::Classic);
        assert_eq!((name(&applied.policy), name(&applied.operator)), (Some("a"), None));
        assert_eq!(applied.effective(), *json!({"expires": 3}).as_object().unwrap());
        assert_eq!(name(&policies.of_queue("q1", QueueType::Quorum).policy), Some("quorum"));
        assert_eq!(name(&policies.of_queue("other", QueueType::Classic).policy), Some("low"));
        assert!(policies.remove(PolicyKind::User, "low") && !policies.remove(PolicyKind::User, "low"));
        assert!(policies.of_queue("other", QueueType::Classic).is_none());
        let replaced = PolicySpec { priority: 6, ..spec("b", "^q", json!({"max-length": 7})) };
        policies.put(PolicyKind::User, policy(PolicyKind::User, replaced));
        assert_eq!(policies.of_queue("q1", QueueType::Classic).of_queue().max_length, Some(7));
        assert_eq!(policies.of_kind(PolicyKind::User).len(), 3);
    }

    /// Semantics 23.4.
    #[test]
    fn the_operators_policy_is_merged_into_the_users() {
        let check = |of_user: Json, of_operator: Json, expected: Json| {
            let applied = Applied {
                policy: Some(policy(PolicyKind::User, spec("p", "", of_user))),
                operator: Some(policy(PolicyKind::Operator, spec("o", "", of_operator))),
            };
            assert_eq!(Json::Object(applied.effective()), expected);
        };
        check(json!({"max-length": 5}), json!({"max-length": 7}), json!({"max-length": 5}));
        check(json!({"max-length": 9}), json!({"max-length": 7}), json!({"max-length": 7}));
        check(
            json!({"overflow": "drop-head", "dead-letter-exchange": "x"}),
            json!({"overflow": "reject-publish", "expires": 5}),
            json!({"overflow": "reject-publish", "dead-letter-exchange": "x", "expires": 5}),
        );
        check(json!({"delivery-limit": 5}), json!({"delivery-limit": 3}), json!({"delivery-limit": 3}));
        check(json!({"delivery-limit": -1}), json!({"delivery-limit": 3}), json!({"delivery-limit": 3}));
        check(json!({"delivery-limit": 5}), json!({"delivery-limit": -1}), json!({"delivery-limit": 5}));
        check(json!({"queue-version": 1}), json!({"queue-version": 2}), json!({"queue-version": 2}));
    }

    /// Semantics 23.6.
    #[test]
    fn queues_and_exchanges_get_their_values() {
        let definition = json!({
            "message-ttl": 1, "expires": 2, "max-length": 3, "max-length-bytes": 4, "overflow": "reject-publish",
            "dead-letter-exchange": "dlx", "dead-letter-routing-key": "key", "delivery-limit": -1, "consumer-timeout": 5,
            "alternate-exchange": "ae",
        });
        let applied = Applied { policy: Some(policy(PolicyKind::User, spec("p", "", definition))), operator: None };
        let expected = QueuePolicy {
            message_ttl_ms: Some(1),
            expires_ms: Some(2),
            max_length: Some(3),
            max_length_bytes: Some(4),
            overflow: Some(Overflow::RejectPublish),
            dead_letter_exchange: Some("dlx".into()),
            dead_letter_routing_key: Some("key".into()),
            delivery_limit: Some(-1),
            consumer_timeout_ms: Some(5),
        };
        assert_eq!(applied.of_queue(), expected);
        assert_eq!(applied.alternate_exchange(), Some("ae"));
        assert_eq!(applied.as_table().get("max-length").and_then(|value| value.as_i64()), Some(3));
        assert_eq!(Applied::default().of_queue(), QueuePolicy::default());
    }

    /// Semantics 23.3.
    #[test]
    fn operator_policies_are_for_queues_alone() {
        let mut policies = Policies::default();
        let spec = PolicySpec { apply_to: ApplyTo::All, ..spec("o", "", json!({"max-length": 1})) };
        policies.put(PolicyKind::Operator, policy(PolicyKind::Operator, spec));
        assert!(policies.of_exchange("x").is_none());
        assert_eq!(name(&policies.of_queue("q", QueueType::Classic).operator), Some("o"));
    }
}
