//! Why a binding does not match, for the types whose rules are RabbitMQ's. The type itself has decided; this only says what a person would look at first.

use plugin_api::message::Properties;
use plugin_api::value::{Table, Value, ValueRef};

use crate::routing::exchange::Identity;

/// A reason in words; for other types, that theirs did not choose it.
pub(super) fn why_not(kind: &str, binding: &Identity, keys: &[&str], properties: Properties<'_>) -> String {
    match kind {
        "direct" => format!("the key is not '{}'", binding.routing_key),
        "topic" => topic(&binding.routing_key, keys),
        "headers" => headers(&Table::decode(&binding.arguments).unwrap_or_default(), properties),
        other => format!("exchange type '{other}' does not choose it"),
    }
}

fn topic(pattern: &str, keys: &[&str]) -> String {
    // With CC there are several keys, and a sentence about each would help nobody.
    let [key] = keys else { return format!("no key fits the pattern '{pattern}'") };
    let (words, wanted): (Vec<&str>, Vec<&str>) = (key.split('.').collect(), pattern.split('.').collect());
    for (at, want) in wanted.iter().enumerate() {
        match (*want, words.get(at)) {
            ("#", _) => return format!("what follows '#' in the pattern '{pattern}' does not fit"),
            (_, None) => {
                return format!("the pattern '{pattern}' wants {} words, the key has {}", wanted.len(), words.len());
            }
            ("*", Some(_)) => {}
            (want, Some(word)) if want != *word => {
                return format!("word {} is '{word}', the pattern '{pattern}' wants '{want}'", at + 1);
            }
            _ => {}
        }
    }
    format!("the pattern '{pattern}' wants {} words, the key has {}", wanted.len(), words.len())
}

fn headers(arguments: &Table, properties: Properties<'_>) -> String {
    let mode = arguments.get("x-match").and_then(|value| value.as_str()).unwrap_or("all");
    let has_x = mode.ends_with("-with-x");
    let headers = properties.headers();
    let mut reasons = Vec::new();
    for (name, wanted) in arguments.iter() {
        let name = String::from_utf8_lossy(name);
        if name == "x-match" || (name.starts_with("x-") && !has_x) {
            continue;
        }
        let found = headers.and_then(|headers| headers.get(&name));
        match found {
            None => reasons.push(format!("header '{name}' is missing")),
            // A binding without a value only asks for the header.
            Some(_) if *wanted == Value::Void => {}
            Some(found) => {
                let found = shown(found);
                let wanted = value(wanted);
                if found != wanted {
                    reasons.push(format!("header '{name}' is {found}, not {wanted}"));
                }
            }
        }
    }
    match (reasons.as_slice(), mode.starts_with("any")) {
        ([], _) => "the type does not choose it".to_owned(),
        (reasons, true) => format!("no header fits: {}", reasons.join(", ")),
        ([first, ..], false) => first.clone(),
    }
}

fn shown(value: ValueRef<'_>) -> String {
    value.to_owned().map_or_else(|_| "(unreadable)".to_owned(), |owned| self::value(&owned))
}

fn value(value: &Value) -> String {
    match value {
        Value::LongString(text) => format!("'{}'", String::from_utf8_lossy(text)),
        Value::Bool(value) => value.to_string(),
        other => match (other.as_i64(), other.as_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => format!("{other:?}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::exchange::DestinationKind;
    use plugin_api::message::PropertiesBuf;

    use super::*;

    fn binding(routing_key: &str, arguments: &Table) -> Identity {
        Identity {
            destination_kind: DestinationKind::Queue,
            destination: "q".into(),
            routing_key: routing_key.into(),
            arguments: arguments.canonical().into(),
        }
    }

    #[test]
    fn the_first_word_that_differs_is_named() {
        let check = |pattern: &str, key: &str, expected: &str| {
            let binding = binding(pattern, &Table::new());
            assert_eq!(why_not("topic", &binding, &[key], Properties::from_raw(&[0, 0])), expected);
        };
        check("order.eu.*", "order.us.new", "word 2 is 'us', the pattern 'order.eu.*' wants 'eu'");
        check("order.*", "order.us.new", "the pattern 'order.*' wants 2 words, the key has 3");
        check("order.*.new", "order.us", "the pattern 'order.*.new' wants 3 words, the key has 2");
        check("#.new", "order.us", "what follows '#' in the pattern '#.new' does not fit");
    }

    #[test]
    fn headers_say_which_is_missing_or_different() {
        let headers = Table::new().with("format", "zip").with("x-trace", true);
        let raw = PropertiesBuf { headers: Some(headers), ..PropertiesBuf::default() }.encode();
        let check = |arguments: Table, expected: &str| {
            let binding = binding("", &arguments);
            assert_eq!(why_not("headers", &binding, &[""], Properties::from_raw(&raw)), expected);
        };
        check(Table::new().with("format", "pdf"), "header 'format' is 'zip', not 'pdf'");
        check(Table::new().with("size", 3_i64), "header 'size' is missing");
        let any = Table::new().with("x-match", "any").with("size", 3_i64).with("format", "pdf");
        check(any, "no header fits: header 'format' is 'zip', not 'pdf', header 'size' is missing");
    }
}
