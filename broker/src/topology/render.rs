//! Users, parameters and vhosts as the text of a topology file. What is read back from the text is what was written.
//!
//! Names and patterns are quoted wherever YAML would read something else, and `${` is written so that it stays what it is. What belongs to a broker and not to
//! what is in it (listeners, plugins, hooks …) is not written.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plugin_api::exchange::DestinationKind;
use plugin_api::value::{Table, Value};
use serde_json::Value as Json;

use super::schema::{
    BindingDecl, ExchangeDecl, ParameterDecl, PasswordDecl, PermissionDecl, QueueDecl, Topology, UserDecl, VhostDecl,
};
use crate::queue::Durability;
use crate::routing::exchange::ALTERNATE_EXCHANGE;
use crate::vhost::policy::{PolicyKind, PolicySpec};
use crate::vhost::queue_arguments::{DEAD_LETTER_EXCHANGE, DURABILITY, QUEUE_TYPE};

/// The text of a file with these users and vhosts, each section as far as `topology` has it.
#[must_use]
pub fn render(topology: &Topology) -> String {
    let mut out = Out::default();
    if topology.owner != super::schema::DEFAULT_OWNER {
        out.line(0, &format!("owner: {}", text(&topology.owner)));
    }
    if topology.sections.contains(&"users") {
        out.section(0, "users", &topology.users, user);
    }
    if topology.sections.contains(&"parameters") {
        out.section(0, "parameters", &topology.parameters, |out, depth, (name, value)| {
            out.line(depth, &format!("{}: {}", text(name), json(value)));
        });
    }
    if topology.sections.contains(&"vhosts") {
        out.section(0, "vhosts", &topology.vhosts, vhost);
    }
    if out.text.is_empty() { "{}\n".to_owned() } else { out.text }
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.text, "{:width$}{text}", "", width = depth * 2);
    }

    /// A key with entries below it, or `{}`.
    fn section<T>(&mut self, depth: usize, key: &str, entries: &[T], each: fn(&mut Self, usize, &T)) {
        if entries.is_empty() {
            return self.line(depth, &format!("{key}: {{}}"));
        }
        self.line(depth, &format!("{key}:"));
        entries.iter().for_each(|entry| each(self, depth + 1, entry));
    }

    fn section_if<T>(&mut self, depth: usize, key: &str, entries: &[T], each: fn(&mut Self, usize, &T)) {
        if !entries.is_empty() {
            self.section(depth, key, entries, each);
        }
    }
}

fn user(out: &mut Out, depth: usize, user: &UserDecl) {
    out.line(depth, &format!("{}:", text(&user.name)));
    let depth = depth + 1;
    match &user.password {
        PasswordDecl::Plain(plain) => out.line(depth, &format!("password: {}", text(plain))),
        PasswordDecl::Hash { hash, .. } if hash.is_empty() => out.line(depth, "password: { hash: \"\" }"),
        PasswordDecl::Hash { hash, algorithm } => {
            out.line(
                depth,
                &format!(
                    "password: {{ hash: {}, algorithm: {} }}",
                    text(hash),
                    algorithm.module_name().trim_start_matches("rabbit_password_hashing_")
                ),
            );
        }
    }
    if !user.tags.is_empty() {
        out.line(depth, &format!("tags: {}", list(&user.tags)));
    }
    if user.loopback_only {
        out.line(depth, "loopback_only: true");
    }
    let limits = user.limits;
    let limits = pairs([("max_connections", limits.max_connections), ("max_channels", limits.max_channels)]);
    if !limits.is_empty() {
        out.line(depth, &format!("limits: {}", flow(&limits)));
    }
    out.section_if(depth, "permissions", &user.permissions, |out, depth, decl: &PermissionDecl| {
        let [configure, write, read] = [&decl.configure, &decl.write, &decl.read].map(|pattern| text(pattern));
        let vhost = text(&decl.vhost);
        out.line(depth, &format!("{vhost}: {{ configure: {configure}, write: {write}, read: {read} }}"));
    });
    let mut vhosts: Vec<&str> = user.topic_permissions.iter().map(|decl| decl.vhost.as_str()).collect();
    vhosts.sort_unstable();
    vhosts.dedup();
    if !vhosts.is_empty() {
        out.line(depth, "topic_permissions:");
    }
    for vhost in vhosts {
        out.line(depth + 1, &format!("{}:", text(vhost)));
        for decl in user.topic_permissions.iter().filter(|decl| decl.vhost == vhost) {
            let [exchange, write, read] = [&decl.exchange, &decl.write, &decl.read].map(|part| text(part));
            out.line(depth + 2, &format!("{exchange}: {{ write: {write}, read: {read} }}"));
        }
    }
}

