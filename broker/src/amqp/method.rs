//! Every method of AMQP 0-9-1 as RabbitMQ speaks it, in one table (semantics 34).
//!
//! The table makes a struct per method, the [`Method`] enum with its codec, and [`METHODS`], which names fields and
//! types for whoever works with methods by name: logs and scenario files. Strings and tables are borrowed from the payload.

use plugin_api::value::TableRef;

use super::wire::{Reader, WireError, Writer};

/// Class and method number, as close frames carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId {
    /// The class, such as 50 for queue.
    pub class: u16,
    /// The method within its class.
    pub method: u16,
}

impl MethodId {
    /// How the payload of its method begins.
    pub const fn prefix(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.class.to_be_bytes(), self.method.to_be_bytes());
        [a, b, c, d]
    }
}

/// The type of a field as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// An unsigned 8-bit integer.
    Octet,
    /// An unsigned 16-bit integer.
    Short,
    /// An unsigned 32-bit integer.
    Long,
    /// An unsigned 64-bit integer.
    Longlong,
    /// One bit.
    Bit,
    /// UTF-8 of at most 255 bytes.
    Shortstr,
    /// Any bytes.
    Longstr,
    /// A field table.
    Table,
}

/// A field's value, for work by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// An unsigned 8-bit integer.
    Octet(u8),
    /// An unsigned 16-bit integer.
    Short(u16),
    /// An unsigned 32-bit integer.
    Long(u32),
    /// An unsigned 64-bit integer.
    Longlong(u64),
    /// One bit.
    Bit(bool),
    /// UTF-8 of at most 255 bytes.
    Shortstr(&'a str),
    /// Any bytes.
    Longstr(&'a [u8]),
    /// A field table.
    Table(TableRef<'a>),
}

impl FieldValue<'_> {
    /// Appends the value. Bits are packed by `writer`.
    pub fn write(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Octet(v) => writer.octet(v),
            Self::Short(v) => writer.short(v),
            Self::Long(v) => writer.long(v),
            Self::Longlong(v) => writer.longlong(v),
            Self::Bit(v) => writer.bit(v),
            Self::Shortstr(v) => writer.shortstr(v),
            Self::Longstr(v) => writer.longstr(v),
            Self::Table(v) => writer.table(v),
        }
    }
}

/// One row of the table of methods.
#[derive(Clone, Copy, Debug)]
pub struct MethodDescriptor {
    /// `queue.declare-ok`.
    pub name: &'static str,
    /// Its numbers.
    pub id: MethodId,
    /// Whether a content header and body follow.
    pub has_content: bool,
    /// Name (with underscores) and type of each argument in order.
    pub fields: &'static [(&'static str, FieldKind)],
}

/// Why a method frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// Fewer than four bytes.
    #[error("method frame without class and method")]
    NoId,
    /// No such class or method (semantics 1.17).
    #[error("unknown method {}.{}", .0.class, .0.method)]
    Unknown(MethodId),
    /// The arguments do not fit the method's signature (semantics 1.16).
    #[error("{1}")]
    Arguments(MethodId, WireError),
}

macro_rules! field_type {
    (octet $($lt:lifetime)?) => { u8 };
    (short $($lt:lifetime)?) => { u16 };
    (long $($lt:lifetime)?) => { u32 };
    (longlong $($lt:lifetime)?) => { u64 };
    (bit $($lt:lifetime)?) => { bool };
    (shortstr $lt:lifetime) => { &$lt str };
    (longstr $lt:lifetime) => { &$lt [u8] };
    (table $lt:lifetime) => { TableRef<$lt> };
}

