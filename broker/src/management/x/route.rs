//! A dry run: `{vhost, exchange, routing_key, properties, payload}` is published as far as routing goes, and no further. The answer says what each step
//! did. Hooks run, because what they do decides the way; they count it as a call.

use plugin_api::exchange::DestinationKind;
use serde_json::{Map, Value as Json, json};

use super::super::body::Fields;
use super::super::call::{Answer, Call};
use super::super::caller::Caller;
use super::super::errors::ApiError;
use super::super::messages;
use super::super::reply::Reply;
use crate::hooks::{Outcome, Publish};
use crate::message::{Message, Parts};
use crate::routing::explain::{Explanation, Step, StepOutcome};
use crate::vhost::Vhost;
use crate::vhost::json_table::table_to_json;
use crate::vhost::publish::extra_keys_of;
use plugin_api::value::Table;

pub(in super::super) fn route(call: &Call) -> Answer {
    let mut fields = call.fields()?;
    let vhost_name = fields.text("vhost")?.unwrap_or("/").to_owned();
    let vhost = call.broker().vhost(&vhost_name).ok_or_else(ApiError::vhost_not_found)?;
    if !call.tags.is_administrator && !call.may_enter(&vhost_name) {
        return Err(ApiError::vhost_not_found());
    }
    let exchange = match fields.text("exchange")?.unwrap_or_default() {
        "amq.default" => String::new(),
        name => name.to_owned(),
    };
    with_defaults(&mut fields);
    let message = messages::message(call, &exchange, &fields)?;
    // The same permissions as for publishing: who asks learns no more than who publishes with `mandatory`.
    let refused = |error| ApiError::of_channel(&error);
    let keys = extra_keys_of(&message).map_err(refused)?;
    let mut all = vec![message.routing_key()];
    all.extend(keys.iter().map(String::as_str));
    let start = vhost.publishable_exchange(&mut Caller::new(call, &vhost), &exchange, &all).map_err(refused)?;
    let (message, hooks, is_over) = run_hooks(call, &vhost, std::sync::Arc::clone(&message));
    let mut answer = json!({"hooks": hooks, "steps": [], "queues": [], "routed": false});
    if !is_over {
        let keys = extra_keys_of(&message).map_err(refused)?;
        let mut all = vec![message.routing_key()];
        all.extend(keys.iter().map(String::as_str));
        let Explanation { steps, queues } = vhost.explain(&start, &message, &all);
        answer["steps"] = steps.iter().map(|step| shown(step, &all)).collect();
        answer["queues"] = queues.iter().map(|queue| json!({"name": queue.name, "vhost": vhost.name})).collect();
        answer["routed"] = json!(!queues.is_empty());
        answer["routing_keys"] = json!(all);
    }
    Ok(Reply::ok(answer))
}

/// What a question need not say.
fn with_defaults(fields: &mut Fields) {
    for (key, value) in [
        ("properties", json!({})),
        ("payload", json!("")),
        ("payload_encoding", json!("string")),
        ("routing_key", json!("")),
    ] {
        fields.0.entry(key).or_insert(value);
    }
}

/// The message behind the hooks, what they did, and whether they ended it.
fn run_hooks(
    call: &Call,
    vhost: &Vhost,
    message: std::sync::Arc<Message>,
) -> (std::sync::Arc<Message>, Vec<Json>, bool) {
    let Some(chain) = call.broker().hooks.chain(&vhost.name, message.exchange()) else {
        return (message, Vec::new(), false);
    };
    let names: Vec<&str> = chain.names().collect();
    let outcome = chain.on_publish(&Publish {
        vhost: &vhost.name,
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        user: &call.user.name,
        properties: message.properties(),
        body: message.body(),
    });
    let before =
        json!({"routing_key": message.routing_key(), "properties": messages::shown_properties(message.properties())});
    match outcome {
        Outcome::Pass => (message, vec![json!({"hooks": names, "outcome": "pass"})], false),
        Outcome::Rewrite { routing_key, properties } => {
            let old = message.parts();
            let parts = Parts {
                routing_key: routing_key.as_deref().unwrap_or(old.routing_key),
                properties: properties.as_deref().unwrap_or(old.properties),
                ..old
            };
            let new = Message::new(parts, message.body());
            let after =
                json!({"routing_key": new.routing_key(), "properties": messages::shown_properties(new.properties())});
            (new, vec![json!({"hooks": names, "outcome": "rewrite", "before": before, "after": after})], false)
        }
        Outcome::Drop { hook, reason } => {
            (message, vec![json!({"hook": hook, "outcome": "drop", "reason": reason})], true)
        }
        Outcome::Reject { hook, reason } => {
            (message, vec![json!({"hook": hook, "outcome": "reject", "reason": reason})], true)
        }
        Outcome::DeadLetter { hook, reason, exchange } => {
            let step = json!({"hook": hook, "outcome": "dead_letter", "reason": reason, "exchange": exchange});
            (message, vec![step], true)
        }
    }
}

