//! Which arguments of queues and of their consumers there are, as two tables: for which types of queues, and with which values (semantics 9.13,
//! 13.6).
//!
//! An argument that belongs to other types of queues than the one that is declared is refused, as RabbitMQ does it; one that no type knows is
//! accepted and kept. Streams are refused: a queue that keeps what was acked is not the queue that any other type could stand in for.

use std::fmt;

use plugin_api::value::{Table, Value};

use super::policy::QueueType;
use crate::queue::{Durability, Overflow};

/// An argument of a queue or of a consumer.
#[derive(Clone, Copy, Debug)]
pub struct QueueArgument {
    /// Its name.
    pub name: &'static str,
    accepts: Accepts,
    /// The types of queues that have it.
    types: Types,
    /// The types of queues of which a declaration that repeats another must repeat it, too (semantics 9.9).
    compared: Types,
}

#[derive(Clone, Copy, Debug)]
enum Accepts {
    /// Everything; it has no effect.
    Anything,
    /// Milliseconds, from so many to ten years.
    Millis { min: i64 },
    /// A number from 0, up to this.
    Number { max: i64 },
    /// Any number.
    Integer,
    /// Any text.
    Text,
    /// Any text, where there is a dead-letter exchange.
    DeadLetterKey,
    /// One of these texts; RabbitMQ's word for any other.
    OneOf(&'static [&'static str], &'static str),
    /// True or false.
    Bool,
    /// The text of a type of queues.
    Type,
    /// A version of the storage of classic queues.
    Version,
    /// Whether messages that come back wait before they go out again; here they never do.
    RetryType,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

/// A set of types of queues, as bits.
#[derive(Clone, Copy, Debug)]
struct Types(u8);

const CLASSIC: Types = Types(1);
const QUORUM: Types = Types(2);
const STREAM: Types = Types(4);
const LOCAL: Types = Types(CLASSIC.0 | QUORUM.0);
const ALL: Types = Types(LOCAL.0 | STREAM.0);

impl Types {
    fn has(self, kind: QueueType) -> bool {
        let bit = match kind {
            QueueType::Classic => CLASSIC,
            QueueType::Quorum => QUORUM,
            QueueType::Stream => STREAM,
        };
        self.0 & bit.0 != 0
    }
}

/// The argument that says of which type a queue is.
pub const QUEUE_TYPE: &str = "x-queue-type";
/// Where messages go that die.
pub const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
/// How sure it is that they arrive (semantics 20.12).
pub const DEAD_LETTER_STRATEGY: &str = "x-dead-letter-strategy";
/// Our own argument: what the queue's confirms wait for, see [`Durability`]. Without it the queue follows its vhost.
pub const DURABILITY: &str = "x-durability";

/// Ten years in milliseconds, the longest time that anything may take (semantics 17.4).
const MILLIS_MAX: i64 = 315_360_000_000;
const ANY_NUMBER: Accepts = Accepts::Number { max: i64::MAX };

const fn argument(name: &'static str, accepts: Accepts, types: Types) -> QueueArgument {
    QueueArgument { name, accepts, types, compared: types }
}

/// RabbitMQ's queue arguments (pages "Queues", "Quorum Queues", "Streams") and our own, in the order in which RabbitMQ looks at them.
/// `x-delivery-limit` is a quorum queue's alone there; here every queue may have it.
pub const QUEUE_ARGUMENTS: &[QueueArgument] = &[
    argument(QUEUE_TYPE, Accepts::Type, ALL),
    argument("x-expires", Accepts::Millis { min: 1 }, LOCAL),
    argument("x-message-ttl", Accepts::Millis { min: 0 }, LOCAL),
    argument(DEAD_LETTER_EXCHANGE, Accepts::Text, LOCAL),
    argument("x-dead-letter-routing-key", Accepts::DeadLetterKey, LOCAL),
    argument(DEAD_LETTER_STRATEGY, Accepts::OneOf(&["at-most-once", "at-least-once"], "invalid_dlx_strategy"), QUORUM),
    argument("x-max-length", ANY_NUMBER, LOCAL),
    argument("x-max-length-bytes", ANY_NUMBER, ALL),
    argument("x-max-in-memory-length", ANY_NUMBER, QUORUM),
    argument("x-max-in-memory-bytes", ANY_NUMBER, QUORUM),
    argument("x-max-priority", Accepts::Number { max: 255 }, CLASSIC),
    argument("x-overflow", Accepts::OneOf(Overflow::NAMES, "invalid_overflow"), LOCAL),
    argument("x-queue-version", Accepts::Version, CLASSIC),
    argument("x-single-active-consumer", Accepts::Bool, LOCAL),
    // A classic queue's is not compared, because RabbitMQ's has none (semantics 9.9).
    QueueArgument { compared: QUORUM, ..argument("x-consumer-timeout", ANY_NUMBER, LOCAL) },
    argument("x-consumer-disconnected-timeout", ANY_NUMBER, QUORUM),
    argument("x-quorum-initial-group-size", ANY_NUMBER, QUORUM),
    argument("x-max-age", Accepts::Text, STREAM),
    argument("x-stream-max-segment-size-bytes", ANY_NUMBER, STREAM),
    argument("x-stream-filter-size-bytes", ANY_NUMBER, STREAM),
    argument("x-initial-cluster-size", ANY_NUMBER, STREAM),
    argument("x-queue-leader-locator", Accepts::OneOf(LOCATORS, "invalid_queue_locator_arg"), ALL),
    argument("x-member-placement-tag", Accepts::Text, QUORUM),
    argument("x-delivery-limit", Accepts::Integer, LOCAL),
    argument("x-delayed-retry-type", Accepts::RetryType, QUORUM),
    argument("x-delayed-retry-min", ANY_NUMBER, QUORUM),
    argument("x-delayed-retry-max", ANY_NUMBER, QUORUM),
    argument("x-queue-mode", Accepts::Anything, CLASSIC),
    argument("x-queue-master-locator", Accepts::Anything, CLASSIC),
    argument(DURABILITY, Accepts::OneOf(Durability::NAMES, "invalid_durability"), LOCAL),
];

/// RabbitMQ's arguments of basic.consume, in the order in which it looks at them. Others mean nothing.
const CONSUMER_ARGUMENTS: &[QueueArgument] = &[
    argument(PRIORITY, Accepts::Integer, LOCAL),
    argument("x-consumer-timeout", Accepts::Nothing(CONSUMER_TIMEOUT), QUORUM),
    argument("x-stream-offset", Accepts::Anything, STREAM),
    argument("x-stream-filter", Accepts::Anything, STREAM),
    argument("x-stream-match-unfiltered", Accepts::Anything, STREAM),
];

/// The argument of a consumer that says before whom it is served.
pub const PRIORITY: &str = "x-priority";
/// Said rather than ignored: who sets a time relies on it.
const CONSUMER_TIMEOUT: &str = "a consumer has no timeout of its own: give the queue the argument or a policy";

/// Those of 4.x, and those of before.
const LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];

