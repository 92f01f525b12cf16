//! One message as an exchange type, a hook or a storage sees it: names, raw properties, body.
//!
//! The properties stay the bytes that the publisher sent. Accessors walk them up to the property that is asked for; a
//! message whose properties nobody asks for costs nothing. [`PropertiesBuf`] is the owned form for whoever changes them.

mod properties;
mod properties_buf;

pub use properties::{Properties, PropertiesError};
pub use properties_buf::PropertiesBuf;

/// One message as an exchange sees it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The exchange it was published to; on an exchange bound to another one, still the first.
    pub exchange: &'a str,
    /// The routing key, or one of the `CC`/`BCC` keys: the core asks once a key.
    pub routing_key: &'a str,
    /// The basic properties as they came.
    pub properties: Properties<'a>,
    /// The body, whole.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// A message without properties and body, which is all that many exchange types look at.
    #[must_use]
    pub const fn with_key(routing_key: &'a str) -> Self {
        Self { exchange: "", routing_key, properties: Properties::EMPTY, body: &[] }
    }
}

#[cfg(test)]
mod tests;
