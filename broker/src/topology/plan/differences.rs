//! How one declared object differs from what is there, field by field. Without the other one: what it has.

use std::collections::BTreeSet;

use plugin_api::value::{Table, Value};
use serde_json::{Map, Value as Json, json};

use super::Difference;
use crate::access::PasswordHash;
use crate::topology::schema::{
    ExchangeDecl, PasswordDecl, PermissionDecl, QueueDecl, TopicPermissionDecl, UserDecl, UserLimitsDecl, VhostDecl,
};
use crate::vhost::arguments::same;
use crate::vhost::json_table::table_to_json;
use crate::vhost::policy::PolicySpec;
use crate::vhost::queue_arguments::{DURABILITY, QUEUE_TYPE};
use crate::vhost::settings::{VhostLimits, VhostMetadata, limits_to_json};

/// Collects what differs.
#[derive(Default)]
struct Fields(Vec<Difference>);

impl Fields {
    fn add(&mut self, field: &str, before: Json, after: Json) {
        if before != after {
            self.0.push(Difference { field: field.to_owned(), before, after });
        }
    }

    /// A field with a default, which a new object need not show.
    fn with_default(&mut self, field: &str, before: Option<Json>, after: Json, default: Json) {
        match before {
            None if after == default => {}
            before => self.add(field, before.unwrap_or(Json::Null), after),
        }
    }

    fn arguments(&mut self, before: Option<&Table>, after: &Table, is_equal: impl Fn(&str) -> bool) {
        let names = before.into_iter().chain([after]).flat_map(Table::iter);
        let names: BTreeSet<String> = names.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        for name in names {
            let old = before.and_then(|before| before.get(&name));
            let new = after.get(&name);
            let is_same = same(old, new) || before.is_some() && is_equal(&name);
            if !is_same {
                self.add_value(&format!("arguments.{name}"), shown(old), shown(new));
            }
        }
    }

    /// Types that JSON does not have may look alike and differ all the same.
    fn add_value(&mut self, field: &str, before: Json, after: Json) {
        self.0.push(Difference { field: field.to_owned(), before, after });
    }
}

fn shown(value: Option<&Value>) -> Json {
    let table = value.map(|value| table_to_json(&Table::new().with("v", value.clone())));
    table.and_then(|mut table| table.remove("v")).unwrap_or_default()
}

pub(super) fn exchange(before: Option<&ExchangeDecl>, after: &ExchangeDecl) -> Vec<Difference> {
    let mut fields = Fields::default();
    fields.add("type", before.map_or(Json::Null, |before| json!(before.kind)), json!(after.kind));
    fields.with_default("durable", before.map(|before| json!(before.durable)), json!(after.durable), json!(true));
    let auto_delete = before.map(|before| json!(before.auto_delete));
    fields.with_default("auto_delete", auto_delete, json!(after.auto_delete), json!(false));
    fields.with_default("internal", before.map(|before| json!(before.internal)), json!(after.internal), json!(false));
    fields.arguments(before.map(|before| &before.arguments), &after.arguments, |_| false);
    fields.0
}

/// A type that the file does not give is whatever the vhost gave the queue when it was made. `durability` is that of queues which have none of their own.
pub(super) fn queue(before: Option<&QueueDecl>, after: &QueueDecl, durability: &str) -> Vec<Difference> {
    let mut fields = Fields::default();
    fields.with_default("durable", before.map(|before| json!(before.durable)), json!(after.durable), json!(true));
    let auto_delete = before.map(|before| json!(before.auto_delete));
    fields.with_default("auto_delete", auto_delete, json!(after.auto_delete), json!(false));
    let text = |table: &Table, name: &str, otherwise: &str| match table.get(name) {
        None => otherwise.to_owned(),
        Some(value) => value.as_str().unwrap_or_default().to_owned(),
    };
    let is_equal = |name: &str| {
        let Some(before) = before else { return false };
        let equal = |otherwise| text(&before.arguments, name, otherwise) == text(&after.arguments, name, otherwise);
        match name {
            QUEUE_TYPE => after.arguments.get(QUEUE_TYPE).is_none() || equal("classic"),
            DURABILITY => equal(durability),
            _ => false,
        }
    };
    fields.arguments(before.map(|before| &before.arguments), &after.arguments, is_equal);
    fields.0
}

pub(super) fn policy(before: Option<&PolicySpec>, after: &PolicySpec) -> Vec<Difference> {
    let mut fields = Fields::default();
    fields.add("pattern", before.map_or(Json::Null, |before| json!(before.pattern)), json!(after.pattern));
    let apply_to = before.map(|before| json!(before.apply_to.name()));
    fields.with_default("apply_to", apply_to, json!(after.apply_to.name()), json!("all"));
    fields.with_default("priority", before.map(|before| json!(before.priority)), json!(after.priority), json!(0));
    maps(&mut fields, "definition.", before.map(|before| &before.definition), &after.definition);
    fields.0
}