/// Why a queue argument is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// Of a type that the argument does not have, in the words of the wire.
    WrongType(&'static str),
    /// Of a type that is no integer, in the words of the wire.
    NotAnInteger(&'static str),
    /// 0, where something must be.
    Zero,
    /// A number below 0.
    Negative(i64),
    /// A number beyond the maximum.
    TooLarge(i64, i64),
    /// A time beyond ten years.
    TooLong(i64),
    /// None of these texts; RabbitMQ's word for it.
    NotOneOf(String, &'static [&'static str], &'static str),
    /// A key for dead letters that go nowhere.
    KeyWithoutExchange,
    /// A type of queues that this broker does not have.
    UnknownQueueType(String),
    /// A version that nobody has.
    UnknownVersion(i64),
    /// RabbitMQ has it and this broker has not, in a sentence.
    Unsupported(&'static str),
    /// It belongs to other types of queues than this one.
    OtherType(QueueType),
}

impl fmt::Display for ArgumentError {
    /// What follows "queue argument 'NAME' ".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType(kind) => write!(f, "cannot be of type {kind}"),
            Self::NotAnInteger(kind) => write!(f, "is a number, and cannot be of type {kind}"),
            Self::Zero => f.write_str("must be at least 1"),
            Self::Negative(value) => write!(f, "with value {value} is below 0"),
            Self::TooLarge(value, max) => write!(f, "with value {value} is above {max}"),
            Self::TooLong(value) => write!(f, "with value {value} is above {MILLIS_MAX}, which is ten years"),
            Self::NotOneOf(value, names, _) => write!(f, "with value '{value}' is not one of {}", names.join(", ")),
            Self::KeyWithoutExchange => write!(f, "is of no use without '{DEAD_LETTER_EXCHANGE}'"),
            Self::UnknownQueueType(kind) if kind == QueueType::Stream.name() => {
                f.write_str("with value 'stream' is not supported: this broker has no streams")
            }
            Self::UnknownQueueType(kind) => write!(f, "with value '{kind}' is not one of classic, quorum"),
            Self::UnknownVersion(version) => write!(f, "with value {version} is not one of 1, 2"),
            Self::Unsupported(why) => write!(f, "is refused: {why}"),
            Self::OtherType(kind) => write!(f, "does not belong to queues of type {}", kind.name()),
        }
    }
}

