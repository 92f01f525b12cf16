//! Bindings, and the keys by which paths name them.
//!
//! The default exchange has no bindings of its own, so those that lists show of it are made up from the names of queues, as in RabbitMQ.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plugin_api::exchange::{BindingSpec, DestinationKind};
use plugin_api::value::Table;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use super::{paths, queues};
use crate::routing::exchange::Identity;
use crate::vhost::Vhost;
use crate::vhost::json_table::table_to_json;

/// A binding as lists have it.
struct Row {
    vhost: Arc<str>,
    source: Arc<str>,
    identity: Identity,
    properties_key: String,
}

impl Row {
    fn new(vhost: &Vhost, source: &Arc<str>, identity: Identity) -> Self {
        let properties_key = properties_key(&identity.routing_key, &identity.arguments);
        Self { vhost: Arc::clone(&vhost.name), source: Arc::clone(source), identity, properties_key }
    }

    fn shown(&self) -> Json {
        json!({
            "source": self.source.as_ref(),
            "vhost": self.vhost.as_ref(),
            "destination": self.identity.destination,
            "destination_type": kind_name(self.identity.destination_kind),
            "routing_key": self.identity.routing_key,
            "arguments": table_to_json(&decoded(&self.identity.arguments)),
            "properties_key": self.properties_key,
        })
    }

    fn order(&self) -> (&str, &str, &str, &str, &str) {
        let identity = &self.identity;
        let kind = kind_name(identity.destination_kind);
        (&self.source, kind, &identity.destination, &identity.routing_key, &self.properties_key)
    }
}

fn kind_name(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    }
}

fn decoded(arguments: &[u8]) -> Table {
    if arguments.is_empty() { Table::new() } else { Table::decode(arguments).unwrap_or_default() }
}

/// What tells bindings between the same ends apart: the key as in forms, and behind `~` six characters of a hash of the arguments.
pub(super) fn properties_key(routing_key: &str, arguments: &[u8]) -> String {
    match (routing_key.is_empty(), arguments.is_empty()) {
        (true, true) => "~".to_owned(),
        (_, true) => paths::encode_form(routing_key),
        (_, false) => format!("{}~{}", paths::encode_form(routing_key), arguments_hash(arguments)),
    }
}

/// Clients take it as it is; it has to stay the same for the same arguments.
fn arguments_hash(arguments: &[u8]) -> String {
    let digest = Sha256::digest(arguments);
    URL_SAFE_NO_PAD.encode(digest.get(..4).unwrap_or_default())
}

/// All bindings of a vhost for which `is_wanted` says yes to source and identity.
fn collect(vhost: &Vhost, is_wanted: impl Fn(&str, &Identity) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let default: Arc<str> = "".into();
    for queue in vhost.queues() {
        let identity = Identity {
            destination_kind: DestinationKind::Queue,
            destination: queue.name.as_ref().into(),
            routing_key: queue.name.as_ref().into(),
            arguments: Box::default(),
        };
        if is_wanted("", &identity) {
            rows.push(Row::new(vhost, &default, identity));
        }
    }
    for exchange in vhost.exchanges() {
        let identities = exchange.bindings().into_iter().filter(|identity| is_wanted(&exchange.name, identity));
        rows.extend(identities.map(|identity| Row::new(vhost, &exchange.name, identity)));
    }
    rows.sort_by(|a, b| a.order().cmp(&b.order()));
    rows
}

fn answer(call: &Call, rows: Vec<Row>) -> Answer {
    lists::list(call, Paging::None, rows, |row| &row.source, Row::shown)
}

pub(super) fn list(call: &Call) -> Answer {
    let vhosts = call.listed_vhosts()?;
    answer(call, vhosts.iter().flat_map(|vhost| collect(vhost, |_, _| true)).collect())
}

// Of a queue or exchange that does not exist there are none, as in RabbitMQ: tools look whether something is bound before they delete it.

pub(super) fn from_exchange(call: &Call) -> Answer {
    let (vhost, exchange) = (call.vhost()?, call.named_exchange("exchange"));
    answer(call, collect(&vhost, |source, _| source == exchange))
}

pub(super) fn to_exchange(call: &Call) -> Answer {
    let (vhost, exchange) = (call.vhost()?, call.named_exchange("exchange"));
    answer(call, collect(&vhost, |_, identity| leads_to(identity, DestinationKind::Exchange, exchange)))
}

