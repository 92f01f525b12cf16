//! Everything but messages, out and in: whole, or one vhost (semantics 28). What is judged and carried out stands in `topology/definitions`.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::multipart;
use super::reply::Reply;
use crate::topology::definitions::{Import, Mistake, Product, Scope, export as exported, read};

pub(super) fn export(call: &Call) -> Answer {
    answer(call, None)
}

/// A vhost that is not there is a bad request here, as in RabbitMQ.
pub(super) fn export_vhost(call: &Call) -> Answer {
    let name = call.named("v");
    if call.broker().vhost(name).is_none() {
        return Err(ApiError::bad_request("vhost_not_found"));
    }
    answer(call, Some(name))
}

fn answer(call: &Call, only: Option<&str>) -> Answer {
    let broker = call.broker();
    let product = Product { name: &broker.identity.product, version: &broker.identity.version };
    let mut definitions = exported(&broker.access, &broker.vhosts, &product, only);
    if let Some(object) = definitions.as_object_mut() {
        describe(call, object, only);
    }
    let reply = Reply::ok(definitions);
    // What is no token is no name of a file that a header could carry.
    let is_token = |name: &&str| {
        !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char))
    };
    Ok(match call.query("download").filter(is_token) {
        Some(name) => reply.header(CONTENT_DISPOSITION, &format!("attachment; filename={name}")),
        None => reply,
    })
}

/// What RabbitMQ 4 says of the file itself.
fn describe(call: &Call, object: &mut serde_json::Map<String, Json>, only: Option<&str>) {
    let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
    let Some(vhost) = only.and_then(|name| call.broker().vhost(name)) else {
        let name = call.broker().cluster_name();
        put("rabbitmq_definition_format", json!("cluster"));
        put("explanation", json!(format!("Definitions of cluster '{name}'")));
        put("original_cluster_name", json!(name));
        return;
    };
    let metadata = vhost.metadata();
    put("rabbitmq_definition_format", json!("single_virtual_host"));
    put("original_vhost_name", json!(vhost.name.as_ref()));
    put("explanation", json!(format!("Definitions of virtual host '{}'", vhost.name)));
    put("description", json!(metadata.description));
    put("metadata", json!({"description": metadata.description, "tags": metadata.tags}));
    put("limits", Json::Object(vhost.limits().to_json()));
}

pub(super) fn import(call: &Call) -> Answer {
    carry_out(call, Scope::Broker)
}

pub(super) fn import_vhost(call: &Call) -> Answer {
    let vhost = call.vhost_to_change()?;
    carry_out(call, Scope::Vhost(&vhost.name))
}

/// Everything is judged before anything is changed.
fn carry_out(call: &Call, scope: Scope<'_>) -> Answer {
    let kind = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = multipart::read(kind, &call.body)?;
    let (text, redirect) = match &form {
        None => (call.body.as_ref(), None),
        Some(form) => {
            let file = form.get("file").ok_or_else(|| ApiError::bad_request("the form has no field 'file'"))?;
            (file, form.get("redirect").and_then(|to| std::str::from_utf8(to).ok()))
        }
    };
    if !serde_json::from_slice::<Json>(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text))
        .is_ok_and(|json| json.is_object())
    {
        return Err(ApiError::bad_request("failed_to_parse_json"));
    }
    let definitions = read(text, scope).map_err(|mistakes| refused(&mistakes))?;
    let broker = call.broker();
    let import = Import { access: &broker.access, vhosts: &broker.vhosts };
    let imported = import.run(definitions).map_err(|mistakes| refused(&mistakes))?;
    for note in &imported.notes {
        tracing::warn!(user = call.user.name, "{note}");
    }
    tracing::info!(user = call.user.name, "imported {imported}");
    let reply = match redirect {
        Some(to) => Reply::empty(StatusCode::SEE_OTHER).header(LOCATION, to),
        None => Reply::done(),
    };
    Ok(reply.when_all_stored())
}

fn refused(mistakes: &[Mistake]) -> ApiError {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    ApiError::bad_request(lines.join("\n"))
}
