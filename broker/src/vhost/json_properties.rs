//! The properties of a message as JSON, by the names of the management API.

use plugin_api::message::Properties;
use serde_json::{Map, Value as Json, json};

use super::json_table::table_to_json;

/// Those that are set.
#[must_use]
pub fn shown_properties(properties: Properties<'_>) -> Map<String, Json> {
    let mut shown = Map::new();
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            shown.insert(name.to_owned(), json!(String::from_utf8_lossy(value)));
        }
    }
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", properties.timestamp()),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            shown.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(headers) = properties.headers().and_then(|headers| headers.to_owned().ok()) {
        shown.insert("headers".to_owned(), Json::Object(table_to_json(&headers)));
    }
    shown
}
