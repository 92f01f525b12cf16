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
    /// Its name; the one that the server found where the client sent none. Of a binding that of its destination.
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
    /// What only a binding has; it has none of what stands between its name and its arguments.
    pub binding: Option<Binding<'a>>,
}

/// What a binding is declared with.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The exchange that messages come from.
    pub source: &'a str,
    /// `queue` or `exchange`.
    pub destination_type: &'a str,
    /// The binding key.
    pub routing_key: &'a str,
}

/// What is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclaredKind {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
    /// A binding.
    Binding,
}

impl DeclaredKind {
    /// As scripts see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
            Self::Binding => "binding",
        }
    }
}

/// What follows `client.`.
pub(super) const CLIENT_NAMES: [&str; 7] = ["vhost", "user", "address", "port", "mechanism", "name", "properties"];

/// What follows `declaration.`.
pub(super) static DECLARATION_NAMES: [&str; 13] = [
    "vhost",
    "user",
    "kind",
    "name",
    "type",
    "durable",
    "auto_delete",
    "exclusive",
    "internal",
    "arguments",
    "source",
    "destination_type",
    "routing_key",
];

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
        let flag = |flag: bool| if self.binding.is_some() { Value::Nil } else { Value::Boolean(flag) };
        let of_binding = |of: for<'b> fn(&Binding<'b>) -> &'b str| match &self.binding {
            Some(binding) => text(lua, of(binding)),
            None => Ok(Value::Nil),
        };
        let values = [
            text(lua, self.vhost)?,
            text(lua, self.user)?,
            text(lua, self.kind.name())?,
            text(lua, self.name)?,
            if self.binding.is_some() { Value::Nil } else { text(lua, self.type_name)? },
            flag(self.durable),
            flag(self.auto_delete),
            flag(self.exclusive),
            flag(self.internal),
            table_of(lua, self.arguments)?,
            of_binding(|binding| binding.source)?,
            of_binding(|binding| binding.destination_type)?,
            of_binding(|binding| binding.routing_key)?,
        ];
        read_only(lua, DECLARATION_NAMES.into_iter().zip(values), metatable)
    }

    pub(super) fn describe(&self) -> String {
        let Self { kind, name, vhost, user, type_name, .. } = self;
        if let Some(Binding { source, destination_type, routing_key }) = self.binding {
            return format!(
                "binding of {destination_type} '{name}' to exchange '{source}' with key '{routing_key}' in vhost '{vhost}' by user '{user}'"
            );
        }
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
