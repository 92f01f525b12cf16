//! Which declaration arguments of queues this version knows, as one table.
//!
//! An argument that RabbitMQ gives a meaning and this version does not yet have is refused, never ignored: a queue without
//! its length limit or its dead-letter exchange is not the queue that was asked for. Arguments that no queue type knows are
//! accepted and kept, as RabbitMQ does.

use plugin_api::value::{Table, Value};

use crate::queue::Durability;

/// What the broker does about a queue argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Accepted without effect, as in RabbitMQ.
    NoEffect,
    /// Only the given long string is accepted.
    Only(&'static str),
    /// One of these long strings.
    OneOf(&'static [&'static str]),
    /// A number of any integer type, at least 0 and at most this (semantics 9.13).
    UpTo(i64),
    /// True or false.
    Bool,
    /// Has a meaning that this version does not have yet.
    NotYet,
    /// Belongs to another queue type than `classic`.
    OtherType(&'static str),
}

/// Why a queue argument is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// RabbitMQ has it, this version does not.
    #[error("queue argument '{0}' is not supported by this version")]
    NotSupported(&'static str),
    /// A value that RabbitMQ accepts and this version does not.
    #[error("queue argument '{0}' with value {1} is not supported by this version")]
    ValueNotSupported(&'static str, String),
    /// A value that the argument does not have.
    #[error("queue argument '{0}' with value {1} is not one of {names}", names = .2.join(", "))]
    NotOneOf(&'static str, String, &'static [&'static str]),
    /// Of a type that the argument does not have, in the words of the wire.
    #[error("queue argument '{0}' cannot be of type {1}")]
    WrongType(&'static str, &'static str),
    /// Of a type that is no integer, in the words of the wire.
    #[error("queue argument '{0}' is a number, and cannot be of type {1}")]
    NotAnInteger(&'static str, &'static str),
    /// A number below 0.
    #[error("queue argument '{0}' with value {1} is below 0")]
    Negative(&'static str, i64),
    /// A number beyond the argument's maximum.
    #[error("queue argument '{0}' with value {1} is above {2}")]
    TooLarge(&'static str, i64, i64),
    /// Meaningless for a classic queue.
    #[error("queue argument '{0}' belongs to queues of type {1}, which are not supported by this version")]
    OtherType(&'static str, &'static str),
}

/// Our own argument: what the queue's confirms wait for, see [`Durability`]. Without it the queue follows its vhost.
pub const DURABILITY: &str = "x-durability";

/// RabbitMQ's queue arguments (pages "Queues", "Quorum Queues", "Streams") and our own, each with what this version does about it.
pub const QUEUE_ARGUMENTS: &[(&str, Support)] = &[
    ("x-consumer-timeout", Support::NotYet),
    ("x-dead-letter-exchange", Support::NotYet),
    ("x-dead-letter-routing-key", Support::NotYet),
    ("x-dead-letter-strategy", Support::OtherType("quorum")),
    ("x-delivery-limit", Support::OtherType("quorum")),
    (DURABILITY, Support::OneOf(Durability::NAMES)),
    ("x-expires", Support::NotYet),
    ("x-initial-cluster-size", Support::OtherType("stream")),
    ("x-max-age", Support::OtherType("stream")),
    ("x-max-in-memory-bytes", Support::OtherType("quorum")),
    ("x-max-in-memory-length", Support::OtherType("quorum")),
    ("x-max-length", Support::NotYet),
    ("x-max-length-bytes", Support::NotYet),
    ("x-max-priority", Support::UpTo(255)),
    ("x-message-ttl", Support::NotYet),
    ("x-overflow", Support::NotYet),
    ("x-queue-leader-locator", Support::NoEffect),
    ("x-queue-master-locator", Support::NoEffect),
    ("x-queue-mode", Support::NoEffect),
    ("x-queue-type", Support::Only("classic")),
    ("x-queue-version", Support::NoEffect),
    ("x-quorum-initial-group-size", Support::OtherType("quorum")),
    ("x-single-active-consumer", Support::Bool),
    ("x-stream-filter-size-bytes", Support::OtherType("stream")),
    ("x-stream-max-segment-size-bytes", Support::OtherType("stream")),
];

/// Judges one argument of a queue by its name and value.
///
/// # Errors
/// [`ArgumentError`] for one that would have to do something which this version does not do.
pub fn check_queue_argument(name: &str, value: &Value) -> Result<(), ArgumentError> {
    let Some((name, support)) = QUEUE_ARGUMENTS.iter().find(|(known, _)| *known == name) else { return Ok(()) };
    match support {
        Support::NoEffect => Ok(()),
        Support::Only(only) if value.as_str() == Some(only) => Ok(()),
        Support::Only(_) => Err(ArgumentError::ValueNotSupported(name, shown(value))),
        Support::OneOf(names) if value.as_str().is_some_and(|value| names.contains(&value)) => Ok(()),
        Support::OneOf(names) => Err(ArgumentError::NotOneOf(name, shown(value), names)),
        Support::UpTo(max) => match value.as_i64() {
            None => Err(ArgumentError::NotAnInteger(name, value.type_name())),
            Some(number) if number < 0 => Err(ArgumentError::Negative(name, number)),
            Some(number) if number > *max => Err(ArgumentError::TooLarge(name, number, *max)),
            Some(_) => Ok(()),
        },
        Support::Bool if matches!(value, Value::Bool(_)) => Ok(()),
        Support::Bool => Err(ArgumentError::WrongType(name, value.type_name())),
        Support::NotYet => Err(ArgumentError::NotSupported(name)),
        Support::OtherType(kind) => Err(ArgumentError::OtherType(name, kind)),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("of type {}", value.type_name()), |text| format!("'{text}'"))
}

/// What the confirms of a queue with these arguments wait for, where its vhost has `of_vhost`. A value that no declaration could have
/// had is taken for the safe one.
pub fn durability(arguments: &Table, of_vhost: Durability) -> Durability {
    match arguments.get(DURABILITY) {
        None => of_vhost,
        Some(value) => value.as_str().and_then(Durability::from_name).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_with_a_missing_meaning_are_refused() {
        let check = |name: &str, value: Value, expected: Option<&str>| {
            let error = check_queue_argument(name, &value).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected, "{name}");
        };
        check("x-queue-type", Value::from("classic"), None);
        check("x-queue-mode", Value::from("lazy"), None);
        check("x-custom", Value::from(1i64), None);
        check("note", Value::Void, None);
        check(
            "x-queue-type",
            Value::from("quorum"),
            Some("queue argument 'x-queue-type' with value 'quorum' is not supported by this version"),
        );
        check(
            "x-queue-type",
            Value::from(1i64),
            Some("queue argument 'x-queue-type' with value of type long is not supported by this version"),
        );
        check(
            "x-max-age",
            Value::from("1h"),
            Some(
                "queue argument 'x-max-age' belongs to queues of type stream, which are not supported by this version",
            ),
        );
        check("x-max-priority", Value::I8(0), None);
        check("x-max-priority", Value::from(255i64), None);
        check(
            "x-max-priority",
            Value::from(256i64),
            Some("queue argument 'x-max-priority' with value 256 is above 255"),
        );
        check("x-max-priority", Value::from(-1i64), Some("queue argument 'x-max-priority' with value -1 is below 0"));
        check(
            "x-max-priority",
            Value::from("5"),
            Some("queue argument 'x-max-priority' is a number, and cannot be of type longstr"),
        );
        check("x-single-active-consumer", Value::Bool(false), None);
        check(
            "x-single-active-consumer",
            Value::from("true"),
            Some("queue argument 'x-single-active-consumer' cannot be of type longstr"),
        );
        check("x-durability", Value::from("os"), None);
        check("x-durability", Value::from("synced"), None);
        check(
            "x-durability",
            Value::from("fast"),
            Some("queue argument 'x-durability' with value 'fast' is not one of synced, os"),
        );
        check(
            "x-durability",
            Value::Bool(true),
            Some("queue argument 'x-durability' with value of type bool is not one of synced, os"),
        );
        for name in [
            "x-message-ttl",
            "x-expires",
            "x-max-length",
            "x-max-length-bytes",
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-overflow",
        ] {
            check(name, Value::from(1i64), Some(&format!("queue argument '{name}' is not supported by this version")));
        }
    }

    #[test]
    fn durability_is_the_argument_or_that_of_the_vhost() {
        let check = |arguments: &Table, of_vhost, expected| assert_eq!(durability(arguments, of_vhost), expected);
        check(&Table::new(), Durability::Os, Durability::Os);
        check(&Table::new(), Durability::Synced, Durability::Synced);
        check(&Table::new().with(DURABILITY, "synced"), Durability::Os, Durability::Synced);
        check(&Table::new().with(DURABILITY, "os"), Durability::Synced, Durability::Os);
        check(&Table::new().with(DURABILITY, "of a later version"), Durability::Os, Durability::Synced);
    }

    #[test]
    fn table_is_in_name_order_without_duplicates() {
        assert!(QUEUE_ARGUMENTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