impl ArgumentError {
    /// The reply text of RabbitMQ, which prints its own terms; `queue` is the queue as texts name it.
    pub fn reply_text(&self, name: &str, queue: &str) -> String {
        let term = match self {
            Self::OtherType(kind) => {
                return format!("invalid arg '{name}' for {queue} of queue type rabbit_{}_queue", kind.name());
            }
            Self::WrongType(kind) => format!("{{unacceptable_type,{kind}}}"),
            Self::NotAnInteger(kind) => format!("\"expected integer, got {kind}\""),
            Self::Zero => "{value_zero,0}".into(),
            Self::Negative(value) => format!("{{value_negative,{value}}}"),
            Self::TooLarge(value, _) => format!("{{max_value_exceeded,{value}}}"),
            Self::TooLong(value) => format!("{{value_too_large,{value}}}"),
            // Our own argument has no term in RabbitMQ; words say how to mend it.
            Self::NotOneOf(value, names, _) if name == DURABILITY => {
                format!("value '{value}' is not one of {}", names.join(", "))
            }
            Self::NotOneOf(_, _, word) => (*word).into(),
            Self::KeyWithoutExchange => "routing_key_but_no_dlx_defined".into(),
            Self::UnknownQueueType(kind) => format!("\"unsupported queue type '{kind}'\""),
            Self::UnknownVersion(version) => format!("\"unsupported queue version '{version}'\""),
            Self::Unsupported(why) => format!("\"{why}\""),
        };
        format!("invalid arg '{name}' for {queue}: {term}")
    }
}

/// What is wrong with the arguments of a new queue, in the order in which RabbitMQ finds it.
pub fn wrong_arguments(arguments: &Table) -> impl Iterator<Item = (&'static str, ArgumentError)> {
    wrong(QUEUE_ARGUMENTS, QueueType::of(arguments), arguments)
}

/// What is wrong with the arguments of a consumer of a queue of this type, in the order in which RabbitMQ finds it.
pub fn wrong_consumer_arguments(
    kind: QueueType,
    arguments: &Table,
) -> impl Iterator<Item = (&'static str, ArgumentError)> {
    wrong(CONSUMER_ARGUMENTS, kind, arguments)
}

fn wrong(
    table: &'static [QueueArgument],
    kind: QueueType,
    arguments: &Table,
) -> impl Iterator<Item = (&'static str, ArgumentError)> {
    let values = table.iter().filter(move |argument| argument.types.has(kind)).filter_map(|argument| {
        let error = argument.accepts.check(arguments.get(argument.name)?, arguments).err()?;
        Some((argument.name, error))
    });
    let others = arguments.iter().filter_map(move |(name, _)| {
        let argument = table.iter().find(|argument| argument.name.as_bytes() == name)?;
        (!argument.types.has(kind)).then_some((argument.name, ArgumentError::OtherType(kind)))
    });
    values.chain(others)
}

/// The arguments that a declaration of an existing queue of this type must repeat.
pub fn compared(kind: QueueType) -> impl Iterator<Item = &'static str> {
    QUEUE_ARGUMENTS.iter().filter(move |argument| argument.compared.has(kind)).map(|argument| argument.name)
}

