//! What tests call hooks with: `publish`, `deliver`, `dead_letter`, `connect` and `declare`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, LuaString, Table, Value};
use plugin_api::message::Properties;

use super::runner::Bench;
use crate::hooks::convert;
use crate::hooks::error::{HookError, did_you_mean};
use crate::hooks::facts::{Binding, Connecting, DeclaredKind, Declaring};
use crate::hooks::fields::{FIELDS, HEADERS};
use crate::hooks::headers::HEADERS_BYTES_MAX;
use crate::hooks::point::Point;
use crate::hooks::sandbox::Sandbox;
use crate::hooks::state::{Decision, Given};
use crate::hooks::view::{Origin, Publish, Rewrite, View};

/// Adds the functions to a sandbox; returns the metatable of what they return.
pub(super) fn add(sandbox: &Sandbox, bench: &Rc<Bench>) -> mlua::Result<Table> {
    let lua = sandbox.lua();
    let results = lua.create_table()?;
    results.raw_set("__index", lua.create_function(unknown_result)?)?;
    for (name, point) in MESSAGES {
        let (of, bench) = (results.clone(), Rc::clone(bench));
        let call = move |lua: &Lua, fields: Table| {
            let out = message(lua, &bench, name, point, &fields)?;
            out.set_metatable(Some(of.clone()))?;
            Ok(out)
        };
        sandbox.add(name, lua.create_function(call)?)?;
    }
    for (name, call) in [("connect", connect as Ask), ("declare", declare)] {
        let (of, bench) = (results.clone(), Rc::clone(bench));
        let call = move |lua: &Lua, fields: Table| {
            let out = lua.create_table()?;
            end(&out, call(&bench, &fields)?)?;
            out.set_metatable(Some(of.clone()))?;
            Ok(out)
        };
        sandbox.add(name, lua.create_function(call)?)?;
    }
    let bench = Rc::clone(bench);
    let advance = move |_: &Lua, seconds: f64| match Duration::try_from_secs_f64(seconds) {
        Ok(by) => {
            bench.advance(by);
            Ok(())
        }
        Err(_) => Err(mlua::Error::runtime("advance takes seconds, 0 or more")),
    };
    sandbox.add("advance", lua.create_function(advance)?)?;
    Ok(results)
}

type Ask = fn(&Bench, &Table) -> mlua::Result<Result<Decision, HookError>>;

/// Writes how a call ended; returns what it changed.
fn end(out: &Table, result: Result<Decision, HookError>) -> mlua::Result<Rewrite> {
    let (outcome, reason, rewrite) = match result {
        Ok(Decision::Pass(rewrite)) => ("pass", None, rewrite),
        Ok(Decision::Drop(reason)) => ("drop", Some(reason), Rewrite::default()),
        Ok(Decision::Reject(reason)) => ("reject", Some(reason), Rewrite::default()),
        Ok(Decision::DeadLetter(reason)) => ("dead_letter", Some(reason), Rewrite::default()),
        Err(error) => ("error", Some(error.text), Rewrite::default()),
    };
    out.raw_set("outcome", outcome)?;
    out.raw_set("reason", reason)?;
    Ok(rewrite)
}

/// A field of a result that is not there is nil, if it could be there.
fn unknown_result(_: &Lua, (_, name): (Value, LuaString)) -> mlua::Result<Value> {
    let name = name.to_string_lossy();
    if NAMES.contains(&name.as_str()) || RESULTS.contains(&name.as_str()) || property(&name).is_some() {
        return Ok(Value::Nil);
    }
    let known = NAMES.into_iter().chain(RESULTS).chain(FIELDS.iter().map(|field| field.name));
    Err(mlua::Error::runtime(format!("a result has no '{name}'{}", did_you_mean(&name, known))))
}

