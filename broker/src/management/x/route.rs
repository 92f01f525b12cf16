//! A dry run: `{vhost, exchange, routing_key, properties, payload}` is published as far as routing goes, and no further. The answer says what each step
//! did.

use serde_json::json;

use super::super::body::Fields;
use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::messages;
use super::super::reply::Reply;
use crate::dry_run::{dry_run, to_json};
use crate::routing::explain::Asking;

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
    let mut caller = call.by(&vhost);
    let run = dry_run(&vhost, &call.broker().hooks.current(), &mut caller, message, Asking::Carefully)
        .map_err(|error| ApiError::of_channel(&error))?;
    Ok(Reply::ok(to_json(&run, &vhost.name)))
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