impl Accepts {
    fn check(self, value: &Value, arguments: &Table) -> Result<(), ArgumentError> {
        match self {
            Self::Anything => Ok(()),
            Self::Nothing(why) => Err(ArgumentError::Unsupported(why)),
            Self::RetryType => match text(value)?.as_str() {
                "disabled" => Ok(()),
                _ => Err(ArgumentError::Unsupported(
                    "messages that come back cannot wait here: leave it out, or 'disabled'",
                )),
            },
            Self::Integer => integer(value).map(|_| ()),
            Self::Number { max } => match integer(value)? {
                number if number < 0 => Err(ArgumentError::Negative(number)),
                number if number > max => Err(ArgumentError::TooLarge(number, max)),
                _ => Ok(()),
            },
            Self::Millis { min } => match integer(value)? {
                0 if min > 0 => Err(ArgumentError::Zero),
                ms if ms < 0 => Err(ArgumentError::Negative(ms)),
                ms if ms > MILLIS_MAX => Err(ArgumentError::TooLong(ms)),
                _ => Ok(()),
            },
            Self::Text => text(value).map(|_| ()),
            Self::DeadLetterKey => {
                text(value)?;
                arguments.get(DEAD_LETTER_EXCHANGE).map(|_| ()).ok_or(ArgumentError::KeyWithoutExchange)
            }
            Self::OneOf(names, word) => {
                let text = text(value)?;
                let is_known = names.contains(&&*text);
                if is_known { Ok(()) } else { Err(ArgumentError::NotOneOf(text, names, word)) }
            }
            Self::Bool if value.as_bool().is_some() => Ok(()),
            Self::Bool => Err(ArgumentError::WrongType(value.type_name())),
            Self::Type => match text(value)? {
                kind if [QueueType::Classic, QueueType::Quorum].iter().any(|known| known.name() == kind) => Ok(()),
                kind => Err(ArgumentError::UnknownQueueType(kind)),
            },
            Self::Version => match integer(value)? {
                version if version < 0 => Err(ArgumentError::Negative(version)),
                1 | 2 => Ok(()),
                version => Err(ArgumentError::UnknownVersion(version)),
            },
        }
    }
}

fn integer(value: &Value) -> Result<i64, ArgumentError> {
    value.as_i64().ok_or(ArgumentError::NotAnInteger(value.type_name()))
}

