//! Topology files: what the broker has as one, what one would change, and changing it.
//!
//! A file comes as text, with everything put in that it refers to: no file of the broker's machine and none of its variables is read for whoever asks. A plan has a
//! fingerprint; who applies gives it back, and is refused if what would be done has become another.

use axum::http::StatusCode;
use serde_json::{Value as Json, json};

use super::super::body::Fields;
use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::reply::Reply;
use crate::config;
use crate::origin::Origin;
use crate::runtime::hands::BrokerHands;
use crate::topology::plan::{Plan, Prune, Wish, carry_out, marks};
use crate::topology::render::render;
use crate::topology::schema::Topology;
use crate::topology::snapshot::{snapshot, without_servers_queues};

/// Everything but messages as a file, and who has declared what.
pub(in super::super) fn show(call: &Call) -> Answer {
    let broker = call.broker();
    let only = call.query("vhost");
    if let Some(name) = only
        && broker.vhost(name).is_none()
    {
        return Err(ApiError::vhost_not_found());
    }
    let mut topology = snapshot(&broker.access, &broker.vhosts, only);
    let mut notes = without_servers_queues(&mut topology);
    notes.extend(not_in_files(broker, only));
    let owned: Vec<Json> = marks::all(&broker.vhosts)
        .into_iter()
        .filter(|(object, _)| only.is_none_or(|only| object.vhost() == Some(only)))
        .map(|(object, owners)| json!({"object": object.to_json(), "what": object.to_string(), "owners": owners}))
        .collect();
    Ok(Reply::ok(json!({"topology": render(&topology), "owned": owned, "notes": notes})))
}

/// What a broker can have and no file can declare.
fn not_in_files(broker: &crate::runtime::Broker, only: Option<&str>) -> Vec<String> {
    let vhosts = broker.vhosts.list();
    let vhosts = vhosts.iter().filter(|vhost| only.is_none_or(|only| *vhost.name == *only));
    let is_protected = vhosts.filter(|vhost| vhost.metadata().protected_from_deletion);
    is_protected
        .map(|vhost| format!("vhost '{}' is protected from deletion, which files cannot say", vhost.name))
        .collect()
}

pub(in super::super) fn plan(call: &Call) -> Answer {
    let Asked { topology, wish, warnings, .. } = Asked::read(call)?;
    let broker = call.broker();
    let _turn = broker.applying.lock();
    let hands = BrokerHands(broker);
    let mut answer = Plan::make(&topology, &hands.target(), wish).to_json();
    answer["warnings"] = json!(warnings);
    Ok(Reply::ok(answer))
}

pub(in super::super) fn apply(call: &Call) -> Answer {
    let Asked { topology, wish, fingerprint, .. } = Asked::read(call)?;
    let fingerprint = fingerprint.ok_or_else(|| ApiError::keys_missing(&["fingerprint"]))?;
    let broker = call.broker();
    let _turn = broker.applying.lock();
    let hands = BrokerHands(broker);
    let target = hands.target();
    let plan = Plan::make(&topology, &target, wish);
    if plan.fingerprint() != fingerprint {
        let text = "something has changed since the plan was made: make another one";
        return Err(ApiError::precondition_failed(text).with("fingerprint", plan.fingerprint()));
    }
    let refusals = plan.refusals();
    if !refusals.is_empty() {
        return Err(conflict(refusals.join("\n")));
    }
    let result = carry_out(&plan, &topology, &target, wish);
    tracing::info!(user = call.user.name, owner = topology.owner, changes = result.done.len(), "topology applied");
    if let Some(failed) = result.failed {
        tracing::error!(user = call.user.name, done = result.done.len(), left = result.left.len(), "{failed}");
        let text = format!(
            "not all was done. Failed: {failed}. Done before: {}. Not tried: {}",
            list(&result.done),
            list(&result.left)
        );
        return Err(conflict(text).with("done", result.done).with("left", result.left));
    }
    Ok(Reply::ok(json!({"done": result.done, "notes": plan.notes})).when_all_stored())
}

fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "conflict", text)
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}

/// What the body asks for.
struct Asked {
    topology: Topology,
    wish: Wish,
    fingerprint: Option<String>,
    warnings: Vec<String>,
}

impl Asked {
    fn read(call: &Call) -> Result<Self, ApiError> {
        let fields: Fields = call.fields()?;
        let [text] = fields.require(["topology"])?;
        let text = text.as_str().ok_or_else(|| super::super::body::wrong("topology", "the text of a file", text))?;
        let lines = |diagnostics: &[config::Diagnostic]| -> Vec<String> {
            diagnostics.iter().map(ToString::to_string).collect()
        };
        let loaded = config::load_text("topology", text)
            .map_err(|diagnostics| ApiError::bad_request(lines(&diagnostics).join("\n")))?;
        let registry = call.broker().vhosts.registry();
        let mut mistakes = loaded.check_exchange_types(&registry.exchange_type_names());
        mistakes.extend(loaded.judge_exchanges(registry, crate::topology::check::Types::All));
        if !mistakes.is_empty() {
            return Err(ApiError::bad_request(lines(&mistakes).join("\n")));
        }
        let is_pruning = fields.flag("prune")?.unwrap_or(false);
        let wish = Wish {
            prune: if is_pruning { Prune::Everything } else { Prune::Nothing },
            force: fields.flag("force")?.unwrap_or(false),
            origin: Origin::Runtime,
        };
        let fingerprint = fields.text("fingerprint")?.map(str::to_owned);
        Ok(Self { warnings: lines(&loaded.warnings), topology: loaded.topology, wish, fingerprint })
    }
}
