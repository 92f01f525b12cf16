//! Basic properties that can be changed and written again.

use super::properties::Field;
use crate::value::Table;

/// The fourteen basic properties, owned. Short strings are bytes: nothing in the protocol says that they are text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PropertiesBuf {
    /// `content-type`
    pub content_type: Option<Vec<u8>>,
    /// `content-encoding`
    pub content_encoding: Option<Vec<u8>>,
    /// `headers`
    pub headers: Option<Table>,
    /// `delivery-mode`: 2 is persistent
    pub delivery_mode: Option<u8>,
    /// `priority`
    pub priority: Option<u8>,
    /// `correlation-id`
    pub correlation_id: Option<Vec<u8>>,
    /// `reply-to`
    pub reply_to: Option<Vec<u8>>,
    /// `expiration`: milliseconds as decimal text
    pub expiration: Option<Vec<u8>>,
    /// `message-id`
    pub message_id: Option<Vec<u8>>,
    /// `timestamp`: seconds since 1970
    pub timestamp: Option<u64>,
    /// `type`
    pub kind: Option<Vec<u8>>,
    /// `user-id`
    pub user_id: Option<Vec<u8>>,
    /// `app-id`
    pub app_id: Option<Vec<u8>>,
    /// `cluster-id`
    pub cluster_id: Option<Vec<u8>>,
}

impl PropertiesBuf {
    /// Writes the raw form: flags, then values. Short strings are cut after 255 bytes, which is all the wire can carry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer { flags: 0, out: vec![0, 0] };
        writer.short(Field::ContentType, self.content_type.as_deref());
        writer.short(Field::ContentEncoding, self.content_encoding.as_deref());
        writer.table(Field::Headers, self.headers.as_ref());
        writer.fixed(Field::DeliveryMode, self.delivery_mode.map(u8::to_be_bytes));
        writer.fixed(Field::Priority, self.priority.map(u8::to_be_bytes));
        writer.short(Field::CorrelationId, self.correlation_id.as_deref());
        writer.short(Field::ReplyTo, self.reply_to.as_deref());
        writer.short(Field::Expiration, self.expiration.as_deref());
        writer.short(Field::MessageId, self.message_id.as_deref());
        writer.fixed(Field::Timestamp, self.timestamp.map(u64::to_be_bytes));
        writer.short(Field::Kind, self.kind.as_deref());
        writer.short(Field::UserId, self.user_id.as_deref());
        writer.short(Field::AppId, self.app_id.as_deref());
        writer.short(Field::ClusterId, self.cluster_id.as_deref());
        writer.finish()
    }
}

/// Appends values and collects their flags. Fields are written in the order of the flags.
struct Writer {
    flags: u16,
    out: Vec<u8>,
}

impl Writer {
    fn short(&mut self, field: Field, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        self.flags |= field.bit();
        self.out.push(length);
        self.out.extend(value.iter().take(length.into()));
    }

    fn fixed<const N: usize>(&mut self, field: Field, value: Option<[u8; N]>) {
        let Some(value) = value else { return };
        self.flags |= field.bit();
        self.out.extend_from_slice(&value);
    }

    fn table(&mut self, field: Field, value: Option<&Table>) {
        let Some(value) = value else { return };
        self.flags |= field.bit();
        value.encode_with_length(&mut self.out);
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(flags) = self.out.first_chunk_mut::<2>() {
            *flags = self.flags.to_be_bytes();
        }
        self.out
    }
}