/// Names that are no UTF-8 lead nowhere, but are texts.
fn text(value: &Value) -> Result<String, ArgumentError> {
    match value {
        Value::LongString(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => Err(ArgumentError::WrongType(other.type_name())),
    }
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

    /// Each as `name: reply text`, without the queue.
    fn errors(arguments: &Table) -> Vec<String> {
        let texts = wrong_arguments(arguments).map(|(name, error)| error.reply_text(name, "q"));
        texts.map(|text| text.replace("invalid arg ", "").replace(" for q", "")).collect()
    }

    #[test]
    fn values_are_checked_as_rabbitmq_does() {
        // Semantics 9.13.
        let check = |name: &str, value: Value, expected: Option<&str>| {
            let expected: Vec<String> = expected.into_iter().map(|text| format!("'{name}': {text}")).collect();
            assert_eq!(errors(&Table::new().with(name, value)), expected, "{name}");
        };
        check("x-message-ttl", Value::I8(0), None);
        check("x-message-ttl", Value::from(-1i64), Some("{value_negative,-1}"));
        check("x-message-ttl", Value::from(MILLIS_MAX), None);
        check("x-message-ttl", Value::from(MILLIS_MAX + 1), Some("{value_too_large,315360000001}"));
        check("x-message-ttl", Value::from("1"), Some("\"expected integer, got longstr\""));
        check("x-expires", Value::from(0i64), Some("{value_zero,0}"));
        check("x-expires", Value::from(1i64), None);
        check("x-max-length", Value::from(-1i64), Some("{value_negative,-1}"));
        check("x-max-priority", Value::from(256i64), Some("{max_value_exceeded,256}"));
        check("x-dead-letter-exchange", Value::from(""), None);
        check("x-dead-letter-routing-key", Value::from("k"), Some("routing_key_but_no_dlx_defined"));
        check("x-overflow", Value::from("reject-publish"), None);
        check("x-overflow", Value::from("wait"), Some("invalid_overflow"));
        check("x-overflow", Value::from(1i64), Some("{unacceptable_type,long}"));
        check("x-single-active-consumer", Value::from("true"), Some("{unacceptable_type,longstr}"));
        check("x-queue-type", Value::from("quorum"), None);
        check("x-queue-type", Value::from("heap"), Some("\"unsupported queue type 'heap'\""));
        check("x-queue-version", Value::from(2i64), None);
        check("x-queue-version", Value::from(3i64), Some("\"unsupported queue version '3'\""));
        check("x-queue-mode", Value::from("lazy"), None);
        check("x-queue-leader-locator", Value::from("balanced"), None);
        check("x-queue-leader-locator", Value::from("here"), Some("invalid_queue_locator_arg"));
        check("x-delivery-limit", Value::from(-1i64), None);
        check("x-durability", Value::from("os"), None);
        check("x-custom", Value::from(1i64), None);
        check("note", Value::Void, None);
    }

    #[test]
    fn streams_are_refused_clearly() {
        let arguments = Table::new().with("x-queue-type", "stream");
        let [(name, error)] = wrong_arguments(&arguments).collect::<Vec<_>>().try_into().expect("one");
        assert_eq!(
            error.reply_text(name, "q"),
            "invalid arg 'x-queue-type' for q: \"unsupported queue type 'stream'\""
        );
        assert_eq!(error.to_string(), "with value 'stream' is not supported: this broker has no streams");
    }

    #[test]
    fn arguments_of_other_types_are_refused_and_named_last() {
        // Semantics 9.13.8.
        let arguments = Table::new().with("x-max-age", "1h").with("x-max-length", -1i64);
        assert_eq!(
            errors(&arguments),
            ["'x-max-length': {value_negative,-1}", "'x-max-age' of queue type rabbit_classic_queue"]
        );
        let arguments = Table::new().with("x-queue-type", "quorum").with("x-max-priority", 5i64);
        assert_eq!(errors(&arguments), ["'x-max-priority' of queue type rabbit_quorum_queue"]);
    }

    #[test]
    fn delayed_retries_are_refused_with_a_sentence_where_they_would_be() {
        // Semantics 30.1: silence would let a consumer retry in a circle.
        let quorum = || Table::new().with("x-queue-type", "quorum");
        let expected =
            "'x-delayed-retry-type': \"messages that come back cannot wait here: leave it out, or 'disabled'\"";
        assert_eq!(errors(&quorum().with("x-delayed-retry-type", "failed")), [expected]);
        let off = quorum().with("x-delayed-retry-type", "disabled").with("x-delayed-retry-min", 10i64);
        assert!(errors(&off).is_empty());
        let classic = Table::new().with("x-delayed-retry-max", 10i64);
        assert_eq!(errors(&classic), ["'x-delayed-retry-max' of queue type rabbit_classic_queue"]);
    }

    #[test]
    fn arguments_of_consumers_belong_to_types_of_queues() {
        // Semantics 13.6.
        let check = |kind, arguments: Table, expected: &[&str]| {
            let texts = wrong_consumer_arguments(kind, &arguments).map(|(name, error)| error.reply_text(name, "q"));
            assert_eq!(texts.collect::<Vec<_>>(), expected, "{arguments:?}");
        };
        let (classic, quorum) = (QueueType::Classic, QueueType::Quorum);
        check(classic, Table::new().with(PRIORITY, -5i64).with("x-cancel-on-ha-failover", true), &[]);
        let high = "invalid arg 'x-priority' for q: \"expected integer, got longstr\"";
        let offset = "invalid arg 'x-stream-offset' for q of queue type rabbit_classic_queue";
        check(classic, Table::new().with("x-stream-offset", "first").with(PRIORITY, "high"), &[high, offset]);
        let filter = "invalid arg 'x-stream-filter' for q of queue type rabbit_quorum_queue";
        check(quorum, Table::new().with("x-stream-filter", "eu"), &[filter]);
        let timeout = "invalid arg 'x-consumer-timeout' for q of queue type rabbit_classic_queue";
        check(classic, Table::new().with("x-consumer-timeout", 5i64), &[timeout]);
        let timeout = "invalid arg 'x-consumer-timeout' for q: \"a consumer has no timeout of its own: give the queue the argument or a policy\"";
        check(quorum, Table::new().with("x-consumer-timeout", 5i64), &[timeout]);
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
}
