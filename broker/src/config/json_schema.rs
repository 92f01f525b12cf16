//! The JSON Schema of topology files, for editors and CI.
//!
//! Keys come from the same tables that readers go by; what a value may be is said here. A schema knows less than `broker check`: names that must be declared, ranges,
//! files that must be there are for the latter.

use serde_json::{Map, Value as Json, json};

use super::{SECTIONS, TOP};

/// The schema as text.
#[must_use]
pub fn json_schema() -> String {
    let mut definitions: Map<String, Json> =
        SECTIONS.iter().skip(1).map(|(name, section)| (slug(name), object(name, section.keys))).collect();
    for section in ["users", "vhosts", "policies", "exchanges", "queues"] {
        definitions.insert(format!("{section}_with_name"), with_name(section));
    }
    let mut root = object("top", TOP.keys);
    if let Some(root) = root.as_object_mut() {
        root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        root.insert("title".to_owned(), json!("Topology of a broker"));
        root.insert("definitions".to_owned(), Json::Object(definitions));
    }
    let mut out = String::new();
    write(&root, 0, &mut out);
    out + "\n"
}

/// What fits on a line stays on one, so that people can read it and review a change.
fn write(value: &Json, depth: usize, out: &mut String) {
    let line = value.to_string();
    let Json::Object(entries) = value else { return out.push_str(&line) };
    if line.len() + 2 * depth <= LINE_CHARS {
        return out.push_str(&line);
    }
    out.push_str("{\n");
    for (index, (key, value)) in entries.iter().enumerate() {
        out.push_str(&"  ".repeat(depth + 1));
        out.push_str(&Json::from(key.as_str()).to_string());
        out.push_str(": ");
        write(value, depth + 1, out);
        out.push_str(if index + 1 < entries.len() { ",\n" } else { "\n" });
    }
    out.push_str(&"  ".repeat(depth));
    out.push('}');
}

const LINE_CHARS: usize = 140;

/// A name that a reference can carry.
fn slug(name: &str) -> String {
    name.replace(' ', "_")
}

fn object(section: &str, keys: &[&str]) -> Json {
    let properties: Map<String, Json> = keys.iter().map(|key| ((*key).to_owned(), value(section, key))).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// A section by its name in the table.
fn of(section: &str) -> Json {
    json!({"$ref": format!("#/definitions/{}", slug(section))})
}

/// A section whose things may also carry their name inside.
fn with_name(section: &str) -> Json {
    let keys = SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, section)| section.keys);
    let mut item = object(section, keys);
    item["properties"]["name"] = text();
    item["required"] = json!(["name"]);
    item
}

fn text() -> Json {
    json!({"type": ["string", "number"]})
}

fn number() -> Json {
    // A number may come from the environment.
    json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "\\$\\{"}]})
}

fn flag() -> Json {
    json!({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "\\$\\{"}]})
}

/// A number, or one with a unit.
fn quantity() -> Json {
    json!({"type": ["string", "integer"]})
}

fn one_or_many(item: Json) -> Json {
    json!({"anyOf": [item, {"type": "array", "items": item}, {"type": "null"}]})
}

fn one_of(words: &[&str]) -> Json {
    json!({"anyOf": [{"enum": words}, {"type": "string", "pattern": "\\$\\{"}]})
}

fn off_or(section: &str) -> Json {
    json!({"anyOf": [of(section), {"enum": ["off", false]}, {"type": "null"}]})
}

fn optional(section: &str) -> Json {
    json!({"anyOf": [of(section), {"type": "null"}]})
}

/// Things by name: a mapping, or a list of names and of things. `short` is what may stand instead of a thing.
fn named(section: &str, short: &[&str]) -> Json {
    let mut body = vec![of(section), json!({"type": "null"})];
    body.extend(short.iter().map(|kind| json!({"type": kind})));
    let by_name = json!({"type": "object", "additionalProperties": {"anyOf": body}});
    let single =
        json!({"type": "object", "additionalProperties": {"anyOf": body}, "minProperties": 1, "maxProperties": 1});
    let items = json!({"type": "array", "items": {"anyOf": [text(), of(&format!("{section}_with_name")), single]}});
    json!({"anyOf": [by_name, items, {"type": "null"}]})
}

fn hooks() -> Json {
    one_or_many(json!({"anyOf": [{"type": "string"}, of("hooks")]}))
}

fn anything() -> Json {
    json!({})
}

fn table() -> Json {
    json!({"type": ["object", "null"]})
}

