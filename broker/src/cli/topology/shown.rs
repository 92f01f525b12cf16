//! A plan for people.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// The whole plan as text.
pub(super) fn plan(plan: &Json) -> String {
    let mut out = String::new();
    for change in list(plan, "changes") {
        self::change(&mut out, change);
    }
    for refusal in list(plan, "refusals").filter_map(Json::as_str) {
        let _ = writeln!(out, "refused: {}", harmless(refusal));
    }
    for (key, word) in [("notes", "note"), ("warnings", "warning")] {
        for text in list(plan, key).filter_map(Json::as_str) {
            let _ = writeln!(out, "{word}: {}", harmless(text));
        }
    }
    let count = |key: &str| plan["summary"][key].as_u64().unwrap_or(0);
    let counts = ["create", "update", "replace", "remove"].map(count);
    let [create, update, replace, remove] = counts;
    if counts == [0; 4] {
        out.push_str("Nothing to change.\n");
    } else {
        let _ = writeln!(out, "{create} to create, {update} to change, {replace} to replace, {remove} to remove.");
    }
    out
}

fn list<'a>(value: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    value[key].as_array().into_iter().flatten()
}

fn change(out: &mut String, change: &Json) {
    let action = change["action"].as_str().unwrap_or_default();
    let sign = match action {
        "create" => "  +",
        "update" => "  ~",
        "replace" => "-/+",
        _ => "  -",
    };
    let _ = writeln!(out, "{sign} {}", harmless(change["what"].as_str().unwrap_or_default()));
    for difference in list(change, "differences") {
        let field = harmless(difference["field"].as_str().unwrap_or_default());
        let (before, after) = (value(&difference["before"]), value(&difference["after"]));
        let _ = match action {
            "create" => writeln!(out, "      {field}: {after}"),
            _ => writeln!(out, "      {field}: {before} -> {after}"),
        };
    }
    if matches!(action, "replace" | "remove") {
        let count = |key: &str| change["loss"][key].as_u64().unwrap_or(0);
        let lost: Vec<String> = [
            (count("queues"), "queues"),
            (count("messages_ready"), "ready messages"),
            (count("messages_unacknowledged"), "unacked messages"),
            (count("consumers"), "consumers"),
            (count("bindings"), "bindings"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if !lost.is_empty() {
            let _ = writeln!(out, "      lost with it: {}", lost.join(", "));
        }
    }
}

fn value(value: &Json) -> String {
    match value {
        Json::Null => "(none)".to_owned(),
        Json::String(text) => format!("'{}'", harmless(text)),
        other => harmless(&other.to_string()),
    }
}

/// Names come from whoever declares; a terminal must not act on them.
fn harmless(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}
