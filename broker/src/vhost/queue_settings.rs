//! A queue's declaration and the policies that match it, resolved to what its machine and its dead letters need (semantics 23.5).

use std::sync::Arc;

use plugin_api::value::{Table, Value};

use super::policy::QueuePolicy;
use super::queue_arguments;
use crate::queue::{Durability, Options, Overflow, Priorities};

/// Where messages go that die in a queue (semantics 20.2, 20.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTarget {
    /// Empty is the default exchange.
    pub exchange: Arc<str>,
    /// Instead of the message's own keys.
    pub routing_key: Option<Arc<str>>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// For the machine.
    pub options: Options,
    /// For what dies in it.
    pub dead_letter: Option<DeadLetterTarget>,
}

/// What a queue was declared with, as far as settings follow from it.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// Survives a restart.
    pub durable: bool,
    /// Ends with its last consumer.
    pub auto_delete: bool,
    /// As sent.
    pub arguments: &'a Table,
}

impl QueueSettings {
    /// Puts arguments and policy together: for limits and times the smaller one counts, for the dead-letter target and the overflow the
    /// argument. `of_vhost` is the durability of queues that were declared without one. Arguments that no declaration could have
    /// had are left out.
    pub fn resolve(declared: Declared<'_>, policy: &QueuePolicy, of_vhost: Durability) -> Self {
        let arguments = declared.arguments;
        let number = |name| arguments.get(name).and_then(Value::as_i64).and_then(|value| u64::try_from(value).ok());
        let text = |name| arguments.get(name).and_then(Value::as_str);
        let least = |name, of_policy: Option<u64>| number(name).into_iter().chain(of_policy).min();
        let shared = |name| text(name).map(Arc::from);
        let exchange = shared("x-dead-letter-exchange").or_else(|| policy.dead_letter_exchange.clone());
        let routing_key = shared("x-dead-letter-routing-key").or_else(|| policy.dead_letter_routing_key.clone());
        let dead_letter = exchange.map(|exchange| DeadLetterTarget { exchange, routing_key });
        let limit = arguments.get("x-delivery-limit").and_then(Value::as_i64);
        let is_quorum = text("x-queue-type") == Some("quorum");
        let is_unlimited_by_default = !is_quorum || limit.or(policy.delivery_limit).is_some();
        let default_limit = (!is_unlimited_by_default).then_some(DELIVERY_LIMIT_OF_QUORUM);
        // A negative one is no limit (semantics 30.2).
        let limits = limit.into_iter().chain(policy.delivery_limit).chain(default_limit).filter(|limit| *limit >= 0);
        let delivery_limit = limits.min().map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let options = Options {
            durable: declared.durable,
            auto_delete: declared.auto_delete,
            durability: queue_arguments::durability(arguments, of_vhost),
            message_ttl_ms: least("x-message-ttl", policy.message_ttl_ms),
            expires_ms: least("x-expires", policy.expires_ms),
            max_length: least("x-max-length", policy.max_length),
            max_length_bytes: least("x-max-length-bytes", policy.max_length_bytes),
            overflow: text("x-overflow").and_then(Overflow::from_name).or(policy.overflow).unwrap_or_default(),
            dead_letters: dead_letter.is_some(),
            delivery_limit,
            is_quorum,
            counts_deliveries: is_quorum || delivery_limit.is_some(),
            priorities: if is_quorum { Some(PRIORITIES_OF_QUORUM) } else { number("x-max-priority").map(levels) },
            single_active_consumer: matches!(arguments.get("x-single-active-consumer"), Some(Value::Bool(true))),
            consumer_timeout_ms: least("x-consumer-timeout", policy.consumer_timeout_ms).filter(|ms| *ms > 0),
        };
        Self { options, dead_letter }
    }
}

/// Of quorum queues that were declared without one (semantics 31.20).
const DELIVERY_LIMIT_OF_QUORUM: i64 = 20;
/// Every quorum queue has these (semantics 21.5).
const PRIORITIES_OF_QUORUM: Priorities = Priorities { max: 31, default: 4 };

/// 0 levels beside 0 are one (semantics 9.13.4).
fn levels(max: u64) -> Priorities {
    Priorities { max: u8::try_from(max.max(1)).unwrap_or(u8::MAX), default: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &Table, policy: &QueuePolicy) -> QueueSettings {
        QueueSettings::resolve(Declared { durable: true, auto_delete: false, arguments }, policy, Durability::Synced)
    }

    #[test]
    fn the_smaller_of_argument_and_policy_counts_and_for_targets_the_argument() {
        let arguments = Table::new()
            .with("x-message-ttl", 500i64)
            .with("x-max-length", Value::I8(9))
            .with("x-dead-letter-exchange", "mine")
            .with("x-overflow", "reject-publish");
        let policy = QueuePolicy {
            message_ttl_ms: Some(700),
            max_length: Some(3),
            expires_ms: Some(1000),
            overflow: Some(Overflow::DropHead),
            dead_letter_exchange: Some("theirs".into()),
            dead_letter_routing_key: Some("key".into()),
            ..QueuePolicy::default()
        };
        let QueueSettings { options, dead_letter } = resolve(&arguments, &policy);
        assert_eq!((options.message_ttl_ms, options.max_length, options.expires_ms), (Some(500), Some(3), Some(1000)));
        assert_eq!((options.overflow, options.dead_letters), (Overflow::RejectPublish, true));
        let target = DeadLetterTarget { exchange: "mine".into(), routing_key: Some("key".into()) };
        assert_eq!(dead_letter, Some(target));
    }

    #[test]
    fn a_routing_key_without_an_exchange_leads_nowhere_and_a_negative_limit_is_none() {
        let arguments = Table::new().with("x-delivery-limit", -1i64);
        let policy = QueuePolicy { dead_letter_routing_key: Some("key".into()), ..QueuePolicy::default() };
        let QueueSettings { options, dead_letter } = resolve(&arguments, &policy);
        assert_eq!((dead_letter, options.dead_letters, options.delivery_limit), (None, false, None));
    }
    /// Semantics 21.5, 31.20.
    #[test]
    fn quorum_queues_have_a_delivery_limit_and_levels_by_themselves_and_classic_ones_have_not() {
        let of = |arguments: &Table, limit| {
            let policy = QueuePolicy { delivery_limit: limit, ..QueuePolicy::default() };
            let Options { delivery_limit, priorities, .. } = resolve(arguments, &policy).options;
            (delivery_limit, priorities)
        };
        let quorum = Table::new().with("x-queue-type", "quorum");
        let levels = Some(Priorities { max: 31, default: 4 });
        assert_eq!(of(&quorum, None), (Some(20), levels));
        assert_eq!(of(&quorum, Some(-1)), (None, levels), "a policy takes it away");
        assert_eq!(of(&quorum, Some(50)), (Some(50), levels));
        assert_eq!(of(&Table::new(), None), (None, None));
    }

    /// Semantics 31.9.
    #[test]
    fn nothing_times_out_unless_argument_or_policy_say_so() {
        let of = |arguments: &Table, timeout| {
            let policy = QueuePolicy { consumer_timeout_ms: timeout, ..QueuePolicy::default() };
            resolve(arguments, &policy).options.consumer_timeout_ms
        };
        let argument = Table::new().with("x-consumer-timeout", 5000i64);
        assert_eq!((of(&Table::new(), None), of(&Table::new(), Some(7))), (None, Some(7)));
        assert_eq!(
            (of(&argument, None), of(&argument, Some(7)), of(&argument, Some(9000))),
            (Some(5000), Some(7), Some(5000))
        );
    }
}