/// `publish { … }`, `deliver { … }`, `dead_letter { … }`
fn message(lua: &Lua, bench: &Bench, function: &str, point: Point, fields: &Table) -> mlua::Result<Table> {
    let (vhost, exchange) = (text(fields, "vhost", "/")?, text(fields, "exchange", "test")?);
    let routing_key = text(fields, "routing_key", "test")?;
    let user = text(fields, "user", if point == Point::DeadLetter { "" } else { "guest" })?;
    let queue = text(fields, "queue", "test")?;
    let reason = text(fields, "reason", "rejected")?;
    let Some(reason) = REASONS.into_iter().find(|known| *known == reason) else {
        return Err(mlua::Error::runtime(format!("reason has to be one of {}", REASONS.join(", "))));
    };
    let origin = Origin { queue: &queue, redelivered: flag(fields, "redelivered")?, reason: Some(reason) };
    let body: Option<LuaString> = fields.raw_get("body")?;
    let bytes = body.as_ref().map(|body| body.as_bytes().to_vec()).unwrap_or_default();
    let properties = properties_of(function, point, fields)?;
    let message = Publish {
        vhost: &vhost,
        exchange: &exchange,
        routing_key: &routing_key,
        user: &user,
        properties: Properties::from_raw(&properties),
        body: &bytes,
    };
    let origin = (point != Point::Publish).then_some(&origin);
    let out = lua.create_table()?;
    let rewrite = end(&out, bench.call(point, Given::Message(&message, origin), body.is_some())?)?;
    let after = Publish {
        routing_key: rewrite.routing_key.as_deref().unwrap_or(&routing_key),
        properties: rewrite.properties.as_deref().map_or(message.properties, Properties::from_raw),
        ..message
    };
    write_message(lua, &out, &after)?;
    Ok(out)
}

/// `connect { … }`
fn connect(bench: &Bench, fields: &Table) -> mlua::Result<Result<Decision, HookError>> {
    only(fields, "connect", &["vhost", "user", "address", "port", "mechanism", "properties"])?;
    let address = text(fields, "address", "127.0.0.1")?;
    let address = address.parse().map_err(|_| mlua::Error::runtime(format!("'{address}' is no IP address")))?;
    let port: Option<u16> = fields.raw_get("port")?;
    let client = Connecting {
        vhost: &text(fields, "vhost", "/")?,
        user: &text(fields, "user", "guest")?,
        peer: SocketAddr::new(address, port.unwrap_or(50_000)),
        mechanism: &text(fields, "mechanism", "PLAIN")?,
        properties: &table(fields, "properties")?,
    };
    bench.call(Point::Connect, Given::Connecting(&client), false)
}

/// `declare { … }`
fn declare(bench: &Bench, fields: &Table) -> mlua::Result<Result<Decision, HookError>> {
    let flags = ["durable", "auto_delete", "exclusive", "internal"];
    let of_binding = ["source", "destination_type", "routing_key"];
    let known = [&["vhost", "user", "kind", "name", "type", "arguments"][..], &flags, &of_binding].concat();
    only(fields, "declare", &known)?;
    let kind = match text(fields, "kind", "queue")?.as_str() {
        "queue" => DeclaredKind::Queue,
        "exchange" => DeclaredKind::Exchange,
        "binding" => DeclaredKind::Binding,
        other => {
            return Err(mlua::Error::runtime(format!("kind has to be queue, exchange or binding, not '{other}'")));
        }
    };
    let [source, destination_type, routing_key] = [
        text(fields, "source", "amq.topic")?,
        text(fields, "destination_type", "queue")?,
        text(fields, "routing_key", "")?,
    ];
    let (source, destination_type, routing_key) = (&*source, &*destination_type, &*routing_key);
    let binding = Binding { source, destination_type, routing_key };
    let type_name = if kind == DeclaredKind::Queue { "classic" } else { "direct" };
    let declaration = Declaring {
        vhost: &text(fields, "vhost", "/")?,
        user: &text(fields, "user", "guest")?,
        kind,
        name: &text(fields, "name", "test")?,
        type_name: &text(fields, "type", type_name)?,
        durable: flag(fields, "durable")?,
        auto_delete: flag(fields, "auto_delete")?,
        exclusive: flag(fields, "exclusive")?,
        internal: flag(fields, "internal")?,
        arguments: &table(fields, "arguments")?,
        binding: (kind == DeclaredKind::Binding).then_some(binding),
    };
    bench.call(Point::Declare, Given::Declaring(&declaration), false)
}

/// The fields of a message as they are after the hook.
fn write_message(lua: &Lua, out: &Table, message: &Publish<'_>) -> mlua::Result<()> {
    out.raw_set("vhost", message.vhost)?;
    out.raw_set("exchange", message.exchange)?;
    out.raw_set("user", message.user)?;
    out.raw_set("routing_key", message.routing_key)?;
    out.raw_set("body", lua.create_string(message.body)?)?;
    let view = View::default();
    view.open(Point::Publish, message, None, false);
    for (index, field) in FIELDS.iter().enumerate().filter(|(index, _)| *index != HEADERS) {
        out.raw_set(field.name, view.property(lua, index)?)?;
    }
    let headers = lua.create_table()?;
    if let Some(raw) = message.properties.headers() {
        for entry in raw.iter() {
            let (name, value) = entry.map_err(convert::malformed)?;
            headers.raw_set(lua.create_string(name)?, convert::to_lua(lua, value)?)?;
        }
    }
    out.raw_set("headers", headers)
}