fn vhost(out: &mut Out, depth: usize, vhost: &VhostDecl) {
    let before = out.text.len();
    out.line(depth, &format!("{}:", text(&vhost.name)));
    let begin = out.text.len();
    let depth = depth + 1;
    if vhost.durability != Durability::default() {
        out.line(depth, &format!("durability: {}", vhost.durability.name()));
    }
    for (key, is_on) in [
        ("tracing", vhost.is_traced),
        ("event_exchange", vhost.has_event_exchange),
        ("log_exchange", vhost.has_log_exchange),
    ] {
        if is_on {
            out.line(depth, &format!("{key}: true"));
        }
    }
    if let Some(metadata) = &vhost.metadata {
        out.line(depth, &format!("description: {}", text(&metadata.description)));
        if !metadata.tags.is_empty() {
            out.line(depth, &format!("tags: {}", list(&metadata.tags)));
        }
        if let Some(kind) = metadata.default_queue_type {
            out.line(depth, &format!("default_queue_type: {}", kind.name()));
        }
    }
    if let Some(limits) = vhost.limits {
        let limits = pairs([("max_connections", limits.max_connections), ("max_queues", limits.max_queues)]);
        out.line(depth, &format!("limits: {}", flow(&limits)));
    }
    for (key, kind) in [("policies", PolicyKind::User), ("operator_policies", PolicyKind::Operator)] {
        let of_kind: Vec<&PolicySpec> =
            vhost.policies.iter().filter(|(of, _)| *of == kind).map(|(_, spec)| spec).collect();
        out.section_if(depth, key, &of_kind, |out, depth, spec| policy(out, depth, spec));
    }
    parameters(out, depth, &vhost.parameters);
    out.section_if(depth, "exchanges", &vhost.exchanges, exchange);
    out.section_if(depth, "queues", &vhost.queues, queue);
    out.section_if(depth, "bindings", &vhost.bindings, binding);
    if out.text.len() == begin {
        out.text.truncate(before);
        out.line(depth - 1, &format!("{}: {{}}", text(&vhost.name)));
    }
}

fn parameters(out: &mut Out, depth: usize, parameters: &[ParameterDecl]) {
    let mut components: Vec<&str> = parameters.iter().map(|decl| decl.component.as_str()).collect();
    components.sort_unstable();
    components.dedup();
    if !components.is_empty() {
        out.line(depth, "parameters:");
    }
    for component in components {
        out.line(depth + 1, &format!("{}:", text(component)));
        for decl in parameters.iter().filter(|decl| decl.component == component) {
            out.line(depth + 2, &format!("{}: {}", text(&decl.name), json(&decl.value)));
        }
    }
}

fn policy(out: &mut Out, depth: usize, spec: &PolicySpec) {
    let mut fields = vec![("pattern", text(&spec.pattern)), ("apply_to", spec.apply_to.name().to_owned())];
    if spec.priority != 0 {
        fields.push(("priority", spec.priority.to_string()));
    }
    fields.push(("definition", json(&Json::Object(spec.definition.clone()))));
    out.line(depth, &format!("{}: {}", text(&spec.name), flow(&fields)));
}

fn exchange(out: &mut Out, depth: usize, exchange: &ExchangeDecl) {
    let mut fields = vec![("type", text(&exchange.kind))];
    if !exchange.durable {
        fields.push(("durable", "false".to_owned()));
    }
    if exchange.auto_delete {
        fields.push(("auto_delete", "true".to_owned()));
    }
    if exchange.internal {
        fields.push(("internal", "true".to_owned()));
    }
    let mut arguments = exchange.arguments.clone();
    if let Some(alternate) = take_text(&mut arguments, ALTERNATE_EXCHANGE) {
        fields.push(("alternate_exchange", text(&alternate)));
    }
    if !arguments.is_empty() {
        fields.push(("arguments", table(&arguments)));
    }
    let name = text(&exchange.name);
    match fields.as_slice() {
        [(_, kind)] => out.line(depth, &format!("{name}: {kind}")),
        _ => out.line(depth, &format!("{name}: {}", flow(&fields))),
    }
}

fn queue(out: &mut Out, depth: usize, queue: &QueueDecl) {
    let mut fields = Vec::new();
    if !queue.durable {
        fields.push(("durable", "false".to_owned()));
    }
    if queue.auto_delete {
        fields.push(("auto_delete", "true".to_owned()));
    }
    let mut arguments = queue.arguments.clone();
    for (key, argument) in [("type", QUEUE_TYPE), ("durability", DURABILITY), ("overflow", "x-overflow")] {
        if let Some(value) = take_text(&mut arguments, argument) {
            fields.push((key, text(&value)));
        }
    }
    for (key, argument) in
        [("ttl", "x-message-ttl"), ("expires", "x-expires"), ("consumer_timeout", "x-consumer-timeout")]
    {
        if let Some(ms) = take_number(&mut arguments, argument) {
            fields.push((key, format!("{ms}ms")));
        }
    }
    for (key, argument) in [
        ("max_length", "x-max-length"),
        ("max_length_bytes", "x-max-length-bytes"),
        ("max_priority", "x-max-priority"),
        ("delivery_limit", "x-delivery-limit"),
    ] {
        if let Some(number) = take_number(&mut arguments, argument) {
            fields.push((key, number.to_string()));
        }
    }
    if let Some(Value::Bool(is_single)) = arguments.get("x-single-active-consumer") {
        fields.push(("single_active_consumer", is_single.to_string()));
        arguments.remove("x-single-active-consumer");
    }
    if let Some(exchange) = take_text(&mut arguments, DEAD_LETTER_EXCHANGE) {
        fields.push(match take_text(&mut arguments, "x-dead-letter-routing-key") {
            None => ("dead_letter", text(&exchange)),
            Some(key) => ("dead_letter", flow(&[("exchange", text(&exchange)), ("routing_key", text(&key))])),
        });
    }
    if !arguments.is_empty() {
        fields.push(("arguments", table(&arguments)));
    }
    out.line(depth, &format!("{}: {}", text(&queue.name), flow(&fields)));
}

