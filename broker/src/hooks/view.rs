//! The message that an interpreter is looking at, with the changes that its script wants.
//!
//! There is one view in an interpreter, filled for each call, so that a call allocates nothing. The message is copied in:
//! names and properties are short, and a borrowed message could not be handed to Lua without unsafe code. Changes are
//! staged beside the copy, and only a call that ends well gives them out.

use std::cell::{Cell, RefCell};

use mlua::{Lua, LuaString, Value};
use plugin_api::message::Properties;

use super::convert;
use super::error::shorten;
use super::fields::{self, EXPIRATION, FIELDS, HEADERS, Kind, Layout};
use super::headers::Staged;
use super::point::Point;

/// One message, as hooks get to see it.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// The vhost of the connection.
    pub vhost: &'a str,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key: the one the client sent, or of a dead letter the one that it goes on with.
    pub routing_key: &'a str,
    /// The user that publishes or consumes; empty for a dead letter.
    pub user: &'a str,
    /// The properties. They have been checked.
    pub properties: Properties<'a>,
    /// The body, whole.
    pub body: &'a [u8],
}

/// Where a message comes from that is not published just now.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The queue that it comes out of.
    pub queue: &'a str,
    /// Whether somebody had it before, where it is delivered.
    pub redelivered: bool,
    /// Why it died, where it is a dead letter: `rejected`, `expired`, `maxlen`, `delivery_limit`.
    pub reason: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct View {
    message: RefCell<Message>,
    staged: RefCell<Changes>,
    /// The point whose call is running.
    point: Cell<Option<Point>>,
    is_open: Cell<bool>,
}

/// The copy of the message as it came to this hook.
#[derive(Debug, Default)]
struct Message {
    vhost: Text,
    exchange: Text,
    routing_key: Text,
    user: Text,
    queue: Text,
    redelivered: bool,
    reason: Option<&'static str>,
    properties: Vec<u8>,
    body: Option<Vec<u8>>,
    body_bytes: usize,
}

/// What the script has set so far.
#[derive(Debug, Default)]
struct Changes {
    routing_key: Option<String>,
    /// Index in [`FIELDS`] and the new value; `None` removes the property. At most one entry a property.
    properties: Vec<(usize, Option<Vec<u8>>)>,
    headers: Option<Staged>,
    verdict: Option<Verdict>,
}

/// What a script decided by `broker.drop`, `broker.reject` or `broker.dead_letter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kind: VerdictKind,
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VerdictKind {
    Drop,
    Reject,
    DeadLetter,
}

impl VerdictKind {
    pub(super) const ALL: [Self; 3] = [Self::Drop, Self::Reject, Self::DeadLetter];

    /// The function in `broker`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// What a call that ended well wants to be different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rewrite {
    pub(super) routing_key: Option<String>,
    pub(super) properties: Option<Vec<u8>>,
}

impl View {
    /// Begins a call that has no message.
    pub(super) fn begin(&self, point: Point) {
        self.point.set(Some(point));
    }

    /// Takes a copy of a message. `with_body` if the script may read the body.
    #[inline]
    pub(super) fn open(&self, point: Point, publish: &Publish<'_>, origin: Option<&Origin<'_>>, with_body: bool) {
        let mut message = self.message.borrow_mut();
        message.vhost.set(publish.vhost);
        message.exchange.set(publish.exchange);
        message.routing_key.set(publish.routing_key);
        message.user.set(publish.user);
        if let Some(origin) = origin {
            message.queue.set(origin.queue);
            message.redelivered = origin.redelivered;
            message.reason = origin.reason;
        }
        message.properties.clear();
        message.properties.extend_from_slice(publish.properties.raw());
        message.body = with_body.then(|| publish.body.to_vec());
        message.body_bytes = publish.body.len();
        self.point.set(Some(point));
        self.is_open.set(true);
    }

