//! Putting a published message together: method, content header, body frames (semantics 1.4 to 1.8, 6.2 to 6.7).

use std::sync::Arc;

use plugin_api::message::Properties;

use crate::amqp::method::BasicPublish;
use crate::amqp::reply_code::{ProtocolError, ReplyCode};
use crate::amqp::wire::Reader;
use crate::message::{Builder, Message, Parts};

/// The largest body that may be announced at all (semantics 6.6).
const BODY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The class number in the content header of a basic.publish.
const BASIC: u16 = 60;

/// What the publish method said beside exchange and routing key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFlags {
    /// Return the message when it reaches no queue.
    pub mandatory: bool,
    /// Not supported since RabbitMQ 3.0 (semantics 12.2).
    pub immediate: bool,
}

/// What the publisher is promised. Numbers are unique on their connection and channel number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMode {
    /// Nothing.
    Plain,
    /// A confirm, by this number: [`Connection::expect_confirms`](super::super::Connection::expect_confirms) comes next.
    Confirm(u64),
    /// It is held until tx.commit, and has this number then (semantics 15.2).
    Transaction(u64),
}

/// A publish whose last body frame has arrived.
#[derive(Debug)]
pub(crate) enum Assembled {
    /// To be routed.
    Message(PublishFlags, Arc<Message>),
    /// Its body was larger than the broker takes; it was read and thrown away (semantics 6.7).
    TooLarge { flags: PublishFlags, body_bytes: u64 },
}

#[derive(Debug)]
enum Body {
    Kept(Builder),
    Skipped,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Header(PublishFlags),
    Body {
        flags: PublishFlags,
        body: Body,
        total: u64,
        missing: u64,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Content {
    stage: Stage,
    /// Exchange and routing key between method and header; kept so that no publish allocates for it.
    names: String,
    exchange_end: usize,
}

impl Content {
    /// What is kept of a message whose body is still arriving, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        match &self.stage {
            Stage::Body { body: Body::Kept(builder), .. } => builder.reserved_bytes(),
            _ => 0,
        }
    }

    /// A publish begins.
    pub(crate) fn begin(&mut self, publish: &BasicPublish<'_>) {
        self.names.clear();
        self.names.push_str(publish.exchange);
        self.names.push_str(publish.routing_key);
        self.exchange_end = publish.exchange.len();
        self.stage = Stage::Header(PublishFlags { mandatory: publish.mandatory, immediate: publish.immediate });
    }

    /// A publish whose message stands whole in the input. None when another message is under way.
    pub(crate) fn begin_in_place(&self, publish: &BasicPublish<'_>) -> Option<PublishFlags> {
        matches!(self.stage, Stage::Idle)
            .then_some(PublishFlags { mandatory: publish.mandatory, immediate: publish.immediate })
    }

    /// The content header; returns the message when its body is empty.
    ///
    /// # Errors
    /// 505 where none is due or it belongs to something else, 501 for an absurd size, 502 for malformed properties.
    pub(crate) fn header(
        &mut self,
        payload: &[u8],
        message_bytes_max: u64,
    ) -> Result<Option<Assembled>, ProtocolError> {
        let flags = match std::mem::take(&mut self.stage) {
            Stage::Header(flags) => flags,
            Stage::Idle => return Err(no_method_first()),
            Stage::Body { .. } => {
                return Err(unexpected("expected content body, got non content body frame instead"));
            }
        };
        let mut reader = Reader::new(payload);
        let (Ok(class), Ok(weight), Ok(total)) = (reader.short(), reader.short(), reader.longlong()) else {
            return Err(syntax("content header is too short"));
        };
        if weight != 0 {
            return Err(unexpected("expected content header for class 60, got non content header frame instead"));
        }
        if class != BASIC {
            let text = format!("expected content header for class {BASIC}, got one for class {class} instead");
            return Err(unexpected(&text));
        }
        if total > BODY_BYTES_MAX {
            let text = format!("content body size {total} is above the maximum of {BODY_BYTES_MAX} bytes");
            return Err(ProtocolError::new(ReplyCode::FrameError, text).in_method(BasicPublish::ID));
        }
        let properties = reader.rest();
        if let Err(error) = Properties::from_raw(properties).check() {
            return Err(syntax(&format!("malformed properties in content header: {error}")));
        }
        let body = if total > message_bytes_max {
            Body::Skipped
        } else {
            let (exchange, routing_key) = self.names.split_at(self.exchange_end);
            let parts = Parts { exchange, routing_key, properties };
            Body::Kept(Builder::new(parts, usize::try_from(total).unwrap_or(usize::MAX)))
        };
        Ok(self.proceed(flags, body, total, total))
    }