fn binding(out: &mut Out, depth: usize, binding: &BindingDecl) {
    let mut fields = vec![("source", text(&binding.source)), ("destination", text(&binding.destination))];
    if binding.destination_kind == DestinationKind::Exchange {
        fields.push(("destination_type", "exchange".to_owned()));
    }
    if !binding.routing_key.is_empty() {
        fields.push(("routing_key", text(&binding.routing_key)));
    }
    if !binding.arguments.is_empty() {
        fields.push(("arguments", table(&binding.arguments)));
    }
    out.line(depth, &format!("- {}", flow(&fields)));
}

/// An argument that has a key of its own, if it is of the type that the key gives it.
fn take_text(arguments: &mut Table, name: &str) -> Option<String> {
    let Some(Value::LongString(bytes)) = arguments.get(name) else { return None };
    let text = String::from_utf8(bytes.clone()).ok()?;
    arguments.remove(name);
    Some(text)
}

/// Whole numbers of any width are equal to the broker, so the key may stand for each; what it would refuse stays an argument.
fn take_number(arguments: &mut Table, name: &str) -> Option<i64> {
    let number = arguments.get(name)?.as_i64().filter(|number| *number > 0)?;
    arguments.remove(name);
    Some(number)
}

fn pairs<const N: usize>(limits: [(&'static str, Option<i64>); N]) -> Vec<(&'static str, String)> {
    limits.into_iter().filter_map(|(name, limit)| Some((name, limit?.to_string()))).collect()
}

fn flow(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| text(item)).collect();
    format!("[{}]", items.join(", "))
}

fn table(arguments: &Table) -> String {
    let entry = |(key, value): (&[u8], &Value)| format!("{}: {}", text(&String::from_utf8_lossy(key)), argument(value));
    let entries: Vec<String> = arguments.iter().map(entry).collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

/// A value with the tag of its type, where YAML has no notation for it.
fn argument(value: &Value) -> String {
    match value {
        Value::Void => "~".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::I8(value) => format!("!i8 {value}"),
        Value::U8(value) => format!("!u8 {value}"),
        Value::I16(value) => format!("!i16 {value}"),
        Value::U16(value) => format!("!u16 {value}"),
        Value::I32(value) => format!("!i32 {value}"),
        Value::U32(value) => format!("!u32 {value}"),
        Value::F32(value) => format!("!f32 {value}"),
        Value::F64(value) => format!("!f64 {value}"),
        Value::Decimal { scale, value } => format!("!decimal {}", decimal(*scale, *value)),
        Value::Timestamp(seconds) => format!("!timestamp {seconds}"),
        Value::Bytes(bytes) => format!("!bytes {}", text(&STANDARD.encode(bytes))),
        Value::LongString(bytes) => match std::str::from_utf8(bytes) {
            Ok(value) => text(value),
            // No text; the nearest that a file can hold.
            Err(_) => format!("!bytes {}", text(&STANDARD.encode(bytes))),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(argument).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(inner) => table(inner),
    }
}

fn decimal(scale: u8, value: u32) -> String {
    let digits = format!("{value:0>width$}", width = usize::from(scale) + 1);
    match digits.split_at_checked(digits.len() - usize::from(scale)) {
        Some((whole, fraction)) if !fraction.is_empty() => format!("{whole}.{fraction}"),
        _ => digits,
    }
}

/// JSON is YAML, but for what this file's reader does with `${`.
fn json(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", text(key), json(value))).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        Json::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        Json::String(value) => text(value),
        other => other.to_string(),
    }
}

/// A text: bare where YAML reads it as the same text, else in quotes.
pub(super) fn text(value: &str) -> String {
    let is_word = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
    let looks_like_something_else = value.starts_with(|char: char| char.is_ascii_digit() || "-.".contains(char))
        || matches!(
            value.to_ascii_lowercase().as_str(),
            "" | "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if value.chars().all(is_word) && !looks_like_something_else {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for char in value.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted.replace("${", "$${")
}

#[cfg(test)]
mod tests;