fn maps(fields: &mut Fields, prefix: &str, before: Option<&Map<String, Json>>, after: &Map<String, Json>) {
    let keys: BTreeSet<&String> = before.into_iter().flat_map(Map::keys).chain(after.keys()).collect();
    for key in keys {
        let old = before.and_then(|before| before.get(key)).cloned().unwrap_or_default();
        fields.add(&format!("{prefix}{key}"), old, after.get(key).cloned().unwrap_or_default());
    }
}

/// Values often hold addresses with passwords, which no plan shows.
pub(super) fn parameter(before: Option<&Json>, after: &Json) -> Vec<Difference> {
    let mut fields = Fields::default();
    if before != Some(after) {
        fields.add_value("value", before.map_or(Json::Null, without_passwords), without_passwords(after));
    }
    fields.0
}

fn without_passwords(value: &Json) -> Json {
    match value {
        Json::String(text) => Json::from(without_password(text)),
        Json::Array(items) => items.iter().map(without_passwords).collect(),
        Json::Object(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.clone(), without_passwords(value))).collect())
        }
        other => other.clone(),
    }
}

/// `amqp://user:…@host`.
fn without_password(text: &str) -> String {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        let (login, address) = rest.split_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:…@{address}"))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

pub(super) fn limits(before: VhostLimits, after: VhostLimits) -> Vec<Difference> {
    let mut fields = Fields::default();
    let shown = |limits: VhostLimits| {
        limits_to_json([("max_connections", limits.max_connections), ("max_queues", limits.max_queues)])
    };
    maps(&mut fields, "", Some(&shown(before)), &shown(after));
    fields.0
}

/// What the file says of a vhost itself. What it does not say is not compared.
pub(super) fn vhost(before: Option<(&VhostMetadata, bool)>, after: &VhostDecl) -> Vec<Difference> {
    let mut fields = Fields::default();
    if let Some(metadata) = &after.metadata {
        let old = before.map(|(metadata, _)| metadata);
        let description = old.map(|old| json!(old.description));
        fields.with_default("description", description, json!(metadata.description), json!(""));
        fields.with_default("tags", old.map(|old| json!(old.tags)), json!(metadata.tags), json!([]));
        let kind = |metadata: &VhostMetadata| json!(metadata.default_queue_type.map(|kind| kind.name()));
        fields.with_default("default_queue_type", old.map(kind), kind(metadata), Json::Null);
    }
    if after.is_traced {
        let is_traced = before.map(|(_, is_traced)| json!(is_traced));
        fields.with_default("tracing", is_traced, json!(true), json!(false));
    }
    fields.0
}

/// Passwords are only said to differ.
pub(super) fn user(before: Option<&UserDecl>, after: &UserDecl) -> Vec<Difference> {
    let mut fields = Fields::default();
    let hash = before.and_then(|before| match &before.password {
        PasswordDecl::Hash { hash, algorithm } => PasswordHash::parse(hash, *algorithm).ok(),
        PasswordDecl::Plain(_) => None,
    });
    let what = |has_one: bool| json!(if has_one { "(a password)" } else { "(none)" });
    let has_new = !matches!(&after.password, PasswordDecl::Hash { hash, .. } if hash.is_empty());
    match before {
        None => fields.add("password", Json::Null, what(has_new)),
        Some(_) if after.password.is(hash.as_ref()) => {}
        Some(_) => {
            let new = if has_new { json!("(another password)") } else { what(false) };
            fields.add("password", what(hash.is_some()), new);
        }
    }
    fields.with_default("tags", before.map(|before| json!(before.tags)), json!(after.tags), json!([]));
    let loopback_only = before.map(|before| json!(before.loopback_only));
    fields.with_default("loopback_only", loopback_only, json!(after.loopback_only), json!(false));
    let limits = |limits: UserLimitsDecl| {
        limits_to_json([("max_connections", limits.max_connections), ("max_channels", limits.max_channels)])
    };
    maps(&mut fields, "limits.", before.map(|before| limits(before.limits)).as_ref(), &limits(after.limits));
    fields.0
}

pub(super) fn permission(before: Option<&PermissionDecl>, after: &PermissionDecl) -> Vec<Difference> {
    let mut fields = Fields::default();
    for (field, of) in [
        ("configure", (|decl| &decl.configure) as fn(&PermissionDecl) -> &String),
        ("write", |decl| &decl.write),
        ("read", |decl| &decl.read),
    ] {
        fields.with_default(field, before.map(|before| json!(of(before))), json!(of(after)), json!(""));
    }
    fields.0
}

pub(super) fn topic_permission(before: Option<&TopicPermissionDecl>, after: &TopicPermissionDecl) -> Vec<Difference> {
    let mut fields = Fields::default();
    for (field, of) in
        [("write", (|decl| &decl.write) as fn(&TopicPermissionDecl) -> &String), ("read", |decl| &decl.read)]
    {
        fields.with_default(field, before.map(|before| json!(of(before))), json!(of(after)), json!(""));
    }
    fields.0
}
