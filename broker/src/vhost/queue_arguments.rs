//! Which declaration arguments of queues and exchanges this version knows, as one table.
//!
//! An argument that RabbitMQ gives a meaning and this version does not yet have is refused, never ignored: a queue without
//! its length limit or its dead-letter exchange is not the queue that was asked for. Arguments that no queue type knows are
//! accepted and kept, as RabbitMQ does.

use plugin_api::value::Value;

/// What the broker does about a queue argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Accepted without effect, as in RabbitMQ.
    NoEffect,
    /// Only the given long string is accepted.
    Only(&'static str),
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
    /// Meaningless for a classic queue.
    #[error("queue argument '{0}' belongs to queues of type {1}, which are not supported by this version")]
    OtherType(&'static str, &'static str),
}

/// RabbitMQ's queue arguments (pages "Queues", "Quorum Queues", "Streams"), each with what this version does about it.
pub const QUEUE_ARGUMENTS: &[(&str, Support)] = &[
    ("x-consumer-timeout", Support::NotYet),
    ("x-dead-letter-exchange", Support::NotYet),
    ("x-dead-letter-routing-key", Support::NotYet),
    ("x-dead-letter-strategy", Support::OtherType("quorum")),
    ("x-delivery-limit", Support::OtherType("quorum")),
    ("x-expires", Support::NotYet),
    ("x-initial-cluster-size", Support::OtherType("stream")),
    ("x-max-age", Support::OtherType("stream")),
    ("x-max-in-memory-bytes", Support::OtherType("quorum")),
    ("x-max-in-memory-length", Support::OtherType("quorum")),
    ("x-max-length", Support::NotYet),
    ("x-max-length-bytes", Support::NotYet),
    ("x-max-priority", Support::NotYet),
    ("x-message-ttl", Support::NotYet),
    ("x-overflow", Support::NotYet),
    ("x-queue-leader-locator", Support::NoEffect),
    ("x-queue-master-locator", Support::NoEffect),
    ("x-queue-mode", Support::NoEffect),
    ("x-queue-type", Support::Only("classic")),
    ("x-queue-version", Support::NoEffect),
    ("x-quorum-initial-group-size", Support::OtherType("quorum")),
    ("x-single-active-consumer", Support::NotYet),
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
        Support::Only(_) => {
            let shown =
                value.as_str().map_or_else(|| format!("of type {}", value.type_name()), |text| format!("'{text}'"));
            Err(ArgumentError::ValueNotSupported(name, shown))
        }
        Support::NotYet => Err(ArgumentError::NotSupported(name)),
        Support::OtherType(kind) => Err(ArgumentError::OtherType(name, kind)),
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
        for name in [
            "x-message-ttl",
            "x-expires",
            "x-max-length",
            "x-max-length-bytes",
            "x-max-priority",
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-overflow",
            "x-single-active-consumer",
        ] {
            check(name, Value::from(1i64), Some(&format!("queue argument '{name}' is not supported by this version")));
        }
    }

    #[test]
    fn table_is_in_name_order_without_duplicates() {
        assert!(QUEUE_ARGUMENTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