    /// Ends the call. Changes that nobody took are forgotten.
    #[inline]
    pub(super) fn close(&self) {
        self.is_open.set(false);
        self.point.set(None);
        let mut staged = self.staged.borrow_mut();
        staged.routing_key = None;
        staged.properties.clear();
        staged.headers = None;
        staged.verdict = None;
        drop(staged);
        let mut message = self.message.borrow_mut();
        message.body = None;
        message.properties.shrink_to(PROPERTIES_KEPT_BYTES);
    }

    /// The verdict, if there was one.
    #[inline]
    pub(super) fn take_verdict(&self) -> Option<Verdict> {
        self.staged.borrow_mut().verdict.take()
    }

    /// What the script changed, as it goes out. A value that was set to what it already was is no change.
    #[inline]
    pub(super) fn take_rewrite(&self) -> Rewrite {
        let message = self.message.borrow();
        let mut staged = self.staged.borrow_mut();
        let routing_key = staged.routing_key.take().filter(|key| *key != message.routing_key.text);
        let headers_changed = staged.headers.as_ref().is_some_and(|headers| headers.is_changed);
        if staged.properties.is_empty() && !headers_changed {
            return Rewrite { routing_key, properties: None };
        }
        Rewrite { routing_key, properties: message.rebuild(&staged) }
    }

    /// Records the verdict. The first one stands, whatever the script catches and does afterwards.
    pub(super) fn decide(&self, kind: VerdictKind, reason: String) -> mlua::Result<()> {
        let name = kind.name();
        let Some(point) = self.point.get() else {
            return Err(mlua::Error::runtime(format!("broker.{name} can be used only while a hook runs")));
        };
        if !point.verdicts().contains(&name) {
            let known = point.verdicts().join(" and broker.");
            return Err(mlua::Error::runtime(format!("broker.{name} is not for {point}, which knows broker.{known}")));
        }
        self.staged.borrow_mut().verdict.get_or_insert(Verdict { kind, reason });
        Ok(())
    }

    pub(super) fn must_be_open(&self, what: &str) -> mlua::Result<()> {
        if self.is_open.get() {
            return Ok(());
        }
        Err(mlua::Error::runtime(format!("{what} can be used only while a hook runs")))
    }

    /// For `tostring(msg)`.
    pub(super) fn describe(&self) -> String {
        let message = self.message.borrow();
        format!("message to exchange '{}' with routing key '{}'", message.exchange.text, message.routing_key.text)
    }

    pub(super) fn routing_key(&self, lua: &Lua) -> mlua::Result<Value> {
        match &self.staged.borrow().routing_key {
            Some(key) => Ok(Value::String(lua.create_string(key)?)),
            None => self.message.borrow_mut().routing_key.string(lua),
        }
    }

    pub(super) fn set_routing_key(&self, value: &Value) -> mlua::Result<()> {
        let Value::String(key) = value else { return Err(wrong_type("routing_key", "a string", value)) };
        let key = key.as_bytes();
        if key.len() > SHORT_BYTES_MAX {
            return Err(too_long("routing_key", key.len()));
        }
        let Ok(key) = std::str::from_utf8(&key) else {
            return Err(mlua::Error::runtime("msg.routing_key has to be UTF-8"));
        };
        self.staged.borrow_mut().routing_key = Some(key.to_owned());
        Ok(())
    }

    pub(super) fn vhost(&self, lua: &Lua) -> mlua::Result<Value> {
        self.message.borrow_mut().vhost.string(lua)
    }

    pub(super) fn exchange(&self, lua: &Lua) -> mlua::Result<Value> {
        self.message.borrow_mut().exchange.string(lua)
    }

    pub(super) fn user(&self, lua: &Lua) -> mlua::Result<Value> {
        self.message.borrow_mut().user.string(lua)
    }

    /// The queue that the message comes out of; nil for one that is published.
    pub(super) fn queue(&self, lua: &Lua) -> mlua::Result<Value> {
        match self.point.get() {
            Some(Point::Deliver | Point::DeadLetter) => self.message.borrow_mut().queue.string(lua),
            _ => Ok(Value::Nil),
        }
    }

    pub(super) fn redelivered(&self) -> Value {
        match self.point.get() {
            Some(Point::Deliver) => Value::Boolean(self.message.borrow().redelivered),
            _ => Value::Nil,
        }
    }

