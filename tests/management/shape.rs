//! Whether an answer has what another has: the same keys with values of the same types.

use serde_json::Value;

/// Keys that only an Erlang machine has; readers do without.
const ERLANG: [&str; 5] =
    ["garbage_collection", "reductions", "reductions_details", "backing_queue_status", "cowboy_opts"];

/// Maps whose keys are the user's, or name what there is.
const FREE: [&str; 8] = [
    "arguments",
    "definition",
    "cluster_state",
    "headers",
    "client_properties",
    "socket_opts",
    "open_files",
    "metrics_gc_queue_length",
];

/// What kind of value it is; a number of either kind is one.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Notes keys of `theirs` that are missing in `ours` or have another type there. Of lists the items of the same name are compared, or the first.
pub(super) fn compare(
    place: &str,
    ours: &Value,
    theirs: &Value,
    is_expected_to_miss: &dyn Fn(&str, &str) -> bool,
    found: &mut Vec<String>,
) {
    if FREE.iter().any(|free| place.ends_with(free)) {
        return;
    }
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    None if ERLANG.contains(&key.as_str()) || is_expected_to_miss(place, key) => {}
                    None => found.push(format!("{place}.{key} is missing")),
                    Some(ours) => compare(&format!("{place}.{key}"), ours, value, is_expected_to_miss, found),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for (at, their) in theirs.iter().enumerate() {
                let id = ["name", "number"]
                    .into_iter()
                    .find(|key| !their[key].is_null() && ours.iter().any(|our| our[key] == their[key]));
                let our = match id.filter(|_| their.is_object()) {
                    Some(id) => ours.iter().find(|our| our[id] == their[id]),
                    None if at == 0 => ours.first(),
                    None => None,
                };
                if let Some(our) = our {
                    compare(&format!("{place}[{at}]"), our, their, is_expected_to_miss, found);
                }
            }
        }
        // What may be absent is null on either side.
        (ours, theirs) if kind(ours) == kind(theirs) || theirs.is_null() || ours.is_null() => {}
        // Erlang writes an empty map as a list.
        (Value::Object(ours), Value::Array(theirs)) if ours.is_empty() && theirs.is_empty() => {}
        (ours, theirs) => found.push(format!("{place} is {ours}, there {theirs}")),
    }
}
