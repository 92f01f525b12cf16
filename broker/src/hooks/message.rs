//! `msg`: what a hook sees of a message.

use std::rc::Rc;

use mlua::{AnyUserData, BorrowedBytes, Function, Lua, MetaMethod, UserData, UserDataMethods, Value};

use super::error::did_you_mean;
use super::fields::FIELDS;
use super::headers::Headers;
use super::view::View;

/// The Lua object. There is one in an interpreter; it shows the message of the call that is running.
pub(super) struct Message {
    view: Rc<View>,
    headers: AnyUserData,
    body: Function,
}

impl Message {
    pub(super) fn create(lua: &Lua, view: &Rc<View>) -> mlua::Result<AnyUserData> {
        let headers = lua.create_userdata(Headers(Rc::clone(view)))?;
        let of = Rc::clone(view);
        // `msg:body()` hands over msg; there is only one.
        let body = lua.create_function(move |lua, _: Value| of.body(lua))?;
        lua.create_userdata(Self { view: Rc::clone(view), headers, body })
    }

    fn read(&self, lua: &Lua, name: &[u8]) -> mlua::Result<Value> {
        let view = &self.view;
        view.must_be_open("msg")?;
        match name {
            b"routing_key" => view.routing_key(lua),
            b"headers" => Ok(Value::UserData(self.headers.clone())),
            b"exchange" => view.exchange(lua),
            b"vhost" => view.vhost(lua),
            b"user" => view.user(lua),
            b"size" => Ok(Value::Number(view.body_bytes() as f64)),
            b"body" => Ok(Value::Function(self.body.clone())),
            b"queue" => view.queue(lua),
            b"redelivered" => Ok(view.redelivered()),
            b"reason" => view.reason(lua),
            _ => match property(name) {
                Some(index) => view.property(lua, index),
                None => Err(unknown(name)),
            },
        }
    }

    fn write(&self, name: &[u8], value: &Value) -> mlua::Result<()> {
        let view = &self.view;
        view.must_be_open("msg")?;
        let read_only = |why: &str| {
            let name = String::from_utf8_lossy(name);
            Err(mlua::Error::runtime(format!("msg.{name} cannot be set: {why}")))
        };
        match name {
            b"routing_key" => view.set_routing_key(value),
            b"exchange" | b"vhost" => read_only("a message stays at the exchange it was published to"),
            b"user" => read_only("it names who publishes or consumes"),
            b"queue" | b"redelivered" | b"reason" => read_only("it says where the message comes from"),
            b"size" | b"body" => read_only("hooks do not change bodies"),
            _ => match property(name).and_then(|index| Some((index, FIELDS.get(index)?))) {
                Some((index, field)) => field.fixed.map_or_else(|| view.set_property(index, value), read_only),
                None => Err(unknown(name)),
            },
        }
    }
}

impl UserData for Message {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Index, |lua, this, name: BorrowedBytes| this.read(lua, &name));
        methods.add_meta_method(MetaMethod::NewIndex, |_, this, (name, value): (BorrowedBytes, Value)| {
            this.write(&name, &value)
        });
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(this.view.describe()));
    }
}

fn property(name: &[u8]) -> Option<usize> {
    FIELDS.iter().position(|field| field.name.as_bytes() == name)
}

#[cold]
fn unknown(name: &[u8]) -> mlua::Error {
    let name = String::from_utf8_lossy(name);
    mlua::Error::runtime(format!("msg.{name} does not exist{}", did_you_mean(&name, names())))
}

/// Everything that `msg.` can be followed by.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(FIELDS.iter().map(|field| field.name))
}

/// What a message has beside its properties.
const NAMES: [&str; 9] = ["routing_key", "exchange", "vhost", "user", "queue", "redelivered", "reason", "size", "body"];
