//! `msg.headers`: the header table of the current message as a script reads, writes and walks it.
//!
//! Nothing is decoded before a script asks, and a read decodes the one value that it reads. The first write makes a list
//! of the entries as slices of the message; what the script does not touch is written again byte for byte, type letter
//! included.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use mlua::{AnyUserData, BorrowedBytes, Function, Lua, MetaMethod, UserData, UserDataMethods, Value};
use plugin_api::value::{TABLE_KEY_BYTES_MAX, TableRef};

use super::convert;
use super::view::View;

/// The Lua object. There is one in an interpreter, whatever message is the current one.
pub(super) struct Headers(pub(super) Rc<View>);

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Index, |lua, this, name: BorrowedBytes| {
            this.0.with_headers(|raw, staged| match staged {
                Some(staged) => {
                    staged.get(raw, &name).map_or(Ok(Value::Nil), |value| convert::read_encoded(lua, value))
                }
                None => find(raw, &name, lua),
            })
        });
        methods.add_meta_method(MetaMethod::NewIndex, |_, this, (name, value): (Value, Value)| {
            let Value::String(name) = name else {
                return Err(mlua::Error::runtime(format!("a header's name is a string, not a {}", name.type_name())));
            };
            let name = name.as_bytes();
            this.0.stage_headers(|raw, staged| match value {
                Value::Nil => {
                    staged.remove(raw, &name);
                    Ok(())
                }
                value => staged.set(raw, &name, &value),
            })
        });
        methods.add_meta_method(MetaMethod::Len, |_, this, ()| {
            this.0
                .with_headers(|raw, staged| Ok(staged.map_or_else(|| TableRef::new(raw).iter().count(), Staged::count)))
        });
        methods.add_meta_method(MetaMethod::Iter, |lua, this, ()| walk(lua, &this.0));
    }
}

/// `pairs(msg.headers)`.
pub(super) fn iterate(lua: &Lua, headers: AnyUserData) -> mlua::Result<Function> {
    match headers.borrow::<Headers>() {
        Ok(headers) => walk(lua, &headers.0),
        Err(_) => Err(mlua::Error::runtime("pairs takes a table or msg.headers")),
    }
}

/// An iterator over name and value. Entries that are removed under way are skipped, added ones come at the end.
fn walk(lua: &Lua, view: &Rc<View>) -> mlua::Result<Function> {
    let view = Rc::clone(view);
    let position = Cell::new(0);
    lua.create_function(move |lua, _: mlua::MultiValue| {
        view.stage_headers(|raw, staged| {
            let Some((next, name, value)) = staged.next(raw, position.get()) else { return Ok((None, Value::Nil)) };
            position.set(next);
            Ok((Some(lua.create_string(name)?), convert::read_encoded(lua, value)?))
        })
    })
}

fn find(raw: &[u8], name: &[u8], lua: &Lua) -> mlua::Result<Value> {
    for entry in TableRef::new(raw).iter() {
        let (key, value) = entry.map_err(convert::malformed)?;
        if key == name {
            return convert::to_lua(lua, value);
        }
    }
    Ok(Value::Nil)
}

/// The entries of a header table, with the changes of a script.
#[derive(Debug, Default)]
pub(super) struct Staged {
    entries: Vec<Entry>,
    /// What the table takes on the wire.
    bytes: usize,
    pub(super) is_changed: bool,
}

#[derive(Debug)]
enum Entry {
    /// As it came: a range in the raw headers, from the length of the name to the end of the value.
    Kept(Range<usize>),
    /// Set by the script: length of the name, name, type letter, value.
    Set(Vec<u8>),
    Removed,
}

