//! A dry run as JSON, which the management API answers and the command line shows.

use plugin_api::exchange::DestinationKind;
use plugin_api::value::Table;
use serde_json::{Map, Value as Json, json};

use super::{DryRun, HookStep, reasons};
use crate::hooks::{Judgement, Outcome};
use crate::message::Message;
use crate::routing::explain::{Step, StepOutcome};
use crate::vhost::json_properties::shown_properties;
use crate::vhost::json_table::table_to_json;

/// The whole of it; `vhost` is where it was.
#[must_use]
pub fn to_json(run: &DryRun, vhost: &str) -> Json {
    let hooks: Vec<Json> = run.hooks.iter().map(hook).collect();
    let mut answer = json!({
        "hooks": hooks, "steps": [], "queues": [], "routed": false,
        "dead_letter_exchange": run.dead_letter_exchange, "dead_letter_lost": run.is_dead_letter_lost(),
    });
    if let Some(way) = &run.way {
        let keys: Vec<&str> = run.keys.iter().map(String::as_str).collect();
        answer["steps"] = way.steps.iter().map(|step| shown(step, &keys, &run.message)).collect();
        answer["queues"] = way.queues.iter().map(|queue| json!({"name": queue.name, "vhost": vhost})).collect();
        answer["routed"] = json!(!way.queues.is_empty());
        answer["routing_keys"] = json!(keys);
    }
    answer
}

fn hook(step: &HookStep) -> Json {
    let HookStep { judgement: Judgement { hook, is_shadow, outcome, failure }, before, after } = step;
    let mut shown =
        json!({"hook": hook, "hooks": [hook], "shadow": is_shadow, "failure": failure, "before": message(before)});
    let word = match outcome {
        Outcome::Pass => "pass",
        Outcome::Rewrite { .. } => {
            shown["after"] = after.as_deref().map(message).unwrap_or_default();
            "rewrite"
        }
        Outcome::Drop { reason, .. } => {
            shown["reason"] = json!(reason);
            "drop"
        }
        Outcome::Reject { reason, .. } => {
            shown["reason"] = json!(reason);
            "reject"
        }
        Outcome::DeadLetter { reason, exchange, .. } => {
            shown["reason"] = json!(reason);
            shown["exchange"] = json!(exchange);
            "dead_letter"
        }
    };
    shown["outcome"] = json!(word);
    shown
}

fn message(message: &Message) -> Json {
    json!({"routing_key": message.routing_key(), "properties": shown_properties(message.properties())})
}

fn kind_name(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    }
}

/// Bindings that a step shows, those that match first; an exchange may have a hundred thousand.
const BINDINGS_MAX: usize = 100;

fn shown(step: &Step, keys: &[&str], message: &Message) -> Json {
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
        StepOutcome::PutOff => ("put_off", json!([])),
        StepOutcome::DependsOnState => ("depends_on_state", json!([])),
        StepOutcome::Failed(_) => ("failed", json!([])),
    };
    shown.insert("outcome".into(), json!(outcome));
    shown.insert("to".into(), to.clone());
    shown.insert("explanation".into(), json!(sentence(step, keys)));
    let is_reached = |kind: DestinationKind, name: &str| {
        let reached = |to: &Json| to["type"] == kind_name(kind) && to["name"] == name;
        outcome == "routed" && to.as_array().is_some_and(|list| list.iter().any(reached))
    };
    let bindings = step.bindings.iter().take(BINDINGS_MAX).map(|binding| {
        let identity = &binding.identity;
        let arguments = Table::decode(&identity.arguments).unwrap_or_default();
        let kind = &step.exchange.spec.kind;
        let why_not =
            (binding.is_match == Some(false)).then(|| reasons::why_not(kind, identity, keys, message.properties()));
        json!({
            "destination": identity.destination,
            "destination_type": kind_name(identity.destination_kind),
            "routing_key": identity.routing_key,
            "arguments": table_to_json(&arguments),
            "matches": binding.is_match,
            "why_not": why_not,
            "destination_reached": is_reached(identity.destination_kind, &identity.destination),
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
        StepOutcome::PutOff => format!("exchange '{name}' ({kind}) puts the message off; it is routed when it is due"),
        StepOutcome::DependsOnState => {
            format!(
                "exchange '{name}' is of type {kind}, which decides by a state of its own; asking would change that, so it was not asked"
            )
        }
        StepOutcome::Failed(error) => format!("exchange '{name}' ({kind}) has failed: {error}"),
    }
}
