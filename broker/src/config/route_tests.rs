//! `tests`: messages, and where they shall go.

use plugin_api::message::PropertiesBuf;
use plugin_api::value::Table;

use super::reader::{Fields, Hint, Reader, Section};
use super::yaml::{Node, Value};
use crate::topology::check::{Item, Part};
use crate::topology::schema::{ExpectDecl, RouteTestDecl, Topology};

pub(super) const TEST: Section = Section {
    what: "a test",
    keys: &["name", "vhost", "exchange", "routing_key", "headers", "properties", "body", "mandatory", "user", "expect"],
    hints: &[
        ("key", Hint::Instead("did you mean 'routing_key'?")),
        ("publish", Hint::Instead("name the exchange: 'exchange: orders'")),
        ("queues", Hint::Instead("write 'expect: [QUEUE, …]'")),
    ],
};

pub(super) const PROPERTIES: Section = Section {
    what: "the properties of a message",
    keys: &[
        "content_type",
        "content_encoding",
        "delivery_mode",
        "priority",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "timestamp",
        "type",
        "user_id",
        "app_id",
    ],
    hints: &[("headers", Hint::Instead("headers stand beside 'properties'"))],
};

pub(super) const EXPECT: Section = Section {
    what: "what is expected",
    keys: &["queues", "dropped", "returned", "rejected", "dead_lettered"],
    hints: &[],
};

const FORM: &str = "write 'expect: [QUEUE, …]', dropped, returned, or '{ rejected: PART OF THE REASON }'";

/// A vhost that is not named is the only one of the file, or `/`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    let vhost = match topology.vhosts.as_slice() {
        [only] => only.name.clone(),
        _ => "/".to_owned(),
    };
    if matches!(node.value, Value::Mapping(_)) {
        return reader.wrong(node, "a list of tests", "begin each with '-'");
    }
    for item in reader.items(node) {
        let place = Item::Test(topology.tests.len());
        reader.place(place, Part::Whole, item.span);
        let Some(fields) = reader.fields(item, &TEST) else { continue };
        if let Some(test) = test(reader, item, &fields, place, &vhost) {
            topology.tests.push(test);
        }
    }
}

fn test(
    reader: &mut Reader<'_>,
    item: &Node,
    fields: &Fields<'_>,
    place: Item,
    default_vhost: &str,
) -> Option<RouteTestDecl> {
    let mut text = |key: &str, part: Option<Part>| {
        let node = fields.get(key)?;
        if let Some(part) = part {
            reader.place(place, part, node.span);
        }
        reader.text(node)
    };
    let name = text("name", None);
    let vhost = text("vhost", Some(Part::Vhost)).unwrap_or_else(|| default_vhost.to_owned());
    let exchange = text("exchange", Some(Part::Exchange));
    let routing_key = text("routing_key", Some(Part::RoutingKey)).unwrap_or_default();
    let body = text("body", None).unwrap_or_default().into_bytes();
    let user = text("user", Some(Part::User));
    if fields.get("exchange").is_none() {
        reader.error(item.span, "a test needs an exchange", "add 'exchange: …', or '' for the default one");
    }
    let headers = fields.get("headers").map(|node| reader.arguments(node, place)).unwrap_or_default();
    let mut properties = fields.get("properties").map(|node| properties(reader, node)).unwrap_or_default();
    properties.headers = (headers != Table::new()).then_some(headers);
    let mandatory = fields.get("mandatory").and_then(|node| reader.flag(node)).unwrap_or(false);
    let Some(expected) = fields.get("expect") else {
        reader.error(item.span, "a test expects something", FORM);
        return None;
    };
    let expect = expect(reader, expected, place)?;
    let exchange = match exchange? {
        name if name == "amq.default" => String::new(),
        name => name,
    };
    Some(RouteTestDecl { name, vhost, exchange, routing_key, properties, body, mandatory, user, expect })
}

fn properties(reader: &mut Reader<'_>, node: &Node) -> PropertiesBuf {
    let mut properties = PropertiesBuf::default();
    let Some(fields) = reader.fields(node, &PROPERTIES) else { return properties };
    for (key, value) in [
        ("content_type", &mut properties.content_type),
        ("content_encoding", &mut properties.content_encoding),
        ("correlation_id", &mut properties.correlation_id),
        ("reply_to", &mut properties.reply_to),
        ("expiration", &mut properties.expiration),
        ("message_id", &mut properties.message_id),
        ("type", &mut properties.kind),
        ("user_id", &mut properties.user_id),
        ("app_id", &mut properties.app_id),
    ] {
        let Some(node) = fields.get(key) else { continue };
        let text = reader.text(node);
        if text.as_ref().is_some_and(|text| text.len() > SHORT_BYTES_MAX) {
            reader.error(
                node.span,
                format!("longer than {SHORT_BYTES_MAX} bytes"),
                "the protocol has no room for more",
            );
        }
        *value = text.map(String::into_bytes);
    }
    for (key, value) in [("delivery_mode", &mut properties.delivery_mode), ("priority", &mut properties.priority)] {
        let number = fields.get(key).and_then(|node| reader.number(node, 0..=255));
        *value = number.and_then(|number| u8::try_from(number).ok());
    }
    properties.timestamp = fields.get("timestamp").and_then(|node| reader.number(node, 0..=u64::MAX));
    properties
}

/// A short string of the protocol.
const SHORT_BYTES_MAX: usize = 255;

fn expect(reader: &mut Reader<'_>, node: &Node, place: Item) -> Option<ExpectDecl> {
    match &node.value {
        Value::List(items) => Some(ExpectDecl::Queues(queues(reader, items, place))),
        Value::Scalar(_) => {
            const WORDS: &[(&str, u8)] = &[("dropped", 0), ("returned", 1), ("rejected", 2), ("dead_lettered", 3)];
            Some(match reader.choice(node, WORDS)? {
                0 => ExpectDecl::Dropped(String::new()),
                1 => ExpectDecl::Returned,
                2 => ExpectDecl::Rejected(String::new()),
                _ => ExpectDecl::DeadLettered(None),
            })
        }
        Value::Mapping(_) => {
            let fields = reader.fields(node, &EXPECT)?;
            let given: Vec<&str> = EXPECT.keys.iter().copied().filter(|key| fields.get(key).is_some()).collect();
            let [key] = given.as_slice() else {
                reader.error(node.span, "a test expects one thing", FORM);
                return None;
            };
            let value = fields.get(key)?;
            Some(match *key {
                "queues" => ExpectDecl::Queues(queues(reader, reader_items(value), place)),
                "dropped" => ExpectDecl::Dropped(reader.text(value)?),
                "rejected" => ExpectDecl::Rejected(reader.text(value)?),
                "dead_lettered" => ExpectDecl::DeadLettered(Some(queues(reader, reader_items(value), place))),
                _ => ExpectDecl::Returned,
            })
        }
    }
}

fn reader_items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn queues(reader: &mut Reader<'_>, items: &[Node], place: Item) -> Vec<String> {
    let mut queues: Vec<String> = Vec::new();
    for item in items {
        let Some(name) = reader.text(item) else { continue };
        if queues.contains(&name) {
            reader.error(item.span, format!("queue '{name}' stands here twice"), "a message reaches a queue once");
            continue;
        }
        reader.place(place, Part::Expected(queues.len()), item.span);
        queues.push(name);
    }
    queues
}