    /// A body frame; returns the message when it was the last.
    ///
    /// # Errors
    /// 505 where none is due, 501 for more bytes than were announced (semantics 6.4).
    pub(crate) fn body(&mut self, payload: &[u8]) -> Result<Option<Assembled>, ProtocolError> {
        let (flags, mut body, total, missing) = match std::mem::take(&mut self.stage) {
            Stage::Body { flags, body, total, missing } => (flags, body, total, missing),
            Stage::Idle => return Err(no_method_first()),
            Stage::Header(_) => {
                return Err(unexpected("expected content header for class 60, got non content header frame instead"));
            }
        };
        let Some(missing) = missing.checked_sub(payload.len() as u64) else {
            let text = format!("content body is larger than the {total} bytes announced");
            return Err(ProtocolError::new(ReplyCode::FrameError, text).in_method(BasicPublish::ID));
        };
        if let Body::Kept(builder) = &mut body {
            builder.push(payload);
        }
        Ok(self.proceed(flags, body, total, missing))
    }

    fn proceed(&mut self, flags: PublishFlags, body: Body, total: u64, missing: u64) -> Option<Assembled> {
        if missing > 0 {
            self.stage = Stage::Body { flags, body, total, missing };
            return None;
        }
        Some(match body {
            Body::Kept(builder) => Assembled::Message(flags, builder.finish()),
            Body::Skipped => Assembled::TooLarge { flags, body_bytes: total },
        })
    }

    /// A method where a part of a message is due (semantics 6.3, 6.4).
    pub(crate) fn refuse_method(&self) -> Option<ProtocolError> {
        let expected = match self.stage {
            Stage::Idle => return None,
            Stage::Header(_) => "expected content header for class 60, got non content header frame instead",
            Stage::Body { .. } => "expected content body, got non content body frame instead",
        };
        Some(unexpected(expected))
    }
}

/// The arguments of a basic.publish that has nothing wrong with it: the one method that is read per message.
#[inline]
pub(crate) fn split_publish(payload: &[u8]) -> Option<BasicPublish<'_>> {
    let (prefix, rest) = payload.split_first_chunk::<4>()?;
    let (&[ticket_high, ticket_low, exchange_len], rest) = rest.split_first_chunk::<3>()?;
    let (exchange, rest) = rest.split_at_checked(usize::from(exchange_len))?;
    let (&key_len, rest) = rest.split_first()?;
    let (routing_key, rest) = rest.split_at_checked(usize::from(key_len))?;
    let &[bits] = rest else { return None };
    (*prefix == BasicPublish::PREFIX).then_some(())?;
    Some(BasicPublish {
        ticket: u16::from_be_bytes([ticket_high, ticket_low]),
        exchange: std::str::from_utf8(exchange).ok()?,
        routing_key: std::str::from_utf8(routing_key).ok()?,
        mandatory: bits & 1 != 0,
        immediate: bits & 2 != 0,
    })
}

/// Body size and properties of a content header that has nothing wrong with it.
pub(crate) fn split_header(payload: &[u8], message_bytes_max: u64) -> Option<(usize, &[u8])> {
    let (fixed, properties) = payload.split_first_chunk::<12>()?;
    let [0, 60, 0, 0, total @ ..] = *fixed else { return None };
    let total = u64::from_be_bytes(total);
    if total > message_bytes_max || Properties::from_raw(properties).check().is_err() {
        return None;
    }
    Some((usize::try_from(total).ok()?, properties))
}

/// A part of a message where none was announced belongs to no method.
fn no_method_first() -> ProtocolError {
    ProtocolError::new(ReplyCode::UnexpectedFrame, "expected method frame, got non method frame instead")
}

fn unexpected(text: &str) -> ProtocolError {
    ProtocolError::new(ReplyCode::UnexpectedFrame, text).in_method(BasicPublish::ID)
}

fn syntax(text: &str) -> ProtocolError {
    ProtocolError::new(ReplyCode::SyntaxError, text).in_method(BasicPublish::ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amqp::method::Method;

    proptest! {
        #[test]
        fn a_publish_is_read_as_the_table_of_methods_reads_it(
            ticket in any::<u16>(),
            exchange in ".{0,40}",
            routing_key in ".{0,40}",
            bits in any::<[bool; 2]>(),
            cut in 0..4_usize,
            flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let [mandatory, immediate] = bits;
            let mut payload = Vec::new();
            let (exchange, routing_key) = (exchange.as_str(), routing_key.as_str());
            BasicPublish { ticket, exchange, routing_key, mandatory, immediate }.encode(&mut payload);
            payload.truncate(payload.len() - cut.min(2));
            if cut == 3 {
                payload.push(0);
            }
            if let Some((at, byte)) = flip {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            let expected = match Method::decode(&payload) {
                Ok(Method::BasicPublish(publish)) => Some(publish),
                _ => None,
            };
            prop_assert_eq!(split_publish(&payload), expected);
        }
    }
}
