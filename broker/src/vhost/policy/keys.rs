//! The keys that a policy's definition may have, as one table: who may set them, which queues they are for, and which values they take
//! (semantics 23.2, 23.3, 23.6, 23.7).
//!
//! Keys of features that belong to clusters, streams and federation are known, so that definitions of a RabbitMQ can be taken over; here they
//! have no effect. They still decide which queues a policy matches. Keys of mirrored queues (`ha-…`), which RabbitMQ has given up, are unknown.

use serde_json::Value as Json;

use super::spec::QueueType::{self, Classic, Quorum, Stream};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As people write it.
    pub name: &'static str,
    /// Behind the value in the text of a refusal.
    pub complaint: &'static str,
    /// Whether a value will do.
    pub accepts: fn(&Json) -> bool,
    /// Types of queues that know nothing of it: a policy with this key does not match them.
    pub unknown_to: &'static [QueueType],
    /// Whether operator policies may have it.
    pub for_operators: bool,
    /// What it does here.
    pub effect: Effect,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it does in RabbitMQ.
    Works,
    /// Nothing; it is known to take over what a RabbitMQ has.
    Nothing,
}

/// RabbitMQ's upper bound for a segment of a stream.
const STREAM_SEGMENT_BYTES_MAX: i128 = 3_000_000_000;

const fn key(name: &'static str, complaint: &'static str, accepts: fn(&Json) -> bool) -> Key {
    Key { name, complaint, accepts, unknown_to: &[], for_operators: false, effect: Effect::Works }
}

const fn without_effect(name: &'static str, complaint: &'static str, accepts: fn(&Json) -> bool) -> Key {
    Key { effect: Effect::Nothing, ..key(name, complaint, accepts) }
}

impl Key {
    const fn for_operators(self) -> Self {
        Self { for_operators: true, ..self }
    }

    const fn unknown_to(self, unknown_to: &'static [QueueType]) -> Self {
        Self { unknown_to, ..self }
    }
}

/// All keys, in the order of their names.
pub const KEYS: &[Key] = &[
    key("alternate-exchange", "is not a valid alternate exchange name", Json::is_string),
    key("consumer-timeout", "is not a valid consumer timeout", at_least_0),
    key("dead-letter-exchange", "is not a valid dead letter exchange name", Json::is_string).unknown_to(&[Stream]),
    key("dead-letter-routing-key", "is not a valid dead letter routing key", Json::is_string).unknown_to(&[Stream]),
    without_effect("dead-letter-strategy", "is not a valid dead letter strategy", |value| {
        one_of(value, &["at-most-once", "at-least-once"])
    })
    .unknown_to(&[Classic, Stream]),
    key("delivery-limit", "is not a valid delivery limit", |value| integer(value).is_some())
        .unknown_to(&[Classic, Stream])
        .for_operators(),
    key("expires", "is not a valid queue expiry", |value| integer(value).is_some_and(|value| value >= 1))
        .unknown_to(&[Stream])
        .for_operators(),
    without_effect("federation-upstream", "is not a valid federation upstream name", Json::is_string),
    without_effect("federation-upstream-pattern", "is not a valid federation upstream pattern", Json::is_string),
    without_effect("federation-upstream-set", "is not a valid federation upstream set name", Json::is_string),
    without_effect("initial-cluster-size", "is not a valid cluster size", at_least_0).unknown_to(&[Classic, Quorum]),
    without_effect("max-age", "is not a valid max age", |value| value.as_str().is_some_and(is_age))
        .unknown_to(&[Classic, Quorum]),
    without_effect("max-in-memory-bytes", "is not a valid maximum memory in bytes", at_least_0)
        .unknown_to(&[Classic, Stream])
        .for_operators(),
    without_effect("max-in-memory-length", "is not a valid maximum memory in bytes", at_least_0)
        .unknown_to(&[Classic, Stream])
        .for_operators(),
    key("max-length", "is not a valid maximum length", at_least_0).unknown_to(&[Stream]).for_operators(),
    key("max-length-bytes", "is not a valid maximum length in bytes", at_least_0).for_operators(),
    key("message-ttl", "is not a valid message TTL", at_least_0).unknown_to(&[Stream]).for_operators(),
    key("overflow", "is not a valid overflow value", |value| one_of(value, crate::queue::Overflow::NAMES))
        .unknown_to(&[Stream])
        .for_operators(),
    without_effect("queue-leader-locator", "is not a valid queue leader locator value", |value| {
        one_of(value, &["client-local", "balanced", "random", "least-leaders"])
    }),
    without_effect("queue-master-locator", "is not a valid master locator", |value| {
        one_of(value, &["client-local", "min-masters", "random"])
    })
    .unknown_to(&[Quorum, Stream])
    .for_operators(),
    without_effect("queue-mode", "is not a valid queue-mode value", |value| one_of(value, &["default", "lazy"]))
        .unknown_to(&[Quorum, Stream]),
    without_effect("queue-version", "is not a valid queue-version value", |value| {
        matches!(integer(value), Some(1 | 2))
    })
    .for_operators(),
    without_effect("stream-filter-size-bytes", "is not a valid filter size. Valid range is 16-255", |value| {
        integer(value).is_some_and(|value| (16..=255).contains(&value))
    }),
    without_effect("stream-max-segment-size-bytes", "is not a valid segment size", |value| {
        integer(value).is_some_and(|value| (0..=STREAM_SEGMENT_BYTES_MAX).contains(&value))
    })
    .unknown_to(&[Classic, Quorum]),
    without_effect("target-group-size", "is not a valid qq target count value", |value| {
        integer(value).is_some_and(|value| value > 0)
    })
    .unknown_to(&[Classic, Stream])
    .for_operators(),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().and_then(|at| KEYS.get(at))
}