/// A method's struct: one arm for those that borrow from the payload, one for the rest.
macro_rules! method_struct {
    ($name:literal $class:literal $method:literal $variant:ident [$lt:lifetime] { $($field:ident: $kind:ident),* }) => {
        #[doc = concat!("`", $name, "` (", $class, ", ", $method, ").")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the fields are those of the specification")]
        pub struct $variant<$lt> { $(pub $field: field_type!($kind $lt),)* }

        impl<$lt> $variant<$lt> {
            fn read(reader: &mut Reader<$lt>) -> Result<Self, WireError> {
                Ok(Self { $($field: reader.$kind()?,)* })
            }
        }
    };
    ($name:literal $class:literal $method:literal $variant:ident [] { $($field:ident: $kind:ident),* }) => {
        #[doc = concat!("`", $name, "` (", $class, ", ", $method, ").")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the fields are those of the specification")]
        pub struct $variant { $(pub $field: field_type!($kind),)* }

        impl $variant {
            #[allow(unused_variables, clippy::unnecessary_wraps, reason = "some methods have no arguments")]
            fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self { $($field: reader.$kind()?,)* })
            }
        }
    };
}

macro_rules! field_kind {
    (octet) => {
        FieldKind::Octet
    };
    (short) => {
        FieldKind::Short
    };
    (long) => {
        FieldKind::Long
    };
    (longlong) => {
        FieldKind::Longlong
    };
    (bit) => {
        FieldKind::Bit
    };
    (shortstr) => {
        FieldKind::Shortstr
    };
    (longstr) => {
        FieldKind::Longstr
    };
    (table) => {
        FieldKind::Table
    };
}

macro_rules! field_value {
    (octet $v:expr) => {
        FieldValue::Octet($v)
    };
    (short $v:expr) => {
        FieldValue::Short($v)
    };
    (long $v:expr) => {
        FieldValue::Long($v)
    };
    (longlong $v:expr) => {
        FieldValue::Longlong($v)
    };
    (bit $v:expr) => {
        FieldValue::Bit($v)
    };
    (shortstr $v:expr) => {
        FieldValue::Shortstr($v)
    };
    (longstr $v:expr) => {
        FieldValue::Longstr($v)
    };
    (table $v:expr) => {
        FieldValue::Table($v)
    };
}

macro_rules! methods {
    ($m:lifetime; $($class:literal $method:literal $name:literal $variant:ident $(<$lt:lifetime>)? $([$content:ident])? { $($field:ident: $kind:ident),* $(,)? })*) => {
        $(
            method_struct!($name $class $method $variant [$($lt)?] { $($field: $kind),* });

            impl $(<$lt>)? $variant $(<$lt>)? {
                /// Class and method number.
                pub const ID: MethodId = MethodId { class: $class, method: $method };
                /// How its payload begins.
                pub const PREFIX: [u8; 4] = Self::ID.prefix();

                /// Whether a payload is this method.
                pub fn is(payload: &[u8]) -> bool {
                    payload.first_chunk() == Some(&Self::PREFIX)
                }

                /// Appends class, method and arguments.
                #[inline]
                pub fn encode(&self, out: &mut Vec<u8>) {
                    let mut writer = Writer::new(out);
                    writer.short($class);
                    writer.short($method);
                    $(writer.$kind(self.$field);)*
                }
            }

            impl<$m> From<$variant $(<$lt>)?> for Method<$m> {
                fn from(method: $variant $(<$lt>)?) -> Self {
                    Self::$variant(method)
                }
            }
        )*

        /// Any method.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Method<$m> {
            $(#[doc = concat!("`", $name, "`.")] $variant($variant $(<$lt>)?),)*
        }

        impl<$m> Method<$m> {
            /// Reads the payload of a method frame.
            ///
            /// # Errors
            /// See [`MethodError`].
            pub fn decode(payload: &$m [u8]) -> Result<Self, MethodError> {
                let mut reader = Reader::new(payload);
                let id = match (reader.short(), reader.short()) {
                    (Ok(class), Ok(method)) => MethodId { class, method },
                    _ => return Err(MethodError::NoId),
                };
                let method = match (id.class, id.method) {
                    $(($class, $method) => $variant::read(&mut reader).map(Self::$variant),)*
                    _ => return Err(MethodError::Unknown(id)),
                };
                method.and_then(|m| reader.end().map(|()| m)).map_err(|e| MethodError::Arguments(id, e))
            }

            /// Appends class, method and arguments: the payload of a method frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(m) => m.encode(out),)* }
            }

            /// Class and method number.
            pub fn id(&self) -> MethodId {
                match self { $(Self::$variant(_) => $variant::ID,)* }
            }

            /// `queue.declare-ok`.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// Names (with underscores) and values of the arguments in order.
            pub fn fields(&self) -> Vec<(&'static str, FieldValue<$m>)> {
                match self { $(Self::$variant(_m) => vec![$((stringify!($field), field_value!($kind _m.$field)),)*],)* }
            }
        }

        /// Every method.
        pub const METHODS: &[MethodDescriptor] = &[
            $(MethodDescriptor {
                name: $name,
                id: MethodId { class: $class, method: $method },
                has_content: methods!(@content $($content)?),
                fields: &[$((stringify!($field), field_kind!($kind)),)*],
            },)*
        ];
    };
    (@content content) => { true };
    (@content) => { false };
}