pub(super) fn to_queue(call: &Call) -> Answer {
    let (vhost, queue) = (call.vhost()?, call.named("queue"));
    answer(call, collect(&vhost, |_, identity| leads_to(identity, DestinationKind::Queue, queue)))
}

fn leads_to(identity: &Identity, kind: DestinationKind, name: &str) -> bool {
    identity.destination_kind == kind && *identity.destination == *name
}

/// Source and destination that the path names.
struct Ends<'a> {
    source: &'a str,
    kind: DestinationKind,
    destination: &'a str,
}

impl<'a> Ends<'a> {
    fn named(call: &'a Call) -> Result<Self, ApiError> {
        let (kind, destination) = match call.named("kind") {
            "q" => (DestinationKind::Queue, call.named("destination")),
            "e" => (DestinationKind::Exchange, call.named_exchange("destination")),
            _ => return Err(ApiError::object_not_found()),
        };
        Ok(Self { source: call.named_exchange("source"), kind, destination })
    }

    fn rows(&self, vhost: &Vhost) -> Vec<Row> {
        collect(vhost, |source, identity| source == self.source && leads_to(identity, self.kind, self.destination))
    }
}

pub(super) fn between(call: &Call) -> Answer {
    let (vhost, ends) = (call.vhost()?, Ends::named(call)?);
    answer(call, ends.rows(&vhost))
}

pub(super) fn post(call: &Call) -> Answer {
    let (vhost, ends, fields) = (call.vhost_to_change()?, Ends::named(call)?, call.fields()?);
    let binding = BindingSpec {
        destination: ends.destination.to_owned(),
        destination_kind: ends.kind,
        routing_key: fields.text("routing_key")?.unwrap_or_default().to_owned(),
        arguments: fields.arguments("arguments")?,
    };
    queues::check_name(&binding.routing_key)?;
    let changed = vhost.bind(&mut call.by(&vhost), ends.source, &binding)?;
    let identity = Identity::of(&binding);
    let key = properties_key(&identity.routing_key, &identity.arguments);
    let location = format!("{}/{}", paths::encode(call.named("destination")), paths::encode(&key));
    Ok(Reply::empty(StatusCode::CREATED).header(LOCATION, &location).when_stored(changed))
}

/// The binding that the path names by its properties key, in whichever way the key is encoded.
fn named(call: &Call) -> Result<(Arc<Vhost>, Row), ApiError> {
    let (vhost, ends) = (call.vhost()?, Ends::named(call)?);
    let props = call.named("props");
    let mut parts = props.split('~');
    let (key, hash) = match (parts.next(), parts.next(), parts.next()) {
        (Some(""), Some(""), None) => ("", None),
        (Some(key), hash, None) => (key, hash.filter(|hash| !hash.is_empty())),
        _ => return Err(ApiError::bad_request(format!("{{too_many_tokens,<<\"{props}\">>}}"))),
    };
    let key = paths::decode_form(key).ok_or_else(ApiError::object_not_found)?;
    let is_named = |row: &Row| {
        let arguments = &row.identity.arguments;
        let has_hash = match hash {
            Some(hash) => !arguments.is_empty() && arguments_hash(arguments) == hash,
            None => arguments.is_empty(),
        };
        *row.identity.routing_key == *key && has_hash
    };
    let row = ends.rows(&vhost).into_iter().find(is_named).ok_or_else(ApiError::object_not_found)?;
    Ok((vhost, row))
}

pub(super) fn get(call: &Call) -> Answer {
    lists::one(call, named(call)?.1.shown())
}

pub(super) fn delete(call: &Call) -> Answer {
    let (vhost, row) = named(call)?;
    let binding = BindingSpec {
        destination: row.identity.destination.to_string(),
        destination_kind: row.identity.destination_kind,
        routing_key: row.identity.routing_key.to_string(),
        arguments: decoded(&row.identity.arguments),
    };
    let changed = vhost.unbind(&mut call.by(&vhost), &row.source, &binding)?;
    Ok(Reply::done().when_stored(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_bindings_are_as_in_forms() {
        assert_eq!(properties_key("", &[]), "~");
        assert_eq!(properties_key("a b", &[]), "a+b");
        assert_eq!(properties_key("a~b/+", &[]), "a%7Eb%2F%2B");
        let with_arguments = properties_key("k", b"x");
        assert_eq!((with_arguments.len(), with_arguments.starts_with("k~")), (8, true));
        assert_ne!(with_arguments, properties_key("k", b"y"));
        assert!(properties_key("", b"x").starts_with('~'));
    }
}