fn kind_name(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    }
}

/// Bindings that a step shows; an exchange may have a hundred thousand.
const BINDINGS_MAX: usize = 100;

fn shown(step: &Step, keys: &[&str]) -> Json {
    let mut shown = Map::new();
    shown.insert("exchange".into(), json!(step.exchange.name));
    shown.insert("type".into(), json!(step.exchange.spec.kind));
    let (outcome, to) = match &step.outcome {
        StepOutcome::Routed(to) => {
            let to: Vec<Json> = to.iter().map(|(kind, name)| json!({"type": kind_name(*kind), "name": name})).collect();
            ("routed", json!(to))
        }
        StepOutcome::Alternate(name) => ("alternate", json!([{"type": "exchange", "name": name}])),
        StepOutcome::MissingAlternate(_) | StepOutcome::Nowhere => ("nowhere", json!([])),
        StepOutcome::DependsOnState => ("depends_on_state", json!([])),
        StepOutcome::Failed(_) => ("failed", json!([])),
    };
    shown.insert("outcome".into(), json!(outcome));
    shown.insert("to".into(), to.clone());
    shown.insert("explanation".into(), json!(sentence(step, keys)));
    let is_matched = |kind: DestinationKind, name: &str| {
        let matched = |to: &Json| to["type"] == kind_name(kind) && to["name"] == name;
        outcome == "routed" && to.as_array().is_some_and(|list| list.iter().any(matched))
    };
    let bindings = step.bindings.iter().take(BINDINGS_MAX).map(|binding| {
        let arguments = if binding.arguments.is_empty() {
            Table::new()
        } else {
            Table::decode(&binding.arguments).unwrap_or_default()
        };
        json!({
            "destination": binding.destination,
            "destination_type": kind_name(binding.destination_kind),
            "routing_key": binding.routing_key,
            "arguments": table_to_json(&arguments),
            "destination_reached": is_matched(binding.destination_kind, &binding.destination),
        })
    });
    shown.insert("bindings".into(), bindings.collect());
    shown.insert("binding_count".into(), json!(step.bindings.len()));
    Json::Object(shown)
}

fn sentence(step: &Step, keys: &[&str]) -> String {
    let (name, kind, count) = (&step.exchange.name, &step.exchange.spec.kind, step.bindings.len());
    let keys = keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    match &step.outcome {
        StepOutcome::Routed(to) if step.exchange.is_default() => {
            format!("the default exchange goes by the name of the queue: {} found", to.len())
        }
        StepOutcome::Routed(to) => {
            format!("exchange '{name}' ({kind}) with key {keys}: {} of the destinations of {count} bindings", to.len())
        }
        StepOutcome::Alternate(alternate) => {
            format!(
                "none of {count} bindings of exchange '{name}' matches key {keys}, so its alternate exchange '{alternate}' is asked"
            )
        }
        StepOutcome::MissingAlternate(alternate) => {
            format!(
                "none of {count} bindings of exchange '{name}' matches key {keys}, and its alternate exchange '{alternate}' does not exist"
            )
        }
        StepOutcome::Nowhere if step.exchange.is_default() => format!("there is no queue of the name {keys}"),
        StepOutcome::Nowhere => format!(
            "none of {count} bindings of exchange '{name}' ({kind}) matches key {keys}, and it has no alternate exchange"
        ),
        StepOutcome::DependsOnState => {
            format!(
                "exchange '{name}' is of type {kind}, which decides by a state of its own; asking would change that, so it was not asked"
            )
        }
        StepOutcome::Failed(error) => format!("exchange '{name}' ({kind}) has failed: {error}"),
    }
}
