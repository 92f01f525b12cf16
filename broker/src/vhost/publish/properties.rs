//! What a publish says in its properties and headers: who it is from, when it expires, which keys it has beside its own.

use std::sync::Arc;

use plugin_api::message::Properties;
use plugin_api::value::ValueRef;

use super::super::authority::Authority;
use super::super::error::Error;
use crate::message::{Marks, Message, Parts};

/// The longest expiration: ten years in milliseconds (semantics 12.5).
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;

/// Semantics 12.6.
pub(super) fn check_user_id(properties: Properties<'_>, by: &dyn Authority) -> Result<(), Error> {
    match properties.user_id() {
        Some(user_id) if !user_id.is_empty() && user_id != by.user().as_bytes() && !by.may_impersonate() => {
            Err(Error::Message(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                by.user()
            )))
        }
        _ => Ok(()),
    }
}

/// Digits for at most ten years in milliseconds. The reasons are RabbitMQ's terms for what is wrong.
pub(super) fn check_expiration(text: &str) -> Result<(), Error> {
    let digits_end = text.bytes().skip(1).position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |end| end + 1);
    let (number, rest) = text.split_at_checked(digits_end).unwrap_or((text, ""));
    let digits = number.strip_prefix('-').unwrap_or(number);
    let reason = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "no_integer".to_owned()
    } else if !rest.is_empty() {
        format!("{{leftover_string,\"{rest}\"}}")
    } else if number != digits {
        format!("{{value_negative,{number}}}")
    } else if digits.parse::<u64>().is_ok_and(|ms| ms <= EXPIRATION_MAX_MS) {
        return Ok(());
    } else {
        format!("{{value_too_large,{number}}}")
    };
    Err(Error::Message(format!("invalid expiration '{text}': {reason}")))
}

#[derive(Clone, Debug, Default)]
pub(in crate::vhost) struct ExtraKeys {
    /// Those of CC, then those of BCC.
    pub(in crate::vhost) keys: Vec<String>,
    open_count: usize,
    pub(super) has_bcc: bool,
}

impl ExtraKeys {
    /// Those that everybody may see.
    pub(in crate::vhost) fn open_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().take(self.open_count).map(String::as_str)
    }
}

/// The routing keys in the headers CC and BCC (semantics 11.12); none for the common message.
pub(in crate::vhost) fn extra_keys(properties: Properties<'_>) -> Result<Option<ExtraKeys>, Error> {
    let Some(headers) = properties.headers() else { return Ok(None) };
    let mut extra: Option<ExtraKeys> = None;
    for name in ["CC", "BCC"] {
        let Some(value) = headers.get(name) else { continue };
        let ValueRef::Array(values) = value else {
            let kind = value.to_owned().map_or("unknown", |value| value.type_name());
            return Err(Error::Message(format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}")));
        };
        let extra = extra.get_or_insert_default();
        extra.has_bcc |= name == "BCC";
        for value in values.iter().flatten() {
            if let ValueRef::LongString(key) = value
                && let Ok(key) = std::str::from_utf8(key)
                && key.len() <= 255
            {
                extra.keys.push(key.to_owned());
                extra.open_count += usize::from(name == "CC");
            }
        }
    }
    Ok(extra)
}

/// The routing keys that a message has beside its own, in the headers CC and BCC (semantics 11.12).
///
/// # Errors
/// A header that is no list.
pub fn extra_keys_of(message: &Message) -> Result<Vec<String>, Error> {
    Ok(extra_keys(message.properties())?.map(|extra| extra.keys).unwrap_or_default())
}

/// The message as queues keep it: one with a BCC header is marked, so that whoever hands it out takes the header away. Until then dead
/// letters go by it (semantics 20.3).
pub(in crate::vhost) fn hiding_bcc(message: &Arc<Message>) -> Arc<Message> {
    if message.properties().headers().is_none_or(|headers| headers.get("BCC").is_none()) {
        return Arc::clone(message);
    }
    Message::marked(message.parts(), message.body(), message.marks().and(Marks::HIDES_BCC))
}

/// The same message without its BCC header, which nobody but the broker may see.
///
/// # Errors
/// The properties cannot be read.
pub fn without_bcc(message: &Arc<Message>) -> Result<Arc<Message>, Error> {
    if message.properties().headers().is_none_or(|headers| headers.get("BCC").is_none()) {
        return Ok(Arc::clone(message));
    }
    let mut properties =
        message.properties().to_owned().map_err(|error| Error::Message(format!("invalid message: {error}")))?;
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    let encoded = properties.encode();
    let marks = message.marks().without(Marks::HIDES_BCC);
    Ok(Message::marked(Parts { properties: &encoded, ..message.parts() }, message.body(), marks))
}
