//! What a scenario's vhost and users are set to: policies, limits, topic permissions.
//!
//! Policies in the head of a file are there from the start; behind the first step they are set while the scenario runs.

use super::literal::{Literal, Variables};
use super::parse::Fields;
use crate::wire::value::Value;
use serde_json::{Map, Value as Json, json};

/// A policy or operator policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub is_operator: bool,
    pub name: String,
    pub pattern: String,
    pub apply_to: String,
    pub priority: i64,
    pub definition: Map<String, Json>,
}

/// Everything that a scenario asks for beside users with permissions.
#[derive(Debug, Default)]
pub struct Settings {
    pub policies: Vec<Policy>,
    /// `max-connections`, `max-queues`.
    pub limits: Map<String, Json>,
    /// User, exchange, write, read.
    pub topics: Vec<(String, String, [String; 2])>,
    /// User, then `max-connections`, `max-channels`.
    pub user_limits: Vec<(String, Map<String, Json>)>,
}

impl Policy {
    /// `NAME pattern=… definition={…}`, and `apply-to=`, `priority=` where they are not the default.
    pub fn parse(name: &str, fields: &Fields, is_operator: bool) -> Result<Self, String> {
        let text = |wanted: &str| match find(fields, wanted) {
            Some(literal) => literal.to_text(&Variables::new()).map(Some),
            None => Ok(None),
        };
        check_names(fields, &["pattern", "definition", "apply-to", "priority"])?;
        let priority = text("priority")?.unwrap_or_else(|| "0".to_owned());
        Ok(Self {
            is_operator,
            name: name.to_owned(),
            pattern: text("pattern")?.ok_or("pattern= is missing")?,
            apply_to: text("apply-to")?.unwrap_or_else(|| "all".to_owned()),
            priority: priority.parse().map_err(|_| format!("{priority} is no priority"))?,
            definition: match find(fields, "definition").ok_or("definition= is missing")?.to_value(&Variables::new())? {
                Value::Table(table) => {
                    table.iter().map(|(key, value)| Ok((lossy(key), json_of(value)?))).collect::<Result<_, String>>()?
                }
                other => return Err(format!("a definition is a table, not {other}")),
            },
        })
    }

    /// As RabbitMQ's definitions have it, with or without name and vhost.
    pub fn to_json(&self) -> Map<String, Json> {
        let body = json!({
            "pattern": self.pattern, "apply-to": self.apply_to, "priority": self.priority, "definition": self.definition,
        });
        match body {
            Json::Object(body) => body,
            _ => unreachable!("an object was written"),
        }
    }
}

/// Numbers by name.
pub fn parse_limits(fields: &Fields, names: &[&str]) -> Result<Map<String, Json>, String> {
    check_names(fields, names)?;
    fields
        .iter()
        .map(|(name, literal)| {
            let text = literal.to_text(&Variables::new())?;
            let number: i64 = text.parse().map_err(|_| format!("{text} is no number"))?;
            Ok((name.clone(), json!(number)))
        })
        .collect()
}

fn check_names(fields: &Fields, names: &[&str]) -> Result<(), String> {
    match fields.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) => Err(format!("{name} is not one of {}", names.join(", "))),
        None => Ok(()),
    }
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a Literal> {
    fields.iter().find(|(field, _)| field == name).map(|(_, literal)| literal)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_of(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Text(text) => Json::String(lossy(text)),
        Value::Bool(value) => Json::Bool(*value),
        other => {
            let text = other.to_string();
            Json::from(text.parse::<i64>().map_err(|_| format!("{text} is no value of a policy"))?)
        }
    })
}