    pub(super) fn reason(&self, lua: &Lua) -> mlua::Result<Value> {
        match (self.point.get(), self.message.borrow().reason) {
            (Some(Point::DeadLetter), Some(reason)) => Ok(Value::String(lua.create_string(reason)?)),
            _ => Ok(Value::Nil),
        }
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.message.borrow().body_bytes
    }

    pub(super) fn body(&self, lua: &Lua) -> mlua::Result<Value> {
        self.must_be_open("msg:body()")?;
        match &self.message.borrow().body {
            Some(body) => Ok(Value::String(lua.create_string(body)?)),
            None => Err(mlua::Error::runtime("msg:body() needs 'body: true' in the declaration of the hook")),
        }
    }

    /// A property other than the headers.
    pub(super) fn property(&self, lua: &Lua, index: usize) -> mlua::Result<Value> {
        let (staged, message) = (self.staged.borrow(), self.message.borrow());
        let kind = FIELDS.get(index).map(|field| field.kind);
        if let Some((_, changed)) = staged.properties.iter().find(|(changed, _)| *changed == index) {
            return property_to_lua(lua, kind, changed.as_deref());
        }
        let range = Layout::of(&message.properties).and_then(|layout| layout.get(index));
        property_to_lua(lua, kind, range.and_then(|range| message.properties.get(range)))
    }

    pub(super) fn set_property(&self, index: usize, value: &Value) -> mlua::Result<()> {
        let encoded = property_from_lua(index, value)?;
        let mut staged = self.staged.borrow_mut();
        match staged.properties.iter_mut().find(|(changed, _)| *changed == index) {
            Some((_, slot)) => *slot = encoded,
            None => staged.properties.push((index, encoded)),
        }
        Ok(())
    }

    /// Reads the headers: the raw table as it came, and the entries if the script has begun to change them.
    pub(super) fn with_headers<R>(
        &self,
        read: impl FnOnce(&[u8], Option<&Staged>) -> mlua::Result<R>,
    ) -> mlua::Result<R> {
        self.must_be_open("msg.headers")?;
        let (message, staged) = (self.message.borrow(), self.staged.borrow());
        read(message.headers(), staged.headers.as_ref())
    }

    /// Changes the headers.
    pub(super) fn stage_headers<R>(
        &self,
        change: impl FnOnce(&[u8], &mut Staged) -> mlua::Result<R>,
    ) -> mlua::Result<R> {
        self.must_be_open("msg.headers")?;
        let (message, mut staged) = (self.message.borrow(), self.staged.borrow_mut());
        let raw = message.headers();
        let headers = match staged.headers.take() {
            Some(headers) => headers,
            None => Staged::new(raw)?,
        };
        change(raw, staged.headers.insert(headers))
    }
}

impl Message {
    /// The contents of the header table; empty if there is none.
    fn headers(&self) -> &[u8] {
        Properties::from_raw(&self.properties).headers().map_or(&[], |headers| headers.raw())
    }

    /// The properties with the changes; `None` if nothing is different in the end, or the block is malformed.
    fn rebuild(&self, staged: &Changes) -> Option<Vec<u8>> {
        let layout = Layout::of(&self.properties)?;
        let headers = staged.headers.as_ref().filter(|headers| headers.is_changed);
        let headers = headers.map(|headers| headers.encode(self.headers()));
        let rebuilt = fields::rebuild(&self.properties, &layout, |index| {
            if index == HEADERS {
                // A message that came with a header table keeps one, even an empty one.
                let headers = headers.as_deref()?;
                return Some((!headers.is_empty() || layout.get(HEADERS).is_some()).then_some(headers));
            }
            let (_, value) = staged.properties.iter().find(|(changed, _)| *changed == index)?;
            Some(value.as_deref())
        });
        (rebuilt != self.properties).then_some(rebuilt)
    }
}

/// One of the names of a message. Most messages come from where the last one came from, so the Lua string is kept, too.
#[derive(Debug, Default)]
struct Text {
    text: String,
    lua: Option<LuaString>,
}