/// The raw properties that `publish { … }` names, written as a hook would write them.
fn properties_of(function: &str, point: Point, fields: &Table) -> mlua::Result<Vec<u8>> {
    let names: &[&str] = if point == Point::Publish { &NAMES } else { &[&NAMES[..], &ORIGIN_NAMES].concat() };
    let view = View::default();
    view.open(Point::Publish, &NO_MESSAGE, None, false);
    for pair in fields.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let name = name.to_string().unwrap_or_default();
        match property(&name) {
            Some(HEADERS) => {
                let Value::Table(headers) = value else {
                    return Err(mlua::Error::runtime("headers have to be a table"));
                };
                for header in headers.pairs::<LuaString, Value>() {
                    let (name, value) = header?;
                    view.stage_headers(|raw, staged| staged.set(raw, &name.as_bytes(), &value))?;
                }
            }
            Some(index) => view.set_property(index, &value)?,
            None if names.contains(&name.as_str()) => {}
            None => {
                let known = names.iter().copied().chain(FIELDS.iter().map(|field| field.name));
                let near = did_you_mean(&name, known);
                return Err(mlua::Error::runtime(format!("{function} takes no '{name}'{near}")));
            }
        }
    }
    Ok(view.take_rewrite().properties.unwrap_or_else(|| Properties::EMPTY.raw().to_vec()))
}

fn property(name: &str) -> Option<usize> {
    FIELDS.iter().position(|field| field.name == name)
}

fn only(fields: &Table, function: &str, names: &[&str]) -> mlua::Result<()> {
    for pair in fields.pairs::<Value, Value>() {
        let name = pair?.0.to_string().unwrap_or_default();
        if !names.contains(&name.as_str()) {
            let near = did_you_mean(&name, names.iter().copied());
            return Err(mlua::Error::runtime(format!("{function} takes no '{name}'{near}")));
        }
    }
    Ok(())
}

fn text(fields: &Table, name: &str, default: &str) -> mlua::Result<String> {
    match fields.raw_get(name)? {
        Value::Nil => Ok(default.to_owned()),
        Value::String(text) => Ok(text.to_string_lossy()),
        other => Err(mlua::Error::runtime(format!("{name} has to be a string, not a {}", other.type_name()))),
    }
}

fn flag(fields: &Table, name: &str) -> mlua::Result<bool> {
    match fields.raw_get(name)? {
        Value::Nil => Ok(false),
        Value::Boolean(flag) => Ok(flag),
        other => Err(mlua::Error::runtime(format!("{name} has to be true or false, not a {}", other.type_name()))),
    }
}

/// A table with string keys, as it would come from a client.
fn table(fields: &Table, name: &str) -> mlua::Result<plugin_api::value::Table> {
    let value: Value = fields.raw_get(name)?;
    if value.is_nil() {
        return Ok(plugin_api::value::Table::new());
    }
    let mut encoded = Vec::new();
    convert::encode(&value, &mut encoded, HEADERS_BYTES_MAX)?;
    match (encoded.first(), encoded.get(5..)) {
        (Some(b'F'), Some(contents)) => {
            plugin_api::value::TableRef::new(contents).to_owned().map_err(convert::malformed)
        }
        _ => Err(mlua::Error::runtime(format!("{name} has to be a table with string keys"))),
    }
}

/// The functions for messages.
const MESSAGES: [(&str, Point); 3] =
    [("publish", Point::Publish), ("deliver", Point::Deliver), ("dead_letter", Point::DeadLetter)];

/// What `publish` takes, and returns again, beside the properties.
const NAMES: [&str; 5] = ["vhost", "exchange", "routing_key", "user", "body"];

/// What `deliver` and `dead_letter` take beside that.
const ORIGIN_NAMES: [&str; 3] = ["queue", "redelivered", "reason"];

/// What `publish` and its like return beside the message.
const RESULTS: [&str; 2] = ["outcome", "reason"];

/// Why messages die.
const REASONS: [&str; 4] = ["rejected", "expired", "maxlen", "delivery_limit"];

const NO_MESSAGE: Publish<'static> =
    Publish { vhost: "", exchange: "", routing_key: "", user: "", properties: Properties::EMPTY, body: &[] };