/// A whole number of any size that JSON libraries keep whole.
pub(super) fn integer(value: &Json) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

fn at_least_0(value: &Json) -> bool {
    integer(value).is_some_and(|value| value >= 0)
}

fn one_of(value: &Json, names: &[&str]) -> bool {
    value.as_str().is_some_and(|value| names.contains(&value))
}

/// `<n>(Y|M|D|h|m|s)` (semantics 9.13.7).
fn is_age(text: &str) -> bool {
    text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's'])
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table_is_in_name_order() {
        assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(KEYS.iter().all(|key| find(key.name).is_some_and(|found| found.name == key.name)));
        assert!(find("ha-mode").is_none());
    }

    /// Semantics 23.7.
    #[test]
    fn values_are_judged_by_their_key() {
        let check = |name: &str, good: &[Json], bad: &[Json]| {
            let key = find(name).unwrap();
            assert!(good.iter().all(|value| (key.accepts)(value)), "{name}");
            assert!(!bad.iter().any(|value| (key.accepts)(value)), "{name}");
        };
        check("message-ttl", &[json!(0), json!(u64::MAX)], &[json!(-1), json!(1.0), json!("1"), json!(null)]);
        check("expires", &[json!(1)], &[json!(0), json!(-5), json!(true)]);
        check("max-length", &[json!(0)], &[json!(-1), json!([1])]);
        check("delivery-limit", &[json!(-1), json!(5)], &[json!("5"), json!(0.5)]);
        check("overflow", &[json!("drop-head"), json!("reject-publish-dlx")], &[json!("drop"), json!(1)]);
        check("dead-letter-exchange", &[json!("")], &[json!(1)]);
        check("max-age", &[json!("7D"), json!("10s")], &[json!("D"), json!("7"), json!("7d"), json!(7)]);
        check("stream-max-segment-size-bytes", &[json!(3_000_000_000_u64)], &[json!(3_000_000_001_u64)]);
        check("queue-version", &[json!(1), json!(2)], &[json!(3)]);
    }
}