methods! { 'a;
    10 10 "connection.start" ConnectionStart<'a> { version_major: octet, version_minor: octet, server_properties: table, mechanisms: longstr, locales: longstr }
    10 11 "connection.start-ok" ConnectionStartOk<'a> { client_properties: table, mechanism: shortstr, response: longstr, locale: shortstr }
    10 20 "connection.secure" ConnectionSecure<'a> { challenge: longstr }
    10 21 "connection.secure-ok" ConnectionSecureOk<'a> { response: longstr }
    10 30 "connection.tune" ConnectionTune { channel_max: short, frame_max: long, heartbeat: short }
    10 31 "connection.tune-ok" ConnectionTuneOk { channel_max: short, frame_max: long, heartbeat: short }
    10 40 "connection.open" ConnectionOpen<'a> { virtual_host: shortstr, capabilities: shortstr, insist: bit }
    10 41 "connection.open-ok" ConnectionOpenOk<'a> { known_hosts: shortstr }
    10 50 "connection.close" ConnectionClose<'a> { reply_code: short, reply_text: shortstr, class_id: short, method_id: short }
    10 51 "connection.close-ok" ConnectionCloseOk { }
    10 60 "connection.blocked" ConnectionBlocked<'a> { reason: shortstr }
    10 61 "connection.unblocked" ConnectionUnblocked { }
    10 70 "connection.update-secret" ConnectionUpdateSecret<'a> { new_secret: longstr, reason: shortstr }
    10 71 "connection.update-secret-ok" ConnectionUpdateSecretOk { }

    20 10 "channel.open" ChannelOpen<'a> { out_of_band: shortstr }
    20 11 "channel.open-ok" ChannelOpenOk<'a> { channel_id: longstr }
    20 20 "channel.flow" ChannelFlow { active: bit }
    20 21 "channel.flow-ok" ChannelFlowOk { active: bit }
    20 40 "channel.close" ChannelClose<'a> { reply_code: short, reply_text: shortstr, class_id: short, method_id: short }
    20 41 "channel.close-ok" ChannelCloseOk { }

    30 10 "access.request" AccessRequest<'a> { realm: shortstr, exclusive: bit, passive: bit, active: bit, write: bit, read: bit }
    30 11 "access.request-ok" AccessRequestOk { ticket: short }

    40 10 "exchange.declare" ExchangeDeclare<'a> { ticket: short, exchange: shortstr, kind: shortstr, passive: bit, durable: bit, auto_delete: bit, internal: bit, nowait: bit, arguments: table }
    40 11 "exchange.declare-ok" ExchangeDeclareOk { }
    40 20 "exchange.delete" ExchangeDelete<'a> { ticket: short, exchange: shortstr, if_unused: bit, nowait: bit }
    40 21 "exchange.delete-ok" ExchangeDeleteOk { }
    40 30 "exchange.bind" ExchangeBind<'a> { ticket: short, destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    40 31 "exchange.bind-ok" ExchangeBindOk { }
    40 40 "exchange.unbind" ExchangeUnbind<'a> { ticket: short, destination: shortstr, source: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    40 51 "exchange.unbind-ok" ExchangeUnbindOk { }

    50 10 "queue.declare" QueueDeclare<'a> { ticket: short, queue: shortstr, passive: bit, durable: bit, exclusive: bit, auto_delete: bit, nowait: bit, arguments: table }
    50 11 "queue.declare-ok" QueueDeclareOk<'a> { queue: shortstr, message_count: long, consumer_count: long }
    50 20 "queue.bind" QueueBind<'a> { ticket: short, queue: shortstr, exchange: shortstr, routing_key: shortstr, nowait: bit, arguments: table }
    50 21 "queue.bind-ok" QueueBindOk { }
    50 30 "queue.purge" QueuePurge<'a> { ticket: short, queue: shortstr, nowait: bit }
    50 31 "queue.purge-ok" QueuePurgeOk { message_count: long }
    50 40 "queue.delete" QueueDelete<'a> { ticket: short, queue: shortstr, if_unused: bit, if_empty: bit, nowait: bit }
    50 41 "queue.delete-ok" QueueDeleteOk { message_count: long }
    50 50 "queue.unbind" QueueUnbind<'a> { ticket: short, queue: shortstr, exchange: shortstr, routing_key: shortstr, arguments: table }
    50 51 "queue.unbind-ok" QueueUnbindOk { }

    60 10 "basic.qos" BasicQos { prefetch_size: long, prefetch_count: short, global: bit }
    60 11 "basic.qos-ok" BasicQosOk { }
    60 20 "basic.consume" BasicConsume<'a> { ticket: short, queue: shortstr, consumer_tag: shortstr, no_local: bit, no_ack: bit, exclusive: bit, nowait: bit, arguments: table }
    60 21 "basic.consume-ok" BasicConsumeOk<'a> { consumer_tag: shortstr }
    60 30 "basic.cancel" BasicCancel<'a> { consumer_tag: shortstr, nowait: bit }
    60 31 "basic.cancel-ok" BasicCancelOk<'a> { consumer_tag: shortstr }
    60 40 "basic.publish" BasicPublish<'a> [content] { ticket: short, exchange: shortstr, routing_key: shortstr, mandatory: bit, immediate: bit }
    60 50 "basic.return" BasicReturn<'a> [content] { reply_code: short, reply_text: shortstr, exchange: shortstr, routing_key: shortstr }
    60 60 "basic.deliver" BasicDeliver<'a> [content] { consumer_tag: shortstr, delivery_tag: longlong, redelivered: bit, exchange: shortstr, routing_key: shortstr }
    60 70 "basic.get" BasicGet<'a> { ticket: short, queue: shortstr, no_ack: bit }
    60 71 "basic.get-ok" BasicGetOk<'a> [content] { delivery_tag: longlong, redelivered: bit, exchange: shortstr, routing_key: shortstr, message_count: long }
    60 72 "basic.get-empty" BasicGetEmpty<'a> { cluster_id: shortstr }
    60 80 "basic.ack" BasicAck { delivery_tag: longlong, multiple: bit }
    60 90 "basic.reject" BasicReject { delivery_tag: longlong, requeue: bit }
    60 100 "basic.recover-async" BasicRecoverAsync { requeue: bit }
    60 110 "basic.recover" BasicRecover { requeue: bit }
    60 111 "basic.recover-ok" BasicRecoverOk { }
    60 120 "basic.nack" BasicNack { delivery_tag: longlong, multiple: bit, requeue: bit }

    85 10 "confirm.select" ConfirmSelect { nowait: bit }
    85 11 "confirm.select-ok" ConfirmSelectOk { }

    90 10 "tx.select" TxSelect { }
    90 11 "tx.select-ok" TxSelectOk { }
    90 20 "tx.commit" TxCommit { }
    90 21 "tx.commit-ok" TxCommitOk { }
    90 30 "tx.rollback" TxRollback { }
    90 31 "tx.rollback-ok" TxRollbackOk { }
}
