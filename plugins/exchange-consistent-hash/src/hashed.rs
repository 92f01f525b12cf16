//! What is hashed: the routing key, a header or a property.
//!
//! A message that lacks the header or the property is hashed as the empty one, so that all of these go to one destination.

use plugin_api::error::Invalid;
use plugin_api::exchange::DependsOn;
use plugin_api::hash;
use plugin_api::message::Message;
use plugin_api::value::{Table, Value, ValueRef};

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hashed {
    RoutingKey,
    Header(String),
    Property(Property),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    CorrelationId,
    MessageId,
    Timestamp,
}

const HEADER: &str = "hash-header";
const PROPERTY: &str = "hash-property";

impl Hashed {
    /// What the arguments of an exchange ask for.
    ///
    /// # Errors
    /// RabbitMQ's texts; for an argument of a wrong type, which ends RabbitMQ's connection, our own.
    pub(crate) fn of(arguments: &Table) -> Result<Self, Invalid> {
        match (text(arguments, HEADER)?, text(arguments, PROPERTY)?) {
            (None, None) => Ok(Self::RoutingKey),
            (Some(header), None) => Ok(Self::Header(header)),
            (None, Some(property)) => match property.as_str() {
                "correlation_id" => Ok(Self::Property(Property::CorrelationId)),
                "message_id" => Ok(Self::Property(Property::MessageId)),
                "timestamp" => Ok(Self::Property(Property::Timestamp)),
                _ => Err(Invalid::new(format!("Unsupported property: {property}"))),
            },
            (Some(_), Some(_)) => Err(Invalid::new("hash-header and hash-property are mutually exclusive")),
        }
    }

    /// What a route depends on, then.
    pub(crate) const fn depends_on(&self) -> DependsOn {
        match self {
            Self::RoutingKey => DependsOn::Key,
            Self::Header(_) => DependsOn::KeyAndHeaders,
            Self::Property(_) => DependsOn::State,
        }
    }

    /// The hash of a message.
    #[inline]
    pub(crate) fn hash(&self, message: &Message<'_>) -> u64 {
        match self {
            Self::RoutingKey => hash::stable(message.routing_key.as_bytes()),
            Self::Header(name) => {
                let value = message.properties.headers().and_then(|headers| headers.get(name));
                value.map_or_else(|| hash::stable(b""), hash_of_value)
            }
            Self::Property(Property::CorrelationId) => hash_of_bytes(message.properties.correlation_id()),
            Self::Property(Property::MessageId) => hash_of_bytes(message.properties.message_id()),
            Self::Property(Property::Timestamp) => {
                let timestamp = message.properties.timestamp();
                hash_of_bytes(timestamp.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice))
            }
        }
    }
}

fn text(arguments: &Table, name: &str) -> Result<Option<String>, Invalid> {
    match arguments.get(name) {
        None => Ok(None),
        Some(Value::LongString(text)) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        Some(other) => Err(Invalid::new(format!("invalid type '{}' for arg '{name}'", other.type_name()))),
    }
}

fn hash_of_bytes(bytes: Option<&[u8]>) -> u64 {
    hash::stable(bytes.unwrap_or_default())
}

/// Numbers by their value, whatever their width, and texts by their bytes, whether they are `S` or `x`.
fn hash_of_value(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::LongString(bytes) | ValueRef::Bytes(bytes) => hash::stable(bytes),
        _ => match (value.as_i64(), value.to_owned()) {
            (Some(number), _) => hash::mix(number as u64),
            (None, Ok(value)) => hash::stable(&Table::new().with("", value).canonical()),
            (None, Err(_)) => hash::stable(b""),
        },
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::message::{Properties, PropertiesBuf};

    use super::*;

    fn hash_of(hashed: &Hashed, properties: PropertiesBuf) -> u64 {
        let raw = properties.encode();
        hashed.hash(&Message { properties: Properties::from_raw(&raw), ..Message::with_key("key") })
    }

    fn with_header(value: impl Into<Value>) -> PropertiesBuf {
        PropertiesBuf { headers: Some(Table::new().with("h", value)), ..PropertiesBuf::default() }
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_in_rabbitmqs_words() {
        let error = |arguments: Table| Hashed::of(&arguments).unwrap_err().text;
        assert_eq!(
            error(Table::new().with(HEADER, "h").with(PROPERTY, "message_id")),
            "hash-header and hash-property are mutually exclusive"
        );
        assert_eq!(error(Table::new().with(PROPERTY, "app_id")), "Unsupported property: app_id");
        assert_eq!(error(Table::new().with(HEADER, 1_i32)), "invalid type 'signedint' for arg 'hash-header'");
    }

    #[test]
    fn header_is_hashed_by_value_and_a_missing_one_as_empty() {
        let hashed = Hashed::of(&Table::new().with(HEADER, "h")).unwrap();
        let hash = |value: Value| hash_of(&hashed, with_header(value));
        assert_eq!(hash(Value::I64(5)), hash(Value::I16(5)));
        assert_eq!(hash(Value::from("x")), hash(Value::Bytes(b"x".to_vec())));
        let values = [
            Value::I64(5),
            Value::from("5"),
            Value::F64(5.5),
            Value::Bool(true),
            Value::Void,
            Value::Table(Table::new().with("a", 1_i32)),
            Value::Array(vec![Value::I64(5)]),
        ];
        let hashes: std::collections::BTreeSet<u64> = values.into_iter().map(hash).collect();
        assert_eq!(hashes.len(), 7, "values that differ are hashed differently");
        assert_eq!(hash_of(&hashed, PropertiesBuf::default()), hash(Value::from("")));
        assert_eq!(hash_of(&hashed, with_header(1_i32)), hash(Value::I32(1)));
    }

    #[test]
    fn each_property_is_hashed_by_itself() {
        let hash = |name: &str, properties: PropertiesBuf| {
            hash_of(&Hashed::of(&Table::new().with(PROPERTY, name)).unwrap(), properties)
        };
        let none = PropertiesBuf::default;
        let all = PropertiesBuf {
            message_id: Some(b"m".to_vec()),
            correlation_id: Some(b"c".to_vec()),
            timestamp: Some(7),
            ..none()
        };
        let one = PropertiesBuf { message_id: Some(b"m".to_vec()), ..none() };
        assert_eq!(hash("message_id", all.clone()), hash("message_id", one.clone()));
        assert_eq!(hash("correlation_id", one.clone()), hash("timestamp", one));
        assert_ne!(hash("correlation_id", all.clone()), hash("correlation_id", none()));
        assert_ne!(hash("timestamp", all.clone()), hash("timestamp", PropertiesBuf { timestamp: Some(8), ..all }));
    }
}
