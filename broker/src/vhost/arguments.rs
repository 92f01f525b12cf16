//! The arguments of declarations: which are compared, which are valid, how values read in errors (semantics 9.9 to 9.14).

use plugin_api::value::{Table, Value};

use super::policy::QueueType;
use super::queue_arguments::{DURABILITY, QUEUE_TYPE, compared, durability, wrong_arguments};

use crate::queue::Durability;

/// The first argument of a new queue that is wrong, in words.
///
/// # Errors
/// The reply text of the refusal.
pub fn check_queue(arguments: &Table, queue: &str, vhost: &str) -> Result<(), String> {
    match wrong_arguments(arguments).next() {
        None => Ok(()),
        Some((name, error)) => Err(error.reply_text(name, &format!("queue '{queue}' in vhost '{vhost}'"))),
    }
}

/// The first compared argument that differs: its name, the received and the current value as errors print them. `of_vhost` is what
/// queues without a durability of their own have.
pub fn difference(received: &Table, current: &Table, of_vhost: Durability) -> Option<(&'static str, String, String)> {
    compared(QueueType::of(current)).find_map(|key| {
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
        None if key == QUEUE_TYPE => Some(Value::from("classic")),
        None if key == DURABILITY => Some(Value::from(durability(arguments, of_vhost).name())),
        other => other.cloned(),
    }
}

/// Integer widths are one class, and so are floats (semantics 9.11).
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
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