impl Text {
    #[inline]
    fn set(&mut self, text: &str) {
        if self.text != text {
            self.text.clear();
            self.text.push_str(text);
            self.lua = None;
        }
    }

    fn string(&mut self, lua: &Lua) -> mlua::Result<Value> {
        if let Some(string) = &self.lua {
            return Ok(Value::String(string.clone()));
        }
        let string = lua.create_string(&self.text)?;
        Ok(Value::String(self.lua.insert(string).clone()))
    }
}

fn property_to_lua(lua: &Lua, kind: Option<Kind>, value: Option<&[u8]>) -> mlua::Result<Value> {
    let Some(value) = value else { return Ok(Value::Nil) };
    Ok(match kind {
        Some(Kind::Octet) => Value::Number(value.first().copied().unwrap_or_default().into()),
        Some(Kind::Timestamp) => {
            let seconds = value.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            Value::Number(seconds as f64)
        }
        Some(Kind::Short | Kind::Table) | None => Value::String(lua.create_string(value)?),
    })
}

/// The bytes of a property as they stand behind the length prefix; nil removes it.
fn property_from_lua(index: usize, value: &Value) -> mlua::Result<Option<Vec<u8>>> {
    let Some(field) = FIELDS.get(index) else { return Ok(None) };
    let number = match value {
        Value::Nil => return Ok(None),
        Value::Integer(number) => Some(*number),
        Value::Number(number) => convert::whole(*number),
        _ => None,
    };
    match field.kind {
        Kind::Short if index == EXPIRATION => match (number, value) {
            (Some(milliseconds @ 0..), _) => Ok(Some(milliseconds.to_string().into_bytes())),
            (None, Value::String(text)) if is_milliseconds(&text.as_bytes()) => Ok(Some(text.as_bytes().to_vec())),
            _ => Err(wrong_type(field.name, "milliseconds, as a whole number or its decimal text", value)),
        },
        Kind::Short => {
            let Value::String(text) = value else { return Err(wrong_type(field.name, "a string or nil", value)) };
            let text = text.as_bytes();
            if text.len() > SHORT_BYTES_MAX {
                return Err(too_long(field.name, text.len()));
            }
            Ok(Some(text.to_vec()))
        }
        Kind::Octet => {
            let range = if index == fields::DELIVERY_MODE { 1..=2 } else { 0..=255 };
            let number = number.filter(|number| range.contains(number)).and_then(|number| u8::try_from(number).ok());
            let wanted = || format!("a whole number from {} to {}, or nil", range.start(), range.end());
            number.map(|number| Some(vec![number])).ok_or_else(|| wrong_type(field.name, &wanted(), value))
        }
        Kind::Timestamp => {
            let seconds = number.and_then(|number| u64::try_from(number).ok());
            let seconds = seconds.ok_or_else(|| wrong_type(field.name, "whole seconds since 1970, or nil", value))?;
            Ok(Some(seconds.to_be_bytes().to_vec()))
        }
        Kind::Table => Err(wrong_type(field.name, "left alone", value)),
    }
}

fn is_milliseconds(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 19 && text.iter().all(u8::is_ascii_digit)
}

fn wrong_type(name: &str, wanted: &str, value: &Value) -> mlua::Error {
    let got = match value {
        Value::Integer(_) | Value::Number(_) | Value::Boolean(_) => value.to_string().unwrap_or_default(),
        Value::String(text) => format!("\"{}\"", shorten(&text.to_string_lossy(), 40)),
        other => other.type_name().to_owned(),
    };
    mlua::Error::runtime(format!("msg.{name} has to be {wanted}, not {got}"))
}

fn too_long(name: &str, bytes: usize) -> mlua::Error {
    mlua::Error::runtime(format!("msg.{name} has at most {SHORT_BYTES_MAX} bytes, not {bytes}"))
}

/// The longest short string of the protocol.
const SHORT_BYTES_MAX: usize = 255;

/// The buffer for properties is kept from call to call, unless one message had exceptionally many.
const PROPERTIES_KEPT_BYTES: usize = 4 << 10;