/// What a key may have. A key that is not here may have anything, so that a new one is never refused.
fn value(section: &str, key: &str) -> Json {
    match (section, key) {
        ("top", "node" | "listeners" | "limits" | "bindings") => optional(key),
        ("top", "management" | "metrics") => off_or(key),
        ("top", "storage") => json!({"anyOf": [of("storage"), {"type": "string"}, {"type": "null"}]}),
        ("top", "plugins") => one_or_many(json!({"anyOf": [{"type": "string"}, of("plugins")]})),
        ("top", "users") => named("users", &[]),
        ("top", "vhosts") => named("vhosts", &[]),
        ("top", "definitions") => json!({"anyOf": [of("definitions"), {"type": "string"}]}),
        ("top", "tests") => json!({"type": ["array", "null"], "items": of("tests")}),
        ("top", "parameters") => table(),
        ("vhosts", "parameters") => {
            json!({"type": ["object", "null"], "additionalProperties": {"type": ["object", "null"]}})
        }
        ("top", "include") => one_or_many(json!({"type": "string"})),
        ("top" | "vhosts" | "exchanges" | "queues", "hooks") => hooks(),
        ("top", "auth") => optional("auth"),
        ("bindings", "mixed_durability") => one_of(&["warn", "refuse"]),
        ("node", "quorum_queues") => one_of(&["local", "refuse"]),
        ("node", "transient_queues") => one_of(&["allow", "refuse"]),
        ("listeners", "amqp") | ("management" | "metrics", "listen") => {
            json!({"anyOf": [quantity(), {"type": "boolean"}, {"type": "array", "items": quantity()}]})
        }
        ("limits", _) => quantity(),
        ("storage" | "plugins", "config") | ("policies", "definition") => anything(),
        ("users", "password") => json!({"anyOf": [text(), of("password")]}),
        ("users", "permissions") => json!({"type": ["object", "null"], "additionalProperties":
            {"anyOf": [text(), of("permissions"), {"type": "null"}]}}),
        ("users", "topic_permissions") => json!({"type": ["object", "null"], "additionalProperties":
            {"type": ["object", "null"], "additionalProperties": of("topic_permissions")}}),
        ("users", "limits") => optional("limits of a user"),
        ("limits of a user" | "limits of a vhost", _) => number(),
        ("password", "algorithm") => text(),
        ("hooks", "on_error") => json!({"type": "string"}),
        ("vhosts", "limits") => optional("limits of a vhost"),
        ("vhosts", "policies" | "operator_policies") => named("policies", &[]),
        ("vhosts", "exchanges") => named("exchanges", &["string"]),
        ("vhosts", "queues") => named("queues", &[]),
        ("vhosts", "bindings") => json!({"anyOf": [
            {"type": ["string", "object", "null"]},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
        ]}),
        ("vhosts", "default_queue_type") => one_of(&["classic", "quorum"]),
        ("vhosts" | "queues", "durability") => one_of(&["synced", "os"]),
        ("vhosts", "tracing" | "event_exchange" | "log_exchange") => flag(),
        ("policies", "apply_to") => {
            one_of(&["all", "queues", "classic_queues", "quorum_queues", "streams", "exchanges"])
        }
        ("policies", "priority") => number(),
        ("queues", "ttl" | "expires" | "consumer_timeout" | "max_length_bytes") => quantity(),
        ("queues", "max_length" | "max_priority" | "delivery_limit") => number(),
        ("queues", "overflow") => one_of(crate::queue::Overflow::NAMES),
        ("queues", "dead_letter") => json!({"anyOf": [text(), {"type": "object", "additionalProperties": false,
            "properties": {"exchange": text(), "routing_key": text()}, "required": ["exchange"]}]}),
        ("bindings of a vhost", "destination_type") => one_of(&["queue", "exchange"]),
        ("bindings of a vhost", "routing_key") => one_or_many(text()),
        ("tests", "properties") => optional("properties of tests"),
        ("tests", "expect") => json!({"anyOf": [
            {"type": "array", "items": text()}, {"enum": ["dropped", "returned", "rejected", "dead_lettered"]}, of("expect of tests"),
        ]}),
        ("properties of tests", "delivery_mode" | "priority" | "timestamp") => number(),
        ("expect of tests", "queues" | "dead_lettered") => one_or_many(text()),
        ("expect of tests", "returned") => anything(),
        (_, "arguments" | "headers") => table(),
        (_, "tags" | "cors_allow_origins") => one_or_many(text()),
        (
            _,
            "durable"
            | "auto_delete"
            | "internal"
            | "single_active_consumer"
            | "loopback_only"
            | "mandatory"
            | "body"
            | "required"
            | "proxy_protocol"
            | "per_object"
            | "skip_if_unchanged",
        ) if (section, key) != ("tests", "body") => flag(),
        (_, "cors_max_age_secs") => number(),
        (
            _,
            "owner" | "name" | "vhost" | "exchange" | "routing_key" | "user" | "type" | "description" | "pattern"
            | "alternate_exchange" | "source" | "destination" | "configure" | "write" | "read" | "env" | "file"
            | "hash" | "path" | "plugin" | "script" | "product" | "version" | "cluster_name" | "kind" | "data"
            | "sha256" | "content_type" | "content_encoding" | "correlation_id" | "reply_to" | "expiration"
            | "message_id" | "user_id" | "app_id" | "dropped" | "rejected" | "time_limit" | "memory_limit"
            | "body_bytes_max" | "body",
        ) => text(),
        _ => anything(),
    }
}

#[cfg(test)]
mod tests;
