//! The arguments of declarations: which are compared, which are valid, how values read in errors (semantics 9.9 to 9.14).

use plugin_api::value::{Table, Value};

use super::queue_arguments::{ArgumentError, DURABILITY, check_queue_argument, durability};
use crate::queue::Durability;

/// Arguments that a re-declaration must repeat (semantics 9.9), as far as they are supported.
const COMPARED: [&str; 8] = [
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
    DURABILITY,
];

/// The first argument of a new queue that is wrong, in words.
///
/// # Errors
/// The reply text of the refusal.
pub fn check_queue(arguments: &Table, queue: &str, vhost: &str) -> Result<(), String> {
    for (key, value) in arguments.iter() {
        let key = String::from_utf8_lossy(key);
        let invalid = format!("invalid arg '{key}' for queue '{queue}' in vhost '{vhost}'");
        check_queue_argument(&key, value).map_err(|error| match error {
            ArgumentError::NotSupported(_) => format!("{invalid}: not supported by this version"),
            ArgumentError::ValueNotSupported(_, value) => {
                format!("{invalid}: value {value} is not supported by this version")
            }
            ArgumentError::NotOneOf(_, value, names) => {
                format!("{invalid}: value {value} is not one of {}", names.join(", "))
            }
            // As RabbitMQ prints its own terms.
            ArgumentError::WrongType(_, kind) => format!("{invalid}: {{unacceptable_type,{kind}}}"),
            ArgumentError::NotAnInteger(_, kind) => format!("{invalid}: \"expected integer, got {kind}\""),
            ArgumentError::Negative(_, value) => format!("{invalid}: {{value_negative,{value}}}"),
            ArgumentError::TooLarge(_, value, _) => format!("{invalid}: {{max_value_exceeded,{value}}}"),
            ArgumentError::OtherType(..) => format!("{invalid} of queue type classic"),
        })?;
    }
    Ok(())
}

/// The first compared argument that differs: its name, the received and the current value as errors print them. `of_vhost` is what
/// queues without a durability of their own have.
pub fn difference(received: &Table, current: &Table, of_vhost: Durability) -> Option<(&'static str, String, String)> {
    COMPARED.into_iter().find_map(|key| {
        let (received, current) = (effective(received, key, of_vhost), effective(current, key, of_vhost));
        if same(received.as_ref(), current.as_ref()) {
            return None;
        }
        let (received, current) = print_difference(received.as_ref(), current.as_ref());
        Some((key, received, current))
    })
}

/// An absent queue type is the default one (semantics 9.11, 9.12), an absent durability the vhost's.
fn effective(arguments: &Table, key: &str, of_vhost: Durability) -> Option<Value> {
    match arguments.get(key) {
        None if key == "x-queue-type" => Some(Value::from("classic")),
        None if key == DURABILITY => Some(Value::from(durability(arguments, of_vhost).name())),
        other => other.cloned(),
    }
}

/// Integer widths are one class, and so are floats (semantics 9.11).
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let float = |value: &Value| match value {
                Value::F32(v) => Some(f64::from(*v)),
                Value::F64(v) => Some(*v),
                _ => None,
            };
            match (a.as_i64(), b.as_i64(), float(a), float(b)) {
                (Some(a), Some(b), _, _) => a == b,
                (_, _, Some(a), Some(b)) => a == b,
                _ => a == b,
            }
        }
        _ => false,
    }
}

/// Two values that differ, as errors print them: bare where both are there, else `none` and the value with its type (semantics 9.10,
/// and RabbitMQ's `assert_args_equivalence`).
pub fn print_difference(received: Option<&Value>, current: Option<&Value>) -> (String, String) {
    match (received, current) {
        (Some(received), Some(current)) => (format!("'{}'", show(received)), format!("'{}'", show(current))),
        _ => (print(received), print(current)),
    }
}

fn print(value: Option<&Value>) -> String {
    match value {
        Some(value) => format!("the value '{}' of type '{}'", show(value), value.type_name()),
        None => "none".into(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::LongString(bytes) | Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Bool(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        other => other.as_i64().map_or_else(|| format!("{other:?}"), |v| v.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_widths_are_equal_and_what_is_absent_has_its_default() {
        let typed = Table::new().with("x-queue-type", "classic").with("x-queue-version", Value::I32(2));
        let bare = Table::new().with("x-queue-version", Value::I64(2)).with("x-custom", true);
        let difference = |received: &Table, current: &Table| difference(received, current, Durability::Os);
        assert_eq!(difference(&typed, &bare), None);
        let other = Table::new().with("x-queue-mode", "lazy");
        assert_eq!(
            difference(&other, &Table::new()),
            Some(("x-queue-mode", "the value 'lazy' of type 'longstr'".into(), "none".into()))
        );
        assert_eq!(difference(&Table::new().with(DURABILITY, "os"), &Table::new()), None);
        assert_eq!(
            difference(&Table::new().with(DURABILITY, "synced"), &Table::new()),
            Some((DURABILITY, "'synced'".into(), "'os'".into()))
        );
    }
}