impl Staged {
    /// Cuts the table into its entries.
    pub(super) fn new(raw: &[u8]) -> mlua::Result<Self> {
        let mut starts = Vec::new();
        for entry in TableRef::new(raw).iter() {
            let (name, _) = entry.map_err(convert::malformed)?;
            // The name is a slice of `raw`, one behind its length; an empty one too.
            starts.push((name.as_ptr().addr() - raw.as_ptr().addr()).saturating_sub(1));
        }
        let ends = starts.iter().copied().skip(1).chain([raw.len()]);
        let entries = starts.iter().zip(ends).map(|(start, end)| Entry::Kept(*start..end)).collect();
        Ok(Self { entries, bytes: raw.len(), is_changed: false })
    }

    /// Type letter and value of the first entry with this name.
    fn get<'a>(&'a self, raw: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.entries.iter().filter_map(|entry| entry.split(raw)).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn count(&self) -> usize {
        self.entries.iter().filter(|entry| !matches!(entry, Entry::Removed)).count()
    }

    /// The next entry that is there, and the position to go on from.
    fn next<'a>(&'a self, raw: &'a [u8], position: usize) -> Option<(usize, &'a [u8], &'a [u8])> {
        let (index, (name, value)) = self
            .entries
            .iter()
            .enumerate()
            .skip(position)
            .find_map(|(index, entry)| Some((index, entry.split(raw)?)))?;
        Some((index + 1, name, value))
    }

    /// Sets the first entry with this name, where it stands, and removes others of the same name; or appends one.
    pub(super) fn set(&mut self, raw: &[u8], name: &[u8], value: &Value) -> mlua::Result<()> {
        let Some(length) = u8::try_from(name.len()).ok() else {
            return Err(mlua::Error::runtime(format!("a header's name has at most {TABLE_KEY_BYTES_MAX} bytes")));
        };
        let mut encoded = Vec::with_capacity(1 + name.len() + 16);
        encoded.push(length);
        encoded.extend_from_slice(name);
        convert::encode(value, &mut encoded, HEADERS_BYTES_MAX)?;
        let replaced: usize = self.named(raw, name).map(|entry| entry.bytes()).sum();
        let bytes = self.bytes - replaced + encoded.len();
        if bytes > HEADERS_BYTES_MAX && bytes > raw.len() {
            return Err(mlua::Error::runtime(format!("the headers would have more than {HEADERS_BYTES_MAX} bytes")));
        }
        let mut encoded = Some(encoded);
        for entry in self.named(raw, name) {
            *entry = encoded.take().map_or(Entry::Removed, Entry::Set);
        }
        self.entries.extend(encoded.map(Entry::Set));
        self.bytes = bytes;
        self.is_changed = true;
        Ok(())
    }

    fn remove(&mut self, raw: &[u8], name: &[u8]) {
        let mut removed = 0;
        for entry in self.named(raw, name) {
            removed += entry.bytes();
            *entry = Entry::Removed;
        }
        self.bytes -= removed;
        self.is_changed |= removed > 0;
    }

    fn named<'a>(&'a mut self, raw: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a mut Entry> {
        self.entries.iter_mut().filter(move |entry| entry.split(raw).is_some_and(|(key, _)| key == name))
    }

    /// The table on the wire, without length prefix.
    pub(super) fn encode(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes);
        for entry in &self.entries {
            out.extend_from_slice(entry.encoded(raw));
        }
        out
    }
}

impl Entry {
    fn encoded<'a>(&'a self, raw: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Kept(range) => raw.get(range.clone()).unwrap_or_default(),
            Self::Set(encoded) => encoded,
            Self::Removed => &[],
        }
    }

    /// Name, and type letter with value; `None` for a removed entry.
    fn split<'a>(&'a self, raw: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (length, rest) = self.encoded(raw).split_first()?;
        rest.split_at_checked(usize::from(*length))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Kept(range) => range.len(),
            Self::Set(encoded) => encoded.len(),
            Self::Removed => 0,
        }
    }
}

/// What a script may let the headers grow to. A content header must fit into one frame, and the frame size that clients
/// negotiate is 128 KiB; the rest of it is left to the other properties and to headers that the broker adds.
pub(super) const HEADERS_BYTES_MAX: usize = 120 << 10;
