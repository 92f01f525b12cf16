//! What `on_connect` and `on_declare` are given: tables that scripts read and cannot change.

use std::net::SocketAddr;

use mlua::{Lua, Value};
use plugin_api::value::{Table, TableRef, ValueRef};

use super::convert;

/// A client that has logged in and opens a vhost; it may.
#[derive(Debug, Clone, Copy)]
pub struct Connecting<'a> {
    /// The vhost.
    pub vhost: &'a str,
    /// Who has logged in.
    pub user: &'a str,
    /// Where the client is.
    pub peer: SocketAddr,
    /// What it has logged in with: `PLAIN`, `AMQPLAIN`, `EXTERNAL`.
    pub mechanism: &'a str,
    /// What the client says of itself.
    pub properties: &'a Table,
}

/// A declaration that the user may make, before it is compared with what is there.
#[derive(Debug, Clone, Copy)]
pub struct Declaring<'a> {
    /// Where.
    pub vhost: &'a str,
    /// Who declares.
    pub user: &'a str,
    /// What.
    pub kind: DeclaredKind,
    /// Its name; the one that the server found where the client sent none.
    pub name: &'a str,
    /// The type of the exchange, or of the queue.
    pub type_name: &'a str,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it ends with its last use.
    pub auto_delete: bool,
    /// Whether the queue belongs to the connection.
    pub exclusive: bool,
    /// Whether clients cannot publish to the exchange.
    pub internal: bool,
    /// As sent.
    pub arguments: &'a Table,
}

/// What is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclaredKind {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
}

impl DeclaredKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        }
    }
}

/// What follows `client.`.
pub(super) const CLIENT_NAMES: [&str; 7] = ["vhost", "user", "address", "port", "mechanism", "name", "properties"];

/// What follows `declaration.`.
pub(super) const DECLARATION_NAMES: [&str; 10] =
    ["vhost", "user", "kind", "name", "type", "durable", "auto_delete", "exclusive", "internal", "arguments"];

impl Connecting<'_> {
    pub(super) fn table(&self, lua: &Lua, metatable: &mlua::Table) -> mlua::Result<mlua::Table> {
        let name = self.properties.get("connection_name").and_then(|name| name.as_str()).unwrap_or_default();
        let values = [
            text(lua, self.vhost)?,
            text(lua, self.user)?,
            text(lua, &self.peer.ip().to_string())?,
            Value::Number(self.peer.port().into()),
            text(lua, self.mechanism)?,
            text(lua, name)?,
            table_of(lua, self.properties)?,
        ];
        read_only(lua, CLIENT_NAMES.into_iter().zip(values), metatable)
    }

    pub(super) fn describe(&self) -> String {
        format!("user '{}' from {} to vhost '{}'", self.user, self.peer.ip(), self.vhost)
    }
}

impl Declaring<'_> {
    pub(super) fn table(&self, lua: &Lua, metatable: &mlua::Table) -> mlua::Result<mlua::Table> {
        let values = [
            text(lua, self.vhost)?,
            text(lua, self.user)?,
            text(lua, self.kind.name())?,
            text(lua, self.name)?,
            text(lua, self.type_name)?,
            Value::Boolean(self.durable),
            Value::Boolean(self.auto_delete),
            Value::Boolean(self.exclusive),
            Value::Boolean(self.internal),
            table_of(lua, self.arguments)?,
        ];
        read_only(lua, DECLARATION_NAMES.into_iter().zip(values), metatable)
    }

    pub(super) fn describe(&self) -> String {
        let Self { kind, name, vhost, user, type_name, .. } = self;
        format!("{} '{name}' of type '{type_name}' in vhost '{vhost}' by user '{user}'", kind.name())
    }
}

fn read_only(
    lua: &Lua,
    fields: impl Iterator<Item = (&'static str, Value)>,
    metatable: &mlua::Table,
) -> mlua::Result<mlua::Table> {
    let table = lua.create_table()?;
    for (name, value) in fields {
        table.raw_set(name, value)?;
    }
    table.set_metatable(Some(metatable.clone()))?;
    table.set_readonly(true);
    Ok(table)
}

fn text(lua: &Lua, text: &str) -> mlua::Result<Value> {
    Ok(Value::String(lua.create_string(text)?))
}

fn table_of(lua: &Lua, table: &Table) -> mlua::Result<Value> {
    let mut encoded = Vec::new();
    table.encode(&mut encoded);
    convert::to_lua(lua, ValueRef::Table(TableRef::new(&encoded)))
}
